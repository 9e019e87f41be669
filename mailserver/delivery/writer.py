"""Write messages into Maildirs: ``tmp/``, then renamed into ``new/``.  Blocking, and for one thread only.

Nothing is synced here: the queue still holds the message until what the report names has been synced.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence

from mailserver.delivery.durability import sync_fd
from mailserver.delivery.form import Body
from mailserver.delivery.letters import Copy, Letter, Report, Result
from mailserver.delivery.maildirs import Maildir, Maildirs
from mailserver.delivery.names import marker_in
from mailserver.delivery.troubles import NO_ERRNO
from mailserver.mail.answers import Mailbox
from mailserver.mail.content import Content
from mailserver.mail.edits import without_return_path

__all__ = ["Earlier", "MaildirWriter", "store"]

RETURN_PATH = b"Return-Path:"
NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
IN_MEMORY_OCTETS = 4 * 1024 * 1024  # a content above this is turned into its local form piece by piece


class MaildirWriter:
    """Writes batches.  `syncs_files` says that the report shall name each file: there is no syncfs."""

    def __init__(self, *, maildirs: Maildirs, syncs_files: bool = False) -> None:
        self._maildirs = maildirs
        self._syncs_files = syncs_files

    def write(self, letters: Sequence[Letter]) -> Report:
        """Try every copy of every letter.  One mailbox's trouble is its own."""
        every: list[list[Result]] = []
        devices: dict[int, str] = {}
        files: list[tuple[str, str]] = []
        earlier = Earlier()
        for again, binary, data, path, size, prefix, skip, copies in letters:
            content = Content(data, path, size, prefix, binary, skip)
            if copies and copies[0][-1].startswith(RETURN_PATH):  # the only one that the file shall have
                content = without_return_path(content)
            body = _body(content)
            results: list[Result] = []
            for copy in copies:
                try:
                    maildir, place = self._write(copy, body, earlier if again else None)
                except OSError as error:
                    where = f": {error.filename}" if error.filename else ""
                    results.append((copy[0], error.errno or NO_ERRNO, f"{error.strerror}{where}"))
                except Exception as error:  # noqa: BLE001  # whatever it is, it must not reach the batch's other mailboxes
                    results.append((copy[0], NO_ERRNO, f"{type(error).__name__}: {error}"))
                else:
                    results.append((copy[0], 0, f"{maildir.path}/{place}"))
                    devices[maildir.device] = maildir.path
                    if self._syncs_files:
                        files.append((maildir.path, place))
            every.append(results)
        made = self._maildirs.take_made()
        return every, devices, files, made if self._syncs_files else []

    def _write(self, copy: Copy, body: Body, earlier: Earlier | None) -> tuple[Maildir, str]:
        _, user, domain, folder, must_exist, name, fields = copy
        mailbox = Mailbox(user, domain, folder, False, must_exist)
        maildir = self._maildirs.find(mailbox)
        try:
            return maildir, store(maildir, name, fields, body, earlier, sync=earlier is not None)
        except FileNotFoundError:  # the Maildir was removed since it was opened; if it was the content, the second try says so
            self._maildirs.forget(mailbox)
        maildir = self._maildirs.find(mailbox)
        return maildir, store(maildir, name, fields, body, earlier, sync=earlier is not None)


class Earlier:
    """The files that earlier attempts left, by their markers.  A Maildir is listed once for a batch."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], dict[str, str]] = {}

    def place(self, maildir: Maildir, name: str) -> str:
        """Where this message stands already (with the flags that a mail program gave it), else its place in ``new/``."""
        known = self._known.get((maildir.device, maildir.inode))
        if known is None:
            known = self._known[maildir.device, maildir.inode] = {}
            for part in ("new", "cur"):
                fd = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=maildir.fd)
                try:
                    known.update({marker_in(entry): f"{part}/{entry}" for entry in os.listdir(fd)})
                finally:
                    os.close(fd)
        return known.get(marker_in(name)) or f"new/{name}"


def _body(content: Content) -> Body:
    in_memory = content.path is None and content.stored_size <= IN_MEMORY_OCTETS
    return Body(content.chunks, binary=content.binary, in_memory=in_memory)


def store(
    maildir: Maildir, name: str, fields: bytes, body: Body, earlier: Earlier | None, *, sync: bool
) -> str:
    """Write one file; return its place below the Maildir.

    With `earlier` it takes the place of the one that an earlier attempt wrote: then `sync`, so that a good file is never
    replaced by one that could still be torn.  Raises OSError.
    """
    directory = maildir.fd
    draft = f"tmp/{name}"
    try:
        fd = os.open(draft, NEW_FILE, 0o600, dir_fd=directory)
    except FileExistsError:  # an attempt that did not come to its end left it
        os.unlink(draft, dir_fd=directory)
        fd = os.open(draft, NEW_FILE, 0o600, dir_fd=directory)
    try:
        try:
            body.write(fd, fields)
            if sync:
                sync_fd(fd)
        finally:
            os.close(fd)
        place = f"new/{name}" if earlier is None else earlier.place(maildir, name)
        os.rename(draft, place, src_dir_fd=directory, dst_dir_fd=directory)
    except OSError:
        with contextlib.suppress(OSError):  # the sweep finds it later
            os.unlink(draft, dir_fd=directory)
        raise
    return place
