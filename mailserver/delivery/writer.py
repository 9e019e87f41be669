"""Write messages into Maildirs: ``tmp/``, then renamed into ``new/``.  Blocking, and for one thread only.

Nothing is synced here: the queue still holds the message until what the report names has been synced.

An attempt that nobody waits for any more must not come to its end: another one may be under way.  Where the disk hangs, that is
found out late, so `go_on` is asked right before each rename.  Between the two, the system may still stop us for any time.  What
happens then is safe, too: the next attempt asks for drafts of its message first and removes them, so that a rename of ours finds
nothing; and if our rename was quicker, the next attempt finds the file and replaces it.  A draft is never shared: its name holds
the number of the process.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator, Sequence

from mailserver.delivery.batch_format import BatchCopy, BatchMessage, BatchReport, CopyResult
from mailserver.delivery.errno_outcomes import NO_ERRNO
from mailserver.delivery.maildir_format import Body
from mailserver.delivery.names import marker_in, resized, sized
from mailserver.delivery.open_maildirs import BELOW, Maildir, Maildirs
from mailserver.mail.answers import Mailbox
from mailserver.mail.content import Content
from mailserver.mail.durable import sync_fd
from mailserver.mail.tags import for_final_delivery

__all__ = ["Earlier", "MaildirWriter", "NobodyWaits", "store"]

RETURN_PATH = b"Return-Path:"
NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
MOVES = 5  # of one message by mail programs, while we look for it
IN_MEMORY_OCTETS = 4 * 1024 * 1024  # a content above this is turned into its local form piece by piece


class NobodyWaits(Exception):
    """The attempt was given up, and another one may be under way."""


class MaildirWriter:
    """Writes batches.  `syncs_files` says that the report shall name each file: there is no syncfs.

    `go_on` is asked before each rename; it raises `NobodyWaits` where the batch was given up.
    """

    def __init__(
        self, *, maildirs: Maildirs, syncs_files: bool = False, go_on: Callable[[], None] = lambda: None
    ) -> None:
        self._maildirs = maildirs
        self._syncs_files = syncs_files
        self._go_on = go_on

    def write(self, messages: Sequence[BatchMessage]) -> BatchReport:
        """Try every copy of every message.  One mailbox's fault is its own.  Raises `NobodyWaits`."""
        every: list[list[CopyResult]] = []
        devices: dict[int, str] = {}
        files: list[tuple[str, str]] = []
        earlier = Earlier()
        for message in messages:
            copies = message.copies
            final = bool(copies) and copies[0].fields.startswith(RETURN_PATH)
            body = _body(message.content(), final)
            results: list[CopyResult] = []
            written: Written = {}
            for copy in copies:
                try:
                    maildir, place = self._write(copy, body, earlier if message.again else None, written)
                except OSError as error:
                    where = f": {error.filename}" if error.filename else ""
                    results.append((copy.destination, error.errno or NO_ERRNO, f"{error.strerror}{where}"))
                except NobodyWaits:
                    raise
                except Exception as error:  # noqa: BLE001  # whatever it is, it must not reach the batch's other mailboxes
                    results.append((copy.destination, NO_ERRNO, f"{type(error).__name__}: {error}"))
                else:
                    results.append((copy.destination, 0, f"{maildir.path}/{place}"))
                    devices[maildir.device] = maildir.path
                    if self._syncs_files:
                        files.append((maildir.path, place))
            every.append(results)
        made = self._maildirs.take_made()
        return BatchReport(every, devices, files, made if self._syncs_files else [])

    def _write(self, copy: BatchCopy, body: Body, earlier: Earlier | None, written: Written) -> tuple[Maildir, str]:
        """Write a copy, unless another one of the message has come to the same Maildir."""
        _, user, domain, folder, must_exist, junk, name, fields = copy

        def stands(maildir: Maildir) -> bool:
            known = (maildir.device, maildir.inode, name) in written
            return known or (earlier is not None and earlier.place(maildir, name, "") is not None)

        mailbox = self._maildirs.chosen(Mailbox(user, domain, folder, False, must_exist, junk), stands)
        maildir = self._maildirs.find(mailbox)
        key = maildir.device, maildir.inode, name
        if key in written:
            return maildir, written[key]
        try:
            place = store(maildir, name, fields, body, earlier, go_on=self._go_on)
        except FileNotFoundError:  # the Maildir was removed since it was opened; if it was the content, the second try says so
            self._maildirs.forget(mailbox)
            maildir = self._maildirs.find(mailbox)
            place = store(maildir, name, fields, body, earlier, go_on=self._go_on)
        written[maildir.device, maildir.inode, name] = place
        return maildir, place


Written = dict[tuple[int, int, str], str]
"""The files of one message: device and inode of the Maildir, the name; and its place there."""

Place = tuple[str, str]
"""``new`` or ``cur``, and a name in it."""


