"""A program of the tests: commit messages until it is killed, and print the id and digest of each that was acknowledged.

    python -m tests.queue.committing DIRECTORY commit [ACKNOWLEDGEMENTS]|drain|limit|bounce|drain-bounces|defer MESSAGES

The delivery appends a line for each message, id and digest of what it was handed, to DIRECTORY/delivered.  With `bounce` it fails
every message and appends a line for each report: the id that it speaks of, and its own.  With `defer` it defers every message, for
a day.
"""

from __future__ import annotations

import hashlib
import os
import random
import re
import resource
import signal
import sys
import time

from twisted.internet import defer, reactor, task, threads
from zope.interface import implementer

from mailserver.interfaces import IBatchDelivery
from mailserver.mail.answers import Delayed, Delivered, Failed, Local, Mailbox
from mailserver.mail.content import Content
from mailserver.mail.durable import sync_directory
from mailserver.mail.faults import StorageFault
from mailserver.mail.ids import IdSource
from mailserver.mail.reply import Reply
from mailserver.queue.clock_watch import boot_seconds
from mailserver.queue.queue import Queue
from tests.queue.doubles import envelope, local, with_limits

COMMITTERS = 20
IDS = IdSource(time.time)


@implementer(IBatchDelivery)
class Appending:
    stores = True

    def __init__(self, path):
        self.file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    async def deliver(self, envelope, content, destinations):
        raise NotImplementedError

    async def deliver_batch(self, parcels):
        await task.deferLater(reactor, random.random() * 0.02)
        lines = []
        for parcel in parcels:
            digest = hashlib.sha256(b"".join(parcel.content.chunks())).hexdigest()
            lines.append(f"{parcel.envelope.id} {digest} {int(parcel.again)}\n")
        os.write(self.file, "".join(lines).encode())
        return [{d.index: Delivered() for d in parcel.destinations} for parcel in parcels]

    async def flush(self):
        await threads.deferToThread(os.fsync, self.file)


@implementer(IBatchDelivery)
class Bouncing(Appending):
    async def deliver_batch(self, parcels):
        outcomes = []
        for parcel in parcels:
            if parcel.envelope.sender is not None:
                outcomes.append({d.index: Failed(Reply.of(550, "5.1.1", "No")) for d in parcel.destinations})
                continue
            about = re.search(rb"the\s+number\s+(\w{16})", b"".join(parcel.content.chunks()))[1].decode()
            os.write(self.file, f"{about} {parcel.envelope.id} {int(parcel.again)}\n".encode())
            outcomes.append({d.index: Delivered() for d in parcel.destinations})
        return outcomes


@implementer(IBatchDelivery)
class Deferring(Appending):
    async def deliver_batch(self, parcels):
        return [{d.index: Delayed(Reply.of(451, "4.2.1", "Busy")) for d in parcel.destinations} for parcel in parcels]


async def route(address):
    return [Local(address, Mailbox("bob", "example.com"))]


def make_queue(directory, delivery=Appending, **changes):
    options = {"minimum_free_bytes": 0, "flush_seconds": 0.05, "memory_window_octets": 300_000, "retry_seconds": [1]}
    return Queue(
        data_directory=os.path.join(directory, "data"),
        clock=reactor,
        local=delivery(os.path.join(directory, "delivered")),
        remote=None,
        note=lambda id, step, **fields: None,
        run_in_thread=threads.deferToThread,
        call_from_thread=reactor.callFromThread,
        boot_seconds=boot_seconds,
        **with_limits({"expire_seconds": 4 * 86400, **options, **changes}),
    )


def say(*words):
    os.write(1, (" ".join(words) + "\n").encode())


async def commit_one(queue, octets):
    sent = envelope(local(), id=IDS.next(), received_at=time.time())
    data = random.randbytes(octets)
    if octets > 30_000:  # a large one: its own file, synced before the commit
        path = queue.spool_path(sent.id)
        with open(path, "wb") as file:
            file.write(data)
            os.fsync(file.fileno())
        sync_directory(os.path.dirname(path))
        content = Content.at(path, octets, prefix=b"P: x\r\n")
    else:
        content = Content.of(data, prefix=b"P: x\r\n")
    await queue.commit(sent, content, (local(),))
    say("ok", sent.id, hashlib.sha256(b"P: x\r\n" + data).hexdigest())


async def commit_until(queue, end):
    """Commit for ever, or until so many were acknowledged in all: then die in the very moment of the acknowledgement."""
    while True:
        await commit_one(queue, random.choice([100, 4000, 4000, 20_000, 40_000]))
        end[0] -= 1
        if end[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)


async def until_empty(queue):
    while (queue._recovery is not None and queue._runner._recovery is not None) or queue.depth:
        await task.deferLater(reactor, 0.02)


async def until_broken(queue):
    """Commit until the store refuses; say so; then lift the limit of file sizes, if that was it, until a commit succeeds again."""
    while True:
        try:
            await commit_one(queue, 20_000)
        except StorageFault as fault:
            say("fault", type(fault).__name__, str(queue.writable), str(queue.room_for(1)))
            break
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    while True:
        try:
            await commit_one(queue, 20_000)
        except StorageFault:
            await task.deferLater(reactor, 0.1)
        else:
            say("again", str(queue.writable))
            return


async def run(_, directory, what, acknowledgements="-1"):
    end = [int(acknowledgements)]
    bounces = {"delivery": Bouncing, "route": route, "hostname": "mx.example.org", "next_id": IDS.next}
    defers = {"delivery": Deferring, "retry_seconds": [86_400]}
    queue = make_queue(directory, **(bounces if "bounce" in what else defers if what == "defer" else {}))
    await queue.start()
    say("started", str(queue.depth))
    if what in ("commit", "bounce"):
        await defer.gatherResults([defer.ensureDeferred(commit_until(queue, end)) for _ in range(COMMITTERS)])
    if what == "limit":
        size = os.path.getsize(queue.store_path + "-wal") + 1_000_000
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        await until_broken(queue)
    if what == "defer":
        for _ in range(int(acknowledgements)):
            await commit_one(queue, 100)
    else:
        await until_empty(queue)
    await queue.stop(30)
    say("stopped", str(queue.depth))


if __name__ == "__main__":
    task.react(run, sys.argv[1:])
