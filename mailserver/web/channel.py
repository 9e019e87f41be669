"""Connections to the web process, by `twisted.web`'s channel: bounded in number, in time and in octets."""

# mypy: disallow-untyped-calls=False
# (Twisted's channel has no annotations)

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Protocol, ServerFactory, connectionDone
from twisted.protocols.basic import LineReceiver
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel, Request, datetimeToString

from mailserver.mail.networks import Networks, network_of
from mailserver.transport.proxy_header import HeaderFault, read_header
from mailserver.web.answers import ANSWER_HEADERS, WebAnswer, WebRequest
from mailserver.web.certificates import ACME_TLS

__all__ = ["BehindProxyFactory", "HTTPFactory", "WebRoom"]

REQUEST_SECONDS = 20  # for a whole request, handshake included, and between two
ABORT_SECONDS = 10  # for the rest of an answer, after that
PROXY_HEADER_SECONDS = 5.0
BODY_OCTETS = 65536
LENGTH_DIGITS = 18  # of a Content-Length; Python reads no number without end
LINE_OCTETS, HEADER_OCTETS, FIELDS_MOST = 8192, 16384, 64
REQUESTS_MOST = 100  # on one connection

Answering = Callable[[WebRequest], WebAnswer]
Telling = Callable[..., None]


class WebRoom:
    """For connections: so many in all, and so many of one network.

    One more than there is room for takes the place of the oldest that has nothing under way.
    """

    def __init__(self, *, connections: int, connections_per_network: int) -> None:
        self.connections_most = connections
        self.per_network_most = connections_per_network
        self._open: dict[Any, bytes] = {}
        self._of_network: dict[bytes, int] = {}

    def enter(self, connection: Any, address: str) -> bool:
        """Whether it may stay."""
        network = network_of(address)
        if network and self._of_network.get(network, 0) >= self.per_network_most:
            return False
        if len(self._open) >= self.connections_most:
            oldest = next(iter(self._open))
            self.leave(oldest)
            oldest.abort()
        self._open[connection] = network
        self._of_network[network] = self._of_network.get(network, 0) + 1
        return True

    def leave(self, connection: Any) -> None:
        """It has gone, or was never there."""
        network = self._open.pop(connection, None)
        if network is not None:
            left = self._of_network[network] - 1
            if left:
                self._of_network[network] = left
            else:
                del self._of_network[network]

    def end(self) -> None:
        """Close those of an `HTTPFactory`; an answer that is on its way arrives, within its time."""
        for one in list(self._open):
            one.loseConnection()


class _Request(Request):
    """One request.  Its body is small, or it is not read; nothing of it goes to the disk."""

    channel: _Channel
    _body: bytearray | None = None  # None: it is too large

    def parseCookies(self) -> None:
        """Nobody here has any."""

    def gotLength(self, length: int | None) -> None:
        """The header is there."""
        self.content = None
        if length is None or length <= BODY_OCTETS:
            self._body = bytearray()
        else:
            self._refuse()

    def handleContentChunk(self, data: bytes) -> None:
        """A piece of the body."""
        if self._body is not None:
            self._body += data
            if len(self._body) > BODY_OCTETS:
                self._refuse()

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """It is whole."""
        if self._body is None:
            return
        self.method, self.uri, self.clientproto = command, path, version
        self.channel.answer(self, bytes(self._body))

    def _refuse(self) -> None:
        self._body = None
        self.channel.refuse(413, b"Content Too Large")


