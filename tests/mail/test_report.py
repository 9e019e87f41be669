"""Reports, read back by the standard library's parser."""

from __future__ import annotations

import email
import email.policy
import re
from dataclasses import replace
from email.message import Message
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.mail.address import Address
from mailserver.mail.content import Content
from mailserver.mail.envelope import Envelope, MailParameters, Peer, Recipient, RecipientParameters
from mailserver.mail.reply import Reply
from mailserver.mail.report import (
    HEADER_OCTETS_MOST,
    WHOLE_OCTETS_MOST,
    Original,
    RecipientReport,
    delay_report,
    failure_report,
    original_of,
    parameters_for,
    success_report,
    wants,
)
from tests.any_octets import any_octets

NOON = 1795436523.9  # 2026-11-23T12:22:03Z
PEER = Peer("192.0.2.1", 4711, "mx", "client.example", "EHLO")
BOB = Recipient(Address("bob", "example.com"))
NO_USER = Reply.heard(550, "5.1.1", ["No such user", "Go away"])
HEADER = b"Received: by mx.example.org;\r\n\tMon, 23 Nov 2026 12:22:03 +0000\r\nMessage-ID: <1@example.net>\r\nSubject: hi\r\n"
MESSAGE = HEADER + b"\r\nThe body\r\n"
MADE: dict[str, Any] = {"id": "0123456789ABCDEF", "hostname": "mx.example.org", "made_at": NOON + 60}


def envelope(*recipients: Recipient, sender: str = "alice@example.net", **parameters: Any) -> Envelope:
    address = Address.parse(sender, utf8=True) if sender else None
    return Envelope("1K0WZABCDEFGHJKM", PEER, address, recipients or (BOB,), NOON, MailParameters(**parameters))


def original(message: bytes = MESSAGE, **more: Any) -> Original:
    return original_of(envelope(**more), Content.of(message))


def failed(recipient: Recipient = BOB, reply: Reply | None = NO_USER, **more: Any) -> RecipientReport:
    return RecipientReport(recipient, reply, **{"peer": "mx.example.com", "tried_at": NOON + 30, **more})


def recipient(address: str = "bob@example.com", **parameters: Any) -> Recipient:
    return Recipient(Address.parse(address, utf8=True), RecipientParameters(**parameters))


class ReportCase(SynchronousTestCase):
    def read(self, report: bytes) -> tuple[Message, Message, Message, Message]:
        """The report and its three parts; whatever a strict reader of RFC 5322, 6522 and 3464 may hope for is checked."""
        self.assertNotRegex(report, rb"\r(?!\n)|(?<!\r)\n|\x00")
        self.assertLessEqual(max(map(len, report.split(b"\r\n"))), 998)
        message = email.message_from_bytes(report, policy=email.policy.default)
        for part in message.walk():
            self.assertEqual(part.defects, [], part)
        self.assertEqual(message.get_content_type(), "multipart/report")
        self.assertEqual(message.get_param("report-type"), "delivery-status")
        parts = message.get_payload()
        assert isinstance(parts, list)
        self.assertEqual(len(parts), 3)
        words, status, returned = parts
        self.assertEqual(words.get_content_type(), "text/plain")
        return message, words, status, returned

    def fields(self, report: bytes) -> tuple[dict[str, str], list[dict[str, str]]]:
        """The fields of the message, and those of each recipient."""
        status = self.read(report)[2]
        blocks = status.get_payload()
        if isinstance(blocks, str):  # the parser leaves the global form alone
            parsed = [email.message_from_string(block) for block in blocks.strip().split("\n\n")]
        else:
            parsed = [block for block in blocks if block.keys()]
        unfolded = [{k: re.sub(r"\s+", " ", str(v)) for k, v in block.items()} for block in parsed]
        return unfolded[0], unfolded[1:]

    def words(self, report: bytes) -> str:
        part = self.read(report)[1]
        return part.get_payload(decode=True).decode(part.get_content_charset() or "")  # type: ignore[union-attr]


