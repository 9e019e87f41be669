"""A DMARC policy record, read (RFC 9989 section 4.7).

What is wrong with a tag leaves its default in force, and unknown tags (pct= and ri= are among them by now) are ignored.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass

from mailserver.trust.tag_list import TagFault, parse_tags

__all__ = ["DMARCRecord", "find_record", "parse_record"]

POLICIES = ("none", "quarantine", "reject")
RECORD_OCTETS = 8192
REMEMBERED = 1000  # records, of those who send much: they come with each message
REMEMBERED_OCTETS = 2048  # a longer one is read anew each time
REPORT_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*:[^\s,!]+(?:![0-9]+[kmgtKMGT]?)?")


@dataclass(frozen=True, slots=True)
class DMARCRecord:
    """`policy`, `subdomains` (sp=) and `missing` (np=) are "none", "quarantine" or "reject"; the last two "" where absent.

    `psd` is "y", "n" or "u".  `valid` is False where a policy is none of the three: then the record asks for reports at most.
    """

    domain: str
    policy: str = "none"
    subdomains: str = ""
    missing: str = ""
    strict_dkim: bool = False
    strict_spf: bool = False
    psd: str = "u"
    testing: bool = False
    reports_to: tuple[str, ...] = ()
    valid: bool = True

    @property
    def terms(self) -> str:
        """What is in force, with all defaults, in one line that `parse_record` reads again; without the addresses of reports."""
        tags = {"p": self.policy, "sp": self.subdomains, "np": self.missing} if self.valid else {"p": "none"}
        tags |= {"psd": "" if self.psd == "u" else self.psd}
        tags |= {"adkim": "s" if self.strict_dkim else "r", "aspf": "s" if self.strict_spf else "r"}
        tags |= {"t": "y" if self.testing else "n"}
        return "; ".join(["v=DMARC1", *[f"{name}={value}" for name, value in tags.items() if value]])

    def policy_for(self, domain: str, *, exists: bool) -> str:
        """What is asked for mail of this domain, the record's own or one below it (section 4.10.1)."""
        if not self.valid:
            return "none"
        if domain == self.domain:
            return self.policy
        below = self.subdomains or self.policy
        return below if exists else self.missing or below


def find_record(domain: str, texts: Iterable[bytes]) -> DMARCRecord | None:
    """The record among the TXT records of ``_dmarc.domain``: None where there is none or more than one (section 4.10)."""
    found = (record for text in texts if (record := parse_record(domain, text)) is not None)
    first = next(found, None)
    return first if next(found, None) is None else None


def parse_record(domain: str, octets: bytes) -> DMARCRecord | None:
    """One TXT record; None where it is none of DMARC: v=DMARC1 must be its first tag."""
    return _remembered(domain, octets) if len(octets) <= REMEMBERED_OCTETS else _read(domain, octets)


@functools.lru_cache(REMEMBERED)
def _remembered(domain: str, octets: bytes) -> DMARCRecord | None:
    return _read(domain, octets)


def _read(domain: str, octets: bytes) -> DMARCRecord | None:
    specs = octets[:RECORD_OCTETS].decode("latin-1").split(";")
    if octets[:1].isspace() or _tag(specs[0]) != ("v", "DMARC1"):
        return None
    tags: dict[str, str] = {}
    for spec in specs[1:]:
        name, value = _tag(spec)
        tags.setdefault(name, value)
    words = {name: value.lower() for name, value in tags.items()}
    policies = [words[name] for name in ("p", "sp", "np") if name in words]
    reports_to = tuple([uri for uri in map(str.strip, tags.get("rua", "").split(",")) if REPORT_URI.fullmatch(uri)])
    return DMARCRecord(
        domain,
        policy=words.get("p", "none"),
        subdomains=words.get("sp", ""),
        missing=words.get("np", ""),
        strict_dkim=words.get("adkim") == "s",
        strict_spf=words.get("aspf") == "s",
        psd=words["psd"] if words.get("psd") in ("y", "n") else "u",
        testing=words.get("t") == "y",
        reports_to=reports_to,
        valid="p" in words and all(one in POLICIES for one in policies),
    )


def _tag(spec: str) -> tuple[str, str]:
    """Name and value, ("", "") where it is no tag."""
    try:
        for name, value in parse_tags(spec).items():
            return name.lower(), value
    except TagFault:
        pass
    return "", ""
