"""``mailserver explain ID``: the whole road of a message or a connection."""

from __future__ import annotations

import argparse
import os
from dataclasses import asdict
from typing import Any

from mailserver.cli.asking import ask_or_read, data_directory
from mailserver.cli.output import EX_IOERR, Unable, as_json, say
from mailserver.identity import as_owner_of
from mailserver.observe import AmbiguousId, RoadsUnreadable, Step, UnknownId, format_road, read_road

__all__ = ["ROADS", "add_to"]

ROADS = "explain.db"


def add_to(commands: Any, common: argparse.ArgumentParser, summary: str) -> None:
    """Declare the command."""
    explain = commands.add_parser("explain", parents=[common], help=summary)
    explain.add_argument(
        "id", metavar="ID", help="a message's or a connection's id, or six characters or more of its beginning"
    )
    explain.set_defaults(run=explain_id)


def explain_id(options: argparse.Namespace) -> int:
    """Print the road.  1 where none is known."""
    data = data_directory(options.config)
    steps = ask_or_read(data, "explain", {"id": options.id}, lambda: _read(data, options.id))["steps"]
    if options.json:
        as_json([{**{key: step[key] for key in ("time", "id", "step")}, **step["fields"]} for step in steps])
    else:
        say(*format_road([Step(**step) for step in steps]))
    return 0


def _read(data: str, id: str) -> dict[str, Any]:
    try:
        with as_owner_of(data):
            steps = read_road(os.path.join(data, ROADS), id)
    except (AmbiguousId, UnknownId) as error:
        raise Unable(str(error)) from error
    except RoadsUnreadable as error:
        raise Unable(str(error), EX_IOERR) from error
    return {"steps": [asdict(step) for step in steps]}
