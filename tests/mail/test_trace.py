from __future__ import annotations

import email.utils
import re
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.mail.address import Address
from mailserver.mail.content import Content
from mailserver.mail.envelope import Envelope, MailParameters, Peer, Recipient, TLSFacts
from mailserver.mail.headers import Headers
from mailserver.mail.trace import date_time, delivered_to, goes_round, message_id, received, with_protocol
from tests.mail.strategies import envelopes

NOON = 1795436523.9  # 2026-11-23T12:22:03Z
BOB = Recipient(Address("bob", "example.org"))
PEER = Peer("192.0.2.1", 4711, "mx", "client.example", "EHLO")
ENVELOPE = Envelope("1K0WZABCDEFGHJKM", PEER, Address("a", "example.net"), (BOB,), NOON)
TLS = TLSFacts("TLSv1.3", "TLS_AES_256_GCM_SHA384")


class ReceivedTests(SynchronousTestCase):
    def test_all_clauses_rfc5321_4_4(self) -> None:
        self.assertEqual(
            received(
                replace(ENVELOPE, peer=replace(PEER, tls=TLS, login="a")),
                hostname="mx.example.org",
                reverse_name="r.example",
            ),
            b"Received: from client.example (r.example [192.0.2.1])\r\n"
            b"\tby mx.example.org with ESMTPSA id 1K0WZABCDEFGHJKM\r\n"
            b"\tfor <bob@example.org>\r\n"
            b"\ttls TLS_AES_256_GCM_SHA384 (TLSv1.3);\r\n"
            b"\tMon, 23 Nov 2026 12:22:03 +0000\r\n",
        )

    def test_the_group_of_the_key_exchange_stands_behind_the_cipher_rfc8314_4_3(self) -> None:
        facts = replace(TLS, group="X25519MLKEM768")
        field = received(replace(ENVELOPE, peer=replace(PEER, tls=facts)), hostname="mx.example.org")
        self.assertIn(b"\ttls TLS_AES_256_GCM_SHA384 group X25519MLKEM768 (TLSv1.3);\r\n", field)

    def test_an_ipv6_client_without_a_confirmed_name(self) -> None:
        field = received(replace(ENVELOPE, peer=replace(PEER, address="fe80::1%eth0")), hostname="mx")
        self.assertTrue(field.startswith(b"Received: from client.example ([IPv6:fe80::1])\r\n"))

    def test_what_a_local_program_handed_over_names_its_user(self) -> None:
        peer = Peer("local", 0, "submission", hello="userid 1000", login="alice")
        field = received(replace(ENVELOPE, peer=peer), hostname="mx")
        self.assertTrue(field.startswith(b"Received: by mx (from userid 1000)\r\n\tid "), field)
        self.assertEqual(field.count(b"\r\n"), 3)

    def test_a_name_with_blanks_and_umlauts_is_one_word_of_ascii(self) -> None:
        field = received(replace(ENVELOPE, peer=replace(PEER, hello="Müller's PC")), hostname="mx")
        self.assertTrue(field.startswith(b"Received: from M?ller?s?PC ("), field)

    def test_a_unix_socket_and_a_missing_hello(self) -> None:
        field = received(replace(ENVELOPE, peer=Peer("unix", 0, "lmtp")), hostname="mx")
        self.assertTrue(field.startswith(b"Received: from unknown (local socket)\r\n\tby mx with SMTP id"))

    def test_several_recipients_are_not_given_away_rfc5321_7_6(self) -> None:
        for recipients in ((), (BOB, Recipient(Address("carol", "example.org")))):
            self.assertNotIn(b"for <", received(replace(ENVELOPE, recipients=recipients), hostname="mx"))

    def test_a_non_ascii_recipient_is_not_named_so_that_the_field_needs_no_smtputf8(self) -> None:
        envelope = replace(ENVELOPE, recipients=(Recipient(Address("jürgen", "example.org")),))
        self.assertTrue(received(envelope, hostname="mx").isascii())
        envelope = replace(envelope, parameters=MailParameters(smtputf8=True))
        self.assertNotIn(b"for <", received(envelope, hostname="mx"))
        self.assertTrue(received(envelope, hostname="mx").isascii())

    def test_a_hidden_client_leaves_no_address(self) -> None:
        field = received(ENVELOPE, hostname="mx", reverse_name="r.example", hide_client=True)
        for secret in (b"192.0.2.1", b"client.example", b"r.example"):
            self.assertNotIn(secret, field)

    def test_lines_stay_under_78_columns_with_names_of_usual_length(self) -> None:
        peer = Peer("2001:db8:1234:5678:9abc:def0:1234:5678", 1, "mx", "c" * 50 + ".example", "EHLO", TLS, "a")
        envelope = replace(ENVELOPE, peer=peer, parameters=MailParameters(smtputf8=True))
        field = received(envelope, hostname="m" * 50 + ".example", reverse_name="r.example")
        for line in field.decode().expandtabs().split("\r\n"):
            self.assertTrue(len(line) <= 78, line)

    def test_no_name_of_the_peer_can_end_the_field_or_a_comment(self) -> None:
        evil = "x)\r\nSubject: forged\r\n\r\n(\x1b[31m\0é\\"
        peer = Peer("192.0.2.1", 1, "mx", evil, "EHLO", TLSFacts(evil, evil))
        field = received(replace(ENVELOPE, peer=peer), hostname="mx", reverse_name=evil)
        self.assert_is_one_field(field)
        self.assertTrue(field.isascii())
        self.assertEqual(field.count(b"("), 2)
        self.assertEqual(field.count(b")"), 2)

    def test_a_recipient_made_of_controls_cannot_end_the_field(self) -> None:
        self.assert_is_one_field(
            received(replace(ENVELOPE, recipients=(Recipient(Address("a\r\nX: y", "b\r\n\r\n")),)), hostname="mx")
        )

    @given(envelopes, st.text(max_size=400))
    def test_whatever_the_envelope_holds_it_is_one_field(self, envelope: Envelope, name: str) -> None:
        self.assert_is_one_field(received(envelope, hostname="mx", reverse_name=name))

    def assert_is_one_field(self, field: bytes) -> None:
        self.assertEqual(len(Headers.parse(field)), 1)
        self.assertTrue(field.startswith(b"Received: from "))
        self.assertTrue(field.endswith(b" +0000\r\n"))
        unfolded = field[:-2].replace(b"\r\n\t", b"")
        self.assertIsNone(re.search(rb"[\x00-\x1f\x7f]", unfolded))


