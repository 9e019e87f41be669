"""A DMARC report as a message, packed with gzip (RFC 1952), and where it goes (RFC 9990, "Transport", "Verifying External
Destinations").
"""

from __future__ import annotations

import base64
import gzip
import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from mailserver.mail.address import Address, AddressError
from mailserver.mail.trace import date_time
from mailserver.trust.dmarc_report import AggregateReport, file_name, report_xml
from mailserver.trust.tag_list import TagFault, parse_tags

__all__ = ["ReportAddress", "consents", "report_address", "report_message"]

URI = re.compile(r"mailto:([^\s,!?]+)(?:\?[^\s,!]*)?(?:!([0-9]{1,15})([kmgt]?))?", re.IGNORECASE)
UNITS = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}
NOT_PRINTABLE = re.compile(r"[^ -~]")


@dataclass(frozen=True, slots=True)
class ReportAddress:
    """One of the `rua=` of a record.  `octets_most`: no larger message is wanted there; None: it does not say."""

    address: Address
    octets_most: int | None = None


def report_address(uri: str) -> ReportAddress | None:
    """What a URI says; None for any scheme but mailto, and for what is no address with a domain."""
    match = URI.fullmatch(uri.strip())
    if match is None:
        return None
    try:
        address = Address.parse(unquote_to_bytes(match[1]).decode("ascii"))
        if not address.domain or address.is_literal or not address.domain_key:
            return None
    except (AddressError, UnicodeDecodeError):
        return None
    return ReportAddress(address, int(match[2]) << UNITS[match[3].lower()] if match[2] else None)


def consents(host: str, texts: Sequence[bytes]) -> tuple[bool, tuple[ReportAddress, ...]]:
    """What the records at ``DOMAIN._report._dmarc.HOST`` say: are reports wanted, and at which other addresses?

    An address at any other host is nobody's consent.
    """
    wanted = False
    others: list[ReportAddress] = []
    for text in texts:
        tags = _tags(text)
        if tags is None:
            continue
        wanted = True
        for uri in tags.get("rua", "").split(","):
            if not uri.strip():
                continue
            other = report_address(uri)
            if other is None:
                continue
            if other.address.domain_key != host:
                return False, ()
            others.append(other)
    return wanted, tuple(others)


def _tags(text: bytes) -> dict[str, str] | None:
    specs = text[:8192].decode("latin-1").split(";")
    found: dict[str, str] = {}
    for n, spec in enumerate(specs):
        try:
            tags = parse_tags(spec)
        except TagFault:
            tags = {}
        if n == 0 and dict(tags) != {"v": "DMARC1"}:
            return None
        for name, value in tags.items():
            found.setdefault(name.lower(), value)
    return found


def report_message(report: AggregateReport, *, receiver: str, sender: Address, to: Address, now: float) -> bytes:
    """The message, its lines with CRLF.  `receiver` is who reports: a domain."""
    packed = gzip.compress(report_xml(report), mtime=0)  # the same octets whenever it is made again
    name = file_name(report, receiver)
    boundary = f"report-{report.id.partition('@')[0]}"
    days = f"from {date_time(report.begin)} to {date_time(report.end)}"
    count = sum([row.count for row in report.rows])
    lines = [
        f'From: "{_words(report.organization)}" <{sender}>',
        f"To: <{to}>",
        f"Date: {date_time(int(now))}",
        f"Message-ID: <{report.id}>",
        f"Subject: Report Domain: {report.published.domain}",
        f"\tSubmitter: {receiver}",
        f"\tReport-ID: <{report.id}>",
        "Auto-Submitted: auto-generated",
        "MIME-Version: 1.0",
        f'Content-Type: multipart/mixed; boundary="{boundary}"',
        "",
        f"--{boundary}",
        "Content-Type: text/plain; charset=us-ascii",
        "",
        f"This is a DMARC aggregate report of {receiver} (RFC 9990)",
        f"about mail that names {report.published.domain} as its author's domain:",
        f"{count} messages {days}.",
        "",
        f"--{boundary}",
        "Content-Type: application/gzip",
        "Content-Disposition: attachment;",
        f'\tfilename="{name}"',
        "Content-Transfer-Encoding: base64",
        "",
        *base64.encodebytes(packed).decode("ascii").split("\n")[:-1],
        f"--{boundary}--",
        "",
    ]
    return "\r\n".join(lines).encode("ascii")


def _words(text: str) -> str:
    return NOT_PRINTABLE.sub("?", text).replace("\\", "?").replace('"', "?")[:200]
