"""``mailserver list``: the white, black and grey lists of the filter ``lists``.

The server that runs makes the change, and goes by it at once; where none runs, it is made in the records.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mailserver.cli.asking import ask_server
from mailserver.cli.output import EX_IOERR, Unable, as_json, moment, plain, say, table
from mailserver.cli.queue_orders import who
from mailserver.config.filter_order import filter_names
from mailserver.control.client import NoServer
from mailserver.mail.faults import StorageFault

if TYPE_CHECKING:
    from mailserver.config import Configuration
    from mailserver.filters.list_book import ListBook
    from mailserver.filters.list_entries import Entry

__all__ = ["add_to", "entries_by_claim"]

SECONDS = 35.0


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
    return _tell(options, "add", given)


def remove(options: argparse.Namespace) -> int:
    """Remove an entry.  Return 1 where there is none."""
    return _tell(options, "remove", {"entry": options.entry, "scope": _scope(options)})


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
        for name in _names(configuration)
        for entry in _in_files(configuration, name, _entries)
        if entry.is_proved_by_claim
    ]


async def _entries(book: ListBook) -> list[Entry]:
    return [*book.table]


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


def _tell(options: argparse.Namespace, command: str, given: Mapping[str, Any]) -> int:
    answer = _run(options, command, given)
    if options.json:
        as_json({"done": answer})
    else:
        say(plain(answer))
    return 0


def _run(options: argparse.Namespace, command: str, given: Mapping[str, Any]) -> Any:
    from mailserver.config import load

    configuration = load(options.config)
    names = _names(configuration)
    name = options.filter or (names[0] if names else "")
    if name not in names:
        words = f"no filter {plain(name)!r} with" if name else "no table  [[filter]]  with"
        raise Unable(f'the configuration has {words}  use = "lists"')
    question = {"name": name, "command": command, "arguments": dict(given)}
    try:
        return ask_server(configuration.data, "component.run", question, SECONDS)["answer"]
    except NoServer:
        return _command_in_files(configuration, name, command, given)


def _names(configuration: Configuration) -> list[str]:
    names = filter_names([(one.use, one.name) for one in configuration.filter])
    return [name for name, one in zip(names, configuration.filter, strict=True) if one.use == "lists"]


def _separator(configuration: Configuration, name: str) -> str:
    names = filter_names([(one.use, one.name) for one in configuration.filter])
    options = configuration.filter[names.index(name)].options or {}
    return str(options.get("separator", "+") if isinstance(options, Mapping) else options.separator)


def _command_in_files(configuration: Configuration, name: str, command: str, given: Mapping[str, Any]) -> Any:
    from mailserver.filters.list_commands import commands_of

    def act(book: ListBook) -> Any:
        offered = commands_of(book, separator=_separator(configuration, name))
        return next(one.run for one in offered if one.name == command)(**given)

    return _in_files(configuration, name, act)


def _in_files(configuration: Configuration, name: str, act: Callable[[ListBook], Awaitable[Any]]) -> Any:
    """What `act` returns, of the entries as the records have them.  Raises `Unable`."""
    from twisted.internet.task import Clock

    from mailserver.cli.without_server import finished, in_place
    from mailserver.filters.list_book import ListBook
    from mailserver.interfaces import CannotDo
    from mailserver.processes.identity import as_owner_of
    from mailserver.state_store import RecordStore
    from mailserver.state_store.records_file import RECORDS

    clock = Clock()
    clock.advance(time.time())
    path = os.path.join(configuration.data, RECORDS)
    try:
        with as_owner_of(configuration.data):
            store = RecordStore(path=path, clock=clock, new_threads=in_place)
            finished(store.start())
            try:
                book = ListBook(store.space(f"filter/{name}"), clock=clock, state=None)
                if os.path.exists(path):
                    finished(book.read())
                return finished(act(book))
            finally:
                finished(store.stop())
    except CannotDo as error:
        raise Unable(str(error)) from error
    except (StorageFault, OSError) as error:
        raise Unable(str(error), EX_IOERR) from error
