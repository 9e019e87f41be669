"""Whose AD bit and whose SERVFAIL are believed: name servers that may be, and that have been found to validate.

Who may be believed is a matter of the way to the server: one on this host, and one that the configuration vouches for
(RFC 4035 section 4.9.3).  Whether it validates is found out (`validation`): when the server is first used, once an hour, and when
it answers again after it was silent.  While it is not known yet, questions wait for it a little while: an answer that was not
believed would send mail without what its DNS demands.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, ensureDeferred, gatherResults
from twisted.logger import Logger

from mailserver.dns.servers import NameServer
from mailserver.dns.validation import ProbeAnswer, ProbeNames, ProbeQuestion, ServerFinding, Validation, examination

__all__ = ["Beliefs", "Trust"]

WAIT_SECONDS = 5.0  # how long questions wait for what is found
AGAIN_SECONDS = {
    Validation.VALIDATES: 3600.0,
    Validation.DOES_NOT: 600.0,
    Validation.LIES: 600.0,
    Validation.UNKNOWN: 60.0,
}
ASKED_AGAIN_SECONDS = 10.0  # at the earliest, where a question wants to know

Ask = Callable[[NameServer, ProbeQuestion], Awaitable[ProbeAnswer]]


class Trust(enum.Enum):
    """What the configuration says of the AD bit."""

    AUTO = "auto"  # where the server may be believed, and validates
    ALWAYS = "always"  # of every server, unexamined
    NEVER = "never"


@dataclass(slots=True)
class _Known:
    """What is known of one server."""

    finding: ServerFinding = field(default_factory=ServerFinding)
    examined_at: float = float("-inf")
    running: Deferred[Any] | None = None
    timer: Any = None


class Beliefs:
    """Examines the servers that may be believed.

    `clock` calls later, `seconds` is monotonic.  `ask(server, question)` asks that server alone.  `changed()` is told when other
    servers are believed than before: answers that are remembered are worth something else then.  `settled()` is told when no
    question has to wait any more (`is_finding_out`).
    """

    log = Logger()

    def __init__(
        self,
        *,
        clock: Any,
        seconds: Callable[[], float],
        ask: Ask,
        names: ProbeNames,
        trust: Trust = Trust.AUTO,
        changed: Callable[[], None],
        settled: Callable[[], None],
    ) -> None:
        self._clock = clock
        self._seconds = seconds
        self._ask = ask
        self._names = names
        self._trust = trust
        self._changed = changed
        self._settled = settled
        self._known: dict[NameServer, _Known] = {}
        self._others: list[NameServer] = []
        self._waiting: Any = None  # the timer that ends the waiting
        self._running = False

    # --- life ---

    def start(self, servers: Iterable[NameServer]) -> None:
        """Begin, with these servers."""
        self._running = True
        self.use(servers)

    def stop(self) -> list[Deferred[Any]]:
        """Ask nobody any more, and forget all that is known.  What is returned fires when what was asked has ended."""
        self._running = False
        ending = [known.running for known in self._known.values() if known.running is not None]
        for server in list(self._known):
            self._forget(server)
        self._others = []
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
        return ending

    def use(self, servers: Iterable[NameServer]) -> None:
        """These are the servers from now on."""
        if not self._running:
            return
        found = list(servers)
        for server in [one for one in self._known if one not in found]:
            self._forget(server)
        for server in found:
            if self._trust is Trust.AUTO and server.trusted and server not in self._known:
                self._known[server] = _Known()
                self._examine(server, waits=True)
            elif self._trust is Trust.AUTO and not server.trusted and server not in self._others:
                self.log.info("name server {server} is not on this host: its AD bit is not believed", server=str(server))
        self._others = [one for one in found if one not in self._known]

    # --- what is believed ---

    def believes(self, server: NameServer) -> bool:
        """Whether the AD bit of this server counts, and its SERVFAIL is final."""
        if self._trust is not Trust.AUTO:
            return self._trust is Trust.ALWAYS
        known = self._known.get(server)
        return known is not None and known.finding.validation is Validation.VALIDATES

    @property
    def is_finding_out(self) -> bool:
        """Whether a question should wait for what is found: at most five seconds."""
        return self._waiting is not None

    def look(self) -> None:
        """Somebody has a question: what is not known of a server is found out first, unless it was asked a moment ago."""
        now = self._seconds()
        for server, known in self._known.items():
            is_known = known.running is not None or known.finding.validation is not Validation.UNKNOWN
            if not is_known and now >= known.examined_at + ASKED_AGAIN_SECONDS:
                self._examine(server, waits=True)

    def known(self) -> Deferred[Any]:
        """Fires when what is under way has ended; it never fails."""
        return gatherResults([_end_of(known.running) for known in self._known.values() if known.running is not None])

    def heard_again(self, server: NameServer) -> None:
        """The server was silent, and answers again: it may have been set up anew."""
        if server in self._known:
            self._examine(server, waits=False)

    def described(self) -> dict[str, str]:
        """For people: each server, and what is believed of it."""
        servers = {**dict.fromkeys(self._known), **dict.fromkeys(self._others)}
        return {str(server): self._described(server) for server in servers}

    def _described(self, server: NameServer) -> str:
        if self._trust is not Trust.AUTO:
            return "believed, as configured" if self._trust is Trust.ALWAYS else "not believed, as configured"
        known = self._known.get(server)
        if known is None:
            return "not believed: it is not on this host"
        return f"{'believed' if self.believes(server) else 'not believed'}: {known.finding}"

    # --- finding out ---

    def _examine(self, server: NameServer, *, waits: bool) -> None:
        known = self._known[server]
        if known.running is None:
            if known.timer is not None:
                known.timer.cancel()
                known.timer = None
            known.examined_at = self._seconds()
            running = ensureDeferred(self._examined(server))
            known.running = running
            running.addCallbacks(
                lambda finding: self._found(server, known, finding),
                lambda failure: None
                if failure.check(CancelledError)
                else self._found(server, known, ServerFinding(Validation.UNKNOWN, str(failure.value))),
            )
        if waits and self._waiting is None and known.running is not None:
            self._waiting = self._clock.callLater(WAIT_SECONDS, self._waited)

    async def _examined(self, server: NameServer) -> ServerFinding:
        steps = examination(self._names)
        try:
            question = next(steps)
            while True:
                question = steps.send(await self._ask(server, question))
        except StopIteration as end:
            found: ServerFinding = end.value
            return found

    def _found(self, server: NameServer, known: _Known, finding: ServerFinding) -> None:
        known.running = None
        known.examined_at = self._seconds()
        if self._known.get(server) is not known:
            return
        before, believed = known.finding, self.believes(server)
        # What was found stays true while the server, or its way to the world, is down.
        is_kept = finding.validation is Validation.UNKNOWN and before.validation is not Validation.UNKNOWN
        if not is_kept:
            known.finding = finding
            if finding.validation is not before.validation or not before.why:
                self._tell(server, finding)
        known.timer = self._clock.callLater(AGAIN_SECONDS[finding.validation], self._examine_again, server)
        if self.believes(server) is not believed:
            self._changed()
        if self._waiting is not None and all(one.running is None for one in self._known.values()):
            self._waiting.cancel()
            self._waited()

    def _examine_again(self, server: NameServer) -> None:
        self._known[server].timer = None
        self._examine(server, waits=False)

    def _waited(self) -> None:
        self._waiting = None
        self._settled()

    def _tell(self, server: NameServer, finding: ServerFinding) -> None:
        level = self.log.warn if finding.validation is Validation.LIES else self.log.info
        is_believed = finding.validation is Validation.VALIDATES
        said = "is believed" if is_believed else "is not believed, and DANE is not used with it"
        level("name server {server} {finding}: its AD bit {said}", server=str(server), finding=str(finding), said=said)

    def _forget(self, server: NameServer) -> None:
        known = self._known.pop(server)
        if known.timer is not None:
            known.timer.cancel()
        if known.running is not None:
            known.running.cancel()


def _end_of(running: Deferred[Any]) -> Deferred[None]:
    ended: Deferred[None] = Deferred()
    running.addBoth(lambda _: None if ended.called else ended.callback(None))
    return ended
