"""``mailserver contacts``: whom a user has to do with, and what becomes of mail from strangers that is held for him.

The server that runs makes the change and delivers what is held; where none runs, the decision is kept, and carried out when one
does.
"""

from __future__ import annotations

import argparse
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from mailserver.cli.filter_records import option_of, run, tell
from mailserver.cli.output import as_json, moment, plain, say, table
from mailserver.cli.queue_orders import who
from mailserver.config.filter_order import filter_names

if TYPE_CHECKING:
    from mailserver.config import Configuration

__all__ = ["USE", "add_to", "contact_doubts", "offline_commands", "tell"]

USE = "contacts"
EVIDENCE = {"pass": "shown", "fail": "DENIED", "none": "not shown"}


def add_to(commands: Any, common: argparse.ArgumentParser, summary: str) -> None:
    """Declare the command."""
    contacts = commands.add_parser("contacts", help=summary)
    contacts.add_argument("user", metavar="USER", help="the user's address; for `hold` also @DOMAIN, or site")
    actions = contacts.add_subparsers(title="actions", metavar="ACTION", required=True)
    listing = actions.add_parser("list", parents=[common], help="contacts and decisions")
    pending = actions.add_parser("pending", parents=[common], help="what waits for a decision")
    accepting = actions.add_parser("accept", parents=[common], help="deliver what is held from a sender, and what comes")
    accepting.add_argument("--evidence", choices=("aligned", "none"), default="",
        help="none: whoever says that he is the one is taken for him")  # fmt: skip
    refusing = actions.add_parser("refuse", parents=[common], help="put what is held into Junk, and refuse what comes")
    for parser in (accepting, refusing):
        parser.add_argument("--once", action="store_true", help="only what is held now")
    forgetting = actions.add_parser("forget", parents=[common], help="let a contact or a decision be none")
    for parser in (accepting, refusing, forgetting):
        parser.add_argument("sender", metavar="SENDER", help="address, domain, .domain (all below it)")
    clearing = actions.add_parser("clear", parents=[common], help="forget all that is kept of a user, as of one who has left")
    holding = actions.add_parser("hold", parents=[common], help="whether mail from strangers is held; or where it is")
    holding.add_argument("holds", metavar="SETTING", nargs="?", choices=("on", "off", "default"), default=None,
        help="on, off, or default: as the domain or the site says")  # fmt: skip
    for parser, function in (
        (listing, show), (pending, show_pending), (accepting, accept), (refusing, refuse), (forgetting, forget),
        (clearing, clear), (holding, hold),
    ):  # fmt: skip
        parser.set_defaults(run=function)
        parser.add_argument("--filter", metavar="NAME", default="", help="where there are several: the table's name")


def show(options: argparse.Namespace) -> int:
    """Print contacts and decisions."""
    rows = _run(options, "list", {"user": options.user})
    if options.json:
        as_json(rows)
    elif not rows:
        say("There are no contacts.")
    else:
        table(
            ("STATE", "CONTACT", "SINCE", "BY"),
            [
                (row["state"], _named(row), moment(row["since"]), plain(row["by"]))
                for row in rows
            ],
        )  # fmt: skip
    return 0


def _named(row: Mapping[str, Any]) -> str:
    return plain(row["contact"]) + (" (no evidence)" if row["evidence"] == "none" else "")


def show_pending(options: argparse.Namespace) -> int:
    """Print what waits for the user's decision."""
    rows = _run(options, "pending", {"user": options.user})
    if options.json:
        as_json(rows)
    elif not rows:
        say("Nothing waits for a decision.")
    else:
        table(
            ("ID", "SENDER", "EVIDENCE", "SINCE", "SUBJECT"),
            [
                (plain(row["id"]), plain(row["sender"]), EVIDENCE.get(row["evidence"], "not shown"), moment(row["since"]),
                 plain(row["subject"]))
                for row in rows
            ],
        )  # fmt: skip
    return 0


def accept(options: argparse.Namespace) -> int:
    """Deliver what is held, and what comes."""
    return _decide(options, "accept", {"evidence": options.evidence} if options.evidence else {})


def refuse(options: argparse.Namespace) -> int:
    """Put what is held into Junk, and refuse what comes."""
    return _decide(options, "refuse", {})


def forget(options: argparse.Namespace) -> int:
    """Let a contact be none.  Return 1 where there is none."""
    return tell(options, _run(options, "forget", {"user": options.user, "sender": options.sender}))


def clear(options: argparse.Namespace) -> int:
    """Forget all that is kept of the user."""
    return tell(options, _run(options, "clear", {"user": options.user}))


def hold(options: argparse.Namespace) -> int:
    """Say whether mail from strangers is held, or print where it is."""
    if options.holds:
        given = {"scope": options.user, "holds": options.holds, "by": who()[:100]}
        return tell(options, _run(options, "hold", given))
    rows = _run(options, "rules", {})
    if options.json:
        as_json(rows)
    elif not rows:
        say("There are no rules: what the filter's table says holds for all.")
    else:
        table(("SCOPE", "HOLD"), [(plain(row["scope"]), "on" if row["hold"] else "off") for row in rows])
    return 0


def contact_doubts(configuration: Configuration) -> list[str]:
    """What of the filter's tables does less than it seems to."""
    uses = {one.use for one in configuration.filter}
    names = filter_names([(one.use, one.name) for one in configuration.filter])
    found = []
    for name, section in zip(names, configuration.filter, strict=True):
        if section.use != USE:
            continue
        where = f"filter {name}"
        if "submission" not in section.services and option_of(configuration, name, "learn", True):
            found.append(f"{where}: services: without submission nobody's contacts are learnt")
        if not uses & {"spf", "dkim", "dmarc"}:
            found.append(f"{where}: without spf, dkim or dmarc nothing shows who has sent a message: contacts count as strangers")
        if option_of(configuration, name, "junk_after", 0.0) >= configuration.policy.held_expire:
            found.append(f"{where}: junk_after: what is held goes to Junk at policy.held_expire already")
    return found


def _decide(options: argparse.Namespace, command: str, more: Mapping[str, Any]) -> int:
    given = {"user": options.user, "sender": options.sender, "by": who()[:100], **more}
    return tell(options, _run(options, command, given | ({"once": True} if options.once else {})))


def _run(options: argparse.Namespace, command: str, given: Mapping[str, Any]) -> Any:
    from mailserver.config import load

    return run(load(options.config), USE, options.filter, command, given, offline_commands)


def offline_commands(configuration: Configuration, name: str) -> Callable[[Any, Any], Awaitable[Any]]:
    """The filter's commands over its records, without a server."""
    from mailserver.filters.contact_book import ContactBook
    from mailserver.filters.contact_commands import commands_of
    from mailserver.filters.contact_decisions import Decisions

    async def commands(records: Any, clock: Any) -> Any:
        book = ContactBook(records, clock=clock, contacts_most=int(option_of(configuration, name, "contacts", 2000)))
        await book.read()
        decisions = Decisions(book, None, name=name, refused=option_of(configuration, name, "refused", "junk"))
        return commands_of(book, decisions, separator=str(option_of(configuration, name, "separator", "+")))

    return commands
