"""Whether the store of the queue can be written to: what an error of it means, and when it works again.

`works` goes False with an error of the disk and True with a proof, a small write that `SqliteStore.reopen` makes durable.  Errors
come in a row, one for each message that waits: only the first sets a timer, since `works` is False for the others.  A proof may
be under way in the store's thread when something else happens, so its success is looked at twice:

* the server stops: `_ended`.  The store is about to be closed, and a queue that says that it works would take mail.
* damage is found: `damage`.  The disk works, but what stands in the file cannot be right, and nothing may be written over it.
  Only the next start, which looks through the file, takes that back.

A disk that is full is not broken: `works` stays True where the store is trusted, and `Room` says no for some seconds instead
(452, not 451).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from mailserver.interfaces import Clock
from mailserver.mail.faults import StorageDamaged, StorageFault, StorageFull
from mailserver.queue.spool import Room
from mailserver.queue.store import MessageRefused, SqliteStore

__all__ = ["Health"]

PROBE_SECONDS = 3.0
FULL_SECONDS = 3.0


class Health:
    """No mail is accepted from the moment when the store fails until a small write has been proved durable.

    A store that is damaged is not written to any more before the next start: `damage` says what was found.  `do(work)` runs in
    the store's thread, where `reopen()` tries the store; `works_again()` is called when it works.
    """

    log = Logger()

    def __init__(
        self,
        *,
        clock: Clock,
        do: Callable[[Callable[[SqliteStore], None]], Deferred[None]],
        reopen: Callable[[], Deferred[Any]],
        is_trusted: Callable[[], bool],
        room: Room,
        works_again: Callable[[], None],
    ) -> None:
        self._clock = clock
        self._do = do
        self._reopen = reopen
        self._is_trusted = is_trusted
        self._room = room
        self._works_again = works_again
        self._timer: Any = None
        self._ended = False
        self.works = False
        self.damage = ""

    def begin(self) -> None:
        """The store is open."""
        self.works = not self.damage

    def end(self) -> None:
        """The server stops."""
        self.works = False
        self._ended = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def failed(self, failure: Failure) -> None:
        """The store has answered with this."""
        if failure.check(StorageDamaged):
            self.found_damage(failure.getErrorMessage())
            return
        if failure.check(StorageFull) and self._room.shut(FULL_SECONDS):
            self.log.error("the disk of the queue is full: {why}", why=failure.getErrorMessage())
        if failure.check(MessageRefused):
            self.log.failure("the store refused a message", failure)
        elif failure.check(StorageFault) is None:
            self.log.failure("the queue could not write down what became of its messages", failure)
        elif self.works and (failure.check(StorageFull) is None or not self._is_trusted()):
            self.works = False
            self.log.failure("the store of the queue is broken; no mail is accepted until it works again", failure)
            self._timer = self._clock.callLater(PROBE_SECONDS, self._probe)

    def found_damage(self, why: str) -> None:
        """What stands in the file cannot be right: nothing more is written over it."""
        self.works = False
        if not self.damage:
            self.damage = why
            self.log.critical(
                "the queue is damaged: no mail is accepted and none delivered; stop the server, put the files of the queue aside"
                " and mend them (docs/operating.md): {why}",
                why=why,
            )
            self._do(lambda store: store.distrust(why)).addErrback(lambda _: None)

    def _probe(self) -> None:
        self._timer = None
        if not self.damage:
            self._reopen().addCallbacks(self._proved, self._still_broken)

    def _proved(self, _: object) -> None:
        if not self._ended and not self.damage:
            self.works = True
            self.log.info("the store of the queue works again")
            self._works_again()

    def _still_broken(self, failure: Failure) -> None:
        if failure.check(StorageDamaged):
            self.found_damage(failure.getErrorMessage())
        elif not self._ended:
            self._timer = self._clock.callLater(PROBE_SECONDS, self._probe)
