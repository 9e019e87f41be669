"""The sessions of SMTP and LMTP in a capture: frames in, what was said in each connection out.

A connection is SMTP by its port or by what is said in it.  Memory is bounded for any capture: so many connections, so much that
waits for something.  What makes room is the connection that has been quiet for longest: of too many connections its session ends
as *given up*; where too much waits, what it waits for is taken for lost.
"""

from __future__ import annotations

import enum
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple

from mailserver.capture.dialogue import DialogueReader
from mailserver.capture.events import Encrypted, Event
from mailserver.capture.files import CapturedFrame
from mailserver.capture.likeness import Confidence, looks_like_smtp
from mailserver.capture.reassembly import PIECE_MEMORY, Direction, Gap, Piece
from mailserver.capture.segments import ACK, FIN, RST, SYN, Segment, segment
from mailserver.capture.view import SmtpView
from mailserver.smtp.vocabulary import Port

__all__ = ["SessionEnding", "Said", "Session", "Sessions"]

CONNECTIONS = 20_000  # at once, those of other protocols among them
HELD_OCTETS = 64 << 20  # of memory, of all connections: behind gaps, before replies, before it is known what they are
GUESS_OCTETS = 16 << 10  # of one connection
ENDED = 2000  # connections that have just ended, whose last segments may come again
PORTS = {int(port) for port in Port}
TLS_RECORD = b"\x16\x03"  # RFC 8446 section 5.1


class SessionEnding(enum.StrEnum):
    """How a session ended, as far as the capture shows."""

    CLOSED = "closed"
    RESET = "reset"
    NOT_SEEN = "not seen"  # the capture ended before
    GIVEN_UP = "given up"  # to make room
    REPLACED = "replaced"  # another connection between the same ports


@dataclass(slots=True)
class Session:
    """One connection.  Times are in nanoseconds since 1970; the counts grow while it lasts.

    `has_start`: its SYN was seen.  `is_tls`: encrypted from the first octet.
    """

    number: int
    client: IPv4Address | IPv6Address
    client_port: int
    server: IPv4Address | IPv6Address
    server_port: int
    started: int
    has_start: bool
    is_tls: bool = False
    is_lmtp: bool = False
    ended: int = 0
    ending: SessionEnding | None = None
    client_octets: int = 0
    server_octets: int = 0
    retransmitted: int = 0
    out_of_order: int = 0
    lost: int = 0


class Said(NamedTuple):
    """Something that was said in a session; `event` is None where it has ended."""

    session: Session
    event: Event | None


class _Kind(enum.Enum):
    UNKNOWN = enum.auto()
    SMTP = enum.auto()
    OTHER = enum.auto()


@dataclass(slots=True)
class _Connection:
    """Both directions between two ports.  `client` is the end that opened it, as far as that is known."""

    started: int
    client: tuple[bytes, int]
    server: tuple[bytes, int]
    is_client_known: bool
    has_start: bool
    opening: int | None = None  # the number of the SYN
    memory: int = 0  # what is held, as it was counted last
    from_client: Direction = field(default_factory=Direction)
    from_server: Direction = field(default_factory=Direction)
    kind: _Kind = _Kind.UNKNOWN
    held: list[tuple[bool, list[Piece | Gap]]] = field(default_factory=list)  # before it is known what it is
    held_octets: int = 0
    first_client: bytes = b""
    first_server: bytes = b""
    session: Session | None = None
    dialogue: DialogueReader | None = None
    last: int = 0

    def holds(self) -> int:
        """How much memory is taken by what waits, about."""
        held = self.from_client.held_memory + self.from_server.held_memory
        if self.held:
            held += self.held_octets + PIECE_MEMORY * len(self.held)
        return held if self.dialogue is None else held + self.dialogue.held_memory

    def is_over(self, found: Segment, is_client: bool) -> bool:
        """Whether both ends have closed it, and all has come or the last FIN is acknowledged: then nothing comes any more."""
        way, other = (self.from_client, self.from_server) if is_client else (self.from_server, self.from_client)
        if not way.is_closing or not other.is_closing:
            return False
        is_last = bool(found.flags & ACK) and not found.flags & FIN and not found.payload
        return (way.is_ended and other.is_ended) or (is_last and other.is_heard(found.acknowledged))

    def is_replaced_by(self, found: Segment, here: tuple[bytes, int]) -> bool:
        """Whether a segment of this end begins another connection between the same ports; the same SYN twice does not."""
        if found.flags & (SYN | ACK) != SYN or here != self.client or not self.from_client.has_begun:
            return False
        is_talking = not self.has_start or self.kind is not _Kind.UNKNOWN or self.from_server.octets > 0
        return is_talking and found.sequence != self.opening

    def swap(self) -> None:
        """The other end is the client."""
        self.client, self.server = self.server, self.client
        self.from_client, self.from_server = self.from_server, self.from_client
        self.first_client, self.first_server = self.first_server, self.first_client
        self.held = [(not is_client, pieces) for is_client, pieces in self.held]


