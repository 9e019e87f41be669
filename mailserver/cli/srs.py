"""``mailserver srs``: the keys of the return paths with which forwarded mail leaves."""

from __future__ import annotations

import argparse
import calendar
import os
import time
from typing import TYPE_CHECKING, Any

from mailserver.cli.output import EX_IOERR, Unable, as_json, moment, plain, say, table

if TYPE_CHECKING:
    from mailserver.config import Configuration

__all__ = ["add_to", "srs_doubts", "srs_notes"]


def add_to(commands: Any, common: argparse.ArgumentParser, summary: str) -> None:
    """Declare the command."""
    srs = commands.add_parser("srs", help=summary)
    actions = srs.add_subparsers(title="actions", metavar="ACTION", required=True)
    listing = actions.add_parser("keys", parents=[common], help="the keys: the newest makes, the others are understood")
    listing.set_defaults(run=list_keys)
    rotating = actions.add_parser("rotate", parents=[common], help="make a new key; it is used within five minutes")
    rotating.add_argument(
        "--forget", action="store_true", help="remove all others: bounces to what they have made are refused from then on"
    )
    rotating.set_defaults(run=rotate)


def list_keys(options: argparse.Namespace) -> int:
    """Print the keys; none of them is shown."""
    from mailserver.config import load

    configuration = load(options.config)
    names = [name for name, _ in _read(configuration)]
    since = [calendar.timegm(time.strptime(name, "%Y%m%dT%H%M%SZ.key")) for name in names]
    if options.json:
        as_json([{"name": name, "since": when, "makes": n == 0} for n, (name, when) in enumerate(zip(names, since, strict=True))])
    elif names:
        words = ["makes", *["is understood"] * (len(names) - 1)]
        table(("KEY", "SINCE", ""), list(zip(names, map(moment, since), words, strict=True)))
    else:
        say("there is no key yet: the server makes one with the first message that an alias sends on")
    return 0


def rotate(options: argparse.Namespace) -> int:
    """Make a new key."""
    from mailserver.cli.dkim import make_keys_folder
    from mailserver.config import load
    from mailserver.processes.identity import as_owner_of
    from mailserver.trust.srs_keys import forget_srs_keys, rotate_srs_key

    configuration = load(options.config)
    try:
        make_keys_folder(configuration)
        with as_owner_of(configuration.keys_path):
            name = rotate_srs_key(configuration.keys_path, time.time())
            gone = forget_srs_keys(configuration.keys_path, but=name) if options.forget else []
    except OSError as error:
        raise Unable(_words(error), EX_IOERR) from error
    say(f"return paths are made with {name} within five minutes, or from the server's start on")
    say(*[f"{one} is removed" for one in gone])
    return 0


def srs_doubts(configuration: Configuration) -> list[str]:
    """What keeps forwarded mail from leaving, or its bounces from coming home, a sentence each."""
    from mailserver.processes.identity import as_owner_of
    from mailserver.trust.srs_keys import former_secrets

    found, former = [], configuration.forward.former_secrets
    if former is not None:
        try:
            with as_owner_of(configuration.data):
                if not former_secrets(former):
                    found.append(f"forward.former_secrets: there is no secret in {former}")
        except OSError as error:
            found.append(f"forward.former_secrets: mail that aliases send on waits: {_words(error)}")
    if not _sends_on(configuration) or not configuration.forward.srs:
        return found
    folder = configuration.keys_path
    try:
        if not _read(configuration):
            while not os.path.lexists(folder):
                folder = os.path.dirname(folder)
            with as_owner_of(configuration.data):
                if not os.access(folder, os.W_OK | os.X_OK, effective_ids=True):
                    found.append(f"forward.srs: mail that aliases send on waits: no key can be made below {folder}")
    except Unable as error:
        found.append(f"forward.srs: mail that aliases send on waits: {error}")
    return found


def srs_notes(configuration: Configuration) -> list[str]:
    """What could be better."""
    if _sends_on(configuration) and all(one.use not in ("spf", "dmarc") for one in configuration.filter):
        return [
            'forward: no [[filter]] with use = "spf" says who has sent what aliases send on: where the next host refuses it,'
            " postmaster is told, and no stranger"
        ]
    return []


def _sends_on(configuration: Configuration) -> bool:
    """An alias has a member at another host, and there is a relay."""
    if configuration.relay.use == "none":
        return False
    own = {name.lower() for name in configuration.domain}
    return any(
        member.domain and member.domain.lower() not in own and f"*.{member.domain.lower().partition('.')[2]}" not in own
        for table in configuration.domain.values()
        for members in table.aliases.values()
        for member in members
    )


def _read(configuration: Configuration) -> list[tuple[str, bytes]]:
    from mailserver.processes.identity import as_owner_of
    from mailserver.trust.srs_keys import read_srs_keys

    try:
        with as_owner_of(configuration.data):
            return read_srs_keys(configuration.keys_path)
    except OSError as error:
        raise Unable(_words(error), EX_IOERR) from error


def _words(error: OSError) -> str:
    return plain(f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error))
