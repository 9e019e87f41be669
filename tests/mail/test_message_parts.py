"""The parts of a message as a filter sees them; the judge is Python's own reader of mail."""

from __future__ import annotations

import base64
import binascii
import email
import itertools
import os
from email.message import EmailMessage
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from mailserver.interfaces import IContentFilter
from mailserver.mail.address import Address
from mailserver.mail.answers import Finding, Pass
from mailserver.mail.content import Content
from mailserver.mail.envelope import Envelope, Peer
from mailserver.mail.message_parts import (
    BEYOND_BOUNDS,
    MALFORMED,
    _without_base64,
    _without_quoted_printable,
)
from mailserver.mail.mime_parts import DEPTH_MOST, PARTS_MOST
from mailserver.receive.judging import PASSED, BoundFilter, Judging
from tests.any_octets import any_octets

HEAD = b"From: a@example.net\r\nMIME-Version: 1.0\r\n"


def nested(levels: int) -> bytes:
    """A multipart in a multipart in a multipart."""
    lines = [HEAD]
    for n in range(levels):
        lines.append(b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n))
    lines.append(b"Content-Type: text/plain\r\n\r\ndeep\r\n")
    lines += [b"--b%d--\r\n" % n for n in reversed(range(levels))]
    return b"".join(lines)


def many(parts: int) -> bytes:
    part = b"--b\r\nContent-Type: text/plain\r\n\r\nx\r\n"
    return HEAD + b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + part * parts + b"--b--\r\n"


def example() -> bytes:
    message = EmailMessage()
    message["From"] = "a@example.net"
    message["Subject"] = "x"
    message.set_content("gr\u00fc\u00dfe, and a long line " + "y" * 300 + "\n")
    message.add_alternative("<p>gr\u00fc\u00dfe</p>\n", subtype="html")
    message.add_attachment(bytes(range(256)) * 700, maintype="application", subtype="zip", filename="pr\u00fcfung.zip")
    inner = EmailMessage()
    inner["Subject"] = "inner"
    inner.set_content("the inner text\n")
    message.add_attachment(inner)
    return message.as_bytes().replace(b"\n", b"\r\n")


class MessageCase(SynchronousTestCase):
    def both(self, data: bytes) -> list[Content]:
        """In memory, and in a file behind a prefix."""
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(b"X: skipped\r\n" + data[6:])
        return [Content.of(data), Content.at(path, len(data) + 6, prefix=data[:6], skip=12)]

    def seen(self, data: bytes) -> tuple[list[tuple[str, int, bytes]], Any]:
        """Kind, depth and decoded content of each part, and the findings."""
        found = []
        for content in self.both(data):
            parts = content.parts()
            found.append(([(part.kind, part.depth, b"".join(part.chunks())) for part in parts], parts.findings))
        self.assertEqual(found[0], found[1])
        return found[0]


class Parts(MessageCase):
    def test_they_come_in_the_order_in_which_they_stand_decoded(self) -> None:
        data = example()
        seen, findings = self.seen(data)
        self.assertEqual(findings, ())
        self.assertEqual(
            [(kind, depth) for kind, depth, _ in seen],
            [
                ("multipart/mixed", 1), ("multipart/alternative", 2), ("text/plain", 3), ("text/html", 3), ("application/zip", 2),
                ("message/rfc822", 2), ("text/plain", 3),
            ],
        )  # fmt: skip
        leaves = [octets for kind, _, octets in seen if not kind.startswith(("multipart/", "message/"))]
        judged = [part.get_payload(decode=True) for part in email.message_from_bytes(data).walk() if not part.is_multipart()]
        self.assertEqual([one.replace(b"\r\n", b"\n") for one in leaves], [one.replace(b"\r\n", b"\n") for one in judged])  # type: ignore[union-attr]

    def test_a_message_without_mime_is_one_part_of_text(self) -> None:
        self.assertEqual(self.seen(b"Subject: x\r\n\r\nhello\r\n"), ([("text/plain", 1, b"hello\r\n")], ()))
        self.assertEqual(self.seen(b"\r\n\r\n\r\nx")[0][0][0], "text/plain")

    def test_each_has_its_header_and_the_name_of_its_file(self) -> None:
        for value, name in (
            (b'attachment; filename="a b.zip"', "a b.zip"),
            (b"attachment; filename*=utf-8''pr%C3%BCf.zip", "pr\u00fcf.zip"),
            (b'attachment; filename="=?utf-8?q?pr=C3=BCf=2Ezip?="', "pr\u00fcf.zip"),
            (b'attachment; filename="../../etc/passwd"', "passwd"),
            (b'attachment; filename="C:\\\\x\\\\y.exe"', "y.exe"),
            (b'attachment; filename="a\x1b[31m.exe"', "a[31m.exe"),
            (b"attachment; filename*0=one; filename*1=two.zip", "onetwo.zip"),
            (b"inline", ""),
            (b"attachment; filename*=\xff\xfe''%", ""),
        ):
            content = Content.of(HEAD + b"Content-Disposition: " + value + b"\r\n\r\nx\r\n")
            (part,) = content.parts()
            self.assertEqual(part.headers.get("From"), "a@example.net")
            if name or value == b"inline":
                self.assertEqual(part.name, name)
        (part,) = Content.of(HEAD + b"Content-Type: image/png; name=x.png\r\n\r\n").parts()
        self.assertEqual((part.name, part.kind, part.octets), ("x.png", "image/png", 0))

    def test_the_raw_octets_can_be_had_too(self) -> None:
        (part,) = Content.of(HEAD + b"Content-Transfer-Encoding: BASE64 (c)\r\n\r\naGk=\r\n").parts()
        self.assertEqual((b"".join(part.raw_chunks()), b"".join(part.chunks())), (b"aGk=\r\n", b"hi"))


