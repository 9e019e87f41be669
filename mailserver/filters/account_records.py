"""What is kept of accounts whose sending is stopped, and how it stands in the records.  Pure.

    stopped   <account>    its sending is stopped, and why
    released  <account>    it was let go: what is held of its mail is to be released
    moved  <old> <time>    an account, or ``@domain``, has another name since then

A record that cannot be read keeps its account stopped: somebody has stopped it, and nobody has let it go.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mailserver.api import Address, AddressError, normal_names
from mailserver.filters.account_signals import SIGNALS, SeenSignal

__all__ = [
    "MOVED",
    "RELEASED",
    "STOPPED",
    "MovedAccount",
    "ReleasedAccount",
    "StoppedAccount",
    "account_name",
    "account_of",
    "account_of_login",
    "key_of",
    "read_moved",
    "read_released",
    "read_stopped",
]

GAP = "\t"  # no account's name has one
STOPPED, RELEASED, MOVED = "stopped", "released", "moved"
NAME_CHARACTERS = 512
WORDS_CHARACTERS = 200
LOGINS_MOST = 5
DAMAGED = "its record cannot be read"


@dataclass(frozen=True, slots=True)
class StoppedAccount:
    """An account whose sending is stopped.

    `seen` are the signals that have counted, `logins` its latest log-ins in words ("192.0.2.1, app password phone"); `by` is the
    person who has stopped it, "" for the filter, with `why`.  `is_held`: what waited in the queue is held.  `is_told`: postmaster
    and the user have been written to.
    """

    account: str
    at: float
    seen: tuple[SeenSignal, ...] = ()
    logins: tuple[str, ...] = ()
    by: str = ""
    why: str = ""
    is_held: bool = False
    is_told: bool = False

    @property
    def words(self) -> str:
        """Why it is stopped."""
        if self.by:
            return f"{self.by} has stopped it" + (f": {self.why}" if self.why else "")
        return ", ".join([one.words for one in self.seen]) or self.why or "nobody knows why"

    def octets(self) -> bytes:
        """The record's value."""
        kept: dict[str, Any] = {
            "at": self.at,
            "seen": [[one.signal, one.count, [text[:WORDS_CHARACTERS] for text in one.examples]] for one in self.seen],
            "logins": [one[:WORDS_CHARACTERS] for one in self.logins],
            "by": self.by, "why": self.why[:WORDS_CHARACTERS], "held": self.is_held, "told": self.is_told,
        }  # fmt: skip
        return json.dumps(kept).encode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class ReleasedAccount:
    """The account was let go: `by` whom and when.  What it had in the queue leaves as soon as there is a server."""

    account: str
    at: float
    by: str

    def octets(self) -> bytes:
        """The record's value."""
        return json.dumps({"at": self.at, "by": self.by}).encode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class MovedAccount:
    """`old` is called `new` since then: an address, or ``@domain`` with all in it."""

    at: float
    old: str
    new: str

    @property
    def key(self) -> str:
        """The record's key."""
        return GAP.join((MOVED, self.old, f"{self.at:.6f}"))

    def octets(self) -> bytes:
        """The record's value."""
        return json.dumps({"at": self.at, "new": self.new}).encode("utf-8", "replace")


def key_of(kind: str, account: str) -> str:
    """The record's key."""
    return f"{kind}{GAP}{account}"


def account_of(key: str) -> str:
    """Whose record it is, "" for none of ours."""
    kind, _, account = key.partition(GAP)
    return account if kind in (STOPPED, RELEASED) and GAP not in account else ""


def account_name(text: str) -> str:
    """An account in the form in which it is kept.  Raises ValueError."""
    name = text.strip()
    if not name or len(name) > NAME_CHARACTERS or not name.isprintable():
        raise ValueError("this is no account")
    try:
        local, domain = normal_names(Address.parse(name, utf8=True))
    except AddressError:
        return name.lower()
    return f"{local}@{domain}" if domain else local


def account_of_login(login: str) -> str:
    """The same of a `Peer.login`; "" where that is none."""
    try:
        return account_name(login) if login else ""
    except ValueError:
        return ""


def read_stopped(key: str, value: bytes) -> StoppedAccount:
    """What stands there; for what cannot be read, that the account is stopped and nobody knows why."""
    account = account_of(key)
    try:
        kept = _object(value)
        return StoppedAccount(
            account,
            _moment(kept["at"]),
            tuple([_seen(one) for one in _list(kept["seen"], len(SIGNALS))]),
            tuple([_text(one) for one in _list(kept["logins"], LOGINS_MOST)]),
            _text(kept["by"]), _text(kept["why"]), kept["held"] is True, kept["told"] is True,
        )  # fmt: skip
    except (ValueError, TypeError, LookupError, RecursionError):
        return StoppedAccount(account, 0.0, why=DAMAGED)


def read_released(key: str, value: bytes) -> ReleasedAccount:
    """What stands there; what cannot be read was let go by somebody."""
    try:
        kept = _object(value)
        return ReleasedAccount(account_of(key), _moment(kept["at"]), _text(kept["by"]))
    except (ValueError, TypeError, LookupError, RecursionError):
        return ReleasedAccount(account_of(key), 0.0, "")


def read_moved(key: str, value: bytes) -> MovedAccount | None:
    """What stands there; None for what cannot be read."""
    try:
        kept = _object(value)
        kind, old, _ = key.split(GAP)
        return MovedAccount(_moment(kept["at"]), old, _text(kept["new"])) if kind == MOVED else None
    except (ValueError, TypeError, LookupError, RecursionError):
        return None


def _object(value: bytes) -> Mapping[str, Any]:
    kept = json.loads(value)
    if not isinstance(kept, dict):
        raise ValueError("no record of ours")
    return kept


def _seen(row: Any) -> SeenSignal:
    signal, count, examples = _list(row, 3)
    if signal not in SIGNALS or isinstance(count, bool) or not isinstance(count, int) or count < 0:
        raise ValueError("no signal")
    return SeenSignal(signal, count, tuple([_text(one) for one in _list(examples, 100)]))


def _list(value: Any, most: int) -> list[Any]:
    if not isinstance(value, list) or len(value) > most:
        raise ValueError("no list of ours")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("no text")
    return value


def _moment(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError("no time")
    return float(value)
