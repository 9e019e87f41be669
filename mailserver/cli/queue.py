"""``mailserver queue``: what is waiting, since when, and why."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

from mailserver.cli.asking import ask_or_read, data_directory
from mailserver.cli.output import EX_IOERR, Unable, age, as_json, moment, plain, say, size, table
from mailserver.cli.queue_cat import add_cat
from mailserver.cli.queue_destinations import add_destinations
from mailserver.cli.queue_filters import add_filters, is_everything, selection_of
from mailserver.cli.queue_orders import add_verbs
from mailserver.cli.queue_salvage import add_salvage
from mailserver.cli.reply_remarks import remarks_on
from mailserver.config.glance import glance
from mailserver.mail.faults import StorageFault
from mailserver.processes.identity import as_owner_of

if TYPE_CHECKING:
    from mailserver.queue.admin.selection import Selection

__all__ = ["add_to"]

PAGE = 1000  # entries asked for at once


def add_to(commands: Any, common: argparse.ArgumentParser, summary: str) -> None:
    """Declare the command."""
    queue = commands.add_parser("queue", help=summary)
    actions = queue.add_subparsers(title="actions", metavar="ACTION", required=True)
    listing = actions.add_parser("list", parents=[common], help="all messages that wait, oldest first")
    listing.add_argument("--limit", type=_count, default=None, metavar="N", help="no more than N messages")
    add_filters(listing, id_is_argument=False)
    listing.set_defaults(run=list_queue)
    showing = actions.add_parser("show", parents=[common], help="one message with each of its destinations")
    showing.add_argument("id", metavar="ID", help="the message's id")
    showing.set_defaults(run=show_message)
    add_destinations(actions, common)
    add_cat(actions, common)
    add_verbs(actions, common)
    add_salvage(actions, common)


def list_queue(options: argparse.Namespace) -> int:
    """Print the queue."""
    known = glance(options.config)
    if is_everything(options):
        entries, depth = _entries(known.data, options.limit)
    else:
        entries, depth = [], None
        for selection in selection_of(options):
            found, depth = _selected(known.data, selection, options.limit)
            entries += found
        entries = entries[: options.limit]
    if options.json:
        as_json(entries)
        return 0
    now = time.time()
    rows = [
        (
            entry["id"],
            age(now - entry["received_at"]),
            size(entry["size"]),
            entry["state"],
            next_attempt(entry, now),
            given_up(entry, known.expire_seconds, now),
            entry["sender"] or "<>",
            recipients(entry),
            why(entry),
        )
        for entry in entries
    ]
    if rows:
        table(("ID", " AGE", " SIZE", "STATE", "NEXT", "GIVEN UP", "SENDER", "RECIPIENTS", "WHY"), rows)
    say(_count_of(len(rows), depth))
    return 0


def _count_of(shown: int, depth: int | None) -> str:
    """``3 of 197 messages.``; `depth` is None where nobody knows how many there are."""
    if not shown:
        return f"No message fits; {depth} {'waits' if depth == 1 else 'wait'}." if depth else "The queue is empty."
    of = f" of {depth}" if depth is not None and depth > shown else ""
    return f"{shown}{of} message{'s' if max(shown, depth or 0) > 1 else ''}."


def reason(reply: str, note: str) -> str:
    """The peer's words and ours; once, where one says what the other does."""
    return reply if note in reply else note if reply in note else f"{reply} {note}"


def why(entry: dict[str, Any]) -> str:
    """Why it waits: the first reason of its destinations, and how many others there are; else what is wrong with it."""
    reasons = list(dict.fromkeys(filter(None, (reason(one["reply"], one["note"]) for one in entry["destinations"]))))
    first = reasons[0] if reasons else entry.get("note") or ""
    return first + (f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else "")


def given_up(entry: dict[str, Any], expire_seconds: float, now: float) -> str:
    """When it is returned to its sender, or discarded, unless it was delivered; "" for what has no end."""
    held = [one["until"] for one in entry["destinations"] if one["state"] == "held" and one.get("until") is not None]
    if held:
        return due(min(held), now)
    if all(one["state"] not in ("queued", "deferred", "undecided") for one in entry["destinations"]):
        return ""
    return due(entry["received_at"] + expire_seconds, now)


def show_message(options: argparse.Namespace) -> int:
    """Print one message's entry.  Return 1 where it is not in the queue."""
    data = data_directory(options.config)
    arguments = {"id": options.id}
    entry = ask_or_read(data, "queue.show", arguments, lambda: _read_one(data, options.id))["entry"]
    if entry is None:
        raise Unable(f"the queue has no message {plain(options.id)}; `mailserver explain` may know what became of it")
    if options.json:
        as_json(entry)
        return 0
    now = time.time()
    say(
        f"id        {entry['id']}",
        f"received  {moment(entry['received_at'])}, {age(now - entry['received_at'])} ago",
        f"sender    {plain(entry['sender']) or '<>'}",
        f"size      {entry['size']} octets",
        f"state     {entry['state']}",
        *([f"note      {plain(entry['note'])}"] if entry.get("note") else []),
        "",
    )
    headers = ("RECIPIENT", "DESTINATION", "STATE", " ATTEMPTS", "NEXT", "WHY")
    rows = [
        (
            one["recipient"],
            one["destination"],
            shown_state(one),
            str(one["attempts"]),
            due(next_time(one), now),
            reason(one["reply"], one["note"]),
        )
        for one in entry["destinations"]
    ]
    table(headers, rows)
    for one in entry["destinations"]:
        show_attempts(one)
    return 0


