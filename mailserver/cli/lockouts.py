"""``mailserver lockouts``: who may not log in now, and how to let them."""

from __future__ import annotations

import argparse
import ipaddress
import os
import time
from collections.abc import Sequence
from typing import Any

from mailserver.cli.asking import ask_server
from mailserver.cli.output import EX_IOERR, Unable, age, as_json, moment, say, table
from mailserver.cli.queue_orders import who
from mailserver.config import Configuration, load
from mailserver.control.client import NoServer
from mailserver.mail.envelope import NO_ADDRESS
from mailserver.mail.faults import StorageFault
from mailserver.processes.identity import as_owner_of

__all__ = ["add_to"]


def add_to(commands: Any, common: argparse.ArgumentParser, summary: str) -> None:
    """Declare the command."""
    lockouts = commands.add_parser("lockouts", help=summary)
    actions = lockouts.add_subparsers(title="actions", metavar="ACTION", required=True)
    listing = actions.add_parser("list", parents=[common], help="who is locked out, and until when")
    listing.add_argument("--all", action="store_true", help="also failures that are counted, and lockouts of the last day")
    listing.set_defaults(run=list_lockouts)
    clearing = actions.add_parser("clear", parents=[common], help="end lockouts; forget failures and earlier lockouts")
    clearing.add_argument("--all", action="store_true", help="all of them: needed where there is no filter")
    clearing.set_defaults(run=clear_lockouts)
    for parser in (listing, clearing):
        parser.add_argument("--account", metavar="ADDRESS", default="", help="of this account")
        parser.add_argument(
            "--network",
            metavar="NETWORK",
            default="",
            help="of this address, or of any in this network; proxy:ADDRESS is whom that proxy did not name",
        )


def list_lockouts(options: argparse.Namespace) -> int:
    """Print the lockouts, those that last longest first."""
    found = _ask(options, "lockouts.list", {"all": options.all})
    if options.json:
        as_json(found["entries"])
        return 0
    now = time.time()
    _print(found["entries"], now)
    locked = sum(entry["locked_until"] > now for entry in found["entries"]) + found["more"]
    say("Nobody is locked out." if not locked else f"{locked} lockout{'' if locked == 1 else 's'}.")
    return 0


def clear_lockouts(options: argparse.Namespace) -> int:
    """Clear lockouts.  Return 1 where there was nothing to clear."""
    has_filter = bool(options.account or options.network)
    if options.all == has_filter:
        raise Unable("say whose: --account, --network, or --all (alone) for everybody's", 2)
    cleared = _ask(options, "lockouts.clear", {"by": who()})
    if options.json:
        as_json(cleared["entries"])
    else:
        _print(cleared["entries"], time.time())
        count = len(cleared["entries"]) + cleared["more"]
        say(f"{count} cleared." if count else "There was nothing to clear.")
    return 0 if cleared["entries"] else 1


def _print(entries: Sequence[dict[str, Any]], now: float) -> None:
    rows = [
        (
            entry["account"] or "any",
            entry["network"] or "any",
            moment(entry["locked_until"]) if entry["locked_until"] > now else "",
            age(entry["locked_until"] - now) if entry["locked_until"] > now else "",
            str(entry["failures"]),
            str(entry["lockouts"]),
        )
        for entry in entries
    ]
    if rows:
        table(("ACCOUNT", "NETWORK", "LOCKED UNTIL", "LEFT", " FAILURES", " LOCKOUTS"), rows)


def _ask(options: argparse.Namespace, command: str, arguments: dict[str, Any]) -> dict[str, Any]:
    network = options.network
    if network and not network.startswith(NO_ADDRESS):
        try:
            ipaddress.ip_network(network, strict=False)
        except ValueError as error:
            raise Unable(f"{network!r} is neither an address nor a network", 2) from error
    configuration = load(options.config)
    arguments |= {"account": options.account, "network": network}
    try:
        return ask_server(configuration.data, command, arguments)
    except NoServer:
        return _without_server(configuration, command, arguments)


def _without_server(configuration: Configuration, command: str, arguments: dict[str, Any]) -> dict[str, Any]:
    from mailserver.authentication.lockout.counting import LockoutRules
    from mailserver.authentication.lockout.lockout import Lockout
    from mailserver.cli.explain import ROADS
    from mailserver.cli.without_server import finished
    from mailserver.control.lockouts import LockoutCommands
    from mailserver.mail.ids import IdSource
    from mailserver.observe import RoadStore, Steps
    from mailserver.queue.clock_watch import boot_seconds
    from mailserver.state_store import StoppedState

    path = os.path.join(configuration.data, "state.db")
    roads = RoadStore(os.path.join(configuration.data, ROADS))
    steps = Steps(roads=roads, addresses=configuration.log.addresses)
    try:
        with as_owner_of(configuration.data), StoppedState.opened(path, steady=boot_seconds) as state:
            if state is None:
                return {"entries": [], "more": 0}
            rules = LockoutRules(window_seconds=configuration.lockout.window)
            lockout = Lockout(
                clock=state,
                on_the_wall=state.time.on_the_wall,
                spaces=state.space,
                rules=rules,
                note=steps.note,
                next_id=IdSource(time.time).next,
            )
            answer: dict[str, Any] = finished(LockoutCommands(lockout).commands()[command](arguments))
            steps.flush()
            return answer
    except StorageFault as error:
        raise Unable(str(error), EX_IOERR) from error
    finally:
        roads.close()
