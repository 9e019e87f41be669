"""``mailserver suppression``: addresses that accounts write to no more, since their hosts say that they do not exist."""

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

USE = "suppression"
USER_HELP = "the account; @example.org: mail of this domain that comes without a login"


def add_to(commands: Any, common: argparse.ArgumentParser, summary: str) -> None:
    """Declare the command."""
    suppression = commands.add_parser("suppression", help=summary)
    actions = suppression.add_subparsers(title="actions", metavar="ACTION", required=True)
    listing = actions.add_parser("list", parents=[common], help="who gets no mail any more, and who was refused once")
    listing.add_argument("user", metavar="USER", nargs="?", default="", help="this account's alone")
    removing = actions.add_parser("remove", parents=[common], help="let an account write to an address again")
    adding = actions.add_parser("add", parents=[common], help="let an account write to an address no more")
    for parser in (removing, adding):
        parser.add_argument("user", metavar="USER", help=USER_HELP)
        parser.add_argument("address", metavar="ADDRESS", help="the address that gets no mail")
    for parser, function in ((listing, show), (removing, remove), (adding, add)):
        parser.set_defaults(run=function)
        parser.add_argument("--filter", metavar="NAME", default="", help="where there are several: the table's name")


def show(options: argparse.Namespace) -> int:
    """Print the addresses."""
    rows = _run(options, "list", {"user": options.user} if options.user else {})
    if options.json:
        as_json(rows)
    elif not rows:
        say("There are no such addresses.")
    else:
        table(
            ("USER", "ADDRESS", "STATE", "STATUS", "FIRST REFUSED", "SINCE", "UNTIL", "BY"),
            [
                (
                    plain(row["user"]), plain(row["address"]), row["state"], row["status"],
                    *["" if row[name] is None else moment(row[name]) for name in ("first", "since", "until")],
                    plain(row["by"]),
                )
                for row in rows
            ],
        )  # fmt: skip
    return 0


def remove(options: argparse.Namespace) -> int:
    """Let the account write there again.  Return 1 where nothing is known of the address."""
    return tell(options, _run(options, "remove", _given(options)))


def add(options: argparse.Namespace) -> int:
    """Let the account write there no more."""
    return tell(options, _run(options, "add", _given(options)))


def _given(options: argparse.Namespace) -> dict[str, str]:
    return {"user": options.user, "address": options.address, "by": who()[:100]}


def _run(options: argparse.Namespace, command: str, given: Mapping[str, Any]) -> Any:
    from mailserver.config import load

    return run(load(options.config), USE, options.filter, command, given, _offline)


def _offline(configuration: Configuration, name: str) -> Callable[[Any, Any], Awaitable[Any]]:
    from mailserver.filters.suppression import SuppressionsOptions
    from mailserver.filters.suppression_book import SuppressionBook
    from mailserver.filters.suppression_commands import commands_of

    usual = SuppressionsOptions()
    most, within, expire = [
        option_of(configuration, name, option, getattr(usual, option)) for option in ("addresses", "within", "expire")
    ]

    async def commands(records: Any, clock: Any) -> Any:
        book = SuppressionBook(records, clock=clock, most=most, within_seconds=within, expire_seconds=expire)
        return commands_of(book, within_seconds=within, expire_seconds=expire)

    return commands
