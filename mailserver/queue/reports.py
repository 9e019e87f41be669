"""Reports to senders, on their way into the queue.

What is owed stands in the store beside each destination (`Attempt.report`), so that no crash forgets it.  A report is a message
like any other: it is written (`mailserver.mail.report`), routed, and committed in the same transaction that notes that the
sender has been told.  So each is made once, whatever happens; and where the store or the router fails, it is made later.

`_waiting` and `_working`.  The retry timer may find an entry again while its report is being routed: the store shows it as owed
until the report is committed.  Two workers side by side would both write it.  So there is one, `_working`, and what is found
meanwhile joins `_waiting`, in which each number stands once.  A number leaves it when its message has been read.  Where it is
found after that, it is read again behind the commit, and owes nothing then.

`entering` comes before the commit and `entered` after it.  Before, since the recovery must know a new number before the store has
it (`Recovery`).  After, since nothing that goes wrong there may make the report a second time: it is logged, and the report is
found in the store.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from mailserver.interfaces import Clock, ReportDraft
from mailserver.mail.address import Address, AddressError
from mailserver.mail.answers import Refused, Remote, Route
from mailserver.mail.content import Content
from mailserver.mail.edits import apply_edits
from mailserver.mail.envelope import Envelope, Peer, Recipient
from mailserver.mail.faults import StorageDamaged, StorageFault
from mailserver.mail.outbound_answers import ReportVerdict, SendReport, SuppressReport
from mailserver.mail.outcomes import clean_text
from mailserver.mail.parcel import Destination
from mailserver.mail.report import (
    Original,
    RecipientReport,
    delay_report,
    failure_report,
    hold_report,
    original_of,
    parameters_for,
    success_report,
)
from mailserver.plugins.awaiting import all_of, now_or_later, within
from mailserver.queue.entry import REPORT_HELD, Attempt, EntryState, Mark, Settled, number_of, pack
from mailserver.queue.reader import ReadMessage, SqliteReader, Unreadable
from mailserver.queue.retry_timer import RetryTimer
from mailserver.queue.schedule import Schedules
from mailserver.queue.store import MessageRefused, SqliteStore

__all__ = ["Report", "Reporter", "recipient_reports"]

PAGE = 20  # messages that are reported on in one transaction
PAGE_OCTETS = 4 << 20
ROUTE_SECONDS = 30.0  # a router that takes longer is asked again later
ROUTE_AGAIN_SECONDS = 60.0
STORE_AGAIN_SECONDS = 5.0
WRITE_AGAIN_SECONDS = 3600.0
PATIENCE_SECONDS = 5 * 86_400.0  # with who judges or signs reports: a sender has to hear what became of his mail
AS_IT_IS = SendReport()
CONDITIONS = {
    EntryState.FAILED: "failure",
    EntryState.DEFERRED: "delay",
    EntryState.HELD: "hold",
    EntryState.DELIVERED: "success",
}


@dataclass(frozen=True, slots=True)
class Report:
    """A report that is a message of the queue.  `about` is the id of the message that it speaks of."""

    number: int
    packed: bytes
    about: str
    condition: str
    envelope: Envelope
    content: Content
    destinations: tuple[Destination, ...]


@dataclass(slots=True)
class ReportsOwed:
    """What is to be written about one message: reports, and what they change."""

    reports: list[Report] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)


Page = list[tuple[ReadMessage | Unreadable, Original | Exception]]


class Reporter:
    """Makes the reports that the store says are owed, a page at a time.

    `route(address)` says where a report goes; `next_id()` gives message ids; `read(function, *args)` runs in a thread,
    `do(work)` in the store's.  `entering(number)` is called before a report is committed, `entered(reports)` after, `finished`
    with the entries that waited for nothing else, `cannot_be_told(numbers)` where senders cannot be told, `damaged` with what
    cannot be read.  No delay is told before an attempt has been made after `since()`.  `judge_report(draft)` says whether
    a report is made, and with what besides; None: it cannot be said now.  `sign` puts signatures in front of a report; None: they
    cannot be made now.
    """

    log = Logger()

    def __init__(
        self,
        *,
        clock: Clock,
        hostname: str,
        schedules: Schedules,
        route: Callable[[Address], Awaitable[Sequence[Route]]],
        next_id: Callable[[], str],
        reader: SqliteReader,
        read: Callable[..., Deferred[Any]],
        do: Callable[[Callable[[SqliteStore], list[Settled]]], Deferred[list[Settled]]],
        entering: Callable[[int], None],
        entered: Callable[[list[Report]], None],
        finished: Callable[[list[Settled]], None],
        cannot_be_told: Callable[[list[int]], object],
        damaged: Callable[[Unreadable], None],
        note: Callable[..., None],
        since: Callable[[], float] = lambda: 0.0,
        judge_report: Callable[[ReportDraft], Awaitable[ReportVerdict | None]] | None = None,
        sign: Callable[[Envelope, Content], Awaitable[Content | None]] | None = None,
    ) -> None:
        self._clock = clock
        self._hostname = hostname
        self._schedules = schedules
        self._route = route
        self._next_id = next_id
        self._reader = reader
        self._read = read
        self._do = do
        self._entering = entering
        self._entered = entered
        self._finished = finished
        self._cannot_be_told = cannot_be_told
        self._damaged = damaged
        self._since = since
        self._note = note
        self._judge_report = judge_report
        self._sign = sign
        self._due = RetryTimer(clock=clock, ask=lambda *question: read(reader.reports_due, *question), found=self._found)
        self._waiting: dict[int, None] = {}  # numbers, in order
        self._working: Deferred[None] | None = None
        self._asking: Sequence[Deferred[ReportsOwed]] = ()
        self._stopped = False

    # --- life ---

    def look(self) -> None:
        """Find out what is owed."""
        self._due.look()

    def look_again(self) -> None:
        """The clock has been set."""
        self._due.look_from_the_start(0.0)

    def recorded(self, attempts: Iterable[Attempt]) -> None:
        """The store has kept these."""
        owed = [attempt.report for attempt in attempts if attempt.report is not None]
        if owed:
            self._due.expect(min(owed))

    def finish(self) -> Deferred[None]:
        """Begin nothing any more; fires when what is under way has ended.

        Plugins that are being asked are not waited for: what they were asked about stands in the store as owed.
        """
        self._stopped = True
        self._due.stop()
        for one in self._asking:
            one.cancel()
        done: Deferred[None] = Deferred()
        if self._working is None:
            done.callback(None)
        else:
            self._working.addCallback(done.callback)
        return done

    # --- work ---

    def _found(self, places: list[tuple[int, bool]]) -> None:
        self._waiting.update(dict.fromkeys([number for number, _ in places]))
        if self._working is None:
            self._working = working = Deferred.fromCoroutine(self._work())
            working.addErrback(self._stumbled)
            working.addCallback(self._rest)

    def _rest(self, _: None) -> None:
        self._working = None

    def _stumbled(self, failure: Any) -> None:
        """Nothing is lost: it stands in the store, and is looked for again."""
        self._waiting.clear()
        if failure.check(StorageDamaged):
            return
        if failure.check(StorageFault, OSError):
            self.log.error("reports could not be made; they are made later: {why}", why=failure.getErrorMessage())
        else:
            self.log.failure("reports could not be made; they are made later", failure)
        self._due.look_from_the_start(STORE_AGAIN_SECONDS)

    async def _work(self) -> None:
        while self._waiting and not self._stopped:
            numbers = list(self._waiting)[:PAGE]
            page, taken = await self._read(self._read_page, numbers)
            for number in numbers[:taken]:
                del self._waiting[number]
            troubles: list[str] = []
            asking: list[Deferred[ReportsOwed]] = []
            for message, original in page:
                if isinstance(message, Unreadable):
                    self._damaged(message)
                else:
                    asking.append(Deferred.fromCoroutine(self._answer_or_later(message, original, troubles)))
            # Side by side: routers, report policies and signers are plugins, and one that hangs does so for its message alone.
            self._asking = asking
            answers = await all_of(asking)
            if troubles and not self._stopped:
                self.log.error("{n} reports cannot be routed yet: {first}", n=len(troubles), first=troubles[0])
            if any(answer.marks for answer in answers) and not self._stopped:
                await self._commit_all(answers)

    def _read_page(self, numbers: Sequence[int]) -> tuple[Page, int]:
        """In a thread."""
        messages, taken = self._reader.read(numbers, PAGE_OCTETS)
        page: Page = []
        for one in messages:
            if isinstance(one, Unreadable):
                page.append((one, ValueError(one.why)))
                continue
            try:
                page.append((one, original_of(one.envelope, one.content)))
            except OSError as error:
                why = f"its file cannot be read: {error}"
                page.append((Unreadable(one.number, one.envelope.id, why), error))
            except Exception as error:  # noqa: BLE001  a fault of ours, told where the others have had their reports
                page.append((one, error))
        return page, taken

    async def _commit_all(self, answers: list[ReportsOwed]) -> None:
        """All in one transaction; where the store refuses that for itself, each message in one of its own."""
        try:
            await self._commit([r for one in answers for r in one.reports], [m for one in answers for m in one.marks])
            return
        except MessageRefused:
            pass
        except StorageFault:
            raise
        except Exception:
            if len(answers) == 1 and not answers[0].reports:
                raise
        for answer in answers:
            try:
                await self._commit(answer.reports, answer.marks)
            except Exception as error:
                if isinstance(error, StorageFault) and not isinstance(error, MessageRefused):
                    raise
                self.log.failure("reports on entry {number} are refused; later again", number=answer.marks[0].number)
                later = self._clock.seconds() + WRITE_AGAIN_SECONDS
                await self._commit([], [replace(mark, state=mark.was, report=later, note=None) for mark in answer.marks])

    async def _commit(self, reports: list[Report], marks: list[Mark]) -> None:
        for report in reports:
            self._entering(report.number)
        packed = [report.packed for report in reports]
        finished = await self._do(lambda store: store.report(packed, marks))
        try:
            self._entered(reports)
            if finished:
                self._finished(finished)
        except Exception:  # noqa: BLE001  they are in the queue: nothing that comes after may make them anew
            self.log.failure("the queue stumbled over reports that it has")
        later = [mark.report for mark in marks if mark.report is not None]
        if later:
            self._due.expect(min(later))
        untold = [mark.number for mark in marks if mark.state is EntryState.FAILED and mark.report is None]
        if untold:
            self._cannot_be_told(untold)

    def _owed(self, message: ReadMessage) -> list[Attempt]:
        since, now = self._since(), self._clock.seconds()
        return [
            one
            for one in message.attempts
            if one.report is not None and REPORT_HELD != one.report <= now and one.destination >= 0
            # Where that is not so yet the next attempt brings it back: see `recorded`.
            if one.state is not EntryState.DEFERRED or one.was_made(since, now)
        ]

    async def _answer_or_later(
        self, message: ReadMessage, original: Original | Exception, troubles: list[str]
    ) -> ReportsOwed:
        """One message's trouble, whatever it is, delays its own reports alone."""
        try:
            if isinstance(original, Exception):
                raise original
            return await self._answer(message, original, troubles)
        except Exception:  # noqa: BLE001  a route may be anything, and an original too
            if self._stopped:
                return ReportsOwed()
            self.log.failure("the reports on {id} cannot be made yet", id=message.envelope.id)
            later = self._clock.seconds() + WRITE_AGAIN_SECONDS
            return ReportsOwed([], [Mark(a.number, a.destination, a.state, a.state, later) for a in self._owed(message)])

    async def _answer(self, message: ReadMessage, original: Original, troubles: list[str]) -> ReportsOwed:
        """The reports on one message, and what they change."""
        answer = ReportsOwed()
        reports, marks = answer.reports, answer.marks
        now = self._clock.seconds()
        sender = message.envelope.sender
        owed = self._owed(message)
        if not owed:
            return answer
        if sender is None:
            marks += [unmarked(attempt, "the null sender gets no reports") for attempt in owed]
            return answer
        try:
            routes = await self._routes(sender)
        except Exception as error:  # noqa: BLE001  a directory is anybody's plugin: whatever it raises means "cannot tell"
            troubles.append(f"{sender}: {error}")
            marks += [Mark(a.number, a.destination, a.state, a.state, now + ROUTE_AGAIN_SECONDS) for a in owed]
            return answer
        good = [route for route in routes if not isinstance(route, Refused)]
        if not good:
            why = routes[0].why if routes and isinstance(routes[0], Refused) else "there is no route"
            marks += [unmarked(attempt, f"its sender cannot be told: {why}") for attempt in owed]
            return answer
        for state in CONDITIONS:
            attempts = [attempt for attempt in owed if attempt.state is state]
            if not attempts:
                continue
            verdict = await self._judged(message, attempts)
            if not isinstance(verdict, SendReport):
                marks += self._unmade(message, attempts, verdict)
                continue
            try:
                report = await self._report(message, original, attempts, good, verdict)
            except Exception:  # noqa: BLE001  a fault of ours shall not stand in the way of other reports
                if self._stopped:
                    return answer
                self.log.failure("the report on {id} cannot be written yet", id=message.envelope.id)
                marks += [Mark(a.number, a.destination, state, state, now + WRITE_AGAIN_SECONDS) for a in attempts]
            else:
                if report is None:
                    marks += [Mark(a.number, a.destination, state, state, now + ROUTE_AGAIN_SECONDS) for a in attempts]
                    continue
                reports.append(report)
                told = EntryState.RETURNED if state is EntryState.FAILED else state
                marks += [Mark(a.number, a.destination, state, told) for a in attempts]
        return answer

    async def _judged(self, message: ReadMessage, attempts: Sequence[Attempt]) -> ReportVerdict | None:
        if self._judge_report is None:
            return AS_IT_IS
        recipients = tuple(recipient_reports(message.destinations, attempts))
        verdict = await self._judge_report(ReportDraft(CONDITIONS[attempts[0].state], message.envelope, recipients))
        return AS_IT_IS if verdict is None and self._is_overdue(message, attempts, "judged") else verdict

    def _is_overdue(self, message: ReadMessage, attempts: Sequence[Attempt], what: str) -> bool:
        """Nobody has been able to do this to the report for so long that it is made without; the log is told."""
        since = max([one.history[-1].made_at if one.history else message.envelope.received_at for one in attempts])
        if self._clock.seconds() - since <= PATIENCE_SECONDS:
            return False
        self.log.error(
            "a report on {id} could not be {what} for {days:g} days: it is made as it is",
            id=message.envelope.id,
            what=what,
            days=PATIENCE_SECONDS / 86_400.0,
        )
        return True

    def _unmade(
        self, message: ReadMessage, attempts: Sequence[Attempt], verdict: SuppressReport | None
    ) -> list[Mark]:
        """No report is made: it is told to nobody, or later."""
        state = attempts[0].state
        if verdict is None:
            later = self._clock.seconds() + ROUTE_AGAIN_SECONDS
            return [Mark(a.number, a.destination, state, state, later) for a in attempts]
        recipients = [str(one.recipient.address) for one in recipient_reports(message.destinations, attempts)]
        self._note(
            message.envelope.id, "report_suppressed", condition=CONDITIONS[state], recipients=recipients, why=verdict.why
        )
        told = EntryState.RETURNED if state is EntryState.FAILED else state
        return [Mark(a.number, a.destination, state, told) for a in attempts]

    async def _routes(self, sender: Address) -> Sequence[Route]:
        try:
            answer: Any = now_or_later(self._route(sender))
            if isinstance(answer, Deferred):
                answer = await within(ROUTE_SECONDS, answer, self._clock)
        except AddressError:
            return ()  # a domain that cannot be
        routes: Sequence[Route] = answer
        return routes

    async def _report(
        self,
        message: ReadMessage,
        original: Original,
        attempts: Sequence[Attempt],
        routes: Sequence[Any],
        verdict: SendReport,
    ) -> Report | None:
        """None where nobody can sign it now."""
        now = self._clock.seconds()
        id, sender = self._next_id(), message.envelope.sender
        recipients = recipient_reports(message.destinations, attempts)
        made: dict[str, Any] = {"id": id, "hostname": self._hostname, "made_at": now, "explanation": verdict.explanation}
        condition = CONDITIONS[attempts[0].state]
        if condition == "failure":
            octets = failure_report(original, recipients, **made)
        elif condition == "delay":
            told = {attempt.destination for attempt in attempts}
            schedules = [self._schedules.of(sender, one) for one in message.destinations if one.index in told]
            until = min([one.end(message.envelope.received_at) for one in schedules or [self._schedules.usual]])
            octets = delay_report(original, recipients, **made, retry_until=until)
        elif condition == "hold":
            octets = hold_report(original, recipients, **made, held_until=max(one.until or 0 for one in attempts) or None)
        else:
            octets = success_report(original, recipients, **made)
        if sender is None:
            raise ValueError("the null reverse-path gets no reports")
        to = Recipient(sender)
        parameters = parameters_for(octets, sender, requiretls=message.envelope.parameters.requiretls)
        envelope = Envelope(id, Peer("127.0.0.1", 0, "report", self._hostname), None, (to,), now, parameters)
        destinations = tuple([Destination(index, to, route) for index, route in enumerate(routes)])
        content, number = apply_edits(Content.of(octets), verdict.header), number_of(id)
        if self._sign is not None:
            signed = await self._sign(envelope, content)
            if signed is not None:
                content = signed
            elif not self._is_overdue(message, attempts, "signed"):
                return None
        packed = pack(number, envelope, content, destinations)
        return Report(number, packed, message.envelope.id, condition, envelope, content, destinations)


