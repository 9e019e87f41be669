"""``mailserver dmarc``: what reports of others say about mail in our name, and the reports that we send.

The server that runs is asked; the filter ``dmarc_reports`` answers.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from mailserver.cli.output import as_json, moment, plain, say, table
from mailserver.cli.report_filters import ReportFilter, add_report_actions, sending_doubts, since, some

if TYPE_CHECKING:
    from mailserver.config import Configuration

__all__ = ["add_to", "report_doubts"]

DAY_CHARACTERS = 10
FILTER = ReportFilter("dmarc_reports", "messages")


def add_to(commands: Any, common: argparse.ArgumentParser, summary: str) -> None:
    """Declare the command."""
    parser = commands.add_parser("dmarc", help=summary)
    shows = "which hosts send in the name of a domain, as others report it"
    add_report_actions(parser, common, shows, FILTER, show=show, listed=listed, preview=preview)


def show(options: argparse.Namespace) -> int:
    """Print a row for each source.  Return 1 where there are no reports."""
    answer = FILTER.ask(options, "show", {"domain": options.domain, **since(options)})
    if options.json:
        as_json(answer)
        return 0 if answer["reports"] else 1
    if not answer["reports"]:
        say(f"There are no reports about {plain(answer['domain'])}.")
        return 1
    table(
        ("SOURCE", " MESSAGES", " PASS", " FAIL", " DKIM", " SPF", " STOPPED", "IN THE NAME OF", "REPORTED BY"),
        [
            (
                one["source"], str(one["messages"]), str(one["passed"]), str(one["failed"]), str(one["dkim"]), str(one["spf"]),
                str(one["stopped"]), some(one["domains"]), some(one["reporters"]),
            )
            for one in answer["rows"]
        ],
    )  # fmt: skip
    say(
        "",
        f"{answer['messages']} messages from {answer['sources']} sources, of which DMARC has passed for {answer['passed']}; "
        f"{answer['reports']} reports.",
    )
    if answer["sources"] > len(answer["rows"]):
        say(f"(Only the first {len(answer['rows'])} sources are shown.)")
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
            ("DOMAIN", "FROM", "TO", "REPORTED BY", "ORGANIZATION", "POLICY", " MESSAGES", " PASS", " FAIL"),
            [
                (
                    one["domain"], moment(one["begin"])[:DAY_CHARACTERS], moment(one["end"])[:DAY_CHARACTERS], one["reporter"],
                    one["organization"], one["policy"], str(one["messages"]), str(one["passed"]),
                    str(one["messages"] - one["passed"]),
                )
                for one in rows
            ],
        )  # fmt: skip
    return 0


def preview(options: argparse.Namespace) -> int:
    """Print a report as it would be sent now."""
    rows = FILTER.ask(options, "preview", {"domain": options.domain, **({"day": options.day} if options.day else {})})
    if options.json:
        as_json(rows)
        return 0
    for one in rows:
        FILTER.tell_preview(one, "had no room in any report")
    return 0


def report_doubts(configuration: Configuration) -> list[str]:
    """Why a filter ``dmarc_reports`` cannot do what it is there for, a sentence each."""
    used = {table.use for table in configuration.filter}
    found = []
    for name, options in FILTER.tables(configuration):
        missing = [one for one in ("spf", "dkim", "dmarc") if one not in used]
        if missing:
            words = " and ".join([f'use = "{one}"' for one in missing])
            found.append(f"filter {name}: there is no filter with {words}: nothing is reported, and no report of others is read")
        sender = getattr(options, "sender", None)
        if sender is not None:
            found += sending_doubts(configuration, name, sender)
    return found
