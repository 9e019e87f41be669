"""TLS reports: who wants them, as JSON by the schema, as a message, and read again out of any octets (RFC 8460)."""

from __future__ import annotations

import email
import email.policy
import gzip
import json
from dataclasses import replace
from typing import Any

from hypothesis import given
from twisted.trial.unittest import SynchronousTestCase

from mailserver.mail.address import Address
from mailserver.mail.content import Content
from mailserver.trust import tls_report_reading as module
from mailserver.trust.packed_reports import ReportFault
from mailserver.trust.tls_report import FailureDetail, TLSReport, report_json, report_uris, tls_file_name
from mailserver.trust.tls_report_mail import packed_report, tls_report_message
from mailserver.trust.tls_report_reading import read_tls_report, tls_report_in, tls_report_in_plain_values
from tests.any_octets import any_octets
from tests.trust.tls_reports import DAY, TLS_REPORT, faults_by_tls_schema

SENDER, TO = Address("tls-reports", "example.org"), Address("r", "example.net")
# As section 4.4 and its appendix show one.
OF_THE_RFC = b"""{
 "organization-name": "Company-X", "contact-info": "sts-reporting@company-x.example", "report-id": "5065427c-23d3-47ca-b6e0-946ea0e8c4be",
 "date-range": {"start-datetime": "2016-04-01T00:00:00Z", "end-datetime": "2016-04-01T23:59:59Z"},
 "policies": [{
   "policy": {"policy-type": "sts", "policy-string": ["version: STSv1", "mode: testing", "mx: *.mail.company-y.example", "max_age: 86400"],
              "policy-domain": "company-y.example", "mx-host": "*.mail.company-y.example"},
   "summary": {"total-successful-session-count": 5326, "total-failure-session-count": 303},
   "failure-details": [
     {"result-type": "certificate-expired", "sending-mta-ip": "2001:db8:abcd:0012::1", "receiving-mx-hostname": "mx1.mail.company-y.example",
      "failed-session-count": 100},
     {"result-type": "starttls-not-supported", "sending-mta-ip": "2001:db8:abcd:0013::1", "receiving-mx-hostname": "mx2.mail.company-y.example",
      "receiving-ip": "203.0.113.56", "failed-session-count": 200, "additional-information": "https://reports.company-x.example/report_info"},
     {"result-type": "validation-failure", "sending-mta-ip": "198.51.100.62", "receiving-ip": "203.0.113.58",
      "receiving-mx-hostname": "mx-backup.mail.company-y.example", "failed-session-count": 3, "failure-reason-code": "X509_V_ERR_PROXY_PATH_LENGTH_EXCEEDED"}]
 }]}"""


class WhoWantsThem(SynchronousTestCase):
    """``_smtp._tls.DOMAIN`` (section 3)."""

    def test_the_addresses_of_the_one_record(self) -> None:
        self.assertEqual(report_uris([b"v=spf1 -all", b"v=TLSRPTv1; rua=mailto:a@example.net"]), ("mailto:a@example.net",))
        self.assertEqual(
            report_uris([b"v=TLSRPTv1;rua = mailto:a@example.net , https://r.example/v1?x=1,ftp://x/ ; ext=1;"]),
            ("mailto:a@example.net", "https://r.example/v1?x=1"),
        )

    def test_what_is_no_record_or_more_than_one_asks_for_nothing(self) -> None:
        for texts in (
            [], [b"v=TLSRPTv1"], [b"v=TLSRPTv1;"], [b"V=TLSRPTv1; rua=mailto:a@b.example"], [b" v=TLSRPTv1; rua=mailto:a@b.example"],
            [b"v=TLSRPTv1; rua=mailto:a@b.example", b"v=TLSRPTv1; rua=mailto:a@b.example"], [b"v=TLSRPTv1; RUA=mailto:a@b.example"],
            [b"v=TLSRPTv1; rua=mailto:a@b.example; rua=mailto:c@b.example"], [b"v=TLSRPTv1; rua=mailto:nobody"], [b"v=TLSRPTv1; rua=https:///x"],
            [b"v=TLSRPTv1; rua=mailto:\xff@b.example"], [b"v=TLSRPTv1; rua=mailto:a@b.example; x=" + b"a" * 5000], [b"v=TLSRPTv1; rua=https://[x/"],
        ):  # fmt: skip
            self.assertEqual(report_uris(texts), (), texts)

    @given(any_octets(200))
    def test_any_octets_are_read_without_an_error(self, octets: bytes) -> None:
        report_uris([b"v=TLSRPTv1; rua=" + octets])


