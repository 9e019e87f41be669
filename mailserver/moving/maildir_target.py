"""Puts messages into a Maildir of ours, each once, however often that is done and wherever it was cut off.

A message is written into ``tmp``.  When some are there, all are synced and renamed into ``cur`` or ``new``; then their keys go
into the file `IMPORTED` of the Maildir, which is synced, too.  The name of a message's file follows from its key.  So a run that
was killed between the two finds the file, and a run after one that came to its end finds the key, though the user may have
moved or removed the message since.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from itertools import chain

from mailserver.delivery.durability import find_syncfs
from mailserver.delivery.names import file_name, host_part, number_of_mailbox, sized
from mailserver.delivery.open_maildirs import BELOW, Maildir, Maildirs
from mailserver.mail.answers import Mailbox
from mailserver.mail.durable import sync_fd
from mailserver.moving.careful import own_file
from mailserver.moving.mail_item import MailFault, MailItem
from mailserver.moving.maildir_source import KEYWORDS, keyword_lines, keywords_in

__all__ = ["IMPORTED", "MaildirTarget"]

IMPORTED = "mailserver-imported"
BATCH, BATCH_OCTETS = 1000, 256 << 20  # of one sync, which is dear where others write to the same disk
KEY_DIGITS = 32
NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW


class MaildirTarget:
    """The Maildir at `path` of the account whose `mailbox` it is.  Inside `acting()` its files are made.

    Raises OSError, as `put` and `finish` do: the same run, begun again, goes on then.  `put` raises `CannotRead` for one message.
    """

    def __init__(
        self,
        path: str,
        mailbox: Mailbox,
        hostname: str,
        acting: Callable[[], AbstractContextManager[None]],
        tell: Callable[[MailFault], None],
    ) -> None:
        self._mailbox, self._host, self._acting, self._tell = mailbox, host_part(hostname), acting, tell
        self._maildirs = Maildirs(path_of=lambda box: path, open_at_most=4)
        self._syncfs = find_syncfs()
        self._folders: dict[tuple[str, ...], set[str]] = {}
        self._keywords: dict[tuple[str, ...], dict[str, str]] = {}
        self._pending: list[tuple[MailItem, str, str]] = []
        self._octets = 0
        self._number = 0
        self.folders: set[tuple[str, ...]] = set()
        with acting():
            inbox = self._maildirs.find(mailbox)
            self._book = own_file(IMPORTED, inbox.fd, os.O_APPEND)
        try:
            fcntl.flock(self._book, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:  # else what a user moves between the two would come twice
            self.close()
            raise OSError(error.errno, "another import into this Maildir runs") from error
        self._known = self._read_book()

    def close(self) -> None:
        """Close what is open."""
        os.close(self._book)
        self._maildirs.close()

    def put(self, item: MailItem) -> bool:
        """Put it there; False where it was put there before."""
        key = bytes.fromhex(item.key)
        if key in self._known:
            return False
        pieces = item.octets()
        first = next(pieces, b"")  # the source is opened with the rights of who reads it, not of who writes here
        with self._acting():
            maildir = self._opened(item.folder)
            name = file_name(
                max(0, item.seconds), f"I{item.key[:24].upper()}", number_of_mailbox(self._mailbox.user), self._host
            )
            if name in self._folders[item.folder]:  # of a run that was cut off
                self._write_book([item.key])
                self._known.add(key)
                return False
            self._pending.append((item, *self._written(maildir, item, name, chain((first,), pieces))))
        self._known.add(key)
        self.folders.add(item.folder)
        if len(self._pending) >= BATCH or self._octets >= BATCH_OCTETS:
            self.finish()
        return True

    def finish(self) -> None:
        """Make durable what was put there."""
        if not self._pending:
            return
        with self._acting():
            self._sync()
            for item, draft, name in self._pending:
                maildir = self._opened(item.folder)
                part, final = self._place(item, name)
                os.rename(f"tmp/{draft}", f"{part}/{final}", src_dir_fd=maildir.fd, dst_dir_fd=maildir.fd)
            self._sync()
            self._write_book([item.key for item, _, _ in self._pending])
        self._pending.clear()
        self._octets = 0

    def _sync(self) -> None:
        """The drafts have to be whole on the disk before a name is theirs, and the names before they stand in the book."""
        if self._syncfs is not None:
            self._syncfs(self._book)
            return
        for folder in {item.folder for item, _, _ in self._pending}:
            maildir = self._opened(folder)
            sync_fd(maildir.tmp)
            for part in ("new", "cur"):
                fd = os.open(part, BELOW, dir_fd=maildir.fd)
                try:
                    sync_fd(fd)
                finally:
                    os.close(fd)

    def subscribe(self, folders: list[str]) -> None:
        """Add folders to Dovecot's file of subscriptions, as it writes their names."""
        with self._acting():
            inbox = self._maildirs.find(self._mailbox)
            with open(own_file("subscriptions", inbox.fd), "r+", encoding="utf-8", errors="surrogateescape") as file:
                there = file.read()
                known = there.splitlines()
                new = [one for one in folders if one not in known]
                file.write("".join(["\n" if there and not there.endswith("\n") else "", *[f"{one}\n" for one in new]]))

    # --- one folder ---

    def _opened(self, folder: tuple[str, ...]) -> Maildir:
        box = self._mailbox if not folder else Mailbox(self._mailbox.user, self._mailbox.domain, folder)
        maildir = self._maildirs.find(box)
        if folder not in self._folders:
            names = [*os.listdir(maildir.new), *self._listed(maildir, "cur")]
            self._folders[folder] = {name.partition(",")[0].partition(":")[0] for name in names}
        return maildir

    def _listed(self, maildir: Maildir, part: str) -> list[str]:
        fd = os.open(part, BELOW, dir_fd=maildir.fd)
        try:
            return os.listdir(fd)
        finally:
            os.close(fd)

    def _written(self, maildir: Maildir, item: MailItem, name: str, pieces: Iterable[bytes]) -> tuple[str, str]:
        """Write the draft; its name, and the name with the sizes that Dovecot and Courier look for."""
        self._number += 1
        draft = f"{name}.{os.getpid()}.{self._number}"
        fd = os.open(draft, NEW_FILE, 0o600, dir_fd=maildir.tmp)
        octets = lines = pairs = 0
        try:
            with open(fd, "wb", buffering=0) as file:
                last = b""
                for piece in pieces:
                    rest = memoryview(piece)
                    while rest:
                        rest = rest[file.write(rest) :]
                    octets += len(piece)
                    lines += piece.count(b"\n")
                    pairs += piece.count(b"\r\n") + (last == b"\r" and piece.startswith(b"\n"))
                    last = piece[-1:]
                moment = int(max(0.0, item.seconds) * 1e9)
                os.utime(file.fileno(), ns=(moment, moment))
                if self._syncfs is None:
                    os.fsync(file.fileno())
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(draft, dir_fd=maildir.tmp)
            raise
        self._octets += octets
        return draft, sized(name, octets, octets + lines - pairs)

    def _place(self, item: MailItem, name: str) -> tuple[str, str]:
        letters = item.flags + "".join(sorted(self._letters(item)))
        if item.is_new and not letters:
            return "new", name
        return "cur", f"{name}:2,{letters}"

    def _letters(self, item: MailItem) -> list[str]:
        """Dovecot's letters for the keywords, of the folder's own file of them."""
        if not item.keywords:
            return []
        maildir = self._opened(item.folder)
        if item.folder not in self._keywords:
            self._keywords[item.folder] = keywords_in(maildir.fd)
        known, found, is_new = self._keywords[item.folder], [], False
        for word in item.keywords:
            if word not in known:
                free = [chr(97 + n) for n in range(26) if chr(97 + n) not in known.values()]
                if not free or not word.isprintable() or len(word) > 200:
                    self._tell(MailFault(item.where, f"its keyword {word!r} is not kept: a folder has 26"))
                    continue
                known[word], is_new = free[0], True
            found.append(known[word])
        if is_new:
            self._write_keywords(maildir, known)
        return found

    def _write_keywords(self, maildir: Maildir, known: dict[str, str]) -> None:
        draft = f"{KEYWORDS}.{os.getpid()}"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(draft, dir_fd=maildir.fd)
        with open(os.open(draft, NEW_FILE, 0o600, dir_fd=maildir.fd), "w", encoding="utf-8") as file:
            file.write(keyword_lines(known))
        os.rename(draft, KEYWORDS, src_dir_fd=maildir.fd, dst_dir_fd=maildir.fd)

    # --- the book of what was imported ---

    def _read_book(self) -> set[bytes]:
        known: set[bytes] = set()
        with open(os.dup(self._book), "rb") as file:
            file.seek(0)
            last = b"\n"
            for line in file:
                last = line
                with contextlib.suppress(ValueError):
                    key = bytes.fromhex(line.strip().decode("ascii"))
                    if len(key) * 2 == KEY_DIGITS and line.endswith(b"\n"):
                        known.add(key)
        if not last.endswith(b"\n"):  # a line that was cut off
            os.write(self._book, b"\n")
        return known

    def _write_book(self, keys: list[str]) -> None:
        rest = memoryview("".join(f"{key}\n" for key in keys).encode("ascii"))
        while rest:
            rest = rest[os.write(self._book, rest) :]
        os.fsync(self._book)
