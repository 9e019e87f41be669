#!/usr/bin/env python3
"""Measure what a large backlog for one dead destination costs the others.

    bench/queue_backlog.py [--dead 20000] [--living 2000]

A delivery defers what is for the dead host at once, as a relay with a back-off does, and takes the rest.  Three times living
mail is sent, twenty messages at a time: into the empty queue, into one that keeps the dead mail, and while all of the dead mail
is due again.  For each: messages per second, and how long one takes from its commit to its delivery.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import tempfile
import time
from typing import Any


def measure(directory: str, dead: int, living: int) -> None:
    """Print the three rows."""
    from twisted.internet import defer, task, threads
    from twisted.internet import reactor as installed
    from zope.interface import implementer

    from mailserver.interfaces import IDelivery
    from mailserver.mail.address import Address
    from mailserver.mail.answers import Deferred, Delivered, Remote
    from mailserver.mail.content import Content
    from mailserver.mail.envelope import Envelope, Peer, Recipient
    from mailserver.mail.ids import IdSource
    from mailserver.mail.parcel import Destination
    from mailserver.mail.reply import Reply
    from mailserver.queue.limits import QueueLimits
    from mailserver.queue.queue import Queue

    reactor: Any = installed
    no_connection = Deferred(Reply.of(451, "4.4.1", "No connection"), "back-off")
    arrived: dict[str, defer.Deferred[None]] = {}
    tries = [0]

    @implementer(IDelivery)
    class Outside:
        stores = True

        async def deliver(self, envelope: Any, content: Any, destinations: Any) -> Any:
            if destinations[0].recipient.address.domain == "dead.example":
                tries[0] += 1
                return {d.index: no_connection for d in destinations}
            arrived.pop(envelope.id).callback(None)
            return {d.index: Delivered() for d in destinations}

        async def flush(self) -> None:
            pass

    async def route(address: Address) -> Any:
        return [Remote(address)]

    clock_moves = [0.0]

    class Clock:
        """The reactor's, which can be set forward."""

        def seconds(self) -> float:
            return float(reactor.seconds()) + clock_moves[0]

        def callLater(self, delay: float, f: Any, /, *args: Any, **kwargs: Any) -> Any:
            return reactor.callLater(delay, f, *args, **kwargs)

    clock = Clock()
    ids = IdSource(time.time)
    peer, sender = Peer("192.0.2.1", 2525, "mx"), Address("bob", "example.com")
    body = Content.of(b"Subject: x\r\n\r\n" + b"x" * 4096)
    outside: Any = Outside()
    queue = Queue(
        data_directory=directory,
        clock=clock,
        local=outside,
        remote=outside,
        note=lambda id, step, **fields: None,
        run_in_thread=threads.deferToThread,
        call_from_thread=reactor.callFromThread,
        limits=QueueLimits(retry_seconds=[3600], expire_seconds=864_000, warn_seconds=432_000),
        route=route,
    )

    def commit(domain: str, id: str) -> Any:
        recipient = Recipient(Address("carol", domain))
        envelope = Envelope(id, peer, sender, (recipient,), clock.seconds())
        return queue.commit(envelope, body, (Destination(0, recipient, Remote(recipient.address)),))

    async def send_living(name: str) -> None:
        waits, before, began = [], resource.getrusage(resource.RUSAGE_SELF).ru_utime, time.perf_counter()
        tried = tries[0]
        async def send_one() -> None:
            id, at = ids.next(), time.perf_counter()
            there: defer.Deferred[None] = defer.Deferred()
            arrived[id] = there
            await commit("living.example", id)
            await there
            waits.append(time.perf_counter() - at)

        for _ in range(living // 20):
            await defer.gatherResults([defer.ensureDeferred(send_one()) for _ in range(20)])
        took, used = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF).ru_utime - before
        waits.sort()
        print(
            f"{name:34} {living / took:7.0f} messages/s  user {used / living * 1e6:5.0f} us  "
            f"p50 {waits[living // 2] * 1e3:6.1f} ms  p99 {waits[living * 99 // 100] * 1e3:6.1f} ms  "
            f"dead ones tried meanwhile {tries[0] - tried}",
            flush=True,
        )

    async def run(_: Any) -> None:
        await queue.start()
        await send_living("an empty queue")
        began = time.perf_counter()
        for _ in range(dead // 100):
            await defer.gatherResults([commit("dead.example", ids.next()) for _ in range(100)])
        print(f"{dead} for the dead host committed and deferred: {dead / (time.perf_counter() - began):.0f}/s", flush=True)
        await task.deferLater(reactor, 1)
        await send_living(f"{dead} dead ones wait")
        clock_moves[0] = 7200.0
        queue._runner.due.look()
        began, first = time.perf_counter(), tries[0]
        await send_living(f"{dead} dead ones are due")
        while tries[0] - first < dead:
            await task.deferLater(reactor, 0.01)
        print(f"all of them tried again after {time.perf_counter() - began:.1f} s", flush=True)
        await queue.stop(30)

    task.react(run)


def main() -> None:
    """Run in a fresh directory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dead", type=int, default=20_000)
    parser.add_argument("--living", type=int, default=2000)
    options = parser.parse_args()
    directory = tempfile.mkdtemp(prefix="queue-backlog-")
    try:
        measure(directory, options.dead, options.living)
    finally:
        shutil.rmtree(directory)


if __name__ == "__main__":
    main()
