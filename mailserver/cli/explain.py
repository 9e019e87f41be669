"""``mailserver explain``: the whole road of a message or a connection; and which one it may have been."""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import asdict
from typing import Any

from mailserver.cli.asking import ask_or_read, data_directory
from mailserver.cli.output import EX_IOERR, Unable, as_json, moment, plain, say, table
from mailserver.cli.reply_remarks import remarks_on, reply_meaning
from mailserver.config.quantities import seconds
from mailserver.processes.identity import as_owner_of

__all__ = ["ROADS", "add_to"]

ROADS = "explain.db"
LIMIT = 20


def add_to(commands: Any, common: argparse.ArgumentParser, summary: str) -> None:
    """Declare the command."""
    explain = commands.add_parser("explain", parents=[common], help=summary)
    explain.add_argument(
        "id",
        metavar="ID",
        nargs="?",
        default="",
        help="a message's or a connection's id, or six characters or more of its beginning",
    )
    explain.add_argument("--why", action="store_true", help="only the verdicts: what was found, and what would have changed them")
    explain.add_argument("--sender", metavar="PATTERN", default="", help="who sent it: such as '*@example.net'; <> for reports")
    explain.add_argument("--recipient", metavar="PATTERN", default="", help="for whom it was")
    explain.add_argument("--host", metavar="PATTERN", default="", help="a host's address or name, on either side")
    explain.add_argument("--message-id", metavar="PATTERN", default="", help="its Message-ID field")
    explain.add_argument("--since", metavar="TIME", type=moment_of, default=None, help="2026-11-30T08:00, or how long ago: 2h")
    explain.add_argument("--until", metavar="TIME", type=moment_of, default=None, help="the same")
    explain.add_argument("--limit", metavar="N", type=_count, default=LIMIT, help=f"no more than N of them ({LIMIT})")
    explain.set_defaults(run=explain_id, insist=_one_way, wrong=explain.error)


def _one_way(options: argparse.Namespace) -> None:
    """Check that the line gives either an id or filters, and not both."""
    o = options
    known = any((o.sender, o.recipient, o.host, o.message_id)) or o.since is not None or o.until is not None
    if bool(o.id) == known:
        options.wrong("say which: an ID alone, or what is known of it, such as --sender or --since")


def explain_id(options: argparse.Namespace) -> int:
    """Print the road, or the ids that may be meant.  Return 1 where none is known."""
    from mailserver.observe.road_search import Wanted
    from mailserver.observe.road_table import format_road
    from mailserver.observe.roads import Step

    wanted = Wanted(
        options.sender, options.recipient, options.host, options.message_id, options.since, options.until
    )
    data = data_directory(options.config)
    if not options.id:
        return _search(options, data, wanted)
    steps = ask_or_read(data, "explain", {"id": options.id}, lambda: _read(data, options.id))["steps"]
    if options.why or not options.json:
        from mailserver.cli.verdicts import as_it_went, explained, held_in, in_words

        road = [Step(**step) for step in steps]
        found = as_it_went(explained(road), held_in(road))
    if options.json and options.why:
        as_json([one.as_json() for one in found])
    elif options.json:
        as_json([{**{key: step[key] for key in ("time", "id", "step")}, **step["fields"], **_meaning(step)} for step in steps])
    else:
        if not options.why:
            say(*format_road([Step(**step) for step in steps], lambda step: remarks_on(str(step.fields.get("reply", "")))))
        say(*[plain(line) for line in in_words(found)])
    return 0


def _meaning(step: dict[str, Any]) -> dict[str, Any]:
    """For programs: the `meaning` of a reply that is known."""
    found = reply_meaning(str(step["fields"].get("reply", "")))
    return {"meaning": found} if found else {}


def _search(options: argparse.Namespace, data: str, wanted: Any) -> int:
    """Search the roads.  They are read here even while a server runs, so that a long search does not slow it down."""
    from mailserver.observe.road_search import search_roads
    from mailserver.observe.roads import RoadsUnreadable

    try:
        with as_owner_of(data):
            found = search_roads(os.path.join(data, ROADS), wanted, options.limit)
    except RoadsUnreadable as error:
        raise Unable(str(error), EX_IOERR) from error
    if options.json:
        as_json([asdict(one) for one in found])
    elif found:
        rows = [
            (one.id, moment(one.time), "<>" if one.sender == "" else one.sender or "", _some(one.recipients), one.steps[-1])
            for one in found
        ]
        table(("ID", "TIME", "SENDER", "RECIPIENTS", "LAST STEP"), rows)
        more = " There may be more: --limit" if len(found) == options.limit else ""
        say(f"`mailserver explain ID` has the whole road.{more}")
    else:
        say("None is known, or its retention time is over.")
    return 0 if found else 1


def _some(recipients: Any) -> str:
    return "" if not recipients else recipients[0] + (f" and {len(recipients) - 1} more" if len(recipients) > 1 else "")


def _read(data: str, id: str) -> dict[str, Any]:
    from mailserver.observe.roads import AmbiguousId, RoadsUnreadable, UnknownId, read_road

    try:
        with as_owner_of(data):
            steps = read_road(os.path.join(data, ROADS), id)
    except (AmbiguousId, UnknownId) as error:
        raise Unable(str(error)) from error
    except RoadsUnreadable as error:
        raise Unable(str(error), EX_IOERR) from error
    return {"steps": [asdict(step) for step in steps]}


def moment_of(text: str) -> float:
    """A time of the command line in seconds since the epoch."""
    from datetime import datetime

    try:
        return time.time() - seconds(text)
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(text).astimezone().timestamp()
    except (ValueError, OverflowError, OSError) as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no time, such as 2026-11-30T08:00 (here), or 2h (ago)") from error


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text) <= 1_000_000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a count")
    return int(text)
