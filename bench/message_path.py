#!/usr/bin/env python3
"""Measure what the reactor's thread does for one message, without sockets: the whole server, `discard`, connections in memory.

    python -m bench.message_path                 microseconds and Python calls for each message, on a connection that stays open
    python -m bench.message_path --connect       a connection for each message
    python -m bench.message_path --calls         which functions are called, how often for each message
    python -m bench.message_path --filters 1     with so many filters, asked at RCPT and after the data, that pass all

A message is MAIL, RCPT, DATA and the content (`--octets`), each for itself, as from a client that does not pipeline.  `us` is
processor time of the reactor's thread; whatever disturbs a message makes it slower, so it is what the quickest tenth of all
messages took at most.  `calls` counts Python functions and coroutines that are entered or resumed.  It does not change from run
to run: a loss too small for the time shows in it.  `all in` is the processor time of the whole process, with what is written into
log and roads: the quickest run's, for each message.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

MESSAGES = 300  # in one run

CONFIGURATION = """
hostname = "mx.example.org"
data     = "{directory}/data"
[[listen]]
service  = "mx"
endpoint = "tcp:0:interface=127.0.0.1"
tls      = "none"
[log]
path     = "{directory}/log"
[limits]
messages_per_connection = 100000000
[accounts]
use      = "file"
path     = "{directory}/accounts.toml"
[domain."example.org"]
catch_all = "sink@example.org"
[delivery]
use      = "discard"
"""
ACCOUNTS = '[account."sink@example.org"]\n'
HEADER = (
    b"Received: from client.example (client.example [192.0.2.7])\r\n\tby relay.example with ESMTP id 4X;\r\n"
    b"\tMon, 23 Nov 2026 01:02:03 +0000\r\n"
    b"Date: Mon, 23 Nov 2026 01:02:03 +0000\r\nFrom: Bob <bob@example.com>\r\nTo: sink@example.org\r\n"
    b"Message-ID: <20261123010203.12345@example.com>\r\nSubject: a message of some length\r\n"
    b"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n"
)
TURNS = (b"MAIL FROM:<bob@example.com>\r\n", b"RCPT TO:<sink@example.org>\r\n", b"DATA\r\n")


def content(octets: int) -> bytes:
    """So many octets as they come over the wire, the end with its dot behind them."""
    line = b"The quick brown fox jumps over the lazy dog, and thinks nothing of it at all.\r\n"
    body = line * (max(0, octets - len(HEADER)) // len(line))
    return HEADER + body + b".\r\n"


class Dialogue:
    """Speaks with the server's protocol directly; what it writes is the last reply."""

    def __init__(self, factory: Any, octets: int) -> None:
        self._factory = factory
        self._turns = (*TURNS, content(octets))
        self._protocol: Any = None
        self._said: list[bytes] = []
        self._transport: Any = None

    def open(self) -> None:
        """A connection that has said EHLO."""
        from twisted.internet.address import IPv4Address
        from twisted.internet.testing import StringTransport

        address = IPv4Address("TCP", "192.0.2.7", 4711)
        self._transport = transport = StringTransport(peerAddress=address)
        transport.write = self._said.append  # type: ignore[method-assign]
        self._protocol = self._factory.buildProtocol(address)
        self._protocol.makeConnection(transport)
        self._protocol.dataReceived(b"EHLO client.example\r\n")

    def close(self) -> None:
        """QUIT, and the connection goes."""
        from twisted.internet.error import ConnectionDone
        from twisted.python.failure import Failure

        self._protocol.dataReceived(b"QUIT\r\n")
        self._protocol.connectionLost(Failure(ConnectionDone()))

    def message(self) -> None:
        """One message, which has to be accepted."""
        hear = self._protocol.dataReceived
        for turn in self._turns:
            self._said.clear()
            hear(turn)
        if not self._said[0].startswith(b"250 2.0.0 OK, queued"):
            raise SystemExit(f"the message was not accepted: {self._said}")


class PassesAll:
    """A filter with nothing to say, asked at RCPT and after the data."""

    async def judge_recipient(self, envelope: Any, recipient: Any) -> Any:
        return self.answer

    async def judge_content(self, envelope: Any, content: Any) -> Any:
        return self.answer

    def __init__(self) -> None:
        from mailserver.mail.answers import Pass

        self.answer = Pass()


