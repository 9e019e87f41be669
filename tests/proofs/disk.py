"""A disk that keeps what was synced and may lose all else: what stands on it when the power goes.

It is handed the events of a record (`trace`) and can at any moment write down, in a folder, one of the many states in which a
machine could find its disk:

* Content that was synced is there.  Of what was written since, each 4 KiB piece is there or not by itself, the last one perhaps torn
  at a sector; a file may have its new length without its new content (zeros).
* Names (created, renamed, removed) that were there when their folder was synced, or all was, are there.  Of later changes any
  number from the first on may be there (a journal), or any of them (none); a rename is whole or has not been.
* A sync that failed makes nothing durable, and what it did not write a later one does not write either.
* SQLite's shared memory has anything in it.
"""

from __future__ import annotations

import errno
import os
import random
from dataclasses import dataclass, field
from pathlib import Path

from tests.proofs.trace import (
    Create,
    Event,
    Link,
    MakeFolder,
    Remove,
    Rename,
    Said,
    Seek,
    Sync,
    SyncAll,
    Truncate,
    Unsure,
    Write,
)

__all__ = ["Disk", "Style"]

PAGE, SECTOR = 4096, 512
HOLE_MOST = 1 << 28
FOLDER = -1  # in place of a file's number


@dataclass(slots=True)
class Pending:
    """A change of a file's content that no sync has covered yet.  `data` None: the file's length becomes `offset`."""

    ended: int
    offset: int
    data: bytes | None
    doomed: bool = False
    grows_only: bool = False


@dataclass(slots=True)
class Content:
    """`size` octets: `data`, and zeros behind it, of which a sparse file has more than any memory."""

    data: bytearray = field(default_factory=bytearray)
    size: int = 0

    def put(self, one: Pending) -> None:
        """Make the change."""
        if one.data is None:
            if one.grows_only:
                self.size = max(self.size, one.offset)
            else:
                del self.data[one.offset :]
                self.size = one.offset
            return
        if one.offset > len(self.data) + HOLE_MOST:
            raise ValueError("something is written behind a large hole")
        if one.offset > len(self.data):
            self.data.extend(bytes(one.offset - len(self.data)))
        self.data[one.offset : one.offset + len(one.data)] = one.data
        self.size = max(self.size, len(self.data))

    def is_that_of(self, path: bytes) -> bool:
        """The file there holds the same.  Raises OSError."""
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size != self.size or file.read(len(self.data)) != self.data:
                return False
            if self.size - len(self.data) <= HOLE_MOST:
                return not any(file.read())
            try:
                return os.lseek(file.fileno(), len(self.data) + PAGE, os.SEEK_DATA) < 0
            except OSError as error:
                return error.errno == errno.ENXIO  # no more data


@dataclass(slots=True)
class File:
    durable: Content = field(default_factory=Content)
    pending: list[Pending] = field(default_factory=list)
    size: int = 0


@dataclass(slots=True)
class Change:
    """A change of names that no sync has covered yet: `gone` ends, `name` is `node` from then on."""

    ended: int
    gone: bytes | None
    name: bytes | None
    node: int

    def concerns(self, folder: bytes) -> bool:
        return any(path is not None and os.path.dirname(path) == folder for path in (self.gone, self.name))

    def apply(self, names: dict[bytes, int]) -> None:
        if self.gone is not None:
            names.pop(self.gone, None)
        if self.name is not None:
            names[self.name] = self.node


@dataclass(frozen=True, slots=True)
class Style:
    """How much of the unsynced survives: of names "none", "all", "journal" or "loose"; of content "none", "all", "first" or "pieces"."""

    names: str
    content: str

    @classmethod
    def draw(cls, chance: random.Random) -> Style:
        return cls(chance.choice(("none", "all", "journal", "journal", "loose")), chance.choice(("none", "all", "first", "pieces")))