def shown_state(destination: dict[str, Any]) -> str:
    """``held (refused), discarded in 29d``."""
    state, hold, until = destination["state"], destination.get("hold"), destination.get("until")
    if state != "held" or not hold:
        return str(state)
    return f"held ({hold}), discarded {due(until, time.time())}" if until is not None else f"held ({hold})"


def show_attempts(destination: dict[str, Any]) -> None:
    """Print the last attempts that did not reach a destination."""
    history = destination.get("history")
    if not history:
        return
    earlier = destination["attempts"] - len(history)
    say("", f"attempts at {plain(destination['recipient'])}" + (f", after {earlier} earlier ones" if earlier > 0 else ""))
    table(
        ("TIME", "PEER", "PHASE", "WHY"),
        [
            (moment(one["made_at"]), one["peer"], one["phase"], reason(one["reply"], one["note"]))
            for one in history
        ],
    )
    remarks = remarks_on(history[-1]["reply"])
    if remarks:
        say("", *[f"  {one}" for one in remarks])
    dialogue = history[-1].get("dialogue")
    if dialogue:
        say("", "the last one, word by word", *[f"  {plain(line)}" for line in dialogue])


def recipients(entry: dict[str, Any]) -> str:
    """The first recipient, and how many more."""
    names = list(dict.fromkeys(one["recipient"] for one in entry["destinations"]))
    return (names[0] if names else "") + (f" and {len(names) - 1} more" if len(names) > 1 else "")


def next_attempt(entry: dict[str, Any], now: float) -> str:
    """When the first of its destinations is tried again."""
    times = [time for one in entry["destinations"] if (time := next_time(one)) is not None]
    return due(min(times), now) if times else ""


def next_time(destination: dict[str, Any]) -> float | None:
    """When it is tried, or judged, again (seconds since the epoch)."""
    moment_seconds: float | None = destination["due"]
    return destination.get("until") if destination["state"] == "undecided" else moment_seconds


def due(moment_seconds: float | None, now: float) -> str:
    """``in 5m``, ``now``."""
    if moment_seconds is None:
        return ""
    return f"in {age(moment_seconds - now)}" if moment_seconds > now + 1 else "now"


def _entries(data: str, limit: int | None) -> tuple[list[dict[str, Any]], int | None]:
    """All of them, asked for page by page; and how many there are."""
    entries: list[dict[str, Any]] = []
    depth: int | None = None
    while limit is None or len(entries) < limit:
        after = entries[-1]["id"] if entries else ""
        wanted = PAGE if limit is None else min(PAGE, limit - len(entries))
        answer = ask_or_read(
            data, "queue.list", {"after": after, "limit": wanted}, partial(_read_page, data, after, wanted)
        )
        entries += answer["entries"]
        depth = answer.get("depth")
        if len(answer["entries"]) < wanted:
            break
    return entries, depth


def _selected(data: str, selection: Selection, limit: int | None) -> tuple[list[dict[str, Any]], int | None]:
    """Those that a filter means; and how many messages there are."""
    entries: list[dict[str, Any]] = []
    after: int | None = 0
    depth: int | None = None
    while after is not None and (limit is None or len(entries) < limit):
        wanted = PAGE if limit is None else min(PAGE, limit - len(entries))
        arguments = {"selection": selection.as_json(), "after": after, "limit": wanted}
        page = partial(_read_selected, data, selection, after, wanted)
        answer = ask_or_read(data, "queue.select", arguments, page)
        entries += answer["entries"]
        after, depth = answer["next"], answer.get("depth")
    return entries, depth


def _read_selected(data: str, selection: Selection, after: int, limit: int) -> dict[str, Any]:
    from mailserver.queue.admin.orders import select
    from mailserver.queue.reader import closing_reader

    def read() -> dict[str, Any]:
        with closing_reader(data) as reader:
            if reader is None:
                return {"entries": [], "next": None, "depth": 0}
            found, further = select(reader, selection, after=after, limit=limit, now=time.time())
            depth = reader.count()
        return {"entries": [asdict(entry) for entry in found], "next": further, "depth": depth}

    answer: dict[str, Any] = _reading(data, read)
    return answer


def _read_page(data: str, after: str, limit: int) -> dict[str, Any]:
    from mailserver.queue.reader import closing_reader

    def read() -> dict[str, Any]:
        with closing_reader(data) as reader:
            if reader is None:
                return {"entries": [], "depth": 0}
            return {"entries": [asdict(entry) for entry in reader.list(after, limit)], "depth": reader.count()}

    answer: dict[str, Any] = _reading(data, read)
    return answer


def _read_one(data: str, id: str) -> dict[str, Any]:
    from mailserver.queue.reader import show_entry

    entry = _reading(data, lambda: show_entry(data, id))
    return {"entry": None if entry is None else asdict(entry)}


def _reading(data: str, read: Callable[[], Any]) -> Any:
    try:
        with as_owner_of(data):
            return read()
    except (StorageFault, OSError) as error:
        raise Unable(str(error), EX_IOERR) from error


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a count")
    return int(text)
