"""``mailserver selftest``: probe messages on the roads of real ones, with their timelines; then they are removed again.

One is handed over as programs of this host do, one submitted after a log-in, one goes in by LMTP, and one through the relay to
this server's own port 25 (`selftest_roads`).  All are for an account that is nobody's.
Exit codes: 0 all arrived, 1 one did not, 69 no server, 75 they could not be sent now, 77 not for this user.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import sys
import time
from collections.abc import Iterator, Mapping
from os import EX_NOPERM, EX_TEMPFAIL
from typing import Any

from mailserver.cli.output import EX_IOERR, Unable, as_json, plain, say
from mailserver.cli.purge import maildir_of
from mailserver.cli.selftest_break import BROKEN, show_break
from mailserver.cli.selftest_roads import Leg, ProbedServer, by_lmtp, by_login, by_pickup, by_relay
from mailserver.control.client import CommandRefused
from mailserver.doctor.probe_mail import (
    ACCOUNT,
    ID_OF_FILE,
    leads_to_nobody,
    marked_files,
    removed,
    sweep,
)
from mailserver.processes.identity import as_owner_of

__all__ = ["add_to"]

LOCK = "selftest.lock"
SECONDS, SECONDS_MOST = 60, 600
PAUSE_SECONDS = 0.05
END_SECONDS = 10.0  # each question has, with which a probe is taken back
ENDS = ("failed", "discarded", "refused", "rejected")  # steps after which no delivery comes


def add_to(commands: Any, common: argparse.ArgumentParser, summary: str) -> None:
    """Declare the command."""
    selftest = commands.add_parser("selftest", parents=[common], help=summary, description=summary.capitalize() + ".")
    selftest.add_argument(
        "--to", metavar="ADDRESS", default="", help=f"an account that is nobody's; absent: {ACCOUNT}@ our first domain"
    )
    selftest.add_argument(
        "--seconds", type=_seconds, default=SECONDS, metavar="N", help=f"how long all of it may take ({SECONDS})"
    )
    selftest.add_argument(
        "--break", dest="broken", choices=sorted(BROKEN), default="",
        help="in a sandbox of its own: what is said when there is no DNS, no room on the disk, no smarthost",
    )  # fmt: skip
    selftest.set_defaults(run=run_selftest, needs_configuration=False)


def run_selftest(options: argparse.Namespace) -> int:
    """Send the probes, wait for them, print their timelines.  Return 1 where one has not arrived."""
    from mailserver.config import load
    from mailserver.config.choice import chosen_path
    from mailserver.plugins.catalogue import discover

    if options.broken:
        return show_break(options)
    if not options.config:  # else it was looked at
        options.config = chosen_path(None, say=_warn, environment=os.environ)
    configuration = load(options.config, discover().options_of)
    address = options.to or f"{ACCOUNT}@{configuration.home_domain}"
    maildir = maildir_of(configuration, address, "selftest")
    server = ProbedServer(configuration.data, time.monotonic() + options.seconds)
    with _alone(server):
        _insist_on_nobody(server, address)
        with as_owner_of(server.data):  # of runs that were killed; the doctor's trials may use the account meanwhile
            sweep(maildir, time.time() - SECONDS_MOST)
        legs = _probed(configuration, server, maildir, address, options.seconds)
    if options.json:
        has_arrived = not any(leg.fault for leg in legs)
        as_json({"address": address, "arrived": has_arrived, "roads": [leg.as_json() for leg in legs]})
    else:
        say(*[plain(line) for leg in legs for line in _told(leg)])
    return 1 if any(leg.fault for leg in legs) else 0


def _probed(configuration: Any, server: ProbedServer, maildir: str, address: str, seconds: int) -> list[Leg]:
    """Probes on all roads, which have arrived, or have not; none of them is left."""
    legs: list[Leg] = []
    waiting: list[Leg] = []
    try:
        for leg in _sent(configuration, server, address):
            legs.append(leg)
        waiting = [leg for leg in legs if leg.has_arrived]
        while waiting and time.monotonic() < server.until:
            for leg in waiting:
                _look(server, maildir, leg)
            waiting = [leg for leg in waiting if not _is_over(leg)]
            if waiting:
                time.sleep(PAUSE_SECONDS)
    finally:  # also where the server goes away, or somebody interrupts it
        for leg in legs:
            _remove(configuration.data, maildir, leg)
    for leg in waiting:
        if not leg.path:  # else only its road is late
            _give_up(server, address, leg, {one.id for one in legs})
            leg.fault = f"not there after {seconds} seconds; {leg.fault}"
    return legs


def _sent(configuration: Any, server: ProbedServer, address: str) -> Iterator[Leg]:
    """One on each road that there is, in the order of their listeners."""
    yield by_pickup(configuration, server, address)
    tables = {listen.endpoint: listen for listen in configuration.listen}
    first_mx = True
    for listener in server.ask("status", {})["listeners"]:
        service, endpoint = str(listener["service"]), str(listener["endpoint"])
        listen = tables.get(endpoint)
        if listen is not None and (service == "submission" if listen.authentication is None else listen.authentication):
            yield by_login(listen, configuration.hostname, server, address)
        if service == "lmtp":
            yield by_lmtp(endpoint, configuration.hostname, server, address)
        if service == "mx" and configuration.relays and first_mx:
            first_mx = False
            yield by_relay(endpoint, configuration.hostname, server, address)


@contextlib.contextmanager
def _alone(server: ProbedServer) -> Iterator[None]:
    """Two at once would take each other's probes back.  The second waits for its time; raises `Unable` then."""
    path = os.path.join(server.data, LOCK)
    try:
        with as_owner_of(server.data):
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        code = EX_NOPERM if isinstance(error, PermissionError) else EX_IOERR
        raise Unable(f"{path}: {error.strerror}: this is for root and the server's own user", code) from error
    try:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > server.until:
                    raise Unable("another mailserver selftest runs", EX_TEMPFAIL) from error
                time.sleep(PAUSE_SECONDS)
        yield
    finally:
        os.close(file)