def unmarked(attempt: Attempt, why: str) -> Mark:
    """No report can be made: a failure stays for the postmaster's eye."""
    note = clean_text(f"{attempt.note}; {why}".lstrip("; "))
    return Mark(attempt.number, attempt.destination, attempt.state, attempt.state, None, note)


def recipient_reports(destinations: Sequence[Destination], attempts: Sequence[Attempt]) -> list[RecipientReport]:
    """What to tell of each recipient, once for each: the sender knows the addresses that he gave, not what stands behind them."""
    behind: dict[Recipient, int] = {}
    for destination in destinations:
        behind[destination.recipient] = behind.get(destination.recipient, 0) + 1
    by_index = {destination.index: destination for destination in destinations}
    found: dict[Recipient, RecipientReport] = {}
    for attempt in attempts:
        destination = by_index[attempt.destination]
        recipient, last = destination.recipient, attempt.history[-1] if attempt.history else None
        if recipient not in found:
            found[recipient] = RecipientReport(
                recipient,
                attempt.reply,
                peer=last.peer if last is not None else "",
                tried_at=last.made_at if last is not None else None,
                partly=behind[recipient] > 1,
                expired=attempt.state is EntryState.FAILED and attempt.reply is not None and attempt.reply.is_transient,
                relayed=attempt.state is EntryState.DELIVERED and isinstance(destination.route, Remote),
            )
    return list(found.values())
