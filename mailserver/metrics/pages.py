"""The listener for monitoring: ``/metrics``, ``/health/live`` and ``/health/ready`` over HTTP, and nothing else."""

from __future__ import annotations

import hmac
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.protocols.basic import LineReceiver
from twisted.web.http import HTTPChannel
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

__all__ = ["MonitoringFactory", "Pages"]

REQUEST_SECONDS = 30
CONNECTIONS_MOST = 50
HEADERS = {
    b"Cache-Control": b"no-store",
    b"Content-Security-Policy": b"default-src 'none'",
    b"X-Content-Type-Options": b"nosniff",
}


class Pages(Resource):
    """`metrics(accept)` gives the figures and their media type; `not_ready()` why mail is not taken.

    `token()` is what a client has to show (RFC 6750), None for nobody in particular; OSError where it cannot be read.
    """

    isLeaf = True
    log = Logger()

    def __init__(
        self,
        *,
        metrics: Callable[[str], Awaitable[tuple[bytes, str]]],
        not_ready: Callable[[], Sequence[str]],
        token: Callable[[], str | None],
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._metrics = metrics
        self._not_ready = not_ready
        self._token = token

    def render_GET(self, request: Request) -> Any:
        """Answer."""
        for name, value in HEADERS.items():
            request.setHeader(name, value)
        if not self._may_ask(request):
            request.setHeader(b"WWW-Authenticate", b"Bearer")
            return _said(request, 401, "A token is wanted.")
        if request.path == b"/metrics":
            answering = Deferred.fromCoroutine(self._answer(request))
            gone = request.notifyFinish()
            gone.addErrback(lambda _: answering.cancel())
            answering.addErrback(self._stumbled, request)
            return NOT_DONE_YET
        if request.path == b"/health/live":
            return _as_json(request, 200, {"live": True})
        if request.path == b"/health/ready":
            reasons = list(self._not_ready())
            return _as_json(request, 503 if reasons else 200, {"ready": not reasons, "reasons": reasons})
        return _said(request, 404, "There are /metrics, /health/live and /health/ready.")

    def _may_ask(self, request: Request) -> bool:
        try:
            token = self._token()
        except (OSError, ValueError) as error:  # also where it is no text
            self.log.error("the token for monitoring cannot be read, so nobody is let in: {error}", error=error)
            return False
        if token is None:
            return True
        kind, _, shown = (request.getHeader(b"authorization") or b"").partition(b" ")
        return kind.lower() == b"bearer" and hmac.compare_digest(shown.strip(), token.encode())

    async def _answer(self, request: Request) -> None:
        accept = (request.getHeader(b"accept") or b"").decode("latin-1")
        text, media_type = await self._metrics(accept)
        request.setHeader(b"Content-Type", media_type.encode("ascii"))
        request.setHeader(b"Content-Length", b"%d" % len(text))
        if request.method != b"HEAD":
            request.write(text)
        request.finish()

    def _stumbled(self, failure: Any, request: Request) -> None:
        if request._disconnected:  # whoever asked has gone
            return
        self.log.failure("the figures could not be given out", failure)
        request.setResponseCode(500)
        request.finish()


class _Question(Request):
    """One request.  None that is asked here has a body: it would be kept on the disk, whoever sent it."""

    _has_body = False

    def gotLength(self, length: int | None) -> None:
        """The header is there."""
        super().gotLength(0)  # type: ignore[no-untyped-call]
        if length != 0:
            self._has_body = True
            self.channel._respondToBadRequestAndDisconnect()

    def handleContentChunk(self, data: bytes) -> None:
        """Nothing is kept."""

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """It is whole."""
        if not self._has_body:
            super().requestReceived(command, path, version)  # type: ignore[no-untyped-call]


class _Channel(HTTPChannel):
    """One connection.  A request has to be whole within its time, however often something of it comes."""

    owner: MonitoringFactory
    transport: Any

    @property
    def is_answered(self) -> bool:
        """Nothing of ours is under way."""
        return not self._handlingRequest

    def dataReceived(self, data: bytes) -> None:
        """As its own, but the time goes on."""
        LineReceiver.dataReceived(self, data)

    def connectionLost(self, reason: Any = connectionDone) -> None:
        """It is closed."""
        self.owner.closed(self)
        super().connectionLost(reason)  # type: ignore[no-untyped-call]


class MonitoringFactory(Site):
    """A listener's connections: at most fifty.  One more takes the place of the one that has waited longest with nothing under
    way, so that who keeps connections open does not keep others out."""

    noisy = False
    displayTracebacks = False
    protocol = _Channel  # type: ignore[assignment]

    def __init__(self, pages: Pages) -> None:
        super().__init__(pages, requestFactory=_Question, timeout=REQUEST_SECONDS)  # type: ignore[no-untyped-call]
        self._open: dict[_Channel, None] = {}

    @property
    def connections(self) -> int:
        """Those that are open now."""
        return len(self._open)

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """None, which closes it, where there are too many."""
        if len(self._open) >= CONNECTIONS_MOST:
            idle = next((one for one in self._open if one.is_answered), None)
            if idle is None:
                return None
            del self._open[idle]
            idle.transport.abortConnection()
        channel: Any = super().buildProtocol(addr)  # type: ignore[no-untyped-call]
        channel.owner = self
        self._open[channel] = None
        return channel

    def closed(self, channel: _Channel) -> None:
        """It is not there any more."""
        self._open.pop(channel, None)

    def log(self, request: Any) -> None:
        """Who asks each few seconds is no news."""

    def shut_down(self) -> Deferred[None]:
        """End all of them."""
        for protocol in list(self._open):
            protocol.transport.abortConnection()
        return succeed(None)


def _as_json(request: Request, status: int, value: Any) -> bytes:
    request.setHeader(b"Content-Type", b"application/json")
    request.setResponseCode(status)
    return json.dumps(value).encode() + b"\n"


def _said(request: Request, status: int, words: str) -> bytes:
    request.setHeader(b"Content-Type", b"text/plain; charset=utf-8")
    request.setResponseCode(status)
    return words.encode() + b"\n"