class Failures(ReportCase):
    def test_the_message_around_it(self) -> None:
        message, *_ = self.read(failure_report(original(), [failed()], **MADE))
        expected = {
            "From": '"Mail Delivery System" <MAILER-DAEMON@mx.example.org>',
            "To": "<alice@example.net>",
            "Subject": "Your message was not delivered",
            "Date": "Mon, 23 Nov 2026 12:23:03 +0000",
            "Message-ID": "<0123456789ABCDEF@mx.example.org>",
            "In-Reply-To": "<1@example.net>",
            "References": "<1@example.net>",
            "Auto-Submitted": "auto-replied",
            "MIME-Version": "1.0",
        }
        found = {name: str(message[name]) for name in expected}
        found["From"] = failure_report(original(), [failed()], **MADE).split(b"\r\n")[0].decode()[6:]
        found["To"] = f"<{message['To'].addresses[0].addr_spec}>"
        self.assertEqual(found, expected)

    def test_the_fields_of_rfc3464_2(self) -> None:
        whole, (one,) = self.fields(failure_report(original(), [failed()], **MADE))
        self.assertEqual(
            whole, {"Reporting-MTA": "dns; mx.example.org", "Arrival-Date": "Mon, 23 Nov 2026 12:22:03 +0000"}
        )
        self.assertEqual(
            one,
            {
                "Final-Recipient": "rfc822; bob@example.com",
                "Action": "failed",
                "Status": "5.1.1",
                "Remote-MTA": "dns; mx.example.com",
                "Diagnostic-Code": "smtp; 550 5.1.1 No such user Go away",
                "Last-Attempt-Date": "Mon, 23 Nov 2026 12:22:33 +0000",
            },
        )

    def test_envid_and_orcpt_come_back_rfc3461_6_3(self) -> None:
        bob = recipient(orcpt=("rfc822", "Robert+x@example.com"))
        whole, (one,) = self.fields(failure_report(original(envid="QQ 314"), [failed(bob)], **MADE))
        self.assertEqual(whole["Original-Envelope-Id"], "QQ 314")
        self.assertEqual(list(one)[:2], ["Original-Recipient", "Final-Recipient"])
        self.assertEqual(one["Original-Recipient"], "rfc822; Robert+x@example.com")

    def test_each_recipient_has_its_block(self) -> None:
        carol = recipient("carol@example.com")
        report = failure_report(original(), [failed(), failed(carol, Reply.of(552, "5.2.2", "Full"), peer="")], **MADE)
        _, (one, two) = self.fields(report)
        self.assertEqual((one["Final-Recipient"], two["Final-Recipient"]), ("rfc822; bob@example.com", "rfc822; carol@example.com"))
        self.assertEqual(two["Diagnostic-Code"], "x-mailserver; 552 5.2.2 Full")
        self.assertNotIn("Remote-MTA", two)

    def test_the_status_is_the_replys_or_the_class_of_its_code_rfc3464_2_3_4(self) -> None:
        for reply, expected in (
            (Reply.of(550, "5.7.1", "x"), "5.7.1"),
            (Reply.of(550, "", "x"), "5.0.0"),
            (Reply.of(451, "", "x"), "4.0.0"),
            (Reply.of(554, "2.0.0", "x"), "5.0.0"),
            (Reply.of(554, "5.1", "x"), "5.0.0"),
            (None, "5.0.0"),
        ):
            _, (one,) = self.fields(failure_report(original(), [failed(reply=reply)], **MADE))
            self.assertEqual(one["Status"], expected, reply)
        _, (one,) = self.fields(failure_report(original(), [failed(reply=None, expired=True)], **MADE))
        self.assertEqual(one["Status"], "4.4.7")

    def test_people_read_who_said_what(self) -> None:
        carol = recipient("carol@example.com")
        late = failed(carol, Reply.of(451, "4.4.1", "No connection"), peer="", expired=True, partly=True)
        words = self.words(failure_report(original(), [failed(), late], **MADE))
        self.assertIn("could not be delivered to:", words)
        self.assertIn("    bob@example.com\r\n        The server mx.example.com said:\r\n            550 5.1.1 No such user Go away", words)
        self.assertIn("    carol@example.com\r\n        (one of the addresses that it stands for)", words)
        self.assertIn("until its time was over", words)
        self.assertIn("The reason:\r\n            451 4.4.1 No connection", words)
        self.assertIn("1K0WZABCDEFGHJKM", words)
        self.assertTrue(all(len(line) <= 78 for line in words.split("\r\n")), words)

    def test_a_report_to_the_null_reverse_path_cannot_be_made_rfc5321_4_5_5(self) -> None:
        with self.assertRaises(ValueError):
            failure_report(original(sender=""), [failed()], **MADE)
        with self.assertRaises(ValueError):
            failure_report(original(), [], **MADE)

    def test_a_thousand_recipients_are_told_and_the_rest_is_counted(self) -> None:
        report = failure_report(original(), [failed(recipient(f"u{n}@example.com")) for n in range(1200)], **MADE)
        self.assertEqual(len(self.fields(report)[1]), 1000)
        self.assertIn("200 more recipients", self.words(report))


