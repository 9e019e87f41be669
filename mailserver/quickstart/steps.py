"""The steps of quickstart: each knows what is there, makes what is missing, and takes away what it has made.

`make` may be called again where an earlier call was cut off anywhere; `before` is what `found` said before the first of them.
`undo` returns why something stays, "" where all is gone.  Both raise OSError.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from mailserver.mail.durable import replace_file, sync_directory
from mailserver.processes.identity import as_owner_of
from mailserver.quickstart.ledger import StepRecord, missing_folders

__all__ = [
    "FileStep", "FolderStep", "Marks", "QuickStep", "changed_since", "clear_drafts", "digests_below", "removed",
]  # fmt: skip

Marks = Mapping[str, Any]
FILE_OCTETS = 1 << 24
FILE_MODE = 0o644


class QuickStep(Protocol):
    """A step.  `name` is its name in the ledger, `words` say what it makes."""

    @property
    def name(self) -> str: ...

    @property
    def words(self) -> str: ...

    def is_there(self) -> bool: ...

    def found(self) -> Marks: ...

    def make(self, before: Marks) -> Marks: ...

    def undo(self, record: StepRecord) -> str: ...


class FolderStep:
    """A folder, with those above it that are missing.  `owner` is asked for user and group when it is made."""

    def __init__(self, name: str, path: str, mode: int, owner: Callable[[], tuple[int, int]]) -> None:
        self.name = name
        self.words = f"the folder {path} (mode {mode:04o})"
        self._path = path
        self._mode = mode
        self._owner = owner

    def is_there(self) -> bool:
        """A folder of whoever it shall be.  Raises OSError for one of somebody else."""
        try:
            found = os.stat(self._path)
        except FileNotFoundError:
            return False
        if not stat.S_ISDIR(found.st_mode):
            raise NotADirectoryError(20, "is no folder", self._path)
        return found.st_uid == self._owner()[0]

    def found(self) -> Marks:
        """Which folders are missing.  Raises OSError where it is there and is not ours."""
        missing = missing_folders(self._path)
        if not missing and (uid := os.stat(self._path).st_uid) != self._owner()[0]:
            raise PermissionError(13, f"belongs to another user ({uid}): say where else it shall be", self._path)
        return {"missing": missing}

    def make(self, before: Marks) -> Marks:
        """Make it."""
        for folder in before["missing"]:
            with contextlib.suppress(FileExistsError):
                os.mkdir(folder, self._mode if folder == self._path else 0o755)
        if not os.path.isdir(self._path):
            os.mkdir(self._path, self._mode)
        fd = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            uid, gid = self._owner()
            if os.fstat(fd).st_uid != uid:
                os.fchown(fd, uid, gid)
            os.fchmod(fd, self._mode)
        finally:
            os.close(fd)
        for folder in before["missing"] or [self._path]:
            sync_directory(os.path.dirname(folder))
        return {}

    def undo(self, record: StepRecord) -> str:
        """Remove what was made, where it is empty."""
        for folder in reversed(record.before["missing"]):
            if not os.path.lexists(folder):  # rmdir(2) may say another reason first, such as a disk that is read only
                continue
            try:
                os.rmdir(folder)
            except FileNotFoundError:
                continue
            except OSError:
                if folder != self._path:
                    return ""  # somebody else uses it by now
                names = sorted(os.listdir(folder))
                return f"{folder} stays: it has {', '.join(names[:5])}{', …' if len(names) > 5 else ''} in it"
        return ""


class FileStep:
    """A file with a text of ours.  `may_replace` says whether a text that is there already is nobody's."""

    def __init__(self, name: str, path: str, text: str, *, may_replace: Callable[[str], bool] = lambda text: False) -> None:
        self.name = name
        self.words = path
        self._path = path
        self._text = text
        self._may_replace = may_replace

    def is_there(self) -> bool:
        """A file that is not nobody's."""
        text = self._read()
        return text is not None and not self._may_replace(text)

    def found(self) -> Marks:
        """What it takes the place of."""
        mode = stat.S_IMODE(os.stat(self._path).st_mode) if os.path.exists(self._path) else 0
        return {"original": self._read(), "mode": mode, "digest": _digest(self._text.encode())}

    def make(self, before: Marks) -> Marks:
        """Put it in place."""
        clear_drafts(self._path)
        replace_file(self._path, self._text, lambda fd: os.fchmod(fd, FILE_MODE))
        return {"digest": _digest(self._text.encode())}

    def undo(self, record: StepRecord) -> str:
        """Put back what was there, where it is as it was made."""
        clear_drafts(self._path)
        text, original = self._read(), record.before["original"]
        if text is None or text == original:
            return ""
        if _digest(text.encode()) != (record.marks or record.before)["digest"]:
            return changed_since(self._path)
        if original is None:
            os.unlink(self._path)
            sync_directory(os.path.dirname(self._path))
        else:
            mode = record.before["mode"]
            replace_file(self._path, original, lambda fd: os.fchmod(fd, mode))
        return ""

    def _read(self) -> str | None:
        try:
            with open(self._path, encoding="utf-8", errors="surrogateescape", newline="") as file:
                return file.read(FILE_OCTETS)
        except FileNotFoundError:
            return None


def changed_since(path: str) -> str:
    """Why a file stays."""
    return f"{path} stays: it was changed since"


def clear_drafts(path: str) -> None:
    """Remove what writers that were killed have left beside a file (`replace_file`)."""
    for draft in glob.glob(f"{glob.escape(path)}.[0-9]*.new"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(draft)


def _digest_of(path: str) -> str:
    """The SHA-256 of a file, "" where it is not there.  Links are not followed."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return ""
    with open(fd, "rb") as file:
        return _digest(file.read(FILE_OCTETS))


def digests_below(folder: str, names: Sequence[str]) -> dict[str, str]:
    """Those of the files of these names that are there."""
    found = {name: _digest_of(os.path.join(folder, name)) for name in names}
    return {name: digest for name, digest in found.items() if digest}


def removed(folder: str, wanted: Mapping[str, str], folders: Sequence[str], owner: str) -> str:
    """Remove these files below `folder`, if each is as it was made; then `folders`, if empty.  Acts as the owner of `owner`."""
    with as_owner_of(owner):
        for name, digest in wanted.items():
            path = os.path.join(folder, name)
            if _digest_of(path) not in ("", digest):
                return changed_since(path)
        for name in wanted:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(folder, name))
        for one in folders:
            with contextlib.suppress(OSError):
                os.rmdir(one)
    return ""


def _digest(octets: bytes) -> str:
    return hashlib.sha256(octets).hexdigest()
