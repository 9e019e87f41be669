"""Notes to postmaster about what else only the log would say: a report that reached nobody, a certificate that expires.

A note is an ordinary message of the queue with the null reverse-path.  So no report is made of its failure, and no note either
(`is_own`).  One note of a kind and subject is sent within a day, over restarts too.  Nothing waits for a note: where it cannot be
written, because the disk is full, it is remembered and written when there is room.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from mailserver.interfaces import Clock, IStateStore
from mailserver.mail.address import Address
from mailserver.mail.answers import Local, Refused, Remote, Route
from mailserver.mail.content import Content
from mailserver.mail.envelope import Envelope, Peer, Recipient
from mailserver.mail.faults import StorageFault
from mailserver.mail.parcel import Destination
from mailserver.mail.trace import date_time
from mailserver.mail.until import still_holds
from mailserver.plugins.awaiting import later, within

__all__ = ["Notes", "Problem", "note_octets"]

LOOK_SECONDS = 60.0
ROUTE_SECONDS = 30.0
DAY_SECONDS = 86_400.0
OWN = "own "
OWN_SECONDS = 30 * DAY_SECONDS  # longer than a message stays in the queue
WAITING_MOST = 50  # problems that are remembered for a later note
LINES_MOST = 60
LINE_CHARACTERS = 900  # RFC 5322 section 2.1.1 allows 998 octets
POSTMASTER = Address("postmaster", "")


def nothing() -> None:
    """Do nothing."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that a postmaster should know.

    `kind` and `subject` are its name.  No two notes of one name are sent within a day.  `title` is the note's Subject field,
    `lines` its text.  `told` is called when the note is in the queue.  `to` is who is told, the host's postmaster where that is
    nobody.
    """

    kind: str
    subject: str
    title: str
    lines: tuple[str, ...]
    told: Callable[[], None] = nothing
    to: Address = POSTMASTER

    @property
    def name(self) -> str:
        """What it is remembered by."""
        return f"told {self.kind} {self.subject}"


class Notes:
    """Asks `problems()` once a minute, and writes a note on each that has not been told within a day.

    `commit` and `has_room(octets)` are the queue's.  `route(address)` says where postmaster's mail goes.  `next_id()` makes
    message ids.  `note` records steps.  `sign(envelope, content)` returns the message with the signers' fields, None where one
    cannot sign now.  What was told is remembered by `steady_seconds()`, a clock that nobody sets.
    """

    log = Logger()

    def __init__(
        self,
        *,
        hostname: str,
        clock: Clock,
        state: IStateStore,
        problems: Callable[[], Awaitable[Sequence[Problem]]],
        route: Callable[[Address], Awaitable[Sequence[Route]]],
        commit: Callable[[Envelope, Content, tuple[Destination, ...]], Awaitable[None]],
        has_room: Callable[[int], bool],
        next_id: Callable[[], str],
        note: Callable[..., None],
        steady_seconds: Callable[[], float] | None = None,
        sign: Callable[[Envelope, Content], Awaitable[Content | None]] | None = None,
    ) -> None:
        self._hostname = hostname
        self._clock = clock
        self._state = state
        self._problems = problems
        self._route = route
        self._commit = commit
        self._has_room = has_room
        self._next_id = next_id
        self._note = note
        self._steady_seconds = steady_seconds or clock.seconds
        self._sign = sign
        self._waiting: dict[str, Problem] = {}
        self._remembered: dict[str, float] = {}  # until when; for a state store that does not answer
        self._timer: Any = None
        self._stopped = False
        self._complained = ""

    def start(self) -> None:
        """Begin to look for problems."""
        self._timer = self._clock.callLater(LOOK_SECONDS, self._look)

    def stop(self) -> None:
        """Write no more notes."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def is_own(self, id: str) -> bool:
        """Whether the message with this id is a note."""
        return await self._knows(f"{OWN}{id}")

    def _look(self) -> None:
        self._timer = None
        looked = Deferred.fromCoroutine(self.look())
        looked.addErrback(lambda failure: self.log.failure("a note to postmaster could not be written", failure))
        looked.addCallback(self._wait)

    def _wait(self, _: object) -> None:
        if not self._stopped:
            self.start()

    async def look(self) -> None:
        """Write the notes that are due."""
        for problem in await self._problems():
            if problem.name in self._waiting or len(self._waiting) < WAITING_MOST:
                self._waiting[problem.name] = problem
        for name, problem in list(self._waiting.items()):
            if self._stopped:
                return
            if await self._knows(name):
                del self._waiting[name]
            elif await self._is_written(problem):
                await self._remember(name, DAY_SECONDS)
                del self._waiting[name]
                problem.told()

    async def _is_written(self, problem: Problem) -> bool:
        id, now = self._next_id(), self._clock.seconds()
        octets = note_octets(problem, id=id, hostname=self._hostname, made_at=now)
        if not self._has_room(len(octets)):
            return False
        try:
            to, good = await self._readers(problem.to)
        except Exception as error:  # noqa: BLE001  a directory is anybody's plugin: whatever it raises means "cannot tell"
            self._complain(f"{type(error).__name__}: {error}")
            return False
        if not good:
            self._complain("nobody gets mail for postmaster")
            return False
        envelope = Envelope(id, Peer("127.0.0.1", 0, "report", self._hostname), None, (to,), now)
        content = await self._signed(envelope, Content.of(octets))
        await self._remember(f"{OWN}{id}", OWN_SECONDS)  # before it can fail
        try:
            await self._commit(envelope, content, tuple([Destination(i, to, route) for i, route in enumerate(good)]))
        except StorageFault as fault:  # the queue itself has reported it
            self._complain(str(fault))
            return False
        self._complained = ""
        self._note(id, "accepted", sender="", recipients=[str(to.address)], size=content.size)
        return True

    async def _readers(self, address: Address) -> tuple[Recipient, Sequence[Local | Remote]]:
        """Whom the note goes to, and by which routes, none where that is nobody."""
        good: Sequence[Local | Remote] = ()
        for one in dict.fromkeys((address, POSTMASTER)):
            address = one
            routes = await within(ROUTE_SECONDS, later(self._route(one)), self._clock)
            good = [route for route in routes if not isinstance(route, Refused)]
            if good:
                break
        return Recipient(address), good

    async def _signed(self, envelope: Envelope, content: Content) -> Content:
        """With signatures where they can be made: postmaster's mail may go to another host, and waits for nobody."""
        if self._sign is None:
            return content
        try:
            return await within(ROUTE_SECONDS, later(self._sign(envelope, content)), self._clock) or content
        except Exception:  # noqa: BLE001  a signer is anybody's plugin
            self.log.failure("a note to postmaster goes unsigned")
            return content

    def _complain(self, why: str) -> None:
        """Log a complaint once, not with each look."""
        if why != self._complained:
            self._complained = why
            self.log.warn("a note to postmaster has to wait: {why}", why=why)

    # --- what is remembered ---

    async def _knows(self, name: str) -> bool:
        now, seconds = self._steady_seconds(), OWN_SECONDS if name.startswith(OWN) else DAY_SECONDS
        if still_holds(self._remembered.get(name, 0.0), now, seconds):
            return True
        try:
            value = await self._state.get(name)
        except StorageFault:  # at worst a second note is sent
            return False
        return value is not None and still_holds(until_of(value, now + seconds), now, seconds)

    async def _remember(self, name: str, seconds: float) -> None:
        now = self._steady_seconds()
        self._remembered = {one: until for one, until in self._remembered.items() if until > now}
        self._remembered[name] = until = now + seconds
        await self._state.put(name, repr(until).encode("ascii"), seconds)


