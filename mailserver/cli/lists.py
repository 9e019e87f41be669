"""``mailserver list``: the white, black and grey lists of the filter ``lists``.

The server that runs makes the change, and goes by it at once; where none runs, it is made in the records.
"""

from __future__ import annotations

import argparse
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mailserver.cli.filter_records import in_records, names_of, option_of, run, tell
from mailserver.cli.output import Unable, as_json, moment, plain, say, table
from mailserver.cli.queue_orders import who

if TYPE_CHECKING:
    from mailserver.config import Configuration
    from mailserver.filters.list_book import ListBook
    from mailserver.filters.list_entries import Entry

__all__ = ["add_to", "entries_by_claim"]

USE = "lists"


def add_to(commands: Any, common: argparse.ArgumentParser, summary: str) -> None:
    """Declare the command."""
    lists = commands.add_parser("list", help=summary)
    actions = lists.add_subparsers(title="actions", metavar="ACTION", required=True)
    adding = actions.add_parser("add", parents=[common], help="add an entry, or put another in its place")
    adding.add_argument("colour", metavar="COLOUR", choices=("white", "black", "grey"), help="white, black or grey")
    adding.add_argument("--evidence", choices=("aligned", "none"), default="aligned",
        help="none: an allow entry helps whoever says that he is the one")  # fmt: skip
    adding.add_argument("--hard", action="store_true", help="before all entries of users and domains; of the site alone")
    adding.add_argument("--for", dest="lasts", metavar="TIME", default="", help="how long it holds: 12h, 30d")
    adding.add_argument("--comment", metavar="TEXT", default="", help="why")
    adding.set_defaults(run=add)
    removing = actions.add_parser("remove", parents=[common], help="remove an entry")
    removing.set_defaults(run=remove)
    showing = actions.add_parser("show", parents=[common], help="the entries, with hits, end, comment and who added them")
    showing.set_defaults(run=show)
    testing = actions.add_parser("test", parents=[common], help="which entries speak of a message, and which decides")
    testing.add_argument("sender", metavar="SENDER", help="the sender's address; <> for none")
    testing.add_argument("--to", dest="recipient", metavar="ADDRESS", default="", help="the recipient")
    testing.add_argument("--ip", metavar="ADDRESS", default="", help="the peer")
    testing.add_argument("--helo", metavar="NAME", default="", help="what it calls itself")
    testing.add_argument("--ptr", metavar="NAME", default="", help="its confirmed name in the DNS")
    testing.add_argument("--dkim", metavar="DOMAIN", default="", help="a signature of this domain verifies")
    testing.add_argument("--spf", metavar="DOMAIN", default="", help="SPF passes for this domain")
    testing.set_defaults(run=test)
    words = "address, domain, .domain (all below it), network, helo:NAME, ptr:NAME, dkim:DOMAIN"
    for parser, more in ((adding, {}), (removing, {}), (showing, {"nargs": "?", "default": ""})):
        parser.add_argument("entry", metavar="ENTRY", help=words, **more)
        whose = parser.add_mutually_exclusive_group()
        whose.add_argument("--user", metavar="ADDRESS", default="", help="of this user")
        whose.add_argument("--domain", metavar="DOMAIN", default="", help="of all users of this domain of ours")
        if parser is showing:
            whose.add_argument("--site", action="store_true", help="of the site")
    for parser in (adding, removing, showing, testing):
        parser.add_argument("--filter", metavar="NAME", default="", help="where there are several: the table's name")


def add(options: argparse.Namespace) -> int:
    """Add an entry."""
    given = {"colour": options.colour, "entry": options.entry, "scope": _scope(options), "comment": options.comment}
    given |= {"by": who()[:100], "evidence": options.evidence, "hard": options.hard}
    if options.lasts:
        given["seconds"] = _seconds(options.lasts)
    return tell(options, _run(options, "add", given))


def remove(options: argparse.Namespace) -> int:
    """Remove an entry.  Return 1 where there is none."""
    return tell(options, _run(options, "remove", {"entry": options.entry, "scope": _scope(options)}))


def show(options: argparse.Namespace) -> int:
    """Print the entries."""
    given = {"entry": options.entry, "scope": "site" if options.site else _scope(options)}
    rows = _run(options, "show", {name: value for name, value in given.items() if value})
    if options.json:
        as_json(rows)
    elif not rows:
        say("There are no entries.")
    else:
        table(
            ("SCOPE", "COLOUR", "ENTRY", " HITS", "UNTIL", "BY", "ADDED", "COMMENT"),
            [
                (
                    *_words(row), "" if row["hits"] is None else str(row["hits"]),
                    moment(row["until"]) + (" (over)" if row["ended"] else ""),
                    plain(row["by"]), moment(row["added"]), plain(row["comment"]),
                )
                for row in rows
            ],
        )  # fmt: skip
    return 0


def test(options: argparse.Namespace) -> int:
    """Print the entries that speak of a message, in their order.  Return 1 where none decides."""
    names = ("sender", "recipient", "ip", "helo", "ptr", "dkim", "spf")
    rows = _run(options, "test", {name: getattr(options, name) for name in names if getattr(options, name)})
    if options.json:
        as_json(rows)
    elif rows:
        table(("SCOPE", "COLOUR", "ENTRY", "SAYS"), [(*_words(row), row["says"]) for row in rows])
    else:
        say("No entry speaks of it.")
    return 0 if any(row["says"] == "decides" for row in rows) else 1


def entries_by_claim(configuration: Configuration) -> list[str]:
    """The allow entries that want no evidence, in words.  Raises `Unable`."""
    return [
        f"filter {name}: {plain(entry.words)} helps whoever says that he is the one"
        for name in names_of(configuration, USE)
        for entry in in_records(configuration, f"filter/{name}", _entries)
        if entry.is_proved_by_claim
    ]


async def _entries(records: Any, clock: Any) -> list[Entry]:
    return [*(await _book(records, clock)).table]


def _words(row: Mapping[str, Any]) -> Sequence[str]:
    believes = (row["colour"], row["evidence"]) == ("white", "none")
    notes = [*(["hard"] if row["hard"] else []), *(["no evidence"] if believes else [])]
    return plain(row["scope"]), row["colour"], plain(row["entry"]) + (f" ({', '.join(notes)})" if notes else "")


def _scope(options: argparse.Namespace) -> str:
    if options.user and "@" not in options.user.lstrip("@"):
        raise Unable("--user: a user's address has a domain", 2)
    return f"@{options.domain.removeprefix('@')}" if options.domain else str(options.user)


def _seconds(text: str) -> float:
    from mailserver.config.quantities import seconds

    try:
        return seconds(text)
    except ValueError as error:
        raise Unable(f"--for: {plain(str(error))}", 2) from error


def _run(options: argparse.Namespace, command: str, given: Mapping[str, Any]) -> Any:
    from mailserver.config import load

    return run(load(options.config), USE, options.filter, command, given, _offline)


def _offline(configuration: Configuration, name: str) -> Callable[[Any, Any], Awaitable[Any]]:
    from mailserver.filters.list_commands import commands_of

    separator = str(option_of(configuration, name, "separator", "+"))

    async def commands(records: Any, clock: Any) -> Any:
        return commands_of(await _book(records, clock), separator=separator)

    return commands


async def _book(records: Any, clock: Any) -> ListBook:
    from mailserver.filters.list_book import ListBook

    book = ListBook(records, clock=clock, state=None)
    await book.read()
    return book
