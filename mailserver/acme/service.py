"""Certificates by ACME, as long as the server lives: looks at each once a minute, has a thread get what is due.

The reactor never waits for a CA.  At the stop nobody waits for that thread, which begins nothing more; whoever comes next goes on
from what is on the disk.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.defer import TimeoutError as Late
from twisted.logger import Logger

from mailserver.acme.allowance import GivenUp, TimeAllowance
from mailserver.interfaces import Clock
from mailserver.plugins.awaiting import later, within
from mailserver.postmaster.notes import Problem
from mailserver.tls import IdentityError

if TYPE_CHECKING:  # what an AcmeService without visits does not need
    from mailserver.acme.visit import Visit, Visited

__all__ = ["AcmeService", "CannotBeDone"]

FIRST_SECONDS, LOOK_SECONDS = 1.0, 60.0
VISIT_SECONDS = 900.0
GRACE_SECONDS = 30.0  # for a thread that has been told to come to its end
DAY_SECONDS = 86_400.0
TROUBLE_SECONDS = 3600.0  # that looks themselves fail: a folder that cannot be written
WORDS = {"mail": "the mail host", "web": "the web names"}


class CannotBeDone(Exception):
    """What was asked for; the words say why not."""


class MakeVisits(Protocol):
    """The visits that the configuration in force asks for, none where certificates do not come by ACME."""

    def __call__(self, allowance: TimeAllowance) -> Awaitable[Sequence[Visit]]: ...


class AcmeService:
    """`visits(allowance)` are made anew for each look.  `run_in_thread` has threads of its own.

    `taken_up(visited)` is told of each certificate, and whether it has changed: it hands it to those who show it.
    """

    REFUSALS = (CannotBeDone,)
    log = Logger()

    def __init__(
        self,
        *,
        clock: Clock,
        visits: MakeVisits,
        run_in_thread: Callable[..., Any],
        taken_up: Callable[[Visited], Awaitable[None]],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        self._visits = visits
        self._run_in_thread = run_in_thread
        self._taken_up = taken_up
        self._now = now
        self._timer: Any = None
        self._stopped = False
        self._pace: TimeAllowance | None = None
        self._one_at_a_time = DeferredLock()
        self.last: dict[str, Visited] = {}
        """What was there at the last look, by name."""
        self._troubles: dict[str, tuple[float, str]] = {}  # looks that failed themselves: since when, and why
        self._told: set[str] = set()

    # --- life ---

    def start(self) -> None:
        """The first look comes in a moment: the server takes mail meanwhile."""
        self._timer = self._clock.callLater(FIRST_SECONDS, self._look)

    def look_soon(self) -> None:
        """The configuration has changed."""
        if self._timer is not None and self._timer.active() and not self._stopped:
            self._timer.cancel()
            self.start()

    def stop(self) -> None:
        """No more looks; one that is under way begins nothing more."""
        self._stopped = True
        if self._pace is not None:
            self._pace.end()
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    def _look(self) -> None:
        self._timer = None
        looked = Deferred.fromCoroutine(self.look())
        looked.addErrback(lambda failure: self.log.failure("the certificates could not be looked at", failure))
        looked.addCallback(lambda _: self._wait())

    def _wait(self) -> None:
        if not self._stopped:
            self._timer = self._clock.callLater(LOOK_SECONDS, self._look)

    async def look(self, **wanted: Mapping[str, Any]) -> None:
        """Look at all; `wanted` has for some what `Visit.look` shall do."""
        await self._each(lambda visit: visit.look(**wanted.get(visit.name, {})))

    async def _each(self, act: Callable[[Visit], Visited], only: str = "") -> None:
        """Raises what `act` has met with where `only` one is asked for; else that keeps none of the others from its turn."""
        await self._one_at_a_time.acquire()
        try:
            if self._stopped:
                raise CannotBeDone("the server stops")
            self._pace = allowance = TimeAllowance(VISIT_SECONDS)
            visits = await self._visits(allowance)
            if not only:
                wanted = {visit.name for visit in visits}
                self.last = {name: one for name, one in self.last.items() if name in wanted}
                self._troubles = {name: one for name, one in self._troubles.items() if name in wanted}
            for visit in visits:
                if only and visit.name != only:
                    continue
                try:
                    await self._visited(visit, act, allowance)
                except Exception as error:
                    if only:
                        raise
                    if not self._stopped:
                        self._tell(visit, error)
        finally:
            self._pace = None
            self._one_at_a_time.release()

    async def _visited(self, visit: Visit, act: Callable[[Visit], Visited], allowance: TimeAllowance) -> None:
        try:
            found = await within(VISIT_SECONDS + GRACE_SECONDS, later(self._run_in_thread(act, visit)), self._clock)
        except Late:
            allowance.end()
            raise CannotBeDone("the CA keeps us waiting beyond all bounds") from None
        self.last[visit.name] = found
        self._troubles.pop(visit.name, None)
        if found.has_changed and found.identity is not None:
            self.log.info(
                "a certificate for {names}, until {when}, from {directory}", names=", ".join(found.identity.names),
                when=found.identity.expires.isoformat(), directory=found.progress.directory,
            )  # fmt: skip
        if not self._stopped:
            await self._taken_up(found)

    def _tell(self, visit: Visit, error: Exception) -> None:
        since, words = self._troubles.get(visit.name, (self._clock.seconds(), ""))
        self._troubles[visit.name] = since, str(error) or type(error).__name__
        if words == str(error):
            return  # once is enough
        if isinstance(error, OSError | CannotBeDone | GivenUp | IdentityError):
            self.log.error("the certificate of {what} cannot be looked after: {error}", what=WORDS[visit.name], error=error)
        else:
            self.log.failure("the certificate of {what} could not be looked after", what=WORDS[visit.name])

    # --- by hand ---

    async def renew(self, name: str) -> Visited:
        """Get another certificate now.  Raises `CannotBeDone` where there is none such, or it has failed."""
        return await self._asked(name, lambda visit: visit.look(is_urgent=True))

    async def roll_over(self, name: str) -> Visited:
        """Use the next key as soon as the DNS has shown it long enough."""
        return await self._asked(name, lambda visit: visit.look(roll="wanted"), may_wait=True)

    async def revoke(self, name: str, reason: int) -> Visited:
        """Have the present one revoked, and get another."""
        return await self._asked(name, lambda visit: visit.revoke(reason))

    async def _asked(self, name: str, act: Callable[[Visit], Visited], *, may_wait: bool = False) -> Visited:
        before = self.last.get(name)
        try:
            await self._each(act, only=name)
        except (CannotBeDone, OSError, GivenUp, IdentityError) as error:
            raise CannotBeDone(str(error)) from error
        except Exception as error:
            if type(error).__name__ != "IssueFailed":  # its module is loaded by who orders alone
                raise
            raise CannotBeDone(str(error)) from error
        found = self.last.get(name)
        if found is None or found is before:
            raise CannotBeDone(f"there is no certificate {name!r} that comes from a CA")
        if not found.has_changed and not (may_wait and found.progress.roll):
            raise CannotBeDone(found.progress.error or found.progress.waits_for or "there is no other certificate yet")
        return found

    # --- what is told ---

    def problems(self) -> list[Problem]:
        """What postmaster should know: not each try that fails, but that the time for it is over."""
        found = []
        for name, (since, why) in self._troubles.items():
            if self._clock.seconds() - since >= TROUBLE_SECONDS:
                title = f"the certificate of {WORDS[name]} cannot be looked after"
                found.append(Problem("acme", f"{name} trouble", title, (why, "", "So it will not be renewed.")))
        for name, one in self.last.items():
            if one.is_late:
                words = [f"There should be a new certificate for {WORDS[name]} by now, and there is none:", ""]
                words += [one.progress.error, ""]
                if one.identity is not None:
                    words.append(f"The present one ends on {one.identity.expires:%Y-%m-%d %H:%M} UTC.")
                else:
                    words.append("There is none of a CA yet; the server shows one of its own making, which nobody vouches for.")
                words.append(f"{one.progress.failures} tries have failed. `mailserver certificate list` tells more.")
                title = f"no new certificate for {WORDS[name]}"
                found.append(Problem("acme", name, title, tuple(words)))
            for remark in {*one.progress.remarks} - self._told:
                lines = (f"The certificate of {WORDS[name]}: {remark}", "", "`mailserver certificate list` tells more.")
                told = partial(self._told.add, remark)
                found.append(Problem("acme", f"{name} {remark[:60]}", f"the certificate of {WORDS[name]}", lines, told))
        return found

    def figures(self) -> dict[str, Any]:
        """For `mailserver status`; empty where there is none."""
        now = self._now()
        return {
            name: {
                "days_left": 0.0 if one.identity is None else round((one.identity.expires.timestamp() - now) / DAY_SECONDS, 1),
                "failures": one.progress.failures,
                "late": int(one.is_late),
            }
            for name, one in self.last.items()
        }
