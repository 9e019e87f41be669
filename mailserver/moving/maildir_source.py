"""A Maildir with its folders, as another mail system has left it: Maildir++ (``.Sent``) or folders in folders (``Sent``).

Nothing below the path that was named is followed where it is a link, since its user may have put it there and root reads.
"""

from __future__ import annotations

import base64
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from functools import partial

from mailserver.moving.careful import opened_file
from mailserver.moving.mail_item import CannotRead, Keys, MailFault, MailItem

__all__ = ["KEYWORDS", "MaildirSource", "folder_parts", "keyword_lines", "keywords_in"]

FLAGS = re.compile(r":2,([A-Za-z]*)\Z")
SHIFTED = re.compile(r"&([A-Za-z0-9+,]*)-")
KNOWN_FLAGS = frozenset("DFPRST")
PARTS = ("cur", "new", "tmp")
PIECE = 1 << 20
DEPTH_MOST = 20
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
BELOW = DIRECTORY | os.O_NOFOLLOW
KEYWORDS = "dovecot-keywords"
KEYWORDS_OCTETS = 1 << 16
KEYWORD_NUMBER = re.compile("[0-9]|1[0-9]|2[0-5]")


class MaildirSource:
    """The Maildir at `path`, or the one that is open as `descriptor`; `tell` hears of what cannot be read.

    Raises OSError where it cannot be opened at all.
    """

    def __init__(self, path: str, tell: Callable[[MailFault], None], *, descriptor: int = -1) -> None:
        self._path, self._tell = path, tell
        self._fd = descriptor if descriptor >= 0 else os.open(path, DIRECTORY)
        self._keys = Keys("maildir")
        names = set(os.listdir(self._fd))
        self.is_one = "cur" in names or "new" in names or any(True for _ in self._folders())

    def fileno(self) -> int:
        """The descriptor of the Maildir."""
        return self._fd

    def close(self) -> None:
        """Close it."""
        os.close(self._fd)

    def __iter__(self) -> Iterator[MailItem]:
        """Every message: the inbox first, then the folders by name, in each by the name of the file."""
        for name, folder in sorted([("", ()), *self._folders()]):
            try:
                fd = (
                    os.open(name or ".", DIRECTORY if not name else BELOW, dir_fd=self._fd)
                    if "/" not in name
                    else self._deep(name)
                )
            except OSError as error:
                self._tell(MailFault(f"{self._path}/{name}", f"the folder cannot be read: {error.strerror}"))
                continue
            try:
                yield from self._messages(fd, name, folder)
            finally:
                os.close(fd)

    def subscriptions(self) -> list[str]:
        """The folders that Dovecot's file of that name lists."""
        try:
            fd = opened_file("subscriptions", self._fd)
        except OSError:
            return []
        with open(fd, encoding="utf-8", errors="replace") as file:
            return [line for line in file.read(KEYWORDS_OCTETS).splitlines() if line]

    def _folders(self) -> list[tuple[str, tuple[str, ...]]]:
        """The name of each folder's directory below the Maildir, and the folder."""
        found = [
            (name, folder_parts(name))
            for name in os.listdir(self._fd)
            if name.startswith(".") and self._is_maildir(self._fd, name)
        ]
        return found or [
            (name, tuple(_decoded(part) for part in name.split("/"))) for name in self._nested(self._fd, "", 0)
        ]

    def _nested(self, fd: int, above: str, depth: int) -> list[str]:
        found = []
        for name in sorted(os.listdir(fd)):
            if name in PARTS or name.startswith(".") or depth > DEPTH_MOST:
                continue
            try:
                below = os.open(name, BELOW, dir_fd=fd)
            except OSError:
                continue
            try:
                whole = f"{above}{name}"
                inner = self._nested(below, f"{whole}/", depth + 1)
                found += ([whole] if {"cur", "new"} & set(os.listdir(below)) else []) + inner
            finally:
                os.close(below)
        return found

    def _is_maildir(self, fd: int, name: str) -> bool:
        try:
            below = os.open(name, BELOW, dir_fd=fd)
        except OSError:
            return False
        try:
            return bool({"cur", "new"} & set(os.listdir(below)))
        finally:
            os.close(below)

    def _deep(self, name: str) -> int:
        fd = os.dup(self._fd)
        for part in name.split("/"):
            try:
                below = os.open(part, BELOW, dir_fd=fd)
            finally:
                os.close(fd)
            fd = below
        return fd

    def _messages(self, fd: int, name: str, folder: tuple[str, ...]) -> Iterator[MailItem]:
        keywords = self._keywords(fd)
        for part in ("cur", "new"):
            try:
                below = os.open(part, BELOW, dir_fd=fd)
            except FileNotFoundError:
                continue
            except OSError as error:
                self._tell(MailFault(f"{self._path}/{name}/{part}", f"cannot be read: {error.strerror}"))
                continue
            try:
                for file in sorted(os.listdir(below)):
                    item = self._item(
                        below, file, f"{self._path}/{name}/{part}/{file}".replace("//", "/"), folder, part, keywords
                    )
                    if item is not None:
                        yield item
            finally:
                os.close(below)

    def _item(
        self, fd: int, file: str, where: str, folder: tuple[str, ...], part: str, keywords: dict[str, str]
    ) -> MailItem | None:
        if file.startswith("."):
            return None
        try:
            found = os.stat(file, dir_fd=fd, follow_symlinks=False)
            if not stat.S_ISREG(found.st_mode):
                self._tell(MailFault(where, "is no file, and no link is followed"))
                return None
        except OSError as error:
            self._tell(MailFault(where, f"cannot be read: {error.strerror}"))
            return None
        match = FLAGS.search(file)
        letters = match[1] if match else ""
        return MailItem(
            self._keys.key(file.partition(":")[0], str(found.st_size)),
            folder,
            found.st_mtime_ns / 1e9,
            "".join(sorted({one for one in letters if one in KNOWN_FLAGS})),
            tuple(keywords[one] for one in dict.fromkeys(letters) if one in keywords),
            part == "new",
            partial(_octets, fd, file),
            where,
        )

    def _keywords(self, fd: int) -> dict[str, str]:
        return {letter: word for word, letter in keywords_in(fd).items()}


