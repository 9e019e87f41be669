"""Who sends mail in a scene, and notes what was acknowledged."""

from __future__ import annotations

import contextlib
import random
import smtplib
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from tests.proofs.letters import letter
from tests.scenarios.support import ID, Server, Wire
from tests.scenarios.test_unprivileged import python_for_everybody

__all__ = ["PASSWORD", "USERS", "Clients", "Sent"]

USERS = ("alice", "bob", "carol")
PASSWORD = "correct horse battery staple"
SIZES: tuple[int, ...] = (300, 4000, 4000, 20_000, 120_000, 400_000)  # memory_bytes is 100,000: above it the spool has a file


@dataclass(frozen=True, slots=True)
class Sent:
    """A message that was handed over with success.  `id` is in the 250; `process` is that of a sendmail, which ended with 0.

    `holders` have to have it; `report`: alice, its sender, has to have a report of it.  `waits`: a recipient who hears 4yz; where
    that ends he has to have it, where it goes on alice has to have a report.
    """

    number: str
    holders: tuple[str, ...]
    report: bool = False
    waits: str = ""
    id: str = ""
    process: int = 0


class Clients:
    """Threads that send until each has sent its share, or `stop`."""

    def __init__(self, server: Server, seed: int) -> None:
        self.sent: list[Sent] = []
        self.stop = threading.Event()
        self.besides: tuple[str, ...] = ()  # more recipients of what bounces
        self.holders = {user: f"{user}@example.org" for user in USERS}  # who may get a message, and under which address
        self.late: dict[str, str] = {}  # likewise for the local programs: who hears 4yz
        self.sizes = SIZES
        self.pause = 0.05  # seconds, after a refusal
        self._server = server
        self._seed = seed
        self._threads: list[threading.Thread] = []

    def start(self, senders: int, messages: int, *, sendmails: int = 0, bounces: float = 0.25, name: str = "s") -> None:
        for sender in range(senders):
            self._start(self._send_on, f"{name}{sender}", messages, bounces)
        if sendmails:
            self.start_program(f"m{name}", sendmails, bounces=bounces)

    def start_program(self, name: str, messages: int, *, bounces: float = 0.25, user: int | None = None) -> None:
        """A program of this host that hands mail over, with the rights of `user`."""
        self._start(partial(self._hand_over, user), name, messages, bounces)

    def _start(self, what: Callable[[str, int, float, random.Random], None], *arguments: object) -> None:
        chance = random.Random(f"{self._seed} {arguments[0]}")
        self._threads.append(threading.Thread(target=what, args=(*arguments, chance), daemon=True))
        self._threads[-1].start()

    def join(self, seconds: float = 120.0) -> None:
        """Wait until all that were started have sent their share, or so long."""
        end = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.1, end - time.monotonic()))

    def wait(self, seconds: float = 120.0) -> None:
        """Wait so long, then let them stop."""
        self.join(seconds)
        self.stop.set()
        for thread in self._threads:
            thread.join(30)

    def letter(self, name: str, count: int, bounces: float, chance: random.Random) -> tuple[Sent, str, list[str]]:
        """What is to be sent, its sender, and its recipients."""
        number = f"{name}-{count}"
        if chance.random() < bounces:
            holders = ("bob",) if chance.random() < 0.3 else ()
            to = ["gone@elsewhere.example", *self.besides, *(f"{user}@example.org" for user in holders)]
            return Sent(number, holders, report=True), "alice@example.org", to
        if chance.random() < 0.2:
            return Sent(number, USERS), "sender@example.net", ["all@example.org"]
        holders = tuple(sorted(chance.sample(sorted(self.holders), chance.choice((1, 1, 1, 2, 3)))))
        return Sent(number, holders), "sender@example.net", [self.holders[user] for user in holders]

    def _send_on(self, name: str, messages: int, bounces: float, chance: random.Random) -> None:
        count = 0
        while count < messages and not self.stop.is_set():
            try:
                with Wire(self._server.port, timeout=20) as wire:
                    wire.command("EHLO client.example")
                    while count < messages and not self.stop.is_set():
                        count += 1
                        self._send(wire, *self.letter(name, count, bounces, chance), chance.choice(self.sizes))
            except (OSError, EOFError):
                self.stop.wait(self.pause)  # it is down: once more

    def _send(self, wire: Wire, sent: Sent, sender: str, to: list[str], octets: int) -> None:
        for line in (f"MAIL FROM:<{sender}>", *(f"RCPT TO:<{one}>" for one in to), "DATA"):
            if wire.command(line).code >= 400:
                wire.command("RSET")
                self.stop.wait(self.pause)
                return
        wire.send(letter(sent.number, octets) + b"\r\n.\r\n")
        answer = wire.reply()
        if answer.code == 250:
            self.sent.append(replace(sent, id=answer.id))
        else:
            self.stop.wait(self.pause)

    def start_users(self, messages: int) -> None:
        """Alice logs in and sends.  What she hears is encrypted: an acknowledgement is said once more, in clear, for the record."""
        self._start(self._submit, "u", messages, 0.0)

    def _submit(self, name: str, messages: int, bounces: float, chance: random.Random) -> None:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        ours, theirs = socket.socketpair()
        count = 0
        with ours, theirs:
            while count < messages and not self.stop.is_set():
                with contextlib.suppress(OSError, smtplib.SMTPException):
                    with smtplib.SMTP("127.0.0.1", self._server.ports["subport"], timeout=20) as client:
                        client.starttls(context=context)
                        client.login("alice@example.org", PASSWORD)
                        while count < messages and not self.stop.is_set():
                            count += 1
                            sent, _, to = self.letter(name, count, bounces, chance)
                            said = [client.mail("alice@example.org"), *(client.rcpt(one) for one in to)]
                            if any(code >= 400 for code, _ in said):
                                client.rset()
                                self.stop.wait(self.pause)
                                continue
                            code, words = client.data(letter(sent.number, chance.choice(self.sizes)))
                            if code == 250 and (id := ID.search(words.decode())):
                                ours.send(b"250 2.0.0 heard of %b\r\n" % id[0].encode())
                                self.sent.append(replace(sent, id=id[0]))
                self.stop.wait(self.pause)

    def _hand_over(self, user: int | None, name: str, messages: int, bounces: float, chance: random.Random) -> None:
        python = sys.executable if user is None else python_for_everybody()[0]
        command = [python, "-P", "-m", "mailserver.cli", "sendmail", "-C", str(self._server.config_path)]
        rights = {} if user is None else {"user": user, "group": user, "extra_groups": []}
        for count in range(1, messages + 1):
            if self.stop.is_set():
                return
            sent, sender, to = self.letter(name, count, bounces, chance)
            if self.late and not sent.report and chance.random() < 0.5:
                waits, address = chance.choice(sorted(self.late.items()))
                sent, sender, to = replace(sent, waits=waits), "alice@example.org", [*to, address]
            with subprocess.Popen(
                [*command, "-i", "-f", sender, *to], cwd="/", env=self._server._environment(),
                stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, **rights,
            ) as program:  # fmt: skip
                with contextlib.suppress(OSError):
                    program.communicate(letter(sent.number, chance.choice(self.sizes)).replace(b"\r\n", b"\n") + b"\n")
            if program.returncode == 0:
                self.sent.append(replace(sent, process=program.pid))
