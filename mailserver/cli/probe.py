"""``mailserver probe ADDRESS``: ask an address's hosts up to RCPT, as the relay would, and send nothing."""

from __future__ import annotations

import argparse
import sys
from os import EX_TEMPFAIL
from typing import Any

from mailserver.cli.asking import ask_server, data_directory
from mailserver.cli.output import as_json, plain, say

__all__ = ["add_to"]

SECONDS = 60


def add_to(commands: Any, common: argparse.ArgumentParser, summary: str) -> None:
    """Declare the command."""
    words = summary.capitalize() + ". It is a real MAIL and a real RCPT at a real host, which may count it; no message follows."
    probe = commands.add_parser("probe", parents=[common], help=summary, description=words)
    probe.add_argument("address", metavar="ADDRESS", help="the recipient, such as alice@example.org")
    probe.add_argument(
        "--sender", metavar="ADDRESS", default="<>", help="who is named in MAIL, and whose route it goes; absent: <>"
    )
    probe.add_argument(
        "--seconds", type=int, default=SECONDS, choices=range(1, 301), metavar="N", help=f"how long it may take ({SECONDS})"
    )
    probe.set_defaults(run=show_probe)


def show_probe(options: argparse.Namespace) -> int:
    """Print what was seen.  Return 0 where the recipient was accepted, 1 where he was refused, 75 for anything else."""
    if not options.json:
        print("mailserver: a real RCPT at a real host; no message follows", file=sys.stderr)
    question = {"address": options.address, "sender": options.sender, "seconds": options.seconds}
    answer = ask_server(data_directory(options.config), "probe", question, timeout_seconds=options.seconds + 30)
    if options.json:
        as_json(answer)
    else:
        _tell(answer)
    return {"accepted": 0, "refused": 1}.get(str(answer["verdict"]), EX_TEMPFAIL)


def _tell(answer: dict[str, Any]) -> None:
    for one in answer.get("barred", ()):
        say(f"not asked: {plain(one)}")
    for one in answer.get("attempts", ()):
        place = f"{one['host']}[{one['address']}]:{one['port']}"
        route = f", route {one['route']}" if one["route"] else ""
        source = f", from {one['from']}" if one["from"] else ""
        say(plain(f"{place}{route}{source}: {one['reply']} ({one['ms']} ms)"))
        why = f" ({one['why']})" if one["why"] else ""
        say(plain(f"   TLS: {one['demanded']}, by {one['by']}{why}; {one['tls']}; {one['conclusion'] or 'none begun'}"))
        if one["fault"]:
            say(plain(f"   {one['fault']}"))
        say(*[plain(f"   {line}") for line in one["dialogue"]])
    if answer.get("fault"):
        say(plain(answer["fault"]))
    say(f"{plain(answer['address'])}: {answer['verdict']}")
