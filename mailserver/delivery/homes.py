"""Delivery into the homes of the host's own users, through the courier process."""

from __future__ import annotations

import json
import os
import socket
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, BinaryIO

from twisted.internet.defer import Deferred, DeferredLock, DeferredSemaphore, gatherResults
from zope.interface import implementer

from mailserver.delivery import courier, troubles
from mailserver.delivery.form import local_form
from mailserver.delivery.letters import Copy, Letter, Result, letter_of, outcomes_of
from mailserver.delivery.names import host_part
from mailserver.interfaces import IBatchDelivery, IComponent, IMayBeMissing, IPrivilegedComponent
from mailserver.mail.answers import Outcome
from mailserver.mail.content import Content
from mailserver.mail.envelope import Envelope
from mailserver.mail.parcel import Destination, Parcel
from mailserver.processes.kept import KeptProcess
from mailserver.processes.small import keep_here
from mailserver.processes.spawning import Start

__all__ = ["Courier", "HomeDelivery", "courier_start"]

WAIT_SECONDS = 30.0  # for one file; a home that hangs holds up its own user's mail, and this batch for so long
USERS_AT_ONCE = 4


class Courier:
    """The server's end.  `deliver` is blocking and may be called in several threads."""

    def __init__(self, process: KeptProcess) -> None:
        self.process = process

    def deliver(self, copy: Copy, letter: Letter) -> Result:
        """Have one file written, durably.  Never raises: a courier that cannot be reached is an outcome too."""
        index = copy[0]
        try:
            with _content_of(letter) as content:
                return (index, *self._asked(_request_of(copy, letter), content.fileno()))
        except (OSError, ValueError) as error:
            return index, troubles.NO_ERRNO, f"the courier: {error}"

    def _asked(self, request: bytes, content: int) -> tuple[int, str]:
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                self.process.send(request, [theirs.fileno(), content])
            ours.settimeout(WAIT_SECONDS)
            reply = ours.recv(courier.REPLY_OCTETS)
        if not reply:
            raise OSError("it ended without an answer")
        return courier.answer_of(reply)


def courier_start(template: str, uid_min: int) -> Start:
    """How the courier is started.  `template` begins with ``{home}/``."""
    return Start("mailserver.delivery.courier", (template, str(uid_min)))


@implementer(IBatchDelivery, IComponent, IPrivilegedComponent, IMayBeMissing)
class HomeDelivery:
    """Mail into the users' homes.  What the courier calls delivered is durable, so `flush` has nothing to do."""

    stores = True

    def __init__(
        self,
        *,
        template: str,
        uid_min: int,
        hostname: str,
        run_in_thread: Callable[..., Awaitable[Any]],
        keep: Callable[[str, Start], KeptProcess] = keep_here,
        identity: Callable[[], int] = os.geteuid,
    ) -> None:
        self._courier_start = courier_start(template, uid_min)
        self._host = host_part(hostname)
        self._run_in_thread = run_in_thread
        self._keep = keep
        self._identity = identity
        self._courier: Courier | None = None
        self._busy: dict[str, DeferredLock] = {}  # users with mail in hand
        self._users_at_once = DeferredSemaphore(USERS_AT_ONCE)

    def start_privileged(self) -> None:
        """Start the courier while the server is still root.  Raises OSError, also where it is not."""
        if self._identity() != 0:
            raise OSError(
                "mail into the homes of the host's users needs root at the start: "
                "give root up with twistd --uid and --gid (etc/system-users.conf), or choose a path without {home}"
            )
        self._courier = Courier(self._keep("courier", self._courier_start))

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
        letters = [letter_of(parcel, self._host) for parcel in parcels]
        results: list[list[Result]] = [[] for _ in letters]
        work: dict[str, list[tuple[int, Copy]]] = {}
        for n, letter in enumerate(letters):
            for copy in letter[-1]:
                work.setdefault(copy[1], []).append((n, copy))

        async def serve(user: str, copies: list[tuple[int, Copy]]) -> None:
            async with self._busy.setdefault(user, DeferredLock()), self._users_at_once:
                await self._run_in_thread(self._deliver_to_user, copies, letters, results)

        await gatherResults([Deferred.fromCoroutine(serve(user, copies)) for user, copies in work.items()])
        self._busy = {user: lock for user, lock in self._busy.items() if lock.locked}
        return [outcomes_of(parcel, found) for parcel, found in zip(parcels, results, strict=True)]

    async def flush(self) -> None:
        """The courier has synced each file."""

    def _deliver_to_user(
        self, copies: list[tuple[int, Copy]], letters: list[Letter], results: list[list[Result]]
    ) -> None:
        """In a thread.  Only this call appends for these copies."""
        begun: set[int] = set()
        for n, copy in copies:
            if self._courier is None:
                results[n].append((copy[0], troubles.NO_ERRNO, "the courier was not started"))
                continue
            letter = letters[n]
            if n in begun:  # several ways lead to this user: where they end in one folder, the first one's copy stands there now
                letter = (True, *letter[1:])
            results[n].append(self._courier.deliver(copy, letter))
            begun.add(n)


def _request_of(copy: Copy, letter: Letter) -> bytes:
    _, user, domain, folder, must_exist, junk, name, fields = copy
    if _prefix_fits(letter):
        fields += letter[5] if letter[1] else b"".join(local_form([letter[5]]))
    members = {
        "user": user,
        "domain": domain,
        "folder": folder,
        "must_exist": must_exist,
        "junk": junk,
        "name": name,
        "fields": fields.decode("latin-1"),
        "binary": letter[1],
        "again": letter[0],
    }
    return json.dumps(members, ensure_ascii=True).encode("ascii")


def _prefix_fits(letter: Letter) -> bool:
    return len(letter[5]) <= courier.FIELDS_OCTETS // 2


def _content_of(letter: Letter) -> BinaryIO:
    """A file that holds the content, without the prefix where that travels in the request."""
    _, binary, data, path, size, prefix, skip, _ = letter
    if path is not None and not skip and _prefix_fits(letter):
        return open(path, "rb", buffering=0)
    file: BinaryIO = tempfile.TemporaryFile(buffering=0)  # the caller closes it
    try:
        content = Content(data, path, size, b"" if _prefix_fits(letter) else prefix, binary, skip)
        for piece in content.chunks():
            view = memoryview(piece)
            while view:
                view = view[file.write(view) :]
    except OSError:
        file.close()
        raise
    return file
