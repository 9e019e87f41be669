"""A message as a program types it, made into one that can travel."""

from __future__ import annotations

import contextlib
import io

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.cli import sendmail_message
from mailserver.cli.sendmail_message import TooLarge, TypedMessage, TypedMessageError, lines_of, qualified
from mailserver.mail.address import Address


class Trickle(io.BytesIO):
    """A pipe that gives its octets in small pieces."""

    def __init__(self, data: bytes, piece: int) -> None:
        super().__init__(data)
        self._piece = piece

    def read(self, size: int | None = -1) -> bytes:
        return super().read(self._piece)


def lines(data: bytes, *, dot_ends: bool = False, piece: int = 65536) -> list[bytes]:
    return list(lines_of(Trickle(data, piece), dot_ends=dot_ends))


def read(text: bytes) -> TypedMessage:
    return TypedMessage.read(iter(text.split(b"\n")))


class Lines(SynchronousTestCase):
    def test_each_kind_of_line_end_is_one(self) -> None:
        self.assertEqual(lines(b"a\nb\r\nc\rd\n\n"), [b"a", b"b", b"c", b"d", b""])
        self.assertEqual(lines(b"no end"), [b"no end"])
        self.assertEqual(lines(b"a\r"), [b"a"])
        self.assertEqual(lines(b""), [])

    def test_a_dot_alone_ends_only_where_it_shall(self) -> None:
        self.assertEqual(lines(b"a\n.\nb\n", dot_ends=True), [b"a"])
        self.assertEqual(lines(b"a\n.", dot_ends=True), [b"a"])
        self.assertEqual(lines(b"a\n..\n. \n.\n", dot_ends=True), [b"a", b"..", b". "])
        self.assertEqual(lines(b"a\n.\nb\n"), [b"a", b".", b"b"])

    @given(st.lists(st.sampled_from([b"a", b".", b"\r", b"\n", b"\r\n"])).map(b"".join), st.integers(1, 5))
    def test_however_it_is_cut_the_lines_are_the_same(self, data: bytes, piece: int) -> None:
        self.assertEqual(lines(data, piece=piece), lines(data))
        self.assertEqual(lines(data, piece=piece, dot_ends=True), lines(data, dot_ends=True))
        self.assertFalse([line for line in lines(data, piece=piece) if b"\r" in line or b"\n" in line])


    def test_a_line_without_end_is_not_held(self) -> None:
        class Endless(io.BytesIO):
            given = 0

            def read(self, size: int | None = -1) -> bytes:
                self.given += size or 0
                return b"\0" * (size or 0)

        stream = Endless()
        with self.assertRaises(TooLarge):
            list(lines_of(stream, dot_ends=True, line_octets_most=1_000_000))
        self.assertLess(stream.given, 1_200_000)


class Headers(SynchronousTestCase):
    def test_what_is_no_field_begins_the_body(self) -> None:
        for text, fields, body in (
            (b"A: 1\n b\n\nbody", (b"A: 1\r\n b",), [b"body"]),
            (b"A: 1\nbody\nmore", (b"A: 1",), [b"body", b"more"]),
            (b"\nbody", (), [b"body"]),
            (b"From alice Mon Nov 23\nA: 1\n\nx", (b"A: 1",), [b"x"]),
            (b" folded\nA: 1", (), [b" folded", b"A: 1"]),
            (b"A: 1", (b"A: 1",), []),
        ):
            letter = read(text)
            self.assertEqual((letter.fields, list(letter.body)), (fields, body), text)

    def test_a_header_without_end_is_refused(self) -> None:
        self.patch(sendmail_message, "HEADER_OCTETS", 100)
        with self.assertRaises(TypedMessageError):
            read(b"A: 1\n" * 30)

    def test_recipients_stand_in_to_cc_and_bcc(self) -> None:
        text = (
            b'To: "Doe, Jane" <jane@example.org>, friends: bob@example.net, carol;\n'
            b"cc: =?utf-8?q?J=C3=BCrgen?=\n <j@example.org> (hello)\nBCC: root\n\n"
        )
        self.assertEqual(
            [str(one) for one in read(text).recipients("here.example")],
            ["jane@example.org", "bob@example.net", "carol@here.example", "j@example.org", "root@here.example"],
        )

    def test_empty_members_of_a_list_are_nobody_rfc5322_4_4(self) -> None:
        for text in (b"To: a@b.example, c@d.example,\n\n", b"To: ,a@b.example,, c@d.example\n\n", b"To: us: a@b.example, c@d.example;\n\n"):
            self.assertEqual([str(one) for one in read(text).recipients("x")], ["a@b.example", "c@d.example"], text)

    def test_fields_of_any_length_are_read_in_one_pass(self) -> None:
        """Each of these took minutes, or the program's end, with a parser that looks back."""
        many = ", ".join(f"Name {n} <u{n}@example.org>" for n in range(3000))
        self.assertEqual(len(read(f"To: {many}\n\n".encode()).recipients("x")), 3000)
        self.assertEqual(len(read(b"To: " + b"a@b.example," * 10_000 + b"\n\n").recipients("x")), 10_000)
        for text in (b"," * 100_000, b"(" * 100_000, b'"' * 100_001, b"<" * 100_000):
            with contextlib.suppress(TypedMessageError):
                read(b"To: " + text + b"\n\n").recipients("x")
        folded = b"A: 1\n" + b" x\n" * 300_000 + b"\n"
        self.assertEqual(len(read(folded).fields), 1)

    def test_resent_fields_win(self) -> None:
        text = b"To: old@example.org\nResent-To: new@example.org\n\n"
        self.assertEqual([str(one) for one in read(text).recipients("x")], ["new@example.org"])

    def test_a_group_without_members_is_nobody_and_no_error(self) -> None:
        self.assertEqual(read(b"To: undisclosed-recipients:;\n\n").recipients("x"), [])
        with self.assertRaises(TypedMessageError):
            read(b"To: <<>>\n\n").recipients("x")

    def test_missing_fields_are_added_and_bcc_goes(self) -> None:
        sender = Address("alice", "example.org")
        made = read(b"Subject: x\nBcc: secret\nReturn-Path: <y>\n\n").completed(
            sender=sender, name="Jürgen", message_id="<1@x>", now=0.0
        )
        names = [field.partition(b":")[0] for field in made]
        self.assertEqual(names, [b"Subject", b"Date", b"Message-ID", b"From"])
        self.assertEqual(made[-1], b"From: =?utf-8?q?J=C3=BCrgen?= <alice@example.org>")
        whole = b"From: a\nDate: b\nMessage-Id: c\n\n"
        kept = read(whole).completed(sender=sender, name="", message_id="<1@x>", now=0.0)
        self.assertEqual(list(kept), [b"From: a", b"Date: b", b"Message-Id: c"])

    def test_an_address_without_a_domain_gets_ours(self) -> None:
        self.assertEqual(str(qualified("root", "here.example")), "root@here.example")
        for wrong in ("", "a b", "a@", "@b"):
            with self.assertRaises(TypedMessageError):
                qualified(wrong, "here.example")
