"""``mailserver queue destinations``: how mail goes to each host or operator."""

from __future__ import annotations

import argparse
from typing import Any

from mailserver.cli.asking import ask_server, data_directory
from mailserver.cli.output import Unable, age, as_json, plain, say, table
from mailserver.control.client import NoServer

__all__ = ["add_destinations"]

SUMMARY = "how mail goes to each host or operator: what waits, connections, pace, who is out of reach"
MOST = 1000


def add_destinations(actions: Any, common: argparse.ArgumentParser) -> None:
    """Declare the command."""
    parser = actions.add_parser("destinations", parents=[common], help=SUMMARY, description=SUMMARY.capitalize() + ".")
    parser.add_argument("name", metavar="NAME", nargs="?", default="", help="only this one, with its addresses")
    parser.set_defaults(run=show_destinations)


def show_destinations(options: argparse.Namespace) -> int:
    """Print them, those for which most waits first.  Return 1 where there is none of the name."""
    try:
        found = ask_server(data_directory(options.config), "queue.destinations", {"limit": MOST})["destinations"]
    except NoServer as error:
        raise Unable("the server does not run, and nobody else knows how mail goes") from error
    if options.name:
        found = [one for one in found if one["name"] == options.name.lower().rstrip(".")]
        if not found:
            raise Unable(f"no mail has gone to {plain(options.name)} lately; `mailserver queue destinations` shows where it goes")
    if options.json:
        as_json(found)
        return 0
    if not found:
        say("No mail has gone to another host since the start.")
        return 0
    headers = ("DESTINATION", " WAITING", " CONNECTIONS", "PACE", "STATE", "LAST REPLY")
    table(headers, [_row(one) for one in found])
    for one in found if options.name else ():
        _print_addresses(one["addresses"])
    return 0


def _row(one: dict[str, Any]) -> tuple[str, ...]:
    waiting = str(one["waiting"]) + (f" + {one['put_off']} put off" if one["put_off"] else "")
    limit = one["connections_limit"]
    most = f"{one['connections_most']}, limit {limit}" if one["connections_most"] < limit else str(limit)
    reply = one["last_reply"]
    if reply and one["last_reply_seconds"] is not None:
        reply = f"{age(one['last_reply_seconds'])} ago: {reply}"
    return (one["name"], waiting, f"{one['connections']} of {most}", _pace(one), _state(one), reply)


def _pace(one: dict[str, Any]) -> str:
    """``12 of 60 a minute``, ``as it goes, 31 in the last``."""
    now, limit = one["per_minute"], one["per_minute_limit"]
    if now is None:
        return f"as it goes, {one['sent']} in the last minute"
    return f"{now:g} a minute" + (f", limit {limit:g}" if limit != now else "") if limit else f"{now:g} a minute, no limit"


def _state(one: dict[str, Any]) -> str:
    words = []
    if one["paused_seconds"]:
        words.append(f"pauses for {age(one['paused_seconds'])}")
    down = [address for address in one["addresses"] if address["out_of_reach_seconds"] is not None]
    if down:
        first = min(address["out_of_reach_seconds"] for address in down)
        words.append(f"{len(down)} of {len(one['addresses'])} addresses out of reach, tried in {age(first)}")
    if one["why"]:
        words.append(one["why"])
    return "; ".join(words)


def _print_addresses(addresses: list[dict[str, Any]]) -> None:
    say("")
    table(
        ("ADDRESS", "HOST", "ROUTE", " WAITING", " CONNECTIONS", "OUT OF REACH"),
        [
            (
                one["address"],
                one["host"],
                one["route"],
                str(one["waiting"]),
                str(one["connections"]),
                "" if one["out_of_reach_seconds"] is None else f"tried in {age(one['out_of_reach_seconds'])}: {one['why']}",
            )
            for one in addresses
        ],
    )
