"""Keeps a token for the log-in at a smarthost: from the file, from the issuer before the old one ends, for all who wait at once.

A failure of the issuer costs nothing as long as the old token is good.  Without one, log-ins fail with the issuer's words, the
mail waits in the queue, and the issuer is asked again after 15 seconds, then after twice as long, up to 15 minutes; where it has
refused, after 15 minutes.  A new file (`mailserver smarthost login`) counts at once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as Late
from twisted.logger import Logger

from mailserver.interfaces import Clock
from mailserver.plugins.awaiting import within
from mailserver.relay.token_answers import IssuedTokens, TokenFailed
from mailserver.relay.token_file import OtherTokens, TokenFile

__all__ = ["TokenKeeper"]

LOOK_SECONDS = 30.0
AGAIN_SECONDS, AGAIN_SECONDS_MOST = 15.0, 900.0
DOUBT_SECONDS = 600.0  # an issuer that does not answer for so long is worth a note
REJECTED_SECONDS = 300.0  # a token that is younger and not accepted is not the reason
STOP_SECONDS = 4.0


class TokenKeeper:
    """Of one log-in.  `renewed(before)` asks the issuer (`TokenIssuer`); `host` is whose log-in it is, for people.

    With `needs_person` there is nothing to ask the issuer with but what is in the file.
    """

    log = Logger()

    def __init__(
        self,
        *,
        host: str,
        file: TokenFile,
        renewed: Callable[[IssuedTokens | None], Awaitable[IssuedTokens]],
        run_in_thread: Callable[..., Any],
        clock: Clock,
        needs_person: bool = True,
    ) -> None:
        self._host = host
        self._file = file
        self._renewed = renewed
        self._run_in_thread = run_in_thread
        self._clock = clock
        self._needs_person = needs_person
        self._kept: IssuedTokens | None = None
        self._sealed: str | None = None  # the file as it was read or written last; None before
        self._changes: object = None
        self._is_saved = True
        self._fault: TokenFailed | None = None
        self._fault_since = 0.0
        self._failures = 0
        self._not_before = 0.0
        self._rejection = ""
        self._waiting: list[Deferred[str]] = []
        self._running: Deferred[None] | None = None
        self._timer: Any = None
        self._is_stopped = False

    # --- life ---

    def start(self) -> None:
        """Look into the file, ask the issuer where it is time, and go on doing so."""
        self._begin()
        self._timer = self._clock.callLater(LOOK_SECONDS, self._look)

    async def stop(self) -> None:
        """End it.  What the issuer is just giving away is still taken and kept, within seconds."""
        self._is_stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._running is not None:
            ended: Deferred[None] = Deferred()
            self._running.addBoth(lambda _: ended.callback(None))
            with contextlib.suppress(Late, CancelledError):
                await within(STOP_SECONDS, ended, self._clock)
            if self._running is not None:
                self._running.cancel()

    def _look(self) -> None:
        self._timer = self._clock.callLater(LOOK_SECONDS, self._look)
        now = self._clock.seconds()
        is_due = self._kept is None or not self._kept.is_fresh(now) or not self._is_saved
        if self._is_changed() or (is_due and now >= self._not_before):
            self._begin()

    def _is_changed(self) -> bool:
        try:
            return self._file.changes() != self._changes
        except OSError:
            return True  # reading it will say why

    # --- for those who log in ---

    def token(self) -> str | Deferred[str]:
        """One that is good, perhaps later.  Raises `TokenFailed`, or the Deferred fails with it."""
        now = self._clock.seconds()
        if self._kept is not None and self._kept.is_good(now):
            return self._kept.access
        if self._running is None and self._fault is not None and now < self._not_before and not self._is_changed():
            raise self._fault
        if self._is_stopped:
            raise TokenFailed("the server stops")
        waiting: Deferred[str] = Deferred()
        self._waiting.append(waiting)
        self._begin()
        return waiting

    def accepted(self, token: str) -> None:
        """The host has let us in with it."""
        self._rejection = ""

    def rejected(self, token: str, why: str) -> None:
        """The host has not: where the token is not new, the issuer is asked for another one at the next log-in."""
        kept = self._kept
        if kept is None or kept.access != token:
            return
        self._rejection = why
        if not 0 <= self._clock.seconds() - kept.obtained_at < REJECTED_SECONDS:
            self._kept = replace(kept, lifetime=0.0)
            self._not_before = 0.0

    # --- for people ---

    def doubt(self) -> str:
        """What a postmaster should know and do something about, a sentence; "" for nothing."""
        now = self._clock.seconds()
        is_good = self._kept is not None and self._kept.is_good(now)
        fault = self._fault
        if fault is not None and (fault.is_refused or (not is_good and now - self._fault_since >= DOUBT_SECONDS)):
            until = "still works, not for long" if is_good else "does not work, and mail for other hosts waits"
            return f"The log-in at {self._host} {until}: {fault}"
        if not self._is_saved:
            return f"The new token for the log-in at {self._host} cannot be written to {self._file.path}: the log says why"
        if self._rejection:
            return f"{self._host} does not let us in, and mail for other hosts waits: {self._rejection}"
        return ""

    def counts(self) -> dict[str, int | float]:
        """Figures of now: how long the token is good (0 for none), how often in a row the issuer was asked in vain."""
        left = 0.0 if self._kept is None else self._kept.seconds_left(self._clock.seconds())
        return {"token_seconds_left": round(left), "token_failures": self._failures}

    # --- the work, once at a time ---

    def _begin(self) -> None:
        if self._running is not None or self._is_stopped:
            return
        self._running = Deferred()  # what is begun in the next line may call us
        running = Deferred.fromCoroutine(self._work())
        if not running.called:
            self._running = running
        running.addBoth(lambda _: self._ended())

    def _ended(self) -> None:
        self._running = None
        waiting, self._waiting = self._waiting, []
        kept, now = self._kept, self._clock.seconds()
        for one in waiting:
            if kept is not None and kept.is_good(now):
                one.callback(kept.access)
            else:
                one.errback(self._fault or TokenFailed("there is no token"))

    async def _work(self) -> None:
        try:
            await self._renew()
        except TokenFailed as fault:
            self._failed(fault)
        except (OSError, OtherTokens) as error:
            self._failed(TokenFailed(f"the tokens cannot be read: {error}"))
        except CancelledError:
            self._failed(TokenFailed("the server stops"))
        except Exception as error:  # noqa: BLE001  # ours; mail waits for it
            self.log.failure("a token for {host} could not be had", host=self._host)
            self._failed(TokenFailed(f"an error of our own: {type(error).__name__}"))
        else:
            if self._fault is not None:
                self.log.info("there is a token for the log-in at {host} again", host=self._host)
            self._fault, self._failures, self._not_before = None, 0, 0.0

    async def _renew(self) -> None:
        kept = await self._read()
        now = self._clock.seconds()
        if kept is not None and kept.is_fresh(now):
            if not self._is_saved:
                await self._save(kept)
            return
        new = await self._renewed(kept)
        self._rejection = ""
        if await self._save(new):
            self._kept = new

    async def _read(self) -> IssuedTokens | None:
        """What is in the file where it has changed, else what we have."""
        self._changes = self._file.changes()
        sealed = await self._run_in_thread(self._file.sealed)
        if sealed != self._sealed:
            self._kept, self._sealed, self._is_saved = None, None, True
            try:
                self._kept = await self._run_in_thread(self._file.opened, sealed)
            except OtherTokens:
                if self._needs_person:
                    raise
            self._sealed = sealed
        return self._kept

    async def _save(self, tokens: IssuedTokens) -> bool:
        """Write it, before anybody uses it.  False where somebody has logged in meanwhile: what he has written counts.

        A token that cannot be written is used all the same; the next look tries again.
        """
        self._is_saved = False
        try:
            sealed = await self._run_in_thread(self._file.write, tokens, self._sealed)
        except OSError as error:
            self.log.error("the new token for {host} cannot be kept: {error}", host=self._host, error=str(error))
            return True
        self._is_saved = True
        if sealed is None:
            await self._read()
            return False
        self._sealed = sealed
        self._changes = self._file.changes()
        return True

    def _failed(self, fault: TokenFailed) -> None:
        now = self._clock.seconds()
        if self._fault is None:
            self._fault_since = now
        if self._fault is None or str(self._fault) != str(fault):
            self.log.warn("no new token for the log-in at {host}: {why}", host=self._host, why=str(fault))
        self._fault = fault
        self._failures += 1
        pause = AGAIN_SECONDS_MOST if fault.is_refused else AGAIN_SECONDS * 2 ** min(self._failures - 1, 10)
        self._not_before = now + min(pause, AGAIN_SECONDS_MOST)
