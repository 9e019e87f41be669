"""DMARC reports that are written: the schema, names and ids, the message, where they go (RFC 9990)."""

from __future__ import annotations

import email
import email.policy
import gzip
import json
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.mail.address import Address
from mailserver.trust.dmarc_report import AggregateReport, Override, file_name, report_id, report_xml
from mailserver.trust.dmarc_report_mail import ReportAddress, consents, report_address, report_message
from mailserver.trust.dmarc_report_reading import read_report
from tests.trust.reports import DAY, REPORT, faults_by_schema

SENDER, TO = Address("dmarc-reports", "example.org"), Address("rua", "example.net")


class Documents(SynchronousTestCase):
    def test_they_are_what_the_schema_says_and_are_read_again(self) -> None:
        document = report_xml(REPORT)
        self.assertEqual(faults_by_schema(document), [])
        self.assertEqual(read_report(document), REPORT)
        self.assertEqual(read_report(gzip.compress(document)), REPORT)

    def test_the_schema_can_say_no(self) -> None:
        document = report_xml(REPORT).replace(b"<disposition>pass", b"<disposition>burnt")
        self.assertEqual(len(faults_by_schema(document)), 1)

    def test_values_go_through_json(self) -> None:
        self.assertEqual(AggregateReport.of(json.loads(json.dumps(REPORT.plain()))), REPORT)

    def test_one_without_rows_is_none(self) -> None:
        self.assertRaises(ValueError, report_xml, replace(REPORT, rows=()))

    @given(st.text(max_size=300))
    def test_any_text_of_strangers_is_text_in_it(self, text: str) -> None:
        row = replace(REPORT.rows[0], header_from=text or "x", overrides=(Override("other", text),))
        document = report_xml(replace(REPORT, organization=text or "x", rows=(row,)))
        self.assertEqual(faults_by_schema(document), [])

    def test_the_id_is_the_same_whenever_it_is_made_and_another_for_other_terms(self) -> None:
        made = [report_id("mail.example.org", "example.net", DAY, terms) for terms in ("p=none", "p=none", "p=reject")]
        self.assertEqual(made[0], made[1])
        self.assertNotEqual(made[0], made[2])
        self.assertRegex(made[0], r"^[0-9a-f]{20}@mail\.example\.org$")

    def test_the_file_has_its_name_by_the_rfc(self) -> None:
        self.assertEqual(
            file_name(REPORT, "mail.example.org"),
            f"mail.example.org!example.net!{DAY}!{DAY + 86399}!0123456789abcdef0123.xml.gz",
        )


class Messages(SynchronousTestCase):
    def message(self) -> bytes:
        return report_message(REPORT, receiver="mail.example.org", sender=SENDER, to=TO, now=DAY + 90_000)

    def test_another_reader_finds_subject_file_and_report(self) -> None:
        found = email.message_from_bytes(self.message(), policy=email.policy.default)
        self.assertEqual(found["Subject"].split(), [
            "Report", "Domain:", "example.net", "Submitter:", "mail.example.org", "Report-ID:", f"<{REPORT.id}>",
        ])  # fmt: skip
        self.assertEqual((found["From"].addresses[0].addr_spec, found["To"].addresses[0].addr_spec), (str(SENDER), str(TO)))
        words, attachment = found.iter_parts()
        self.assertIn("13 messages", words.get_content())
        self.assertEqual((attachment.get_content_type(), attachment.get_filename()), ("application/gzip", file_name(REPORT, "mail.example.org")))
        self.assertEqual(read_report(attachment.get_content()), REPORT)

    def test_it_is_ascii_its_lines_are_short_and_it_is_the_same_when_it_is_made_again(self) -> None:
        message = self.message()
        self.assertTrue(message.isascii())
        self.assertEqual(message.count(b"\n"), message.count(b"\r\n"))
        self.assertLess(max(map(len, message.split(b"\r\n"))), 200)
        self.assertEqual(message, self.message())


class Addresses(SynchronousTestCase):
    def test_each_uri(self) -> None:
        for uri, address, most in (
            ("mailto:rua@example.net", "rua@example.net", None),
            ("MAILTO:rua@example.net!10m", "rua@example.net", 10 << 20),
            ("mailto:rua@example.net!500", "rua@example.net", 500),
            ("mailto:rua@example.net!2K", "rua@example.net", 2048),
            ("mailto:r%2Bua@example.net?subject=x!1g", "r+ua@example.net", 1 << 30),
        ):
            self.assertEqual(report_address(uri), ReportAddress(Address.parse(address), most))

    def test_other_schemes_and_what_is_no_address_are_left_out(self) -> None:
        for uri in ("https://example.net/r", "mailto:", "mailto:rua", "mailto:rua@[192.0.2.1]", "mailto:%FF@example.net", "rua@example.net",
                    "mailto:a@b.example!10x", "mailto:a%0d%0ab@example.net", "mailto:a@b@c.example"):  # fmt: skip
            self.assertIsNone(report_address(uri), uri)

    def test_consent(self) -> None:
        host, there = "third.example", ReportAddress(Address("a", "third.example"))
        for texts, answer in (
            ([b"v=DMARC1"], (True, ())),
            ([b"v=DMARC1;"], (True, ())),
            ([b"something", b"v=DMARC1; rua=mailto:a@third.example"], (True, (there,))),
            ([b"v=DMARC1; rua=mailto:a@third.example, https://third.example/"], (True, (there,))),
            ([b"v=DMARC1; rua=mailto:a@fourth.example"], (False, ())),
            ([], (False, ())),
            ([b"v=spf1 -all", b"V=DMARC1", b"x=1; v=DMARC1", b""], (False, ())),
        ):
            self.assertEqual(consents(host, texts), answer)
