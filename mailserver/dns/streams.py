"""Questions by TCP, for answers too large for a datagram (RFC 7766): a connection for each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import ClientFactory, Protocol, connectionDone
from twisted.python.failure import Failure

from mailserver.dns.datagrams import Failed, QueryAttempt, Replied
from mailserver.dns.wire import answers_question, encode_query

__all__ = ["Streams"]

LENGTH_OCTETS = 2  # RFC 1035 section 4.2.2; two octets bound an answer to 64 KiB


class Streams:
    """The open connections, at most `connections_most`."""

    def __init__(
        self,
        *,
        reactor: Any,
        random_octets: Callable[[int], bytes],
        replied: Replied,
        failed: Failed,
        connections_most: int,
    ) -> None:
        self.replied = replied
        self.failed = failed
        self._reactor = reactor
        self._random_octets = random_octets
        self._connections_most = connections_most
        self._open: set[_Stream] = set()

    def send(self, attempt: QueryAttempt, timeout_seconds: float) -> None:
        """Connect and ask.  Raises OSError where too many connections are open."""
        if len(self._open) >= self._connections_most:
            raise OSError("too many connections to name servers")
        attempt.id = self._random_octets(2)
        attempt.waits_in = stream = _Stream(self, attempt)
        self._open.add(stream)
        address = attempt.server.address
        stream.connector = self._reactor.connectTCP(address.host, address.port, stream, timeout_seconds)

    def over(self, stream: _Stream) -> None:
        self._open.discard(stream)

    def close(self) -> list[Deferred[None]]:
        """Abort every connection.  Each Deferred fires when its connection is closed."""
        streams = list(self._open)
        for stream in streams:
            stream.abort()
        return [stream.gone for stream in streams]


class _Stream(ClientFactory):
    """One connection, its factory and its attempt."""

    noisy = False

    def __init__(self, owner: Streams, attempt: QueryAttempt) -> None:
        self.connector: Any = None
        self.gone: Deferred[None] = Deferred()
        self._owner = owner
        self._attempt: QueryAttempt | None = attempt
        self._protocol: _Exchange | None = None

    def buildProtocol(self, addr: Any) -> Protocol | None:
        attempt = self._attempt
        if attempt is None:
            return None
        query = encode_query(attempt.id, attempt.question, edns=attempt.edns, checking=attempt.checking)
        self._protocol = _Exchange(self, query)
        return self._protocol

    def clientConnectionFailed(self, connector: Any, reason: Failure) -> None:
        self._over(f"no TCP connection: {reason.getErrorMessage()}")

    def clientConnectionLost(self, connector: Any, reason: Failure) -> None:
        self._over("the TCP connection was closed before the answer")

    def _over(self, why: str) -> None:
        attempt, self._attempt = self._attempt, None
        self._owner.over(self)
        if attempt is not None:
            self._owner.failed(attempt, why)
        self.gone.callback(None)

    def received(self, data: bytes) -> None:
        """The whole answer has come."""
        attempt, self._attempt = self._attempt, None
        if attempt is None:
            return
        if data[:2] == attempt.id and answers_question(data, attempt.question, exactly=attempt.exactly):
            self._owner.replied(attempt, data)
        else:
            self._owner.failed(attempt, "an answer to something else by TCP")

    def forget(self, attempt: QueryAttempt) -> None:
        """Wait no longer for this attempt."""
        self.abort()

    def abort(self) -> None:
        self._attempt = None
        if self._protocol is not None and self._protocol.transport is not None:
            self._protocol.transport.abortConnection()  # type: ignore[attr-defined]
        elif self.connector is not None:
            self.connector.disconnect()


class _Exchange(Protocol):
    def __init__(self, stream: _Stream, query: bytes) -> None:
        self._stream = stream
        self._query = query
        self._received = bytearray()

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(len(self._query).to_bytes(LENGTH_OCTETS) + self._query)

    def dataReceived(self, data: bytes) -> None:
        received = self._received
        received += data
        if len(received) < LENGTH_OCTETS:
            return
        end = LENGTH_OCTETS + int.from_bytes(received[:LENGTH_OCTETS])
        if len(received) >= end:
            assert self.transport is not None
            self.transport.loseConnection()  # which also ends the reading
            self._stream.received(bytes(received[LENGTH_OCTETS:end]))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._received.clear()
