"""``mailserver queue``: what is waiting, since when, and why."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any

from mailserver.cli.asking import ask_or_read, data_directory
from mailserver.cli.output import EX_IOERR, Unable, age, as_json, moment, plain, say, size, table
from mailserver.cli.salvage import add_salvage
from mailserver.cli.selecting import add_filters, selection_of
from mailserver.cli.verbs import add_verbs
from mailserver.identity import as_owner_of
from mailserver.mail.faults import StorageFault
from mailserver.queue.selection import Selection

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
    add_verbs(actions, common)
    add_salvage(actions, common)


def list_queue(options: argparse.Namespace) -> int:
    """Print the queue."""
    data = data_directory(options.config)
    selections = selection_of(options)
    if selections[0].is_everything:
        entries = _entries(data, options.limit)
    else:
        entries = [entry for selection in selections for entry in _selected(data, selection, options.limit)][
            : options.limit
        ]
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
            entry["sender"] or "<>",
            recipients(entry),
        )
        for entry in entries
    ]
    if rows:
        table(("ID", " AGE", " SIZE", "STATE", "NEXT", "SENDER", "RECIPIENTS"), rows)
    say("The queue is empty." if not rows else f"{len(rows)} message{'s' if len(rows) > 1 else ''}.")
    return 0


def show_message(options: argparse.Namespace) -> int:
    """Print one message's entry.  1 where the queue has it not."""
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
            one["state"],
            str(one["attempts"]),
            due(one["due"], now),
            " ".join(filter(None, (one["reply"], one["note"]))),
        )
        for one in entry["destinations"]
    ]
    table(headers, rows)
    for one in entry["destinations"]:
        show_attempts(one)
    return 0


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
            (moment(one["made_at"]), one["peer"], one["phase"], " ".join(filter(None, (one["reply"], one["note"]))))
            for one in history
        ],
    )
    dialogue = history[-1].get("dialogue")
    if dialogue:
        say("", "the last one, word by word", *[f"  {plain(line)}" for line in dialogue])


def recipients(entry: dict[str, Any]) -> str:
    """The first recipient, and how many more."""
    names = list(dict.fromkeys(one["recipient"] for one in entry["destinations"]))
    return (names[0] if names else "") + (f" and {len(names) - 1} more" if len(names) > 1 else "")


def next_attempt(entry: dict[str, Any], now: float) -> str:
    """When the first of its destinations is tried again."""
    times = [one["due"] for one in entry["destinations"] if one["due"] is not None]
    return due(min(times), now) if times else ""


def due(moment_seconds: float | None, now: float) -> str:
    """``in 5m``, ``now``."""
    if moment_seconds is None:
        return ""
    return f"in {age(moment_seconds - now)}" if moment_seconds > now + 1 else "now"


def _entries(data: str, limit: int | None) -> list[dict[str, Any]]:
    """All of them, asked for page by page."""
    entries: list[dict[str, Any]] = []
    while limit is None or len(entries) < limit:
        wanted = PAGE if limit is None else min(PAGE, limit - len(entries))
        page = _page(data, entries[-1]["id"] if entries else "", wanted)
        entries += page
        if len(page) < wanted:
            break
    return entries


def _page(data: str, after: str, limit: int) -> list[dict[str, Any]]:
    arguments = {"after": after, "limit": limit}
    answer = ask_or_read(data, "queue.list", arguments, lambda: _read_page(data, after, limit))
    entries: list[dict[str, Any]] = answer["entries"]
    return entries


def _selected(data: str, selection: Selection, limit: int | None) -> list[dict[str, Any]]:
    """Those that a filter means."""
    entries: list[dict[str, Any]] = []
    after: int | None = 0
    while after is not None and (limit is None or len(entries) < limit):
        wanted = PAGE if limit is None else min(PAGE, limit - len(entries))
        arguments = {"selection": selection.as_json(), "after": after, "limit": wanted}
        page = partial(_read_selected, data, selection, after, wanted)
        answer = ask_or_read(data, "queue.select", arguments, page)
        entries += answer["entries"]
        after = answer["next"]
    return entries


def _read_selected(data: str, selection: Selection, after: int, limit: int) -> dict[str, Any]:
    from mailserver.queue.reader import closing_reader
    from mailserver.queue.verbs import select

    def read() -> dict[str, Any]:
        with closing_reader(data) as reader:
            if reader is None:
                return {"entries": [], "next": None}
            found, further = select(reader, selection, after=after, limit=limit, now=time.time())
        return {"entries": [asdict(entry) for entry in found], "next": further}

    answer: dict[str, Any] = _reading(data, read)
    return answer


def _read_page(data: str, after: str, limit: int) -> dict[str, Any]:
    from mailserver.queue.reader import list_entries

    return {"entries": [asdict(entry) for entry in _reading(data, lambda: list_entries(data, after, limit))]}


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
