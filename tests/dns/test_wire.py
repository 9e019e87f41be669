"""Octets to records and back; nothing foreign gets through by half."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.names import dns
from twisted.trial.unittest import SynchronousTestCase

from mailserver.dns.wire import (
    MalformedMessage,
    NotAName,
    answers_question,
    decode,
    encode_name,
    encode_query,
    encode_question,
    in_random_case,
    read_name,
)
from tests.any_octets import any_octets
from tests.dns.messages import mx, opt, record, reply, soa, txt

QUESTION = encode_question(encode_name("example.org"), dns.MX)
QUERY = encode_query(b"\x12\x34", QUESTION)
LABELS = st.lists(any_octets(min_size=1, max_size=40), max_size=6)


def wire(labels):
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def read(data):
    return decode(data, QUESTION, "example.org")


class Names(SynchronousTestCase):
    @given(LABELS)
    def test_any_name_comes_back_from_its_text_form(self, labels) -> None:
        text, behind = read_name(wire(labels), 0)
        self.assertEqual(behind, len(wire(labels)))
        self.assertEqual(encode_name(text), wire([label.lower() for label in labels]))
        self.assertTrue(text.isascii() and text.isprintable() and " " not in text)

    def test_a_dot_in_a_label_does_not_make_two_labels(self) -> None:
        text, _ = read_name(wire([b"mail.example", b"org"]), 0)
        self.assertEqual(text, "mail\\046example.org")
        self.assertEqual(encode_name("mail\\.example.org"), wire([b"mail.example", b"org"]))

    def test_names_are_in_lower_case_and_without_a_final_dot(self) -> None:
        self.assertEqual(read_name(wire([b"Mx", b"Example", b"ORG"]), 0)[0], "mx.example.org")
        self.assertEqual(encode_name("example.org."), encode_name("example.org"))
        self.assertEqual(encode_name("a.b\\.c."), wire([b"a", b"b.c"]))

    def test_the_root_is_a_dot(self) -> None:
        self.assertEqual(read_name(b"\0", 0), (".", 1))
        self.assertEqual(encode_name("."), b"\0")

    def test_what_cannot_be_a_name_is_refused(self) -> None:
        for text in (
            "",
            "..",
            "a..b",
            ".a",
            "a" * 64 + ".org",
            "ü.example",
            "a\\",
            "a\\256.b",
            ".".join(["a" * 60] * 5),
        ):
            with self.subTest(text):
                self.assertRaises(NotAName, encode_name, text)

    def test_255_octets_are_a_name_and_256_are_not(self) -> None:
        encode_name(".".join(["a" * 63, "b" * 63, "c" * 63, "d" * 61]))
        self.assertRaises(NotAName, encode_name, ".".join(["a" * 63, "b" * 63, "c" * 63, "d" * 62]))

    def test_a_name_that_runs_in_circles_or_forward_is_refused(self) -> None:
        for data, at in ((b"\xc0\x00", 0), (b"\x01a\xc0\x00", 0), (b"\xc0\x02\xc0\x00", 0), (b"\xc0\x02\x00", 0)):
            self.assertRaises(MalformedMessage, read_name, data, at)

    def test_a_chain_of_pointers_is_bounded(self) -> None:
        data = b"\0" + b"".join(b"\xc0" + bytes([0 if n == 0 else 2 * n - 1]) for n in range(40))
        self.assertEqual(read_name(data, 1 + 2 * 15), (".", 1 + 2 * 16))
        self.assertRaises(MalformedMessage, read_name, data, 1 + 2 * 16)

    def test_pointers_cannot_make_a_name_longer_than_255_octets(self) -> None:
        data = wire([b"a" * 60] * 4) + b"\x3f" + b"b" * 63 + b"\xc0\x00"
        self.assertRaises(MalformedMessage, read_name, data, 245)

    def test_labels_of_the_reserved_kinds_are_refused(self) -> None:
        for kind in (b"\x40", b"\x80"):
            self.assertRaises(MalformedMessage, read_name, kind + b"a" * 70, 0)


class Queries(SynchronousTestCase):
    def test_a_query_asks_for_recursion_and_the_ad_bit_and_offers_1232_octets(self) -> None:
        message = dns.Message()
        message.fromStr(QUERY)
        self.assertEqual((message.id, message.recDes, message.authenticData, message.answer), (0x1234, 1, 1, 0))
        self.assertEqual(message.queries, [dns.Query(b"example.org", dns.MX, dns.IN)])
        (option,) = message.additional
        self.assertEqual((option.type, option.cls, option.ttl), (41, 1232, 0))

    def test_without_edns_there_is_no_opt_record(self) -> None:
        message = dns.Message()
        message.fromStr(encode_query(b"\x12\x34", QUESTION, edns=False))
        self.assertEqual((message.queries[0].name.name, message.additional), (b"example.org", []))

    def test_random_case_changes_letters_only(self) -> None:
        question = encode_question(encode_name("a1-b.example"), 16)
        self.assertEqual(in_random_case(question, b"\xff" * 40), encode_question(encode_name("A1-B.EXAMPLE"), 16))
        self.assertEqual(in_random_case(question, b"\x00" * 40), question)

    @given(LABELS)
    def test_random_case_never_asks_for_another_name(self, labels) -> None:
        question = encode_question(wire(labels), 16)
        mixed = in_random_case(question, b"\xff" * len(question))
        self.assertEqual(read_name(mixed, 0)[0], read_name(question, 0)[0])
        self.assertEqual(mixed, encode_question(wire([label.swapcase() for label in labels]), 16))


class Matching(SynchronousTestCase):
    def test_the_answer_to_the_question_is_one_whatever_its_case(self) -> None:
        data = reply(QUERY)
        self.assertTrue(answers_question(data, QUESTION))
        louder = data.replace(b"\x07example", b"\x07eXamPle")
        self.assertTrue(answers_question(louder, QUESTION))
        self.assertFalse(answers_question(louder, QUESTION, exactly=True))

    def test_another_name_type_or_class_is_not(self) -> None:
        for other in (("example.net", dns.MX, dns.IN), ("example.org", dns.A, dns.IN), ("example.org", dns.MX, dns.CH)):
            message = dns.Message()
            message.addQuery(*other)
            self.assertFalse(answers_question(reply(message.toStr()), QUESTION), other)

    def test_the_letters_of_a_type_number_are_no_letters(self) -> None:
        upper, lower = (encode_question(encode_name("example.org"), number) for number in (0x4141, 0x6161))
        self.assertFalse(answers_question(reply(encode_query(b"ab", upper)), lower))

    def test_a_question_and_noise_are_not(self) -> None:
        self.assertFalse(answers_question(QUERY, QUESTION))
        for noise in (b"", b"\x12\x34", reply(QUERY)[:20], b"\x12\x34" + b"\xff" * 60):
            self.assertFalse(answers_question(noise, QUESTION))

    def test_only_an_error_may_come_without_the_question(self) -> None:
        for rcode, believed in ((0, False), (1, True), (2, False), (3, False), (4, True)):
            data = bytes([0x12, 0x34, 0x81, 0x80 | rcode]) + bytes(8)
            self.assertEqual(answers_question(data, QUESTION), believed, rcode)


class Messages(SynchronousTestCase):
    FULL = reply(
        QUERY,
        mx("example.org", 10, "mx.example.org"),
        txt("other.example", b"a" * 200),
        authority=[soa("example.org", 600)],
        additional=[record("mx.example.org", "A", "192.0.2.1"), opt()],
        ad=True,
    )

    def test_the_records_are_found_with_their_sections(self) -> None:
        message = read(self.FULL)
        self.assertEqual([(one.owner, one.type, one.ttl_seconds) for one in message.answers],
                         [("example.org", 15, 300), ("other.example", 16, 300)])  # fmt: skip
        self.assertEqual([one.type for one in message.authority], [6])
        self.assertTrue(message.authenticated and message.recursion_available and not message.truncated)

    def test_a_message_that_is_cut_off_anywhere_is_worthless(self) -> None:
        for octets in range(12 + len(QUESTION), len(self.FULL)):
            self.assertRaises(MalformedMessage, read, self.FULL[:octets])

    @given(any_octets(max_size=300))
    def test_anything_behind_the_question_is_read_or_refused(self, noise) -> None:
        for counts in (b"\0\1\0\0\0\0", b"\0\1\0\1\0\1", b"\xff\xff\0\0\0\0"):
            data = b"\x12\x34\x81\x80\0\1" + counts + QUESTION + noise
            try:
                message = read(data)
            except MalformedMessage:
                continue
            self.assertEqual(len(message.answers) + len(message.authority) <= 2, True)

    def test_too_many_records_are_refused_before_they_are_read(self) -> None:
        data = bytearray(reply(QUERY))
        data[6:8] = (1001).to_bytes(2)
        with self.assertRaisesRegex(MalformedMessage, "too many"):
            read(bytes(data) + b"\xc0\x0c\0\x0f\0\1\0\0\0\0\0\0" * 1001)

    def test_records_of_another_class_do_not_count(self) -> None:
        chaos = dns.RRHeader("example.org", dns.TXT, dns.CH, 0, dns.Record_TXT(b"x"))
        self.assertEqual(read(reply(QUERY, chaos)).answers, [])

    def test_a_time_to_live_with_the_top_bit_is_zero_rfc_2181(self) -> None:
        found = read(reply(QUERY, mx("example.org", 1, "m.example", ttl=0x80000001))).answers
        self.assertEqual([one.ttl_seconds for one in found], [0])

    def test_the_upper_bits_of_the_return_code_are_in_the_opt_record(self) -> None:
        self.assertEqual(read(reply(QUERY, additional=[opt(upper_rcode=1)])).rcode, 16)

    def test_an_extended_error_is_told_rfc_8914(self) -> None:
        bogus = b"\0\x0f\0\x06\0\x06text"
        self.assertEqual(
            read(reply(QUERY, rcode=2, additional=[opt(b"\0\x0a\0\x01x" + bogus)])).extended_error, "DNSSEC bogus"
        )
        for broken in (b"\0\x0f\0\x01x", b"\0\x0f\0\x63\0\x06", b"\0\x0f\0"):
            self.assertEqual(read(reply(QUERY, rcode=2, additional=[opt(broken)])).extended_error, "")