class Disk:
    """`root` and what stands below it when the recording begins is durable."""

    def __init__(self, root: Path) -> None:
        self.root = os.fsencode(root)
        self.files: list[File] = []
        self.durable: dict[bytes, int] = {}
        self.changes: list[Change] = []
        self.names: dict[bytes, int] = {}
        self.unsure: set[bytes] = set()
        self._positions: dict[tuple[int, int], int | None] = {}  # (fd, file); None: at the end
        for folder, folders, files in os.walk(self.root):
            self.durable.update((os.path.join(folder, name), FOLDER) for name in folders)
            for name in files:
                with open(os.path.join(folder, name), "rb") as file:
                    data = bytearray(file.read())
                self.durable[os.path.join(folder, name)] = self._new(File(Content(data, len(data)), [], len(data)))
        self.names.update(self.durable)

    def _new(self, file: File) -> int:
        self.files.append(file)
        return len(self.files) - 1

    # --- what happens to it ---

    def apply(self, event: Event) -> None:
        match event:
            case Create():
                self._open(event)
            case Write(path=path, data=data):
                if path in self.names:
                    self._write(event, self.names[path], data)
            case Seek(path=path, fd=fd, position=position):
                node = self.names.get(path, FOLDER)
                if node != FOLDER and self._positions.get((fd, node), 0) is not None:
                    self._positions[fd, node] = position
            case Truncate(path=path, size=size):
                if path in self.names:
                    file = self.files[self.names[path]]
                    if not event.grows_only or size > file.size:
                        file.pending.append(Pending(event.ended, size, None, grows_only=event.grows_only))
                        file.size = size
            case Sync():
                self._sync(event)
            case SyncAll():
                for file in self.files:
                    self._settle(file, event.began)
                self._settle_names(event.began, None)
            case Rename(source=source, target=target):
                if source in self.names:
                    if self.names[source] == FOLDER:
                        raise ValueError(f"a folder is renamed: {source!r}")
                    self._change(Change(event.ended, source, target, self.names[source]))
            case Link(source=source, target=target):
                self._change(Change(event.ended, None, target, self.names[source]))
            case Remove(path=path):
                self._change(Change(event.ended, path, None, FOLDER))
            case MakeFolder(path=path):
                self._change(Change(event.ended, None, path, FOLDER))
            case Unsure(path=path):
                self.unsure.add(path)
            case Said():
                pass

    def _change(self, change: Change) -> None:
        change.apply(self.names)
        self.changes.append(change)

    def _open(self, event: Create) -> None:
        node = self.names.get(event.path)
        if node is None:
            if not event.may_create:
                return
            node = self._new(File())
            self._change(Change(event.ended, None, event.path, node))
        file = self.files[node]
        if event.empties and file.size:
            file.pending.append(Pending(event.ended, 0, None))
            file.size = 0
        self._positions[event.fd, node] = None if event.appends else 0

    def _write(self, event: Write, node: int, data: bytes) -> None:
        file = self.files[node]
        offset = event.offset
        if offset is None:
            position = self._positions.get((event.fd, node))
            offset = file.size if position is None else position
            if position is not None:
                self._positions[event.fd, node] = offset + len(data)
        file.pending.append(Pending(event.ended, offset, data))
        file.size = max(file.size, offset + len(data))

    def _sync(self, event: Sync) -> None:
        node = FOLDER if event.path == self.root else self.names.get(event.path)
        if node is None:
            return  # removed meanwhile
        if not event.worked:
            for one in self.files[node].pending if node != FOLDER else ():
                one.doomed = one.data is not None and one.ended < event.began
        elif node == FOLDER:
            self._settle_names(event.began, event.path)
        else:
            self._settle(self.files[node], event.began)

    def _settle(self, file: File, before: int) -> None:
        left: list[Pending] = []
        for one in file.pending:
            if one.ended < before and not one.doomed:
                file.durable.put(one)
                left = [piece for older in left for piece in without(older, one)]
            else:
                left.append(one)
        file.pending = left

    def _settle_names(self, before: int, folder: bytes | None) -> None:
        """Make durable what had changed in the folder (None: everywhere), with the earlier changes of the same names."""
        touched: set[bytes] = set()
        settled: set[int] = set()
        for index in reversed(range(len(self.changes))):
            change = self.changes[index]
            if change.ended >= before:
                continue
            mine = {path for path in (change.gone, change.name) if path is not None}
            if folder is None or change.concerns(folder) or mine & touched:
                touched |= mine
                settled.add(index)
        for index in sorted(settled):
            self.changes[index].apply(self.durable)
        self.changes = [change for index, change in enumerate(self.changes) if index not in settled]

    # --- what may be found on it ---

    def write_down(self, to: Path, style: Style, chance: random.Random) -> None:
        """One state of the disk, in the folder `to`, which is new."""
        names = dict(self.durable)
        if style.names == "all":
            kept = self.changes
        elif style.names == "journal":
            kept = self.changes[: chance.randint(0, len(self.changes))]
        elif style.names == "loose":
            kept = [change for change in self.changes if chance.random() < 0.5]
        else:
            kept = []
        for change in kept:
            change.apply(names)
        to.mkdir(mode=0o700, parents=True)
        for path in sorted(names):  # a folder comes before what is in it
            place = os.path.join(os.fsencode(to), path[len(self.root) + 1 :])
            if not os.path.isdir(os.path.dirname(place)):
                continue  # its folder was lost
            if names[path] == FOLDER:
                os.mkdir(place, 0o700)
                continue
            with open(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                if path.endswith(b"-shm"):
                    file.write(chance.randbytes(chance.choice((0, 100, 32768))))
                    continue
                content = self._content(names[path], style, chance)
                file.write(content.data)
                file.truncate(content.size)

    def _content(self, node: int, style: Style, chance: random.Random) -> Content:
        file = self.files[node]
        found = Content(bytearray(file.durable.data), file.durable.size)
        pending = file.pending
        if style.content == "none":
            pending = []
        elif style.content == "first":
            pending = pending[: chance.randint(0, len(pending))]
        for one in pending:
            if style.content != "pieces" or one.data is None:
                if style.content != "pieces" or chance.random() < 0.5:
                    found.put(one)
                continue
            for start in range(0, len(one.data), PAGE):
                if chance.random() < 0.5:
                    piece = one.data[start : start + PAGE]
                    if chance.random() < 0.2:  # torn
                        piece = piece[: chance.randrange(0, len(piece) + 1, SECTOR)]
                    found.put(Pending(0, one.offset + start, piece))
        if style.content != "all" and chance.random() < 0.3:
            found.size = max(found.size, file.size)
        return found

    def differences(self) -> list[str]:
        """Where what the disk should hold if nothing were lost differs from what the real folder holds; nothing, or the model is wrong.

        What a call that never came back meant is left out.
        """
        wrong = []
        all_of_it = Style("all", "all")
        for path, node in self.names.items():
            if path.endswith((b"-shm", b".sock")) or path in self.unsure:
                continue
            if node == FOLDER:
                if not os.path.isdir(path):
                    wrong.append(f"{path!r}: no folder")
                continue
            try:
                ours = self._content(node, all_of_it, random.Random(0))
                if not ours.is_that_of(path):
                    wrong.append(f"{path!r}: {ours.size} octets in the model, {os.stat(path).st_size} in the folder")
            except OSError as error:
                wrong.append(f"{path!r}: {error}")
        for folder, folders, files in os.walk(self.root):
            for name in [*folders, *files]:
                path = os.path.join(folder, name)
                if path not in self.names | dict.fromkeys(self.unsure) and os.path.isfile(path) and not path.endswith(b"-shm"):
                    wrong.append(f"{path!r}: not in the model")
        return wrong


def without(older: Pending, newer: Pending) -> list[Pending]:
    """What is left to be lost of a change that a sync has failed for, where a newer one has been synced over it."""
    if older.data is None or newer.data is None:
        return [older]
    begin, end = newer.offset, newer.offset + len(newer.data)
    before, after = older.data[: max(0, begin - older.offset)], older.data[max(0, end - older.offset) :]
    pieces = [(older.offset, before), (older.offset + len(older.data) - len(after), after)]
    return [Pending(older.ended, offset, data, older.doomed) for offset, data in pieces if data]
