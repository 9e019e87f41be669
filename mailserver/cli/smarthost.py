"""``mailserver smarthost``: log in at the smarthost with OAuth, once, for the server; and look at the token that it has.

A token itself is never printed.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import hashlib
import math
import os
import secrets
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlencode, urlsplit

from twisted.internet._resolver import GAIResolver
from twisted.internet.task import deferLater
from twisted.python.threadpool import ThreadPool

from mailserver.cli.output import EX_IOERR, Unable, age, as_json, moment, plain, say, table
from mailserver.cli.without_server import NotNow, finished
from mailserver.processes.identity import as_owner_of
from mailserver.relay.route_maker import token_hops, token_issuer
from mailserver.relay.token_answers import DeviceCode, IssuedTokens, TokenFailed
from mailserver.relay.token_file import TOKEN_FILE, OtherTokens, TokenFile
from mailserver.relay.token_issuer import TokenIssuer

if TYPE_CHECKING:
    from mailserver.config import Configuration
    from mailserver.config.route_table import NextHop

__all__ = ["add_to", "token_doubts"]

QUESTION_SECONDS = 30.0
SLOW_DOWN_SECONDS = 5.0  # RFC 8628 section 3.5
REFRESH_SOON_SECONDS = 7 * 86_400.0
STALE_SECONDS = 86_400.0  # a server that runs has had a new one long since
REDIRECT = "http://localhost"  # nobody listens there: the address bar shows what is wanted
LOOK_AGAIN = "mailserver smarthost login"


def add_to(commands: Any, common: argparse.ArgumentParser, summary: str) -> None:
    """Declare the command."""
    smarthost = commands.add_parser("smarthost", help=summary)
    actions = smarthost.add_subparsers(title="actions", metavar="ACTION", required=True)
    login = actions.add_parser("login", parents=[common], help="get the first token, or a new one, from the issuer")
    login.set_defaults(run=log_in)
    status = actions.add_parser("status", parents=[common], help="how long the token is good for; 1 where there is none")
    status.set_defaults(run=show_status)
    for action in (login, status):
        action.add_argument("--user", metavar="USERNAME", default="", help="whose log-in, where routes have several")


def log_in(options: argparse.Namespace) -> int:
    """Get a token in the way that the configuration says, and keep it for the server."""
    from twisted.internet import reactor

    configuration = _configuration(options)
    smarthost, file = _chosen(configuration, options.user)
    _make_folder(configuration)
    with as_owner_of(configuration.keys_path):
        issuer = token_issuer(smarthost, reactor, time.time)
        tokens = _tokens(smarthost, issuer)
        try:
            file.write(tokens)
        except OSError as error:
            raise Unable(f"{error.filename or file.path}: {error.strerror or error}", EX_IOERR) from error
    say(f"there is a token for {smarthost.username} at {smarthost.host}, good for {age(tokens.lifetime)}")
    if tokens.refresh or smarthost.oauth_flow == "client":
        say("the server gets the next ones by itself")
    else:
        say("the issuer gave no refresh token, so the server cannot get the next one: is a scope such as offline_access missing?")
    return 0


def show_status(options: argparse.Namespace) -> int:
    """Print what is known of the token in the file.  Return 1 where there is none that is of use."""
    configuration = _configuration(options)
    smarthost, file = _chosen(configuration, options.user)
    now = time.time()
    try:
        tokens = _read(configuration, file)
    except (OSError, OtherTokens) as error:
        raise Unable(f"{error}", EX_IOERR) from error
    facts: dict[str, Any] = {"host": smarthost.host, "user": smarthost.username, "issuer": smarthost.oauth}
    facts["token"] = tokens is not None
    if tokens is not None:
        left, refresh_left = tokens.seconds_left(now), tokens.refresh_seconds_left(now)
        facts |= {
            "obtained_at": tokens.obtained_at, "seconds_left": round(left), "refreshes": _refreshes(smarthost, tokens),
            "refresh_seconds_left": None if math.isinf(refresh_left) else round(refresh_left),
        }  # fmt: skip
    doubts = _doubts(configuration, smarthost, file)
    if options.json:
        as_json({**facts, "doubts": doubts})
    else:
        rows = [("host", str(smarthost.host)), ("user", smarthost.username), ("issuer", smarthost.oauth)]
        if tokens is not None:
            rows += [("obtained", moment(tokens.obtained_at)), ("good for", age(left) if left else "no longer")]
            rows += [("next ones", "by the server itself" if facts["refreshes"] else "need a log-in by a person")]
        table(("", ""), rows)
        say(*[f"warning: {one}" for one in doubts])
    is_of_use = smarthost.oauth_flow == "client" or (tokens is not None and (facts["refreshes"] or facts["seconds_left"] > 0))
    return 0 if is_of_use else 1


def token_doubts(configuration: Configuration) -> list[str]:
    """What is wrong, or soon will be, with the token in the file, a sentence each; none where no OAuth is configured."""
    return [doubt for hop, file in token_hops(configuration) for doubt in _doubts(configuration, hop, file)]


def _doubts(configuration: Configuration, smarthost: NextHop, file: TokenFile) -> list[str]:
    where, again = "relay.oauth", LOOK_AGAIN
    if os.path.basename(file.path) != TOKEN_FILE:
        where, again = f"route: oauth of {plain(smarthost.username)}", f"{LOOK_AGAIN} --user {plain(smarthost.username)}"
    try:
        tokens, now = _read(configuration, file), time.time()
    except (OSError, OtherTokens) as error:
        return [f"{where}: the token cannot be read: {error} ({again})"]
    is_client = smarthost.oauth_flow == "client"
    if tokens is None:
        return [] if is_client else [f"{where}: there is no token yet, and mail for other hosts waits: {again}"]
    left, refresh_left = tokens.seconds_left(now), tokens.refresh_seconds_left(now)
    if not _refreshes(smarthost, tokens):
        if left:
            return [f"{where}: the token ends in {age(left)}, and there is no refresh token for the next one: {again}"]
        return [f"{where}: the token has ended, and there is no refresh token for the next one: {again}"]
    if not is_client and refresh_left < REFRESH_SOON_SECONDS:
        when = f"ends in {age(refresh_left)}" if refresh_left else "has ended"
        return [f"{where}: the refresh token {when}: {again}"]
    if not left and now - tokens.obtained_at - tokens.lifetime > STALE_SECONDS:
        ended = moment(tokens.obtained_at + tokens.lifetime)
        return [f"{where}: the token has ended on {ended}, and no server has got a new one"]
    return []


def _configuration(options: argparse.Namespace) -> Configuration:
    """With the options of its components."""
    from mailserver.config import load
    from mailserver.plugins.catalogue import discover

    return load(options.config, discover().options_of)


def _chosen(configuration: Configuration, user: str) -> tuple[NextHop, TokenFile]:
    """The one log-in with tokens, or the one of this user.  Raises `Unable`."""
    found = token_hops(configuration)
    if not found:
        raise Unable('the configuration has no [relay] with use = "smarthost" and oauth, and no such [[route]]')
    chosen = [one for one in found if user in ("", one[0].username)]
    if len(chosen) != 1:
        users = ", ".join(sorted({hop.username for hop, _ in found}))
        raise Unable(f"name one with --user: {users}" if chosen else f"nobody logs in as {user}: {users}")
    return chosen[0]


def _refreshes(smarthost: NextHop, tokens: IssuedTokens) -> bool:
    return smarthost.oauth_flow == "client" or bool(tokens.refresh)


def _read(configuration: Configuration, file: TokenFile) -> IssuedTokens | None:
    if not os.path.isdir(configuration.keys_path):
        return None
    with as_owner_of(configuration.keys_path):
        return file.read()[1]


def _make_folder(configuration: Configuration) -> None:
    """The folder of keys, for the server's user alone."""
    from mailserver.cli.dkim import make_keys_folder

    try:
        make_keys_folder(configuration)
    except OSError as error:
        raise Unable(f"{error.filename or configuration.keys_path}: {error.strerror or error}", EX_IOERR) from error


