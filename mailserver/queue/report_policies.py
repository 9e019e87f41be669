"""Asks those who have a say about reports to senders (`IReportPolicy`), one after the other, until one suppresses it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from mailserver.interfaces import CannotTell, ReportDraft
from mailserver.mail.edits import AddHeader, EditError, field_of
from mailserver.mail.outbound_answers import ReportVerdict, SendReport, SuppressReport
from mailserver.mail.outcomes import clean_text
from mailserver.plugins.bound import BoundComponent
from mailserver.plugins.generation import Generation
from mailserver.plugins.sound_routes import sequence_of

__all__ = ["ReportPolicies"]

EXPLANATION_CHARACTERS_MOST = 10_000
HEADER_OCTETS_MOST = 4096
HEADER_FIELDS_MOST = 1000
# What a report is, and whose: a mail program must be able to rely on them (RFC 3834 section 5).
OURS = frozenset(
    "from to cc bcc sender reply-to subject date message-id in-reply-to references auto-submitted mime-version content-type"
    " content-transfer-encoding content-disposition return-path received".split()
)
AS_IT_IS = SendReport()


class ReportPolicies:
    """Those of the policy in force.  `note(id, step, **fields)` is told what they say
    beside a plain yes; `seconds` is a clock that nobody sets.
    """

    def __init__(self, *, seconds: Callable[[], float], note: Callable[..., None]) -> None:
        self._seconds = seconds
        self._note = note
        self._asked: Sequence[BoundComponent] = ()
        self._generation = Generation()

    def use(self, asked: Sequence[BoundComponent], generation: Generation) -> None:
        """Ask these from now on."""
        self._asked, self._generation = tuple(asked), generation

    async def judge(self, draft: ReportDraft) -> ReportVerdict | None:
        """What becomes of it; None: nobody can say now."""
        explanation: list[str] = []
        header: tuple[AddHeader, ...] = ()
        with self._generation:
            for bound in self._asked:
                verdict = await self._said(bound, draft)
                if not isinstance(verdict, SendReport):
                    return verdict
                explanation += [verdict.explanation] if verdict.explanation else []
                header += verdict.header
        return SendReport("\n\n".join(explanation)[:EXPLANATION_CHARACTERS_MOST], header) if explanation or header else AS_IT_IS

    async def _said(self, bound: BoundComponent, draft: ReportDraft) -> ReportVerdict | None:
        try:
            verdict: ReportVerdict | None = await bound.ask(
                "judge_report", sound_verdict, bound.component.judge_report, draft, seconds=self._seconds
            )
        except CannotTell as failed:
            verdict = verdict_of_failure(bound)
            self._tell(bound, draft, verdict, str(failed))
        else:
            if verdict != AS_IT_IS:
                self._tell(bound, draft, verdict, "")
        if isinstance(verdict, SuppressReport):
            verdict = SuppressReport(clean_text(f"{bound.name}: {verdict.why}"))
        return AS_IT_IS if bound.shadow else verdict

    def _tell(self, bound: BoundComponent, draft: ReportDraft, verdict: ReportVerdict | None, error: str) -> None:
        self._note(
            draft.envelope.id,
            "filter",
            filter=bound.name,
            stage="report",
            verdict="" if verdict is None else type(verdict).__name__,
            why=getattr(verdict, "why", ""),
            condition=draft.condition,
            error=error,
            **({"shadow": True} if bound.shadow else {}),
        )


def verdict_of_failure(bound: BoundComponent) -> ReportVerdict | None:
    """What the failure of a component counts as."""
    match bound.on_error:
        case "skip":
            return AS_IT_IS
        case "refuse":
            return SuppressReport("it failed")
        case _:
            return None


def sound_verdict(answer: Any) -> ReportVerdict:
    """The answer as one of our own values.  Raises ValueError, or whatever its members lead to."""
    if isinstance(answer, SuppressReport):
        if not isinstance(answer.why, str):
            raise ValueError(f"why is {type(answer.why).__name__}, no text")
        return SuppressReport(clean_text(answer.why))
    if not isinstance(answer, SendReport):
        raise ValueError(f"the answer is {type(answer).__name__}, no verdict on a report")
    explanation = answer.explanation
    fields: list[AddHeader] = []
    if not isinstance(explanation, str):
        raise ValueError("the explanation is no text")
    for given in sequence_of(answer.header, HEADER_FIELDS_MOST):
        if not isinstance(given, AddHeader):
            raise EditError(f"{type(given).__name__} cannot be done to a report")
        one = AddHeader(given.name, given.value)  # a derived class may not have checked it
        fields.append(one)
        if one.name.lower() in OURS:
            raise EditError(f"{one.name} is a field of the report itself")
        if not field_of(one).isascii():
            raise EditError(f"{one.name} holds what is not ASCII: encode it (RFC 2047)")
    if sum([len(field_of(one)) for one in fields]) > HEADER_OCTETS_MOST:
        raise EditError(f"more than {HEADER_OCTETS_MOST} octets of header lines")
    return SendReport(str.__getitem__(explanation, slice(EXPLANATION_CHARACTERS_MOST)), tuple(fields))
