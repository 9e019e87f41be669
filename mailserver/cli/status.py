"""``mailserver status``: what the running server is doing, in figures."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from mailserver.cli.asking import ask_server, data_directory
from mailserver.cli.output import as_json, plain, say, table

__all__ = ["add_to"]


def add_to(commands: Any, common: argparse.ArgumentParser, summary: str) -> None:
    """Declare the command."""
    status = commands.add_parser("status", parents=[common], help=summary, description=summary.capitalize() + ".")
    status.set_defaults(run=show_status)


def show_status(options: argparse.Namespace) -> int:
    """Print the status.  Return 1 where one of the server's small processes is missing."""
    figures = ask_server(data_directory(options.config), "status", {})
    missing = {name: why for name, why in (figures.get("processes") or {}).items() if why}
    if options.json:
        as_json(figures)
        return 1 if missing else 0
    say(f"{plain(str(figures.pop('hostname')))}, process {figures.pop('pid')}, {figures.pop('connections')} connections")
    listeners = figures.pop("listeners")
    figures.pop("processes", None)
    if listeners:
        say("")
        ports = [(one["service"], one["endpoint"], str(one["connections"])) for one in listeners]
        table(("SERVICE", "ENDPOINT", " CONNECTIONS"), ports)
    if servers := figures.pop("dnssec", None):
        say("")
        table(("NAME SERVER", "DNSSEC"), [(server, plain(str(said))) for server, said in servers.items()])
    rows = [(str(part), name, value) for part, value in figures.items() for name, value in _figures(value)]
    say("")
    before = ["", *(part for part, _, _ in rows)]
    table(("PART", "FIGURE", " VALUE"), [(p if p != b else "", f, v) for (p, f, v), b in zip(rows, before, strict=False)])
    if (figures.get("dkim") or {}).get("records_missing"):
        say("", "Mail is signed with keys that the DNS does not show: mailserver check names them.")
    if faulty := (figures.get("domains") or {}).get("faults"):
        say("", f"The DNS needs attention: mailserver dns {plain(next(iter(faulty)))} --try says what mends it.")
    if any(one.get("late") for one in (figures.get("certificates") or {}).values()):
        say("", "A new certificate should be there by now: mailserver certificate list says why it is not.")
    if (figures.get("relay") or {}).get("token_failures"):
        say("", "The issuer gives no new token for the smarthost: mailserver smarthost status, and the log, say why.")
    elif (figures.get("relay") or {}).get("token_seconds_left") == 0:
        say("", "There is no token for the smarthost at this moment.")
    for name, why in missing.items():
        say("", f"The {plain(str(name))} process is missing: {plain(str(why))}")
    return 1 if missing else 0


def _figures(value: Any, prefix: str = "") -> list[tuple[str, str]]:
    """The figures of a part, those of its own parts with their names in front."""
    if not isinstance(value, Mapping):
        return [(prefix.rstrip("."), f"{value:g}" if isinstance(value, float) else str(value))]
    return [figure for name, inner in value.items() for figure in _figures(inner, f"{prefix}{name}.")]
