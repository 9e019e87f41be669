"""What processes did to the files below a folder, in order, as strace(1) has recorded it.

`record` runs a command, and all that it starts, under strace.  `events` reads the record back.  A call has two positions, those of the
lines in which it began and ended: only what had ended before a sync began is covered by it.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.requires import require_tool

__all__ = [
    "Call", "Create", "Event", "Link", "MakeFolder", "Remove", "Rename", "Said", "Seek", "Sync", "SyncAll", "Truncate", "Unsure", "Write", "events", "record",
]  # fmt: skip

CHANGES = (
    "openat,open,creat,write,writev,pwrite64,pwritev,pwritev2,ftruncate,truncate,fallocate,fsync,fdatasync,syncfs,sync,"
    "rename,renameat,renameat2,link,linkat,unlink,unlinkat,mkdir,mkdirat,rmdir,symlink,symlinkat,sendfile,copy_file_range,splice,"
    "sync_file_range,chdir,fchdir,lseek,sendto,sendmsg"
)
HEX = rb"(?:\\x[0-9a-f]{2})*"
TOKEN = re.compile(
    rb"(?P<fd>\d+|AT_FDCWD)<(?P<path>" + HEX + rb")>(?P<deleted>\(deleted\))?"
    rb"|\"(?P<text>" + HEX + rb")\"(?P<cut>\.\.\.)?"
    rb"|(?P<word>[A-Z_a-z0-9|-]+)"
)
BEGUN = re.compile(rb"(\d+) +(\w+)\((.*)\Z", re.DOTALL)
RESUMED = re.compile(rb"(\d+) +<\.\.\. (\w+) resumed>(.*)\Z", re.DOTALL)
ENDED = re.compile(rb"\) += (-?\d+|\?)(?:<(" + HEX + rb")>)?[^=]*\Z")
EXITED = re.compile(rb"(\d+) +\+\+\+ exited with (\d+) \+\+\+\Z")
POSITIVE = re.compile(rb"^250[ -][^\r\n]*\r\n", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Call:
    """Lines of the record in which it began and ended; the process or thread."""

    began: int
    ended: int
    process: int


@dataclass(frozen=True, slots=True)
class Create(Call):
    """A file was opened that may be new.  `fd` is where its next write goes from the start."""

    path: bytes
    fd: int
    may_create: bool
    empties: bool
    appends: bool


@dataclass(frozen=True, slots=True)
class Write(Call):
    """`offset` None: where the descriptor stands."""

    path: bytes
    fd: int
    data: bytes
    offset: int | None


@dataclass(frozen=True, slots=True)
class Seek(Call):
    """The descriptor stands at `position` now."""

    path: bytes
    fd: int
    position: int


@dataclass(frozen=True, slots=True)
class Truncate(Call):
    path: bytes
    size: int
    grows_only: bool = False  # fallocate


@dataclass(frozen=True, slots=True)
class Sync(Call):
    """A file's content or a folder's names are on the disk; not `worked`: they may be gone, and a later sync does not bring them back."""

    path: bytes
    worked: bool


@dataclass(frozen=True, slots=True)
class SyncAll(Call):
    pass


@dataclass(frozen=True, slots=True)
class Rename(Call):
    source: bytes
    target: bytes


@dataclass(frozen=True, slots=True)
class Link(Call):
    source: bytes
    target: bytes


@dataclass(frozen=True, slots=True)
class Remove(Call):
    path: bytes


@dataclass(frozen=True, slots=True)
class MakeFolder(Call):
    path: bytes


@dataclass(frozen=True, slots=True)
class Said(Call):
    """What went into a socket, positive replies alone; or the end of a process: `text` is then ``exit N``."""

    text: bytes


@dataclass(frozen=True, slots=True)
class Unsure(Call):
    """A call that never came back, since its process was killed: it may have done its work."""

    path: bytes


Event = Unsure | Create | Write | Seek | Truncate | Sync | SyncAll | Rename | Link | Remove | MakeFolder | Said


def record(command: Sequence[str], to: Path, *, cwd: Path, inject: Sequence[str] = (), seconds: float = 300.0) -> int:
    """Run the command under strace until it ends; its exit status.  `inject` are strace's faults, ``pwrite64:error=EDQUOT:when=9+``.

    Raises TimeoutExpired where it does not end; its processes are ended then.
    """
    line = [require_tool("strace"), "-f", "--seccomp-bpf", "-yy", "-xx", "-s", str(1 << 28), "-e", f"trace={CHANGES}", "-o", str(to)]
    for fault in inject:
        line += ["-e", f"inject={fault}"]
    running = subprocess.Popen([*line, "--", *command], cwd=cwd, start_new_session=True)
    try:
        return running.wait(seconds)
    finally:
        if running.poll() is None:
            os.killpg(running.pid, signal.SIGKILL)
            running.wait()


def decode(text: bytes) -> bytes:
    return bytes.fromhex(text.replace(b"\\x", b"").decode("ascii"))


def encode(text: bytes) -> bytes:
    return b"".join(b"\\x%02x" % octet for octet in text)


@dataclass(frozen=True, slots=True)
class Token:
    """An argument: a descriptor with its path, a text, or a word."""

    fd: int | None = None
    path: bytes | None = None
    text: bytes | None = None
    word: bytes = b""


def tokens(arguments: bytes) -> list[Token]:
    found = []
    for match in TOKEN.finditer(arguments):
        if match["path"] is not None:
            fd = -100 if match["fd"] == b"AT_FDCWD" else int(match["fd"])
            gone = b" (deleted)" if match["deleted"] else b""
            found.append(Token(fd, decode(match["path"]) + gone))
        elif match["text"] is not None:
            if match["cut"]:
                raise ValueError("strace has cut a text short")
            found.append(Token(text=decode(match["text"])))
        else:
            found.append(Token(word=match["word"]))
    return found


def events(record: Path, root: Path) -> Iterator[Event]:
    """What concerns the files below `root`, and what was said, in the order in which the calls ended.

    Raises ValueError for a call that writes there in a way that is not understood.
    """
    mark = encode(os.fsencode(root))
    begun: dict[int, tuple[int, bytes, bytes]] = {}
    with record.open("rb") as lines:
        for number, raw in enumerate(lines):
            line = raw.rstrip(b"\n")
            if match := RESUMED.match(line):
                process = int(match[1])
                if process not in begun:
                    continue
                start, name, arguments = begun.pop(process)
                line = arguments + match[3]
            elif match := BEGUN.match(line):
                process, start, name, line = int(match[1]), number, match[2], match[3]
                if line.endswith(b"<unfinished ...>"):
                    line = line.removesuffix(b"<unfinished ...>").rstrip()
                    if mark in line or name in (b"sendto", b"sendmsg", b"sync"):
                        begun[process] = (start, name, line)
                    continue
            else:
                if match := EXITED.match(line):
                    yield Said(number, number, int(match[1]), b"exit %b" % match[2])
                continue
            if mark in line or name in (b"sendto", b"sendmsg", b"sync"):
                yield from _understand(name, line, Call(start, number, process), os.fsencode(root))
    for process, (start, _, line) in begun.items():
        yield from _unsure(line, (start, number, process), os.fsencode(root))


def _unsure(line: bytes, place: tuple[int, int, int], root: bytes) -> Iterator[Event]:
    parts = tokens(line)
    for path in [part.path or b"" for part in parts] + paths(parts):
        if below(path, root):
            yield Unsure(*place, path)


def _understand(name: bytes, line: bytes, call: Call, root: bytes) -> Iterator[Event]:
    end = ENDED.search(line)
    place = (call.began, call.ended, call.process)
    if end is None or end[1] == b"?":
        yield from _unsure(line, place, root)
        return
    result = int(end[1])
    parts = tokens(line[: end.start()])
    if name in (b"fsync", b"fdatasync"):
        path = parts[0].path or b""
        if below(path, root):
            yield Sync(*place, path, result == 0)
        return
    if result < 0:
        return
    if name in (b"sendto", b"sendmsg"):
        for part in parts:
            for said in POSITIVE.findall(part.text or b""):
                yield Said(*place, said)
    elif name in (b"sync", b"syncfs"):
        if name == b"sync" or below((parts[0].path or b"").removesuffix(b" (deleted)"), root):
            yield SyncAll(*place)
    elif name in (b"openat", b"open", b"creat"):
        yield from _opened(name, parts, result, end[2], place, root)
    elif name in (b"write", b"writev", b"pwrite64", b"pwritev", b"pwritev2"):
        path = parts[0].path or b""
        if not below(path, root) or path.endswith(b" (deleted)"):
            return
        data = b"".join(part.text for part in parts if part.text is not None)[:result]
        offset = int(parts[-1].word) if name.startswith(b"p") else None
        yield Write(*place, path, parts[0].fd or 0, data, offset)
    elif name == b"lseek":
        if below(parts[0].path or b"", root):
            yield Seek(*place, parts[0].path or b"", parts[0].fd or 0, result)
    elif name in (b"ftruncate", b"truncate"):
        path = parts[0].path if parts[0].path is not None else parts[0].text or b""
        if below(path, root) and not path.endswith(b" (deleted)"):
            yield Truncate(*place, path, int(parts[1].word))
    elif name == b"fallocate":
        if parts[1].word != b"0":
            raise ValueError(f"fallocate {parts[1].word!r} is not understood")
        yield Truncate(*place, parts[0].path or b"", int(parts[2].word) + int(parts[3].word), True)
    elif name in (b"rename", b"renameat", b"renameat2", b"link", b"linkat"):
        source, target = paths(parts)
        if below(source, root) or below(target, root):
            yield (Rename if name.startswith(b"rename") else Link)(*place, source, target)
    elif name in (b"unlink", b"unlinkat", b"rmdir"):
        (path,) = paths(parts)
        if below(path, root):
            yield Remove(*place, path)
    elif name in (b"mkdir", b"mkdirat"):
        (path,) = paths(parts)
        if below(path, root):
            yield MakeFolder(*place, path)
    elif name in (b"chdir", b"fchdir"):
        if below(parts[0].text or parts[0].path or b"", root):
            raise ValueError("a process works in the folder: its relative paths cannot be followed")
    elif name in (b"sendfile", b"copy_file_range", b"splice", b"symlink", b"symlinkat"):
        # sendfile(out, in), copy_file_range(in, _, out): a file of ours that is only read is none of our business.
        out = parts[0] if name == b"sendfile" else parts[-1]
        written = [part.path for part in (parts[2:] if name != b"sendfile" else [out]) if part.path is not None]
        if any(below(path, root) for path in written) or name.startswith(b"symlink"):
            raise ValueError(f"{name.decode()} below the folder is not understood: {line[:200]!r}")


def _opened(
    name: bytes, parts: list[Token], result: int, real: bytes | None, place: tuple[int, int, int], root: bytes
) -> Iterator[Event]:
    path = decode(real or b"")
    words = b"|".join(part.word for part in parts).split(b"|")
    writes = name == b"creat" or b"O_WRONLY" in words or b"O_RDWR" in words
    if not below(path, root) or not writes or path.endswith(b" (deleted)"):
        return
    if b"O_TMPFILE" in words:
        raise ValueError("O_TMPFILE is not understood")
    creates, empties = name == b"creat" or b"O_CREAT" in words, name == b"creat" or b"O_TRUNC" in words
    yield Create(*place, path, result, creates, empties, b"O_APPEND" in words)


def paths(parts: list[Token]) -> list[bytes]:
    """The paths that a call names, each beside the descriptor before it where it is relative."""
    found = []
    folder = b""
    for part in parts:
        if part.path is not None:
            folder = part.path
        elif part.text is not None:
            found.append(os.path.join(folder, part.text))
            folder = b""
    return found


def below(path: bytes, root: bytes) -> bool:
    return path.startswith(root + b"/") or path == root