def with_filters(server: Any, profile: Any, number: int) -> Any:
    """The profile with so many filters that pass everything."""
    from dataclasses import replace

    from zope.interface import classImplements

    from mailserver.interfaces import IContentFilter, IRecipientFilter
    from mailserver.plugins.budget import Budget, Budgets
    from mailserver.receive.judging import BoundFilter, Judging

    if not number:
        return profile
    classImplements(PassesAll, IRecipientFilter, IContentFilter)

    def budget() -> Budget:
        return Budget(failures=20, window_seconds=60, pause_seconds=30)

    bound = [BoundFilter(f"passes{n}", PassesAll(), budgets=Budgets(budget)) for n in range(number)]
    return replace(profile, judging=Judging(bound, clock=server.reactor))


def measure(dialogue: Dialogue, messages: int, connect: bool, flush: Callable[[], None]) -> list[int]:
    """Nanoseconds of this thread for each message; what the log keeps is written down afterwards."""
    took: list[int] = []
    for _ in range(messages):
        begin = time.thread_time_ns()
        if connect:
            dialogue.open()
        dialogue.message()
        if connect:
            dialogue.close()
        took.append(time.thread_time_ns() - begin)
    flush()
    return took


def count_calls(dialogue: Dialogue, messages: int, connect: bool, flush: Callable[[], None]) -> Counter[str]:
    """Calls of Python functions, by their names."""
    calls: Counter[str] = Counter()

    def called(frame: Any, event: str, argument: object) -> None:
        if event == "call":
            code = frame.f_code
            calls[f"{os.path.basename(code.co_filename)}:{code.co_qualname}"] += 1

    sys.setprofile(called)
    try:
        measure(dialogue, messages, connect, lambda: None)
    finally:
        sys.setprofile(None)
    for name in [name for name in calls if name.startswith("message_path.py:")]:
        del calls[name]
    flush()
    return calls


def server_in(directory: str, reactor: Any) -> tuple[Any, Any]:
    """A server that listens nowhere, and its policy."""
    from mailserver.assembly.policy import Policy
    from mailserver.assembly.server import Server
    from mailserver.config import load
    from mailserver.plugins import catalogue as plugins

    os.mkdir(os.path.join(directory, "data"), 0o700)
    for name, text in (("accounts.toml", ACCOUNTS), ("mailserver.toml", CONFIGURATION.format(directory=directory))):
        with open(os.path.join(directory, name), "w") as file:
            file.write(text)
    catalogue = plugins.discover()
    configuration = load(os.path.join(directory, "mailserver.toml"), catalogue.options_of)
    server = Server(configuration, catalogue=catalogue, reactor=reactor, owner=(-1, -1))
    return server, Policy(configuration, server)


def main() -> None:
    """Print one line, or the table of calls."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--connect", action="store_true", help="a connection for each message")
    parser.add_argument("--calls", action="store_true", help="which functions are called")
    parser.add_argument("--octets", type=int, default=4096, help="of each message")
    parser.add_argument("--filters", type=int, default=0, help="that pass everything")
    parser.add_argument("--runs", type=int, default=30)
    options = parser.parse_args()
    from twisted.internet import task
    from twisted.internet.defer import Deferred

    from mailserver.assembly.host import COLLECTOR_THRESHOLDS
    from mailserver.receive.factory import ReceiveFactory

    async def run(reactor: Any) -> None:
        with tempfile.TemporaryDirectory() as directory:
            server, policy = server_in(directory, reactor)
            await server.start()
            await policy.start()
            (profile,) = policy.profiles.values()
            profile = with_filters(server, profile, options.filters)
            dialogue = Dialogue(ReceiveFactory(profile, server.admission), options.octets)
            if not options.connect:
                dialogue.open()
            measured = (dialogue, MESSAGES, options.connect, server.steps.flush)
            measure(*measured)
            gc.collect()  # as the server does when it has started
            gc.freeze()
            gc.set_threshold(*COLLECTOR_THRESHOLDS)
            took: list[int] = []
            all_in: list[int] = []
            for _ in range(options.runs):
                began = time.process_time_ns()
                took += measure(*measured)
                all_in.append(time.process_time_ns() - began)
            quickest = sorted(took)[len(took) // 10]
            whole = min(all_in) / MESSAGES
            calls = count_calls(*measured)
            each = sum(calls.values()) / MESSAGES
            print(
                f"{options.octets} octets: {quickest / 1000:6.1f} us  {each:6.1f} calls"
                f"  {whole / 1000:6.1f} us all in, for each message",
                flush=True,
            )
            if options.calls:
                for name, number in calls.most_common():
                    print(f"{number / MESSAGES:8.2f}  {name}")
            await policy.stop()
            await server.stop(5)

    task.react(lambda reactor: Deferred.fromCoroutine(run(reactor)))


if __name__ == "__main__":
    main()
