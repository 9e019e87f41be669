"""The keys of the return paths of forwarded mail, on the disk.

    KEYS/srs/20261130T190000Z.key      64 hexadecimal digits, mode 0400; the newest makes, the others are still understood

A key is replaced after `ROTATE_DAYS`; one goes when nothing that it has made can be valid any more.  All functions block, and
raise OSError.
"""

from __future__ import annotations

import calendar
import itertools
import os
import re
import time

from mailserver.mail.durable import locked_directory, make_directory
from mailserver.trust.secret_key import secret_key
from mailserver.trust.srs import MAX_AGE_DAYS

__all__ = ["FOLDER", "ROTATE_DAYS", "current_keys", "forget_srs_keys", "former_secrets", "read_srs_keys", "rotate_srs_key"]

FOLDER = "srs"
ROTATE_DAYS = 90
KEPT_MOST = 20  # a key for each day would do nobody good: each is tried with each address
NAME = re.compile(r"[0-9]{8}T[0-9]{6}Z\.key")
FORMAT = "%Y%m%dT%H%M%SZ.key"
DAY_SECONDS = 86_400
SECRETS_OCTETS = 65_536


def read_srs_keys(keys_directory: str) -> list[tuple[str, bytes]]:
    """Each key with the name of its file, the newest first; none where there are none."""
    folder = os.path.join(keys_directory, FOLDER)
    try:
        names = [name for name in os.listdir(folder) if NAME.fullmatch(name)]
    except FileNotFoundError:
        return []
    return [(name, secret_key(folder, name, makes=False)) for name in sorted(names, reverse=True)[:KEPT_MOST]]


def current_keys(keys_directory: str, now: float) -> list[bytes]:
    """The keys by which return paths are made and read.  The first one is made; one that is too old is followed by another."""
    found = read_srs_keys(keys_directory)
    if not found or found[0][0] < _name(now - ROTATE_DAYS * DAY_SECONDS):
        rotate_srs_key(keys_directory, now, replaces=found[0][0] if found else "")
        found = read_srs_keys(keys_directory)
    return [key for _, key in found]


def rotate_srs_key(keys_directory: str, now: float, *, replaces: str | None = None) -> str:
    """Make the key by which return paths are made from now on; the name of its file.  Those nobody needs any more are removed.

    With `replaces` another one that is newer than this file stays: another process has made it meanwhile.
    """
    folder = os.path.join(keys_directory, FOLDER)
    make_directory(keys_directory)
    make_directory(folder)
    with locked_directory(keys_directory, "the keys"):
        names = sorted(name for name in os.listdir(folder) if NAME.fullmatch(name))
        if replaces is not None and names and names[-1] > replaces:
            return names[-1]
        moment = now
        while _name(moment) in names or (names and _name(moment) < names[-1]):
            moment = max(moment, _moment(names[-1])) + 1
        new = _name(moment)
        secret_key(folder, new)
        oldest = _name(now - (MAX_AGE_DAYS + 2) * DAY_SECONDS)
        for name, follower in itertools.pairwise(names):  # the last one is followed by the new one
            if follower < oldest:
                os.unlink(os.path.join(folder, name))
        return new


def forget_srs_keys(keys_directory: str, *, but: str) -> list[str]:
    """Remove all keys but the one in this file; the names of theirs."""
    folder = os.path.join(keys_directory, FOLDER)
    with locked_directory(keys_directory, "the keys"):
        gone = [name for name in sorted(os.listdir(folder)) if NAME.fullmatch(name) and name != but]
        for name in gone:
            os.unlink(os.path.join(folder, name))
    return gone


def former_secrets(path: str) -> list[bytes]:
    """The secrets of another program, a line each, as postsrsd keeps them."""
    with open(path, "rb") as file:
        return [line.rstrip(b"\r\n") for line in file.read(SECRETS_OCTETS).split(b"\n") if line.strip()]


def _name(moment: float) -> str:
    return time.strftime(FORMAT, time.gmtime(max(0, moment)))


def _moment(name: str) -> float:
    return float(calendar.timegm(time.strptime(name, FORMAT)))