def until_of(value: bytes, otherwise: float) -> float:
    """The time in a remembered value, in seconds since the epoch; `otherwise` for older values without one."""
    try:
        return float(value)
    except ValueError:
        return otherwise


def note_octets(problem: Problem, *, id: str, hostname: str, made_at: float) -> bytes:
    """The note as a message, all of it ASCII.  `made_at` is in seconds since the epoch."""
    lines = list(problem.lines[:LINES_MOST])
    header = (
        f'From: "Mail server" <MAILER-DAEMON@{hostname}>',
        f"To: <{problem.to if problem.to.domain else Address(problem.to.local, hostname)}>",
        f"Subject: {hostname}: {problem.title}",
        f"Date: {date_time(int(made_at))}",
        f"Message-ID: <{id}@{hostname}>",
        "Auto-Submitted: auto-generated",  # RFC 3834 section 5
        "MIME-Version: 1.0",
        "Content-Type: text/plain; charset=us-ascii",
    )
    closing = ("", "Of one matter there is at most one note in 24 hours. [log] notes = false ends them.")
    text = (f"This is the mail server {hostname}.", "", *lines, *closing)
    return "".join([_ascii(line) + "\r\n" for line in (*header, "", *text)]).encode("ascii")


def _ascii(line: str) -> str:
    """The text in ASCII, without line ends and short enough for one line."""
    return "".join([character if " " <= character <= "~" else "?" for character in line[:LINE_CHARACTERS]])
