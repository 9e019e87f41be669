"""Hands messages to a scanner that takes one on each connection and then answers: clamd, spamd.

The connection is made for the scan and cut when its answer is there, so nobody ever reads the answer to another's message.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.internet.defer import TimeoutError as Late
from twisted.internet.endpoints import clientFromString
from twisted.internet.error import ConnectError, ConnectionClosed
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from mailserver.api import Clock, Content, Finding, Pass, Quarantine, Refuse, Services, Verdict
from mailserver.filters.content_feed import ContentFeed
from mailserver.plugins.awaiting import within

__all__ = ["Larger", "ScannerClient", "ScannerFailed", "not_scanned"]

Larger = Literal["pass", "quarantine", "refuse"]
"""What becomes of a message that is too large to be scanned."""


class ScannerFailed(OSError):
    """The scanner gave no answer, or none that is understood: nobody knows what is in the message."""


def not_scanned(what: str, content: Content, larger: Larger) -> Verdict:
    """The verdict on a message that is too large; the finding `not-scanned` is there in any case."""
    words = f"not scanned {what}: {content.size} octets are too many"
    findings = (Finding("not-scanned", 0.0, words, {"octets": content.size}),)
    if larger == "pass":
        return Pass(findings=findings)
    return (Refuse if larger == "refuse" else Quarantine)(words, findings=findings)


class ScannerConnection(Protocol):
    """One connection: gathers the answer.

    `is_whole` says whether these octets are all of it.  A scanner may answer before it has read the message, and cut the
    connection in the middle of it: an answer that is whole counts all the same.
    """

    def __init__(self, is_whole: Callable[[bytes], bool], octets_most: int) -> None:
        self.answer: Deferred[bytes] = Deferred()
        self._is_whole = is_whole
        self._octets_most = octets_most
        self._octets = bytearray()

    def dataReceived(self, data: bytes) -> None:
        """A piece of the answer."""
        self._octets += data
        if len(self._octets) > self._octets_most:
            self.fail(ScannerFailed(f"the scanner's answer is longer than {self._octets_most} octets"))
        elif not self.answer.called and self._is_whole(bytes(self._octets)):
            self.answer.callback(bytes(self._octets))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """It is gone."""
        self.fail(ScannerFailed("the scanner has closed the connection before its answer was whole"))

    def fail(self, error: BaseException) -> None:
        """There will be no answer."""
        if not self.answer.called:
            self.answer.errback(error)

    def cut(self) -> None:
        """Nothing more of it is wanted."""
        transport: Any = self.transport
        transport.abortConnection()


class ScannerClient:
    """Asks the scanner at `endpoint` (``tcp:127.0.0.1:3310``, ``unix:/run/clamav/clamd.ctl``), so many times at once.

    A scan has `seconds` for all of it: its turn, the connection, the message, the answer.
    """

    def __init__(
        self, *, endpoint: str, connections: int, seconds: float, answer_octets_most: int, reactor: Any, clock: Clock
    ) -> None:
        self._endpoint = clientFromString(reactor, endpoint)
        self._seconds = seconds
        self._answer_octets_most = answer_octets_most
        self._clock = clock
        self._turns = DeferredSemaphore(connections)

    @classmethod
    def of(cls, options: Any, services: Services, answer_octets_most: int, *, endpoint: str = "") -> ScannerClient:
        """The client for a filter's `endpoint`, or another one, with its `connections` and `timeout`.

        Raises ValueError for an endpoint that is none.
        """
        from twisted.internet import reactor

        return cls(
            endpoint=endpoint or options.endpoint,
            connections=options.connections,
            seconds=options.timeout,
            answer_octets_most=answer_octets_most,
            reactor=reactor,
            clock=services.clock,
        )

    async def ask(self, before: bytes, feed: ContentFeed, after: bytes, is_whole: Callable[[bytes], bool]) -> bytes:
        """Write `before`, the message and `after`; the whole answer.  Raises `ScannerFailed`; OSError where it cannot be read."""
        try:
            return await within(
                self._seconds, Deferred.fromCoroutine(self._in_turn(before, feed, after, is_whole)), self._clock
            )
        except Late:
            raise ScannerFailed(f"the scanner gave no answer within {self._seconds:g} seconds") from None
        except (ConnectError, ConnectionClosed) as error:
            raise ScannerFailed(f"the scanner cannot be reached: {error}") from error

    async def _in_turn(self, before: bytes, feed: ContentFeed, after: bytes, is_whole: Callable[[bytes], bool]) -> bytes:
        await self._turns.acquire()
        try:
            factory = Factory.forProtocol(lambda: ScannerConnection(is_whole, self._answer_octets_most))
            factory.noisy = False
            connection: Any = await self._endpoint.connect(factory)
            try:
                Deferred.fromCoroutine(_write(connection, before, feed, after)).addErrback(
                    lambda failure: connection.fail(failure.value)
                )
                return await connection.answer  # type: ignore[no-any-return]
            finally:
                feed.stopProducing()
                connection.cut()
        finally:
            self._turns.release()


async def _write(connection: ScannerConnection, before: bytes, feed: ContentFeed, after: bytes) -> None:
    transport: Any = connection.transport
    transport.write(before)
    transport.registerProducer(feed, True)
    try:
        await feed.into(transport)
        if not connection.answer.called:
            transport.write(after)
    finally:
        transport.unregisterProducer()