class Returned(ReportCase):
    def test_the_header_comes_back_rfc6522_4(self) -> None:
        for ret in (None, "HDRS"):
            *_, returned = self.read(failure_report(original(ret=ret), [failed()], **MADE))
            self.assertEqual(returned.get_content_type(), "text/rfc822-headers")
            self.assertEqual(returned.get_payload(decode=True), HEADER)

    def test_ret_full_brings_back_the_whole_message_rfc3461_4_3(self) -> None:
        report = failure_report(original(ret="FULL"), [failed()], **MADE)
        *_, returned = self.read(report)
        self.assertEqual(returned.get_content_type(), "message/rfc822")
        inner = returned.get_payload()[0]  # type: ignore[index]
        self.assertEqual((inner["Subject"], inner.get_payload()), ("hi", "The body\n".replace("\n", "\r\n")))
        self.assertIn("whole message", self.words(report))
        self.assertIn(MESSAGE, report)

    def test_eight_bits_in_a_whole_message_are_encoded_so_that_the_report_goes_everywhere(self) -> None:
        report = failure_report(original(MESSAGE + b"\xff\xe4\r\n", ret="FULL"), [failed()], **MADE)
        *_, returned = self.read(report)
        inner = returned.get_payload()[0]  # type: ignore[index]
        self.assertEqual(inner["Content-Transfer-Encoding"], "quoted-printable")
        self.assertEqual(inner.get_payload(decode=True), b"The body\r\n\xff\xe4\r\n")
        self.assertTrue(report.isascii())
        self.assertEqual(parameters_for(report, Address("a", "example.net")).body, "7BIT")

    def test_where_the_whole_message_cannot_be_made_ascii_its_header_comes_back(self) -> None:
        signed = b"Content-Type: multipart/signed; boundary=b\r\n\r\n--b\r\n\r\n\xff\r\n--b--\r\n"
        for message, header in (
            (HEADER + signed, HEADER + signed[:44]),
            (HEADER + "X: ü\r\n\r\nhier\r\n".encode(), HEADER + "X: ü\r\n".encode()),
        ):
            report = failure_report(original(message, ret="FULL"), [failed()], **MADE)
            *_, returned = self.read(report)
            self.assertTrue(report.isascii())
            self.assertEqual(returned.get_content_type(), "text/rfc822-headers")
            self.assertEqual(returned.get_payload(decode=True), header)
            self.assertIn("the header of your message", self.words(report).replace("\r\n", " "))

    def test_what_is_large_binary_or_has_broken_lines_comes_as_its_header(self) -> None:
        for message in (
            MESSAGE + b"x" * 70 + b"\r\n" * WHOLE_OCTETS_MOST,
            MESSAGE + b"a\nb",
            MESSAGE + b"\x00",
            MESSAGE + b"x" * 999,
        ):
            self.assertEqual(original(message, ret="FULL").octets, HEADER)
        self.assertFalse(original_of(envelope(ret="FULL"), Content.of(MESSAGE, binary=True)).whole)
        self.assertTrue(original(MESSAGE + b"x" * 998, ret="FULL").whole)

    def test_reports_without_a_failure_return_the_header_alone_rfc3461_4_3(self) -> None:
        whole = original(ret="FULL")
        for report in (
            delay_report(whole, [failed()], **MADE, retry_until=NOON),
            success_report(whole, [RecipientReport(BOB)], **MADE),
        ):
            *_, returned = self.read(report)
            self.assertEqual(returned.get_payload(decode=True), HEADER)

    def test_a_file_is_read_too(self) -> None:
        path = Path(self.mktemp())
        path.write_bytes(MESSAGE)
        content = Content.at(str(path), len(MESSAGE), prefix=b"X: 1\r\n")
        self.assertEqual(original_of(envelope(ret="FULL"), content).octets, b"X: 1\r\n" + MESSAGE)
        self.assertEqual(original_of(envelope(), content).octets, b"X: 1\r\n" + HEADER)

    def test_a_long_header_is_cut_after_a_whole_field(self) -> None:
        head = original(b"".join(b"X-%d: %s\r\n\tfolded\r\n" % (n, b"x" * 100) for n in range(1000)) + b"\r\n").octets
        self.assertLessEqual(len(head), HEADER_OCTETS_MOST)
        self.assertTrue(head.endswith(b"x\r\n\tfolded\r\n"), head[-50:])

    def test_a_header_outside_ascii_is_encoded_rfc6522_4(self) -> None:
        for line, charset in (("Subject: Grüße".encode(), "utf-8"), (b"Subject: Gr\xfc\xdfe", "unknown-8bit")):
            report = failure_report(original(line + b"\r\n\r\n"), [failed()], **MADE)
            *_, returned = self.read(report)
            self.assertTrue(report.isascii())
            self.assertEqual(returned["Content-Transfer-Encoding"], "quoted-printable")
            self.assertEqual(returned.get_param("charset"), charset)
            self.assertEqual(returned.get_payload(decode=True), line + b"\r\n")

    def test_a_header_with_broken_or_endless_lines_is_still_a_text(self) -> None:
        *_, returned = self.read(failure_report(original(b"A: a\rb\nc\x00d\r\nB: " + b"b" * 2000 + b"\r\n\r\n"), [failed()], **MADE))
        self.assertEqual(returned.get_payload(decode=True), b"A: a?b?c?d\r\nB: " + b"b" * 2000 + b"\r\n")

    def test_whoever_read_the_header_no_line_end_of_its_own_ends_a_line(self) -> None:
        broken = Original(envelope(), b"A: a\n.\nQUIT\r.\r\n\0", False)
        *_, returned = self.read(failure_report(broken, [failed()], **MADE))
        self.assertEqual(returned.get_payload(decode=True), b"A: a?.?QUIT?.\r\n?\r\n")

    def test_a_message_that_holds_the_boundary_gets_another_one(self) -> None:
        trap = MESSAGE + b"--report-0123456789ABCDEF--\r\n--report-0123456789ABCDEFx\r\n"
        *_, returned = self.read(failure_report(original(trap, ret="FULL"), [failed()], **MADE))
        self.assertIn("0123456789ABCDEFx", str(returned))


