"""The portable form of a house: a folder, or a tar file with the same names in it.  docs/moving.md describes it for others.

house.json        written last: without it an export is not whole
mailserver.toml   the configuration, word by word
accounts.jsonl    an account in each line, with what is kept of its passwords
domains.jsonl     a domain in each line, with its aliases: for other programs, as mailserver.toml says the same
records.jsonl     what filters keep of people, as `mailserver records export` prints it
mail/DOMAIN/USER  Maildirs (Maildir++), where they were asked for
keys/, files/     secrets, where they were asked for
"""

from __future__ import annotations

import datetime
import io
import json
import os
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol

from mailserver.accounts.table import Account, key_of, parse_accounts, table_of
from mailserver.authentication.app_passwords import AppPassword

__all__ = [
    "FORMAT",
    "MANIFEST",
    "ExportSink",
    "FolderSink",
    "TarSink",
    "account_of_line",
    "json_lines",
    "line_of_account",
]

FORMAT = 1
MANIFEST = "house.json"
NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
MEMORY_OCTETS = 64 << 20


class ExportSink(Protocol):
    """Where an export goes."""

    def add(self, name: str, pieces: Iterable[bytes], *, seconds: float | None = None) -> None:
        """One file, for its owner alone; `seconds` is its time of change.  Raises OSError, and what `pieces` raises."""

    def folder(self, name: str) -> None:
        """A folder that has to be there though nothing may be in it."""

    def close(self) -> None:
        """All is durable then.  Raises OSError."""


class FolderSink:
    """A folder that is there, empty and open: who writes need not be able to reach it by its path."""

    def __init__(self, descriptor: int) -> None:
        self._fd = descriptor
        self._folders: set[str] = {""}

    def add(self, name: str, pieces: Iterable[bytes], *, seconds: float | None = None) -> None:
        """`ExportSink`."""
        self.folder(os.path.dirname(name))
        descriptor = os.open(name, NEW_FILE, 0o600, dir_fd=self._fd)
        try:
            with open(descriptor, "wb") as file:
                for piece in pieces:
                    file.write(piece)
                file.flush()
                if seconds is not None:
                    os.utime(file.fileno(), ns=(int(seconds * 1e9),) * 2)
        except BaseException:
            os.unlink(name, dir_fd=self._fd)
            raise

    def folder(self, name: str) -> None:
        """`ExportSink`."""
        if name not in self._folders:
            self.folder(os.path.dirname(name))
            os.mkdir(name, 0o700, dir_fd=self._fd)
            self._folders.add(name)

    def close(self) -> None:
        """`ExportSink`."""
        os.sync()
        os.close(self._fd)


class TarSink:
    """A tar file, by a descriptor that is open for writing.  Each file of it is in memory once, up to the largest message."""

    def __init__(self, descriptor: int) -> None:
        self._file = open(descriptor, "wb")
        self._tar = tarfile.open(fileobj=self._file, mode="w", format=tarfile.PAX_FORMAT)

    def add(self, name: str, pieces: Iterable[bytes], *, seconds: float | None = None) -> None:
        """`ExportSink`."""
        content = b"".join(pieces)
        info = tarfile.TarInfo(name)
        info.size, info.mode, info.mtime = len(content), 0o600, 0 if seconds is None else seconds
        self._tar.addfile(info, io.BytesIO(content))

    def folder(self, name: str) -> None:
        """`ExportSink`."""
        info = tarfile.TarInfo(name)
        info.type, info.mode = tarfile.DIRTYPE, 0o700
        self._tar.addfile(info)

    def close(self) -> None:
        """`ExportSink`."""
        self._tar.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()


def json_lines(values: Iterable[Mapping[str, Any]]) -> Iterator[bytes]:
    """A line for each."""
    for value in values:
        yield json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogateescape") + b"\n"


def line_of_account(account: Account) -> dict[str, Any]:
    """All that is kept of it; what is absent is left out."""
    found: dict[str, Any] = {
        "address": account.address,
        "password": account.password,
        "scram": account.scram,
        "cram_md5": account.secret,
        "senders": list(account.senders),
        "certificates": list(account.certificates),
        "disabled": account.disabled,
        "app_passwords": [
            {"name": one.name, "password": one.hash, "scopes": list(one.scopes)}
            | ({} if one.expires is None else {"expires": one.expires.isoformat()})
            for one in account.app_passwords
        ],
    }
    return {key: value for key, value in found.items() if value}


def account_of_line(line: Mapping[str, Any]) -> Account:
    """The account.  Raises KeyError, TypeError and ValueError for what is none."""
    app_passwords = [
        AppPassword(
            one["name"],
            one["password"],
            tuple(one["scopes"]),
            datetime.date.fromisoformat(one["expires"]) if "expires" in one else None,
        )
        for one in line.get("app_passwords", ())
    ]
    found = Account(
        line["address"],
        line.get("password"),
        line.get("scram"),
        line.get("cram_md5"),
        tuple(line.get("senders", ())),
        tuple(line.get("certificates", ())),
        tuple(app_passwords),
        bool(line.get("disabled", False)),
    )
    if parse_accounts("\n".join(table_of(found)) + "\n", "accounts.jsonl") != {key_of(found.address): found}:
        raise ValueError(f"{found.address} is written in another form than an account has")
    return found