# --- the flows ---


def _tokens(smarthost: NextHop, issuer: TokenIssuer) -> IssuedTokens:
    if smarthost.oauth_flow == "client":
        tokens: IssuedTokens = _asked(issuer.renewed(None))
        return tokens
    return _by_code(issuer) if smarthost.oauth_flow == "code" else _by_device(issuer)


def _asked(question: Awaitable[Any], seconds: float = QUESTION_SECONDS) -> Any:
    try:
        with _names():
            return finished(question, seconds)
    except TokenFailed as fault:
        raise Unable(str(fault)) from None
    except NotNow:
        raise Unable("the issuer gives no answer") from None


@contextlib.contextmanager
def _names() -> Iterator[None]:
    """Host names are looked up in threads, and a reactor that only turns has started none."""
    from twisted.internet import reactor as the_reactor

    reactor: Any = the_reactor
    pool = ThreadPool(0, 2, "names")
    pool.start()
    before = reactor.installNameResolver(GAIResolver(reactor, lambda: pool))
    try:
        yield
    finally:
        reactor.installNameResolver(before)
        pool.stop()


def _by_device(issuer: TokenIssuer) -> IssuedTokens:
    code: DeviceCode = _asked(issuer.device_code())
    say(f"Open  {plain(code.place)}  on any device, enter the code  {plain(code.user_code)}  and agree as the mailbox's user.")
    sys.stdout.flush()
    tokens: IssuedTokens = _asked(_until_agreed(issuer, code, time.monotonic), code.seconds + QUESTION_SECONDS)
    return tokens


