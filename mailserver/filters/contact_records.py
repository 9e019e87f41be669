"""What is kept of a user's contacts: contacts and decisions, rules, expected mail.  How each stands in the records.  Pure.

    contact   <user> <kind:value>      somebody whom the user has written to, has accepted or has refused
    hold      <scope>                  whether mail from strangers is held: of a user, a domain, the site
    expected  <user> <domain or "">    a window in which mail is welcome
    order     <user> <kind:value>      what becomes of the mail that is held: it may not be done yet
    token     <digest>                 a one-time reply address (`contact_tokens`)
    digest    <user>                   when the user was last told of held mail

A user is his address, in the form in which addresses are compared, without a detail (`user+detail`).
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any, Literal

from mailserver.api import Address, AddressError, normal_names
from mailserver.filters.list_entries import read_scope, read_subject

__all__ = [
    "Contact",
    "ContactPlace",
    "HeldOrder",
    "Window",
    "contact_key",
    "decoded",
    "encoded",
    "expected_key",
    "hold_key",
    "order_key",
    "owner_of",
    "read_contact",
    "read_hold",
    "read_order",
    "read_subject_of_contact",
    "read_user",
    "read_window",
]

GAP = "\t"  # no address and no domain has one
STATES = ("written", "accepted", "refused")
VERBS = ("release", "junk", "drop")
WHO_CHARACTERS = 100
State = Literal["written", "accepted", "refused"]
Verb = Literal["release", "junk", "drop"]


@dataclass(frozen=True, slots=True)
class Contact:
    """`subject` is ``address:bob@example.net`` or ``domain:example.net`` (with a dot in front: all below it).

    `state` is "written" (the user has written to him), "accepted" or "refused".  `needs_evidence`: who says that he is the one is
    no contact where nothing shows it.  `at` is seconds since the epoch, `by` who decided.
    """

    user: str
    subject: str
    state: State
    needs_evidence: bool = True
    at: float = 0.0
    by: str = ""

    def octets(self) -> bytes:
        """The record's value."""
        kept: dict[str, Any] = {"is": self.state, "at": self.at}
        kept |= {} if self.needs_evidence else {"evidence": "none"}
        kept |= {"by": self.by} if self.by else {}
        return encoded(kept)


@dataclass(frozen=True, slots=True)
class Window:
    """Mail for `user` is expected, from `domain` and those below it ("" is from anybody), before `until`."""

    user: str
    domain: str
    until: float
    at: float = 0.0
    by: str = ""

    def octets(self) -> bytes:
        """The record's value."""
        return encoded({"until": self.until, "at": self.at, **({"by": self.by} if self.by else {})})


@dataclass(frozen=True, slots=True)
class HeldOrder:
    """What becomes of the mail from `subject` that is held for `user` and has come before `at`."""

    user: str
    subject: str
    verb: Verb
    at: float
    by: str = ""

    def octets(self) -> bytes:
        """The record's value."""
        return encoded({"verb": self.verb, "at": self.at, **({"by": self.by} if self.by else {})})


# --- Keys. ---


def contact_key(user: str, subject: str) -> str:
    """With "" for the subject: what the keys of all the user's contacts begin with."""
    return GAP.join(("contact", user, subject))


def hold_key(scope: str) -> str:
    """Of a user, of ``@domain``, of the site ("")."""
    return GAP.join(("hold", scope))


def expected_key(user: str, domain: str) -> str:
    """`domain` "" is anybody."""
    return GAP.join(("expected", user, domain))


def order_key(user: str, subject: str) -> str:
    """One order for each subject: the last."""
    return GAP.join(("order", user, subject))


class ContactPlace:
    """Where each record has its user: a token in its value, all others in the key."""

    def user(self, key: str, value: bytes) -> str:
        """The name, "" where it has none."""
        parts = key.split(GAP)
        if parts[0] != "token":
            return parts[1] if len(parts) > 1 else ""
        try:
            return str(decoded(value).get("user", ""))
        except ValueError:
            return ""

    def moved(self, key: str, value: bytes, user: str) -> tuple[str, bytes]:
        """Key and value with another name."""
        parts = key.split(GAP)
        if parts[0] == "token":
            return key, encoded({**decoded(value), "user": user})
        return GAP.join([parts[0], user, *parts[2:]]), value


