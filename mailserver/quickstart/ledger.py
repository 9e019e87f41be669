"""What quickstart has made and is about to make, on the disk before each step.

So a failure takes it all away again, a kill is completed by the next run, and ``--undo`` knows what is its own.

    /etc/mailserver/mailserver.toml.quickstart     beside the configuration, root's alone: what it says is removed as root

One JSON object a line.  The first says what was asked for and which folders were made for the file itself; then each step twice,
``begun`` with what was there before and ``made`` with the marks of what it has made; ``done`` once the person was told all.
A last line without its end is a write that was cut off, and counts as none.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from mailserver.mail.durable import sync_directory
from mailserver.quickstart.wishes import HouseWishes

__all__ = [
    "LedgerFault", "QuickLedger", "QuickLock", "StepRecord", "clear_begun", "ledger_path", "locked", "missing_folders",
    "open_ledger", "read_ledger",
]  # fmt: skip

SUFFIX = ".quickstart"
DRAFT = ".new-quickstart"
LEDGER_OCTETS = 1 << 22


class LedgerFault(OSError):
    """The ledger is of no use, or another program has it; the words say why, and nothing was touched."""


@dataclass(slots=True)
class StepRecord:
    """A step: `before` is what was found, `marks` what was made; None where it was begun and nobody knows how far it came."""

    name: str
    before: Mapping[str, Any]
    marks: Mapping[str, Any] | None = None


@dataclass(slots=True)
class QuickLedger:
    """The ledger of one configuration.  `folders` were made for it, the outermost first.

    `since_done` are the steps that were begun since a person was told all, `new` those of them that were never taken before.
    """

    path: str
    wishes: HouseWishes
    folders: tuple[str, ...] = ()
    steps: dict[str, StepRecord] = field(default_factory=dict)
    is_done: bool = False
    since_done: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)

    def begin(self, name: str, before: Mapping[str, Any]) -> None:
        """A step is about to be taken.  Raises OSError; then it must not be."""
        self._append({"step": name, "begun": dict(before)})
        self._note(name, before, None)

    def made(self, name: str, marks: Mapping[str, Any]) -> None:
        """It was."""
        self._append({"step": name, "made": dict(marks)})
        self._note(name, self.steps[name].before, marks)

    def undone(self, name: str) -> None:
        """What it has made is gone again."""
        self._append({"step": name, "undone": True})
        self._forget(name)

    def done(self) -> None:
        """All was made, and told."""
        self._append({"done": True})
        self.is_done, self.since_done, self.new = True, [], []

    def remove(self) -> None:
        """The ledger itself, and those of its folders that are empty.  Raises OSError."""
        os.unlink(self.path)
        sync_directory(os.path.dirname(self.path))
        for folder in reversed(self.folders):
            try:
                os.rmdir(folder)
            except OSError:
                return

    def _append(self, value: Mapping[str, Any]) -> None:
        line = (json.dumps(value) + "\n").encode()
        fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            end = os.fstat(fd).st_size
            try:
                if os.write(fd, line) != len(line):
                    raise OSError(errno.ENOSPC, "could not be written to its end", self.path)
                os.fsync(fd)
            except OSError:
                with contextlib.suppress(OSError):
                    os.ftruncate(fd, end)
                raise
        finally:
            os.close(fd)

    def take(self, value: Mapping[str, Any]) -> None:
        """A line of the file."""
        if value.get("done"):
            self.is_done, self.since_done, self.new = True, [], []
            return
        name = str(value["step"])
        if "begun" in value:
            self._note(name, value["begun"], None)
        elif "made" in value:
            self._note(name, self.steps[name].before, value["made"])
        else:
            self._forget(name)

    def _note(self, name: str, before: Mapping[str, Any], marks: Mapping[str, Any] | None) -> None:
        if name not in self.steps:
            self.new.append(name)
        self.steps[name] = StepRecord(name, before, marks)
        if name not in self.since_done:
            self.since_done.append(name)

    def _forget(self, name: str) -> None:
        self.steps.pop(name, None)
        for names in (self.since_done, self.new):
            if name in names:
                names.remove(name)


def ledger_path(config: str) -> str:
    """Where the ledger of a configuration file is."""
    return config + SUFFIX


def read_ledger(config: str) -> QuickLedger | None:
    """The ledger, None where there is none.  Raises OSError, `LedgerFault` for one that cannot be understood."""
    path = ledger_path(config)
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    with open(fd, "rb+") as file:
        found = os.fstat(fd)
        if found.st_uid not in (0, os.geteuid()) or found.st_mode & 0o022:
            raise LedgerFault(f"{path} may be written by others: what it says is not done")
        octets = file.read(LEDGER_OCTETS)
        whole = octets[: octets.rfind(b"\n") + 1]
        if whole != octets:
            file.truncate(len(whole))
    try:
        first, *lines = [json.loads(line) for line in whole.splitlines()]
        ledger = QuickLedger(path, HouseWishes.of_plain(first["wishes"]), tuple(map(str, first["folders"])))
        for line in lines:
            ledger.take(line)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise LedgerFault(f"{path} cannot be understood ({error}): what it names has to be looked at by hand") from error
    return ledger


def open_ledger(wishes: HouseWishes, folder_mode: int, lock: QuickLock) -> QuickLedger:
    """A new ledger, with the folders that it needs.  They come into being with it, in one step, and are locked then.

    Raises OSError.
    """
    path = ledger_path(wishes.config)
    missing = missing_folders(os.path.dirname(path))
    ledger = QuickLedger(path, wishes, tuple(missing))
    text = json.dumps({"quickstart": 1, "wishes": wishes.plain, "folders": missing}) + "\n"
    draft = _draft_of(path)
    _clear(draft)
    try:
        if not missing:
            _write(draft, text)
        else:
            inner = draft + os.path.dirname(path)[len(missing[0]) :]
            os.mkdir(draft, folder_mode)
            os.makedirs(inner, folder_mode, exist_ok=True)
            for folder in (draft, *[draft + one[len(missing[0]) :] for one in missing[1:]]):
                os.chmod(folder, folder_mode)
            _write(os.path.join(inner, os.path.basename(path)), text)
            sync_directory(inner)
            lock.take(inner)  # before anybody can see it: who comes next looks there
        os.rename(draft, missing[0] if missing else path)
    except BaseException:
        with contextlib.suppress(OSError):
            _clear(draft)
        raise
    sync_directory(os.path.dirname(missing[0] if missing else path))
    return ledger


def clear_begun(config: str) -> bool:
    """Take away what a run has left that was killed before there was a ledger; whether there was something.  Raises OSError."""
    draft = _draft_of(ledger_path(config))
    is_there = os.path.lexists(draft)
    _clear(draft)
    return is_there


class QuickLock:
    """One quickstart at a time, by locks on folders: the innermost that is there, and the one that takes its place."""

    def __init__(self) -> None:
        self._fds: list[int] = []

    def take(self, folder: str) -> None:
        """Raises BlockingIOError where somebody else has it, and OSError."""
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._fds.append(fd)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def release(self) -> None:
        """Let all go."""
        while self._fds:
            os.close(self._fds.pop())


@contextlib.contextmanager
def locked(config: str) -> Iterator[QuickLock]:
    """One quickstart at a time.  Raises `LedgerFault` where one runs."""
    lock = QuickLock()
    try:
        taken = ""
        while taken != (folder := _innermost(os.path.dirname(config))):  # another one may have made or removed some meanwhile
            try:
                lock.take(folder)
            except FileNotFoundError:
                continue
            except BlockingIOError:
                raise LedgerFault(f"another program is changing something in {folder}") from None
            taken = folder
        yield lock
    finally:
        lock.release()


def _innermost(folder: str) -> str:
    """The innermost of the folders that is there."""
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    return folder


def missing_folders(folder: str) -> list[str]:
    """This one and those above it that are not there, the outermost first."""
    missing: list[str] = []
    while not os.path.lexists(folder):
        missing.insert(0, folder)
        folder = os.path.dirname(folder)
    return missing


def _draft_of(path: str) -> str:
    """Where a ledger is made, beside the outermost of the folders that come into being with it."""
    return [*missing_folders(os.path.dirname(path)), path][0] + DRAFT


def _clear(path: str) -> None:
    """What a run that was killed has left of its first step."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)


def _write(path: str, text: str) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
