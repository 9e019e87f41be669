"""Where the header section of a message ends, what of it is told, and how long it may be: however it arrives."""

import itertools
import re

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.smtp.events import Chunk
from mailserver.smtp.server.data import NAME_OCTETS, DotReader
from mailserver.smtp.server.session import SessionLimits
from tests.smtp.server.conversation import Conversation

LINE = re.compile(rb"(.*?)(\r\n|\n)", re.DOTALL)
FIELD = re.compile(rb"[ \t]|[!-9;-~]+[ \t]*:")
PIECES = st.sampled_from([b"A", b":", b" ", b"\t", b"\r", b"\n", b"\r\n", b"\r\n", b"A: b", b"A: b\r\n", b"A: b\nA", b"From ", b">", b"no field"])
CASES = (
    (b"A\r ", b": b\r\n\r\ntext\r\n"),  # it becomes a field
    (b"A\r ", b"b\r\n\r\ntext\r\n"),  # it becomes none
    (b"A: b\r\nno field\r\n\r\ntext",),
    (b"A: b\r\n\r\n\r\nno field\r\n",),
    (b"A: b\r\nFrom ", b"me\r\nA: b\r\n\r\n"),
    (b"A: b\r\n", b"From me\r\nA: b\r\n\r\n"),
    (b"From ", b"me\r\nA: b\r\n\r\n"),
    (b"From me\r\nA: b\r\n", b" c\r\n", b" d\r\n\r\n"),
    (b"From \r\n\r\nno field",),
    (b"A: b\r\n c", b" d\r\n e\nf: g\r\n\r\n"),
)


def section(content: bytes) -> tuple[int, bool]:
    """By the words of RFC 5322 section 2.1, line by line: the octets of the header section, and whether one of its line ends had to be mended."""
    size, is_mended = 0, False
    for number, (text, end) in enumerate(LINE.findall(content)):
        mended = text.replace(b"\r", b" ")
        is_separator = number == 0 and re.match(rb">*From ", mended)
        if mended and not is_separator and not FIELD.match(mended):
            break
        size += len(mended) + 2
        is_mended = is_mended or (mended + b"\r\n") != text + end
        if not mended:
            break
    return size, is_mended


def received(pieces: list[bytes], command: bytes = b"DATA\r\n", parameters: bytes = b"", **limits: int) -> Conversation:
    conversation = Conversation(limits=SessionLimits(**limits)).address(parameters=parameters)
    conversation.send(command, *pieces)
    return conversation


class HeaderSectionTests(SynchronousTestCase):
    @settings(max_examples=200)
    @given(st.lists(PIECES, max_size=12), st.lists(st.integers(0, 60), max_size=4))
    def test_its_length_and_what_was_mended_in_it_are_those_of_the_whole(self, parts, cuts):
        self.meets(b"".join(parts), cuts)

    def test_where_a_line_arrives_in_pieces_it_is_judged_when_it_can_be(self):
        for pieces in CASES:
            for cut in range(len(b"".join(pieces))):
                self.meets(b"".join(pieces), [cut])
            self.meets(b"".join(pieces), list(itertools.accumulate(len(piece) for piece in pieces)))
            self.meets(b"".join(pieces), list(range(60)))

    def meets(self, content: bytes, cuts: list[int]) -> None:
        content += b"\r\n"
        size, is_mended = section(content)
        borders = [0, *sorted(min(cut, len(content)) for cut in cuts), len(content)]
        pieces = [content[a:b] for a, b in itertools.pairwise(borders)]
        for limit in (size, size - 1):
            conversation = received([*pieces, b".\r\n"], header_octets=limit)
            self.assertEqual(conversation.codes, [354, 552 if 0 < limit < size else 250], (pieces, limit))
        self.assertEqual(received([*pieces, b".\r\n"]).events[-1].stray_in_header, is_mended, pieces)

    def test_what_has_no_colon_in_time_is_no_field_even_if_one_follows(self):
        for name in (b"x" * (NAME_OCTETS - 1), b"x" * NAME_OCTETS, b"x" + b" " * (NAME_OCTETS - 1)):
            line = b"A: b\r\n" + name + b":" + b"y" * 9000 + b"\r\n"
            for step in (100, 999, 1000, 1007, 20_000):
                pieces = [line[at : at + step] for at in range(0, len(line), step)]
                code = 552 if len(name) < NAME_OCTETS else 250
                self.assertEqual(received([*pieces, b".\r\n"], header_octets=5000).codes, [354, code], (len(name), step))

    def test_a_folded_line_is_as_long_as_it_is(self):
        for blank in (b" ", b"\t"):
            for first in (b"A: b\r\n" + blank, b"From me\r\n" + blank, b"From ", b"A:"):
                conversation = received([first, *[b"x" * 100] * 100, b"\r\n.\r\n"], header_octets=5000)
                self.assertEqual(conversation.codes, [354, 552], first)

    def test_past_its_limit_nothing_is_handed_on(self):
        for first in (b"A: b\r\n ", b"A: b\r\n\t", b"From ", b"A:", b"A : "):
            conversation = received([first, *[b"x" * 100] * 100], header_octets=5000)
            self.assertLessEqual(sum(len(event.data) for event in conversation.events if isinstance(event, Chunk)), 5100, first)

    def test_of_a_field_that_goes_on_some_octets_are_remembered_however_long_it_is(self):
        for first in (b"A: b", b" ", b"From "):
            reader = DotReader(SessionLimits(header_octets=0), converts=False)
            for piece in (first, *[b"x" * 1000] * 10):
                reader.read(piece, 0)
            self.assertLess(len(reader._header_tail or b"?" * 99), 10)

    def test_chunks_that_divide_a_line_end_count_the_same(self):
        header = b"A: b\r\nno: field\r\n\r\n"
        for spare, code in ((0, 250), (-1, 552)):
            for cut in range(len(header)):
                conversation = Conversation(limits=SessionLimits(header_octets=len(header) + spare)).address(parameters=b" BODY=BINARYMIME")
                conversation.send(b"BDAT %d\r\n" % cut + header[:cut])
                conversation.send(b"BDAT %d LAST\r\n" % (len(header) - cut + 4) + header[cut:] + b"text")
                self.assertEqual(conversation.codes[-1], code, (spare, cut))

    def test_a_limit_of_one_octet_is_one_and_none_is_none(self):
        self.assertEqual(received([b"A: b\r\n\r\n.\r\n"], header_octets=1).codes, [354, 552])
        self.assertEqual(received([b"\r\n.\r\n"], header_octets=1).codes, [354, 552])
        self.assertEqual(received([b"A: b\r\n" * 1000 + b".\r\n"], header_octets=0).codes, [354, 250])
