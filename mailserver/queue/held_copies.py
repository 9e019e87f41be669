"""Copies that verdicts keep in the store: what is undecided is judged again, what is held too long is discarded.

When that is due stands in the store beside each destination (`Attempt.until`), so no crash forgets it; one timer rings for the
first of them.  A change is written only where the store has the destination still as it was read: a person may have released
or dropped it meanwhile.  No claim is needed for that, as nothing else touches a destination in these states, and so the other
copies of the message go their way.

`_waiting` and `_working` as in `reports`: one worker, and each number once.  What is judged for ten seconds may be found again
meanwhile; it is read again then, and is not due any more.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as Late
from twisted.logger import Logger

from mailserver.interfaces import Clock
from mailserver.mail.answers import Defer, Verdict
from mailserver.mail.content import Content
from mailserver.mail.envelope import Envelope, Recipient
from mailserver.mail.faults import StorageDamaged, StorageFault
from mailserver.mail.parcel import Destination
from mailserver.mail.set_apart import for_judges
from mailserver.plugins.awaiting import FAULTS, all_of, now_or_later, within
from mailserver.queue.entry import Attempt, EntryState, Settled, destination_name
from mailserver.queue.holding import Holding
from mailserver.queue.reader import ReadMessage, SqliteReader
from mailserver.queue.retry_timer import RetryTimer
from mailserver.queue.store import SqliteStore

__all__ = ["HeldCopies", "Judge"]

PAGE = 20  # messages at once
PAGE_OCTETS = 4 << 20
JUDGE_SECONDS = 300.0  # filters have deadlines of their own; this is for what waits without one
STORE_AGAIN_SECONDS = 5.0

Judge = Callable[[Envelope, Content, Recipient], Awaitable[Verdict]]
Pair = tuple[Attempt, Attempt]
Resolved = tuple[list[Attempt], list[Settled]]


class HeldCopies:
    """Looks after what the store holds for a verdict.

    `judge(envelope, content, recipient)` gives a verdict on one recipient's copy; whatever it raises means *not yet*.  Without it
    nothing is judged again.  `read(function, *args)` runs in a thread, `do(work)` in the store's.  `recorded(attempts)` is told
    what was written, `finished` of entries that waited for nothing else, `note(id, step, **fields)` what became of a copy.
    """

    log = Logger()

    def __init__(
        self,
        *,
        clock: Clock,
        holding: Holding,
        judge: Judge | None,
        reader: SqliteReader,
        read: Callable[..., Deferred[Any]],
        do: Callable[[Callable[[SqliteStore], Resolved]], Deferred[Resolved]],
        recorded: Callable[[list[Attempt]], None],
        finished: Callable[[list[Settled]], None],
        note: Callable[..., None],
        count: Callable[[str, int], None],
        is_steady: Callable[[], bool] = lambda: True,
    ) -> None:
        self._clock = clock
        self._holding = holding
        self._judge = judge
        self._reader = reader
        self._read = read
        self._do = do
        self._recorded = recorded
        self._finished = finished
        self._note = note
        self._count = count
        self._is_steady = is_steady
        self._due = RetryTimer(clock=clock, ask=lambda *question: read(reader.until_now, *question), found=self._found)
        self._waiting: dict[int, None] = {}  # numbers, in order
        self._working: Deferred[None] | None = None
        self._stopped = False

    # --- life ---

    def look(self) -> None:
        """Find out what is due."""
        self._due.look()

    def look_again(self) -> None:
        """The clock has been set."""
        self._due.look_from_the_start(0.0)

    def recorded(self, attempts: Sequence[Attempt]) -> None:
        """The store has kept these."""
        until = [attempt.until for attempt in attempts if attempt.until is not None]
        if until:
            self._due.expect(min(until))

    def finish(self) -> Deferred[None]:
        """Begin nothing any more; what is being judged is left as it stands in the store."""
        self._stopped = True
        self._due.stop()
        done: Deferred[None] = Deferred()
        working = self._working
        if working is None:
            done.callback(None)
        else:
            working.addCallback(done.callback)
            working.cancel()
        return done

    # --- work ---

    def _found(self, places: list[tuple[int, bool]]) -> None:
        self._waiting.update(dict.fromkeys([number for number, _ in places]))
        if self._working is None and not self._stopped:
            self._working = working = Deferred.fromCoroutine(self._work())
            working.addErrback(self._stumbled)
            working.addCallback(self._rest)

    def _rest(self, _: None) -> None:
        self._working = None

    def _stumbled(self, failure: Any) -> None:
        """Nothing is lost: it stands in the store, and is looked for again."""
        self._waiting.clear()
        if self._stopped or failure.check(StorageDamaged):
            return
        if failure.check(StorageFault, OSError):
            self.log.error("held mail waits for the store: {why}", why=failure.getErrorMessage())
        else:
            self.log.failure("held mail could not be looked after; it is looked at again", failure)
        self._due.look_from_the_start(STORE_AGAIN_SECONDS)

    async def _work(self) -> None:
        while self._waiting and not self._stopped:
            numbers = list(self._waiting)[:PAGE]
            messages, taken = await self._read(self._reader.read, numbers, PAGE_OCTETS)
            for number in numbers[:taken]:
                del self._waiting[number]
            found = [one for one in messages if isinstance(one, ReadMessage)]
            await all_of([Deferred.fromCoroutine(self._resolve(one)) for one in found])

    async def _resolve(self, message: ReadMessage) -> None:
        """What is due of one message.  Its verdicts are asked for side by side."""
        now, by_index = self._clock.seconds(), {one.index: one for one in message.destinations}
        pairs: list[Pair] = []
        asked: list[tuple[Attempt, Destination, Deferred[Verdict]]] = []
        for attempt in message.attempts:
            destination = by_index.get(attempt.destination)
            if attempt.until is None or attempt.until > now or destination is None:
                continue
            if attempt.state is EntryState.HELD:
                if self._is_steady():
                    pairs.append((attempt, self._holding.expired(attempt, destination, now)))
                else:  # the clock may be wrong: nothing is thrown away by it
                    self._due.look_from_the_start(3600.0)
            elif attempt.state is EntryState.UNDECIDED:
                asked.append((attempt, destination, Deferred.fromCoroutine(self._verdict(message, destination, attempt))))
        if asked:
            verdicts = await all_of([one for _, _, one in asked])
            now = self._clock.seconds()
            for (attempt, destination, _), verdict in zip(asked, verdicts, strict=True):
                chance = random.random()
                becomes = self._holding.judged(attempt, message.envelope, destination, verdict, now=now, chance=chance)
                pairs.append((attempt, becomes))
        if pairs and not self._stopped:
            await self._write(message, by_index, pairs)

    async def _verdict(self, message: ReadMessage, destination: Destination, attempt: Attempt) -> Verdict:
        """The verdict; *not yet* where none can be had."""
        if self._judge is None:
            return Defer("nobody judges")
        try:
            envelope = replace(message.envelope, findings=for_judges(attempt.findings))
            answer: Any = now_or_later(self._judge(envelope, message.content, destination.recipient))
            if isinstance(answer, Deferred):
                answer = await within(JUDGE_SECONDS, answer, self._clock)
        except CancelledError:
            if self._stopped:
                raise
            return Defer("it took too long")
        except Late:
            return Defer(f"no verdict within {JUDGE_SECONDS:g} s")
        except FAULTS as error:
            if not isinstance(error, OSError):
                self.log.failure("{id} could not be judged again", id=message.envelope.id)
            return Defer(f"it could not be judged: {type(error).__name__}")
        return answer if isinstance(answer, Verdict) else Defer(f"the answer was {type(answer).__name__}, no verdict")

    async def _write(self, message: ReadMessage, by_index: dict[int, Destination], pairs: Sequence[Pair]) -> None:
        written, finished = await self._do(lambda store: store.resolve(pairs))
        try:
            for attempt in written:
                self._tell(message.envelope, by_index[attempt.destination], attempt)
            self._recorded(written)
            if finished:
                self._finished(finished)
        except Exception:  # noqa: BLE001  it stands in the store: nothing that comes after may change it
            self.log.failure("the queue stumbled over held mail")

    def _tell(self, envelope: Envelope, destination: Destination, attempt: Attempt) -> None:
        step = STEPS.get(attempt.state, "judged")
        recipient, where = str(destination.recipient.address), destination_name(destination)
        if step == "discarded":
            self._count("discarded", 1)
        hold = str(attempt.hold) if attempt.hold else None
        self._note(envelope.id, step, recipient=recipient, destination=where, hold=hold, why=attempt.note)


STEPS = {
    EntryState.DROPPED: "discarded",
    EntryState.HELD: "held",
    EntryState.UNDECIDED: "undecided",
    EntryState.FAILED: "failed",
    EntryState.RETURNED: "failed",
}