class Delays(ReportCase):
    def test_it_says_until_when_it_is_tried(self) -> None:
        busy = failed(reply=Reply.of(451, "4.2.1", "Busy"))
        report = delay_report(original(), [busy], **MADE, retry_until=NOON + 432_000)
        _, (one,) = self.fields(report)
        self.assertEqual((one["Action"], one["Status"]), ("delayed", "4.2.1"))
        self.assertEqual(one["Will-Retry-Until"], "Sat, 28 Nov 2026 12:22:03 +0000")
        words = self.words(report)
        self.assertIn("has not yet reached:", words)
        self.assertIn("until Sat, 28 Nov 2026", words.replace("\r\n", " "))
        self.assertEqual(self.read(report)[0]["Subject"], "Your message is delayed")


class Successes(ReportCase):
    def test_delivered_and_relayed_rfc3461_5_2(self) -> None:
        carol = recipient("carol@example.org")
        relayed = RecipientReport(BOB, peer="mx.example.com", relayed=True)
        report = success_report(original(), [RecipientReport(carol), relayed], **MADE)
        _, (one, two) = self.fields(report)
        self.assertEqual((one["Action"], one["Status"]), ("delivered", "2.0.0"))
        self.assertEqual((two["Action"], two["Remote-MTA"]), ("relayed", "dns; mx.example.com"))
        words = self.words(report)
        self.assertLess(words.index("was delivered to:"), words.index("carol@example.org"))
        self.assertLess(words.index("was passed on for:"), words.index("bob@example.com"))
        self.assertNotIn("Diagnostic-Code", one)


