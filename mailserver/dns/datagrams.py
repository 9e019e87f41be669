"""Questions by UDP over a few connected sockets for each server.

An answer is believed only where its address, port, id and question match a waiting attempt.  An off-path forger has to guess
the port and the id (RFC 5452).  Both are random, and sockets are used in random order.  Sockets are replaced after a while,
and sooner where unexpected answers arrive.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.protocol import DatagramProtocol

from mailserver.dns.servers import NameServer
from mailserver.dns.wire import answers_question, encode_query

__all__ = ["QueryAttempt", "Datagrams"]

SOCKETS = 8  # for each server
SOCKET_USES = 200
SOCKET_SECONDS = 60.0
SOCKET_STRAYS = 10  # unexpected answers after which a socket is replaced


class QueryAttempt:
    """One question sent to one server.  `lookup` is the caller's own; `question` is the question section as it was sent.

    Without `checking` the server shall not validate.
    """

    __slots__ = ("by_tcp", "checking", "deadline", "edns", "exactly", "id", "lookup", "question", "server", "waits_in")

    def __init__(
        self,
        lookup: Any,
        server: NameServer,
        question: bytes,
        *,
        edns: bool,
        exactly: bool,
        by_tcp: bool,
        checking: bool = True,
    ) -> None:
        self.lookup = lookup
        self.server = server
        self.question = question
        self.edns = edns
        self.exactly = exactly
        self.by_tcp = by_tcp
        self.checking = checking
        self.id = b""
        self.deadline = 0.0
        self.waits_in: Any = None  # a socket or a stream, which has `forget(attempt)`


Replied = Callable[[QueryAttempt, bytes], None]
Failed = Callable[[QueryAttempt, str], None]


class Datagrams:
    """The sockets towards one server.

    `replied(attempt, octets)` is called with the answer to an attempt, `failed(attempt, why)` where the server does not listen.
    """

    def __init__(
        self, *, reactor: Any, server: NameServer, random_octets: Callable[[int], bytes], replied: Replied, failed: Failed
    ) -> None:
        self.replied = replied
        self.failed = failed
        self._reactor = reactor
        self._server = server
        self._random_octets = random_octets
        self._sockets: list[_Socket | None] = [None] * SOCKETS
        self._open: set[_Socket] = set()

    def send(self, attempt: QueryAttempt) -> None:
        """Send the question.  Raises OSError or `CannotListenError`; may call `failed` before it returns."""
        draw = self._random_octets(3)
        slot = draw[2] % SOCKETS
        socket = self._sockets[slot]
        if socket is None or socket.is_worn_out(self._reactor.seconds()):
            socket = self._sockets[slot] = self._new_socket(socket)
        id = draw[:2]
        while id in socket.waiting:
            id = self._random_octets(2)
        attempt.id = id
        attempt.waits_in = socket
        socket.waiting[id] = attempt
        socket.uses += 1
        try:
            socket.transport.write(encode_query(id, attempt.question, edns=attempt.edns, checking=attempt.checking))
        except Exception:
            socket.forget(attempt)
            raise

    def _new_socket(self, old: _Socket | None) -> _Socket:
        if old is not None:
            old.retire()
        socket = _Socket(self, self._server, self._reactor.seconds())
        interface = "::" if ":" in self._server.address.host else ""
        self._reactor.listenUDP(0, socket, interface=interface)
        if socket.failure is not None:
            socket.close()
            raise socket.failure
        return socket

    def opened(self, socket: _Socket) -> None:
        self._open.add(socket)

    def closed(self, socket: _Socket) -> None:
        self._open.discard(socket)
        if socket in self._sockets:
            self._sockets[self._sockets.index(socket)] = None

    def close(self) -> list[Deferred[Any]]:
        """Close every socket and forget the attempts that wait there."""
        return [socket.close() for socket in list(self._open)]


class _Socket(DatagramProtocol):
    noisy = False
    transport: Any

    def __init__(self, owner: Datagrams, server: NameServer, now: float) -> None:
        self.waiting: dict[bytes, QueryAttempt] = {}
        self.uses = 0
        self.failure: OSError | None = None
        self._owner = owner
        self._peer = (server.address.host, server.address.port)
        self._worn_out_at = now + SOCKET_SECONDS
        self._strays = 0
        self._retired = False
        self._closed: Deferred[Any] | None = None

    def is_worn_out(self, now: float) -> bool:
        return self.uses >= SOCKET_USES or now >= self._worn_out_at or self._strays >= SOCKET_STRAYS

    def startProtocol(self) -> None:
        self._owner.opened(self)
        try:
            self.transport.connect(*self._peer)
        except OSError as error:  # no route, for instance; raised from here it would leave the socket open
            self.failure = error

    def stopProtocol(self) -> None:
        self._owner.closed(self)
        self._fail_all("the socket was closed")  # the kernel reported an error that Twisted does not know

    def datagramReceived(self, data: bytes, address: Any) -> None:
        attempt = self.waiting.get(data[:2])
        if (
            attempt is None
            or address != self._peer
            or not answers_question(data, attempt.question, exactly=attempt.exactly)
        ):
            self._strays += 1
            return
        self.forget(attempt)
        self._owner.replied(attempt, data)

    def connectionRefused(self) -> None:
        self._fail_all("nobody listens there")

    def _fail_all(self, why: str) -> None:
        waiting = list(self.waiting.values())
        for attempt in waiting:
            self.forget(attempt)
        for attempt in waiting:
            self._owner.failed(attempt, why)

    def forget(self, attempt: QueryAttempt) -> None:
        """Wait no longer for this attempt.  An answer that comes later counts as unexpected."""
        self.waiting.pop(attempt.id, None)
        if self._retired and not self.waiting:
            self.close()

    def retire(self) -> None:
        """Close as soon as no attempt waits on this socket."""
        self._retired = True
        if not self.waiting:
            self.close()

    def close(self) -> Deferred[Any]:
        """Close; the Deferred fires when it is done.  May be called again, unlike Twisted's `stopListening`."""
        self.waiting.clear()
        if self._closed is None:
            self._closed = maybeDeferred(self.transport.stopListening)
        return self._closed
