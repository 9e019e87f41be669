"""``mailserver user lock|unlock|show``: accounts whose sending is stopped, by the filter ``account_guard`` or by a person.

The server that runs does it at once; where none runs it is written into the records, and what waits in the queue is held or
released when one does.
"""

from __future__ import annotations

import argparse
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from mailserver.accounts.file import FileDirectoryOptions
from mailserver.accounts.table import account_key, key_of
from mailserver.cli.accounts import changing, opened
from mailserver.cli.filter_records import names_of, run, tell
from mailserver.cli.output import Unable, as_json, moment, plain, say
from mailserver.cli.queue_orders import who
from mailserver.config import load
from mailserver.config.filter_order import filter_names
from mailserver.control.client import ControlError
from mailserver.plugins.catalogue import discover

if TYPE_CHECKING:
    from mailserver.config import Configuration

__all__ = ["add_to", "guard_doubts", "states_of"]

USE = "account_guard"


def add_to(actions: Any, common: argparse.ArgumentParser) -> None:
    """Declare the actions."""
    locking = _action(actions, common, "lock", lock, "let an account send no mail; it receives as before")
    locking.add_argument("--why", metavar="TEXT", default="", help="for the user, and for those who look")
    _action(actions, common, "unlock", unlock, "let it send again, and release what is held of its mail")
    _action(actions, common, "show", show, "whether an account may send, and why not")


def _action(actions: Any, common: argparse.ArgumentParser, name: str, run: Any, help: str) -> Any:
    parser = actions.add_parser(name, parents=[common], help=help)
    parser.add_argument("address", metavar="ADDRESS", help="such as alice@example.org")
    parser.add_argument("--filter", metavar="NAME", default="", help="where there are several: the table's name")
    parser.set_defaults(run=run)
    return parser


def lock(options: argparse.Namespace) -> int:
    """Stop an account's sending.  Return 1 where that is so already, or the accounts file has none of this name."""
    configuration = load(options.config, discover().options_of)
    if isinstance(configuration.accounts.options, FileDirectoryOptions):
        _, accounts = opened(options.config)
        if changing(accounts, lambda: accounts.read().get(key_of(account_key(options.address)))) is None:
            raise Unable(f"there is no account {plain(options.address)}")
    return tell(options, _run(options, "lock", {"account": options.address, "why": options.why, "by": who()[:100]}))


def unlock(options: argparse.Namespace) -> int:
    """Let it send again.  Return 1 where it was not stopped."""
    return tell(options, _run(options, "unlock", {"account": options.address, "by": who()[:100]}))


def show(options: argparse.Namespace) -> int:
    """Print why it is stopped.  Return 1 where it is."""
    found = _run(options, "show", {"account": options.address})
    if options.json:
        as_json(found)
    elif not found:
        say(f"{plain(options.address)} may send.")
    else:
        say(f"{plain(found['account'])} can send no mail since {moment(found['since'])}.", "")
        rows = [("stopped by", plain(found["by"]) or "the filter"), *([] if found["signals"] else [("why", plain(found["why"]))])]
        for signal, seen in found["signals"].items():
            rows.append((f"{signal}: {seen['count']}", ""))
            rows += [("", plain(one)) for one in seen["examples"]]
        rows += [("log-in", plain(one)) for one in found["logins"]]
        rows.append(("its mail in the queue", "is held" if found["held"] else "is held as soon as that can be"))
        say(*[f"  {name:<24}{value}".rstrip() for name, value in rows])
    return 0 if not found else 1


def guard_doubts(configuration: Configuration) -> list[str]:
    """What of the filter's tables does less than it seems to."""
    names = filter_names([(one.use, one.name) for one in configuration.filter])
    found = []
    for name, section in zip(names, configuration.filter, strict=True):
        if section.use != USE:
            continue
        if "submission" not in section.services:
            found.append(f"filter {name}: services: without submission no account is stopped")
        if section.mode == "shadow":
            found.append(f'filter {name}: mode: "shadow" still holds mail and writes notes; action = "tell" does neither')
    return found


def offline_commands(configuration: Configuration, name: str) -> Callable[[Any, Any], Awaitable[Any]]:
    """The filter's commands over its records, without a server."""
    from mailserver.filters.account_book import AccountBook
    from mailserver.filters.account_commands import commands_of

    async def commands(records: Any, clock: Any) -> Any:
        book = AccountBook(records)
        await book.read()
        return commands_of(book, clock, begin_anew=None, go=None)

    return commands


def states_of(configuration: Configuration) -> tuple[Mapping[str, str], str]:
    """Why each stopped account is, by its address, none where no filter stops any; and why nobody can tell, "" where they can."""
    try:
        found = [run(configuration, USE, name, "list", {}, offline_commands) for name in names_of(configuration, USE)]
        return {str(row["account"]): str(row["why"]) for rows in found for row in rows}, ""
    except (Unable, ControlError) as error:
        return {}, f"which accounts may send cannot be told: {plain(str(error))}"


def _run(options: argparse.Namespace, command: str, given: Mapping[str, Any]) -> Any:
    return run(load(options.config), USE, options.filter, command, given, offline_commands)
