"""Our own listeners for the time of an order, where no web listener has the port: http-01 and tls-alpn-01.  In the reactor.

They show what the CA looks for and nothing else, and are closed when it has looked.
"""

from __future__ import annotations

import datetime
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from cryptography import x509
from OpenSSL import SSL
from twisted.internet.defer import maybeDeferred
from twisted.internet.interfaces import IHandshakeListener, IOpenSSLServerConnectionCreator
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory
from zope.interface import implementer

from mailserver.acme.alpn_certificate import ALPN_PROTOCOL, alpn_certificate
from mailserver.acme.challenge import ShownChallenge
from mailserver.interfaces import Clock

__all__ = ["HTTPListener", "Listen", "TLSListener"]

Listen = Callable[[str, Any], Awaitable[Any]]
PATH = b"/.well-known/acme-challenge/"
REQUEST_OCTETS = 16384
CONNECTION_SECONDS = 20.0
CONNECTIONS_MOST = 100
TYPE = b"Content-Type: application/octet-stream\r\n"
SHORT_LIVED = b"Cache-Control: no-store\r\nConnection: close\r\n"


class _Listener:
    """Opens the first of the endpoints that can be opened.  `listen(endpoint, factory)` gives a port, or raises OSError."""

    log = Logger()

    def __init__(self, endpoints: Sequence[str], listen: Listen, clock: Clock) -> None:
        self._endpoints = endpoints
        self._listen = listen
        self._port: Any = None
        self._connections = _Connections(clock)

    def factory(self) -> Any:
        raise NotImplementedError

    async def open(self) -> None:
        """Raises OSError where none of them can be listened on."""
        if self._port is not None:
            return
        faults = []
        for endpoint in self._endpoints:
            try:
                self._port = await self._listen(endpoint, self.factory())
                return
            except Exception as error:  # noqa: BLE001  # CannotListenError and OSError, by any way
                faults.append(f"cannot listen on {endpoint}: {error}")
        raise OSError("; ".join(faults))

    async def close(self) -> None:
        """And end the connections."""
        port, self._port = self._port, None
        if port is not None:
            await maybeDeferred(port.stopListening)
        self._connections.end()


class HTTPListener(_Listener):
    """http-01 (RFC 8555 section 8.3)."""

    kind = "http-01"

    def __init__(self, endpoints: Sequence[str], listen: Listen, clock: Clock) -> None:
        super().__init__(endpoints, listen, clock)
        self._shown: dict[bytes, bytes] = {}

    async def show(self, challenges: Sequence[ShownChallenge]) -> None:
        """Raises OSError."""
        for one in challenges:
            self._shown[PATH + one.token.encode("ascii")] = one.key_authorization.encode("ascii")
        await self.open()

    async def withdraw(self, challenges: Sequence[ShownChallenge]) -> None:
        """The port is closed with the last."""
        for one in challenges:
            self._shown.pop(PATH + one.token.encode("ascii"), None)
        if not self._shown:
            await self.close()

    def factory(self) -> Any:
        """See above."""
        return _factory(lambda: _HTTP(self._connections, self._shown))


class TLSListener(_Listener):
    """tls-alpn-01 (RFC 8737)."""

    kind = "tls-alpn-01"

    def __init__(self, endpoints: Sequence[str], listen: Listen, clock: Clock) -> None:
        super().__init__(endpoints, listen, clock)
        self._creator = _Creator()

    async def show(self, challenges: Sequence[ShownChallenge]) -> None:
        """Raises OSError."""
        now = datetime.datetime.now(datetime.UTC)
        for one in challenges:
            self._creator.contexts[one.host] = alpn_context(*alpn_certificate(one.host, one.digest, now))
        await self.open()

    async def withdraw(self, challenges: Sequence[ShownChallenge]) -> None:
        """The port is closed with the last."""
        for one in challenges:
            self._creator.contexts.pop(one.host, None)
        if not self._creator.contexts:
            await self.close()

    def factory(self) -> Any:
        """See above."""
        return TLSMemoryBIOFactory(self._creator, False, _factory(lambda: _Silent(self._connections)))


