"""One stage: who is asked there, in groups one after another, those of a group side by side.

Where no filter has to wait, no Deferred is made and no reactor turn is spent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import Interface

from mailserver.interfaces import Clock
from mailserver.mail.answers import NO_FACTS, Accept, Discard, Disconnect, Finding, Pass, Refuse
from mailserver.mail.envelope import Envelope, Peer
from mailserver.plugins.awaiting import FAULTS, PLAIN, now_or_later
from mailserver.plugins.failure_log import FailureLog
from mailserver.receive.bound_filter import NOTHING_SAID, BoundFilter, Question
from mailserver.receive.judgement import PASSED, FilterAnswer, Judgement, judgement_of
from mailserver.receive.verdicts import NO_FINDINGS, PASS

__all__ = ["FilterStage", "Groups", "ask"]

UNASKED: Any = object()
READ_AT_ONCE = frozenset({Pass, tuple, list})  # what nearly all answer: a Pass, or the edits of a modifier
ENDS = (Refuse, Discard, Disconnect)  # whoever comes later need not be asked
Groups = tuple[tuple[Question, ...], ...]


class FilterStage:
    """Who is asked at one stage, for each service that a filter names and for all others."""

    __slots__ = ("_elsewhere", "_named")

    def __init__(
        self,
        name: str,
        interface: type[Interface],
        method: str,
        filters: Sequence[BoundFilter],
        seconds: Callable[[], float],
        failures: FailureLog,
    ) -> None:
        present = [bound for bound in filters if interface.providedBy(bound.component)]
        named = {service for bound in present for service in bound.services or ()}

        def groups(bounds: list[BoundFilter]) -> Groups:
            ordered = sorted(bounds, key=_place)
            return tuple(
                [
                    tuple([Question(name, bound, getattr(bound.component, method), seconds, failures) for bound in group])
                    for _, group in groupby(ordered, key=_place)
                ]
            )

        self._elsewhere = groups([bound for bound in present if bound.services is None])
        self._named = {
            service: groups([bound for bound in present if bound.services is None or service in bound.services])
            for service in named
        }

    def groups(self, service: str) -> Groups:
        """The groups in their order."""
        return self._named.get(service, self._elsewhere)


def _place(bound: BoundFilter) -> tuple[int, float]:
    return bound.level, bound.cost


def ask(groups: Groups, clock: Clock, subject: Any, *more: object) -> Judgement | Deferred[Judgement]:
    """The judgement itself where no filter waits.  Cancelling the Deferred cancels the filters.

    `subject`, the first argument of all of them, is the peer or the envelope: who is asked later sees what was found before.
    Here goes what passes, with or without findings; whatever else there is goes on in an `_AskedStage`.
    """
    answers: list[FilterAnswer] = []
    for at, group in enumerate(groups):
        said: list[FilterAnswer] = []
        found: tuple[Finding, ...] = ()
        for question in group:
            budget = question.budget
            if (budget is not None and not budget.is_closed) or question.bound.left.things:
                return _AskedStage(groups, clock, subject, more, at, answers).judge(said)
            began = question.seconds()
            try:
                answer: Any = now_or_later(question.ask(subject, *more))
            except FAULTS as error:
                answer = _Raised(error)
            kind = answer.__class__
            if kind not in READ_AT_ONCE:
                return _AskedStage(groups, clock, subject, more, at, answers).judge(said, answer, began)
            if (
                kind is Pass
                and answer.findings is NO_FINDINGS
                and answer.notes is NO_FACTS
                and not question.is_told_of_passes
            ):
                said.append(NOTHING_SAID)
                continue
            one = question.answered(answer, began, subject)
            said.append(one)
            if one.verdict is not PASS:  # it was no answer at all, and has failed
                return _AskedStage(groups, clock, subject, more, at, answers).judge(said)
            if one.findings and not one.is_shadow:
                found += one.findings
        answers += [one for one in said if one is not NOTHING_SAID]
        if found and at + 1 < len(groups):
            subject = _with_findings(subject, found)
    return Judgement(PASS, tuple(answers)) if answers else PASSED


def _with_findings(subject: Envelope | Peer, more: tuple[Finding, ...]) -> Envelope | Peer:
    """The same, of which more is known.  That is done with each filter that finds something, and `replace` is slow."""
    findings = (*subject.findings, *more)
    if subject.__class__ is not Envelope:
        return replace(subject, findings=findings)
    return Envelope(
        subject.id,
        subject.peer,
        subject.sender,
        subject.recipients,
        subject.received_at,
        subject.parameters,
        findings,
        subject.sent_on,
    )


class _Raised:
    """In place of an answer: the exception."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error


