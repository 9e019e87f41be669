"""An MTA-STS policy, read: its TXT record, its text, and which mail exchangers it lets in (RFC 8461 sections 3 and 4).

    _mta-sts.example.org. TXT "v=STSv1; id=20261130T120000;"

    version: STSv1
    mode: enforce
    mx: mx1.example.org
    mx: *.example.net
    max_age: 604800
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

__all__ = [
    "FETCH_ERROR", "NO_STS", "POLICY_INVALID", "WEBPKI_INVALID",
    "STSAnswer", "STSFault", "STSMode", "STSPolicy", "find_id", "parse_policy", "policy_url",
]  # fmt: skip

FETCH_ERROR = "sts-policy-fetch-error"  # RFC 8460 section 4.3.2.2
POLICY_INVALID = "sts-policy-invalid"
WEBPKI_INVALID = "sts-webpki-invalid"

POLICY_OCTETS_MOST = 65_536  # section 3.2 suggests so many
MAX_AGE_SECONDS_MOST = 31_557_600  # section 3.2: a year
MX_MOST = 1_000
TXT_OCTETS_MOST = 4_096

# sts-id = %s"id" *WSP "=" *WSP 1*32(ALPHA / DIGIT)                                   section 3.1
ID = re.compile(r"[A-Za-z0-9]{1,32}")
# sts-ext-name = (ALPHA / DIGIT) *31(ALPHA / DIGIT / "_" / "-" / ".")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,31}")
# sts-ext-value = 1*(%x21-3A / %x3C / %x3E-7E)
VALUE = re.compile(r"[!-:<>-~]+")
# sts-policy-mx-value = ["*."] Domain                                                 section 3.2
PATTERN = re.compile(r"(?=.{1,255}\Z)(?:\*\.)?[a-z0-9_](?:[a-z0-9_-]{0,62})(?:\.[a-z0-9_][a-z0-9_-]{0,62})*")
MAX_AGE = re.compile(r"[0-9]{1,10}")
WSP = " \t"


class STSFault(ValueError):
    """The text is no policy; the words are for people."""


class STSMode(Enum):
    """What a policy asks for (section 5)."""

    ENFORCE = "enforce"
    TESTING = "testing"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class STSPolicy:
    """A domain's policy.  `id` is that of the TXT record at which it was fetched; `text` is the policy as it was fetched."""

    id: str
    mode: STSMode
    mx: tuple[str, ...]
    max_age_seconds: int
    text: str = ""

    def matches(self, host_name: str) -> bool:
        """Whether this mail exchanger is one of the policy's; ``*.`` stands for one label, no more and no fewer (section 4.1)."""
        name = host_name.lower().rstrip(".")
        label, _, above = name.partition(".")
        return any(bool(label) and above == one[2:] if one.startswith("*.") else name == one for one in self.mx)

    @property
    def lines(self) -> tuple[str, ...]:
        """Its lines, as reports give them (RFC 8460 section 4.4, `policy-string`)."""
        return tuple([line.strip() for line in self.text.splitlines() if line.strip()])


@dataclass(frozen=True, slots=True)
class STSAnswer:
    """What is known of a domain's policy when mail goes there.

    `policy` is the one in force; None where there is none, or none is known.  `why` is the failure of RFC 8460 section 4.3.2.2
    where a policy is announced and cannot be had, or the one in force could not be renewed; else "".  `detail` tells people.
    `is_pending`: more will be known in a moment.
    """

    policy: STSPolicy | None = None
    why: str = ""
    detail: str = ""
    is_pending: bool = False


NO_STS = STSAnswer()


def policy_url(domain: str) -> str:
    """Where the policy of a domain stands (section 3.3)."""
    return f"https://mta-sts.{domain}/.well-known/mta-sts.txt"


def find_id(texts: Iterable[bytes]) -> str:
    """The id among the TXT records of ``_mta-sts.DOMAIN``; "" where no policy is announced: no record, or more than one, or a
    wrong one (section 3.1).
    """
    found = [text for text in texts if _begins(text)]
    return _id_of(found[0]) if len(found) == 1 else ""


def _begins(text: bytes) -> bool:
    return re.match(rb"v=STSv1[ \t]*;", text) is not None


def _id_of(octets: bytes) -> str:
    """sts-text-record = sts-version 1*(sts-field-delim sts-field) [sts-field-delim]"""
    if len(octets) > TXT_OCTETS_MOST:
        return ""
    fields = octets.decode("latin-1").split(";")[1:]
    if not fields[-1].strip(WSP):
        del fields[-1]
    ids = []
    for field in fields:
        name, equals, value = field.partition("=")
        name, value = name.strip(WSP), value.strip(WSP)
        if not equals or NAME.fullmatch(name) is None or VALUE.fullmatch(value) is None:
            return ""
        if name == "id":
            ids.append(value)
    return ids[0] if len(ids) == 1 and ID.fullmatch(ids[0]) else ""


def parse_policy(octets: bytes, *, id: str = "") -> STSPolicy:
    """The policy in the octets that the policy host gave.  Raises `STSFault`.

    Lines end with LF or CRLF.  Of a field that is there twice the first counts, but for `mx`; unknown fields are ignored.
    """
    if len(octets) > POLICY_OCTETS_MOST:
        raise STSFault(f"it has more than {POLICY_OCTETS_MOST} octets")
    try:
        text = octets.decode("utf-8")
    except UnicodeDecodeError:
        raise STSFault("it is no UTF-8") from None
    values: dict[str, str] = {}
    patterns: list[str] = []
    for line in text.replace("\r\n", "\n").split("\n"):
        if not line.strip(WSP):
            continue
        name, colon, value = line.partition(":")
        name, value = name.strip(WSP), value.strip(WSP)
        if not colon or NAME.fullmatch(name) is None:
            raise STSFault(f"a line is no field: {line[:60]!r}")
        if name == "mx":
            patterns.append(value)
        else:
            values.setdefault(name, value)
    if values.get("version") != "STSv1":
        raise STSFault("its version is not STSv1")
    return STSPolicy(id, _mode(values), _patterns(patterns, values), _max_age(values), text)


def _mode(values: dict[str, str]) -> STSMode:
    try:
        return STSMode(values.get("mode", ""))
    except ValueError:
        raise STSFault("its mode is none of enforce, testing and none") from None


def _max_age(values: dict[str, str]) -> int:
    text = values.get("max_age", "")
    if MAX_AGE.fullmatch(text) is None:
        raise STSFault("its max_age is no number of seconds")
    return min(int(text), MAX_AGE_SECONDS_MOST)


def _patterns(found: list[str], values: dict[str, str]) -> tuple[str, ...]:
    if len(found) > MX_MOST:
        raise STSFault(f"it names more than {MX_MOST} mail exchangers")
    patterns = [one.lower().removesuffix(".") for one in found]
    for one in patterns:
        if PATTERN.fullmatch(one) is None:
            raise STSFault(f"an mx is no host name: {one[:60]!r}")
    if not patterns and values.get("mode") != "none":
        raise STSFault("it names no mail exchanger")
    return tuple(dict.fromkeys(patterns))