def alpn_context(certificate: x509.Certificate, key: Any) -> SSL.Context:
    """Speaks ``acme-tls/1`` and nothing else (RFC 8737 section 4)."""
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.use_certificate(certificate)
    context.use_privatekey(key)

    def chosen(connection: SSL.Connection, offered: list[bytes]) -> Any:
        return ALPN_PROTOCOL if ALPN_PROTOCOL in offered else SSL.NO_OVERLAPPING_PROTOCOLS

    context.set_alpn_select_callback(chosen)
    return context


@implementer(IOpenSSLServerConnectionCreator)
class _Creator:
    """Gives each connection the certificate of the name that it asks for; who asks for another gets one that says nothing."""

    def __init__(self) -> None:
        self.contexts: dict[str, SSL.Context] = {}
        self._nobodys: SSL.Context | None = None

    def serverConnectionForTLS(self, protocol: Any) -> SSL.Connection:
        """See `IOpenSSLServerConnectionCreator`."""
        if self._nobodys is None:
            now = datetime.datetime.now(datetime.UTC)
            self._nobodys = alpn_context(*alpn_certificate("invalid", bytes(32), now))
            self._nobodys.set_tlsext_servername_callback(self._choose)
        return SSL.Connection(self._nobodys, None)

    def _choose(self, connection: SSL.Connection) -> None:
        name = (connection.get_servername() or b"").decode("ascii", "replace").lower()
        context = self.contexts.get(name)
        if context is not None:
            connection.set_context(context)


class _Connections:
    """Those that are open: a bounded number, each for a bounded time."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._open: dict[Any, Any] = {}

    def opened(self, protocol: Any) -> bool:
        if len(self._open) >= CONNECTIONS_MOST:
            protocol.transport.abortConnection()
            return False
        self._open[protocol] = self._clock.callLater(CONNECTION_SECONDS, protocol.transport.abortConnection)
        return True

    def closed(self, protocol: Any) -> None:
        timer = self._open.pop(protocol, None)
        if timer is not None and timer.active():
            timer.cancel()

    def end(self) -> None:
        for protocol in list(self._open):
            protocol.transport.loseConnection()  # an answer that is on its way arrives; the timer bounds it


@implementer(IHandshakeListener)
class _Silent(Protocol):
    """The handshake was all (RFC 8737 section 4)."""

    transport: Any

    def __init__(self, connections: _Connections) -> None:
        self._connections = connections

    def connectionMade(self) -> None:
        """It is open."""
        self._connections.opened(self)

    def handshakeCompleted(self) -> None:
        """The CA has seen the certificate."""
        self.transport.loseConnection()

    def dataReceived(self, data: bytes) -> None:
        """Nothing is said here."""

    def connectionLost(self, reason: Any = connectionDone) -> None:
        """It is closed."""
        self._connections.closed(self)


class _HTTP(_Silent):
    """One request, one answer."""

    def __init__(self, connections: _Connections, shown: dict[bytes, bytes]) -> None:
        super().__init__(connections)
        self._shown = shown
        self._octets = b""
        self._is_answered = False

    def dataReceived(self, data: bytes) -> None:
        """Answer once the header section is there."""
        if self._is_answered:
            return
        self._octets += data
        if b"\r\n\r\n" not in self._octets and b"\n\n" not in self._octets:
            if len(self._octets) > REQUEST_OCTETS:
                self.transport.abortConnection()
            return
        self._is_answered = True
        method, _, rest = self._octets.partition(b"\n")[0].partition(b" ")
        found = self._shown.get(rest.split(b" ")[0].partition(b"?")[0])
        if method not in (b"GET", b"HEAD") or found is None:
            found, status = b"There is nothing here.\n", b"404 Not Found"
        else:
            status = b"200 OK"
        head = b"HTTP/1.1 %b\r\n%b%bContent-Length: %d\r\n\r\n" % (status, TYPE, SHORT_LIVED, len(found))
        self.transport.write(head if method == b"HEAD" else head + found)
        self.transport.loseConnection()


def _factory(build: Callable[[], Protocol]) -> Factory:
    made = Factory()
    made.noisy = False
    made.buildProtocol = lambda addr: build()  # type: ignore[method-assign]
    return made
