"""Return paths for mail that is forwarded: the Sender Rewriting Scheme (SRS, Shevek 2004; openspf.org/SRS).

A host that sends somebody else's mail on may not use his address as the sender: SPF of his domain does not name this host.  So
the mail leaves with an address of ours that holds the original one, and a bounce that comes to it is taken back to that.

    SRS0=HHHHHHHH=TT=example.net=bob@example.org                bob@example.net, forwarded by example.org
    SRS1=HHHHHHHH=example.org==HHHH=TT=example.net=bob@third.example     the same, forwarded once more by third.example
    SRS0=HHHHHHHH=TT=-=TOKEN@example.org                         an address that has no room in a local part: in a table

The hash keeps others from making such addresses: who could, would have a host that sends anything to anybody.  It is HMAC-SHA-256
in base32, compared without case, since hosts on the way may change that of a local part (so the domain and the local part enter
it in lower case).  The second field is the day, modulo 1024.  SRS1 has none: its age is the first forwarder's matter.

`former` are secrets of another program (postsrsd, libsrs2, Mail::SRS) that had this place before: what it has made is understood,
and nothing is made with them.

Pure: a day is days since the epoch, and comes from outside.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass

from mailserver.mail.address import Address, AddressError, parse_domain

__all__ = ["MAX_AGE_DAYS", "NotOurs", "ReturnPathKeys", "SenderToken", "is_return_path", "token_of"]

MAX_AGE_DAYS = 21  # longer than any queue keeps a message (RFC 5321 section 4.5.4.1: 4 to 5 days), and a bounce of it
HASH_CHARACTERS = 8  # 40 bits: who guesses does so at RCPT, where guesses are counted
FORMER_HASH_CHARACTERS = 4  # the least that other programs make
LOCAL_OCTETS, PATH_OCTETS = 64, 254  # RFC 5321 section 4.5.3.1.1; 4.5.3.1.3 without the two brackets
DAYS = 1024  # two characters of base32
BASE32 = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
AGAIN = "1"  # before the fields of SRS1: no stamp, so that its hash is never one of SRS0
IN_TABLE = "-"  # in the place of the domain, and never one
TOKEN_CHARACTERS = 20  # 100 bits

RETURN_PATH = re.compile(r"SRS[01][-+=]", re.IGNORECASE)
WRAPPED = re.compile(r"SRS0[-+=]([^=]+)=([A-Z2-7]{2})=([^=]+)=(.+)", re.IGNORECASE | re.DOTALL)
TWICE = re.compile(r"SRS1[-+=]([^=]+)=([^=]+)=([-+=].+)", re.IGNORECASE | re.DOTALL)
FIRST = re.compile(r"SRS0([-+=].+)", re.IGNORECASE | re.DOTALL)
TOKEN = re.compile(f"[a-z2-7]{{{TOKEN_CHARACTERS}}}")
ATOMS = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")


@dataclass(frozen=True, slots=True)
class SenderToken:
    """The original sender stands in a table, under this name."""

    name: str


@dataclass(frozen=True, slots=True)
class NotOurs:
    """The address leads nowhere: `why`, for people."""

    why: str


def is_return_path(local: str) -> bool:
    """The local part looks like one of these addresses."""
    return RETURN_PATH.match(local) is not None


def token_of(sender: Address, key: bytes) -> str:
    """The name of a sender in the table: the same for the same sender, and nobody else can tell whose it is."""
    digest = hmac.digest(key, b"token\0" + str(sender).encode("utf-8", "surrogatepass"), "sha256")
    return base64.b32encode(digest).decode("ascii").lower()[:TOKEN_CHARACTERS]


class ReturnPathKeys:
    """Makes and reads the addresses.  `keys` are secrets, first the one with which addresses are made.

    Raises ValueError for none.  `former` are the secrets of another program; see the module.
    """

    def __init__(self, keys: Sequence[bytes], *, former: Sequence[bytes] = (), max_age_days: int = MAX_AGE_DAYS) -> None:
        if not keys and not former:
            raise ValueError("no key")
        self._keys = tuple(keys)
        self._former = tuple(former)
        self._max_age_days = max_age_days

    def made(self, sender: Address, domain: str, day: int) -> Address | None:
        """The return path in `domain` for mail of this sender; None where it has no room, or could not be read back."""
        if not sender.domain or sender.domain.startswith("[") or ATOMS.fullmatch(sender.local) is None:
            return None
        if not sender.domain.isascii():
            return None
        twice, first = TWICE.fullmatch(sender.local), FIRST.fullmatch(sender.local)
        if twice is not None:  # the first forwarder stays the one to whom a bounce goes
            return self._twice(twice[2], twice[3], domain)
        if first is not None:
            return self._twice(sender.domain, first[1], domain)
        stamp = stamp_of(day)
        return _address(f"SRS0={self._hash(stamp, sender.domain, sender.local)}={stamp}={sender.domain}={sender.local}", domain)

    def for_token(self, name: str, domain: str, day: int) -> Address:
        """The return path for a sender who stands in a table."""
        stamp = stamp_of(day)
        return Address(f"SRS0={self._hash(stamp, IN_TABLE, name)}={stamp}={IN_TABLE}={name}", domain)

    def opened(self, local: str, day: int) -> Address | SenderToken | NotOurs:
        """To whom a bounce goes that comes to this local part."""
        once, twice = WRAPPED.fullmatch(local), TWICE.fullmatch(local)
        if twice is not None:
            return self._opened_twice(*twice.groups())
        if once is None:
            return NotOurs("it is no return path of a forwarded message, though it looks like one")
        hashed, stamp, domain, name = once.groups()
        if not self._holds(hashed, stamp, domain, name):
            return NotOurs("this return path was not made here, or was changed")
        age = (day - day_of(stamp)) % DAYS
        if age == DAYS - 1:  # made here, by a clock that was a little ahead
            age = 0
        if age > self._max_age_days:
            return NotOurs(f"this return path has expired: none holds longer than {self._max_age_days} days")
        if domain == IN_TABLE:
            name = name.lower()
            return SenderToken(name) if TOKEN.fullmatch(name) else NotOurs("there is no such token")
        return _parsed(name, domain)

    def former_made(self, sender: Address, domain: str, day: int) -> Address:
        """As the program of the first former secret would make it, four characters of hash."""
        stamp = stamp_of(day)
        hashed = former_hash(self._former[0], stamp, sender.domain, sender.local)[:FORMER_HASH_CHARACTERS]
        return Address(f"SRS0={hashed}={stamp}={sender.domain}={sender.local}", domain)

    def _twice(self, host: str, rest: str, domain: str) -> Address | None:
        return _address(f"SRS1={self._hash(AGAIN, host, rest)}={host}={rest}", domain)

    def _opened_twice(self, hashed: str, host: str, rest: str) -> Address | NotOurs:
        if not self._holds(hashed, host, rest, kind=(AGAIN,)):
            return NotOurs("this return path was not made here, or was changed")
        return _parsed(f"SRS0{rest}", host)

    def _hash(self, *fields: str) -> str:
        return hash_of(self._keys[0], *fields)

    def _holds(self, hashed: str, *fields: str, kind: tuple[str, ...] = ()) -> bool:
        """Each secret is tried, whatever the first one says: the time says nothing."""
        given = hashed.upper().encode("utf-8", "surrogatepass")
        found = [hmac.compare_digest(given, hash_of(key, *kind, *fields).encode("ascii")) for key in self._keys]
        if len(given) >= FORMER_HASH_CHARACTERS:
            for secret in self._former:
                theirs = former_hash(secret, *fields)[: len(given)].upper()
                found.append(hmac.compare_digest(given, theirs.encode("ascii")))
        return any(found)


def hash_of(key: bytes, *fields: str) -> str:
    """The fields in lower case, with "=" between them: no field but the last can hold one, so none can be moved."""
    text = "=".join(fields).lower().encode("utf-8", "surrogatepass")
    return base64.b32encode(hmac.digest(key, text, "sha256")).decode("ascii")[:HASH_CHARACTERS]


def former_hash(secret: bytes, *fields: str) -> str:
    """That of Mail::SRS, libsrs2 and postsrsd: HMAC-SHA-1 of the fields in lower case, in base64."""
    text = "".join(fields).lower().encode("utf-8", "surrogatepass")
    return base64.b64encode(hmac.new(secret, text, hashlib.sha1).digest()).decode("ascii")


def stamp_of(day: int) -> str:
    """The day as two characters."""
    return BASE32[day // 32 % 32] + BASE32[day % 32]


def day_of(stamp: str) -> int:
    """The day, modulo 1024."""
    return BASE32.index(stamp[0].upper()) * 32 + BASE32.index(stamp[1].upper())


def _address(local: str, domain: str) -> Address | None:
    if len(local) > LOCAL_OCTETS or len(local) + 1 + len(domain) > PATH_OCTETS:
        return None
    return Address(local, domain)


def _parsed(local: str, domain: str) -> Address | NotOurs:
    """What was in it.  It was made here, but a host on the way may have changed letters, and former programs take anything."""
    try:
        if ATOMS.fullmatch(local) is None or len(local) > LOCAL_OCTETS or domain.startswith("["):
            raise AddressError("not a local part")
        return Address(local, parse_domain(domain))
    except AddressError as error:
        return NotOurs(f"what is in this return path is no address: {error}")
