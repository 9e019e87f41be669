"""``mailserver selftest``: a probe message on the roads of real ones, with its timeline; then it is removed again.

It is handed over as programs of this host do (`mailserver.cli.sendmail`), so that it needs no password: from there on it is a
submission like any other.  Where a listener speaks LMTP, a second one goes in by that.  Both are for an account that is nobody's.
Exit codes: 0 all arrived, 1 one did not, 69 no server, 75 it could not be handed over now.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import secrets
import smtplib
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mailserver.cli.asking import ask_server
from mailserver.cli.output import EX_IOERR, Unable, as_json, plain, say
from mailserver.cli.purge import maildir_of
from mailserver.cli.selftest_break import BROKEN, show_break
from mailserver.control.client import CommandRefused
from mailserver.doctor.probe_mail import (
    ACCOUNT,
    ID_OF_FILE,
    leads_to_nobody,
    marked_files,
    probe_id,
    probe_message,
    removed,
)
from mailserver.processes.identity import as_owner_of

__all__ = ["Leg", "add_to", "lmtp_place"]

SECONDS, SECONDS_MOST = 60, 600
PAUSE_SECONDS = 0.05
END_SECONDS = 10.0  # each question has, with which a probe is taken back
OK = 250
ANY = ("", "0.0.0.0", "::")
BETWEEN = re.compile(r"(?<!\\):")  # the words of an endpoint
QUEUED = re.compile(r"queued as ([0-9A-Z]{16})")
ENDS = ("failed", "discarded", "refused", "rejected")  # steps after which no delivery comes


@dataclass(slots=True)
class Leg:
    """One probe: its `road` ("submission", "lmtp"), its `mark`, and what became of it.

    `steps` are those of its road, `at` the time when it was handed over, in seconds since the epoch.  `fault`: why it has not
    arrived, "" where it has.
    """

    road: str
    mark: str
    at: float = 0.0
    file: str = ""  # that was handed over
    path: str = ""  # where it has arrived
    id: str = ""
    fault: str = ""
    removed: bool = False
    steps: list[dict[str, Any]] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """For programs; `after_ms` of each step is counted from the handing over."""
        steps = [
            {"step": one["step"], "after_ms": round((one["time"] - self.at) * 1000, 1), **one["fields"]} for one in self.steps
        ]
        known = {"road": self.road, "id": self.id, "arrived": not self.fault, "removed": self.removed, "fault": self.fault}
        return known | {"steps": steps}


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
    server = _Server(configuration.data, time.monotonic() + options.seconds)
    _insist_on_nobody(server, address)
    status = server.ask("status", {})
    legs = [_submitted(configuration, server, address)]
    for place in dict.fromkeys(filter(None, map(lmtp_place, status["listeners"]))):
        legs.append(_by_lmtp(place, configuration.hostname, address, server.until))
    waiting = [leg for leg in legs if not leg.fault]
    try:
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
            leg.fault = f"not there after {options.seconds} seconds; {leg.fault}"
    if options.json:
        as_json({"address": address, "arrived": not any(leg.fault for leg in legs), "roads": [leg.as_json() for leg in legs]})
    else:
        say(*[plain(line) for leg in legs for line in _told(leg)])
    return 1 if any(leg.fault for leg in legs) else 0


def _warn(words: str) -> None:
    print(f"mailserver: {words}", file=sys.stderr)


def _seconds(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text) <= SECONDS_MOST:
        raise argparse.ArgumentTypeError(f"{text!r} is not between 1 and {SECONDS_MOST}")
    return int(text)


def _insist_on_nobody(server: _Server, address: str) -> None:
    """Its mail must go into a Maildir of its own: an alias or a catch-all leads to people.  Raises `Unable`."""
    found = server.ask("route", {"address": address})
    if not leads_to_nobody(found, address):
        raise Unable(
            f"{address} is no account of its own, and a probe must not reach a person: "
            f"mailserver user add --no-password {address} makes one that receives mail and cannot log in"
        )


# --- out ---


def _submitted(configuration: Any, server: _Server, address: str) -> Leg:
    """Hand one over as a program of this host does.  Raises `Unable`."""
    from mailserver.cli.sendmail import Unsent, Wishes, envelope_of, write_file
    from mailserver.cli.sendmail_message import TypedMessage, lines_of, qualified
    from mailserver.pickup.file_format import pickup_name

    leg = Leg("submission", secrets.token_hex(16), time.time())
    sender = qualified(address, "")
    typed = TypedMessage.read(lines_of(io.BytesIO(probe_message(leg.mark, address, "mailserver selftest")), dot_ends=False))
    name = pickup_name(int(leg.at * 1_000_000), secrets.token_bytes(16))
    fields = typed.completed(sender=sender, name="", message_id=probe_id(leg.mark, configuration.hostname), now=leg.at)
    envelope = envelope_of(Wishes(notify=frozenset({"NEVER"})), sender, [sender])
    leg.file = os.path.join(configuration.pickup_path, name)
    try:
        write_file(leg.file, envelope, fields, typed, configuration.limits.message_bytes)
    except Unsent as error:
        raise Unable(str(error), error.code) from error
    except OSError as error:
        raise Unable(f"{configuration.pickup_path}: {error.strerror or error}", EX_IOERR) from error
    with contextlib.suppress(CommandRefused):
        server.ask("pickup.look", {})
    return leg


def lmtp_place(listener: Mapping[str, Any]) -> tuple[str, int] | None:
    """Host and port of a listener that speaks LMTP, or the path of its socket with 0; None where it cannot be reached so."""
    if listener["service"] != "lmtp":
        return None
    kind, *words = [word.replace("\\", "") for word in BETWEEN.split(str(listener["endpoint"]))]
    if kind == "unix":
        return words[0], 0
    if kind not in ("tcp", "tcp4", "tcp6") or not words or not words[0].isdigit() or words[0] == "0":
        return None
    host = next((word.removeprefix("interface=") for word in words if word.startswith("interface=")), "")
    if host in ANY:
        host = "::1" if kind == "tcp6" or host == "::" else "127.0.0.1"
    return host, int(words[0])


def _by_lmtp(place: tuple[str, int], hostname: str, address: str, until: float) -> Leg:
    leg = Leg("lmtp", secrets.token_hex(16), time.time())
    message = probe_message(leg.mark, address, "mailserver selftest").replace(b"\n", b"\r\n")
    message = f"Message-ID: {probe_id(leg.mark, hostname)}\r\n".encode() + message
    host, port = place
    try:
        with _LMTP(host, port, hostname, until) as client:
            client.ehlo()
            for code, words in (client.mail(address), client.rcpt(address), client.data(message)):
                said = f"{code} {words.decode('utf-8', 'replace')}"
                if code != OK:
                    leg.fault = said
                    break
            leg.id = found[1] if (found := QUEUED.search(said)) and not leg.fault else ""
    except (OSError, smtplib.SMTPException) as error:
        leg.fault = f"{host or 'lmtp'}{f':{port}' if port else ''}: {_words_of(error)}"
    return leg


class _Server:
    """The running server, which is asked up to a time; it has a few seconds more where it has to end what was begun."""

    def __init__(self, data: str, until: float) -> None:
        self.data = data
        self.until = until

    def ask(self, command: str, arguments: dict[str, Any], *, at_least: float = 1.0) -> dict[str, Any]:
        """Its answer.  Raises `CommandRefused` and `ControlError`."""
        left = self.until - time.monotonic()
        return ask_server(self.data, command, arguments, timeout_seconds=max(at_least, left))


class _LMTP(smtplib.LMTP):
    """LMTP that is over at a time, however slowly the other side speaks."""

    def __init__(self, host: str, port: int, hostname: str, until: float) -> None:
        self._until = until
        super().__init__(host, port, hostname, timeout=max(0.1, until - time.monotonic()))

    def getreply(self) -> tuple[int, bytes]:
        """A reply; each wait is for what is left of the time."""
        if isinstance(self.sock, socket.socket):
            self.sock.settimeout(max(0.1, self._until - time.monotonic()))
        return super().getreply()


def _words_of(error: Exception) -> str:
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        return "; ".join([f"{code} {words.decode('utf-8', 'replace')}" for code, words in error.recipients.values()])
    if isinstance(error, smtplib.SMTPResponseException):
        words = error.smtp_error
        return f"{error.smtp_code} {words.decode('utf-8', 'replace') if isinstance(words, bytes) else words}"
    return str(getattr(error, "strerror", None) or str(error) or type(error).__name__)


# --- what became of them ---


def _look(server: _Server, maildir: str, leg: Leg) -> None:
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


def _give_up(server: _Server, address: str, leg: Leg, others: set[str]) -> None:
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


def _waiting(server: _Server, address: str, at: float, others: set[str]) -> str:
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
    lines, before = [f"{leg.road}  {leg.id}".rstrip()], leg.at
    for one in leg.steps:
        since_start, since_last = (one["time"] - leg.at) * 1000, (one["time"] - before) * 1000
        lines.append(f"  {since_start:9.1f} ms  {f'(+{since_last:.1f})':<10}  {_words_of_step(one)}")
        before = one["time"]
    if leg.fault:
        return [*lines, f"  NOT ARRIVED: {leg.fault}" + ("; it is removed" if leg.removed else "")]
    return [*lines, f"  arrived{', and removed again' if leg.removed else '; it has gone from the Maildir by itself'}"]
