"""When deferred mail comes back: one timer for the store's index of due times, so that the length of the queue costs nothing.

The index is ordered by due time and number.  `_seen` is a place in it: all up to there has been handed on, and the next question
begins behind it.  So nothing is found twice without need.  That nothing is left out needs more, since the store changes while a
question is under way.  What each field guards against:

`_written`, the first place that the store has learnt of since the question was asked.  The question is under way in a thread.  A
person asks for a retry, so an entry becomes due now, between places that the answer has already passed.  The answer comes, its
last place lies behind that entry, and with `_seen` there the entry would never be found.  So `_seen` goes no further than
`_written`; what lies between is found a second time, and whoever gets it sees that it is active already.

`_ask_again`.  `look` is called while a question is under way, because the timer has rung or the clock has been set.  The question
has an older time in it, and its answer knows nothing of what fell due since.  Two questions side by side would both begin at
`_seen`.  So the second is put when the first has its answer.

`_paused`.  There is no room for more numbers.  The timer may ring as often as it likes, the next page is asked when `resume`
finds room; the places stay in the store meanwhile.

`_timer_at`.  Each attempt that is written names its due time, mostly a later one than that for which the timer is set.  Only an
earlier one sets the timer anew.  A timer that rings too early does no harm: its question finds nothing, and the answer has the
right time.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from mailserver.interfaces import Clock
from mailserver.mail.faults import StorageDamaged
from mailserver.queue.entry import DuePlace

__all__ = ["RetryTimer"]

PAGE = 200
AGAIN_SECONDS = 5.0
TIMER_SECONDS_MOST = 3600.0

START = DuePlace(0.0, 0, False)
END = DuePlace(math.inf, 0, False)


class RetryTimer:
    """Asks the store for what is due.  Each entry is found once, or again where the store learns of a place before `_seen`.

    `ask(after, now, limit)` fires with the due places after a place, in order, and the next time beyond them, or None;
    `found` is given the entries: number, remote.  While `has_room()` says no, it takes no further page before `resume`.
    """

    log = Logger()

    def __init__(
        self,
        *,
        clock: Clock,
        ask: Callable[[DuePlace, float, int], Deferred[tuple[list[DuePlace], float | None]]],
        found: Callable[[list[tuple[int, bool]]], None],
        has_room: Callable[[], bool] = lambda: True,
    ) -> None:
        self._clock = clock
        self._ask = ask
        self._found = found
        self._has_room = has_room
        self._paused = False
        self._seen = START  # see above, as for the others
        self._written = END
        self._timer: Any = None
        self._timer_at = 0.0
        self._asking = False
        self._ask_again = False
        self._stopped = False

    def look(self) -> None:
        """Find out what is due now, and when to look again."""
        if self._stopped:
            return
        self._paused = not self._has_room()
        if self._paused:
            return
        if self._asking:
            self._ask_again = True  # what fell due since the question is in no answer yet
            return
        self._asking = True
        self._ask_again = False
        self._written = END
        asked = self._ask(self._seen, self._clock.seconds(), PAGE)
        asked.addCallbacks(self._answered, self._not_answered).addErrback(self._stumbled)

    def resume(self) -> None:
        """There may be room again for what is due."""
        if self._paused and self._has_room():
            self.look()

    def expect(self, due: float) -> None:
        """The store has learnt of a due time."""
        self._go_back(DuePlace(due, 0, False))
        self._look_at(due)

    def look_from_the_start(self, seconds: float) -> None:
        """After a pause find all again: what was taken could not be used."""
        self._go_back(START)
        self._look_at(self._clock.seconds() + seconds)

    def stop(self) -> None:
        """Look no more."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _go_back(self, place: DuePlace) -> None:
        """A place that lies ahead changes nothing."""
        self._seen = min(self._seen, place)
        self._written = min(self._written, place)

    def _answered(self, answer: tuple[list[DuePlace], float | None]) -> None:
        self._asking = False
        if self._stopped:
            return
        places, next_due = answer
        if places:
            self._seen = min(places[-1], self._written)
            # Several destinations of one entry may be due: it is read once.
            self._found(list(dict.fromkeys((number, remote) for _, number, remote in places)))
        if len(places) == PAGE or self._ask_again:
            self.look()
        elif next_due is not None:
            self._look_at(next_due)

    def _not_answered(self, failure: Failure) -> None:
        self._asking = False
        if failure.check(StorageDamaged):
            return  # that is told, and does not mend itself
        self.log.failure("the queue could not find out what is due; it looks again", failure)
        self._look_at(self._clock.seconds() + AGAIN_SECONDS)

    def _stumbled(self, failure: Failure) -> None:
        self.log.failure("the queue stumbled over what is due; it looks again", failure)
        self._look_at(self._clock.seconds() + AGAIN_SECONDS)

    def _look_at(self, moment: float) -> None:
        if self._stopped or (self._timer is not None and self._timer_at <= moment):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = moment
        pause = min(max(0.0, moment - self._clock.seconds()), TIMER_SECONDS_MOST)
        self._timer = self._clock.callLater(pause, self._due_now)

    def _due_now(self) -> None:
        self._timer = None
        self.look()