def _warn(words: str) -> None:
    print(f"mailserver: {words}", file=sys.stderr)


def _seconds(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text) <= SECONDS_MOST:
        raise argparse.ArgumentTypeError(f"{text!r} is not between 1 and {SECONDS_MOST}")
    return int(text)


def _insist_on_nobody(server: ProbedServer, address: str) -> None:
    """Its mail must go into a Maildir of its own: an alias or a catch-all leads to people.  Raises `Unable`."""
    found = server.ask("route", {"address": address})
    if not leads_to_nobody(found, address):
        raise Unable(
            f"{address} is no account of its own, and a probe must not reach a person: "
            f"mailserver user add --no-password {address} makes one that receives mail and cannot log in"
        )


# --- what became of them ---


def _look(server: ProbedServer, maildir: str, leg: Leg) -> None:
    """What is known of it by now: its file, whose name has its id, and its road."""
    with as_owner_of(server.data):
        leg.path = leg.path or next(marked_files(maildir, leg.mark, leg.at), "")
        if found := ID_OF_FILE.match(os.path.basename(leg.path)):
            leg.id = found[1]
    if leg.id:
        with contextlib.suppress(CommandRefused):  # not written down yet
            leg.steps = server.ask("explain", {"id": leg.id})["steps"]
    for one in leg.steps:
        if one["step"] in ENDS:
            leg.fault = _words_of_step(one)


def _is_over(leg: Leg) -> bool:
    """It has arrived and its road says so, or it never will."""
    return bool(leg.fault or (leg.path and any(one["step"] == "delivered" for one in leg.steps)))


def _words_of_step(step: Mapping[str, Any]) -> str:
    fields = step["fields"]
    return " ".join([str(step["step"]), *[str(fields[key]) for key in ("reply", "note") if fields.get(key)]])


def _give_up(server: ProbedServer, address: str, leg: Leg, others: set[str]) -> None:
    """It has not come in time: it shall not come later, either."""
    with contextlib.suppress(OSError):
        if leg.file:
            os.unlink(leg.file)
            leg.removed = True
    leg.id = leg.id or _waiting(server, address, leg.at, others)
    if leg.id:  # an empty one would mean all messages
        leg.steps = server.ask("explain", {"id": leg.id}, at_least=END_SECONDS)["steps"]
        order = {"verb": "drop", "selection": {"id": leg.id}, "by": "selftest"}
        with contextlib.suppress(CommandRefused):
            leg.removed = bool(server.ask("queue.change", order, at_least=END_SECONDS)["done"])
    own = [step for step in leg.steps if step["id"] == leg.id]  # a connection may end after what it has brought has failed
    leg.fault = f"its last step: {_words_of_step(own[-1])}" if own else "the server has not taken it"


def _waiting(server: ProbedServer, address: str, at: float, others: set[str]) -> str:
    """The id of a probe in the queue: of this sender and recipient, and none of the `others`.  "" where there is none."""
    selection = {"sender": address, "recipient": address, "since": at - 1}
    after: int | None = 0
    while after is not None:
        page = server.ask("queue.select", {"selection": selection, "after": after}, at_least=END_SECONDS)
        for entry in page["entries"]:
            if entry["id"] not in others:
                return str(entry["id"])
        after = page["next"]
    return ""


def _remove(data: str, maildir: str, leg: Leg) -> None:
    with as_owner_of(data):
        leg.removed = removed(maildir, leg.mark, leg.at) or leg.removed


def _told(leg: Leg) -> list[str]:
    lines, before = ["  ".join(filter(None, (leg.road, leg.place, leg.id)))], leg.at
    if leg.skipped:
        return [*lines, f"  not tried: {leg.skipped}"]
    for one in leg.steps:
        since_start, since_last = (one["time"] - leg.at) * 1000, (one["time"] - before) * 1000
        lines.append(f"  {since_start:9.1f} ms  {f'(+{since_last:.1f})':<10}  {_words_of_step(one)}")
        before = one["time"]
    if leg.fault:
        return [*lines, f"  NOT ARRIVED: {leg.fault}" + ("; it is removed" if leg.removed else "")]
    return [*lines, f"  arrived{', and removed again' if leg.removed else '; it has gone from the Maildir by itself'}"]