class Written(SynchronousTestCase):
    def test_it_is_what_the_schema_says(self) -> None:
        self.assertEqual(faults_by_tls_schema(report_json(TLS_REPORT)), [])
        self.assertEqual(faults_by_tls_schema(OF_THE_RFC.replace(b'"*.mail.company-y.example"}', b'["*.mail.company-y.example"]}')),
                         ["$.report-id: '5065427c-23d3-47ca-b6e0-946ea0e8c4be'"])  # fmt: skip
        self.assertNotEqual(faults_by_tls_schema(report_json(TLS_REPORT).replace(b"tlsa", b"dane")), [])
        dates = json.loads(report_json(TLS_REPORT))["date-range"]
        self.assertEqual(dates, {"start-datetime": "2026-11-30T00:00:00Z", "end-datetime": "2026-11-30T23:59:59Z"})

    def test_it_is_a_message_of_its_own_kind(self) -> None:
        octets = tls_report_message(TLS_REPORT, submitter="mail.example.org", sender=SENDER, to=TO, now=DAY)
        self.assertTrue(octets.isascii() and max(map(len, octets.split(b"\r\n"))) < 998)
        message = email.message_from_bytes(octets, policy=email.policy.default)
        self.assertEqual(
            (message.get_content_type(), message["Content-Type"].params["report-type"], message["TLS-Required"]), ("multipart/report", "tlsrpt", "No")
        )
        self.assertEqual((message["TLS-Report-Domain"], message["TLS-Report-Submitter"]), ("example.net", "mail.example.org"))
        self.assertRegex(str(message["Subject"]), r"^Report Domain: example\.net\s+Submitter: mail\.example\.org\s+Report-ID: <\S+@mail\.example\.org>$")
        [text, attachment] = message.iter_parts()
        self.assertIn("128 succeeded and 3 failed", text.get_content())
        self.assertEqual(attachment.get_content_type(), "application/tlsrpt+gzip")
        self.assertEqual(
            attachment.get_filename(), f"mail.example.org!example.net!{DAY}!{DAY + 86_399}!0123456789abcdef0123.json.gz"
        )
        self.assertEqual(attachment.get_filename(), tls_file_name(TLS_REPORT, "mail.example.org"))
        self.assertEqual(gzip.decompress(attachment.get_content()), report_json(TLS_REPORT))

    def test_it_survives_plain_values(self) -> None:
        self.assertEqual(TLSReport.of(json.loads(json.dumps(TLS_REPORT.plain()))), TLS_REPORT)
        for wrong in ({}, {**TLS_REPORT.plain(), "rows": [{}]}, {**TLS_REPORT.plain(), "x": 1}):
            self.assertRaises((KeyError, TypeError), TLSReport.of, wrong)


