"""Delivery into the homes of the host's own users, through the courier process."""

from __future__ import annotations

import json
import os
import socket
import tempfile
from collections.abc import Awaitable, Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO

from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.logger import Logger
from zope.interface import implementer

from mailserver.delivery import errno_outcomes
from mailserver.delivery.batch_format import BatchCopy, BatchMessage, CopyResult, message_of, outcomes_of
from mailserver.delivery.courier import FIELDS_OCTETS, answer_of
from mailserver.delivery.home_queues import HomeBusy, HomeQueues
from mailserver.delivery.maildir_format import local_form
from mailserver.delivery.names import host_part
from mailserver.interfaces import (
    Clock,
    IBatchDelivery,
    IComponent,
    IConcurrentDelivery,
    IMayBeMissing,
    IPrivilegedComponent,
)
from mailserver.mail.answers import Outcome
from mailserver.mail.content import Content
from mailserver.mail.envelope import Envelope
from mailserver.mail.parcel import Destination, Parcel
from mailserver.mail.tags import for_final_delivery
from mailserver.processes.answer import PendingAnswer
from mailserver.processes.kept import KeptProcess
from mailserver.processes.small import keep_here
from mailserver.processes.spawning import ProcessStart

__all__ = ["CourierClient", "HomeDelivery", "courier_start"]

WAIT_SECONDS = 30.0  # for one file
AT_ONCE = 16  # files
CALLS_AT_ONCE = 32  # of the queue: a home that hangs keeps the call with its message, and no other one
DEADLINE_SECONDS = 300.0  # of a call
LAST_START_SECONDS = DEADLINE_SECONDS - 2 * WAIT_SECONDS  # after which none of its messages is begun


class CourierClient:
    """The server's end of the `process`."""

    def __init__(self, process: KeptProcess) -> None:
        self.process = process

    def hand_over(self, copy: BatchCopy, message: BatchMessage, reply: socket.socket) -> None:
        """In a thread: ask for one file, and close our copy of the reply's other end.  Raises OSError."""
        message = _final(message)
        with reply, _content_of(message) as content:
            self.process.send(_request_of(copy, message), [reply.fileno(), content.fileno()])


def courier_start(template: str, uid_min: int) -> ProcessStart:
    """How the courier is started.  `template` begins with ``{home}/``."""
    return ProcessStart("mailserver.delivery.courier", (template, str(uid_min)))


@implementer(IBatchDelivery, IConcurrentDelivery, IComponent, IPrivilegedComponent, IMayBeMissing)
class HomeDelivery:
    """Mail into the users' homes.  What the courier calls delivered is durable, so `flush` has nothing to do.

    `run_in_thread` hands requests over; `reactor` waits for the replies.
    """

    stores = True
    log = Logger()
    calls_at_once = CALLS_AT_ONCE
    deadline_seconds = DEADLINE_SECONDS

    def __init__(
        self,
        *,
        template: str,
        uid_min: int,
        hostname: str,
        clock: Clock,
        run_in_thread: Callable[..., Awaitable[Any]],
        reactor: Any,
        keep: Callable[[str, ProcessStart], KeptProcess] = keep_here,
        identity: Callable[[], int] = os.geteuid,
    ) -> None:
        self._courier_start = courier_start(template, uid_min)
        self._host = host_part(hostname)
        self._clock = clock
        self._run_in_thread = run_in_thread
        self._reactor = reactor
        self._keep = keep
        self._identity = identity
        self._courier: CourierClient | None = None
        self._home_queues = HomeQueues(clock=clock, at_once=AT_ONCE)

    def start_privileged(self) -> None:
        """Start the courier while the server is still root.  Raises OSError, also where it is not."""
        if self._identity() != 0:
            raise OSError(
                "mail into the homes of the host's users needs root at the start: "
                "give root up with twistd --uid and --gid (etc/system-users.conf), or choose a path without {home}"
            )
        self._courier = CourierClient(self._keep("courier", self._courier_start))

    async def start(self) -> None:
        """Nothing more: the courier runs."""

    async def stop(self) -> None:
        """End the courier."""
        if self._courier is not None:
            await self._run_in_thread(self._courier.process.close)

    def missing(self) -> str:
        """Of the courier."""
        return "it was not started" if self._courier is None else self._courier.process.missing

    async def deliver(
        self, envelope: Envelope, content: Content, destinations: Sequence[Destination]
    ) -> Mapping[int, Outcome]:
        """One message; see `deliver_batch`."""
        return (await self.deliver_batch((Parcel(envelope, content, tuple(destinations)),)))[0]

    async def deliver_batch(self, parcels: Sequence[Parcel]) -> Sequence[Mapping[int, Outcome]]:
        """Users side by side, the messages of one user in their order."""
        last_start = self._clock.seconds() + LAST_START_SECONDS
        messages = [message_of(parcel, self._host) for parcel in parcels]
        results = await gatherResults(
            [
                gatherResults(
                    [Deferred.fromCoroutine(self._deliver_copy(copy, own, last_start)) for copy, own in _each_copy(message)]
                )
                for message in messages
            ]
        )
        return [
            outcomes_of(parcel, _for_all(message, found))
            for parcel, message, found in zip(parcels, messages, results, strict=True)
        ]

    async def flush(self) -> None:
        """The courier has synced each file."""

    async def _deliver_copy(self, copy: BatchCopy, message: BatchMessage, last_start: float) -> CopyResult:
        """Never raises: each copy has its own outcome."""
        courier = self._courier
        if courier is None:
            return copy.destination, errno_outcomes.NO_ERRNO, "the courier was not started"
        try:
            number, note = await self._home_queues.serve(
                copy.user, lambda: self._asked(courier, copy, message), last_start=last_start
            )
        except HomeBusy as error:
            return copy.destination, errno_outcomes.NO_ERRNO, str(error)
        except (OSError, ValueError) as error:
            return copy.destination, errno_outcomes.NO_ERRNO, f"the courier: {error}"
        except CancelledError:
            return copy.destination, errno_outcomes.NO_ERRNO, "the server did not wait any longer"
        except Exception as error:  # noqa: BLE001  # whatever it is, it must not reach the batch's other mailboxes
            self.log.failure("a message could not be given to the courier")
            return copy.destination, errno_outcomes.NO_ERRNO, f"{type(error).__name__}: {error}"
        return copy.destination, number, note

    async def _asked(self, courier: CourierClient, copy: BatchCopy, message: BatchMessage) -> tuple[int, str]:
        """Have one file written, durably.  Raises OSError, ValueError, and Twisted's TimeoutError.

        Each request has a socket of its own for its answer, so that the answer to an attempt that was given up is never taken
        for that to the next one.  Closing our end is the whole of giving up.  A child that still writes looks at the socket
        before its rename and then makes none; where its rename was quicker, its file stands, and the next attempt, which comes
        with `again`, finds it by its name.
        """
        ours, theirs = socket.socketpair()
        answer = PendingAnswer(self._reactor, ours)
        try:
            await self._run_in_thread(courier.hand_over, copy, message, theirs)
            octets = await answer.within(WAIT_SECONDS, self._clock)
        finally:
            answer.close()  # who still writes sees that nobody waits
        if not octets:
            raise OSError("it ended without an answer")
        return answer_of(octets)