# --- Names. ---


def owner_of(address: Address, separator: str) -> str:
    """The user whose address this is, "" for one that is nobody's (<postmaster>)."""
    try:
        local, domain = normal_names(address)
    except AddressError:
        return ""
    base = local.partition(separator)[0] if separator else local
    return f"{base or local}@{domain}" if domain else ""


def read_user(text: str, separator: str) -> str:
    """A user as a person writes him.  Raises ValueError."""
    owner = owner_of(Address.parse(text, utf8=True), separator)
    if not owner:
        raise ValueError("a user's address has a domain")
    return owner


def read_subject_of_contact(text: str) -> str:
    """An address or a domain as a person writes it, ``kind:value``.  Raises ValueError."""
    kind, value = read_subject(text)
    if kind not in ("address", "domain"):
        raise ValueError("a contact is an address or a domain")
    return f"{kind}:{value}"


# --- Records, whoever has written them.  ValueError for what is none. ---


def read_contact(key: str, value: bytes) -> Contact:
    """A contact or a decision."""
    _, user, subject = _parts(key, "contact", 3)
    _check(read_user(user, "") == user and read_subject_of_contact(subject) == subject)
    kept = decoded(value)
    state = kept.get("is")
    _check(state in STATES)
    return Contact(user, subject, state, kept.get("evidence") != "none", _seconds(kept, "at"), _who(kept))  # type: ignore[arg-type]


def read_hold(key: str, value: bytes) -> tuple[str, bool]:
    """A scope, and whether mail from strangers is held there."""
    _, scope = _parts(key, "hold", 2)
    _check(read_scope(scope) == scope)
    holds = decoded(value).get("hold")
    _check(isinstance(holds, bool))
    return scope, bool(holds)


def read_window(key: str, value: bytes) -> Window:
    """Expected mail."""
    _, user, domain = _parts(key, "expected", 3)
    _check(read_user(user, "") == user and (not domain or read_subject(f"domain:{domain}") == ("domain", domain)))
    kept = decoded(value)
    return Window(user, domain, _seconds(kept, "until"), _seconds(kept, "at"), _who(kept))


def read_order(key: str, value: bytes) -> HeldOrder:
    """What is to be done with held mail."""
    _, user, subject = _parts(key, "order", 3)
    _check(read_user(user, "") == user and read_subject_of_contact(subject) == subject)
    kept = decoded(value)
    verb = kept.get("verb")
    _check(verb in VERBS)
    return HeldOrder(user, subject, verb, _seconds(kept, "at"), _who(kept))  # type: ignore[arg-type]


def encoded(kept: dict[str, Any]) -> bytes:
    """A record's value."""
    return json.dumps(kept).encode()


def decoded(value: bytes) -> dict[str, Any]:
    """What `encoded` was given.  Raises ValueError."""
    try:
        kept = json.loads(value)
    except RecursionError as error:
        raise ValueError("it goes too deep") from error
    if not isinstance(kept, dict):
        raise ValueError(f"a record is an object, not {type(kept).__name__}")
    return kept


def _parts(key: str, kind: str, count: int) -> list[str]:
    parts = key.split(GAP)
    _check(len(parts) == count and parts[0] == kind)
    return parts


def _check(is_so: bool) -> None:
    if not is_so:
        raise ValueError("it is not what such a record is")


def _seconds(kept: dict[str, Any], name: str) -> float:
    value = kept.get(name, 0.0)
    _check(isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and 0 <= value < 1e11)
    return float(value)


def _who(kept: dict[str, Any]) -> str:
    by = kept.get("by", "")
    _check(isinstance(by, str))
    return str(by)[:WHO_CHARACTERS]
