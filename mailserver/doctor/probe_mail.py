"""A message that is sent to see whether mail arrives: it has a mark, by which it is found in a Maildir and removed again.

`mailserver selftest` and the trials of the doctor send it.
"""

from __future__ import annotations

import contextlib
import glob
import os
import re
from collections.abc import Iterator

__all__ = ["ACCOUNT", "ID_OF_FILE", "leads_to_nobody", "marked_files", "probe_id", "probe_message", "removed", "sweep"]

ACCOUNT = "selftest"
FIELD = "Mailserver-Selftest"
HEAD_OCTETS = 1 << 16  # of a file in which the mark is looked for
ID_OF_FILE = re.compile(r"[0-9]+\.([0-9A-Z]{16})_")  # in the name of a file that was delivered
TEXT = """\
From: <{address}>
To: <{address}>
Subject: selftest {mark}
Auto-Submitted: auto-generated
{field}: {mark}

A message that `{by}` has sent to see whether mail arrives.  It removes it again.
"""


def probe_message(mark: str, address: str, by: str) -> bytes:
    """The message, without Date and Message-ID; lines end with LF.  `by` is the command that sends it."""
    return TEXT.format(address=address, mark=mark, field=FIELD, by=by).encode()


def probe_id(mark: str, hostname: str) -> str:
    """Its Message-ID."""
    return f"<{FIELD.lower()}.{mark}@{hostname}>"


def leads_to_nobody(found: object, address: str) -> bool:
    """Whether ``route`` has answered that the address has a Maildir of its own: an alias or a catch-all leads to people."""
    if not isinstance(found, dict):
        return False
    hops, ends = found["hops"], found["ends"]
    is_account = [hop["how"] for hop in hops] == ["account"] and len(ends) == 1 and ends[0]["kind"] == "local"
    return bool(
        is_account and not ends[0]["system_user"] and not ends[0].get("reader") and ends[0]["mailbox"] == address.lower()
    )


def marked_files(maildir: str, mark: str, at: float) -> Iterator[str]:
    """The files of a Maildir and of its folders that have the mark, delivered at this time or later: it begins their names."""
    for folder in (maildir, *glob.glob(os.path.join(glob.escape(maildir), ".*"))):
        for part in ("new", "cur"):
            with contextlib.suppress(OSError), os.scandir(os.path.join(folder, part)) as found:
                for one in found:
                    seconds = one.name.partition(".")[0]
                    if seconds.isascii() and seconds.isdigit() and int(seconds) >= int(at) - 1 and _has_mark(one.path, mark):
                        yield one.path


def removed(maildir: str, mark: str, at: float) -> bool:
    """Take it out, also where a reader has moved it by now.  A file without its mark is not touched."""
    is_removed = False
    for path in list(marked_files(maildir, mark, at)):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
            is_removed = True
    return is_removed


def sweep(maildir: str, before: float) -> None:
    """Take out those that came too late for whoever has sent them; `before` is the time of delivery."""
    for path in list(marked_files(maildir, "", 0.0)):
        if int(os.path.basename(path).partition(".")[0]) < before:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)


def _has_mark(path: str, mark: str) -> bool:
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            return f"\n{FIELD}: {mark}".encode() in file.read(HEAD_OCTETS)
    except OSError:
        return False
