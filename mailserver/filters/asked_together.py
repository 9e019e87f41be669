"""Questions to a thread that come while others are being answered: they are answered together, as soon as those are.

The way into a thread and back costs more than many an answer.  Nobody waits for others to come: who is alone is asked at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from typing import Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

__all__ = ["AskedTogether"]

Q = TypeVar("Q")
A = TypeVar("A")


class AskedTogether(Generic[Q, A]):
    """`answer` takes at most `most` questions and returns their answers, in their order, or fails for all of them.

    An answer that is an Exception is raised for the one who has asked, and for nobody else.
    """

    def __init__(self, answer: Callable[[Sequence[Q]], Deferred[Sequence[A | Exception]]], *, most: int) -> None:
        self._answer = answer
        self._most = most
        self._waiting: dict[Deferred[A], Q] = {}
        self._asked: dict[Deferred[A], Q] = {}
        self._answers: Deferred[Sequence[A | Exception]] | None = None

    @property
    def is_asked(self) -> bool:
        """Some are being answered."""
        return bool(self._asked)

    @property
    def waiting(self) -> int:
        """How many wait until those are."""
        return len(self._waiting)

    def ask(self, question: Q) -> Deferred[A]:
        """The answer.  Cancelled by all who are asked about together, their questions are given up."""
        done: Deferred[A] = Deferred(self._given_up)
        self._waiting[done] = question
        if not self._asked:
            self._begin()
        return done

    def _begin(self) -> None:
        asked = list(islice(self._waiting, self._most))
        self._asked = {one: self._waiting.pop(one) for one in asked}
        answers = self._answers = self._answer(list(self._asked.values()))
        answers.addBoth(self._end, asked)

    def _end(self, answers: Sequence[A | Exception] | Failure, asked: Sequence[Deferred[A]]) -> None:
        """The thread goes on with those who wait, while those who have asked go on with their answers."""
        self._asked, self._answers = {}, None
        if self._waiting:
            self._begin()
        for n, one in enumerate(asked):
            if one.called:  # given up
                continue
            answer = answers if isinstance(answers, Failure) else answers[n]
            one.callback(Failure(answer) if isinstance(answer, Exception) else answer)

    def _given_up(self, done: Deferred[A]) -> None:
        self._waiting.pop(done, None)
        if self._asked.pop(done, None) is not None and not self._asked and self._answers is not None:
            self._answers.cancel()