class _Channel(HTTPChannel):
    """One connection.  A request has to be whole within its time, however often something of it comes."""

    factory: HTTPFactory
    transport: Any
    requestFactory = _Request
    MAX_LENGTH = LINE_OCTETS
    totalHeadersSize = HEADER_OCTETS
    maxHeaders = FIELDS_MOST
    abortTimeout = ABORT_SECONDS
    _requests = 0
    _is_over = _is_lost = False
    _is_acme: bool | None = None

    def __init__(self, factory: HTTPFactory, address: str) -> None:
        super().__init__()
        self.factory = factory
        self.address = address
        self.timeOut = REQUEST_SECONDS

    def callLater(self, period: float, func: Callable[[], None]) -> Any:
        """As Twisted wants it."""
        return self.factory.clock.callLater(period, func)

    def connectionMade(self) -> None:
        """There is room, or there is not."""
        super().connectionMade()
        if not self.factory.room.enter(self, self.address):
            self.factory.tell("rejected", self, why="too many connections from its network")
            self.abort()

    def dataReceived(self, data: bytes) -> None:
        """As its own, but the time goes on."""
        if self._is_acme is None:
            self._is_acme = getattr(self.transport, "negotiatedProtocol", None) == ACME_TLS
        if self._is_acme:  # the handshake was all (RFC 8737 section 3)
            self.abort()
        elif not self._is_over:
            LineReceiver.dataReceived(self, data)

    def lineLengthExceeded(self, line: bytes) -> None:
        """As long a line is nobody's."""
        self.refuse(414 if not self.requests else 431, b"Too Long")

    def timeoutConnection(self) -> None:
        """It has had its time."""
        self.loseConnection()

    def loseConnection(self) -> None:
        """Once what was written is sent; over TLS the client has to say its part, and it may not."""
        if self._abortingCall is None and not self._is_lost:
            self._abortingCall = self.callLater(ABORT_SECONDS, self.forceAbortClient)
        super().loseConnection()

    def _maybeChooseTransferDecoder(self, header: bytes, data: bytes) -> bool:
        """As its own, but stricter: who stands before us may count the octets of the body in another way."""
        if (header == b"Transfer-Encoding" and data.lower() != b"chunked") or (
            header == b"Content-Length" and len(data) > LENGTH_DIGITS
        ):
            return bool(self._failChooseTransferDecoder())
        return bool(super()._maybeChooseTransferDecoder(header, data))

    def _send100Continue(self) -> None:
        """Not after it was refused."""
        if not self._is_over:
            super()._send100Continue()

    def forceAbortClient(self) -> None:
        """It does not read."""
        self._abortingCall = None
        self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """It is closed."""
        self._is_lost = True
        self.factory.room.leave(self)
        super().connectionLost(reason)

    def abort(self) -> None:
        """Close it at once."""
        self._is_over = True
        self.transport.abortConnection()

    def refuse(self, status: int, words: bytes) -> None:
        """Answer, and close.  What follows is not read."""
        if self._is_over:
            return
        self._is_over = True
        self.factory.tell("refused", self, status=status)
        self.transport.write(b"HTTP/1.1 %d %s\r\nConnection: close\r\nContent-Length: 0\r\n\r\n" % (status, words))
        self.loseConnection()

    def _respondToBadRequestAndDisconnect(self) -> None:
        self.refuse(400, b"Bad Request")

    def answer(self, request: _Request, body: bytes) -> None:
        """A request is there."""
        hosts = request.requestHeaders.getRawHeaders(b"Host", [])
        asked = WebRequest(
            method=request.method.decode("latin-1"),
            target=request.uri.decode("latin-1"),
            hosts=tuple([one.decode("latin-1") for one in hosts]),
            is_old=request.clientproto == b"HTTP/1.0",
            body=body,
            https_port=self.factory.https_port,
        )
        try:
            said = self.factory.answering(asked)
        except Exception:  # noqa: BLE001  # one request's trouble
            self.factory.failed()
            said = WebAnswer(status=500)
        self._requests += 1
        if self._requests >= REQUESTS_MOST:
            self.persistent = 0
        request.setResponseCode(said.status)
        headers = request.responseHeaders
        for name, value in ANSWER_HEADERS + said.headers:
            headers.setRawHeaders(name, [value])
        headers.setRawHeaders(b"Date", [datetimeToString()])
        headers.setRawHeaders(b"Content-Type", [said.media_type])
        headers.setRawHeaders(b"Content-Length", [b"%d" % len(said.body)])
        if not self.persistent:
            headers.setRawHeaders(b"Connection", [b"close"])
        path = asked.target.partition("?")[0]  # the rest may be an address, and is nobody's business
        self.factory.tell(
            "request", self, method=asked.method, host=said.host, path=path, status=said.status, why=said.why
        )
        request.write(said.body)  # which leaves a HEAD's out
        request.finish()


