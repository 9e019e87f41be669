#!/usr/bin/env python3
"""Measure the queue: commits with a reactor running, and the store's ways to write a batch.

    bench/queue_commit.py                        messages per second with 1, 20 and 100 committers, 4 KB and 64 KB
    bench/queue_commit.py store                  one batch as a C array, as VALUES rows, as executemany; page sizes; each also
                                                 beside a busy thread

Each committer commits, waits for its answer, and commits the next.  Each message also crosses a socket pair in the reactor,
so that the reactor makes system calls as a server does.  `us` is processor time of the whole process per message, the delivery
doing nothing.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import socket
import tempfile
import threading
import time
from typing import Any

MESSAGES = {1: 3000, 20: 20000, 100: 20000}


def measure_queue(directory: str, committers: int, size: int, messages: int) -> None:
    """Print one row for so many committers."""
    from twisted.internet import defer, task, threads
    from twisted.internet import reactor as installed
    from zope.interface import implementer

    from mailserver.interfaces import IBatchDelivery
    from mailserver.mail.address import Address
    from mailserver.mail.answers import Delivered, Local, Mailbox
    from mailserver.mail.content import Content
    from mailserver.mail.envelope import Envelope, Peer, Recipient
    from mailserver.mail.ids import IdSource
    from mailserver.mail.parcel import Destination
    from mailserver.queue.limits import QueueLimits
    from mailserver.queue.queue import Queue

    @implementer(IBatchDelivery)
    class Nowhere:
        stores = True

        async def deliver(self, envelope: Any, content: Any, destinations: Any) -> Any:
            return {d.index: Delivered() for d in destinations}

        async def deliver_batch(self, parcels: Any) -> Any:
            return [{d.index: Delivered() for d in p.destinations} for p in parcels]

        async def flush(self) -> None:
            pass

    reactor: Any = installed
    ids = IdSource(time.time)
    peer = Peer("192.0.2.1", 2525, "mx", "client.example", "EHLO")
    data = os.urandom(size)
    prefix = b"Received: from client.example (192.0.2.1)\r\n\tby mail.example.org with ESMTP; Mon, 23 Nov 2026 00:00:00 +0000\r\n"
    address = Address("alice", "example.org")
    latencies: list[float] = []
    queue = Queue(
        data_directory=directory,
        clock=reactor,
        local=Nowhere(),
        remote=None,
        note=lambda id, step, **fields: None,
        run_in_thread=threads.deferToThread,
        call_from_thread=reactor.callFromThread,
        limits=QueueLimits(retry_seconds=[60], expire_seconds=86400),
    )
    left, right = socket.socketpair()

    async def committer(number: int) -> None:
        for _ in range(number):
            left.send(data[:4096])
            body = right.recv(65536) + data[4096:]
            recipient = Recipient(address)
            envelope = Envelope(ids.next(), peer, Address("bob", "example.com"), (recipient,), time.time())
            destination = Destination(0, recipient, Local(address, Mailbox("alice", "example.org")))
            began = time.perf_counter()
            await queue.commit(envelope, Content.of(body, prefix=prefix), (destination,))
            latencies.append(time.perf_counter() - began)

    async def run(_: Any) -> None:
        await queue.start()
        before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        share = messages // committers
        await defer.gatherResults([defer.ensureDeferred(committer(share)) for _ in range(committers)])
        took, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
        user, system = after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime
        await queue.stop(30)
        done, counts = len(latencies), queue.counts
        latencies.sort()
        middle, slow = latencies[done // 2] * 1e3, latencies[done * 99 // 100] * 1e3
        print(
            f"queue  {committers:4} committers {size:6} octets  {done / took:7.0f}/s  "
            f"batch {done / counts.batches:5.1f}  user {user / done * 1e6:5.1f} us  system {system / done * 1e6:5.1f} us  "
            f"p50 {middle:5.2f} ms  p99 {slow:6.2f} ms  settled {counts.settled}",
            flush=True,
        )

    task.react(run)


def busy_thread(stop: threading.Event) -> None:
    """A thread that holds the interpreter as a reactor does: some Python, a system call, some Python."""
    a, b = socket.socketpair()
    while not stop.is_set():
        a.send(b"x" * 64)
        sum(range(1500))
        b.recv(100)
        sum(range(1500))


def measure_store(directory: str, way: str, batch: int, page: int, size: int, busy: bool, messages: int) -> None:
    """Print one row for a way to write."""
    import apsw

    from mailserver.queue.store import INSERT, SqliteStore

    store = SqliteStore(os.path.join(directory, "queue.db"), page_octets=page)
    store.open()
    connection = store._open_connection()
    stop = threading.Event()
    if busy:
        threading.Thread(target=busy_thread, args=(stop,), daemon=True).start()
    body = os.urandom(size + 600)
    values = "INSERT INTO entry VALUES " + ",".join(["(?, 1, 0, ?)"] * batch)
    times, settled = [], 0
    began, processor = time.perf_counter(), time.thread_time()
    for first in range(1, messages + 1, batch):
        numbers = range(first, first + batch)
        started = time.perf_counter()
        if way == "array":
            connection.execute(INSERT, (apsw.carray(tuple([b"%019d%06d0" % (n, 1) + body for n in numbers])),))
        elif way == "values":
            connection.execute(values, [item for n in numbers for item in (n, body)])
        else:
            with connection:
                connection.executemany("INSERT INTO entry VALUES (?, 1, 0, ?)", [(n, body) for n in numbers])
        times.append(time.perf_counter() - started)
        if first - settled > 1000:
            store.settle(range(settled + 1, first), [], [])
            settled = first - 1
        if store.log_octets > 32 << 20:
            store.checkpoint()
    took = time.perf_counter() - began
    processor = time.thread_time() - processor
    stop.set()
    times.sort()
    print(
        f"store  {way:7} batch {batch:3} page {page:5} {size:6} octets {'busy' if busy else 'idle'}  {messages / took:7.0f}/s  "
        f"thread {processor / messages * 1e6:6.1f} us  p50 {times[len(times) // 2] * 1e3:6.2f} ms  "
        f"p99 {times[len(times) * 99 // 100] * 1e3:6.2f} ms",
        flush=True,
    )
    store.close()


def main() -> None:
    """Run each measurement in a fresh process and a fresh directory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=["queue", "store"], default="queue")
    parser.add_argument("--directory", default="", help="where the measured files stand (default: the temporary directory)")
    options = parser.parse_args()
    rows: list[tuple[Any, ...]] = []
    if options.what == "queue":
        rows += [(measure_queue, n, size, MESSAGES[n] // (1 if size < 9999 else 8)) for size in (4096, 65536) for n in MESSAGES]
    else:
        ways = [(way, n, 16384, 4096) for way in ("array", "values", "many") for n in (1, 10, 64)]
        ways += [("array", 10, page, size) for page in (4096, 8192, 16384, 32768) for size in (4096, 65536)]
        rows += [(measure_store, *way, busy, 4000 if way[3] < 9999 else 1500) for way in ways for busy in (False, True)]
    for function, *arguments in rows:
        directory = tempfile.mkdtemp(prefix="queue-commit-", dir=options.directory or None)
        child = os.fork()
        if child == 0:
            try:
                function(directory, *arguments)
            except SystemExit:
                pass
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        shutil.rmtree(directory)


if __name__ == "__main__":
    main()
