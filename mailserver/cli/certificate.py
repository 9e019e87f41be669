"""``mailserver certificate``: the certificates that come from a CA by ACME: list, get another, roll a key over, revoke."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING, Any

from mailserver.cli.asking import ask_server
from mailserver.cli.output import EX_IOERR, Unable, age, as_json, moment, plain, say
from mailserver.cli.queue_orders import who
from mailserver.config import load
from mailserver.control.certificate_facts import REASONS, described
from mailserver.control.client import NoServer
from mailserver.processes.identity import as_owner_of

if TYPE_CHECKING:
    from mailserver.config import Configuration

__all__ = ["add_to"]

WAIT_SECONDS = 270.0  # a CA may take its time; after 240 the server says that it goes on


def add_to(commands: Any, common: argparse.ArgumentParser, summary: str) -> None:
    """Declare the command."""
    certificate = commands.add_parser("certificate", help=summary)
    actions = certificate.add_subparsers(title="actions", metavar="ACTION", required=True)
    listing = actions.add_parser("list", parents=[common], help="what there is, until when, what is due, what has failed")
    listing.set_defaults(run=list_certificates)
    renewing = actions.add_parser("renew", parents=[common], help="get another one now, with the same key")
    renewing.set_defaults(run=renew)
    rolling = actions.add_parser(
        "rollover", parents=[common], help="use the next key, as soon as the DNS has shown its TLSA record long enough"
    )
    rolling.set_defaults(run=roll_over)
    revoking = actions.add_parser("revoke", parents=[common], help="have the present one revoked, and get another at once")
    at_once = "keyCompromise: the next key is used at once, whatever the DNS shows"
    revoking.add_argument("--reason", choices=sorted(REASONS), required=True, help=at_once)
    revoking.set_defaults(run=revoke)
    for parser in (renewing, rolling, revoking):
        parser.add_argument("name", nargs="?", choices=("mail", "web"), default="mail", help="which one (default: mail)")


def list_certificates(options: argparse.Namespace) -> int:
    """Print them.  Return 1 where one is late."""
    configuration = load(options.config)
    try:
        found = ask_server(configuration.data, "certificate.list", {})["certificates"]
    except NoServer:
        found = _without_server(configuration)
    if options.json:
        as_json(found)
    else:
        if not found and configuration.by_acme is None:
            say("No certificate comes from a CA by ACME: [tls] acme = true has it so.")
        elif not found:
            say("There is none yet.")
        for one in found:
            _print(one, time.time())
    return 1 if any(one["late"] for one in found) else 0


def renew(options: argparse.Namespace) -> int:
    """Get another one now."""
    return _ordered(options, "certificate.renew", {})


def roll_over(options: argparse.Namespace) -> int:
    """Use the next key."""
    return _ordered(options, "certificate.rollover", {})


def revoke(options: argparse.Namespace) -> int:
    """Have it revoked."""
    return _ordered(options, "certificate.revoke", {"reason": options.reason})


def _ordered(options: argparse.Namespace, command: str, arguments: dict[str, Any]) -> int:
    configuration = load(options.config)
    if configuration.by_acme is None:
        raise Unable("no certificate comes from a CA by ACME: [tls] acme = true has it so")
    arguments |= {"name": options.name, "by": who()}
    found = ask_server(configuration.data, command, arguments, timeout_seconds=WAIT_SECONDS)["certificate"]
    if options.json:
        as_json(found)
    else:
        _print(found, time.time())
    return 0


def _without_server(configuration: Configuration) -> list[dict[str, Any]]:
    """What the files say.  Raises `Unable`."""
    from mailserver.acme.progress import read_progress
    from mailserver.acme.visit import visited
    from mailserver.tls import IdentityError
    from mailserver.tls.issued import read_issued

    found, now, keys = [], time.time(), configuration.keys_path
    try:
        with as_owner_of(configuration.data):
            for name in ("mail", "web") if configuration.by_acme is not None else ():
                identity, progress = read_issued(keys, name), read_progress(keys, name)
                if identity is None and not progress.tried_at:
                    continue
                found.append(described(visited(keys, name, identity, progress, (), now)))
    except (OSError, IdentityError) as error:
        raise Unable(str(error), EX_IOERR) from error
    return found


def _print(one: dict[str, Any], now: float) -> None:
    rows = [("names", ", ".join(one["names"]) or "there is no certificate yet")]
    if one["names"]:
        left = age(one["ends"] - now) if one["ends"] > now else "it has expired"
        rows += [("ends", f"{moment(one['ends'])} ({left})"), ("issuer", one["issuer"]), ("serial", one["serial"])]
    rows.append(("from", one["directory"]))
    rows.append(("next try" if one["error"] or not one["names"] else "renewed", moment(max(one["due"], now))))
    if one["window"]:
        rows.append(("the CA suggests", " to ".join(map(moment, one["window"]))))
    rows.append(("because", one["explanation"]))
    rows += [("TLSA", f"3 1 1 {one['spki']}" if one["spki"] else ""), ("next TLSA", f"3 1 1 {one['next_spki']}")]
    if one["roll"]:
        rows.append(("roll-over", one["waits_for"] or "with the next certificate"))
    elif one["waits_for"]:
        rows.append(("waits for", one["waits_for"]))
    if one["error"]:
        rows.append(("failed", f"{one['failures']} times, last {moment(one['tried_at'])}: {one['error']}"))
    rows += [("left out", ", ".join(one["left_out"]))] + [("remark", remark) for remark in one["remarks"]]
    say(f"{one['name']}{': late' if one['late'] else ''}")
    for title, text in rows:
        if text:
            say(f"    {title:<16}{plain(text)}")