class Earlier:
    """What earlier attempts left in Maildirs, by the markers of their messages.  A Maildir is listed once for a batch."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], tuple[dict[str, list[str]], dict[str, Place]]] = {}

    def place(self, maildir: Maildir, name: str, draft: str) -> Place | None:
        """Where this message stands already, with the flags that a mail program gave it; None where it does not.

        All drafts of it but `draft` are gone afterwards.  Raises OSError.
        """
        key = maildir.device, maildir.inode
        if key not in self._known:
            # The drafts first: what an attempt that hung renames meanwhile is seen either here or there.
            self._known[key] = _drafts(maildir), _places(maildir)
        drafts, places = self._known[key]
        marker = marker_in(name)
        others = [other for other in drafts.pop(marker, ()) if other != draft]
        if others:
            for other in others:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(other, dir_fd=maildir.tmp)
            self._known[key] = drafts, places = drafts, _places(maildir)
        return places.get(marker)

    def forget(self, maildir: Maildir) -> None:
        """It has changed."""
        self._known.pop((maildir.device, maildir.inode), None)


def _drafts(maildir: Maildir) -> dict[str, list[str]]:
    drafts: dict[str, list[str]] = {}
    for entry in os.listdir(maildir.tmp):
        drafts.setdefault(marker_in(entry), []).append(entry)
    return drafts


def _places(maildir: Maildir) -> dict[str, Place]:
    places: dict[str, Place] = {}
    for part in ("new", "cur"):
        with _opened(maildir, part) as fd:
            places.update({marker_in(entry): (part, entry) for entry in os.listdir(fd)})
    return places


@contextlib.contextmanager
def _opened(maildir: Maildir, part: str) -> Iterator[int]:
    """A descriptor of ``new`` or ``cur``."""
    if part == "new":
        yield maildir.new
        return
    fd = os.open(part, BELOW, dir_fd=maildir.fd)
    try:
        yield fd
    finally:
        os.close(fd)


def _body(content: Content, final: bool) -> Body:
    """A file's own Return-Path is the only one that it shall have.  Nothing is read before a draft is there to be written."""
    in_memory = content.path is None and content.stored_size <= IN_MEMORY_OCTETS

    def pieces() -> Iterator[bytes]:
        nonlocal content, final
        if final:
            content, final = for_final_delivery(content), False
        return content.chunks()

    return Body(pieces, binary=content.binary, in_memory=in_memory)


def store(
    maildir: Maildir,
    name: str,
    fields: bytes,
    body: Body,
    earlier: Earlier | None,
    *,
    go_on: Callable[[], None],
    sync: bool = False,
) -> str:
    """Write one file; return its place below the Maildir.

    With `earlier` it takes the place of the one that an earlier attempt wrote: then it is synced, so that a good file is never
    replaced by one that could still be torn; so it is with `sync`.  `go_on` raises where nobody waits any more.  Raises OSError.
    """
    draft = f"{name}.{os.getpid()}"
    try:
        fd = os.open(draft, NEW_FILE, 0o600, dir_fd=maildir.tmp)
    except FileExistsError:  # an attempt of another process left it, one that had our number
        os.unlink(draft, dir_fd=maildir.tmp)
        fd = os.open(draft, NEW_FILE, 0o600, dir_fd=maildir.tmp)
    try:
        try:
            sizes = body.write(fd, fields)
            if sync or earlier is not None:
                sync_fd(fd)
        finally:
            os.close(fd)
        final = sized(name, *sizes)
        if earlier is None:
            go_on()
            os.rename(draft, final, src_dir_fd=maildir.tmp, dst_dir_fd=maildir.new)
            return f"new/{final}"
        return _replace(maildir, draft, final, sizes, earlier, go_on)
    except BaseException:
        with contextlib.suppress(OSError):  # the sweep finds it later
            os.unlink(draft, dir_fd=maildir.tmp)
        raise


def _replace(
    maildir: Maildir, draft: str, final: str, sizes: tuple[int, int], earlier: Earlier, go_on: Callable[[], None]
) -> str:
    """Bring the draft where the message belongs; return its place."""
    for _ in range(MOVES):
        found = earlier.place(maildir, final, draft)
        go_on()
        if found is None:
            os.rename(draft, final, src_dir_fd=maildir.tmp, dst_dir_fd=maildir.new)
            return f"new/{final}"
        part, name = found
        new_name = resized(name, *sizes)
        with _opened(maildir, part) as fd:
            if new_name != name:  # other fields in front: if both had a name for a moment, a mail program would show both
                try:
                    os.rename(name, new_name, src_dir_fd=fd, dst_dir_fd=fd)
                except FileNotFoundError:  # a mail program has just moved or removed it
                    earlier.forget(maildir)
                    continue
            os.rename(draft, new_name, src_dir_fd=maildir.tmp, dst_dir_fd=fd)
        return f"{part}/{new_name}"
    raise OSError(errno.EBUSY, "the message is moved to and fro")
