"""Looks through Maildirs for messages that their users have moved into Junk, or out of it.  All functions here block.

What stands in Junk may have been put there by the filters.  So a file counts as moved there only where it was written well before
the last look, and did not stand there then.  Out of Junk is moved what stood there at the last look and stands in another folder
now: under its name, or as the same file (Dovecot gives a moved message another name).  The first look at a mailbox teaches
nothing.

Users may have put anything there: no link is followed, each level is opened from the one above it.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote

from mailserver.state_store.learnt_file import Swept
from mailserver.trust.tokens import start_of

__all__ = ["Moved", "MailboxPaths", "Mark", "TooManyFiles", "look", "mark_of"]

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
PARTS = ("new", "cur")
WRITTEN_BEFORE_SECONDS = 30  # a delivery writes its file, syncs it perhaps, and renames it into Junk
JUNK_MOST = 20_000  # files in Junk
FILES_MOST = 500_000  # files of a mailbox that are looked at in search of those that have left Junk
FOLDERS_MOST = 2000
PLACEHOLDER = re.compile(r"\{(user|domain)\}")

Mark = tuple[int, int]  # when Junk's two directories changed last (ns), 0 for one that is not there
Facts = tuple[int, int, int]  # inode, octets, when it was written (ns)


class TooManyFiles(OSError):
    """There are more files than are looked at."""


class MailboxPaths:
    """The Maildirs below a path such as ``{data}/mail/{domain}/{user}``, and whose they are.  Raises ValueError."""

    def __init__(self, template: str, data_directory: str) -> None:
        path = template.replace("{data}", data_directory.rstrip("/"), 1) if template.startswith("{data}/") else template
        if not path.startswith("/") or "{user}" not in path:
            raise ValueError("the path begins with / or {data}/ and has {user}")
        fixed = PLACEHOLDER.split(path)[0]
        self.root = fixed[: fixed.rfind("/")] or "/"
        self.has_domain = "{domain}" in path
        levels = path[len(self.root.rstrip("/")) + 1 :].rstrip("/").split("/")
        self._levels = [_pattern(level) for level in levels]

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """Owner (``user@domain``, or ``user`` where the path has no domain) and path.  OSError where the root cannot be read."""
        return self._below(self.root, 0, {})

    def _below(self, folder: str, level: int, known: Mapping[str, str]) -> Iterator[tuple[str, str]]:
        if level == len(self._levels):
            user, domain = unquote(known["user"]), unquote(known.get("domain", ""))
            yield (f"{user}@{domain}" if self.has_domain else user), folder
            return
        try:
            with os.scandir(folder) as entries:
                names = sorted([one.name for one in entries if _is_text(one.name) and one.is_dir(follow_symlinks=False)])
        except OSError:
            if not level:
                raise
            return
        for name in names:
            found = self._levels[level].fullmatch(name)
            if found is not None and all(known.get(key, value) == value for key, value in found.groupdict().items()):
                yield from self._below(os.path.join(folder, name), level + 1, {**known, **found.groupdict()})


def _pattern(level: str) -> re.Pattern[str]:
    """Of one level of the path: what stands for user and domain there."""
    pieces, seen = PLACEHOLDER.split(level), set()
    pattern = ""
    for n, piece in enumerate(pieces):
        if n % 2 == 0:
            pattern += re.escape(piece)
        else:
            pattern += f"(?P={piece})" if piece in seen else f"(?P<{piece}>.+)"
            seen.add(piece)
    return re.compile(pattern)


@dataclass(slots=True)
class Moved:
    """What a look has found: the messages' octets, lines ending with CRLF, and how the mailbox stands with these learnt.

    `is_all` is False where there are more, for the next look.
    """

    swept: Swept
    spam: list[bytes] = field(default_factory=list)
    ham: list[bytes] = field(default_factory=list)
    is_all: bool = True


def mark_of(path: str, junk: str) -> Mark:
    """By which it is seen whether Junk has changed."""
    times = []
    for part in PARTS:
        try:
            times.append(os.stat(f"{path}/.{junk}/{part}", follow_symlinks=False).st_mtime_ns)
        except OSError:
            times.append(0)
    return times[0], times[1]


def look(
    path: str, before: Swept | None, *, now: float, junk: str, trash: Collection[str], most: int,
    go_on: Callable[[], bool] = lambda: True,
) -> Moved:  # fmt: skip
    """Look at a mailbox, `now` in seconds since the epoch.  At most so many messages are read.

    Raises OSError where it cannot be read, `TooManyFiles`.
    """
    with contextlib.ExitStack() as opened:
        maildir = os.open(path, DIRECTORY)
        opened.callback(os.close, maildir)
        there = dict(_files(maildir, f".{junk}", JUNK_MOST))
        facts = {name: one.facts for name, one in there.items()}
        moved = Moved(Swept(now, facts))
        if before is None or before.at > now:  # the first look, or somebody has set the clock back
            return moved
        _moved_in(maildir, there, before, moved, facts, most, go_on)
        gone = {name: one for name, one in before.junk.items() if name not in there}
        still = {one.facts[0] for one in there.values()}
        gone = {name: one for name, one in gone.items() if one[0] not in still}  # else it has another name there
        if gone:
            _moved_out(maildir, gone, moved, facts, [*_folders(maildir, junk, trash)], most - len(moved.spam), go_on)
        return moved


def _moved_in(
    maildir: int, there: Mapping[str, _File], before: Swept, moved: Moved, stands: dict[str, Facts], most: int,
    go_on: Callable[[], bool],
) -> None:  # fmt: skip
    known = {one[0] for one in before.junk.values()}
    last = (before.at - WRITTEN_BEFORE_SECONDS) * 1e9
    for name, one in there.items():
        if name in before.junk or one.facts[0] in known or one.facts[2] >= last:
            continue
        if len(moved.spam) >= most or not go_on():
            moved.is_all = False
            del stands[name]  # the next look comes upon it
            continue
        octets = _read(maildir, one)
        if octets is not None:
            moved.spam.append(octets)


def _moved_out(
    maildir: int, gone: Mapping[str, Facts], moved: Moved, stands: dict[str, Facts], folders: Collection[str], most: int,
    go_on: Callable[[], bool],
) -> None:  # fmt: skip
    """What is gone, and stands nowhere else, was deleted."""
    by_inode = {one[0]: (name, one) for name, one in gone.items()}
    left = FILES_MOST
    for folder in folders:
        for name, one in _files(maildir, folder, left, of=lambda name, inode: name in gone or inode in by_inode):
            left -= 1
            if name not in gone and by_inode[one.facts[0]][1] != one.facts:
                continue  # another file has got its number since
            if len(moved.ham) >= most or not go_on():
                moved.is_all = False
                was = name if name in gone else by_inode[one.facts[0]][0]
                stands[was] = gone[was]  # as if it stood there still
                continue
            octets = _read(maildir, one)
            if octets is not None:
                moved.ham.append(octets)


@dataclass(frozen=True, slots=True)
class _File:
    folder: str  # below the Maildir, "" for the inbox
    part: str
    entry: str
    facts: Facts


def _folders(maildir: int, junk: str, trash: Collection[str]) -> Iterator[str]:
    """The inbox, and all folders but Junk, Trash and those below them."""
    yield ""
    beside = tuple([f".{one}" for one in (junk, *trash)])
    with os.scandir(maildir) as entries:
        names = [one.name for one in entries if one.name.startswith(".") and one.is_dir(follow_symlinks=False)]
    for name in sorted(names)[:FOLDERS_MOST]:
        if name not in (".", "..") and not any(name == one or name.startswith(f"{one}.") for one in beside):
            yield name


def _files(
    maildir: int, folder: str, most: int, of: Callable[[str, int], bool] = lambda name, inode: True
) -> Iterator[tuple[str, _File]]:
    """The files of a folder by name, without the flags that a mail program sets.  A folder that is not there has none."""
    count = 0
    for part in PARTS:
        with contextlib.ExitStack() as opened:
            try:
                directory = maildir
                for name in filter(None, (folder, part)):
                    directory = os.open(name, DIRECTORY, dir_fd=directory)
                    opened.callback(os.close, directory)
            except (FileNotFoundError, NotADirectoryError):
                continue
            with os.scandir(directory) as entries:
                for entry in entries:
                    count += 1
                    if count > most:
                        raise TooManyFiles(f"more than {most} files in {folder or 'the inbox'}")
                    name = entry.name.partition(":")[0]
                    if not _is_text(name) or not of(name, entry.inode()):
                        continue
                    with contextlib.suppress(OSError):  # it has gone meanwhile
                        found = entry.stat(follow_symlinks=False)
                        if stat.S_ISREG(found.st_mode):
                            yield name, _File(folder, part, entry.name, (found.st_ino, found.st_size, found.st_mtime_ns))


def _is_text(name: str) -> bool:
    """A file that a mail program shows, whose name can be kept."""
    return not name.startswith(".") and (name.isascii() or not any("\ud800" <= one <= "\udfff" for one in name))


def _read(maildir: int, one: _File) -> bytes | None:
    """The start of a message; None where it cannot be read, or is another file by now."""
    with contextlib.suppress(OSError), contextlib.ExitStack() as opened:
        directory = maildir
        for name in filter(None, (one.folder, one.part)):
            directory = os.open(name, DIRECTORY, dir_fd=directory)
            opened.callback(os.close, directory)
        file = os.open(one.entry, FILE, dir_fd=directory)
        opened.callback(os.close, file)
        found = os.fstat(file)
        if stat.S_ISREG(found.st_mode) and found.st_ino == one.facts[0]:
            return start_of(file)
    return None