class WithProtocolTests(SynchronousTestCase):
    def test_every_registered_name_rfc3848_rfc6531(self) -> None:
        expected = {
            "HELO": ("SMTP", "SMTP", "SMTP", "SMTP", "SMTP"),
            "EHLO": ("ESMTP", "ESMTPS", "ESMTPA", "ESMTPSA", "UTF8SMTPSA"),
            "LHLO": ("LMTP", "LMTPS", "LMTPA", "LMTPSA", "UTF8LMTPSA"),
        }
        for verb, names in expected.items():
            peer = replace(PEER, hello_verb=verb)
            self.assertEqual(
                (
                    with_protocol(peer, False),
                    with_protocol(replace(peer, tls=TLS), False),
                    with_protocol(replace(peer, login="a"), False),
                    with_protocol(replace(peer, tls=TLS, login="a"), False),
                    with_protocol(replace(peer, tls=TLS, login="a"), True),
                ),
                names,
            )


class OtherFieldsTests(SynchronousTestCase):
    def test_addresses_are_quoted_as_on_the_wire(self) -> None:
        self.assertEqual(delivered_to(Address("a", "x")), b"Delivered-To: a@x\r\n")
        # Whoever reads our fields may be strict.
        self.assertEqual(delivered_to(Address.parse(".a@x")), b'Delivered-To: ".a"@x\r\n')

    def test_no_address_can_end_its_field(self) -> None:
        self.assertEqual(delivered_to(Address("a\r\nb", "x")).count(b"\n"), 1)

    @given(st.integers(0, 4_000_000_000))
    def test_the_date_means_the_second_rfc5322_3_3(self, seconds: int) -> None:
        self.assertEqual(email.utils.parsedate_to_datetime(date_time(seconds)).timestamp(), seconds)

    def test_received_fields_of_the_header_are_counted_however_they_are_written(self) -> None:
        head = b"Received: a\r\n\tReceived: b\r\nRECEIVED : c\r\nX-Received: d\r\nReceived-SPF: pass\r\nReceived\t :\r\n\r\nReceived: e\r\n"
        for content, count in (
            (Content.of(head), 3),
            (Content.of(head, prefix=b"Received: us\r\n"), 4),
            (Content.of(b"Received : a\r\n\r\n"), 1),
            (Content.of(b"\r\nReceived: e\r\n"), 0),
        ):
            self.assertEqual([goes_round(content, most) for most in range(6)], [count > most for most in range(6)])


class MessageIds(SynchronousTestCase):
    def test_the_field_of_the_header_is_taken_however_it_is_written(self) -> None:
        for head, id in (
            (b"Message-ID: <a@b>\r\nSubject: x\r\n\r\nMessage-ID: <no@b>", "<a@b>"),
            (b"Subject: x\r\nMESSAGE-id:\r\n <a@b> \r\n\r\n", "<a@b>"),
            (b"Subject: x\r\n\r\nMessage-ID: <no@b>", None),
            (b"X-Message-ID: <no@b>\r\n\r\n", None),
            (b"Message-ID:\r\n\r\nbody", None),
            (b"Message-ID: \xff" + b"x" * 300 + b"\r\n\r\n", "\ufffd" + "x" * 249),
            (b"", None),
        ):
            self.assertEqual(message_id(Content.of(head)), id, head)
