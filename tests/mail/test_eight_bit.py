"""Content made fit for a narrower channel; the judge is Python's own reader of mail."""

import email
import os
import zlib
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.mail.content import Content
from mailserver.mail.eight_bit import Channel, Facts, Unconvertible, conversion_of, facts_of
from mailserver.mail.mime_parts import DEPTH_MOST, HEADER_LINES_MOST, PARTS_MOST, parts_of
from mailserver.mail.source import BLOCK_OCTETS, FileSource, MemorySource, source_of
from tests.any_octets import any_octets

SEVEN_BIT = Channel(eight_bit=False)
TEXT = Channel(eight_bit=False, binary=False, long=False)
LINES = Channel(long=False)
NOTHING = Channel(eight_bit=False, binary=False, long=False)
CHANGED = {"content-transfer-encoding", "mime-version"}


def converted(data: bytes, channel: Channel = SEVEN_BIT) -> bytes:
    """The message after its conversion, as it is where it needs none."""
    conversion = conversion_of(MemorySource(data), channel)
    return data if conversion is None else b"".join(conversion.chunks())


def seen(data: bytes) -> list[object]:
    """What a reader sees: of each part its type, its header but for what may change, its decoded content."""
    found = []
    for part in email.message_from_bytes(data).walk():
        fields = [(name, value) for name, value in part.items() if name.lower() not in CHANGED]
        content = None if part.is_multipart() else part.get_payload(decode=True)
        found.append((part.get_content_type(), fields, content))
    return found


def message(*parts: bytes, kind: str = "mixed", boundary: str = "b", header: bytes = b"") -> bytes:
    mark = b"--" + boundary.encode()
    head = header + f'MIME-Version: 1.0\r\nContent-Type: multipart/{kind}; boundary="{boundary}"\r\n\r\n'.encode()
    return head + b"".join(mark + b"\r\n" + part + b"\r\n" for part in parts) + mark + b"--\r\n"


UMLAUTS = "Subject: x\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\nGrüße an alle\r\n".encode()


class OneTextTests(SynchronousTestCase):
    def test_ascii_stays_as_it_is(self):
        for data in (b"", b"\r\n", b"Subject: x\r\n\r\ntext\r\n", message(b"\r\ntext")):
            self.assertIsNone(conversion_of(MemorySource(data), SEVEN_BIT))

    def test_text_becomes_quoted_printable_and_nothing_else_changes(self):
        self.assertEqual(
            converted(UMLAUTS),
            UMLAUTS.replace(b"8bit", b"quoted-printable").replace("Grüße".encode(), b"Gr=C3=BC=C3=9Fe"),
        )

    def test_other_content_and_mostly_eight_bit_text_become_base64(self):
        for head in (b"Content-Type: application/octet-stream\r\n", b"Content-Type: text/plain; charset=gbk\r\n"):
            data = b"MIME-Version: 1.0\r\n" + head + b"\r\n" + b"\xb7\xfe\xce\xf1\r\n" * 90
            self.assertIn(b"\r\nContent-Transfer-Encoding: base64\r\n\r\n", converted(data))
            self.assertEqual(seen(converted(data)), seen(data))

    def test_text_without_mime_gets_what_says_how_to_read_it(self):
        """RFC 1428"""
        for text, charset in (("Grüße an alle\r\n".encode(), b"utf-8"), (b"Gr\xfc\xdfe an alle\r\n", b"unknown-8bit")):
            head = b"Subject: x\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=" + charset
            head += b"\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
            self.assertTrue(converted(b"Subject: x\r\n\r\n" + text).startswith(head))
        self.assertEqual(
            converted(b"Content-Type: text/html; charset=utf-8\r\n\r\n<html>\xc3\xbc\r\n"),
            b"Content-Type: text/html; charset=utf-8\r\nMIME-Version: 1.0\r\n"
            b"Content-Transfer-Encoding: quoted-printable\r\n\r\n<html>=C3=BC\r\n",
        )

    def test_a_header_stays_octet_by_octet(self):
        head = b"Subject: Gr\xfc\xdfe\r\n  folded\t\r\nX-A:b\r\nfrom : c\r\n"
        self.assertTrue(converted(head + b"\r\n\xfc\r\n").startswith(head))
        self.assertIsNone(conversion_of(MemorySource(head + b"\r\ntext\r\n"), SEVEN_BIT))

    def test_lines_of_any_kind_come_back(self):
        for text in (b"\xfc.\r\n.\r\n..\r\n \t\r\na \r\n=\r\n\r\n\r\n", b"\xfc", b"\xfc " + b"x" * 5000 + b" \r\n", b"\xfc\r\n" + b" " * 300):
            data = b"MIME-Version: 1.0\r\nContent-Type: text/plain\r\n\r\n" + text
            self.assertEqual(seen(converted(data)), seen(data), text)

    def test_two_encodings_become_one(self):
        data = b"MIME-Version: 1.0\r\nContent-Transfer-Encoding: 8bit\r\nA: b\r\nContent-Transfer-Encoding: 7bit\r\n\r\n\xfc\r\n"
        self.assertEqual(converted(data).count(b"Content-Transfer-Encoding"), 1)
        self.assertEqual(seen(converted(data)), seen(data))

    def test_what_is_encoded_already_and_breaks_that_encoding_is_left_alone(self):
        for encoding in (b"base64", b"quoted-printable", b"x-uuencode"):
            data = UMLAUTS.replace(b"8bit", encoding)
            self.assertRaises(Unconvertible, converted, data)