class _AskedStage:
    """A stage that is being asked, where not all pass at once.  `at` is the group where that was seen, `answers` what those of
    the groups before it have said."""

    __slots__ = ("_answers", "_at", "_clock", "_groups", "_more", "_subject", "_taken_away", "_waiting")

    def __init__(
        self, groups: Groups, clock: Clock, subject: Any, more: tuple[object, ...], at: int, answers: list[FilterAnswer]
    ) -> None:
        self._groups = groups
        self._at = at
        self._clock = clock
        self._subject = subject
        self._more = more
        self._answers = answers
        self._taken_away = 0  # so many answers stand before an Accept
        self._waiting: _OpenGroup | None = None

    def judge(
        self, said: Sequence[FilterAnswer], answer: Any = UNASKED, began: float = 0.0
    ) -> Judgement | Deferred[Judgement]:
        """Go on in the group whose first filters have `said` this, none of them a yes; the next has said `answer`."""
        if self._goes_on(said, answer, began):
            return self.judgement()
        return Deferred.fromCoroutine(self.to_the_end())

    def judgement(self) -> Judgement:
        """When all has been asked."""
        return judgement_of(self._answers, self._taken_away) if self._answers else PASSED

    async def to_the_end(self) -> Judgement:
        """Wait for the group that is open, then ask the others."""
        while self._waiting is not None:
            group, self._waiting = self._waiting, None
            group.end = Deferred(group.abandon)
            await group.end
            if self._take(group.answers):
                break
            self._goes_on()
        return self.judgement()

    def _goes_on(self, said: Sequence[FilterAnswer] = (), answer: Any = UNASKED, began: float = 0.0) -> bool:
        """Ask group after group.  False where one has to be waited for."""
        groups = self._groups
        while self._at < len(groups):
            group = groups[self._at]
            self._at += 1
            if self._taken_away:
                group = tuple([question for question in group if not question.bound.skippable])
            answers = self._ask(group, said, answer, began)
            said, answer = (), UNASKED
            if answers is None:
                return False
            if answers and self._take(answers):
                break
        return True

    def _take(self, answers: Sequence[FilterAnswer | None]) -> bool:
        """Take up what a group has said.  True where the others need not be asked."""
        obeyed: list[FilterAnswer] = []
        found: tuple[Finding, ...] = ()
        is_accepted = False
        for answer in answers:
            if answer is None or answer is NOTHING_SAID:
                continue
            self._answers.append(answer)
            if answer.is_shadow:
                continue
            found += answer.findings
            if answer.verdict is not PASS:
                obeyed.append(answer)
                is_accepted = is_accepted or isinstance(answer.verdict, Accept)
        if is_accepted:
            self._taken_away = len(self._answers)
        for answer in obeyed:
            if isinstance(answer.verdict, ENDS) and (answer.is_hard or not is_accepted):
                return True
        if found and self._at < len(self._groups):
            self._subject = _with_findings(self._subject, found)
        return False

    def _ask(
        self, group: Sequence[Question], said_before: Sequence[FilterAnswer], said_first: Any, began: float
    ) -> Sequence[FilterAnswer | None] | None:
        """The group's answers; None where one has to be waited for.  The first of the others has said what is not `UNASKED`."""
        answers: list[FilterAnswer | None] = [*said_before]
        first = len(answers)
        waiting: _OpenGroup | None = None
        is_accepted = False
        subject, more = self._subject, self._more
        for position in range(first, len(group)):
            question = group[position]
            if (is_accepted or (waiting is not None and waiting.is_accepted)) and not question.bound.hard:
                answers.append(None)
                continue
            answer: Any = said_first if position == first else UNASKED
            if answer is UNASKED:
                unasked = question.unasked()
                if unasked is not None:
                    answers.append(unasked)
                    continue
                began = question.seconds()
            answers.append(None)
            if answer is UNASKED:
                try:
                    answer = now_or_later(question.ask(subject, *more))
                except FAULTS as error:
                    answer = _Raised(error)
            if answer.__class__ is _Raised:
                answers[position] = question.failed(answer.error, began)
                continue
            if type(answer) not in PLAIN and isinstance(answer, Deferred):
                if waiting is None:
                    waiting = _OpenGroup(self._clock, answers, subject)
                waiting.wait(position, question, answer, began)
                continue
            said = answers[position] = question.answered(answer, began, subject)
            if isinstance(said.verdict, Accept) and not said.is_shadow:
                is_accepted = True
                if waiting is not None:
                    waiting.accepted()
        if waiting is None or not waiting.is_open:
            return answers
        self._waiting = waiting
        return None


