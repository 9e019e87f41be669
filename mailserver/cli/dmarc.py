"""``mailserver dmarc``: what reports of others say about mail in our name, and the reports that we send.

The server that runs is asked; the filter ``dmarc_reports`` answers.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mailserver.cli.asking import ask_server
from mailserver.cli.output import Unable, as_json, moment, plain, say, table
from mailserver.config.filter_order import filter_names

if TYPE_CHECKING:
    from mailserver.config import Configuration

__all__ = ["add_to", "report_doubts"]

SECONDS = 35.0
SENDING_SECONDS = 305.0
DAY_CHARACTERS = 10


def add_to(commands: Any, common: argparse.ArgumentParser, summary: str) -> None:
    """Declare the command."""
    dmarc = commands.add_parser("dmarc", help=summary)
    actions = dmarc.add_subparsers(title="actions", metavar="ACTION", required=True)
    showing = actions.add_parser("show", parents=[common], help="which hosts send in the name of a domain, as others report it")
    showing.add_argument("domain", metavar="DOMAIN", help="a domain of ours")
    showing.set_defaults(run=show)
    listing = actions.add_parser("list", parents=[common], help="the reports of others that were read")
    listing.add_argument("domain", metavar="DOMAIN", nargs="?", default="", help="about this domain")
    listing.set_defaults(run=listed)
    unread = actions.add_parser("unread", parents=[common], help="mail for the address of reports that was not read, and why")
    unread.set_defaults(run=show_unread)
    reports = actions.add_parser("reports", parents=[common], help="the reports that were sent, and those that will be")
    reports.set_defaults(run=show_reports)
    sending = actions.add_parser("send", parents=[common], help="send the reports that are due, without waiting for the next run")
    sending.set_defaults(run=send)
    previewing = actions.add_parser(
        "preview", parents=[common], help="a report as it would be sent now, and to whom; nothing is sent"
    )
    previewing.add_argument("domain", metavar="DOMAIN", help="the domain that it is about")
    previewing.add_argument("--day", metavar="DAY", default="", help="the day in UTC, such as 2026-11-30; absent: today")
    previewing.set_defaults(run=preview)
    for parser in (showing, listing, unread):
        parser.add_argument("--since", metavar="TIME", default="", help="of the last 12h, 7d; absent: all that is kept")
    for parser in (showing, listing, unread, reports, sending, previewing):
        parser.add_argument("--filter", metavar="NAME", default="", help="where there are several: the table's name")


def show(options: argparse.Namespace) -> int:
    """Print a row for each source.  Return 1 where there are no reports."""
    answer = _run(options, "show", {"domain": options.domain, **_since(options)})
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
                str(one["stopped"]), _some(one["domains"]), _some(one["reporters"]),
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
    rows = _run(options, "list", {**({"domain": options.domain} if options.domain else {}), **_since(options)})
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


def show_unread(options: argparse.Namespace) -> int:
    """Print what was not read."""
    rows = _run(options, "unread", _since(options))
    if options.json:
        as_json(rows)
    elif not rows:
        say("All was read.")
    else:
        table(
            ("AT", "ID", "SENDER", "FOR", "WHY"),
            [(moment(one["at"]), one["id"], one["sender"], one["address"], one["why"]) for one in rows],
        )
    return 0


def show_reports(options: argparse.Namespace) -> int:
    """Print the reports of ours."""
    rows = _run(options, "reports", {})
    if options.json:
        as_json(rows)
    elif not rows:
        say("There are none.")
    else:
        table(
            ("DAY", "ABOUT", "STATE", "AT", " MESSAGES", "TO"),
            [
                (one["day"], one["domain"], one["state"], moment(one["due"]), str(one["messages"]), _to(one["to"]))
                for one in rows
            ],
        )
    return 0


def send(options: argparse.Namespace) -> int:
    """Send what is due."""
    answer = _run(options, "send", {}, SENDING_SECONDS)
    if options.json:
        as_json({"done": answer})
    else:
        say(plain(answer))
    return 0


def preview(options: argparse.Namespace) -> int:
    """Print a report as it would be sent now."""
    rows = _run(options, "preview", {"domain": options.domain, **({"day": options.day} if options.day else {})})
    if options.json:
        as_json(rows)
        return 0
    for one in rows:
        say(f"Report {plain(one['report'])} about {plain(one['domain'])} on {one['day']}, due {moment(one['due'])}:")
        say(*[f"  to {plain(address) or 'nobody'}: {plain(words)}" for address, words in one["to"].items()])
        if not one["to"]:
            say("  nobody wants it")
        if one["left_out"]:
            say(f"  {one['left_out']} messages of the day had no room in any report")
        say("", *map(plain, one["document"].split("\n")))
    return 0


def report_doubts(configuration: Configuration) -> list[str]:
    """Why a filter ``dmarc_reports`` cannot do what it is there for, a sentence each."""
    used = {table.use for table in configuration.filter}
    found = []
    for name, options in _filters(configuration):
        missing = [one for one in ("spf", "dkim", "dmarc") if one not in used]
        if missing:
            words = " and ".join([f'use = "{one}"' for one in missing])
            found.append(f"filter {name}: there is no filter with {words}: nothing is reported, and no report of others is read")
        sender = getattr(options, "sender", None)
        if sender is None:
            continue
        if not any(sender.domain_key == one or sender.domain_key.endswith(f".{one}") for one in configuration.domain):
            found.append(f"filter {name}: {sender} is of no domain of ours: reports from there do not pass DMARC")
        if not configuration.relays:
            found.append(f'filter {name}: reports cannot be sent: nothing goes to other hosts ([relay] use = "none")')
        if "dkim_signing" not in used:
            found.append(f'filter {name}: reports are not signed: there is no filter with use = "dkim_signing"')
    return found


def _to(to: Mapping[str, str]) -> str:
    return ", ".join([f"{address} ({words})" if " " in words else address for address, words in to.items()])


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _since(options: argparse.Namespace) -> dict[str, float]:
    if not options.since:
        return {}
    from mailserver.config.quantities import seconds

    try:
        return {"since": seconds(options.since)}
    except ValueError as error:
        raise Unable(f"--since: {plain(str(error))}", 2) from error


def _run(options: argparse.Namespace, command: str, given: Mapping[str, Any], seconds: float = SECONDS) -> Any:
    from mailserver.config import load

    configuration = load(options.config)
    names = [name for name, _ in _filters(configuration)]
    name = options.filter or (names[0] if names else "")
    if name not in names:
        words = f"no filter {plain(name)!r} with" if name else "no table  [[filter]]  with"
        raise Unable(f'the configuration has {words}  use = "dmarc_reports"')
    question = {"name": name, "command": command, "arguments": dict(given)}
    return ask_server(configuration.data, "component.run", question, seconds)["answer"]


def _filters(configuration: Configuration) -> list[tuple[str, Any]]:
    names = filter_names([(one.use, one.name) for one in configuration.filter])
    tables = zip(names, configuration.filter, strict=True)
    return [(name, one.options) for name, one in tables if one.use == "dmarc_reports"]
