"""The sessions of SMTP and LMTP in a capture: frames in, what was said in each connection out.

A connection is SMTP by its port or by what is said in it.  Memory is bounded for any capture: so many connections, so much that
waits for something.  What makes room is the connection that has been quiet for longest: of too many connections its session ends
as *given up*; where too much waits, what it waits for is taken for lost.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import NamedTuple

from mailserver.capture.connection import PORTS, CapturedConnection, ConnectionKind, key_of, kind_of, opened
from mailserver.capture.dialogue import DialogueReader
from mailserver.capture.events import Encrypted, Event
from mailserver.capture.files import CapturedFrame
from mailserver.capture.links import READ
from mailserver.capture.reassembly import Direction, Gap, Piece
from mailserver.capture.segments import ACK, FIN, RST, SYN, Segment, segment
from mailserver.capture.session import Session, SessionEnding
from mailserver.mail.quick import maker

__all__ = ["Said", "Sessions"]

CONNECTIONS = 20_000  # at once, those of other protocols among them
HELD_OCTETS = 64 << 20  # of memory, of all connections: behind gaps, before replies, before it is known what they are
GUESS_OCTETS = 16 << 10  # of one connection
ENDED = 2000  # connections that have just ended, whose last segments may come again
TLS_RECORD = b"\x16\x03"  # RFC 8446 section 5.1
SMTP, OTHER, UNKNOWN = ConnectionKind.SMTP, ConnectionKind.OTHER, ConnectionKind.UNKNOWN


class Said(NamedTuple):
    """Something that was said in a session; `event` is None where it has ended."""

    session: Session
    event: Event | None


_said = maker(Said)
Wanted = Callable[[bytes, int, bytes, int], bool]


class Sessions:
    """Frames in, what was said in each session out.  No octets make it raise.

    `wants(source, port, destination, port)` chooses connections by their addresses (4 or 16 octets), both ways round.
    `takes_all`: each connection is SMTP, whatever is said in it.
    Counts: `frames`, `segments`, `other` connections that are not SMTP; `given_up` connections, of SMTP or not, that have made
    room for others; `unread` frames by their link type, where that is none that is read.
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
        self.given_up = 0
        self.unread: dict[int, int] = {}
        self._wants = wants
        self._most = connections
        self._most_held = held_octets
        self._held = 0
        self._sessions = 0
        self._connections: OrderedDict[bytes, CapturedConnection] = OrderedDict()
        self._of_ends: dict[bytes, CapturedConnection] = {}  # by the ends in segments of both directions
        self._holding: OrderedDict[bytes, CapturedConnection] = OrderedDict()  # those of whom something waits
        self._ended: OrderedDict[bytes, dict[bytes, int]] = OrderedDict()  # the numbers behind the last octets
        self._last = 0

    def feed(self, frame: CapturedFrame) -> list[Said]:
        """Take a frame; return what was said with it."""
        self.frames += 1
        found = segment(frame)
        if found is None:
            if frame.link not in READ:
                self.unread[frame.link] = self.unread.get(frame.link, 0) + 1
            return []
        self.segments += 1
        self._last = time = frame.time
        flags = found.flags
        said: list[Said] = []
        connection = self._of_ends.get(found.ends)
        if connection is not None and flags & SYN and connection.is_replaced_by(found):
            said += self._end(connection, time, SessionEnding.REPLACED)
            connection = None
        if connection is None:
            connection = self._begun(time, found, said)
            if connection is None:
                return said
        else:
            self._connections.move_to_end(connection.key)
        connection.last = time
        if connection.kind is not OTHER:
            said += self._take(connection, time, found)
        if flags & RST:
            said += self._end(connection, time, SessionEnding.RESET)
        elif flags & FIN or connection.from_client.is_closing or connection.from_server.is_closing:
            if connection.kind is OTHER:
                self._forget(connection)
            elif connection.is_over(found):
                said += self._end(connection, time, SessionEnding.CLOSED)
        if found.payload or connection.memory:  # else nothing waits, as before
            self._count(connection)
        return said if self._held <= self._most_held else said + self._make_room(time)

    def _begun(self, time: int, found: Segment, said: list[Said]) -> CapturedConnection | None:
        """The connection that begins with this segment; None where it begins none."""
        if not found.payload and not found.flags & SYN:
            return None  # the last acknowledgement of one that has ended
        if self._comes_again(found) or found.flags & RST:
            return None
        ends = found.source, found.source_port, found.destination, found.destination_port
        if self._wants is not None and not self._wants(*ends):
            return None
        if len(self._connections) >= self._most:
            self.given_up += 1
            said += self._end(next(iter(self._connections.values())), time, SessionEnding.GIVEN_UP)
        connection = opened(time, found)
        self._ended.pop(connection.key, None)
        self._connections[connection.key] = connection
        self._of_ends[connection.client] = self._of_ends[connection.server] = connection
        return connection

    def finish(self) -> Iterator[Said]:
        """The capture has ended: yield what was still held, and the end of each session."""
        for connection in list(self._connections.values()):
            yield from self._end(connection, self._last, SessionEnding.NOT_SEEN)

    def _take(self, connection: CapturedConnection, time: int, found: Segment) -> list[Said]:
        """Hand a segment to its direction, and its acknowledgement to the other one."""
        ends, sequence, acknowledged, flags, payload, missing = found
        is_client = ends == connection.client
        way, other = connection.from_client, connection.from_server
        if not is_client:
            way, other = other, way
        said: list[Said] = []
        if flags & SYN:
            way.open(sequence)
            sequence += 1
        if other.held_octets and flags & ACK and (passed := other.acknowledge(time, acknowledged)):
            said += self._hear(connection, not is_client, passed)
        if payload or missing:
            # A probe of a living connection sends one octet again that was acknowledged; it counts as retransmitted.
            if pieces := way.take(time, sequence, payload, missing, other.number(acknowledged)):
                said += self._hear(connection, is_client, pieces)
        elif not way.has_begun:
            way.take(time, sequence, b"")
        if flags & FIN:
            way.close(sequence + len(payload) + missing)
        return said

    def _hear(self, connection: CapturedConnection, is_client: bool, pieces: list[Piece | Gap]) -> list[Said]:
        """What is next in order of one direction."""
        if not pieces:
            return []
        if connection.kind is SMTP:
            dialogue, session = connection.dialogue, connection.session
            if dialogue is None or session is None:
                return []  # TLS
            events = dialogue.client(pieces) if is_client else dialogue.server(pieces)
            session.is_lmtp = dialogue.is_lmtp
            if not events:
                return []
            return [_said((session, event)) for event in events]
        if connection.kind is OTHER:
            return []
        octets = b"".join([one.octets for one in pieces if isinstance(one, Piece)])
        connection.held.append((is_client, pieces))
        connection.held_octets += len(octets)
        if is_client:
            connection.first_client = (connection.first_client + octets)[:GUESS_OCTETS]
        else:
            connection.first_server = (connection.first_server + octets)[:GUESS_OCTETS]
        return self._guess(connection)

    def _guess(self, connection: CapturedConnection, *, is_last: bool = False) -> list[Said]:
        """Find out what a connection is; while that is not known its octets are held, unless this is the `is_last` look."""
        is_tls = connection.first_client.startswith(TLS_RECORD) or connection.first_server.startswith(TLS_RECORD)
        if connection.server_port in PORTS and is_tls and not self._takes_all:
            return self._begin(connection, is_tls=True)
        kind = SMTP if self._takes_all else kind_of(connection)
        if kind is UNKNOWN and connection.held_octets <= GUESS_OCTETS and not is_tls and not is_last:
            return []
        if kind is SMTP:
            return self._begin(connection, is_tls=False)
        connection.kind = OTHER
        self.other += 1
        self._let_go(connection)
        connection.from_client, connection.from_server = Direction(), Direction()
        return []

    def _begin(self, connection: CapturedConnection, *, is_tls: bool) -> list[Said]:
        """It is SMTP: say what has been held."""
        connection.kind = SMTP
        self._sessions += 1
        ways = connection.ends()
        session = Session(self._sessions, *ways, connection.started, connection.has_start, is_tls=is_tls)
        connection.session = session
        held = connection.held
        self._let_go(connection)
        if is_tls:
            return [Said(session, Encrypted(held[0][1][0].time))]
        connection.dialogue = DialogueReader(from_start=connection.has_start)
        return [said for is_client, pieces in held for said in self._hear(connection, is_client, pieces)]

    def _let_go(self, connection: CapturedConnection) -> None:
        connection.held, connection.held_octets = [], 0

    def _count(self, connection: CapturedConnection) -> None:
        """Note what waits of a connection that has said something."""
        held = connection.holds() if connection.key in self._connections else 0
        if held or connection.memory:
            self._held += held - connection.memory
            connection.memory = held
            self._holding.pop(connection.key, None)
            if held:
                self._holding[connection.key] = connection

    def _make_room(self, time: int) -> list[Said]:
        """Too much waits: release those that have been quiet for longest."""
        said: list[Said] = []
        while self._held > self._most_held and self._holding:
            connection = next(iter(self._holding.values()))
            said += self._release(connection, time)
            self._count(connection)
            self._holding.pop(connection.key, None)
        return said

    def _release(self, connection: CapturedConnection, time: int) -> list[Said]:
        """Nothing of a connection waits any longer."""
        said: list[Said] = []
        for is_client, way in ((True, connection.from_client), (False, connection.from_server)):
            said += self._hear(connection, is_client, way.finish(time))
        if connection.kind is UNKNOWN:
            said += self._guess(connection, is_last=True)
        if connection.dialogue is not None and connection.session is not None:
            said += [_said((connection.session, event)) for event in connection.dialogue.hurry()]
        return said

    def _comes_again(self, found: Segment) -> bool:
        """Whether a segment without a connection is one of a connection that has ended, seen twice."""
        number = self._ended.get(key_of(found.ends), {}).get(found.ends)
        if number is None or found.flags & SYN:
            return False
        return (number - found.sequence - len(found.payload)) % (1 << 32) < 1 << 31

    def _forget(self, connection: CapturedConnection) -> None:
        if self._connections.pop(connection.key, None) is not None:
            for ends in (connection.client, connection.server):
                self._of_ends.pop(ends, None)

    def _end(self, connection: CapturedConnection, time: int, ending: SessionEnding) -> list[Said]:
        """A connection has ended: hand on what waits behind gaps."""
        self._forget(connection)
        self._count(connection)
        said: list[Said] = []
        for is_client, way in ((True, connection.from_client), (False, connection.from_server)):
            said += self._hear(connection, is_client, way.finish(time))
        self._let_go(connection)
        if ending in (SessionEnding.CLOSED, SessionEnding.RESET):
            ends = {connection.client: connection.from_client.end, connection.server: connection.from_server.end}
            self._ended[connection.key] = {end: number for end, number in ends.items() if number >= 0}
            if len(self._ended) > ENDED:
                self._ended.popitem(last=False)
        session, dialogue = connection.session, connection.dialogue
        if session is None:
            return said
        if dialogue is not None:
            said += [_said((session, event)) for event in dialogue.end(time)]
        session.ended, session.ending = connection.last, ending
        ways = connection.from_client, connection.from_server
        session.client_octets, session.server_octets = ways[0].octets, ways[1].octets
        session.retransmitted = sum([way.retransmitted for way in ways])
        session.out_of_order = sum([way.out_of_order for way in ways])
        session.lost = sum([way.lost for way in ways])
        return [*said, Said(session, None)]