_Key = tuple[bytes, int, bytes, int]
Wanted = Callable[[bytes, int, bytes, int], bool]


class Sessions:
    """Frames in, what was said in each session out.  No octets make it raise.

    `wants(source, port, destination, port)` chooses connections by their addresses (4 or 16 octets), both ways round.
    `takes_all`: each connection is SMTP, whatever is said in it.
    Counts: `frames`, `segments`, `other` connections that are not SMTP.
    """

    def __init__(
        self,
        *,
        wants: Wanted | None = None,
        takes_all: bool = False,
        connections: int = CONNECTIONS,
        held_octets: int = HELD_OCTETS,
    ) -> None:
        self._takes_all = takes_all
        self.frames = 0
        self.segments = 0
        self.other = 0
        self._wants = wants
        self._most = connections
        self._most_held = held_octets
        self._held = 0
        self._sessions = 0
        self._connections: OrderedDict[_Key, _Connection] = OrderedDict()
        self._holding: OrderedDict[_Key, _Connection] = OrderedDict()  # those of whom something waits
        self._ended: OrderedDict[_Key, dict[tuple[bytes, int], int]] = OrderedDict()  # the numbers behind the last octets
        self._last = 0

    def feed(self, frame: CapturedFrame) -> list[Said]:
        """Take a frame; return what was said with it."""
        self.frames += 1
        found = segment(frame)
        if found is None:
            return []
        self.segments += 1
        self._last = time = frame.time
        here, there = (found.source, found.source_port), (found.destination, found.destination_port)
        key = (*here, *there) if here < there else (*there, *here)
        said: list[Said] = []
        connection = self._connections.get(key)
        if connection is not None and found.flags & SYN and connection.is_replaced_by(found, here):
            said += self._end(key, connection, time, SessionEnding.REPLACED)
            connection = None
        if connection is None:
            if not found.payload and not found.flags & SYN:
                return said  # the last acknowledgement of one that has ended
            if self._comes_again(key, here, found):
                return said
            if found.flags & RST or (self._wants is not None and not self._wants(*here, *there)):
                return said
            if len(self._connections) >= self._most:
                oldest = next(iter(self._connections))
                said += self._end(oldest, self._connections[oldest], time, SessionEnding.GIVEN_UP)
            self._ended.pop(key, None)
            connection = self._connections[key] = _opened(time, found, here, there)
        else:
            self._connections.move_to_end(key)
        connection.last = time
        if connection.kind is not _Kind.OTHER:
            said += self._take(connection, time, found, here == connection.client)
        if found.flags & RST:
            said += self._end(key, connection, time, SessionEnding.RESET)
        elif found.flags & FIN or connection.from_client.is_closing or connection.from_server.is_closing:
            if connection.kind is _Kind.OTHER:
                self._connections.pop(key, None)
            elif connection.is_over(found, here == connection.client):
                said += self._end(key, connection, time, SessionEnding.CLOSED)
        if connection.memory or not said:  # what has been said with nothing waiting before it rarely leaves something
            self._count(key, connection)
        return said if self._held <= self._most_held else said + self._make_room(time)

    def finish(self) -> Iterator[Said]:
        """The capture has ended: yield what was still held, and the end of each session."""
        for key in list(self._connections):
            yield from self._end(key, self._connections[key], self._last, SessionEnding.NOT_SEEN)

    def _take(self, connection: _Connection, time: int, found: Segment, is_client: bool) -> list[Said]:
        """Hand a segment to its direction, and its acknowledgement to the other one."""
        way, other = (
            (connection.from_client, connection.from_server) if is_client else (connection.from_server, connection.from_client)
        )
        said: list[Said] = []
        sequence = found.sequence
        if found.flags & SYN:
            way.open(sequence)
            sequence += 1
        if found.flags & ACK and (passed := other.acknowledge(time, found.acknowledged)):
            said += self._hear(connection, not is_client, passed)
        if found.payload or found.missing:
            # A probe of a living connection sends one octet again that was acknowledged; it counts as retransmitted.
            heard = other.number(found.acknowledged)
            said += self._hear(connection, is_client, way.take(time, sequence, found.payload, found.missing, heard))
        elif not way.has_begun:
            way.take(time, sequence, b"")
        if found.flags & FIN:
            way.close(sequence + len(found.payload) + found.missing)
        return said

    def _hear(self, connection: _Connection, is_client: bool, pieces: list[Piece | Gap]) -> list[Said]:
        """What is next in order of one direction."""
        if not pieces:
            return []
        if connection.kind is _Kind.SMTP:
            dialogue, session = connection.dialogue, connection.session
            if dialogue is None or session is None:
                return []  # TLS
            events = (dialogue.client if is_client else dialogue.server)(pieces)
            session.is_lmtp = dialogue.is_lmtp
            return [Said(session, event) for event in events]
        if connection.kind is _Kind.OTHER:
            return []
        octets = b"".join([one.octets for one in pieces if isinstance(one, Piece)])
        connection.held.append((is_client, pieces))
        connection.held_octets += len(octets)
        if is_client:
            connection.first_client = (connection.first_client + octets)[:GUESS_OCTETS]
        else:
            connection.first_server = (connection.first_server + octets)[:GUESS_OCTETS]
        return self._guess(connection)

    def _guess(self, connection: _Connection, *, is_last: bool = False) -> list[Said]:
        """Find out what a connection is; while that is not known its octets are held, unless this is the `is_last` look."""
        is_tls = connection.first_client.startswith(TLS_RECORD) or connection.first_server.startswith(TLS_RECORD)
        if connection.server[1] in PORTS and is_tls and not self._takes_all:
            return self._begin(connection, is_tls=True)
        kind = _Kind.SMTP if self._takes_all else _kind(connection)
        if kind is _Kind.UNKNOWN and connection.held_octets <= GUESS_OCTETS and not is_tls and not is_last:
            return []
        if kind is _Kind.SMTP:
            return self._begin(connection, is_tls=False)
        connection.kind = _Kind.OTHER
        self.other += 1
        self._let_go(connection)
        connection.from_client, connection.from_server = Direction(), Direction()
        return []

    def _begin(self, connection: _Connection, *, is_tls: bool) -> list[Said]:
        """It is SMTP: say what has been held."""
        connection.kind = _Kind.SMTP
        self._sessions += 1
        session = connection.session = Session(
            self._sessions,
            ip_address(connection.client[0]),
            connection.client[1],
            ip_address(connection.server[0]),
            connection.server[1],
            connection.started,
            connection.has_start,
            is_tls=is_tls,
        )
        held = connection.held
        self._let_go(connection)
        if is_tls:
            return [Said(session, Encrypted(held[0][1][0].time))]
        connection.dialogue = DialogueReader(from_start=connection.has_start)
        return [said for is_client, pieces in held for said in self._hear(connection, is_client, pieces)]

    def _let_go(self, connection: _Connection) -> None:
        connection.held, connection.held_octets = [], 0

    def _count(self, key: _Key, connection: _Connection) -> None:
        """Note what waits of a connection that has said something."""
        held = connection.holds() if key in self._connections else 0
        if held or connection.memory:
            self._held += held - connection.memory
            connection.memory = held
            self._holding.pop(key, None)
            if held:
                self._holding[key] = connection

    def _make_room(self, time: int) -> list[Said]:
        """Too much waits: release those that have been quiet for longest."""
        said: list[Said] = []
        while self._held > self._most_held and self._holding:
            key, connection = next(iter(self._holding.items()))
            said += self._release(connection, time)
            self._count(key, connection)
            self._holding.pop(key, None)
        return said

    def _release(self, connection: _Connection, time: int) -> list[Said]:
        """Nothing of a connection waits any longer."""
        said: list[Said] = []
        for is_client, way in ((True, connection.from_client), (False, connection.from_server)):
            said += self._hear(connection, is_client, way.finish(time))
        if connection.kind is _Kind.UNKNOWN:
            said += self._guess(connection, is_last=True)
        if connection.dialogue is not None and connection.session is not None:
            said += [Said(connection.session, event) for event in connection.dialogue.hurry()]
        return said

    def _comes_again(self, key: _Key, here: tuple[bytes, int], found: Segment) -> bool:
        """Whether a segment without a connection is one of a connection that has ended, seen twice."""
        ends = self._ended.get(key)
        if ends is None or found.flags & SYN or here not in ends:
            return False
        return (ends[here] - found.sequence - len(found.payload)) % (1 << 32) < 1 << 31

    def _end(self, key: _Key, connection: _Connection, time: int, ending: SessionEnding) -> list[Said]:
        """A connection has ended: hand on what waits behind gaps."""
        self._connections.pop(key, None)
        self._count(key, connection)
        said: list[Said] = []
        for is_client, way in ((True, connection.from_client), (False, connection.from_server)):
            said += self._hear(connection, is_client, way.finish(time))
        self._let_go(connection)
        if ending in (SessionEnding.CLOSED, SessionEnding.RESET):
            ends = {connection.client: connection.from_client.end, connection.server: connection.from_server.end}
            self._ended[key] = {end: number for end, number in ends.items() if number >= 0}
            if len(self._ended) > ENDED:
                self._ended.popitem(last=False)
        session, dialogue = connection.session, connection.dialogue
        if session is None:
            return said
        if dialogue is not None:
            said += [Said(session, event) for event in dialogue.end(time)]
        session.ended, session.ending = connection.last, ending
        ways = connection.from_client, connection.from_server
        session.client_octets, session.server_octets = ways[0].octets, ways[1].octets
        session.retransmitted = sum([way.retransmitted for way in ways])
        session.out_of_order = sum([way.out_of_order for way in ways])
        session.lost = sum([way.lost for way in ways])
        return [*said, Said(session, None)]


