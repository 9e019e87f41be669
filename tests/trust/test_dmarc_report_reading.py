"""Reports of others, read: old and new ones, and every kind of bomb and nonsense."""

from __future__ import annotations

import gzip
import io
import resource
import zipfile
import zlib

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.mail.content import Content
from mailserver.trust import dmarc_report_reading as module
from mailserver.trust import packed_reports
from mailserver.trust.dmarc_report import AggregateReport, DomainResult, report_xml
from mailserver.trust.dmarc_report_mail import report_message
from mailserver.trust.dmarc_report_reading import read_report, report_in, report_in_plain_values
from mailserver.trust.packed_reports import ReportFault
from tests.any_octets import any_octets
from tests.trust.reports import DAY, REPORT
from tests.trust.test_dmarc_report import SENDER, TO

XML = report_xml(REPORT)
OLD = b"""<?xml version="1.0" encoding="UTF-8" ?>
<feedback>
  <report_metadata>
    <org_name>big.example</org_name><email>noreply@big.example</email><extra_contact_info>x</extra_contact_info>
    <report_id>17389</report_id><date_range><begin>1795996800</begin><end>1796083199</end></date_range>
  </report_metadata>
  <policy_published><domain>Example.ORG</domain><adkim>r</adkim><aspf>r</aspf><p>none</p><sp>none</sp><pct>100</pct></policy_published>
  <record>
    <row><source_ip>192.0.2.1</source_ip><count>3</count>
      <policy_evaluated><disposition>none</disposition><dkim>fail</dkim><spf>pass</spf>
        <reason><type>mailing_list</type><comment>a &lt;list&gt;</comment></reason></policy_evaluated></row>
    <identifiers><header_from>example.org</header_from></identifiers>
    <auth_results><dkim><domain>list.example</domain><result>pass</result></dkim>
      <spf><domain>example.org</domain><scope>helo</scope><result>hardfail</result></spf></auth_results>
  </record>
</feedback>
"""
HEAD = b"From: noreply@big.example\r\nMIME-Version: 1.0\r\n"


