"""``mailserver quarantine``: the copies that filters hold, with their verdicts, and a person's decision about them.

They are copies in the queue like others, and the orders are the queue's.  A release takes away what holds a copy and nothing
else: the other filters judge it again.
"""

from __future__ import annotations

import argparse
import re
import time
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

from mailserver.cli.asking import ask_or_read, data_directory
from mailserver.cli.output import EX_IOERR, Unable, age, as_json, moment, plain, say, size, table
from mailserver.cli.queue_orders import OrderWork, confirm, tell
from mailserver.config.quantities import seconds
from mailserver.mail.faults import StorageFault
from mailserver.processes.identity import as_owner_of

if TYPE_CHECKING:
    from mailserver.queue.admin.selection import Selection

__all__ = ["add_to"]

PAGE = 100  # copies asked for at once
VERBS = {  # the queue's, and what is said of it
    "release": ("let through", "take away what holds a copy; the other filters judge it again, then it is delivered"),
    "junk": ("junk", "deliver into the Junk folder"),
    "drop": ("drop", "remove for good; nobody is told"),
}


def add_to(commands: Any, common: argparse.ArgumentParser, summary: str) -> None:
    """Declare the command."""
    quarantine = commands.add_parser("quarantine", help=summary)
    actions = quarantine.add_subparsers(title="actions", metavar="ACTION", required=True)
    listing = actions.add_parser("list", parents=[common], help="all copies that filters hold, oldest first")
    listing.add_argument("--limit", type=_count, default=None, metavar="N", help="no more than N copies")
    _add_filters(listing)
    listing.set_defaults(run=list_copies, ids=[])
    showing = actions.add_parser("show", parents=[common], help="one message's copies, and all that was found of them")
    showing.add_argument("ids", metavar="ID", nargs=1, help="a copy's id, or its message's")
    showing.set_defaults(run=show_copies)
    for name, (verb, words) in VERBS.items():
        parser = actions.add_parser(name, parents=[common], help=words, description=words.capitalize() + ".")
        ids = "a copy's id, a message's, or the beginning of several"
        parser.add_argument("ids", metavar="ID", nargs="*", default=[], help=ids)
        _add_filters(parser)
        parser.add_argument("--all", action="store_true", help="every copy that is held: needed where there is no filter")
        parser.add_argument("--dry-run", action="store_true", help="only say which messages it would be")
        if name == "drop":
            parser.add_argument("--yes", action="store_true", help="do not ask")
        parser.set_defaults(run=decide, verb=verb)