class HTTPFactory(ServerFactory):
    """A listener's connections.  `https_port` as in `WebRequest`; `tell` writes a line of the log; `failed` a traceback."""

    noisy = False

    def __init__(
        self,
        *,
        room: WebRoom,
        clock: Any,
        answering: Answering,
        tell: Telling,
        failed: Callable[[], None],
        https_port: int | None,
    ) -> None:
        self.room = room
        self.clock = clock
        self.answering = answering
        self.https_port = https_port
        self._tell = tell
        self.failed = failed

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        """A connection; `addr` is its client's."""
        address = str(getattr(addr, "host", "unix"))
        return _Channel(self, address.removeprefix("::ffff:") if "." in address else address)  # IPv4 on a socket of IPv6

    def tell(self, step: str, channel: _Channel, **fields: Any) -> None:
        """A line about a connection."""
        self._tell(step, peer=channel.address, **fields)

    def log(self, request: Any) -> None:
        """It is logged when it is answered."""


class BehindProxyFactory(ServerFactory):
    """Connections of a proxy, each of which begins with a PROXY header; then `inner` serves its client.

    `proxies` are those who are believed; None: whoever connects, which is for Unix sockets.
    """

    noisy = False

    def __init__(self, inner: Any, *, proxies: Networks | None, room: WebRoom, clock: Any, tell: Telling) -> None:
        self.inner = inner
        self.room = room
        self.clock = clock
        self.tell = tell
        self._proxies = proxies

    def buildProtocol(self, addr: IAddress | None) -> Protocol | None:
        """None, which closes it, where it is no proxy of ours."""
        host = getattr(addr, "host", None)
        if self._proxies is not None and (host is None or str(host) not in self._proxies):
            self.tell("rejected", peer=str(host), why="no proxy of ours")
            return None
        return _BehindProxy(self, addr)


class _BehindProxy(Protocol):
    """Waits for the header, then gives its place to the connection of the client."""

    transport: Any

    def __init__(self, factory: BehindProxyFactory, proxy: IAddress | None) -> None:
        self._factory = factory
        self._proxy = proxy
        self._octets = b""
        self._timer: Any = None

    def connectionMade(self) -> None:
        """It has a moment."""
        self._timer = self._factory.clock.callLater(PROXY_HEADER_SECONDS, self._late)
        self._factory.room.enter(self, "unix")  # one of all, and of no network yet

    def dataReceived(self, data: bytes) -> None:
        """Something of the header, perhaps with what follows it."""
        self._octets += data
        try:
            found = read_header(self._octets)
        except HeaderFault as fault:
            self._factory.tell("rejected", peer="proxy", why=f"the PROXY header is not understood: {fault}")
            self.abort()
            return
        if found is None:
            return
        origin, end = found
        self._leave()
        client = _Client(origin.address) if origin.address else self._proxy
        protocol = self._factory.inner.buildProtocol(client)
        self.transport.protocol = protocol
        protocol.makeConnection(self.transport)
        if rest := self._octets[end:]:
            protocol.dataReceived(rest)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """It has gone before that."""
        self._leave()

    def abort(self) -> None:
        """Close it at once."""
        self._leave()
        self.transport.abortConnection()

    def _late(self) -> None:
        self._timer = None
        self.abort()

    def _leave(self) -> None:
        self._factory.room.leave(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _Client:
    """Whom the proxy has named, as far as a factory looks at it."""

    def __init__(self, host: str) -> None:
        self.host = host
