"""A listener without sockets: a factory, its connections in memory, virtual time, and a store that does as it is told."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping, Sequence
from typing import Any

from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from mailserver.mail.address import Address
from mailserver.mail.answers import Local, Mailbox, Refused, Remote, Route
from mailserver.mail.content import Content
from mailserver.mail.envelope import Envelope
from mailserver.mail.ids import IdSource
from mailserver.mail.networks import Networks
from mailserver.mail.parcel import Destination
from mailserver.mail.reply import Reply
from mailserver.mail.set_apart import SetApart
from mailserver.receive.factory import ReceiveFactory, peer_at
from mailserver.receive.judging import BoundFilter, Judging
from mailserver.receive.profile import ConnectionLimits, Profile
from mailserver.receive.protocol import ReceiveProtocol
from mailserver.receive.spooling import SpoolBudget
from mailserver.receive.throttle import Admission

NOTHING: Mapping[int, SetApart] = {}
NO_SUCH_USER = Reply.of(550, "5.1.1", "There is no such user here")


class Wire(StringTransport):
    """A transport that remembers what was done to it."""

    paused = False
    aborted = False
    creator: Any = None  # of startTLS
    protocol: Any = None  # where a listener put it there

    def startTLS(self, creator: Any) -> None:
        self.creator = creator

    def pauseProducing(self) -> None:
        self.paused = True

    def resumeProducing(self) -> None:
        self.paused = False

    def abortConnection(self) -> None:
        self.aborted = True

    def hear(self, octets: bytes) -> str:
        """Let the peer say this; return what the server writes."""
        self.clear()
        self.protocol.dataReceived(octets)
        return self.said()

    def said(self) -> str:
        """What the server has written since the last time."""
        octets = self.value()
        self.clear()
        return octets.decode()

    def codes(self) -> list[int]:
        """The codes of the replies since the last time."""
        return [int(line[:3]) for line in self.said().splitlines() if line[3:4] == " "]


class Store:
    """Takes messages; `answer` is the outcome of the next commits, `hold` keeps them waiting."""

    def __init__(self, directory: str) -> None:
        self.writable = True
        self.room = 10**9
        self.hold = False
        self.answer: Exception | None = None
        self.taken: list[tuple[Envelope, bytes, tuple[Destination, ...]]] = []
        self.set_apart: list[dict[int, SetApart]] = []  # of each of them
        self.waiting: list[Deferred[None]] = []
        self.directory = directory
        os.makedirs(directory, exist_ok=True)

    def room_for(self, octets: int) -> bool:
        return octets <= self.room

    def spool_path(self, id: str) -> str:
        return os.path.join(self.directory, id)

    def commit(
        self, envelope: Envelope, content: Content, destinations: tuple[Destination, ...], set_apart: Mapping[int, SetApart] = NOTHING
    ) -> Deferred[None]:
        if self.answer is not None:
            return fail(self.answer)
        self.taken.append((envelope, b"".join(content.chunks()), destinations))
        self.set_apart.append(dict(set_apart))
        if not self.hold:
            return succeed(None)
        self.waiting.append(Deferred())
        return self.waiting[-1]


class Router:
    """alice and bob live at example.org; other domains are elsewhere; `later` makes the next question wait."""

    def __init__(self) -> None:
        self.later: Deferred[None] | None = None
        self.error: BaseException | None = None

    async def route(self, address: Address) -> Sequence[Route]:
        if self.later is not None:
            later, self.later = self.later, None
            await later
        if self.error is not None:
            raise self.error
        if address.domain not in ("example.org", ""):
            return (Remote(address),)
        if address.local == "team":
            return tuple(Local(Address(name, "example.org"), Mailbox(name, "example.org")) for name in ("alice", "bob"))
        if address.local == "away":
            return (Remote(Address("me", "elsewhere.example")),)
        if address.local not in ("alice", "bob", "postmaster"):
            return (Refused(NO_SUCH_USER, "no such user"),)
        return (Local(address, Mailbox(address.local, "example.org")),)


class Listener:
    """A listener in memory."""

    def __init__(
        self,
        directory: str,
        *,
        service: str = "mx",
        limits: ConnectionLimits | None = None,
        filters: Sequence[BoundFilter] = (),
        relays: bool = False,
        admission: Admission | None = None,
        memory_octets: int = 1_000_000,
        run_in_thread: Any = None,
        **more: Any,
    ) -> None:
        self.clock = Clock()
        self.clock.advance(1_700_000_000)
        self.store = Store(directory)
        self.router = Router()
        self.steps: list[tuple[str, str, dict[str, Any]]] = []
        self.admission = admission or Admission(connections=100, connections_per_network=100)
        self.profile = Profile(
            service=service,
            hostname="mx.example.org",
            limits=limits or ConnectionLimits(),
            judging=Judging(filters, clock=self.clock),
            router=self.router,
            store=self.store,
            relays=relays,
            relay_networks=Networks([ipaddress.ip_network("192.0.2.0/24")]),
            bare_lf_networks=Networks([ipaddress.ip_network("198.51.100.0/24")]),
            clock=self.clock,
            ids=IdSource(self.clock.seconds),
            spool=SpoolBudget(
                one_octets_most=memory_octets,
                all_octets_most=64 * memory_octets,
                run_in_thread=run_in_thread or (lambda work, *arguments: succeed(work(*arguments))),
            ),
            note=self.note,
            **more,
        )
        self.dialled = 0
        self.factory = ReceiveFactory(self.profile, self.admission)
        self.factory._check.clock = self.clock
        self.factory.startFactory()

    def note(self, id: str, step: str, **fields: Any) -> None:
        self.steps.append((id, step, fields))

    def step(self, name: str) -> dict[str, Any]:
        """The fields of the last step of this name."""
        return next(fields for _, step, fields in reversed(self.steps) if step == name)

    def connect(self, address: str = "203.0.113.9") -> tuple[ReceiveProtocol, Wire]:
        """A new connection."""
        peer = UNIXAddress(b"/run/x") if address == "unix" else IPv4Address("TCP", address, 4711)
        protocol = self.factory.protocol_for(peer_at(peer, self.factory.profile))
        wire = Wire(peerAddress=peer)
        protocol.makeConnection(wire)
        return protocol, wire

    def dial(self, proxy: str = "127.0.0.1") -> Wire | None:
        """A connection as a listener gets it, with what drives it on the wire; None: it was closed at once."""
        self.dialled += 1
        address = UNIXAddress(b"/run/x") if proxy == "unix" else IPv4Address("TCP", proxy, 1024 + self.dialled)
        protocol = self.factory.buildProtocol(address)
        if protocol is None:
            return None
        wire = Wire(peerAddress=address)
        wire.protocol = protocol
        protocol.makeConnection(wire)
        return wire

    def greeted(self, address: str = "203.0.113.9") -> tuple[ReceiveProtocol, Wire]:
        """A connection that has said EHLO (LHLO)."""
        protocol, wire = self.connect(address)
        protocol.dataReceived(b"LHLO client.example\r\n" if self.profile.lmtp else b"EHLO client.example\r\n")
        wire.clear()
        return protocol, wire
