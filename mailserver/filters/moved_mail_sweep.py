"""The looks through all mailboxes, from time to time: what was moved is learnt for its user.

A look learns a bounded number of messages; the mailboxes that it has not come to are the first ones of the next.  What is learnt
of a mailbox, and how it stood, are one transaction: neither a crash nor a failure makes it learn anything twice, or not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from twisted.logger import Logger

from mailserver.api import RunInThread
from mailserver.filters.learnt import Learnt
from mailserver.filters.learnt_commands import owner_of
from mailserver.filters.moved_mail import MailboxPaths, Mark, Moved, look, mark_of
from mailserver.state_store.learnt_file import Lesson, Swept

__all__ = ["MovedMailSweep"]

LOOK_SECONDS = 30.0  # of one run; then the next one goes on
SETTLED_SECONDS = 2.0  # a folder that has changed so lately may change again within the same tick of its clock
KEEP_TIME_SECONDS = 900.0  # how often it is written down that a mailbox has not changed
TOLD_MOST = 10_000


class MovedMailSweep:
    """`paths` are the mailboxes.  `spam` and `ham` say how many moved messages were learnt."""

    log = Logger()

    def __init__(
        self, learnt: Learnt, *, paths: MailboxPaths, junk: str, trash: Collection[str], most: int,
        seconds: Callable[[], float], steady_seconds: Callable[[], float], run_in_thread: RunInThread,
    ) -> None:  # fmt: skip
        self.paths = paths
        self.spam = self.ham = 0
        self._learnt = learnt
        self._junk = junk
        self._trash = tuple(trash)
        self._most = most
        self._seconds = seconds
        self._steady_seconds = steady_seconds
        self._run_in_thread = run_in_thread
        self._marks: dict[str, Mark] = {}
        self._unchanged: dict[str, float] = {}  # mailboxes that have not changed since they were written down
        self._next_times = 0.0
        self._opened = 0
        self._begin_with = ""
        self._told: set[tuple[str, str]] = set()
        self._is_stopped = False

    def stop(self) -> None:
        """The one that runs comes to its end."""
        self._is_stopped = True

    async def run(self) -> None:
        """One look at each mailbox, or at as many as there is time for.  Raises `StorageFault`."""
        until = self._steady_seconds() + LOOK_SECONDS
        if self._opened != self._learnt.opened:  # another file, perhaps, which knows of no mailbox
            self._opened = self._learnt.opened
            self._marks, self._unchanged = {}, {}
        try:
            mailboxes: Sequence[tuple[str, str]] = await self._run_in_thread(lambda: sorted(self.paths))
        except FileNotFoundError:  # nobody has had mail yet; `mailserver check` tells of another path than the delivery's
            return
        except OSError as error:
            self._tell(self.paths.root, error)
            return
        before = [one for one in mailboxes if one[0] < self._begin_with]
        left, self._begin_with = self._most, ""
        for name, path in [*mailboxes[len(before) :], *before]:
            if left <= 0 or self._is_stopped or self._steady_seconds() >= until:
                self._begin_with = name
                break
            try:
                left -= await self._looked_at(name, path, left, until)
            except (OSError, ValueError) as error:  # of this mailbox: the others are looked at all the same
                self._tell(path, error)
        await self._keep_times({name for name, _ in mailboxes})

    async def _looked_at(self, name: str, path: str, most: int, until: float) -> int:
        """How many messages were learnt."""
        now = self._seconds()
        mark = await self._run_in_thread(mark_of, path, self._junk)
        if self._marks.get(name) == mark:
            self._unchanged[name] = now
            return 0
        before = await self._learnt.mailbox(name)
        unchanged_at = self._unchanged.get(name)
        if before is not None and unchanged_at is not None and before.at < unchanged_at <= now:
            before = Swept(unchanged_at, before.junk)
        moved, lessons = await self._run_in_thread(self._found, path, before, now, most, until)
        came = await self._learnt.learn(_normal(name), lessons, moved.swept, name)
        self._unchanged.pop(name, None)
        for lesson, how in zip(lessons, came, strict=True):
            if how in ("new", "moved"):
                self.spam += lesson.kind == "spam"
                self.ham += lesson.kind == "ham"
        if lessons:
            self.log.info("{count} messages that {user} has moved are learnt", count=len(lessons), user=name)
        if moved.is_all and max(mark) < (now - SETTLED_SECONDS) * 1e9:
            self._marks[name] = mark
        else:
            self._marks.pop(name, None)
        self._told = {one for one in self._told if one[0] != path}
        return len(lessons)

    def _found(
        self, path: str, before: Swept | None, now: float, most: int, until: float
    ) -> tuple[Moved, list[Lesson]]:
        def go_on() -> bool:
            return not self._is_stopped and self._steady_seconds() < until

        moved = look(path, before, now=now, junk=self._junk, trash=self._trash, most=most, go_on=go_on)
        lessons = [self._learnt.lesson("spam", one) for one in moved.spam]
        return moved, lessons + [self._learnt.lesson("ham", one) for one in moved.ham]

    async def _keep_times(self, names: Collection[str]) -> None:
        if self._steady_seconds() < self._next_times:
            return
        self._next_times = self._steady_seconds() + KEEP_TIME_SECONDS
        times, self._unchanged = self._unchanged, {}
        self._marks = {name: mark for name, mark in self._marks.items() if name in names}
        if times:
            await self._learnt.put_mailboxes(times)

    def _tell(self, path: str, error: Exception) -> None:
        """Once, until it can be read again."""
        words = getattr(error, "strerror", "") or str(error)
        if (path, words) not in self._told and len(self._told) < TOLD_MOST:
            self._told.add((path, words))
            self.log.warn("what was moved is not learnt: {path}: {error}", path=path, error=words)


def _normal(name: str) -> str:
    """A user as recipients are looked up: the path may have him in another form."""
    try:
        return owner_of(name) or name
    except ValueError:
        return name
