"""What was learnt, opened: the file and its key, in threads of their own.

A file that is damaged, a key that is missing or another one: the server goes on without, and says so once.  Each minute it looks
again, so that nothing has to be restarted once a person has helped.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import time
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from typing import Any, Literal, TypeVar

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from mailserver.api import Clock, NewThreads, RunInProcess, StorageBroken, StorageFault, StorageFull
from mailserver.filters.asked_together import AskedTogether
from mailserver.filters.opinions import Opinion, Told, opinion_of, opinions_on, read_told, recall
from mailserver.filters.token_memory import SubjectMessage, TokenMemory, TokenQuestion, TokensFound, look_up
from mailserver.filters.work_beside import WorkBeside
from mailserver.plugins.threads import AllHang, QueueFull
from mailserver.state_store.learnt_file import LearntFile, Lesson, Swept
from mailserver.trust.bayes import Said
from mailserver.trust.secret_key import secret_key
from mailserver.trust.tokens import reduced

__all__ = ["KEY_FILE", "Learnt", "file_of", "open_learnt"]

KEY_FILE = "bayes.key"
ROOM_OCTETS = 8 << 20  # without so much room nothing is learnt
EXPIRED_AT_ONCE = 20_000
DAY_SECONDS = 86_400
TOGETHER_MOST = 64  # messages that are looked up at once
SILENT: Sequence[Said | None] = ()

T = TypeVar("T")


def file_of(data_directory: str, name: str) -> str:
    """The file of the filter of this name."""
    return os.path.join(data_directory, "bayes.db" if name == "bayes" else f"bayes-{name}.db")


def open_learnt(path: str, keys_directory: str) -> tuple[LearntFile, bytes]:
    """The file and its key; what is missing is made.  Blocks.  Raises `StorageFault`."""
    try:
        key = secret_key(keys_directory, KEY_FILE)
    except OSError as error:
        raise StorageBroken(f"the key {os.path.join(keys_directory, KEY_FILE)}: {error.strerror or error}") from error
    file = LearntFile.open(path)
    try:
        wanted, mark = blake2b(key=key, person=b"mark").digest(), file.mark("key")
        if mark is None and not file.owners():
            file.put_mark("key", wanted)
        elif mark is None or not hmac.compare_digest(mark, wanted):
            words = f"{path} was learnt with another key than the one in {KEY_FILE}: put that back, or move the file away"
            raise StorageBroken(words)
    except BaseException:
        file.close()
        raise
    return file, key


class Learnt:
    """`fault` says why nothing can be read, "" where it can.  `opened` counts how often the file was opened."""

    log = Logger()

    def __init__(
        self, *, path: str, keys_directory: str, hostname: str, new_threads: NewThreads, room_for: Callable[[int], bool],
        clock: Clock, vocabulary_most: int, minimum: int, own_weight: float, run_in_process: RunInProcess | None = None,
        steady_seconds: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self.fault = "it is not open yet"
        self.key = b""
        self.opened = 0
        self._path = path
        self._keys_directory = keys_directory
        self._hostname = hostname
        self._room_for = room_for
        self._clock = clock
        self._vocabulary_most = vocabulary_most
        self._minimum = minimum
        self._own_weight = own_weight
        self._reading = new_threads("bayes", 1)
        self._writing = new_threads("bayes learning", 1)
        self._reader: LearntFile | None = None
        self._writer: LearntFile | None = None
        self._inode: tuple[int, int] | None = None
        self._told = ""
        self._memory = TokenMemory()
        self._together = AskedTogether(self._look_up, most=TOGETHER_MOST)
        self._run_in_process = run_in_process
        self.beside: WorkBeside[tuple[SubjectMessage, tuple[str, ...]], Told] | None = None
        if run_in_process is not None:
            self.beside = WorkBeside("what was learnt", self._ask_beside, read_told, seconds=steady_seconds)
        # Whether all owners together have learnt too little for any opinion; None: to be found out.  `_changes` counts the
        # beginnings and ends of what is written: an answer from before one of them says nothing of what is there behind it.
        self._too_few: bool | None = None
        self._changes = 0

    # --- Life. ---

    async def look(self) -> None:
        """Open it where it is not open; anew where another file, or none, stands in its place.  Never raises."""
        try:
            if self._writer is not None and self._inode != await self._writing.run(_inode_of, self._path):
                self.log.warn("{path} has gone, or is another file: it is opened anew", path=self._path)
                await self._close()
            if self._writer is None:
                self._writer, self.key = await self._writing.run(open_learnt, self._path, self._keys_directory)
                self._inode = await self._writing.run(_inode_of, self._path)
                self._reader = await self._reading.run(_reader_of, self._path)
                if self._told:
                    self.log.info("{path} can be read again", path=self._path)
                self.fault = self._told = ""
                self._has_changed()
                self.opened += 1
            else:
                self._has_changed()  # the server's next generation, or a person, may have written
        except (StorageFault, OSError) as error:
            await self._failed(error)

    async def close(self) -> None:
        """Close it; what is being learnt comes to its end first."""
        await self._close()
        self._reading.stop()
        self._writing.stop()

    async def _close(self) -> None:
        self.fault = "it is not open"
        reader, self._reader = self._reader, None
        writer, self._writer = self._writer, None
        if reader is not None:
            await self._reading.run(reader.close)
        if writer is not None:
            await self._writing.run(writer.close)

    async def _failed(self, error: Exception) -> None:
        words = str(error)
        if isinstance(error, StorageFull):
            if words != self._told:
                self.log.warn("nothing more is learnt: {error}", error=words)
        else:
            await self._close()
            self.fault = words
            if words != self._told:
                self.log.error("messages get no score of what was learnt: {error}", error=words)
        self._told = words

    # --- Reading. ---

    async def opinion(self, subject: SubjectMessage, owners: Sequence[str]) -> Opinion | None:
        """What the first of these owners who has learnt something, and the site, say; None where too little was learnt.

        Raises `StorageFault`, and OSError where the message cannot be read.
        """
        if self._reader is not None and self._too_few:
            return None  # a thread for each message of a site that has learnt nothing yet would be dear
        changes = self._changes
        found = await self._opinion(subject, tuple(owners))
        if found is None and self._too_few is None:
            too_few = await self._asked(_has_too_few, self._minimum)
            if changes == self._changes:
                self._too_few = too_few
        return found

    async def _opinion(self, subject: SubjectMessage, owners: tuple[str, ...]) -> Opinion | None:
        if self._reader is not None:
            with contextlib.suppress(KeyError):
                whose = self._memory.whose(owners)
                if whose is None or whose.number in subject.opinions:
                    return None if whose is None else subject.opinions[whose.number]
            if self.beside is not None and subject.tokens is None and subject.can_be_sent:
                changes, asked = self._changes, self.beside.ask((subject, owners))
                told = None if asked is None else await asked
                if told is not None and (told[0] is None or told[0].own in ("", *owners)):
                    whose, opinion = told
                    if changes == self._changes:
                        self._memory.keep_whose(owners, whose)
                    return None if whose is None else subject.opinions.setdefault(whose.number, opinion)
        return await self._opinion_here(subject, owners)

    async def _opinion_here(self, subject: SubjectMessage, owners: tuple[str, ...]) -> Opinion | None:
        changes, missing, said = self._changes, subject.read_at_once(), SILENT
        if self._reader is not None and missing is not None:
            try:
                whose = self._memory.whose(owners)
            except KeyError:
                pass
            else:
                if whose is None:
                    return None
                said, missing = recall(self._memory, whose, missing)
                if not missing:
                    return opinion_of(subject, whose, said)
        found = await self._together.ask(TokenQuestion(subject, owners, missing))
        if changes != self._changes and said:
            # What was remembered may be another one's by now: all is asked for.
            missing, said = None, SILENT
            found = await self._together.ask(TokenQuestion(subject, owners, None))
        if found.whose is None:
            return None
        asked = subject.read() if missing is None else missing  # they are there
        return opinion_of(subject, found.whose, [*said, *map(found.strengths.__getitem__, asked)])

    def _look_up(self, questions: Sequence[TokenQuestion]) -> Deferred[Sequence[TokensFound | Exception]]:
        return Deferred.fromCoroutine(self._looked_up(questions))

    async def _looked_up(self, questions: Sequence[TokenQuestion]) -> Sequence[TokensFound | Exception]:
        changes = self._changes
        answers = await self._asked(look_up, questions, self.key, self._minimum, self._own_weight)
        if changes == self._changes:
            self._memory.keep(questions, answers)
        return answers

    def _ask_beside(
        self, questions: Sequence[tuple[SubjectMessage, tuple[str, ...]]], seconds: float
    ) -> Deferred[Any]:
        """Each message is sent once, however many ask about it."""
        assert self._run_in_process is not None
        numbers: dict[SubjectMessage, int] = {}
        asked = [(numbers.setdefault(subject, len(numbers)), owners) for subject, owners in questions]
        return self._run_in_process(
            opinions_on, [subject.octets() for subject in numbers], asked, self._path, self.opened, self._changes, self.key,
            self._minimum, self._own_weight, seconds=seconds,
        )  # fmt: skip

    async def owners(self, name: str | None = None) -> list[dict[str, Any]]:
        """What each owner has learnt, or the one of this name.  Raises `StorageFault`."""
        return await self._asked(_described, None if name is None else [name])

    async def _asked(self, function: Callable[..., T], *arguments: Any) -> T:
        reader = self._reader
        if reader is None:
            raise StorageBroken(self.fault)
        try:
            return await self._reading.run(function, reader, *arguments)
        except (AllHang, QueueFull) as error:
            raise StorageBroken(f"{self._path}: the disk does not answer: {error}") from error
        except StorageFault as error:
            await self._failed(error)
            raise

    # --- Learning. ---

    async def learn(
        self, owner: str, lessons: Sequence[Lesson], swept: Swept | None = None, mailbox: str = ""
    ) -> list[str]:
        """What came of each, as `LearntFile.learn` says.  Raises `StorageFault`."""
        if lessons and not self._room_for(ROOM_OCTETS):
            raise StorageFull("the disk has too little room to learn anything")
        return await self._written(
            lambda file: file.learn(
                owner, lessons, now=self._clock.seconds(), vocabulary_most=self._vocabulary_most, swept=swept, mailbox=mailbox
            ),
            learns=bool(lessons),
        )

    async def drop_owner(self, owner: str) -> bool:
        """Forget everything of an owner.  Whether there was anything.  Raises `StorageFault`."""
        return await self._written(lambda file: file.drop_owner(owner))

    @property
    def is_there(self) -> bool:
        """There is a file: else nobody has learnt anything."""
        return os.path.exists(self._path)

    async def drop_owners(self, name_of: Callable[[str], str | None]) -> None:
        """Forget everything of those for whom `name_of` has a name.  Raises `StorageFault`."""

        def drop(file: LearntFile) -> None:
            for owner in file.known():
                if name_of(owner) is not None:
                    file.drop_owner(owner)

        await self._written(drop)

    async def follow(self, name_of: Callable[[str], str | None], stage: Literal["begin", "complete", "undo"]) -> None:
        """Owners are called as `name_of` says; None: as before.  The stages are `IAccountFollower`'s.  Raises `StorageFault`."""
        if stage == "begin" and not self._room_for(ROOM_OCTETS):
            raise StorageFull("the disk has too little room")

        def rename(file: LearntFile) -> None:
            for owner in file.known():
                new = name_of(owner)
                if new is not None and new != owner:
                    {"begin": file.copy_owner, "complete": file.move_owner, "undo": file.drop_copy}[stage](owner, new)

        await self._written(rename)

    async def grow_older(self) -> None:
        """An hour has passed.  Raises `StorageFault`."""
        await self._written(LearntFile.grow_older, learns=False)

    async def expire(self, seconds: float) -> int:
        """Drop a part of what nobody has learnt for so long.  Raises `StorageFault`."""
        return await self._written(lambda file: file.expire(days=seconds / DAY_SECONDS, most=EXPIRED_AT_ONCE))

    async def mailbox(self, owner: str) -> Swept | None:
        """As the owner's mailbox was when it was looked at last.  Raises `StorageFault`."""
        return await self._written(lambda file: file.mailbox(owner), learns=False)

    async def put_mailboxes(self, times: Mapping[str, float]) -> None:
        """Mailboxes stood at these times as before.  Raises `StorageFault`."""
        await self._written(lambda file: file.put_mailboxes(times), learns=False)

    async def _written(self, work: Callable[[LearntFile], T], *, learns: bool = True) -> T:
        """`learns`: what is remembered of the file may not hold any more."""
        writer = self._writer
        if writer is None:
            raise StorageBroken(self.fault)
        if learns:
            self._has_changed()
        try:
            return await self._writing.run(work, writer)
        except (AllHang, QueueFull) as error:
            raise StorageBroken(f"{self._path}: the disk does not answer: {error}") from error
        except StorageFault as error:
            await self._failed(error)
            raise
        finally:
            if learns:
                self._has_changed()

    def _has_changed(self) -> None:
        self._changes += 1
        self._too_few = None
        self._memory.clear()

    def lesson(self, kind: Any, octets: bytes) -> Lesson:
        """A message as it is learnt; in any thread."""
        message, _ = reduced(octets, self.key, self._hostname)
        return Lesson(kind, message.digest, message.hashes, message.id)


def _has_too_few(file: LearntFile, minimum: int) -> bool:
    """All owners' learning together would not be enough."""
    rows = file.owners()
    return sum([one.spam for one in rows]) < minimum or sum([one.ham for one in rows]) < minimum


def _inode_of(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _reader_of(path: str) -> LearntFile:
    return LearntFile.open(path, writes=False)


def _described(file: LearntFile, names: Sequence[str] | None) -> list[dict[str, Any]]:
    return [
        {
            "owner": one.name or "site",
            "spam": one.spam,
            "ham": one.ham,
            "tokens": file.vocabulary(one.number),
            "learnt": one.learnt,
        }
        for one in file.owners(names)
    ]
