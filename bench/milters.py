#!/usr/bin/env python3
"""Measure what a milter costs this server: processor time for a message with and without the filter `milter`.

    python -m bench.milters                   a milter that hears all, one that wants no fields and no body, none at all
    python -m bench.milters --octets 65536    with messages of this size
    python -m bench.milters --connect         a connection for each message

The milter is another process, which answers "continue" to whatever it is asked; its own time is not counted.  The server's
listener runs in this process with connections in memory, and its store throws messages away: the difference between the rows is
the filter's.
"""

# mypy: disallow-untyped-calls=False

from __future__ import annotations

import argparse
import io
import os
import signal
import socket
import struct
import sys
import tempfile
import time
from dataclasses import replace
from typing import Any

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from twisted.internet import reactor as the_reactor
from twisted.internet.defer import Deferred

from mailserver.filters.milter import factory
from mailserver.plugins.generation import Generation
from mailserver.receive.ends import ends_for
from mailserver.receive.judging import BoundFilter
from mailserver.testing import FilterCase
from tests.receive.connections import Listener

reactor: Any = the_reactor
ANSWERED = frozenset(b"CHMRTLNBE")
CONTINUE = struct.pack("!I", 1) + b"c"
NOT_ANSWERED = dict(zip(b"CHMRTLNB", (0x1000, 0x2000, 0x4000, 0x8000, 0x10000, 0x80, 0x40000, 0x80000), strict=True))
KINDS = {
    "no filter": None,
    "hears all": 0,
    "no fields, no body": 0x20 | 0x10,
    "answers nothing before the end": sum(NOT_ANSWERED.values()),
}
HEADER = b"".join([b"X-Field-%d: some value of a usual length\r\n" % n for n in range(12)])


def milter(listening: socket.socket, steps: int) -> None:
    """The other process.  Which steps it does not answer stands in the flags."""
    silent = {letter for letter, flag in NOT_ANSWERED.items() if steps & flag}
    while True:
        connection, _ = listening.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stream = connection.makefile("rb")
        while head := stream.read(4):
            data = stream.read(struct.unpack("!I", head)[0])
            if data[:1] == b"O":
                connection.sendall(struct.pack("!IcIII", 13, b"O", 6, 0x1FF, steps))
            elif data[0] in ANSWERED and data[0] not in silent:
                connection.sendall(CONTINUE)
            elif data[:1] == b"Q":
                break
        connection.close()


def started(steps: int) -> tuple[int, int]:
    """Its port and its process."""
    listening = socket.create_server(("127.0.0.1", 0))
    port = int(listening.getsockname()[1])
    pid = os.fork()
    if pid == 0:
        try:
            milter(listening, steps)
        finally:
            os._exit(0)
    listening.close()
    return port, pid


class Bench(FilterCase):
    def runTest(self) -> None:
        """Not a test."""

    async def measured(self, port: int | None, octets: int, messages: int, connects: bool) -> tuple[float, float]:
        """Microseconds of processor time, and of time, for each message."""
        filters: list[Any] = []
        if port is not None:
            component = self.build(factory, endpoint=f"tcp:127.0.0.1:{port}", client_names=False)
            filters = [BoundFilter("milter", component, cost=component.cost)]
        listener = Listener(tempfile.mkdtemp(), filters=filters, memory_octets=10_000_000)
        listener.profile = replace(
            listener.profile,
            ends=ends_for(filters, service="mx", clock=listener.clock, generation=Generation()),
            limits=replace(listener.profile.limits, messages_per_connection=1_000_000),
        )
        listener.factory.profile = listener.profile
        text = HEADER + b"\r\n" + b"x" * 70 + b"\r\n"
        text += (b"y" * 70 + b"\r\n") * max(0, (octets - len(text)) // 72) + b".\r\n"
        turns = (b"MAIL FROM:<a@example.net>\r\n", b"RCPT TO:<alice@example.org>\r\n", b"DATA\r\n", text)
        protocol: Any = None
        wire: Any = None
        used, began = time.process_time(), time.perf_counter()
        for _ in range(messages):
            if protocol is None:
                protocol, wire = listener.connect()
                await said(wire)
                protocol.dataReceived(b"EHLO client.example\r\n")
                await said(wire)
            for octets_of_turn in turns:
                protocol.dataReceived(octets_of_turn)
                reply = await said(wire)
                assert reply[:1] in b"23", reply
            listener.store.taken.clear()
            if connects:
                protocol.connectionLost(None)
                protocol = None
        figures = (time.process_time() - used) / messages * 1e6, (time.perf_counter() - began) / messages * 1e6
        for bound in filters:  # the milter serves one connection at a time
            await bound.component.stop()
        return figures


class Heard(io.BytesIO):
    """What the server has written, for who waits for it: to look again and again would count as the server's time."""

    waiting: Deferred[None] | None = None

    def write(self, octets: Any) -> int:
        written = super().write(octets)
        waiting, self.waiting = self.waiting, None
        if waiting is not None:
            reactor.callLater(0, waiting.callback, None)
        return written


async def said(wire: Any) -> bytes:
    if not isinstance(wire.io, Heard):
        wire.io = Heard(wire.io.getvalue())
        wire.io.seek(0, io.SEEK_END)
    if not wire.io.getvalue():
        wire.io.waiting = Deferred()
        await wire.io.waiting
    reply = bytes(wire.io.getvalue())
    wire.io.seek(0)
    wire.io.truncate()
    return reply


async def main(options: argparse.Namespace, ports: dict[str, int | None]) -> None:
    best: dict[str, tuple[float, float]] = {}
    for _ in range(options.runs):
        for kind, port in ports.items():
            bench = Bench()
            bench.setUp()
            found = await bench.measured(port, options.octets, options.messages, options.connect)
            best[kind] = min(best.get(kind, found), found)
    how = "a connection for each message" if options.connect else "one connection"
    print(f"{options.octets} octets, {how}; the quickest of {options.runs} runs")
    for kind, (processor, whole) in best.items():
        print(f"{kind:32} {processor:8.0f} us of processor time, {whole:8.0f} us in all, for each message")


def run() -> None:
    parser = argparse.ArgumentParser(description="What a milter costs.")
    parser.add_argument("--octets", type=int, default=4096)
    parser.add_argument("--messages", type=int, default=200)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--connect", action="store_true")
    options = parser.parse_args()
    failed: list[Any] = []
    milters = {kind: (None, 0) if steps is None else started(steps) for kind, steps in KINDS.items()}

    def begin() -> None:
        done = Deferred.fromCoroutine(main(options, {kind: port for kind, (port, _) in milters.items()}))
        done.addErrback(failed.append)
        done.addBoth(lambda _: reactor.stop())

    reactor.callWhenRunning(begin)
    try:
        reactor.run()
    finally:
        for _, pid in milters.values():
            if pid:
                os.kill(pid, signal.SIGKILL)
    if failed:
        print(failed[0], file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    run()