class PartsTests(SynchronousTestCase):
    def test_only_the_parts_that_need_it_change(self):
        pdf = b"Content-Type: application/pdf\r\nContent-Transfer-Encoding: base64\r\n\r\nJVBERg=="
        plain = b"Content-Type: text/plain\r\n\r\nplain \t\r\n"
        data = message(plain, b"Content-Type: text/html\r\n\r\n\xfc\r\n", pdf, b"Content-Type: image/x\r\n\r\n\xff\xfe")
        result = converted(data)
        self.assertTrue(result.isascii())
        self.assertEqual(seen(result), seen(data))
        self.assertIn(b"\r\n" + plain + b"\r\n--b\r\n", result)
        self.assertIn(b"\r\n" + pdf + b"\r\n--b\r\n", result)
        self.assertEqual(result.count(b"Content-Transfer-Encoding"), 3)

    def test_what_holds_a_part_no_longer_says_8bit(self):
        inner = message(b"\r\n\xfc", boundary="inner").replace(b"\r\n\r\n", b"\r\nContent-Transfer-Encoding: 8bit\r\n\r\n", 1)
        data = message(inner, b"\r\nx", header=b"Content-Transfer-Encoding: 8BIT\r\n")
        self.assertEqual(converted(data).count(b"Content-Transfer-Encoding: 7bit\r\n"), 2)
        self.assertEqual(seen(converted(data)), seen(data))

    def test_a_message_inside_is_converted_inside(self):
        for kind in (b"message/rfc822", b"MESSAGE/RFC822; x=y"):
            data = message(b"Content-Type: " + kind + b"\r\nContent-Transfer-Encoding: 8bit\r\n\r\n" + UMLAUTS)
            result = converted(data)
            self.assertTrue(result.isascii())
            self.assertEqual(seen(result), seen(data))
            self.assertIn(b"7bit\r\n\r\nSubject: x\r\n", result)
        digest = message(b"\r\n" + UMLAUTS, kind="digest")
        self.assertTrue(converted(digest).isascii())
        self.assertEqual(seen(converted(digest)), seen(digest))

    def test_a_part_without_a_header_and_an_end_that_is_cut_off(self):
        whole = message(b"\r\n\xfc", b"\r\nb\xfc\r\n")
        for data in (whole, whole.removesuffix(b"--b--\r\n"), whole.removesuffix(b"\r\n--b--\r\n")):
            self.assertTrue(converted(data).isascii())
            self.assertEqual(seen(converted(data)), seen(data))

    def test_boundaries_that_begin_alike_and_blanks_behind_them(self):
        inner = message(b"\r\n\xfc", boundary="b1").replace(b"--b1\r\n", b"--b1 \t\r\n", 1)
        data = message(inner, b"\r\n--b2\r\n--bb--\r\n\xfc")
        self.assertEqual(seen(converted(data)), seen(data))
        self.assertTrue(converted(data).isascii())

    def test_a_soft_line_break_makes_no_delimiter(self):
        for filling in range(60, 80):
            text = b"\xfc" + b"x" * filling + b"--b\r\n--bb\r\n--b x\r\n"
            data = message(b"Content-Type: text/plain\r\n\r\n" + text, b"\r\nlast")
            self.assertEqual(seen(converted(data)), seen(data))

    def test_a_preamble_and_an_epilogue_become_harmless(self):
        data = message(b"\r\na").replace(b"\r\n\r\n--b", b"\r\n\r\nPr\xc3\xa4ambel\r\n--b", 1) + b"Nachwort \xfc\r\n"
        result = converted(data)
        self.assertTrue(result.isascii())
        self.assertIn(b"Pr??ambel\r\n--b\r\n", result)
        self.assertTrue(result.endswith(b"--b--\r\nNachwort ?\r\n"))

    def test_a_type_that_cannot_be_read_is_text(self):
        """RFC 2045 section 5.2"""
        for kind in (b"nonsense", b"", b"/", b"text"):
            data = b"MIME-Version: 1.0\r\nContent-Type: " + kind + b"\r\n\r\nGr\xc3\xbc\xc3\x9fe\r\n"
            self.assertIn(b"Gr=C3=BC=C3=9Fe\r\n", converted(data), repr(kind))

    def test_no_line_before_or_behind_the_parts_becomes_a_delimiter(self):
        for boundary, line in (("b", b"--b\n"), ("b", b"--b\r\t"), ("b?", b"--b\xe4"), ("b?", b"--b\0--"), ("b", b"--b".ljust(900) + b"x" * 200)):
            whole = message(b"\r\na", boundary=boundary)
            for data in (whole.replace(b"\r\n\r\n", b"\r\n\r\n" + line + b"\r\n", 1), whole + b"\r\n" + line + b"\r\n", whole + line):
                before, after = parts_of(MemorySource(data)), parts_of(MemorySource(converted(data, NOTHING)))
                self.assertEqual(len(after.parts), len(before.parts), repr(data))

    def test_what_is_signed_or_encrypted_is_never_touched(self):
        for kind in ("signed", "encrypted"):
            sealed = message(b"\r\n\xfc", b"\r\nsignature", kind=kind, boundary="s")
            for data in (sealed, message(b"\r\nx", sealed), message(b"Content-Type: message/rfc822\r\n\r\n" + sealed)):
                fault = self.assertRaises(Unconvertible, converted, data)
                self.assertTrue(fault.sealed)
            sound = sealed.replace(b"\xfc", b"u")
            result = converted(message(sound, b"\r\n\xfc"))
            self.assertIn(sound, result)
            self.assertTrue(result.isascii())

    def test_a_structure_that_cannot_be_told_is_left_alone(self):
        for data in (
            message(b"\r\n\xfc").replace(b"--b", b"--c"),
            message(b"\r\n\xfc").replace(b'; boundary="b"', b""),
            message(b"\r\n\xfc", header=b"Content-Type: text/plain\r\n"),
            b"no field\r\nSubject: x\r\n\r\n\xfc\r\n",
            message(b"no field\r\n\r\n\xfc"),
            message(b"Content-Type: message/partial\r\n\r\n\xfc"),
            message(b"Content-Type: message/delivery-status\r\n\r\nA: \xfc"),
        ):
            self.assertRaises(Unconvertible, converted, data)

    def test_depth_and_number_have_a_bound(self):
        def nested(depth: int) -> bytes:
            data = b"\r\n\xfc"
            for n in range(depth):
                data = message(data, boundary=f"b{n}b")
            return data

        self.assertTrue(converted(nested(DEPTH_MOST - 1)).isascii())
        self.assertRaises(Unconvertible, converted, nested(DEPTH_MOST))
        self.assertTrue(converted(message(*[b"\r\n\xfc"] * (PARTS_MOST - 1))).isascii())
        self.assertRaises(Unconvertible, converted, message(*[b"\r\n\xfc"] * PARTS_MOST))
        self.assertRaises(Unconvertible, converted, message(b"\r\n\xfc" + b"\r\n--bb" * (11 * PARTS_MOST)))

    def test_the_lines_of_all_headers_have_a_bound(self):
        header = b"a:b\r\n" * (HEADER_LINES_MOST // 10 - 5)
        self.assertTrue(converted(message(*[header + b"\r\n\xfc"] * 10)).isascii())
        source = MemorySource(message(*[header + b"\r\n\xfc"] * 11))
        self.assertRaises(Unconvertible, conversion_of, source, SEVEN_BIT)


class BinaryTests(SynchronousTestCase):
    """BINARYMIME on a channel that takes text (RFC 3030)."""

    def test_other_content_becomes_base64_by_part(self):
        picture = b"Content-Type: image/x\r\nContent-Transfer-Encoding: binary\r\n\r\n" + bytes(range(256)) * 3
        data = message(b"Content-Type: text/plain\r\n\r\nb\xfc\r\n", picture, b"Content-Type: text/plain\r\n\r\nlone\rcr")
        for channel in (TEXT, replace(TEXT, eight_bit=True)):
            self.assertEqual(seen(converted(data, channel))[2:], seen(data)[2:])
            self.assertIsNone(conversion_of(MemorySource(converted(data, channel)), channel))
        self.assertIn(b"\r\n\r\nb\xfc\r\n", converted(data, replace(TEXT, eight_bit=True)))
        self.assertNotIn(b": binary", converted(data, TEXT))

    def test_a_message_that_said_binary_says_8bit_or_7bit(self):
        data = message(b"\r\na\0b", header=b"Content-Transfer-Encoding: binary\r\n")
        self.assertTrue(converted(data, TEXT).startswith(b"MIME-Version: 1.0\r\nContent-Type: multipart/mixed"))
        self.assertIn(b"Content-Transfer-Encoding: 7bit\r\n\r\n--b", converted(data, TEXT))
        self.assertIn(b"Content-Transfer-Encoding: 8bit\r\n\r\n--b", converted(data, replace(TEXT, eight_bit=True)))


class LineTests(SynchronousTestCase):
    """Lines of more than 998 octets (RFC 5322 section 2.1.1)."""

    def test_the_limit_is_998(self):
        for octets, fits in ((998, True), (999, False)):
            for end in (b"", b"\r\n", b"\r\nx\r\n"):
                data = b"Subject: x\r\n\r\n" + b"y" * octets + end
                self.assertEqual(conversion_of(MemorySource(data), LINES) is None, fits)

    def test_long_lines_are_encoded_and_eight_bit_text_beside_them_is_not(self):
        short = b"Content-Type: text/plain; charset=utf-8\r\n\r\n\xc3\xbc\r\n"
        data = message(short, b"Content-Type: text/html\r\n\r\n" + b"<p>" * 5000 + b"\r\n")
        result = converted(data, LINES)
        self.assertIn(short, result)
        self.assertLessEqual(max(map(len, result.split(b"\r\n"))), 998)
        self.assertEqual(seen(result), seen(data))

    def test_base64_in_one_line_is_wrapped(self):
        for end in (b"", b"\r\n"):
            data = message(b"Content-Type: image/x\r\nContent-Transfer-Encoding: base64\r\n\r\n" + b"QUJD" * 400 + b"QQ==" + end)
            result = converted(data, LINES)
            self.assertEqual(max(map(len, result.split(b"\r\n"))), 76)
            self.assertEqual(seen(result), seen(data))

    def test_dashes_in_base64_make_no_delimiter_where_it_is_wrapped(self):
        for mark in (b"--b", b"--b--", b"-\r\n-b"):
            part = b"Content-Type: image/x\r\nContent-Transfer-Encoding: base64\r\n\r\n" + b"QUJD" * 19 * 20 + mark
            data = b"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n" + part + b"\r\n\r\n--b--\r\n"
            lines = converted(data, LINES).split(b"\r\n")
            self.assertEqual([line for line in lines if line.startswith(b"--")], [b"--b", b"--b--"], mark)


class LargeTests(SynchronousTestCase):
    """In a file, block by block: the same octets as in memory."""

    def test_a_file_is_converted_as_memory_is(self):
        text = ("Grüße an alle\r\n" * 60_000).encode()
        one_line = ("ü" * 400_000).encode()
        picture = os.urandom(700_000)
        data = message(
            b"Content-Type: text/plain\r\n\r\n" + text,
            b"Content-Type: text/plain\r\n\r\n" + b"x " * 300_000 + b"\xfc",
            b"Content-Type: text/html\r\n\r\n" + one_line,
            b"Content-Type: image/x\r\n\r\n" + picture.replace(b"\r", b"").replace(b"\n", b""),
        )
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(b"skipped\r\n" + data)
        content = Content.at(path, len(data) + 9, prefix=b"Received: x\r\n", skip=9)
        with source_of(content) as source:
            conversion = conversion_of(source, SEVEN_BIT)
            pieces = list(conversion.chunks())
            self.assertEqual(b"".join(conversion.chunks()), b"".join(pieces))
        result = b"".join(pieces)
        self.assertEqual(result, converted(b"Received: x\r\n" + data))
        self.assertTrue(result.isascii())
        self.assertEqual([content for _, _, content in seen(result)], [content for _, _, content in seen(data)])
        self.assertLess(max(map(len, pieces)), 4 * BLOCK_OCTETS)

    def test_a_file_that_is_shorter_than_it_was_is_an_error(self):
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(b"a: b\r\n\r\n\xfc")
        with source_of(Content.at(path, 100)) as source:
            self.assertRaises(OSError, conversion_of, source, SEVEN_BIT)

    @given(st.lists(st.sampled_from([b"\r\n", b"\r", b"\n", b"--b", b"\0", b"\xfc", b"x" * 400, b"y"]), max_size=60))
    @settings(max_examples=150)
    def test_a_file_has_the_facts_and_places_of_memory(self, pieces):
        data = b"".join(pieces)
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(b"zz" + data[min(3, len(data)):])
        memory = MemorySource(data)
        with open(path, "rb") as file:
            source = FileSource(file.fileno(), stored=len(data[3:]), skip=2, prefix=data[:3])
            self.patch_blocks(17)
            for start, end in ((0, len(data)), (len(data) // 3, len(data)), (min(1, len(data) // 2), len(data) // 2)):
                self.assertEqual(source.find(b"\r\n--b", start, end), memory.find(b"\r\n--b", start, end))
                self.assertEqual(facts_of(source, start, end), whole_facts(data[start:end]))

    def patch_blocks(self, octets: int) -> None:
        for module in ("mailserver.mail.source", "mailserver.mail.eight_bit"):
            self.patch(__import__(module, fromlist=["x"]), "BLOCK_OCTETS", octets)


def whole_facts(data: bytes) -> Facts:
    rest = data.replace(b"\r\n", b"")
    return Facts(
        len(data),
        sum(octet > 127 for octet in data),
        any(octet in rest for octet in (b"\0", b"\r", b"\n")),
        max(map(len, data.split(b"\r\n"))) > 998,
    )


LEAF_TEXT = st.one_of(
    any_octets(max_size=60),
    st.lists(st.sampled_from([b"\xc3\xbc", b"a", b" ", b"\t", b".", b"=", b"\r\n", b"x" * 80, b"x" * 1100]), max_size=12).map(b"".join),
)
LEAF_HEAD = st.sampled_from(
    [
        b"",
        b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n",
        b"Content-Type: text/html\r\n",
        b"Content-Type: image/png; name=x\r\nContent-Disposition: inline\r\n",
        b"Content-Transfer-Encoding: binary\r\nContent-Type: application/x\r\n",
    ]
)
# Python's reader ends lines at any CR or LF and its delimiters too; content of the text kind has CRLF only.
TEXT_BODY = LEAF_TEXT.map(lambda text: text.replace(b"\r\n", b"\n").replace(b"\r", b"").replace(b"\n", b"\r\n").replace(b"--", b"+"))
LEAF = st.tuples(LEAF_HEAD, TEXT_BODY).map(lambda pair: pair[0] + b"\r\n" + pair[1])


def combined(parts: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    several = st.tuples(
        st.lists(parts, min_size=1, max_size=3),
        st.sampled_from(["mixed", "alternative", "related", "report"]),
        st.sampled_from([b"", b"preamble\r\n", b"\xfc\r\n"]),
    ).map(lambda drawn: with_preamble(message(*drawn[0], kind=drawn[1], boundary=own_boundary(drawn[0])), drawn[2]))
    inside = parts.map(lambda part: b"Content-Type: message/rfc822\r\n\r\nSubject: inside\r\nMIME-Version: 1.0\r\n" + part)
    return st.one_of(several, inside)


def own_boundary(parts: list[bytes]) -> str:
    """One that no other multipart has."""
    return f"=_{zlib.crc32(b''.join(parts))}_"


def with_preamble(data: bytes, preamble: bytes) -> bytes:
    head, _, body = data.partition(b"\r\n\r\n")
    return head + b"\r\n\r\n" + preamble + body


TREES = st.recursive(LEAF, combined, max_leaves=8)


class AnyMessageTests(SynchronousTestCase):
    @given(TREES, st.sampled_from([SEVEN_BIT, TEXT, LINES, replace(TEXT, eight_bit=True)]))
    @settings(max_examples=200)
    def test_a_reader_sees_the_same_in_any_tree_of_parts(self, tree, channel):
        data = b"Subject: x\r\nMIME-Version: 1.0\r\n" + tree
        result = converted(data, channel)
        self.assertEqual(seen(result), seen(data))
        self.assertIsNone(conversion_of(MemorySource(result), channel))

    @given(st.lists(st.one_of(st.sampled_from([UMLAUTS, b"\r\n", b"--b", b"--b--", b"\r\n--b\r\n", message(b"\r\n\xfc"), b"Content-Type: multipart/mixed; boundary=b\r\n"]), any_octets(max_size=30)), max_size=6).map(b"".join))
    @settings(max_examples=200)
    def test_whatever_comes_is_converted_or_left_alone(self, data):
        for channel in (SEVEN_BIT, TEXT, LINES):
            try:
                result = converted(data, channel)
            except Unconvertible:
                continue
            self.assertIsNone(conversion_of(MemorySource(result), channel))