class International(ReportCase):
    bob = recipient("böb@exämple.com", orcpt=("utf-8", "böb@exämple.com"))

    def test_a_message_with_smtputf8_is_told_of_in_utf8_rfc6533_4(self) -> None:
        message = "Subject: Grüße\r\n\r\n".encode()
        first = original(message, sender="älice@example.net", smtputf8=True)
        report = failure_report(first, [failed(self.bob, Reply.of(550, "5.1.1", "Gibt’s nicht"))], **MADE)
        _, _, status, returned = self.read(report)
        self.assertEqual(status.get_content_type(), "message/global-delivery-status")
        self.assertEqual(returned.get_content_type(), "message/global-headers")
        self.assertIn("To: <älice@example.net>\r\n".encode(), report)
        self.assertIn("Original-Recipient: utf-8; böb@exämple.com\r\nFinal-Recipient: utf-8; böb@exämple.com\r\n".encode(), report)
        self.assertIn("Diagnostic-Code: smtp; 550 5.1.1 Gibt’s nicht\r\n".encode(), report)
        self.assertIn("Gibt’s nicht", self.words(report))
        self.assertIn(message[:-2], report)
        self.assertEqual(parameters_for(report, Address("älice", "example.net")), MailParameters(body="8BITMIME", smtputf8=True))

    def test_a_whole_message_with_utf8_in_its_header_is_message_global(self) -> None:
        message = "Subject: Grüße\r\n\r\nhier\r\n".encode()
        first = original(message, sender="älice@example.net", smtputf8=True, ret="FULL")
        _, _, status, returned = self.read(failure_report(first, [failed()], **MADE))
        self.assertEqual(returned.get_content_type(), "message/global")
        self.assertEqual(status.get_content_type(), "message/delivery-status", "no field of it needs the other")

    def test_a_whole_message_is_message_rfc822_where_its_header_is_ascii(self) -> None:
        message = "Subject: greetings\r\n\r\nGrüße\r\n".encode()
        for sender, smtputf8 in (("älice@example.net", True), ("alice@example.net", False)):
            first = original(message, sender=sender, smtputf8=smtputf8, ret="FULL")
            _, _, _, returned = self.read(failure_report(first, [failed()], **MADE))
            self.assertEqual(returned.get_content_type(), "message/rfc822", sender)

    def test_each_part_has_the_global_form_only_where_a_field_needs_it(self) -> None:
        first = original(sender="älice@example.net", smtputf8=True)
        _, _, status, returned = self.read(failure_report(first, [failed(self.bob)], **MADE))
        self.assertEqual(status.get_content_type(), "message/global-delivery-status")
        self.assertEqual(returned.get_content_type(), "text/rfc822-headers")

    def test_a_sender_whom_ascii_reaches_gets_a_report_in_ascii(self) -> None:
        message = "Subject: Grüße\r\n\r\nhier ü\r\n".encode()
        for sender in ("alice@example.net", "alice@exämple.net"):
            for ret in (None, "FULL"):
                first = original(message, sender=sender, smtputf8=True, ret=ret)
                report = failure_report(first, [failed(self.bob, Reply.of(550, "5.1.1", "Gibt’s nicht"))], **MADE)
                _, _, status, returned = self.read(report)
                self.assertTrue(report.isascii())
                self.assertEqual(status.get_content_type(), "message/delivery-status")
                self.assertEqual(returned.get_payload(decode=True), "Subject: Grüße\r\n".encode())
                self.assertIn(b"Final-Recipient: utf-8; b\\x{F6}b@ex\\x{E4}mple.com\r\n", report)
                parameters = parameters_for(report, Address.parse(sender, utf8=True))
                self.assertEqual(parameters, MailParameters(body="7BIT", smtputf8=False))
        self.assertIn(b"To: <alice@xn--exmple-cua.net>\r\n", report)

    def test_smtputf8_without_need_gets_the_older_form(self) -> None:
        _, _, status, returned = self.read(failure_report(original(smtputf8=True), [failed()], **MADE))
        self.assertEqual(status.get_content_type(), "message/delivery-status")
        self.assertEqual(returned.get_content_type(), "text/rfc822-headers")

    def test_an_address_in_utf8_in_the_older_form_is_escaped_rfc6533_3(self) -> None:
        odd = recipient(orcpt=("utf-8", "b\\ö+b@exämple.com"))
        report = failure_report(original(), [failed(odd, Reply.of(550, "5.1.1", "Gibt’s nicht"))], **MADE)
        _, (one,) = self.fields(report)
        self.assertEqual(one["Original-Recipient"], r"utf-8; b\x{5C}\x{F6}\x{2B}b@ex\x{E4}mple.com")
        self.assertEqual(one["Diagnostic-Code"], "smtp; 550 5.1.1 Gibt?s nicht")
        self.assertTrue(report.isascii(), "the words are encoded")
        self.assertIn("Gibt’s nicht", self.words(report))


