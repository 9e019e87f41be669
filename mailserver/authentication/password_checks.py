"""Compares passwords in a few threads of their own: a hash takes 20 ms and more, and guesses come by the thousand.

Where too many wait already, the next fails at once with `TooMany`.  A right password is remembered for a short time as a keyed
hash, only in memory, since mail programs log in for each message.
"""

from __future__ import annotations

import hmac
import secrets
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from mailserver.authentication.passwords import needs_update, verify_password
from mailserver.interfaces import CannotTell, Clock

__all__ = ["CostlyThreads", "NotRunning", "PasswordChecks", "TooMany"]

REMEMBERED_MOST = 10_000


class TooMany(CannotTell):
    """So many wait already that one more would wait too long."""


class NotRunning(CannotTell):
    """The threads have not been started, or have been stopped."""


class CostlyThreads:
    """Runs costly functions, `threads` at once, while at most `waiting` others wait."""

    def __init__(self, *, threads: int, waiting: int, call_in_reactor: Callable[..., Any]) -> None:
        self._pool = ThreadPool(0, threads, "passwords")
        self._most = threads + waiting
        self._under_way = 0
        self._call_in_reactor = call_in_reactor

    def start(self) -> None:
        """Accept work.  Before, `run` fails.  The threads themselves start with the first work."""
        self._pool.start()

    def warm_up(self) -> None:
        """Load the hash library now, so that no login waits for it."""
        self._pool.callInThread(verify_password, "x", nobodys_hash())

    def resize(self, *, threads: int, waiting: int) -> None:
        """Set other bounds, from the next work on."""
        self._pool.adjustPoolsize(0, threads)
        self._most = threads + waiting

    def stop(self) -> None:
        """Stop.  Waits a moment for running work."""
        if self._pool.started and not self._pool.joined:
            self._pool.stop()

    def run(self, function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        """Run the function in a thread; the Deferred has its result.  Fails at once with `TooMany` or `NotRunning`."""
        done: Deferred[Any] = Deferred(lambda _: None)  # cancelled work still ends by itself
        if not self._pool.started:  # a pool that does not run would keep the work without a word
            done.errback(NotRunning("no password is compared before the start, or after the end"))
            return done
        if self._under_way >= self._most:
            done.errback(TooMany(f"{self._under_way} others wait for their passwords to be compared"))
            return done
        self._under_way += 1

        def ended(succeeded: bool, result: Any) -> None:
            self._call_in_reactor(self._ended, done, result)

        self._pool.callInThreadWithCallback(ended, function, *arguments)
        return done

    def _ended(self, done: Deferred[Any], result: Any) -> None:
        self._under_way -= 1
        if not done.called:
            (done.errback if isinstance(result, Failure) else done.callback)(result)


class PasswordChecks:
    """Compares passwords with hashes.

    `run(function, *arguments)` returns an awaitable.  `remember_seconds` may change at any time; 0 remembers nothing.
    """

    def __init__(self, *, run: Callable[..., Any], clock: Clock, remember_seconds: float) -> None:
        self.remember_seconds = remember_seconds
        self._run = run
        self._clock = clock
        self._secret = secrets.token_bytes(32)
        self._right: OrderedDict[bytes, float] = OrderedDict()  # right passwords: since when

    async def matches(self, password: str, hash: str | None) -> bool:
        """Whether the password matches the hash.  A hash of None takes as long and is False.  Raises `TooMany`, `NotRunning`."""
        if hash is None:
            await self._run(verify_password, password, nobodys_hash())
            return False
        mark = hmac.digest(self._secret, f"{hash}\0{password}".encode("utf-8", "surrogatepass"), "sha256")
        since = self._right.get(mark)
        if since is not None and 0 <= self._clock.seconds() - since < self.remember_seconds:
            return True
        if not await self._run(compare, password, hash):
            return False
        self._remember(mark)
        return True

    def _remember(self, mark: bytes) -> None:
        if not self.remember_seconds:
            return
        self._right.pop(mark, None)
        self._right[mark] = self._clock.seconds()
        if len(self._right) > REMEMBERED_MOST:
            self._right.popitem(last=False)


def compare(password: str, hash: str) -> bool:
    """Whether the password matches the hash.  Blocks.

    A failure takes no less time than for an unknown account.  Hashes from an older server are often quick ones, and the time
    would show that the account exists.
    """
    if verify_password(password, hash):
        return True
    if needs_update(hash):
        verify_password(password, nobodys_hash())
    return False


def nobodys_hash() -> str:
    """A hash of random octets, of the kind that new passwords get."""
    return "$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5J3Mgc2FsdA$Zx5m0cQ0fR0b1n3mVQ1w6sW8m3v5q0b7uG0n3cC2b9E"
