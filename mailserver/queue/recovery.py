"""What an earlier run left: entries that were not settled, files without entries, entries without files.

An entry that was not settled is delivered again, with `Parcel.again`: it may or may not have reached its mailbox.  A file without
an entry belongs to a message that never had its 250, or was settled just before the end, and is removed.  An entry without its
file is kept and reported: people may find the file in a backup.

The recovery goes on while new mail is taken.  Entries with attempts are not its matter: the retry timer finds those.  Its range
ends at the highest number of the earlier run, and numbers are times, so new mail stands behind it.  What its fields guard
against:

`_mine`.  The clock has gone back since the earlier run, and a message of this run gets a number within what is still to be read.
It would be found, taken for an old one and delivered a second time.  So such a message is noted before the store has it.

`_reading`.  One page at a time: `more` is called whenever an active queue has room.  It stays set during the pause after an
error.

`_outrun`.  A page is under way, and it has an entry of which one destination was deferred in the earlier run and is due, and
another was never tried.  The retry timer has brought back the first, it is tried now and its attempt is written, and the entry
leaves memory.  Then the page comes with the state of before and would have it tried again.  What the store has learnt of while a
page was read is read again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from twisted.logger import Logger
from twisted.python.failure import Failure

from mailserver.mail.faults import StorageDamaged
from mailserver.queue.reader import ReadMessage, SqliteReader, Unreadable
from mailserver.queue.runner import Runner
from mailserver.queue.spool import Spool

__all__ = ["Leftovers", "Recovery", "find_leftovers", "tidy_spool"]

PAGE = 200
PAGE_OCTETS = 8 << 20
AGAIN_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Leftovers:
    """What stood in the store at the start: its highest number, how many entries have attempts, which are damaged."""

    newest: int
    attempted: int
    damaged: tuple[Unreadable, ...]


def find_leftovers(reader: SqliteReader) -> Leftovers:
    """Look at the store; blocks."""
    return Leftovers(reader.newest(), reader.attempted(), tuple(reader.damaged_spool()))


def tidy_spool(reader: SqliteReader, spool: Spool, names: Iterable[str]) -> int:
    """Remove those of these files that belong to no message.  How many they were.  Blocks.

    `names` were there before a message of this run could be: no time says that, since the clock may be set.
    """
    orphans = reader.without_entry(names)
    for name in orphans:
        spool.remove(name)
    return len(orphans)


class Recovery:
    """Reads the entries of an earlier run, page by page in the order of their ids, as the active queues have room."""

    log = Logger()

    def __init__(
        self,
        *,
        reader: SqliteReader,
        runner: Runner,
        up_to: int,
        call_later: Callable[..., object],
        found: Callable[[ReadMessage], None],
    ) -> None:
        self._reader = reader
        self._runner = runner
        self._up_to = up_to
        self._call_later = call_later
        self._found = found
        self._after = 0
        self._reading = False
        self._mine: set[int] = set()
        self._outrun: set[int] = set()

    def commits(self, number: int) -> None:
        """A message of this run has this number: where the clock went back, it stands among the old ones and is not one."""
        if self._after < number <= self._up_to:
            self._mine.add(number)

    def awaits(self, number: int) -> bool:
        """An entry of the earlier run that has not been looked at yet."""
        return self._after < number <= self._up_to and number not in self._mine

    def outrun(self, numbers: Sequence[int]) -> None:
        """The store has learnt of these entries what a page that is under way may not have seen."""
        if self._reading:
            self._outrun.update(numbers)

    def more(self) -> None:
        """Read the next page."""
        if not self._reading:
            self._reading = True
            self._outrun.clear()
            self._runner.read(self._page, self._after).addCallbacks(self._adopt, self._fail).addErrback(self._stumbled)

    def _page(self, after: int) -> tuple[int, list[ReadMessage | Unreadable]]:
        numbers = self._reader.unattempted(after, self._up_to, PAGE)
        if not numbers:
            return self._up_to, []
        messages, taken = self._reader.read(numbers, PAGE_OCTETS)
        return numbers[taken - 1], messages

    def _adopt(self, page: tuple[int, list[ReadMessage | Unreadable]]) -> None:
        self._after, messages = page
        for message in messages:
            if message.number in self._mine:
                continue
            try:
                if isinstance(message, Unreadable):
                    self._runner.damaged(message)
                else:
                    self._found(message)
                    if message.number in self._outrun:
                        self._runner.read_again(message.number)
                    else:
                        self._runner.adopt(message, self._runner.active_queues, True)
            except Exception:  # noqa: BLE001  one that cannot be taken up keeps no other from its delivery
                self.log.failure("the queue cannot take up entry {number}", number=message.number)
        if self._after >= self._up_to:
            self._runner.recover_with(None)
        self._reading = False
        self._runner.pump()

    def _fail(self, failure: Failure) -> None:
        if failure.check(StorageDamaged):
            return  # that is told, and does not mend itself
        self.log.failure("the queue could not read what an earlier run left; it tries again", failure)
        self._call_later(AGAIN_SECONDS, self._again)

    def _again(self) -> None:
        self._reading = False
        self._runner.changed()

    def _stumbled(self, failure: Failure) -> None:
        self.log.failure("the recovery of the queue stumbled; it goes on", failure)
        self._call_later(AGAIN_SECONDS, self._again)
