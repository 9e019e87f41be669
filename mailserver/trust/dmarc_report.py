"""DMARC aggregate reports (RFC 9990): what is in one, and how one is written as XML.

A report says how one receiver has judged the messages of one policy domain in a span of time.  It counts messages by where they
came from and what was found, and names nobody: no address, no recipient, no subject.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any
from xml.sax.saxutils import escape

__all__ = ["AggregateReport", "DomainResult", "Override", "Published", "ReportRow", "file_name", "report_id", "report_xml"]

NAMESPACE = "urn:ietf:params:xml:ns:dmarc-2.0"
TEXT_CHARACTERS = 255
# What XML 1.0 section 2.2 has no place for, and what turns a line's direction round.
NO_TEXT = re.compile("[^\t\n -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]|[\u202a-\u202e\u2066-\u2069]")


@dataclass(frozen=True, slots=True)
class DomainResult:
    """What SPF or a signature has shown about a domain: a word of RFC 8601.  `selector` is a signature's."""

    domain: str
    result: str
    selector: str = ""


@dataclass(frozen=True, slots=True)
class Override:
    """Why the policy was not applied as it stands: a word of RFC 9990 ("Policy Override Reason"), and more for people."""

    kind: str
    comment: str = ""


@dataclass(frozen=True, slots=True)
class ReportRow:
    """So many messages from one address with the same results.

    `disposition` is "none", "pass", "quarantine" or "reject"; `dkim` and `spf` are "pass" where what has passed is aligned with
    `header_from`, else "fail".  `envelope_from` is the sender's domain, "" for the null sender.
    """

    source: str
    count: int
    disposition: str
    dkim: str
    spf: str
    header_from: str
    envelope_from: str = ""
    overrides: tuple[Override, ...] = ()
    signatures: tuple[DomainResult, ...] = ()
    senders: tuple[DomainResult, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether DMARC has passed."""
        return "pass" in (self.dkim, self.spf)


@dataclass(frozen=True, slots=True)
class Published:
    """The policy that was applied: `domain` is where the record stands; "" for what a report does not say."""

    domain: str
    policy: str
    subdomains: str = ""
    missing: str = ""
    dkim_alignment: str = ""
    spf_alignment: str = ""
    testing: str = ""


@dataclass(frozen=True, slots=True)
class AggregateReport:
    """`begin` and `end` are seconds since the epoch."""

    organization: str
    email: str
    id: str
    begin: int
    end: int
    published: Published
    rows: tuple[ReportRow, ...]

    @property
    def domain(self) -> str:
        """What it is about."""
        return self.published.domain

    def plain(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> AggregateReport:
        """What `plain` has given, also after a journey through JSON.  KeyError and TypeError for anything else."""
        published = Published(**plain["published"])
        return cls(**{**plain, "published": published, "rows": tuple([row_of(one) for one in plain["rows"]])})


def row_of(plain: Mapping[str, Any]) -> ReportRow:
    """A row from plain values.  KeyError and TypeError for anything else."""
    if type(plain["count"]) is not int:
        raise TypeError("a count is a number")
    return ReportRow(**{
        **plain,
        "overrides": tuple([Override(**one) for one in plain["overrides"]]),
        "signatures": tuple([DomainResult(**one) for one in plain["signatures"]]),
        "senders": tuple([DomainResult(**one) for one in plain["senders"]]),
    })  # fmt: skip


def report_id(receiver: str, domain: str, begin: int, more: str) -> str:
    """The id of a report ("Definition of Report-ID"), the same whenever it is made again.

    `more` tells it from others of this receiver about the same domain and time: another host's, or one about other terms.
    """
    digest = hashlib.sha256("\0".join((receiver, domain, str(begin), more)).encode("utf-8", "surrogatepass")).hexdigest()
    return f"{digest[:20]}@{receiver}"


def file_name(report: AggregateReport, receiver: str) -> str:
    """``mail.receiver.example!example.com!1013662812!1013749130!ID.xml.gz``."""
    unique = report.id.partition("@")[0]
    return f"{receiver}!{report.published.domain}!{report.begin}!{report.end}!{unique}.xml.gz"


def report_xml(report: AggregateReport) -> bytes:
    """The document, by the schema that is an appendix of RFC 9990.  ValueError for a report without rows, which is none."""
    if not report.rows:
        raise ValueError("a report has a row")
    published = report.published
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        f'<feedback xmlns="{NAMESPACE}">',
        " <version>1.0</version>",
        " <report_metadata>",
        *_elements(2, {"org_name": report.organization, "email": report.email, "report_id": report.id}),
        "  <date_range>",
        *_elements(3, {"begin": str(report.begin), "end": str(report.end)}),
        "  </date_range>",
        " </report_metadata>",
        " <policy_published>",
        *_elements(2, {
            "domain": published.domain, "p": published.policy, "sp": published.subdomains, "np": published.missing,
            "adkim": published.dkim_alignment, "aspf": published.spf_alignment, "discovery_method": "treewalk",
            "testing": published.testing,
        }),
        " </policy_published>",
    ]  # fmt: skip
    for row in report.rows:
        lines += _record(row)
    return "\n".join([*lines, "</feedback>", ""]).encode("utf-8", "replace")


def _record(row: ReportRow) -> list[str]:
    evaluated = {"disposition": row.disposition, "dkim": row.dkim, "spf": row.spf}
    lines = [" <record>", "  <row>", *_elements(3, {"source_ip": row.source, "count": str(row.count)}), "   <policy_evaluated>"]
    lines += _elements(4, evaluated)
    for override in row.overrides:
        lines += ["    <reason>", *_elements(5, {"type": override.kind, "comment": override.comment}), "    </reason>"]
    lines += ["   </policy_evaluated>", "  </row>", "  <identifiers>"]
    lines += _elements(3, {"header_from": row.header_from, "envelope_from": row.envelope_from})
    lines += ["  </identifiers>", "  <auth_results>"]
    lines += _results("dkim", row.signatures)
    lines += _results("spf", row.senders[:1])
    return [*lines, "  </auth_results>", " </record>"]


def _results(name: str, results: Sequence[DomainResult]) -> list[str]:
    lines = []
    for one in results:
        more = {"selector": one.selector or "none"} if name == "dkim" else {"scope": "mfrom"}
        lines += [f"   <{name}>", *_elements(4, {"domain": one.domain, **more, "result": one.result}), f"   </{name}>"]
    return lines


def _elements(depth: int, values: Mapping[str, str]) -> list[str]:
    """An element for each value that is there."""
    return [f"{' ' * depth}<{name}>{_text(value)}</{name}>" for name, value in values.items() if value]


def _text(value: str) -> str:
    return escape(NO_TEXT.sub("?", value[:TEXT_CHARACTERS]))