class _OpenGroup:
    """A group of which at least one filter has not answered yet.

    `answers` has a place for each filter that was asked, None until it has answered or is late.  Once the place is filled,
    nothing more is heard of that filter.  That guards against three orders of events: a Deferred that has fired already calls
    `_heard` amid `wait`, before there is a deadline to cancel; cancelling a late filter calls `_heard` amid `_late`; and a
    filter that ignores being cancelled answers whenever it likes.

    `end` is what is waited for, None while the group's other filters are being asked.
    """

    __slots__ = ("_clock", "_given_up", "_open", "_subject", "answers", "end", "is_accepted")

    log = Logger()

    def __init__(self, clock: Clock, answers: list[FilterAnswer | None], subject: Any) -> None:
        self._clock = clock
        self._subject = subject
        self._open: dict[int, tuple[Deferred[Any], Any, bool]] = {}  # position: the answer to be, its deadline, is it hard
        self._given_up: set[int] = set()
        self.answers = answers
        self.end: Deferred[None] | None = None
        self.is_accepted = False

    @property
    def is_open(self) -> bool:
        return bool(self._open)

    def wait(self, position: int, question: Question, answer: Deferred[Any], began: float) -> None:
        """Listen to a filter that has not answered, or whose Deferred has already fired."""
        answer.addBoth(self._heard, position, question, began)
        if self.answers[position] is None:
            deadline = self._clock.callLater(question.bound.deadline_seconds, self._late, position, question, began)
            self._open[position] = answer, deadline, question.bound.hard

    def accepted(self) -> None:
        """Somebody has said an explicit yes: only the hard ones are waited for."""
        self.is_accepted = True
        self._give_up([position for position, (_, _, is_hard) in self._open.items() if not is_hard])

    def abandon(self, _cancelled: object = None) -> None:
        """Nobody waits for the judgement any more: cancel what still runs."""
        self.end = None
        self._give_up(list(self._open))

    def _give_up(self, positions: list[int]) -> None:
        for position in positions:
            self._given_up.add(position)
        for position in positions:
            answer, deadline, _ = self._open.pop(position)
            deadline.cancel()
            self._cancel(answer)

    def _heard(self, answer: object, position: int, question: Question, began: float) -> None:
        if position in self._given_up or self.answers[position] is not None:
            return
        if isinstance(answer, Failure):
            said = question.failed(answer, began)
        else:
            said = question.answered(answer, began, self._subject)
        _answer, deadline, _ = self._open.pop(position, (None, None, None))
        if deadline is not None:
            deadline.cancel()
        self._take(position, said)

    def _late(self, position: int, question: Question, began: float) -> None:
        answer, _deadline, _ = self._open.pop(position)
        said = question.failed(f"DeadlineExceeded: no answer within {question.bound.deadline_seconds:g} s", began)
        self.answers[position] = said  # before the cancelling, which may call `_heard`
        self._cancel(answer)
        question.bound.left.add(answer)
        self._take(position, said)

    def _take(self, position: int, said: FilterAnswer) -> None:
        self.answers[position] = said
        if isinstance(said.verdict, Accept) and not said.is_shadow:
            self.accepted()
        if self.end is not None and not self._open:
            end, self.end = self.end, None
            end.callback(None)

    def _cancel(self, answer: Deferred[Any]) -> None:
        try:
            answer.cancel()
        except Exception:  # noqa: BLE001  a plugin's canceller is a plugin's code
            self.log.failure("a filter's answer cannot be cancelled")
