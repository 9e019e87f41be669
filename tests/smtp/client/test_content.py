"""Content on its way out, and through the server core back in."""

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.smtp.client.content import ChunkWriter, DotWriter
from mailserver.smtp.client.session import LocalProtocolError
from mailserver.smtp.server.data import DotReader
from mailserver.smtp.server.limits import SessionLimits
from tests.any_octets import any_octets

TEXT = st.lists(st.sampled_from([b".", b"..", b"\r\n", b"\r\n.", b"\r\n.\r\n", b"a", b"text", b"\xff", b".\r\n"]), max_size=20).map(b"".join)
ANYTHING = st.lists(st.sampled_from([b".", b"\r", b"\n", b"\r\n", b"a", b"\0"]), max_size=25).map(b"".join)
CUTS = st.lists(st.integers(0, 100), max_size=10)


def pieces(octets: bytes, cuts: list[int]) -> list[bytes]:
    borders = [0, *sorted(min(cut, len(octets)) for cut in cuts), len(octets)]
    return [octets[a:b] for a, b in itertools.pairwise(borders)]


def stuffed(*parts: bytes) -> bytes:
    writer = DotWriter()
    return b"".join([*map(writer.write, parts), writer.end()])


class DotWriterTests(SynchronousTestCase):
    def test_a_dot_at_the_beginning_of_a_line_gets_another_one(self):
        # RFC 5321 section 4.5.2.
        self.assertEqual(stuffed(b".a\r\nb.\r\n.\r\n..c\r\n"), b"..a\r\nb.\r\n..\r\n...c\r\n.\r\n")

    def test_an_end_of_the_last_line_is_added_where_there_is_none(self):
        self.assertEqual(stuffed(b"a"), b"a\r\n.\r\n")
        self.assertEqual(stuffed(b"a\r\n"), b"a\r\n.\r\n")
        self.assertEqual(stuffed(b"a\r"), b"a\r\r\n.\r\n")
        self.assertEqual(stuffed(b"a\r", b"\n"), b"a\r\n.\r\n")

    def test_no_content_is_a_lone_dot(self):
        self.assertEqual(stuffed(), b".\r\n")
        self.assertEqual(stuffed(b"", b""), b".\r\n")

    def test_a_dot_after_a_bare_line_end_is_left_alone(self):
        self.assertEqual(stuffed(b"a\n.\nb\r.\r\n"), b"a\n.\nb\r.\r\n.\r\n")

    @settings(max_examples=400)
    @given(ANYTHING, CUTS)
    def test_any_split_gives_the_same_octets(self, content, cuts):
        self.assertEqual(stuffed(*pieces(content, cuts)), stuffed(content))
        self.assertEqual(stuffed(*[content[n : n + 1] for n in range(len(content))]), stuffed(content))

    @settings(max_examples=400)
    @given(ANYTHING)
    def test_a_line_by_line_writer_would_write_the_same(self, content):
        lines = content.split(b"\r\n")
        if lines[-1] == b"":
            lines.pop()
        expected = b"".join((b"." if line.startswith(b".") else b"") + line + b"\r\n" for line in lines)
        self.assertEqual(stuffed(content), expected + b".\r\n")

    @settings(max_examples=400)
    @given(TEXT, CUTS, CUTS)
    def test_the_server_core_reads_what_was_written(self, content, cuts, other_cuts):
        reader = DotReader(SessionLimits(message_octets=0, header_octets=0), converts=False)
        wire = stuffed(*pieces(content, cuts))
        got, end = b"", -1
        for piece in pieces(wire, other_cuts):
            if piece:
                self.assertEqual(end, -1, "the end came early")
                part, end = reader.read(piece, 0)
                got += part
        self.assertEqual((got, reader.fault), (content if content.endswith(b"\r\n") or not content else content + b"\r\n", None))
        self.assertGreater(end, 0)

    @settings(max_examples=300)
    @given(ANYTHING)
    def test_whatever_the_content_only_its_end_ends_it(self, content):
        reader = DotReader(SessionLimits(message_octets=0, header_octets=0, stray_line_ends="refuse"), converts=False)
        wire = stuffed(content)
        self.assertEqual(reader.read(wire, 0)[1], len(wire))
        self.assertEqual(reader.size, len(content) + (0 if content.endswith(b"\r\n") or not content else 2))


class ChunkWriterTests(SynchronousTestCase):
    @given(any_octets(max_size=60), CUTS)
    def test_one_chunk_holds_all_octets_as_they_are(self, content, cuts):
        # RFC 3030 section 2.
        writer = ChunkWriter(len(content))
        wire = b"".join([*map(writer.write, pieces(content, cuts)), writer.end()])
        self.assertEqual(wire, b"BDAT %d LAST\r\n" % len(content) + content)
        self.assertTrue(writer.is_complete)

    def test_no_content_is_a_chunk_of_none(self):
        writer = ChunkWriter(0)
        self.assertFalse(writer.is_complete)
        self.assertEqual(writer.end(), b"BDAT 0 LAST\r\n")

    def test_it_is_complete_with_its_last_octet(self):
        writer = ChunkWriter(3)
        self.assertFalse(writer.is_complete)
        writer.write(b"ab")
        self.assertFalse(writer.is_complete)
        writer.write(b"c")
        self.assertTrue(writer.is_complete)

    def test_more_or_less_than_was_said_is_refused(self):
        writer = ChunkWriter(3)
        self.assertRaises(LocalProtocolError, writer.write, b"abcd")
        writer.write(b"ab")
        self.assertRaises(LocalProtocolError, writer.end)
        self.assertRaises(LocalProtocolError, writer.write, b"cd")
        self.assertEqual(writer.write(b"c") + writer.end(), b"c")
