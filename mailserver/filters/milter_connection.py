"""Connections to a milter: made and agreed upon, used by one SMTP connection at a time, kept for the next one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.internet.defer import TimeoutError as Late
from twisted.internet.endpoints import clientFromString
from twisted.internet.error import ConnectError, ConnectionClosed
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from mailserver.api import Clock
from mailserver.filters.milter_answers import Agreement, Answer, Change, StillWorking
from mailserver.filters.milter_dialogue import MilterDialogue
from mailserver.filters.milter_wire import FRAME_OCTETS_MOST, MilterFault
from mailserver.plugins.awaiting import within

__all__ = ["MilterConnection", "MilterFailed", "MilterPool"]

IDLE_SECONDS = 60.0  # rspamd closes after two minutes


class MilterFailed(OSError):
    """The milter gave no answer, or none that is understood."""


@implementer(IPushProducer)
class MilterConnection(Protocol):
    """One connection, and where its dialogue stands.  A command at a time."""

    def __init__(self, clock: Clock) -> None:
        self.dialogue = MilterDialogue()
        self.is_open = True
        self.was_used = False  # for an SMTP connection before this one
        self.answers = 0  # that this SMTP connection has had
        self.idle_since = 0.0
        self._clock = clock
        self._fault: BaseException | None = None
        self._waiting: Deferred[None] | None = None
        self._is_full = self._is_held = False

    # --- what Twisted calls ---

    def connectionMade(self) -> None:
        """It is there."""
        transport: Any = self.transport
        if hasattr(transport, "setTcpNoDelay"):
            transport.setTcpNoDelay(True)
        transport.registerProducer(self, True)

    def dataReceived(self, data: bytes) -> None:
        """Some of what the milter says."""
        try:
            self.dialogue.receive(data)
        except MilterFault as fault:
            self.fail(MilterFailed(f"the milter is not understood: {fault}"))
            return
        if self.dialogue.buffered > FRAME_OCTETS_MOST and not self._is_held:
            self._is_held = True  # who asks is busy with what has come before
            transport: Any = self.transport
            transport.pauseProducing()
        self._wake()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """It is gone."""
        self.is_open = False
        self.fail(MilterFailed("the milter has closed the connection"))

    def pauseProducing(self) -> None:
        """The milter takes no more for now."""
        self._is_full = True

    def resumeProducing(self) -> None:
        """It does again."""
        self._is_full = False
        self._wake()

    def stopProducing(self) -> None:
        """Nobody takes any more."""

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.called:
            waiting.callback(None)

    # --- what is said and heard ---

    def write(self, octets: bytes) -> None:
        """Say something."""
        transport: Any = self.transport
        if octets and self.is_open:
            transport.write(octets)

    async def agree(self, seconds: float) -> None:
        """Make the offer, and hear what the milter chooses of it.  Raises as `answer`."""
        self.write(self.dialogue.begin())
        await self._within(seconds, self._next)

    async def answer(self, seconds: float) -> Answer | Change:
        """What it says next, within so many seconds: each time it says that it still works, they begin anew.

        Raises `MilterFailed`; the connection is cut then, as when the waiting is cancelled.
        """
        return await self._within(seconds, self._next)  # type: ignore[no-any-return]

    async def drained(self, seconds: float) -> None:
        """Wait until the milter takes more.  Raises `MilterFailed`."""
        if self._is_full:
            await self._within(seconds, lambda _: None if self._is_full else True)

    async def _within(self, seconds: float, found: Callable[[Callable[[], None]], Any]) -> Any:
        timer: Any = None

        def late() -> None:
            self.fail(MilterFailed(f"the milter gave no answer within {seconds:g} seconds"))

        def begin() -> None:
            nonlocal timer
            if timer is not None and timer.active():
                timer.cancel()
            timer = self._clock.callLater(seconds, late)

        begin()
        try:
            while True:
                result = found(begin)  # first: an answer that is whole counts, however the connection has ended
                if result is not None:
                    return result
                if self._fault is not None:
                    raise self._fault
                self._waiting = Deferred()
                await self._waiting
        except MilterFault as fault:
            self.cut()
            raise MilterFailed(f"the milter is not understood: {fault}") from fault
        except BaseException:
            self.cut()
            raise
        finally:
            self._waiting = None
            if timer.active():
                timer.cancel()

    def _next(self, begin: Callable[[], None]) -> Agreement | Answer | Change | None:
        while True:
            event = self.dialogue.next_event()
            if isinstance(event, StillWorking):
                begin()
                continue
            if event is None and self._is_held:
                self._is_held = False
                transport: Any = self.transport
                transport.resumeProducing()
            if event is not None:
                self.answers += 1
            return event

    # --- its end ---

    def fail(self, error: BaseException) -> None:
        """Whoever waits hears it, and nobody uses the connection again."""
        if self._fault is None:
            self._fault = error
        self.cut()
        self._wake()

    def cut(self) -> None:
        """Use it no more."""
        if self.is_open:
            self.is_open = False
            transport: Any = self.transport
            transport.abortConnection()

    def quit(self) -> None:
        """Say goodbye and close it."""
        if not self.is_open:
            return
        transport: Any = self.transport
        octets = b"" if self._is_full else self.dialogue.quit()
        if not octets:
            self.cut()
            return
        self.is_open = False
        transport.unregisterProducer()
        transport.write(octets)
        transport.loseConnection()


class MilterPool:
    """Connections to the milter at `endpoint`, at most so many in use at once.

    `reuses`: when an SMTP connection is over, the next one may have what it has used.
    """

    def __init__(
        self,
        *,
        endpoint: str,
        connections: int,
        connect_seconds: float,
        reuses: bool,
        reactor: Any,
        clock: Clock,
        seconds: Callable[[], float],
    ) -> None:
        self._endpoint = clientFromString(reactor, endpoint)
        self._connect_seconds = connect_seconds
        self._reuses = reuses
        self._clock = clock
        self._seconds = seconds
        self._turns = DeferredSemaphore(connections)
        self._idle: list[MilterConnection] = []
        self._factory = Factory.forProtocol(lambda: MilterConnection(clock))
        self._factory.noisy = False
        self.make_room: Callable[[], None] = lambda: None  # called where all are in use and one more is wanted

    async def take(self, *, fresh: bool = False) -> MilterConnection:
        """One that is agreed upon and has no peer yet; with `fresh` none that was used.

        To be given back.  Raises `MilterFailed`; its turn, the connection and the agreement have the connection's time together.
        """
        try:
            taking = Deferred.fromCoroutine(self._take(fresh))
            return await within(self._connect_seconds, taking, self._clock)
        except Late:
            raise MilterFailed(f"the milter cannot be reached within {self._connect_seconds:g} seconds") from None
        except (ConnectError, ConnectionClosed) as error:
            raise MilterFailed(f"the milter cannot be reached: {error}") from error

    async def _take(self, fresh: bool) -> MilterConnection:
        if not self._turns.tokens:
            self.make_room()
        await self._turns.acquire()
        try:
            connection = None if fresh else self._waiting_one()
            if connection is None:
                connection = await self._made()
        except BaseException:
            self._turns.release()
            raise
        connection.answers = 0
        return connection

    @property
    def is_wanted(self) -> bool:
        """Somebody waits for one."""
        return bool(self._turns.waiting)

    def _waiting_one(self) -> MilterConnection | None:
        oldest = self._seconds() - IDLE_SECONDS
        kept = []
        for one in self._idle:
            if one.idle_since >= oldest and one.is_open:
                kept.append(one)
            else:
                one.quit()
        self._idle = kept
        return kept.pop() if kept else None

    async def _made(self) -> MilterConnection:
        connection: MilterConnection = await self._endpoint.connect(self._factory)
        await connection.agree(self._connect_seconds)
        return connection

    def give_back(self, connection: MilterConnection) -> None:
        """Its SMTP connection is over, or it has failed."""
        self._turns.release()
        if not connection.is_open:
            return
        if not self._reuses or not connection.dialogue.takes_another:
            connection.quit()
            return
        connection.write(connection.dialogue.release())
        connection.was_used = True
        connection.idle_since = self._seconds()
        self._idle.append(connection)

    def stop(self) -> None:
        """Close what is idle, and keep nothing any more."""
        self._reuses = False
        idle, self._idle = self._idle, []
        for one in idle:
            one.quit()
