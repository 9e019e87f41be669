"""``mailserver subaddress``: addresses such as alice+shop@example.org, each for one sender, closed by one command."""

from __future__ import annotations

import argparse
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from mailserver.cli.filter_records import option_of, run, tell
from mailserver.cli.output import as_json, moment, plain, say, table
from mailserver.cli.queue_orders import who

if TYPE_CHECKING:
    from mailserver.config import Configuration

__all__ = ["add_to"]

USE = "subaddresses"
WHOM = {"": "(who writes first)", "*": "anybody"}


def add_to(commands: Any, common: argparse.ArgumentParser, summary: str) -> None:
    """Declare the command."""
    subaddress = commands.add_parser("subaddress", help=summary)
    actions = subaddress.add_subparsers(title="actions", metavar="ACTION", required=True)
    opening = actions.add_parser("open", parents=[common], help="give an address to a sender, or open it again")
    opening.add_argument("--from", dest="domain", metavar="DOMAIN", default=None,
        help="who may write to it; * is anybody (default: whoever does so first)")  # fmt: skip
    closing = actions.add_parser("close", parents=[common], help="take no more mail for an address")
    forgetting = actions.add_parser("forget", parents=[common], help="let an address be like any other")
    for parser in (opening, closing, forgetting):
        parser.add_argument("address", metavar="ADDRESS", help="the whole address: alice+shop@example.org")
    listing = actions.add_parser("list", parents=[common], help="the addresses, with how often they were used")
    listing.add_argument("user", metavar="USER", nargs="?", default="", help="this user's alone")
    for parser, function in ((opening, open_address), (closing, close), (forgetting, forget), (listing, show)):
        parser.set_defaults(run=function)
        parser.add_argument("--filter", metavar="NAME", default="", help="where there are several: the table's name")


def open_address(options: argparse.Namespace) -> int:
    """Give an address to a sender, or open it again."""
    more = {} if options.domain is None else {"domain": options.domain}
    return tell(options, _run(options, "open", {"address": options.address, "by": who()[:100], **more}))


def close(options: argparse.Namespace) -> int:
    """Take no more mail for an address."""
    return tell(options, _run(options, "close", {"address": options.address, "by": who()[:100]}))


def forget(options: argparse.Namespace) -> int:
    """Let it be like any other.  Return 1 where nothing is known of it."""
    return tell(options, _run(options, "forget", {"address": options.address}))


def show(options: argparse.Namespace) -> int:
    """Print the addresses."""
    rows = _run(options, "list", {"user": options.user} if options.user else {})
    if options.json:
        as_json(rows)
    elif not rows:
        say("There are no such addresses.")
    else:
        table(
            ("ADDRESS", "STATE", "FOR", " RIGHT", " OTHERS", " REFUSED", "SINCE", "BY"),
            [
                (
                    plain(row["address"]), row["state"], plain(WHOM.get(row["domain"], row["domain"])),
                    *["" if row[name] is None else str(row[name]) for name in ("right", "other", "refused")],
                    moment(row["since"]), plain(row["by"]) or row["how"],
                )
                for row in rows
            ],
        )  # fmt: skip
    return 0


def _run(options: argparse.Namespace, command: str, given: Mapping[str, Any]) -> Any:
    from mailserver.config import load

    return run(load(options.config), USE, options.filter, command, given, _offline)


def _offline(configuration: Configuration, name: str) -> Callable[[Any, Any], Awaitable[Any]]:
    from mailserver.filters.subaddress_book import SubaddressBook
    from mailserver.filters.subaddress_commands import commands_of

    most, separator = int(option_of(configuration, name, "addresses", 1000)), option_of(configuration, name, "separator", "+")

    async def commands(records: Any, clock: Any) -> Any:
        return commands_of(SubaddressBook(records, clock=clock, state=None, most=most), separator=str(separator))

    return commands