def _opened(time: int, found: Segment, here: tuple[bytes, int], there: tuple[bytes, int]) -> _Connection:
    """A connection whose first segment this is."""
    if found.flags & SYN:
        client, server = (there, here) if found.flags & ACK else (here, there)
        opening = None if found.flags & ACK else found.sequence
        return _Connection(time, client, server, is_client_known=True, has_start=True, opening=opening)
    # The port that is known is the server's, else the lower one: what is said may correct it.
    is_server = (here[1] in PORTS, -here[1]) > (there[1] in PORTS, -there[1])
    client, server = (there, here) if is_server else (here, there)
    return _Connection(time, client, server, is_client_known=(here[1] in PORTS) != (there[1] in PORTS), has_start=False)


def _kind(connection: _Connection) -> _Kind:
    """What a connection is, by its port and by what both ends have said first."""
    client, server = connection.first_client, connection.first_server
    likeness = [looks_like_smtp(octets) if octets else Confidence.NONE for octets in (client, server)]
    is_turned = SmtpView(client[:1000]).is_reply or (_speaks_as_client(server) and not _speaks_as_client(client))
    if not connection.is_client_known and is_turned:
        connection.swap()
        connection.is_client_known = True
        client, server, likeness = server, client, likeness[::-1]
    if connection.server[1] in PORTS:
        # ContentStretch, or what has been lost before it, may come first.
        return _Kind.SMTP if max(likeness) > Confidence.NONE or len(client) + len(server) > 1000 else _Kind.UNKNOWN
    if max(likeness) is Confidence.CERTAIN or (likeness[0] is Confidence.LIKELY and likeness[1] > Confidence.NONE):
        return _Kind.SMTP
    if b"\n" in client and b"\n" in server and likeness[0] < Confidence.LIKELY:
        return _Kind.OTHER
    return _Kind.UNKNOWN


def _speaks_as_client(octets: bytes) -> bool:
    view = SmtpView(octets[:1000])
    return not view.is_reply and view.is_known_command
