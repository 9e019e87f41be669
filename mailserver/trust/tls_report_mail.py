"""A TLS report as a message, packed with gzip (RFC 8460 section 5.3)."""

from __future__ import annotations

import base64
import gzip
import re

from mailserver.mail.address import Address
from mailserver.mail.trace import date_time
from mailserver.trust.tls_report import TLSReport, report_json, tls_file_name

__all__ = ["packed_report", "tls_report_message"]

NOT_PRINTABLE = re.compile(r"[^ -~]")


def packed_report(report: TLSReport) -> bytes:
    """What is sent, by whatever way; the same octets whenever it is made again."""
    return gzip.compress(report_json(report), mtime=0)


def tls_report_message(report: TLSReport, *, submitter: str, sender: Address, to: Address, now: float) -> bytes:
    """The message, its lines with CRLF.  `submitter` is who reports: a domain.

    It goes to its destination whatever is wrong with the TLS of that host (section 3): ``TLS-Required: No``, RFC 8689.
    """
    boundary = f"report-{report.id.partition('@')[0]}"
    lines = [
        f'From: "{_words(report.organization)}" <{sender}>',
        f"To: <{to}>",
        f"Date: {date_time(int(now))}",
        f"Message-ID: <{report.id}>",
        f"Subject: Report Domain: {report.domain}",
        f"\tSubmitter: {submitter}",
        f"\tReport-ID: <{report.id}>",
        f"TLS-Report-Domain: {report.domain}",
        f"TLS-Report-Submitter: {submitter}",
        "TLS-Required: No",
        "Auto-Submitted: auto-generated",
        "MIME-Version: 1.0",
        'Content-Type: multipart/report; report-type="tlsrpt";',
        f'\tboundary="{boundary}"',
        "",
        f"--{boundary}",
        "Content-Type: text/plain; charset=us-ascii",
        "",
        f"This is an aggregate TLS report of {submitter} (RFC 8460)",
        f"about sessions with the mail hosts of {report.domain}:",
        f"{sum([row.successes for row in report.rows])} succeeded and {sum([row.failures for row in report.rows])} failed",
        f"from {date_time(report.begin)} to {date_time(report.end)}.",
        "",
        f"--{boundary}",
        "Content-Type: application/tlsrpt+gzip",
        "Content-Disposition: attachment;",
        f'\tfilename="{tls_file_name(report, submitter)}"',
        "Content-Transfer-Encoding: base64",
        "",
        *base64.encodebytes(packed_report(report)).decode("ascii").split("\n")[:-1],
        f"--{boundary}--",
        "",
    ]
    return "\r\n".join(lines).encode("ascii")


def _words(text: str) -> str:
    return NOT_PRINTABLE.sub("?", text).replace("\\", "?").replace('"', "?")[:200]