class Decoding(SynchronousTestCase):
    @given(any_octets(max_size=200), st.lists(st.integers(0, 300), max_size=4))
    def test_base64_however_it_is_cut(self, octets: bytes, cuts: list[int]) -> None:
        text = base64.encodebytes(octets).replace(b"\n", b"\r\n")
        self.assertEqual(b"".join(_without_base64(iter(cut_at(text, cuts)))), octets)

    def test_base64_that_is_not_quite(self) -> None:
        for text, octets in (
            (b"aGk", b"hi"), (b"aGk=aGk=", b"hihi"), (b"a*G\r\nk=", b"hi"), (b"aGkx=", b"hi1"), (b"=", b""), (b"aGkhI", b"hi!"),
            (b"====aGk=", b"hi"),
        ):  # fmt: skip
            for cut in range(len(text)):
                self.assertEqual(b"".join(_without_base64(iter([text[:cut], text[cut:]]))), octets, (text, cut))

    @given(any_octets(max_size=200), st.lists(st.integers(0, 600), max_size=4))
    def test_quoted_printable_however_it_is_cut(self, octets: bytes, cuts: list[int]) -> None:
        text = binascii.b2a_qp(octets, istext=False)
        self.assertEqual(b"".join(_without_quoted_printable(iter(cut_at(text, cuts)))), octets)

    @given(any_octets(max_size=200), st.lists(st.integers(0, 300), max_size=4))
    def test_whatever_stands_there_nothing_is_raised(self, octets: bytes, cuts: list[int]) -> None:
        for decode in (_without_base64, _without_quoted_printable):
            b"".join(decode(iter(cut_at(octets, cuts))))


def cut_at(text: bytes, cuts: list[int]) -> list[bytes]:
    places = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    return [text[a:b] for a, b in itertools.pairwise(places)]


class Bounds(MessageCase):
    def test_what_is_too_deep_is_told(self) -> None:
        seen, findings = self.seen(nested(DEPTH_MOST + 5))
        self.assertEqual(max(depth for _, depth, _ in seen), DEPTH_MOST)
        self.assertEqual(findings, (Finding(BEYOND_BOUNDS, 0.0, "parts more than 20 deep"),))
        self.assertEqual(self.seen(nested(DEPTH_MOST - 1))[1], ())

    def test_what_is_too_many_is_told_and_the_first_ones_are_seen(self) -> None:
        seen, findings = self.seen(many(PARTS_MOST + 500))
        self.assertEqual(len(seen), PARTS_MOST)
        self.assertEqual(findings, (Finding(BEYOND_BOUNDS, 0.0, "more than 1000 parts"),))
        self.assertEqual(self.seen(many(PARTS_MOST - 1))[1], ())

    def test_the_core_tells_it_where_the_filter_does_not(self) -> None:
        @implementer(IContentFilter)
        class Looks:
            def __init__(self, tells: bool) -> None:
                self.tells = tells

            async def judge_content(self, envelope: Envelope, content: Content) -> Any:
                parts = content.parts()
                for part in parts:
                    part.name
                return Pass(findings=parts.findings) if self.tells else Pass()

        envelope = Envelope("0" * 16, Peer("192.0.2.1", 1, "mx"), Address("a", "b.example"), (), 0.0)
        for tells, source in ((False, "mailserver"), (True, "looks")):
            judging = Judging([BoundFilter("looks", Looks(tells))], clock=Clock())
            judgement: Any = judging.content(envelope, Content.of(many(PARTS_MOST + 1)))
            self.assertEqual([(one.name, one.source) for one in judgement.findings], [(BEYOND_BOUNDS, source)])
            self.assertIs(judging.content(envelope, Content.of(many(3))), PASSED)

    def test_what_can_be_read_in_two_ways_is_read_on_and_told(self) -> None:
        two = b"Content-Type: text/html\r\nContent-Type: text/plain\r\n\r\nx"
        for text, kind, words in (
            (two, "text/html", "two Content-Type fields"),
            (b"Content-Type: multipart/mixed\r\n\r\n--b\r\n\r\nx", "application/octet-stream", "without a boundary"),
            (b"Content-Type: multipart/mixed; boundary=b\r\n\r\nx\r\n", "application/octet-stream", "does not occur"),
            (b"Content-Transfer-Encoding: 7bit\r\nContent-Transfer-Encoding: base64\r\n\r\nx", "text/plain", "two Content-Transfer"),
        ):
            seen, findings = self.seen(HEAD + text)
            self.assertEqual(seen[0][0], kind)
            self.assertEqual(findings[0].name, MALFORMED)
            self.assertIn(words, findings[0].evidence)
        self.assertTrue(self.seen(HEAD + b"Content-Type: multipart/mixed\r\n\r\nall of it")[0][0][2].startswith(b"all of it"))

    def test_a_line_that_is_no_field_hides_no_attachment(self) -> None:
        data = many(1).replace(b"Content-Type: text/plain", b"no field here\r\nContent-Type: text/x-seen")
        self.assertEqual([kind for kind, _, _ in self.seen(data)[0]], ["multipart/mixed", "text/x-seen"])

    @given(any_octets(max_size=400))
    def test_any_octets_are_read(self, octets: bytes) -> None:
        for data in (octets, HEAD + b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n" + octets):
            for part in Content.of(data).parts():
                b"".join(part.chunks())
                self.assertTrue(part.name.isprintable())

    def test_a_file_that_has_gone_is_an_oserror(self) -> None:
        content = self.both(example())[1]
        os.unlink(content.path or "")
        with self.assertRaises(OSError):
            list(content.parts())
