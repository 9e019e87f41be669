"""Answers of the DNS, written down and given again."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from zope.interface import implementer

from mailserver.interfaces import IResolver
from mailserver.mail.dns_records import Answer, LookupFailed
from mailserver.plugins.awaiting import now_or_later

__all__ = ["RecordedResolver", "RecordingResolver", "answer_as_json", "key_of"]

ANSWERS_MOST = 1000


def answer_as_json(name: str, record_type: str, answer: Answer | None) -> dict[str, Any]:
    """One answer for a file; None for a question that nobody could answer."""
    asked: dict[str, Any] = {"name": key_of(name), "type": record_type}
    if answer is None:
        return asked | {"fails": True}
    found: dict[str, Any] = {"records": list(answer.records), "ttl": answer.ttl_seconds}
    if not answer.name_exists:
        found["exists"] = False
    if answer.authenticated:
        found["authenticated"] = True
    if answer.canonical_name:
        found["canonical"] = answer.canonical_name
    return asked | found


def key_of(name: str) -> str:
    """A name as it is looked up."""
    return name.rstrip(".").lower()


@implementer(IResolver)
class RecordingResolver:
    """Asks another one, and keeps what it has said."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._seen: dict[tuple[str, str], dict[str, Any]] = {}

    def answers(self) -> list[dict[str, Any]]:
        """What was asked, and answered."""
        return list(self._seen.values())

    async def start(self) -> None:
        """As the other one."""
        if hasattr(self._inner, "start"):
            await self._inner.start()

    async def stop(self) -> None:
        """As the other one."""
        if hasattr(self._inner, "stop"):
            await self._inner.stop()

    async def query(self, name: str, record_type: str) -> Answer:
        """The other one's answer."""
        try:
            answer: Any = now_or_later(self._inner.query(name, record_type))
            if isinstance(answer, Deferred):
                answer = await answer
        except LookupFailed:
            self._keep(name, record_type, None)
            raise
        self._keep(name, record_type, answer)
        return answer  # type: ignore[no-any-return]

    def _keep(self, name: str, record_type: str, answer: Answer | None) -> None:
        if len(self._seen) < ANSWERS_MOST:
            self._seen[key_of(name), record_type] = answer_as_json(name, record_type, answer)


@implementer(IResolver)
class RecordedResolver:
    """Gives the answers that were written down; where there is none, nobody can tell."""

    def __init__(self, answers: Sequence[Mapping[str, Any]]) -> None:
        """Raises ValueError for what is no answer."""
        self._answers: dict[tuple[str, str], Answer | None] = {}
        for one in answers:
            try:
                key = key_of(str(one["name"])), str(one["type"])
                self._answers[key] = None if one.get("fails") else _answer(one)
            except (KeyError, TypeError) as error:
                raise ValueError(f"no answer of the DNS: {error!r}") from error

    def query(self, name: str, record_type: str) -> Awaitable[Answer]:
        """The answer."""
        return self._query(name, record_type)

    async def _query(self, name: str, record_type: str) -> Answer:
        answer = self._answers.get((key_of(name), record_type))
        if answer is None:
            raise LookupFailed(f"{name}: no answer for {record_type} was recorded")
        return answer


def _answer(one: Mapping[str, Any]) -> Answer:
    return Answer(
        tuple(map(str, one["records"])),
        int(one.get("ttl", 0)),
        bool(one.get("authenticated", False)),
        name_exists=bool(one.get("exists", True)),
        canonical_name=str(one.get("canonical", "")),
    )
