"""Whose turn it is among the homes: one delivery at a time into each, and one that does not answer holds up its own mail alone.

A home may lie on a file server of its own, which may be away.  Then one delivery waits for it.  After a few seconds those
behind it wait no longer, and after its deadline the home is left alone for a while, longer each time.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred, DeferredLock, DeferredSemaphore
from twisted.internet.defer import TimeoutError as Late
from twisted.logger import Logger

from mailserver.interfaces import Clock
from mailserver.mail.until import still_holds

__all__ = ["HomeQueues", "HomeBusy"]

SLOW_SECONDS = 5.0  # of one delivery; then the next ones for this home are deferred at once
PENALTY_SECONDS = 60.0  # after a deadline; twice as long after each further one
PENALTY_SECONDS_MOST = 900.0
SUSPECTS_AT_ONCE = 4  # homes that have not answered the last time
REMEMBERED_MOST = 10_000  # homes that have not answered

T = TypeVar("T")


class HomeBusy(Exception):
    """Nothing is tried now; the words say why."""


class Home:
    """What is under way into one home, and how it went.

    `slow` and `next_try` are about two moments.  While a delivery hangs, `slow` sends away those behind it, and those who come
    then; once its deadline is over, `next_try` sends away whoever comes in the pause.  `hangs` outlives both: a home that has
    not answered the last time is a suspect until it does, and few suspects are tried at once, so that a file server that is
    away with all its homes does not take every slot.
    """

    __slots__ = ("hangs", "lock", "next_try", "slow", "waiting")

    def __init__(self) -> None:
        self.lock = DeferredLock()
        self.waiting: set[Deferred[Any]] = set()  # those behind the one under way, to be called off when it is slow
        self.slow = False  # the delivery under way has not answered for a while
        self.hangs = 0  # deadlines, one after the other
        self.next_try = 0.0


class HomeQueues:
    """`at_once` deliveries in all."""

    log = Logger()

    def __init__(self, *, clock: Clock, at_once: int) -> None:
        self._clock = clock
        self._slots = DeferredSemaphore(at_once)
        self._homes: dict[str, Home] = {}
        self._suspects = 0

    async def serve(self, user: str, work: Callable[[], Awaitable[T]], *, last_start: float) -> T:
        """What `work` returns, when it is the user's turn; in the order of the calls.

        `work` raises Twisted's TimeoutError where the home does not answer.  Raises `HomeBusy` also where the turn has not come
        before `last_start`, a time of the clock.
        """
        home = self._homes.setdefault(user, Home())
        self._look_at(home)
        await self._turn(home)
        try:
            self._look_at(home)  # again: the one before us may have hung
            await self._slot(last_start)
        except BaseException:
            # Later, for those behind may fare alike: they would be called one in the other.
            self._clock.callLater(0, self._leave, user, home)
            raise
        try:
            return await self._served(user, home, work)
        finally:
            self._slots.release()
            self._leave(user, home)

    def _leave(self, user: str, home: Home) -> None:
        home.lock.release()
        if not (home.hangs or home.lock.locked):
            self._homes.pop(user, None)

    async def _slot(self, last_start: float) -> None:
        slot = self._slots.acquire()
        slot.addTimeout(max(0.0, last_start - self._clock.seconds()), self._clock)  # type: ignore[arg-type]
        try:
            await slot
        except Late:
            raise HomeBusy("other deliveries took the time") from None

    def _look_at(self, home: Home) -> None:
        """Raises `HomeBusy`."""
        now = self._clock.seconds()
        if still_holds(home.next_try, now, PENALTY_SECONDS_MOST):
            raise HomeBusy(f"the home has not answered; the next try is in {home.next_try - now:.0f} seconds")
        if home.slow:
            raise HomeBusy("the home does not answer")
        if home.hangs and self._suspects >= SUSPECTS_AT_ONCE:
            raise HomeBusy("the home has not answered, and others like it are being tried")

    async def _turn(self, home: Home) -> None:
        entry = home.lock.acquire()
        home.waiting.add(entry)
        try:
            await entry
        except CancelledError:
            if home.slow:
                raise HomeBusy("the home does not answer") from None
            raise
        finally:
            home.waiting.discard(entry)

    async def _served(self, user: str, home: Home, work: Callable[[], Awaitable[T]]) -> T:
        is_suspect = home.hangs > 0
        self._suspects += is_suspect
        timer = self._clock.callLater(SLOW_SECONDS, self._is_slow, home)
        try:
            result = await work()
        except Late:
            self._hangs(user, home)
            raise HomeBusy("the home does not answer") from None
        finally:
            self._suspects -= is_suspect
            home.slow = False
            if timer.active():
                timer.cancel()
        home.hangs = 0
        return result

    def _is_slow(self, home: Home) -> None:
        home.slow = True
        for entry in list(home.waiting):
            entry.cancel()

    def _hangs(self, user: str, home: Home) -> None:
        seconds = min(PENALTY_SECONDS * 2**home.hangs, PENALTY_SECONDS_MOST)
        home.hangs = min(home.hangs + 1, 10)
        home.next_try = self._clock.seconds() + seconds
        self.log.error("the home of {user} does not answer: its mail waits {seconds:.0f} seconds", user=user, seconds=seconds)
        if len(self._homes) > REMEMBERED_MOST:
            now = self._clock.seconds()
            self._homes = {name: one for name, one in self._homes.items() if one.lock.locked or one.next_try > now}
