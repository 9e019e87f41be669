"""A connection that takes so many octets and no more, whatever they are: status lines, header fields, chunks, content."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Protocol, connectionDone
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from twisted.web.client import URI, ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

__all__ = ["AnswerContent", "BoundedEndpoint", "OneEndpoint"]


class BoundedProtocol(ProtocolWrapper):
    """Hands on what comes, as long as it is not too much."""

    factory: BoundedFactory

    def dataReceived(self, data: bytes) -> None:
        """What the peer has sent, deciphered."""
        self.factory.left -= len(data)
        if self.factory.left < 0:
            self.factory.is_exceeded = True
            self.abort()
        else:
            super().dataReceived(data)  # type: ignore[no-untyped-call]

    def abort(self) -> None:
        """Cut the connection."""
        transport: Any = self.transport
        transport.abortConnection()


class BoundedFactory(WrappingFactory):
    """Makes the one."""

    protocol = BoundedProtocol
    noisy = False

    def __init__(self, wrapped: Any, most: int) -> None:
        super().__init__(wrapped)  # type: ignore[no-untyped-call]
        self.left = most
        self.is_exceeded = False

    def cut(self) -> None:
        """The connection is needed no more."""
        for protocol in list(self.protocols):
            protocol.abort()


@implementer(IStreamClientEndpoint)
class BoundedEndpoint:
    """Connects with `endpoint`, once, and takes at most `most` octets.  `cut` ends the connection."""

    def __init__(self, endpoint: Any, most: int) -> None:
        self._endpoint = endpoint
        self._most = most
        self._factory: BoundedFactory | None = None

    @property
    def is_exceeded(self) -> bool:
        """More came than was to be taken."""
        return self._factory is not None and self._factory.is_exceeded

    def connect(self, factory: Any) -> Deferred[Any]:
        """As Twisted wants it."""
        self._factory = BoundedFactory(factory, self._most)
        connected: Deferred[Any] = self._endpoint.connect(self._factory)
        return connected.addCallback(lambda protocol: protocol.wrappedProtocol)

    def cut(self) -> None:
        """The connection, if there is one, is needed no more."""
        if self._factory is not None:
            self._factory.cut()


@implementer(IAgentEndpointFactory)
class OneEndpoint:
    """Tells Twisted's Agent to connect there, whatever it makes of the URL."""

    def __init__(self, endpoint: Any) -> None:
        self._endpoint = endpoint

    def endpointForURI(self, uri: URI) -> Any:
        """The one."""
        return self._endpoint


class AnswerContent(Protocol):
    """Keeps the content of an answer, which the connection has bounded.  `whole` fails for one that was cut off."""

    def __init__(self) -> None:
        self.octets = bytearray()
        self.whole: Deferred[bytes] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        """A piece of it."""
        self.octets += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """All of it has come, or no more will."""
        if self.whole.called:
            return
        if reason.check(ResponseDone, PotentialDataLoss):
            self.whole.callback(bytes(self.octets))
        else:
            self.whole.errback(reason)
