"""``mailserver tlsrpt``: what reports of others say about TLS with our hosts, and the reports that we send about theirs.

The server that runs is asked; the filter ``tls_reports`` answers.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mailserver.cli.output import as_json, moment, plain, say, table
from mailserver.cli.report_filters import ReportFilter, add_report_actions, sending_doubts, since, some

if TYPE_CHECKING:
    from mailserver.config import Configuration

__all__ = ["add_to", "tls_report_doubts"]

DAY_CHARACTERS = 10
FILTER = ReportFilter("tls_reports", "sessions")


def add_to(commands: Any, common: argparse.ArgumentParser, summary: str) -> None:
    """Declare the command."""
    parser = commands.add_parser("tlsrpt", help=summary)
    shows = "how TLS with the hosts of a domain of ours has worked, as others report it"
    add_report_actions(parser, common, shows, FILTER, show=show, listed=listed, preview=preview)


def show(options: argparse.Namespace) -> int:
    """Print the sums by policy, and a row for each kind of failure.  Return 1 where there are no reports."""
    answer = FILTER.ask(options, "show", {"domain": options.domain, **since(options)})
    if options.json:
        as_json(answer)
        return 0 if answer["reports"] else 1
    if not answer["reports"]:
        say(f"There are no reports about {plain(answer['domain'])}.")
        return 1
    table(
        ("POLICY", "OF", " SESSIONS", " FAILED"),
        [(one["policy"], one["domain"], *_counts(one)) for one in answer["policies"]],
    )
    if answer["rows"]:
        say("")
        table(
            ("FAILURE", "HOST", " SESSIONS", "REPORTED BY", "MORE"),
            [
                (one["result"], one["host"], str(one["sessions"]), some(one["reporters"]), some(one["information"]))
                for one in answer["rows"]
            ],
        )
    sessions = answer["successes"] + answer["failures"]
    say("", f"{sessions} sessions, of which {answer['failures']} failed; {answer['reports']} reports.")
    if answer["kinds"] > len(answer["rows"]):
        say(f"(Only the first {len(answer['rows'])} kinds of failure are shown.)")
    return 0


def listed(options: argparse.Namespace) -> int:
    """Print the reports."""
    rows = FILTER.ask(options, "list", {**({"domain": options.domain} if options.domain else {}), **since(options)})
    if options.json:
        as_json(rows)
    elif not rows:
        say("There are no reports.")
    else:
        table(
            ("DOMAIN", "FROM", "TO", "REPORTED BY", "ORGANIZATION", "POLICIES", " SESSIONS", " FAILED"),
            [
                (
                    one["domain"], moment(one["begin"])[:DAY_CHARACTERS], moment(one["end"])[:DAY_CHARACTERS], one["reporter"],
                    one["organization"], ", ".join(one["policies"]), *_counts(one),
                )
                for one in rows
            ],
        )  # fmt: skip
    return 0


def preview(options: argparse.Namespace) -> int:
    """Print a report as it would be sent now."""
    one = FILTER.ask(options, "preview", {"domain": options.domain, **({"day": options.day} if options.day else {})})
    if options.json:
        as_json(one)
        return 0
    FILTER.tell_preview(one, "had no room in any report, or not with all that was wrong")
    return 0


def _counts(one: Mapping[str, Any]) -> tuple[str, str]:
    return str(one["successes"] + one["failures"]), str(one["failures"])


def tls_report_doubts(configuration: Configuration) -> list[str]:
    """Why a filter ``tls_reports`` cannot do what it is there for, a sentence each."""
    used = {table.use for table in configuration.filter}
    found = []
    for name, options in FILTER.tables(configuration):
        missing = [one for one in ("spf", "dkim", "dmarc") if one not in used]
        if missing and getattr(options, "local_part", None):
            words = " and ".join([f'use = "{one}"' for one in missing])
            found.append(f"filter {name}: there is no filter with {words}: no report of others is read")
        sender = getattr(options, "sender", None)
        if sender is not None:
            found += sending_doubts(configuration, name, sender)
    return found
