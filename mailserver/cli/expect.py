"""``mailserver expect``: for a while a user's mail is neither greylisted nor held as a stranger's."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from mailserver.cli.contacts import USE, offline_commands
from mailserver.cli.filter_records import run, tell
from mailserver.cli.output import Unable, as_json, moment, plain, say, table
from mailserver.cli.queue_orders import who

__all__ = ["add_to"]


def add_to(commands: Any, common: argparse.ArgumentParser, summary: str) -> None:
    """Declare the command."""
    expecting = commands.add_parser("expect", parents=[common], help=summary)
    expecting.add_argument("user", metavar="USER", nargs="?", default="", help="the user's address")
    expecting.add_argument("--minutes", metavar="N", type=float, default=30.0, help="for so long (default: 30; 1440 at most)")
    expecting.add_argument("--domain", metavar="DOMAIN", default="", help="only from this domain and those below it")
    what = expecting.add_mutually_exclusive_group()
    what.add_argument("--list", action="store_true", help="print what is expected, of all users or of this one")
    what.add_argument("--end", action="store_true", help="end it, with --domain that alone")
    expecting.add_argument("--filter", metavar="NAME", default="", help="where there are several: the table's name")
    expecting.set_defaults(run=expect)


def expect(options: argparse.Namespace) -> int:
    """Open a window, end it, or print those that are open."""
    if options.list:
        return _show(options)
    if not options.user:
        raise Unable("who expects mail? Name a user, or say --list", 2)
    given: dict[str, Any] = {"user": options.user} | ({"domain": options.domain} if options.domain else {})
    if options.end:
        return tell(options, _run(options, "unexpect", given))
    return tell(options, _run(options, "expect", given | {"minutes": options.minutes, "by": who()[:100]}))


def _show(options: argparse.Namespace) -> int:
    rows = _run(options, "expected", {"user": options.user} if options.user else {})
    if options.json:
        as_json(rows)
    elif not rows:
        say("Nobody expects mail.")
    else:
        table(
            ("USER", "FROM", "UNTIL", "BY"),
            [(plain(row["user"]), plain(row["domain"]) or "anybody", moment(row["until"]), plain(row["by"])) for row in rows],
        )
    return 0


def _run(options: argparse.Namespace, command: str, given: Mapping[str, Any]) -> Any:
    from mailserver.config import load

    return run(load(options.config), USE, options.filter, command, given, offline_commands)