def _each_copy(message: BatchMessage) -> Iterator[tuple[BatchCopy, BatchMessage]]:
    """The copies of a message, one for each folder that they ask for, each with the message in the form that it needs.

    Several recipients may be one user.  Where they share a folder, too, the first one's copy stands there when the second comes.
    """
    users: set[str] = set()
    asked: set[Hashable] = set()
    for copy in message.copies:
        if _asks_for(copy) not in asked:
            yield copy, message.once_more() if copy.user in users else message
        users.add(copy.user)
        asked.add(_asks_for(copy))


def _for_all(message: BatchMessage, results: Sequence[CopyResult]) -> list[CopyResult]:
    """A result for each copy: copies that ask for the same have the same."""
    firsts = [copy for copy, _ in _each_copy(message)]
    answers = {_asks_for(copy): result for copy, result in zip(firsts, results, strict=True)}
    return [(copy.destination, *answers[_asks_for(copy)][1:]) for copy in message.copies]


def _asks_for(copy: BatchCopy) -> Hashable:
    return copy.user, copy.domain, copy.folder, copy.folder_must_exist, copy.junk


def _request_of(copy: BatchCopy, message: BatchMessage) -> bytes:
    fields = copy.fields
    if _prefix_fits(message):
        fields += message.prefix if message.binary else b"".join(local_form([message.prefix]))
    members = {
        "user": copy.user,
        "domain": copy.domain,
        "folder": copy.folder,
        "must_exist": copy.folder_must_exist,
        "junk": copy.junk,
        "name": copy.name,
        "fields": fields.decode("latin-1"),
        "binary": message.binary,
        "again": message.again,
    }
    return json.dumps(members, ensure_ascii=True).encode("ascii")


def _final(message: BatchMessage) -> BatchMessage:
    """Without what came with it and is the delivery's to write."""
    content = message.content()
    final = for_final_delivery(content)
    if final is content:
        return message
    return message._replace(
        data=final.data, path=final.path, stored_size=final.stored_size, prefix=final.prefix, skip=final.skip
    )


def _prefix_fits(message: BatchMessage) -> bool:
    return len(message.prefix) <= FIELDS_OCTETS // 2


def _content_of(message: BatchMessage) -> BinaryIO:
    """A file that holds the content, without the prefix where that travels in the request."""
    if message.path is not None and not message.skip and _prefix_fits(message):
        return open(message.path, "rb", buffering=0)
    file: BinaryIO = tempfile.TemporaryFile(buffering=0)  # the caller closes it
    try:
        content = (message._replace(prefix=b"") if _prefix_fits(message) else message).content()
        for piece in content.chunks():
            view = memoryview(piece)
            while view:
                view = view[file.write(view) :]
    except OSError:
        file.close()
        raise
    return file