def keywords_in(fd: int) -> dict[str, str]:
    """The letter of each keyword in a Maildir's folder: Dovecot's file has lines of a number and a word; 0 is the letter a."""
    try:
        file = opened_file(KEYWORDS, fd)
    except OSError:
        return {}
    with open(file, encoding="utf-8", errors="replace") as lines:
        rows = [line.split(None, 1) for line in lines.read(KEYWORDS_OCTETS).split("\n")]
    return {row[1].strip(): chr(97 + int(row[0])) for row in rows if len(row) == 2 and KEYWORD_NUMBER.fullmatch(row[0])}


def keyword_lines(letters: Mapping[str, str]) -> str:
    """The same file for these keywords, each with its letter."""
    return "".join([f"{ord(letter) - 97} {word}\n" for word, letter in sorted(letters.items(), key=lambda one: one[1])])


def folder_parts(name: str) -> tuple[str, ...]:
    """The folder of a directory of Maildir++: ``.lists.python``."""
    return tuple([_decoded(part) for part in name.lstrip(".").split(".") if part])


def _decoded(name: str) -> str:
    """Modified UTF-7 (RFC 3501 section 5.1.3); what is none is taken as it is."""

    def run(match: re.Match[str]) -> str:
        if not match[1]:
            return "&"
        text = match[1].replace(",", "/")
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True).decode("utf-16-be")

    try:
        return SHIFTED.sub(run, name)
    except ValueError:
        return name


def _octets(fd: int, file: str) -> Iterator[bytes]:
    try:
        with open(opened_file(file, fd), "rb", buffering=0) as content:
            while piece := content.read(PIECE):
                yield piece
    except OSError as error:
        raise CannotRead(error.strerror or str(error)) from error
