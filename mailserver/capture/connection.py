"""A connection of TCP in a capture: both its directions, whose they are, and whether SMTP is spoken in it."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address

from mailserver.capture.dialogue import DialogueReader
from mailserver.capture.likeness import Confidence, looks_like_smtp
from mailserver.capture.reassembly import PIECE_MEMORY, Direction, Gap, Piece
from mailserver.capture.segments import ACK, FIN, SYN, Segment
from mailserver.capture.session import Session
from mailserver.capture.view import SmtpView
from mailserver.smtp.vocabulary import Port

__all__ = ["PORTS", "CapturedConnection", "ConnectionKind", "key_of", "kind_of", "opened"]

PORTS = {int(port) for port in Port}
Address = IPv4Address | IPv6Address


class ConnectionKind(enum.Enum):
    """What is spoken in a connection."""

    UNKNOWN = enum.auto()
    SMTP = enum.auto()
    OTHER = enum.auto()


@dataclass(slots=True)
class CapturedConnection:
    """Both directions between two ports.

    `client` are the ends as they stand in segments of the client, which has opened it as far as that is known, `server` those in
    segments of the server; `key` is one of both, whoever says something.
    """

    started: int
    key: bytes
    client: bytes
    server: bytes
    is_client_known: bool
    has_start: bool
    opening: int | None = None  # the number of the SYN
    memory: int = 0  # what is held, as it was counted last
    from_client: Direction = field(default_factory=Direction)
    from_server: Direction = field(default_factory=Direction)
    kind: ConnectionKind = ConnectionKind.UNKNOWN
    held: list[tuple[bool, list[Piece | Gap]]] = field(default_factory=list)  # before it is known what it is
    held_octets: int = 0
    first_client: bytes = b""
    first_server: bytes = b""
    session: Session | None = None
    dialogue: DialogueReader | None = None
    last: int = 0

    def holds(self) -> int:
        """How much memory is taken by what waits, about."""
        dialogue = self.dialogue
        held = self.from_client.held_octets + self.from_server.held_octets
        if held:
            held = self.from_client.held_memory + self.from_server.held_memory
        if self.held:
            held += self.held_octets + PIECE_MEMORY * len(self.held)
        return held if dialogue is None else held + dialogue.held_memory

    def ends(self) -> tuple[Address, int, Address, int]:
        """Address and port of the client, and of the server."""
        ends, size = self.client, len(self.client) // 2 - 2
        family = IPv4Address if size == 4 else IPv6Address
        client, server = family(ends[:size]), family(ends[size : 2 * size])
        return client, int.from_bytes(ends[-4:-2], "big"), server, int.from_bytes(ends[-2:], "big")

    @property
    def server_port(self) -> int:
        """The port that the client has connected with."""
        return int.from_bytes(self.client[-2:], "big")

    def is_over(self, found: Segment) -> bool:
        """Whether both ends have closed it, and all has come or the last FIN is acknowledged: then nothing comes any more."""
        way, other = self.from_client, self.from_server
        if found.ends != self.client:
            way, other = other, way
        if not way.is_closing or not other.is_closing:
            return False
        is_last = bool(found.flags & ACK) and not found.flags & FIN and not found.payload
        return (way.is_ended and other.is_ended) or (is_last and other.is_heard(found.acknowledged))

    def is_replaced_by(self, found: Segment) -> bool:
        """Whether a segment begins another connection between the same ports; the same SYN twice does not."""
        client = self.from_client
        if found.flags & (SYN | ACK) != SYN or found.ends != self.client or not client.has_begun:
            return False
        is_late = self.opening is None and not client.octets and client.number(found.sequence) + 1 == client.end
        return found.sequence != self.opening and not is_late

    def swap(self) -> None:
        """The other end is the client."""
        self.client, self.server = self.server, self.client
        self.from_client, self.from_server = self.from_server, self.from_client
        self.first_client, self.first_server = self.first_server, self.first_client
        self.held = [(not is_client, pieces) for is_client, pieces in self.held]


def key_of(ends: bytes) -> bytes:
    """The same for both directions."""
    return min(ends, _turned(ends))


def opened(time: int, found: Segment) -> CapturedConnection:
    """A connection whose first segment this is."""
    here = found.ends
    there = _turned(here)
    key = min(here, there)
    if found.flags & SYN:
        client, server = (there, here) if found.flags & ACK else (here, there)
        opening = None if found.flags & ACK else found.sequence
        return CapturedConnection(time, key, client, server, is_client_known=True, has_start=True, opening=opening)
    # The port that is known is the server's, else the lower one: what is said may correct it.
    port, other = found.source_port, found.destination_port
    is_server = (port in PORTS, -port) > (other in PORTS, -other)
    client, server = (there, here) if is_server else (here, there)
    return CapturedConnection(time, key, client, server, is_client_known=(port in PORTS) != (other in PORTS), has_start=False)


def _turned(ends: bytes) -> bytes:
    """The same ends as the other one writes them."""
    size = len(ends) // 2 - 2
    return ends[size : 2 * size] + ends[:size] + ends[-2:] + ends[-4:-2]


def kind_of(connection: CapturedConnection) -> ConnectionKind:
    """What a connection is, by its port and by what both ends have said first."""
    client, server = connection.first_client, connection.first_server
    if connection.is_client_known and connection.server_port in PORTS and server.startswith(b"220 "):
        return ConnectionKind.SMTP  # nearly all begin like this
    likeness = [looks_like_smtp(octets) if octets else Confidence.NONE for octets in (client, server)]
    if not connection.is_client_known and _is_turned(client, server):
        connection.swap()
        connection.is_client_known = True
        client, server, likeness = server, client, likeness[::-1]
    if connection.server_port in PORTS:
        # Content, or what has been lost before it, may come first.
        is_smtp = max(likeness) > Confidence.NONE or len(client) + len(server) > 1000
        return ConnectionKind.SMTP if is_smtp else ConnectionKind.UNKNOWN
    if max(likeness) is Confidence.CERTAIN or (likeness[0] is Confidence.LIKELY and likeness[1] > Confidence.NONE):
        return ConnectionKind.SMTP
    if b"\n" in client and b"\n" in server and likeness[0] < Confidence.LIKELY:
        return ConnectionKind.OTHER
    return ConnectionKind.UNKNOWN


def _is_turned(client: bytes, server: bytes) -> bool:
    """The one that is taken for the server speaks as a client, or the other way round."""
    return SmtpView(client[:1000]).is_reply or (_speaks_as_client(server) and not _speaks_as_client(client))


def _speaks_as_client(octets: bytes) -> bool:
    view = SmtpView(octets[:1000])
    return not view.is_reply and view.is_known_command