async def _until_agreed(issuer: TokenIssuer, code: DeviceCode, seconds: Callable[[], float]) -> IssuedTokens:
    from twisted.internet import reactor

    interval, until = code.interval_seconds, seconds() + code.seconds
    while seconds() < until:
        await deferLater(reactor, interval)
        try:
            return await issuer.of_device(code)
        except TokenFailed as fault:
            if fault.error == "slow_down":
                interval += SLOW_DOWN_SECONDS
            elif fault.error and fault.error != "authorization_pending":
                raise
            elif not fault.error:
                interval = min(interval * 2, 60.0)  # RFC 8628 section 3.5: where it does not answer
    raise TokenFailed("nobody has agreed in time: the code has ended")


def _by_code(issuer: TokenIssuer) -> IssuedTokens:
    endpoint = _asked(issuer.metadata()).authorization_endpoint
    if not endpoint:
        raise Unable("the issuer's metadata name no authorization_endpoint")
    verifier, state = secrets.token_urlsafe(48), secrets.token_urlsafe(16)
    # RFC 7636 section 4.2: whoever overhears the code has no use for it.
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode("ascii")).digest()).rstrip(b"=").decode("ascii")
    question = {
        "response_type": "code", "client_id": issuer.client.id, "redirect_uri": REDIRECT, "state": state,
        "scope": " ".join(issuer.client.scopes), "code_challenge": challenge, "code_challenge_method": "S256",
        "access_type": "offline",  # Google's word for a refresh token; others leave it unheeded (RFC 6749 section 3.1)
    }  # fmt: skip
    say("Open this address in a browser, on any device, and agree as the mailbox's user:", "")
    say(f"{plain(endpoint)}{'&' if urlsplit(endpoint).query else '?'}{urlencode(question)}", "")
    say(f"The browser ends at an address that begins with {REDIRECT} and shows no page. Copy that address to here:")
    sys.stdout.flush()
    answer = parse_qs(urlsplit(sys.stdin.readline(16_384).strip()).query)
    if answer.get("state") != [state]:
        raise Unable("this is no address that belongs to the one above")
    if "code" not in answer:
        raise Unable(f"the issuer refuses: {plain(' '.join(answer.get('error', ['no code'])))[:200]}")
    tokens: IssuedTokens = _asked(issuer.of_code(answer["code"][0], verifier, REDIRECT))
    return tokens
