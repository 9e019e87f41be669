"""Watches the pickup folder: mail that programs of this host hand over.

Each file goes to `FileHandover`; this module says which one is next.  Whatever a user puts into the folder, the mail of others
does not wait for it: each user has a bounded number of files under way and of files waiting, an error concerns one file or entry
alone, and the log has it once.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from mailserver.mail.until import still_holds
from mailserver.pickup.file_format import PickupFault
from mailserver.pickup.file_transaction import PickupDeferred
from mailserver.pickup.folder import FoundFile
from mailserver.pickup.handover import FileHandover, PickupParts
from mailserver.pickup.log_lines import PickupLog

__all__ = ["Pickup"]

LOOK_SECONDS = 1.0
SETTLED_SECONDS = 2.0  # a change this young may be followed by another within the same tick of the file system's clock
AT_ONCE = 20
AT_ONCE_OF_A_USER = 10  # who floods leaves room for others
WAITING_OF_A_USER = 1000  # further files stay in the folder until some of these have gone
AGAIN_SECONDS = 30.0  # doubled with each try …
AGAIN_SECONDS_MOST = 900.0  # … up to this
BAD_FULL_SECONDS = 600.0  # a user's misnamed files are not counted again before


@dataclass(frozen=True, slots=True)
class WaitingFile:
    """A taken file that could not be brought: when it is tried again, and how often it was tried."""

    found: FoundFile
    again_at: float
    tries: int

    def is_due(self, now: float) -> bool:
        """Its time has come."""
        return not still_holds(self.again_at, now, AGAIN_SECONDS_MOST)


class Pickup:
    """Watches a folder and brings its files into the queue."""

    log = Logger()

    def __init__(self, parts: PickupParts) -> None:
        self._folder = parts.folder
        self._clock = parts.clock
        self._run_in_thread = parts.run_in_thread
        self._next_id = parts.next_id
        self._handover = FileHandover(parts, stops=lambda: self._stopped)
        self._timer: Any = None
        self._seen = 0.0  # the folder's modification time at the last look; -1: look again whatever it says
        self._plan: deque[FoundFile] = deque()  # files of the last listing, still in the folder
        self._active: dict[str, FoundFile] = {}  # taken, being brought
        self._waiting: dict[str, WaitingFile] = {}  # taken
        # Moves into taken/ may not be durable yet, those of an earlier run among them.  A file that was brought before they are
        # could be back in the folder after a power cut, and be brought again under another id.
        self._must_sync = True
        self._bad_is_full: dict[int, float] = {}  # by user: until when nothing more is put there
        self._lines = PickupLog(parts.clock)
        self._last_failure = ""
        self._error_told = ""  # of the folder itself, told once
        self._is_working = False  # `_work` runs: there is never a second one, which could take a file that the first has chosen
        self._wake: Deferred[None] | None = None  # `_work` waits for a look, or for a file to end
        # Somebody called `look` while `_work` was amid a listing that may not show the new file: it lists once more.
        self._once_more = False
        self._stopped = True  # begin nothing more; before `start` nothing either
        self._ended: Deferred[None] | None = None  # `stop` waits for `_work` and for the files under way

    # --- life ---

    async def start(self) -> None:
        """Make the folder and take up what an earlier run left.  Raises OSError where it cannot be made."""
        await self._run_in_thread(self._folder.make)
        for found in await self._run_in_thread(self._folder.left_over):
            self._waiting[found.name] = WaitingFile(found, 0.0, 0)
        self._stopped = False
        self.look()
        self._timer = self._clock.callLater(LOOK_SECONDS, self._tick)

    async def stop(self) -> None:
        """Bring what is under way to its end; the rest stays in the folder."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._is_working or self._active:
            self._ended = Deferred()
            await self._ended

    def look(self) -> None:
        """Look for files now: a program has told that there is one."""
        self._once_more = True
        if self._is_working:
            self._wake_up()
            return
        self._is_working = True
        working: Deferred[None] = Deferred.fromCoroutine(self._work())
        working.addErrback(self._work_failed).addCallback(self._worked)

    async def sweep(self) -> None:
        """Once a day: remove what was begun and never completed."""
        await self._run_in_thread(self._folder.sweep, self._clock.seconds())

    def _tick(self) -> None:
        self._timer = self._clock.callLater(LOOK_SECONDS, self._tick)
        try:
            changed_at = self._folder.changed_at()
        except OSError as error:
            self._tell_error(error)
            self._seen = -1.0
            return
        now = self._clock.seconds()
        if (
            changed_at != self._seen
            or now - changed_at < SETTLED_SECONDS
            or any(one.is_due(now) for one in self._waiting.values())
        ):
            self._seen = changed_at
            self.look()

    def _tell_error(self, error: OSError) -> None:
        if str(error) != self._error_told:
            self._error_told = str(error)
            self.log.error("the pickup folder cannot be read, it is tried again: {error}", error=error)

    def _work_failed(self, failure: Failure) -> None:
        self._seen = -1.0  # look again soon
        if failure.check(OSError):
            self._tell_error(failure.value)  # type: ignore[arg-type]
        else:
            self.log.failure("the pickup folder cannot be worked on; it is tried again", failure)

    def _worked(self, _: None) -> None:
        self._is_working = False
        self._end()

    def _end(self) -> None:
        if self._ended is not None and not self._active and not self._is_working:
            ended, self._ended = self._ended, None
            ended.callback(None)

    # --- which file next ---

    async def _work(self) -> None:
        """Begin files as there is room, until none is left to begin and none is under way, or the end has come."""
        while not self._stopped:
            began = await self._begin_waiting()
            if len(self._active) < AT_ONCE:
                chosen = self._choose()
                if not chosen:
                    self._once_more = False
                    await self._list()
                    chosen = self._choose()
                began += await self._take(chosen)
            if (self._once_more or began) and len(self._active) < AT_ONCE:
                continue
            if not self._active:
                return
            self._wake = Deferred()
            await self._wake

    def _wake_up(self) -> None:
        wake, self._wake = self._wake, None
        if wake is not None:
            wake.callback(None)

    async def _list(self) -> None:
        listing = await self._run_in_thread(self._folder.listing)
        self._error_told = ""
        self._plan = deque(listing.files)
        for found in listing.odd:
            self._lines.once(found, "is not a file: it is left where it is", self.log.error)
        for found in listing.misnamed:
            await self._put_misnamed_aside(found)
        self._lines.forget_others({*listing.odd, *listing.misnamed})

    async def _put_misnamed_aside(self, found: FoundFile) -> None:
        if still_holds(self._bad_is_full.get(found.uid, 0.0), self._clock.seconds(), BAD_FULL_SECONDS):
            return
        try:
            if await self._run_in_thread(self._reject, found, False):
                self._lines.once(found, "has no name of a message: it is in bad/ now", self.log.error)
                return
            why = "its user has too many files in bad/"
        except OSError as error:
            why = f"it cannot be put into bad/: {error.strerror}"
        self._bad_is_full[found.uid] = self._clock.seconds() + BAD_FULL_SECONDS
        self._lines.once(found, f"has no name of a message, and {why}", self.log.error)

    def _reject(self, found: FoundFile, is_taken: bool) -> bool:
        return self._folder.reject(found, is_taken=is_taken)

    def _choose(self) -> list[FoundFile]:
        """The next files of the plan, as far as there is room for them and for their users."""
        under_way = Counter([found.uid for found in self._active.values()])
        waiting = Counter([one.found.uid for one in self._waiting.values()])
        chosen: list[FoundFile] = []
        kept: deque[FoundFile] = deque()
        while self._plan:
            found = self._plan.popleft()
            if waiting[found.uid] >= WAITING_OF_A_USER:
                self._lines.once(
                    FoundFile("", found.uid), f"has {WAITING_OF_A_USER} files waiting: no more are taken", self.log.warn
                )
                continue
            if len(self._active) + len(chosen) >= AT_ONCE or under_way[found.uid] >= AT_ONCE_OF_A_USER:
                kept.append(found)
                continue
            under_way[found.uid] += 1
            chosen.append(found)
        self._plan = kept
        return chosen

    async def _take(self, chosen: list[FoundFile]) -> int:
        """Take files out of the folder and begin them; how many could be had."""
        if not chosen:
            return 0
        new = {f"{self._next_id()}.{self._next_id()}": found for found in chosen}
        moves = [(found.name, name) for name, found in new.items()]
        taken, error = await self._run_in_thread(self._folder.take, moves)
        for name in taken:
            found = FoundFile(name, new[name].uid)
            if error is None:
                self._begin(found, 0)
            else:
                self._waiting[name] = WaitingFile(found, self._clock.seconds() + AGAIN_SECONDS, 0)
        if error is not None:
            self._must_sync = True
            self._tell_error(error)
        return len(taken)

    async def _begin_waiting(self) -> int:
        """Begin the files whose pause is over; how many that were."""
        now = self._clock.seconds()
        due = [one for one in self._waiting.values() if one.is_due(now)]
        if due and self._must_sync:
            await self._run_in_thread(self._folder.sync)
            self._must_sync = False
        under_way = Counter([found.uid for found in self._active.values()])
        began = 0
        for one in due:
            if len(self._active) >= AT_ONCE:
                break
            if under_way[one.found.uid] < AT_ONCE_OF_A_USER:
                under_way[one.found.uid] += 1
                began += 1
                del self._waiting[one.found.name]
                self._begin(one.found, one.tries, again=True)
        return began

    # --- one file ---

    def _begin(self, found: FoundFile, tries: int, *, again: bool = False) -> None:
        self._active[found.name] = found
        bringing: Deferred[None] = Deferred.fromCoroutine(self._bring(found, tries, again))
        bringing.addErrback(self._not_brought, found)
        bringing.addBoth(self._brought, found)

    def _not_brought(self, failure: Failure, found: FoundFile) -> None:
        """A fault of ours: the file stays in taken/, where the next start finds it."""
        self.log.failure("{name} in the pickup folder cannot be handed over", failure, name=found.name)

    def _brought(self, _: object, found: FoundFile) -> None:
        del self._active[found.name]
        self._wake_up()
        self._end()

    async def _bring(self, found: FoundFile, tries: int, again: bool) -> None:
        """Bring one taken file into the queue.  Whatever goes wrong, it stays on the disk and nobody else's waits for it."""
        name = found.name
        try:
            await self._handover.bring(name, again=again)
            self._last_failure = ""
            return
        except PickupDeferred as error:
            why = str(error)
        except PickupFault as error:
            why = await self._put_aside(found, str(error))
            if not why:
                return
        except FileNotFoundError:
            self.log.error("{name} has gone from the pickup folder", name=name)
            self._handover.forget(name)
            return
        except OSError as error:
            why = f"{type(error).__name__}: {error.strerror or error}"
        except Exception as error:  # noqa: BLE001  whatever it is, the message must not be lost for it
            why = type(error).__name__
            if why != self._last_failure:
                self._last_failure = why
                self.log.failure("{name} in the pickup folder cannot be handed over", name=name)
        if tries == 0:
            self._lines.once(found, f"has to wait: {why}", self.log.warn)
        pause = min(AGAIN_SECONDS * 2.0 ** min(tries, 10), AGAIN_SECONDS_MOST)
        self._waiting[name] = WaitingFile(found, self._clock.seconds() + pause, tries + 1)

    async def _put_aside(self, found: FoundFile, why: str) -> str:
        """Into bad/: "", or why it stays where it is."""
        try:
            if not await self._run_in_thread(self._reject, found, True):
                return f"{why}; and its user has too many files in bad/"
        except OSError as error:
            return f"{why}; and it cannot be put into bad/: {error.strerror}"
        self._handover.forget(found.name)
        self._lines.once(found, f"is in bad/ now: {why}", self.log.error)
        return ""