class Hostile(ReportCase):
    def test_no_text_of_a_peer_or_sender_can_break_a_field_or_a_part(self) -> None:
        evil = "a\r\nAction: delivered\r\n\r\n--report-0123456789ABCDEF--\r\n"
        reply = Reply.heard(550, "5.1.1", [evil, evil])
        bad = failed(recipient(orcpt=("rfc822\r\nX", evil)), reply, peer="mx\r\nStatus: 2.0.0\r\n")
        report = failure_report(original(envid=evil), [bad], **MADE)
        whole, (one,) = self.fields(report)
        self.assertEqual(set(whole), {"Original-Envelope-Id", "Reporting-MTA", "Arrival-Date"})
        self.assertEqual((one["Action"], one["Status"]), ("failed", "5.1.1"))
        self.assertTrue(one["Original-Recipient"].startswith("unknown; a??Action"))

    def test_a_forged_message_id_is_not_repeated(self) -> None:
        for forged in (b"<a b@c>", b"<a@b>\x0b<c@d>", b"x" * 2000, b"<" + b"x" * 300 + b">"):
            message, *_ = self.read(failure_report(original(b"Message-ID: " + forged + b"\r\n\r\n"), [failed()], **MADE))
            self.assertNotIn("In-Reply-To", message)

    def test_an_endless_answer_is_cut(self) -> None:
        reply = Reply.heard(550, "5.1.1", ["ä" * 5000, "y" * 5000])
        for utf8 in (False, True):
            report = failure_report(original(smtputf8=utf8), [failed(reply=reply, peer="m" * 5000)], **MADE)
            self.assertLess(len(report), 12_000)
            self.fields(report)

    @given(
        st.lists(st.text(max_size=300), min_size=1, max_size=3),
        st.text(max_size=100),
        st.text(max_size=100),
        st.text(max_size=100),
        any_octets(max_size=300),
        st.booleans(),
        st.sampled_from([None, "FULL"]),
    )
    def test_whatever_comes_in_the_structure_stands(
        self, lines: list[str], envid: str, orcpt: str, peer: str, message: bytes, utf8: bool, ret: str | None
    ) -> None:
        first = original(b"X: 1\r\n\r\n" + message if ret else message, envid=envid, smtputf8=utf8, ret=ret)
        one = failed(recipient(orcpt=("utf-8", orcpt)), Reply.heard(550, "5.1.1", lines), peer=peer)
        report = failure_report(first, [one], **MADE)
        found = email.message_from_bytes(report, policy=email.policy.default)
        self.assertEqual(len(found.get_payload()), 3)
        self.assertNotRegex(report, rb"\r(?!\n)|(?<!\r)\n|\x00")
        self.assertLessEqual(max(map(len, report.split(b"\r\n"))), 998)
        status = re.split(rb"delivery-status\r\n(?:Content-.*\r\n)?\r\n", report)[1].split(b"\r\n\r\n--report-")[0]
        self.assertEqual(status.count(b"\r\nFinal-Recipient:"), 1)
        self.assertEqual(status.count(b"\r\n\r\n"), 1, status)


class Notify(SynchronousTestCase):
    def test_who_wants_what_rfc3461_4_1(self) -> None:
        table = {
            None: ("FAILURE", "DELAY"),
            frozenset(["NEVER"]): (),
            frozenset(["FAILURE"]): ("FAILURE",),
            frozenset(["SUCCESS", "DELAY"]): ("SUCCESS", "DELAY"),
        }
        for notify, conditions in table.items():
            one = replace(BOB, parameters=RecipientParameters(notify=notify))
            found = {condition for condition in ("SUCCESS", "FAILURE", "DELAY") if wants(one, condition)}
            self.assertEqual(found, set(conditions))
