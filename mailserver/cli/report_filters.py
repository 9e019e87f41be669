"""What ``mailserver dmarc`` and ``mailserver tlsrpt`` share: their actions, and how the filter behind them is asked."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from mailserver.cli.asking import ask_server
from mailserver.cli.output import Unable, as_json, moment, plain, say, table
from mailserver.config.filter_order import filter_names

if TYPE_CHECKING:
    from mailserver.config import Configuration

__all__ = ["ReportFilter", "add_report_actions", "sending_doubts", "since", "some"]

SECONDS = 35.0
SENDING_SECONDS = 305.0
Run = Callable[[argparse.Namespace], int]


class ReportFilter:
    """The filter that a configuration has with this `use`; its reports are about what `counted` names: messages, sessions."""

    def __init__(self, use: str, counted: str) -> None:
        self.use = use
        self.counted = counted

    def ask(self, options: argparse.Namespace, command: str, given: Mapping[str, Any], seconds: float = SECONDS) -> Any:
        """The server's answer.  Raises `Unable`."""
        from mailserver.config import load

        configuration = load(options.config)
        names = [name for name, _ in self.tables(configuration)]
        name = options.filter or (names[0] if names else "")
        if name not in names:
            words = f"no filter {plain(name)!r} with" if name else "no table  [[filter]]  with"
            raise Unable(f'the configuration has {words}  use = "{self.use}"')
        question = {"name": name, "command": command, "arguments": dict(given)}
        return ask_server(configuration.data, "component.run", question, seconds)["answer"]

    def tables(self, configuration: Configuration) -> list[tuple[str, Any]]:
        """Name and options of each."""
        names = filter_names([(one.use, one.name) for one in configuration.filter])
        tables = zip(names, configuration.filter, strict=True)
        return [(name, one.options) for name, one in tables if one.use == self.use]

    def show_unread(self, options: argparse.Namespace) -> int:
        """Print what was not read."""
        rows = self.ask(options, "unread", since(options))
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

    def show_reports(self, options: argparse.Namespace) -> int:
        """Print the reports of ours."""
        rows = self.ask(options, "reports", {})
        if options.json:
            as_json(rows)
        elif not rows:
            say("There are none.")
        else:
            table(
                ("DAY", "ABOUT", "STATE", "AT", f" {self.counted.upper()}", "TO"),
                [
                    (one["day"], one["domain"], one["state"], moment(one["due"]), str(one[self.counted]), where_sent(one["to"]))
                    for one in rows
                ],
            )
        return 0

    def tell_preview(self, one: Mapping[str, Any], left_out: str) -> None:
        """Print a report as it would be sent now; `left_out` says what became of those that are in none."""
        say(f"Report {plain(one['report'])} about {plain(one['domain'])} on {one['day']}, due {moment(one['due'])}:")
        say(*[f"  to {plain(address) or 'nobody'}: {plain(words)}" for address, words in one["to"].items()])
        if not one["to"]:
            say("  nobody wants it")
        if one["left_out"]:
            say(f"  {one['left_out']} {self.counted} of the day {left_out}")
        say("", *map(plain, one["document"].split("\n")))

    def send(self, options: argparse.Namespace) -> int:
        """Send what is due."""
        answer = self.ask(options, "send", {}, SENDING_SECONDS)
        if options.json:
            as_json({"done": answer})
        else:
            say(plain(answer))
        return 0


def add_report_actions(
    parser: Any, common: argparse.ArgumentParser, shows: str, filter: ReportFilter, *, show: Run, listed: Run, preview: Run
) -> None:
    """Declare show, list, unread, reports, send and preview; `shows` says what the first of them does."""
    runs = {
        "show": show, "list": listed, "unread": filter.show_unread,
        "reports": filter.show_reports, "send": filter.send, "preview": preview,
    }  # fmt: skip
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    showing = actions.add_parser("show", parents=[common], help=shows)
    showing.add_argument("domain", metavar="DOMAIN", help="a domain of ours")
    listing = actions.add_parser("list", parents=[common], help="the reports of others that were read")
    listing.add_argument("domain", metavar="DOMAIN", nargs="?", default="", help="about this domain")
    unread = actions.add_parser("unread", parents=[common], help="mail for the address of reports that was not read, and why")
    reports = actions.add_parser("reports", parents=[common], help="the reports that were sent, and those that will be")
    sending = actions.add_parser("send", parents=[common], help="send the reports that are due, without waiting for the next run")
    previewing = actions.add_parser(
        "preview", parents=[common], help="a report as it would be sent now, and to whom; nothing is sent"
    )
    previewing.add_argument("domain", metavar="DOMAIN", help="the domain that it is about")
    previewing.add_argument("--day", metavar="DAY", default="", help="the day in UTC, such as 2026-11-30; absent: today")
    for one in (showing, listing, unread):
        one.add_argument("--since", metavar="TIME", default="", help="of the last 12h, 7d; absent: all that is kept")
    for one in (showing, listing, unread, reports, sending, previewing):
        one.add_argument("--filter", metavar="NAME", default="", help="where there are several: the table's name")
        one.set_defaults(run=runs[one.prog.rpartition(" ")[2]])


def since(options: argparse.Namespace) -> dict[str, float]:
    """The argument ``since`` of the filter's command, where one was typed."""
    if not options.since:
        return {}
    from mailserver.config.quantities import seconds

    try:
        return {"since": seconds(options.since)}
    except ValueError as error:
        raise Unable(f"--since: {plain(str(error))}", 2) from error


def where_sent(to: Mapping[str, str]) -> str:
    """Where a report went, and where it did not."""
    return ", ".join([f"{address} ({words})" if " " in words else address for address, words in to.items()])


def some(names: list[str]) -> str:
    """The first three of them."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def sending_doubts(configuration: Configuration, name: str, sender: Any) -> list[str]:
    """Why reports of this sender would not go out, or not be believed, a sentence each."""
    found = []
    if not any(sender.domain_key == one or sender.domain_key.endswith(f".{one}") for one in configuration.domain):
        found.append(f"filter {name}: {sender} is of no domain of ours: reports from there do not pass DMARC")
    if not configuration.relays:
        found.append(f'filter {name}: reports cannot be sent: nothing goes to other hosts ([relay] use = "none")')
    if not any(table.use == "dkim_signing" for table in configuration.filter):
        found.append(f'filter {name}: reports are not signed: there is no filter with use = "dkim_signing"')
    return found
