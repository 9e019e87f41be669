"""Complaints about mail (RFC 5965): the RFC's examples, and nonsense."""

from __future__ import annotations

from ipaddress import ip_address

from hypothesis import given
from twisted.trial.unittest import SynchronousTestCase

from mailserver.mail.address import Address
from mailserver.mail.content import Content
from mailserver.trust.arf import Complaint, read_complaint
from tests.any_octets import any_octets

REPORT = """From: <abusedesk@example.com>
Subject: FW: Earn money
MIME-Version: 1.0
Content-Type: multipart/report; report-type=feedback-report;
 boundary="b"

--b
Content-Type: text/plain; charset="US-ASCII"

This is an email abuse report.

--b
Content-Type: message/feedback-report

{fields}

--b
Content-Type: {kind}
Content-Disposition: inline

Received: from mailserver.example.net by example.com
From: "Some <one>" <somespammer@example.net>
To: <Undisclosed Recipients>
Subject: Earn money
Message-ID: <8787KJKJ3K4J3K4J3K4J3.mail@example.net>

Spam Spam Spam
--b--
"""
FIELDS = """Feedback-Type: Abuse
User-Agent: SomeGenerator/1.0
Version: 1
Original-Mail-From: <somespammer@example.net>
Original-Rcpt-To: <user@example.com>
Original-Rcpt-To: other@example.com
Arrival-Date: Thu, 8 Mar 2005 14:00:00 EDT
Source-IP: 192.0.2.1
Reported-Domain: example.net"""


def read(fields: str = FIELDS, kind: str = "message/rfc822") -> Complaint | None:
    return read_complaint(Content.of(REPORT.format(fields=fields, kind=kind).replace("\n", "\r\n").encode()))


class Complaints(SynchronousTestCase):
    def test_all_that_it_says(self) -> None:
        spammer = Address("somespammer", "example.net")
        for kind in ("message/rfc822", "text/rfc822-headers"):
            self.assertEqual(
                read(kind=kind),
                Complaint(
                    "abuse",
                    spammer,
                    (Address("user", "example.com"), Address("other", "example.com")),
                    ip_address("192.0.2.1"),
                    "<8787KJKJ3K4J3K4J3K4J3.mail@example.net>",
                    spammer,
                ),
            )

    def test_the_least_that_it_says(self) -> None:
        found = read("Feedback-Type: not-spam\nUser-Agent: x\nVersion: 1\nOriginal-Mail-From: <>\nSource-IP: nowhere")
        assert found is not None
        self.assertEqual((found.kind, found.sender, found.recipients, found.source), ("not-spam", None, (), None))
        self.assertEqual(read(kind="text/plain"), Complaint(
            "abuse", Address("somespammer", "example.net"), (Address("user", "example.com"), Address("other", "example.com")),
            ip_address("192.0.2.1"),
        ))  # fmt: skip

    def test_what_is_none(self) -> None:
        self.assertIsNone(read("User-Agent: x"))
        self.assertIsNone(read("Feedback-Type: a b c"))
        self.assertIsNone(read_complaint(Content.of(b"From: a@b.example\r\n\r\nI complain.\r\n")))

    def test_it_is_bounded(self) -> None:
        found = read("Feedback-Type: abuse\n" + "\n".join(f"Original-Rcpt-To: a{n}@example.com" for n in range(5000)))
        assert found is not None
        self.assertEqual(len(found.recipients), 100)

    @given(any_octets())
    def test_any_octets_are_a_complaint_or_none(self, octets: bytes) -> None:
        message = REPORT.format(fields="@@", kind="message/rfc822").replace("\n", "\r\n").encode()
        for content in (octets, message.replace(b"@@", octets), message.replace(b"@@", b"Feedback-Type: abuse").replace(b"Earn", octets)):
            read_complaint(Content.of(content))
