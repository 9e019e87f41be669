"""Work on messages that a process beside the server does, while many messages come.

The server's own work is that of one thread, whose time is what a busy server runs out of.  A question to a process costs less of
it than what it asks for, since those that come together are asked together (`asked_together`).  Where few messages come, or one
after the other, on a machine of one processor, and while the process starts, fails or is slow, nobody is asked: who would have
asked does the work himself.  So nothing hangs on the process but speed.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from mailserver.filters.asked_together import AskedTogether
from mailserver.plugins.threads import AllHang
from mailserver.processes.jobs import IDLE_SECONDS

__all__ = ["ANSWER_SECONDS", "BUSY_MESSAGES", "BUSY_SECONDS", "REST_SECONDS", "START_SECONDS", "WorkBeside", "processors"]

BUSY_MESSAGES, BUSY_SECONDS = 16, 0.5  # so many within such a time are many: below that the server has time enough
TOGETHER_MOST = 32  # in one question
WAITING_MOST = 64  # for the next question
ANSWER_SECONDS = 3.0  # the process is killed then
SLOW_SECONDS = 0.5  # nobody else waits for a question that has not been answered for so long
START_SECONDS = 30.0
REST_SECONDS = 60.0  # after a failure
LONE_MOST, LONE_SECONDS = 16, 5.0  # after so many questions in a row with no other beside them nobody is asked for a time
READY_SECONDS = IDLE_SECONDS * 0.9  # since the last answer: a process with nothing to do ends

Q = TypeVar("Q")
A = TypeVar("A")


def processors() -> int:
    """How many of them this server may run on."""
    return len(os.sched_getaffinity(0))


class WorkBeside(Generic[Q, A]):
    """`send` asks the process: questions, and within how many seconds, to a list of answers in their order.  It does not raise.

    `read` makes of each what is wanted, None where the work is left to the asker; it raises ValueError for what is no answer.
    `seconds` is a clock that nobody sets.  `done` counts the questions that were answered, `failures` how often all went wrong.
    """

    log = Logger()

    def __init__(
        self, name: str, send: Callable[[Sequence[Q], float], Deferred[Any]], read: Callable[[Any], A | None], *,
        seconds: Callable[[], float],
    ) -> None:  # fmt: skip
        self.done = self.failures = 0
        self._name = name
        self._send = send
        self._read = read
        self._seconds = seconds
        self._is_alone = processors() < 2
        self._together: AskedTogether[Q, A | None] = AskedTogether(self._answer, most=TOGETHER_MOST)
        self._came: deque[float] = deque(maxlen=BUSY_MESSAGES)  # when the last messages did
        self._asked_at = 0.0  # when the question that is open was asked
        self._ready_until = self._rests_until = seconds()
        self._lone = 0  # questions in a row that came when no other was open
        self._works = False  # the process has a question, which those who have asked may have given up
        self._has_failed = False

    def ask(self, question: Q) -> Deferred[A | None] | None:
        """The answer.  None, at once or in its place: do the work yourself."""
        now, came = self._seconds(), self._came
        came.append(now)
        if len(came) < BUSY_MESSAGES or now - came[0] > BUSY_SECONDS or self._is_alone or now < self._rests_until:
            return None
        together = self._together
        is_asked = together.is_asked
        if not is_asked:
            if self._works:
                return None
            if now >= self._ready_until:
                self._start()
                return None
            self._lone += 1
            if self._lone > LONE_MOST:  # one connection after the other: to wait for the process is time lost, and saves none
                self._lone, self._rests_until = 0, now + LONE_SECONDS
                return None
        else:
            self._lone = 0
            if now - self._asked_at > SLOW_SECONDS or together.waiting >= WAITING_MOST:
                return None
        return together.ask(question)

    def _start(self) -> None:
        """Ask for nothing: a process takes a time to begin, for which nobody is to wait."""
        self._works = True
        self._send([], START_SECONDS).addBoth(self._answered, 0)

    def _answer(self, questions: Sequence[Q]) -> Deferred[Sequence[A | Exception | None]]:
        if self._works or self._seconds() < self._rests_until:  # those who have waited for one that failed or was given up
            return succeed([None] * len(questions))
        self._works, self._asked_at = True, self._seconds()
        # Whoever cancels this one does not end the process: nobody wants to wait for the next one to begin.
        answers: Deferred[Sequence[A | Exception | None]] = Deferred()
        self._send(questions, ANSWER_SECONDS).addBoth(self._answered, len(questions)).addBoth(answers.callback)
        return answers

    def _answered(self, answers: Any, count: int) -> Sequence[A | None]:
        self._works = False
        if isinstance(answers, Failure):
            self._failed(answers.getErrorMessage(), is_told=answers.check(AllHang) is None)
            return [None] * count
        try:
            if not isinstance(answers, list) or len(answers) != count:
                raise ValueError("there are not as many answers as questions")
            found = [None if one is None else self._read(one) for one in answers]
        except ValueError as error:
            self._failed(f"what it answered is no answer: {error}")
            return [None] * count
        self.done += count
        self._ready_until = self._seconds() + READY_SECONDS
        if self._has_failed:
            self._has_failed = False
            self.log.info("{who}: its process works again", who=self._name)
        return found

    def _failed(self, why: str, *, is_told: bool = True) -> None:
        """`is_told`: not where the component ends, or its processes do not, which is told by others."""
        self.failures += 1
        self._has_failed = True
        self._ready_until = self._seconds()
        self._rests_until = self._ready_until + REST_SECONDS
        if is_told:
            words = "{who}: for {seconds:g} seconds the server does the work of its process, which failed: {why}"
            self.log.warn(words, who=self._name, seconds=REST_SECONDS, why=why)