def _add_filters(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--user", metavar="ADDRESS", default="", help="an account, or the address that the mail came to")
    parser.add_argument("--sender", metavar="PATTERN", default="", help="such as '*@example.net'; <> for reports")
    parser.add_argument("--finding", metavar="PATTERN", default="", help="something that was found: dmarc, 'rspamd/*'")
    parser.add_argument("--held-by", metavar="FILTER", default="", help="the filter that holds it")
    parser.add_argument("--older", metavar="AGE", type=_age, default=None, help="has waited so long or longer: 2h, 3d")
    parser.add_argument("--younger", metavar="AGE", type=_age, default=None, help="has waited no longer than so")


def list_copies(options: argparse.Namespace) -> int:
    """Print them."""
    found = _copies(options, options.limit)
    if options.json:
        as_json(found)
        return 0
    now = time.time()
    rows = [
        (
            one["id"],
            age(now - one["since"]),
            "" if one["until"] is None else f"in {age(one['until'] - now)}",
            one["sender"] or "<>",
            one["recipient"],
            one["subject"],
            ", ".join(one["held_by"]),
            one["why"],
        )
        for one in found
    ]
    if rows:
        table(("ID", " AGE", "ENDS", "SENDER", "RECIPIENT", "SUBJECT", "HELD BY", "WHY"), rows)
    say(f"{len(rows)} cop{'y is' if len(rows) == 1 else 'ies are'} held." if rows else "Nothing is held.")
    return 0


def show_copies(options: argparse.Namespace) -> int:
    """Print all that is known.  Return 1 where nothing of this id is held."""
    found = _copies(options, None)
    if not found:
        raise Unable(f"nothing is held of {plain(options.ids[0])}; `mailserver explain` may know what became of it")
    if options.json:
        as_json(found)
        return 0
    for n, one in enumerate(found):
        say(*([""] if n else []), *_facts(one))
        findings = one["findings"]
        if findings:
            say("")
            rows = [(f"{it['score']:g}", f"{it['source']}/{it['name']}", it["evidence"]) for it in findings]
            table((" SCORE", "FOUND", "EVIDENCE"), rows)
    return 0


def _facts(one: dict[str, Any]) -> list[str]:
    now = time.time()
    ends = "" if one["until"] is None else f"{moment(one['until'])}, in {age(one['until'] - now)}: it is discarded then"
    by = f", who logged in as {one['login']}" if one["login"] else ""
    known = {
        "id": one["id"],
        "since": f"{moment(one['since'])}, {age(now - one['since'])} ago",
        "until": ends,
        "sender": one["sender"] or "<>",
        "from": one["author"],
        "subject": one["subject"],
        "recipient": one["recipient"],
        "goes to": one["destination"],
        "peer": f"{one['peer']}{by}",
        "size": f"{size(one['size'])} octets",
        "held by": ", ".join(one["held_by"]),
        "why": one["why"],
    }
    return [f"{name:<10}{plain(value)}" for name, value in known.items() if value]


def decide(options: argparse.Namespace) -> int:
    """Carry out the order.  Return 1 where nothing matched, or something was left unchanged."""
    from mailserver.config import load

    o = options
    filters = bool(o.user or o.sender or o.finding or o.held_by or o.older is not None or o.younger is not None)
    if not (o.ids or filters or o.all):
        raise Unable("say which copies: an id or a filter, or --all for every copy that is held", 2)
    if o.all and (o.ids or filters):
        raise Unable("--all and a filter exclude each other", 2)
    selections = _selections(o)
    work = OrderWork(load(o.config), o, o.verb)
    if o.verb == "drop" and not o.dry_run and not o.yes:
        confirm(work, selections)
    done, left = work.do(selections, dry_run=o.dry_run)
    if o.json:
        as_json({"verb": o.verb, "dry_run": o.dry_run, "done": done, "left": left})
    else:
        tell(o, o.verb, done, left)
    return 0 if done and not left else 1


def _selections(options: argparse.Namespace) -> list[Selection]:
    from mailserver.queue.admin.selection import Selection, SelectionError

    o = options
    found = []
    for id in dict.fromkeys(o.ids) or [""]:
        message, slash, index = id.partition("/")
        if slash and re.fullmatch(r"[0-9]{1,9}", index) is None:
            raise Unable(f"{plain(id)!r} is not the id of a copy", 2)
        try:
            found.append(
                Selection(
                    id=message,
                    index=int(index) if slash else None,
                    held=True,
                    user=getattr(o, "user", ""),
                    sender=getattr(o, "sender", ""),
                    finding=getattr(o, "finding", ""),
                    holders=tuple(filter(None, [getattr(o, "held_by", "")])),
                    older_seconds=getattr(o, "older", None),
                    younger_seconds=getattr(o, "younger", None),
                )
            )
        except SelectionError as error:
            raise Unable(str(error), 2) from error
    return found


def _copies(options: argparse.Namespace, limit: int | None) -> list[dict[str, Any]]:
    """All that are meant, page by page."""
    data = data_directory(options.config)
    found: list[dict[str, Any]] = []
    for selection in _selections(options):
        after: str | None = ""
        while after is not None and (limit is None or len(found) < limit):
            wanted = PAGE if limit is None else min(PAGE, limit - len(found))
            arguments = {"selection": selection.as_json(), "after": after, "limit": wanted}
            answer = ask_or_read(data, "quarantine.list", arguments, partial(_read, data, selection, after, wanted))
            found += answer["copies"]
            after = answer["next"]
    return found


def _read(data: str, selection: Selection, after: str, most: int) -> dict[str, Any]:
    from mailserver.queue.admin.held import held_copies
    from mailserver.queue.reader import closing_reader

    try:
        with as_owner_of(data), closing_reader(data) as reader:
            if reader is None:
                return {"copies": [], "next": None}
            found, further = held_copies(reader, selection, after=after, most=most, now=time.time())
            return {"copies": [asdict(one) for one in found], "next": further}
    except (StorageFault, OSError) as error:
        raise Unable(str(error), EX_IOERR) from error


def _age(text: str) -> float:
    try:
        return seconds(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a count")
    return int(text)
