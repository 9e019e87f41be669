"""What is said to one chosen peer, kept for a while for a person who looks on: `mailserver record`.

Each connection asks once, when it begins, whether it is recorded; nothing is done for the others.  Octets are taken above TLS,
without passwords, and wait here until they are fetched.  Everything is bounded: recordings, their time, what waits.  A
recording that nobody fetches ends.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any, Literal

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from mailserver.capture.masking import SecretMask
from mailserver.interfaces import Clock, Timer

__all__ = ["NoRoomToRecord", "Recorded", "Recording", "Recordings", "Tap"]

RECORDINGS = 4  # at once
SECONDS_MOST = 24 * 3600.0
WAITING_OCTETS = 8 << 20  # that have not been fetched
FETCHED_OCTETS = 512 << 10  # at once
ABANDONED_SECONDS = 30.0  # without anybody who fetches
Kind = Literal["opened", "client", "server", "encrypted", "closed", "lost"]
SIDES: tuple[Kind, ...] = ("client", "server")


class NoRoomToRecord(Exception):
    """There are as many recordings as there may be."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """Something that happened on a recorded connection.

    `time` in nanoseconds since 1970; `connection` counts from 1.  "client" and "server" said `octets`; `words` are the two
    ends of "opened" ("ADDRESS PORT ADDRESS PORT", the client's first), the facts of "encrypted", and for "lost" who said how
    many octets that are missing here ("client 1000").  Connection 0 has "lost" so many whole connections ("connections 3").
    """

    time: int
    connection: int
    kind: Kind
    octets: bytes = b""
    words: str = ""


@dataclass(slots=True, eq=False)
class Recording:
    """One person's recording.

    `network` is the peer; `left` the octets that it may still take; `lost` those for which there was no room, by connection and
    who said them, until it is told; `unrecorded` connections that began when there was none.
    """

    number: int
    network: IPv4Network | IPv6Network
    left: int
    connections: int = 0
    ending: str = ""  # why it has ended
    lost: dict[tuple[int, Kind], int] = field(default_factory=dict)
    unrecorded: int = 0
    held: int = 0
    waiting: deque[Recorded] = field(default_factory=deque)
    fetcher: Deferred[None] | None = None
    timers: list[Timer] = field(default_factory=list)
    abandoned: Timer | None = None


class Recordings:
    """All recordings of a server.  `note(step, **fields)` tells the log of each."""

    log = Logger()

    def __init__(self, clock: Clock, *, now: Callable[[], int] = time.time_ns) -> None:
        self._clock = clock
        self._now = now
        self._number = 0
        self._open: dict[int, Recording] = {}

    def start(self, network: IPv4Network | IPv6Network, *, seconds: float, octets: int, by: str) -> int:
        """Record connections with this peer that begin from now on; return the recording's number.

        Raises NoRoomToRecord, and ValueError for a time that is none.
        """
        if not 0 < seconds <= SECONDS_MOST:
            raise ValueError("a recording lasts up to a day")
        if octets < 1:
            raise ValueError("a recording takes at least one octet")
        if len(self._open) >= RECORDINGS:
            raise NoRoomToRecord(f"{RECORDINGS} recordings are running")
        self._number += 1
        one = self._open[self._number] = Recording(self._number, network, octets)
        one.timers.append(self._clock.callLater(seconds, self._finish, one, "its time is over"))
        self._wait_for_fetcher(one)
        self.log.info("what is said with {peer} is recorded for {seconds} s (recording {n}, by {by})",
            peer=str(network), seconds=seconds, n=one.number, by=by)  # fmt: skip
        return one.number

    async def fetch(self, number: int, *, seconds: float) -> tuple[list[Recorded], str]:
        """What has been recorded since the last call, in order; an empty list after this time.

        Behind it stands why nothing more comes, "" while it goes on.
        Raises KeyError where there is no such recording, or no longer.
        """
        one = self._open[number]
        if one.abandoned is not None:
            one.abandoned.cancel()
            one.abandoned = None
        if not one.waiting and not one.ending and one.fetcher is None:
            one.fetcher = Deferred()
            timer = self._clock.callLater(seconds, self._wake, one)
            try:
                await one.fetcher
            finally:
                one.fetcher = None
                if timer.active():
                    timer.cancel()
        found, size = [], 0
        while one.waiting and size < FETCHED_OCTETS:
            found.append(one.waiting.popleft())
            size += len(found[-1].octets)
        one.held -= size
        if one.ending and not one.waiting:
            self._open.pop(number, None)
            return found, one.ending
        self._wait_for_fetcher(one)
        return found, ""

    def stop(self, number: int) -> None:
        """End a recording; what waits may still be fetched."""
        one = self._open.get(number)
        if one is not None:
            self._finish(one, "it was stopped")

    def shut_down(self) -> None:
        """The server stops: end all."""
        for one in list(self._open.values()):
            self._finish(one, "the server stops")
            self._forget(one)

    def tap(self, peer: str, port: int, ours: Any, *, is_client: bool) -> Tap | None:
        """What takes a connection's octets, None where it is not recorded.

        `ours` is our own end, an address of Twisted; `is_client`: the peer is the one who speaks as client.
        """
        if not self._open:
            return None
        try:
            address, own = ip_address(peer), ip_address(ours.host)
        except (AttributeError, ValueError):  # a Unix socket
            return None
        if (mapped := getattr(own, "ipv4_mapped", None)) is not None:
            own = mapped
        takers = [one for one in self._open.values() if not one.ending and _is_in(address, one.network) and _has_room(one)]
        if not takers:
            return None
        if address.version != own.version:  # a proxy has said who the peer is
            own = ip_address("0.0.0.0" if address.version == 4 else "::")
        ends = [(address, port), (own, ours.port)] if is_client else [(own, ours.port), (address, port)]
        tap = Tap(self, takers, is_client=is_client)
        tap.tell("opened", words=" ".join([f"{host} {number}" for host, number in ends]))
        return tap

    def add(self, one: Recording, what: Recorded) -> None:
        """Put something into a recording.  Words for which there is no room are lost to it; what happened never is."""
        if one.ending:
            return
        if what.octets and not _is_free(one, len(what.octets)):
            place = (what.connection, what.kind)
            one.lost[place] = one.lost.get(place, 0) + len(what.octets)
            return
        if one.lost or one.unrecorded:
            self._tell_lost(one, what.time, what.connection)
        one.waiting.append(what)
        one.held += len(what.octets)
        one.left -= len(what.octets)
        self._wake(one)
        if one.left <= 0:
            self._finish(one, "it is as large as it may be")

    def _tell_lost(self, one: Recording, now: int, connection: int) -> None:
        """Something of this connection goes on: what is missing stands before it."""
        if one.unrecorded:
            one.waiting.append(Recorded(now, 0, "lost", words=f"connections {one.unrecorded}"))
            one.unrecorded = 0
        for kind in SIDES:
            if octets := one.lost.pop((connection, kind), 0):
                one.waiting.append(Recorded(now, connection, "lost", words=f"{kind} {octets}"))

    def now(self) -> int:
        """Nanoseconds since 1970."""
        return self._now()

    def _wait_for_fetcher(self, one: Recording) -> None:
        if one.abandoned is not None:
            one.abandoned.cancel()
        one.abandoned = self._clock.callLater(ABANDONED_SECONDS, self._abandon, one)

    def _abandon(self, one: Recording) -> None:
        one.abandoned = None
        self._finish(one, "nobody fetches it")
        self._forget(one)

    def _wake(self, one: Recording) -> None:
        if one.fetcher is not None and not one.fetcher.called:
            one.fetcher.callback(None)

    def _finish(self, one: Recording, why: str) -> None:
        if one.ending:
            return
        one.ending = why
        for timer in one.timers:
            if timer.active():
                timer.cancel()
        for connection in [0, *dict.fromkeys([number for number, _ in one.lost])]:
            self._tell_lost(one, self._now(), connection)
        self.log.info("recording {n} of {peer} has ended: {why}", n=one.number, peer=str(one.network), why=why)
        self._wake(one)

    def _forget(self, one: Recording) -> None:
        self._open.pop(one.number, None)
        if one.abandoned is not None:
            one.abandoned.cancel()
            one.abandoned = None


class Tap:
    """Takes the octets of one connection, for each recording that wants them."""

    def __init__(self, recordings: Recordings, takers: list[Recording], *, is_client: bool) -> None:
        self._recordings = recordings
        self._takers: list[tuple[Recording, int]] = []
        for one in takers:
            one.connections += 1
            self._takers.append((one, one.connections))
        self._is_client = is_client
        self._mask = SecretMask()

    def writer(self, write: Callable[[bytes], None]) -> Callable[[bytes], None]:
        """`write`, looked on."""

        def write_and_tell(octets: bytes) -> None:
            self.sent(octets)
            write(octets)

        return write_and_tell

    def received(self, octets: bytes) -> None:
        """The peer said this."""
        self._say(self._is_client, octets)

    def sent(self, octets: bytes) -> None:
        """We said this."""
        self._say(not self._is_client, octets)

    def encrypted(self, facts: str) -> None:
        """What comes now is inside TLS."""
        self._mask.encrypted()
        self.tell("encrypted", words=facts)

    def closed(self) -> None:
        """The connection is over."""
        self.tell("closed")
        self._takers = []

    def _say(self, is_client: bool, octets: bytes) -> None:
        try:
            if is_client:
                self.tell("client", self._mask.client(bytes(octets)))
            else:
                self.tell("server", self._mask.server(bytes(octets)))
        except Exception:  # noqa: BLE001  # who is looked at must not feel it
            self._takers = []
            Recordings.log.failure("a connection is not recorded any longer")

    def tell(self, kind: Kind, octets: bytes = b"", words: str = "") -> None:
        """Something has happened."""
        now = self._recordings.now()
        for one, number in self._takers:
            self._recordings.add(one, Recorded(now, number, kind, octets, words))


def _is_free(one: Recording, octets: int) -> bool:
    return one.held + octets <= WAITING_OCTETS and len(one.waiting) <= WAITING_OCTETS // 1024


def _has_room(one: Recording) -> bool:
    """Whether one more connection can be taken."""
    if not (is_free := _is_free(one, 0)):
        one.unrecorded += 1
    return is_free


def _is_in(address: IPv4Address | IPv6Address, network: IPv4Network | IPv6Network) -> bool:
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address.version == network.version and address in network