def zipped(**files: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, octets in files.items():
            archive.writestr(name.replace("_", "."), octets)
    return out.getvalue()


class Reading(SynchronousTestCase):
    def fault(self, octets: bytes) -> str:
        return str(self.assertRaises(ReportFault, read_report, octets))

    def test_one_of_rfc_7489(self) -> None:
        for octets in (OLD, gzip.compress(OLD), zipped(report_xml=OLD), zipped(a_txt=b"x", b_XML=OLD)):
            found = read_report(octets)
            self.assertEqual((found.organization, found.published.domain, found.published.policy), ("big.example", "example.org", "none"))
            [row] = found.rows
            self.assertEqual((row.source, row.count, row.dkim, row.spf, row.passed), ("192.0.2.1", 3, "fail", "pass", True))
            self.assertEqual([(one.kind, one.comment) for one in row.overrides], [("mailing_list", "a <list>")])
            self.assertEqual(row.senders, (DomainResult("example.org", "fail"),))
            self.assertEqual(row.signatures, (DomainResult("list.example", "pass"),))

    def test_it_is_found_in_a_message_however_that_is_made(self) -> None:
        message = report_message(REPORT, receiver="mail.example.org", sender=SENDER, to=TO, now=DAY)
        self.assertEqual(report_in(Content.of(message)), REPORT)
        bare = HEAD + b"Content-Type: application/zip\r\nContent-Transfer-Encoding: base64\r\n\r\n"
        import base64

        self.assertEqual(report_in(Content.of(bare + base64.encodebytes(zipped(r_xml=XML)))), REPORT)
        plain = HEAD + b"Content-Type: text/xml\r\n\r\n" + XML.replace(b"\n", b"\r\n")
        self.assertEqual(report_in(Content.of(plain)), REPORT)
        named = HEAD + b'Content-Type: text/plain; name="r.xml"\r\n\r\n' + XML
        self.assertEqual(report_in(Content.of(named)), REPORT)

    def test_what_another_process_gives_back(self) -> None:
        message = report_message(REPORT, receiver="mail.example.org", sender=SENDER, to=TO, now=DAY)
        plain = report_in_plain_values(Content.of(message))
        assert isinstance(plain, dict)
        self.assertEqual(AggregateReport.of(plain), REPORT)
        self.assertEqual(report_in_plain_values(Content.of(HEAD + b"\r\nHello\r\n")), "no part of the message is a report")

    def test_what_is_missing_or_wrong_is_told(self) -> None:
        for old, new, words in (
            (b"<org_name>mail.example.org</org_name>", b"", "org_name"),
            (REPORT.id.encode(), b"", "report_id"),
            (b"<domain>example.net</domain>\n  <p>", b"<p>", "domain"),
            (b"<domain>example.net</domain>\n  <p>", b"<domain>a..b</domain><p>", "domain"),
            (b"192.0.2.25", b"x", "address"),
            (b"<count>12</count>", b"<count>-1</count>", "count"),
            (b"<count>12</count>", b"<count>" + b"9" * 5000 + b"</count>", "count"),
            (f"<end>{DAY + 86399}".encode(), b"<end>1", "span"),
            (f"<end>{DAY + 86399}".encode(), b"<end>9999999999", "span"),
            (b"<feedback ", b"<rss ", "broken|no report"),
            (b"</feedback>", b"", "broken"),
            (b'encoding="UTF-8"', b'encoding="ebcdic-nowhere"', "encoding|cannot be read"),
        ):
            self.assertIn(old, XML)
            self.assertRegex(self.fault(XML.replace(old, new)), words)
        self.assertRegex(self.fault(b"<feedback/>"), "begin")
        self.assertRegex(self.fault(b""), "broken")
        no_rows = XML[: XML.index(b" <record>")] + b"</feedback>"
        self.assertRegex(self.fault(no_rows), "no records")

    def test_words_of_strangers_stay_words(self) -> None:
        document = XML.replace(b"mail.example.org</org_name>", b"\xe2\x80\xaeorg\tx</org_name>")
        self.assertEqual(read_report(document).organization, "?org?x")

    @given(any_octets())
    def test_any_octets_are_a_report_or_none(self, octets: bytes) -> None:
        for before in (b"", b"\x1f\x8b\x08\0", b"PK\x03\x04", b"<feedback>"):
            try:
                read_report(before + octets)
            except ReportFault:
                continue

    @given(st.integers(0, len(XML) - 1), st.integers(0, 255), st.sampled_from(["plain", "gzip", "zip"]))
    def test_one_octet_that_is_another_breaks_nothing(self, place: int, octet: int, how: str) -> None:
        octets = {"plain": XML, "gzip": gzip.compress(XML, mtime=0), "zip": zipped(r_xml=XML)}[how]
        place %= len(octets)
        try:
            read_report(octets[:place] + bytes([octet]) + octets[place + 1 :])
        except ReportFault:
            pass


class Bombs(SynchronousTestCase):
    """Each is refused, and none is ever in memory."""

    def refused(self, octets: bytes, words: str) -> None:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        self.assertRegex(str(self.assertRaises(ReportFault, read_report, octets)), words)
        self.assertLess(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, 60_000)  # KiB

    def blanks(self, mebibytes: int) -> bytes:
        """A gzip of a document that begins well and has so many blanks."""
        packer = zlib.compressobj(wbits=31)
        pieces = [packer.compress(XML[:-12])] + [packer.compress(b" " * (1 << 20)) for _ in range(mebibytes)]
        return b"".join([*pieces, packer.compress(b"</feedback>\n"), packer.flush()])

    def test_gzip(self) -> None:
        self.refused(self.blanks(400), "more than 20971520 octets")
        self.assertEqual(read_report(self.blanks(1)), REPORT)

    def test_many_members_of_a_gzip(self) -> None:
        self.refused(self.blanks(1) + gzip.compress(b" " * (1 << 20)) * 40, "more than|broken")
        self.assertEqual(read_report(gzip.compress(XML[:100]) + gzip.compress(XML[100:])), read_report(XML))
        empty = gzip.compress(b"", mtime=0)
        self.refused(empty * 21 + gzip.compress(XML), "its gzip has more than 20 members")
        self.assertEqual(read_report(empty * 19 + gzip.compress(XML)), read_report(XML))

    def test_zip(self) -> None:
        self.refused(zipped(report_xml=XML[:-12] + b" " * (64 << 20)), "more than 20971520 octets")
        self.refused(zipped(**{f"f{n}_xml": b"x" for n in range(21)}), "more than 20 files")
        self.refused(zipped(), "zip|broken")

    def test_zip_that_lies_about_its_size(self) -> None:
        octets = bytearray(zipped(report_xml=XML))
        place = octets.rindex(b"PK\x01\x02")
        octets[place + 24 : place + 28] = (10).to_bytes(4, "little")
        self.refused(bytes(octets), "zip|broken")

    def test_entities(self) -> None:
        laughs = b'<!DOCTYPE feedback [<!ENTITY a "aaaaaaaaaa">' + b"".join(
            b'<!ENTITY %c "%s">' % (c, b"&%c;" % (c - 1) * 10) for c in range(ord("b"), ord("k"))
        )
        self.refused(XML.replace(b"<feedback ", laughs + b"]>\n<feedback ").replace(b"mail.example.org</org", b"&j;</org"), "document type")
        outside = b'<!DOCTYPE feedback [<!ENTITY x SYSTEM "file:///etc/passwd">]><feedback>&x;</feedback>'
        self.refused(outside, "document type")
        self.refused(b'<!DOCTYPE feedback SYSTEM "http://evil.example/x.dtd"><feedback/>', "document type")
        self.refused(b"<feedback>&undefined;</feedback>", "broken")

    def test_depth_rows_and_texts(self) -> None:
        self.refused(b"<feedback>" + b"<a>" * 100_000, "deep")
        self.patch(module, "ROWS_MOST", 1)
        self.refused(XML, "more than 1 records")
        self.patch(module, "ROWS_MOST", 10)
        long = XML.replace(b"mail.example.org</org_name>", b"o" * 100_000 + b"</org_name>")
        self.assertEqual(len(read_report(long).organization), 255)
        many = XML.replace(b"<dkim>\n    <domain>", b"<dkim><domain>x.example</domain></dkim>" * 5000 + b"<dkim>\n    <domain>")
        self.assertLessEqual(len(read_report(many).rows[0].signatures), module.RESULTS_MOST)

    def test_of_a_text_its_beginning_is_kept_and_elements_within_have_texts_of_their_own(self) -> None:
        document = module._Document()
        document.start("feedback", None)
        document.start("email", None)
        for _ in range(20):
            document.text("x" * 90)
        self.assertEqual(len("".join(document._text)), module.TEXT_CHARACTERS)
        document.start("b", None)
        document.text("inner")
        document.end("b")
        document.end("email")
        self.assertEqual(document.about, {"email.b": "inner"})

    def test_an_attachment_that_is_too_large(self) -> None:
        self.patch(packed_reports, "PACKED_OCTETS", 1000)
        message = HEAD + b"Content-Type: application/gzip\r\n\r\n" + b"\x1f\x8b" + b"x" * 2000
        self.assertRegex(str(self.assertRaises(ReportFault, report_in, Content.of(message))), "attachment")
