"""Asks one component something: with a deadline, under its name.

Whatever a component does in place of an answer is its own failure, and `ComponentFailed` says so: it is late, raises anything (a
cancellation that nobody has asked for, and SystemExit, among it), or answers with something else than it should.  Who asks has
one error to deal with.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as Late
from twisted.python.failure import Failure

from mailserver.interfaces import CannotTell, Clock
from mailserver.mail.outcomes import clean_text
from mailserver.plugins.awaiting import FAULTS, PLAIN, now_or_later, within
from mailserver.plugins.failure_log import FailureLog, place_of
from mailserver.plugins.failure_log import words_of as words_in_full
from mailserver.plugins.left_behind import LeftBehind

__all__ = ["LEFT_MOST", "Asking", "ComponentFailed", "anything", "words_of"]

LEFT_MOST = 1000  # questions to one component that were given up and run on; then it is asked nothing until some have ended

T = TypeVar("T")


class ComponentFailed(CannotTell):
    """A component was late, raised an error or gave no such answer as it should.  The words name it and what it was asked."""


class Asking:
    """All that one component is asked.  `name` is what people know it by, such as ``accounts ldap``.

    `left` counts what runs on after its deadline.
    """

    def __init__(self, name: str, clock: Clock, left: LeftBehind | None = None) -> None:
        self.name = name
        self.left = LeftBehind() if left is None else left
        self._clock = clock
        self._failures = FailureLog(clock.seconds)
        self._open: set[Deferred[Any]] = set()
        self._has_ended = False

    def ask(
        self,
        what: str,
        seconds: float,
        read: Callable[[Any], T],
        function: Callable[..., Awaitable[Any]],
        *arguments: Any,
        passes: tuple[type[Exception], ...] = (),
        is_bounded: bool = True,
    ) -> T | Deferred[T]:
        """What `read` makes of the answer: the value itself where the component does not wait.

        `read` raises for a wrong answer.  Errors of the kinds in `passes` are answers and are raised as they come; everything
        else is raised as a `CannotTell`: the component's own, or `ComponentFailed`.  What is not `is_bounded` is tried whatever
        runs on of earlier questions.
        """
        if self.left.things and len(self.left) >= LEFT_MOST and is_bounded:
            raise ComponentFailed(f"{self.name}: {what}: {len(self.left)} earlier questions have not ended")
        try:
            answer = now_or_later(function(*arguments))
            if type(answer) in PLAIN or not isinstance(answer, Deferred):
                return read(answer)
        except FAULTS as error:  # of the component's code; or of its answer, which is anybody's object, when it is looked at
            raise self._error(what, error, passes) from error
        # The two errors, the component's and the deadline's, are told apart before they come together.  Who cancels hears
        # Twisted's `CancelledError`: nobody has failed then.
        answer.addCallbacks(
            lambda result: self._read(what, read, result), lambda failure: self._raise(what, failure, passes)
        )
        question = within(seconds, answer, self._clock, self.left.add)
        self._open.add(question)
        return question.addBoth(self._over, question, what, seconds)

    def call(self, what: str, read: Callable[[Any], T], function: Callable[..., Any], *arguments: Any) -> T:
        """As `ask`, for what answers at once."""
        try:
            answer = function(*arguments)
        except FAULTS as error:
            raise self._error(what, error, ()) from error
        return self._read(what, read, answer)

    def end(self) -> None:
        """The component has been stopped: nobody waits for its answers any more."""
        self._has_ended = True
        for question in list(self._open):
            question.cancel()

    def _read(self, what: str, read: Callable[[Any], T], answer: Any) -> T:
        try:
            return read(answer)
        except FAULTS as error:  # an answer is anybody's object and may do anything when it is looked at
            raise self._error(what, error, ()) from error

    def _raise(self, what: str, failure: Failure, passes: tuple[type[Exception], ...]) -> None:
        error: Any = failure.value
        raise self._error(what, error, passes) from error

    def _over(self, result: Any, question: Deferred[Any], what: str, seconds: float) -> Any:
        """The answer has come, the deadline, the component's end, or who asked waits no longer."""
        self._open.discard(question)
        if not isinstance(result, Failure):
            return result
        if result.check(Late) is not None:
            words = f"{what} has not ended within {seconds:g} seconds"
            self._failures.tell(self.name, words)
            raise ComponentFailed(f"{self.name}: {words}")
        if self._has_ended and result.check(CancelledError) is not None:
            raise ComponentFailed(f"{self.name}: {what}: it has been stopped")
        return result

    def _error(self, what: str, error: BaseException, passes: tuple[type[Exception], ...]) -> Exception:
        """What to raise in its place."""
        if isinstance(error, Exception) and isinstance(error, (*passes, CannotTell)) and is_printable(error):
            return error
        if not isinstance(error, OSError | CancelledError):
            self._failures.tell(f"{self.name}: {what}", error, place_of(error))
        return ComponentFailed(f"{self.name}: {what}: {words_of(error)}")


def anything(answer: object) -> object:
    """Reads an answer that means nothing."""
    return answer


def words_of(error: BaseException) -> str:
    """Class and words of any exception, also of one that cannot be printed, fit for a store."""
    return clean_text(words_in_full(error))


def is_printable(error: BaseException) -> bool:
    try:
        return isinstance(str(error), str)
    except FAULTS:
        return False
