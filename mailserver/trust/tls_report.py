"""TLS reports (RFC 8460): who wants them, what is in one, and how one is written as JSON.

A report says how many sessions with the hosts of a domain were encrypted as its policies say, and why others were not.  It names
hosts and addresses of hosts, and no person.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlsplit

from mailserver.trust.dmarc_report_mail import report_address

__all__ = [
    "FailureDetail", "PolicyRow", "TLSReport", "is_report_uri", "policy_row_of", "report_json", "report_uris", "tls_file_name",
]  # fmt: skip

TEXT_CHARACTERS = 255
RECORD_OCTETS = 4_096
# tlsrpt-record  = tlsrpt-version 1*(field-delim tlsrpt-field) [field-delim]         section 3
# tlsrpt-version = %s"v=TLSRPTv1"
VERSION = re.compile(r"v=TLSRPTv1[ \t]*;")
# tlsrpt-rua     = %s"rua" *WSP "=" *WSP tlsrpt-uri *(*WSP "," *WSP tlsrpt-uri)
RUA = re.compile(r"rua[ \t]*=[ \t]*(.*)", re.DOTALL)
URI = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*:[^\s,!;]+")
WSP = " \t"


@dataclass(frozen=True, slots=True)
class FailureDetail:
    """So many sessions that failed in the same way (section 4.4); "" for what is not known."""

    result: str
    count: int
    sending_ip: str = ""
    receiving_host: str = ""
    receiving_ip: str = ""
    receiving_hello: str = ""
    information: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class PolicyRow:
    """What became of the sessions under one policy (section 4.2): its kind, its text, the domain where it stands."""

    kind: str
    domain: str
    successes: int
    failures: int
    strings: tuple[str, ...] = ()
    mx_patterns: tuple[str, ...] = ()
    details: tuple[FailureDetail, ...] = ()


@dataclass(frozen=True, slots=True)
class TLSReport:
    """A report about the domain, over the time from `begin` to `end`, in seconds since the epoch."""

    organization: str
    contact: str
    id: str
    domain: str
    begin: int
    end: int
    rows: tuple[PolicyRow, ...]

    def plain(self) -> dict[str, Any]:
        """As JSON holds it (not as a report does: `report_json`)."""
        return asdict(self)

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> TLSReport:
        """What `plain` has given, also after a journey through JSON.  KeyError and TypeError for anything else."""
        return cls(**{**plain, "rows": tuple([policy_row_of(one) for one in plain["rows"]])})


def policy_row_of(plain: Mapping[str, Any]) -> PolicyRow:
    """A row from plain values.  KeyError and TypeError for anything else."""
    details = tuple([FailureDetail(**one) for one in plain["details"]])
    numbers = [plain["successes"], plain["failures"], *[one.count for one in details]]
    if any(type(one) is not int for one in numbers):
        raise TypeError("a count is a number")
    lists = {name: tuple(plain[name]) for name in ("strings", "mx_patterns")}
    return PolicyRow(**{**plain, **lists, "details": details})


# --- who wants them ---


def report_uris(texts: Iterable[bytes]) -> tuple[str, ...]:
    """Where reports about a domain go, by the TXT records of ``_smtp._tls.DOMAIN``: none where there is no record, more than one,
    or a wrong one (section 3).  Those of schemes that nobody knows here are left out.
    """
    records = [text for octets in texts if VERSION.match(text := octets.decode("latin-1"))]
    if len(records) != 1 or len(records[0]) > RECORD_OCTETS:
        return ()
    found = [match[1] for field in records[0].split(";")[1:] if (match := RUA.fullmatch(field.strip(WSP)))]
    uris = [one.strip(WSP) for one in found[0].split(",")] if len(found) == 1 else []
    return tuple(dict.fromkeys([one for one in uris if is_report_uri(one)]))


def is_report_uri(uri: str) -> bool:
    """Whether a report can go there: mailto: with an address, https: with a host."""
    if not uri.isascii() or URI.fullmatch(uri) is None:
        return False
    scheme = uri.partition(":")[0].lower()
    if scheme == "mailto":
        return report_address(uri) is not None
    try:
        return scheme == "https" and bool(urlsplit(uri).hostname)
    except ValueError:
        return False


# --- as it is sent ---


def tls_file_name(report: TLSReport, submitter: str) -> str:
    """``mail.sender.example!example.com!1013662812!1013749130!ID.json.gz`` (section 5.1)."""
    return f"{submitter}!{report.domain}!{report.begin}!{report.end}!{report.id.partition('@')[0]}.json.gz"


def report_json(report: TLSReport) -> bytes:
    """The document of section 4.4."""
    document = {
        "organization-name": _text(report.organization),
        "date-range": {"start-datetime": _moment(report.begin), "end-datetime": _moment(report.end)},
        "contact-info": _text(report.contact),
        "report-id": report.id,
        "policies": [_policy(row) for row in report.rows],
    }
    return json.dumps(document, indent=1).encode("ascii")


def _policy(row: PolicyRow) -> dict[str, Any]:
    policy: dict[str, Any] = {"policy-type": row.kind}
    if row.strings:
        policy["policy-string"] = [_text(one, 1_000) for one in row.strings]
    policy["policy-domain"] = row.domain
    if row.mx_patterns:
        policy["mx-host"] = list(row.mx_patterns)
    found: dict[str, Any] = {
        "policy": policy,
        "summary": {"total-successful-session-count": row.successes, "total-failure-session-count": row.failures},
    }
    if row.details:
        found["failure-details"] = [_detail(one) for one in row.details]
    return found


def _detail(one: FailureDetail) -> dict[str, Any]:
    values: dict[str, Any] = {
        "result-type": one.result,
        "sending-mta-ip": one.sending_ip,
        "receiving-mx-hostname": _text(one.receiving_host),
        "receiving-mx-helo": _text(one.receiving_hello),
        "receiving-ip": one.receiving_ip,
        "failed-session-count": one.count,
        "additional-information": _text(one.information),
        "failure-reason-code": _text(one.reason),
    }
    return {name: value for name, value in values.items() if value != ""}


def _moment(seconds: int) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _text(value: str, most: int = TEXT_CHARACTERS) -> str:
    return "".join([one if one.isprintable() else "?" for one in value[:most]])