class Reading(SynchronousTestCase):
    def test_one_of_ours_comes_back_as_it_was(self) -> None:
        found = tls_report_in(Content.of(tls_report_message(TLS_REPORT, submitter="mail.example.org", sender=SENDER, to=TO, now=0)))
        self.assertEqual(found, TLS_REPORT)

    def test_the_one_of_the_rfc_is_read(self) -> None:
        for octets in (OF_THE_RFC, gzip.compress(OF_THE_RFC)):
            found = read_tls_report(octets)
            [row] = found.rows
            self.assertEqual((found.domain, row.kind, row.successes, row.failures), ("company-y.example", "sts", 5326, 303))
            self.assertEqual(row.mx_patterns, ("*.mail.company-y.example",))
            self.assertEqual(row.details[1], FailureDetail(
                "starttls-not-supported", 200, "2001:db8:abcd:13::1", "mx2.mail.company-y.example", "203.0.113.56",
                information="https://reports.company-x.example/report_info",
            ))  # fmt: skip

    def test_what_it_is_about_says_the_message_or_its_first_policy(self) -> None:
        head = b"From: r@x.example\nMIME-Version: 1.0\nContent-Type: application/tlsrpt+json\n"
        for field, domain in (
            (b"TLS-Report-Domain: Example.ORG\n", "example.org"), (b"Subject: Report Domain: example.com Submitter: x\n", "example.com"),
            (b"", "company-y.example"),
        ):  # fmt: skip
            self.assertEqual(tls_report_in(Content.of((head + field + b"\n" + OF_THE_RFC).replace(b"\n", b"\r\n"))).domain, domain)

    def test_a_policy_with_many_failures_has_several_rows(self) -> None:
        details = tuple([replace(TLS_REPORT.rows[0].details[0], count=n) for n in range(1, 121)])
        report = replace(TLS_REPORT, rows=(replace(TLS_REPORT.rows[0], details=details),))
        rows = read_tls_report(packed_report(report)).rows
        self.assertEqual([len(row.details) for row in rows], [50, 50, 20])
        self.assertEqual([row.successes for row in rows], [120, 0, 0])

    def test_what_is_no_report_is_a_fault(self) -> None:
        def changed(**values: Any) -> bytes:
            return json.dumps({**json.loads(OF_THE_RFC), **values}).encode()

        policy = json.loads(OF_THE_RFC)["policies"][0]
        for octets, words in (
            (b"", "broken"), (b"[]", "document"), (b"{}", "date-range"), (b"[" * 100_000, "broken"), (b'{"a":' * 100_000, "broken"),
            (b"\x1f\x8b\x08", "gzip"), (gzip.compress(b" " * (5 << 20)), "octets"), (changed(policies=[]), "policies"),
            (changed(policies=[policy] * 501), "500"), (changed(policies=[{}]), "policy"), (changed(policies=[5]), "policy"),
            (changed(policies=[{**policy, "summary": {"total-failure-session-count": -1}}]), "count"),
            (changed(policies=[{**policy, "summary": {"total-failure-session-count": True}}]), "count"),
            (changed(policies=[{**policy, "summary": {"total-failure-session-count": 1e400}}]), "count"),
            (changed(policies=[{**policy, "policy": {"policy-type": "sts", "policy-domain": "a b"}}]), "domain"),
            (changed(**{"date-range": {"start-datetime": "x", "end-datetime": 5}}), "no time"),
            (changed(**{"date-range": {"start-datetime": "0001-01-01T00:00:00+14:00", "end-datetime": "2016-04-01T00:00:00Z"}}), "no time"),
            (changed(**{"date-range": {"start-datetime": "2016-04-01T00:00:00Z", "end-datetime": "2017-04-01T00:00:00Z"}}), "span"),
            (changed(**{"report-id": None}), "report-id"), (OF_THE_RFC.replace(b"5326", b"9" * 5000), "broken"),
        ):  # fmt: skip
            fault = self.assertRaises(ReportFault, read_tls_report, octets)
            self.assertRegex(str(fault), words)
        self.assertEqual(tls_report_in_plain_values(Content.of(b"From: a@b.example\n\nHello\n")), "no part of the message is a report")

    def test_what_people_are_shown_is_one_line_and_short(self) -> None:
        evil = "\x1b[2J\r\n\u202e" + "x" * 10_000
        document = json.loads(OF_THE_RFC)
        document["organization-name"] = document["contact-info"] = document["report-id"] = evil
        detail = document["policies"][0]["failure-details"][1]
        detail |= {"additional-information": evil, "result-type": evil, "receiving-ip": evil, "receiving-mx-hostname": evil}
        document["policies"][0]["policy"]["policy-string"] = [evil] * 100
        found = read_tls_report(json.dumps(document).encode())
        row = found.rows[0]
        texts = [found.organization, found.contact, found.id, *row.strings, row.details[1].information, row.details[1].receiving_host]
        self.assertTrue(all(one.isprintable() and len(one) <= 255 for one in texts))
        self.assertEqual((row.details[1].result, row.details[1].receiving_ip, len(row.strings)), ("unknown", "", module.STRINGS_MOST))

    @given(any_octets(300))
    def test_any_octets_are_a_report_or_a_fault(self, octets: bytes) -> None:
        cut = len(OF_THE_RFC) * (octets[0] if octets else 0) // 256
        for document in (octets, OF_THE_RFC[:cut] + octets + OF_THE_RFC[cut + len(octets) :]):
            try:
                read_tls_report(document)
            except ReportFault as fault:
                self.assertTrue(str(fault))
