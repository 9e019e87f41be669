"""One direction of a connection, put together from segments that come in any order, twice, in part or not at all."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import TestCase

from mailserver.capture import reassembly
from mailserver.capture.reassembly import Direction, Gap, Piece

TEXT = bytes(range(256)) * 4
START = 2**32 - 300  # its numbers pass 2^32 on the way


def text(found: list[Piece | Gap]) -> bytes:
    return b"".join([one.octets for one in found if isinstance(one, Piece)])


def bare(found: list[Piece | Gap]) -> list[Piece | Gap]:
    """Without the places."""
    return [one._replace(place=0) for one in found]


class Order(TestCase):
    def setUp(self) -> None:
        self.direction = Direction()
        self.direction.open(START - 1)

    def take(self, start: int, end: int, time: int = 0, missing: int = 0) -> list[Piece | Gap]:
        return bare(self.direction.take(time, (START + start) % 2**32, TEXT[start:end], missing))

    def test_what_comes_in_order_is_handed_on_at_once(self) -> None:
        self.assertEqual(self.take(0, 500, time=5), [Piece(5, TEXT[:500])])
        self.assertEqual(self.take(500, 700, time=6), [Piece(6, TEXT[500:700])])
        self.assertEqual((self.direction.octets, self.direction.out_of_order, self.direction.retransmitted), (700, 0, 0))

    def test_what_comes_early_waits_and_keeps_its_time(self) -> None:
        self.assertEqual(self.take(200, 300, time=1), [])
        self.assertEqual(self.take(100, 200, time=2), [])
        self.assertEqual(self.take(0, 100, time=3), [Piece(3, TEXT[:100]), Piece(2, TEXT[100:200]), Piece(1, TEXT[200:300])])
        self.assertEqual((self.direction.out_of_order, self.direction.lost, self.direction.held_octets), (2, 0, 0))

    def test_what_comes_again_is_counted_and_passed_over(self) -> None:
        self.take(0, 300)
        self.assertEqual(self.take(100, 200), [])
        self.assertEqual(self.take(0, 300), [])
        self.assertEqual(text(self.take(250, 400)), TEXT[300:400])
        self.assertEqual(self.direction.retransmitted, 450)

    def test_of_octets_that_overlap_the_first_ones_are_taken(self) -> None:
        self.direction.take(0, START % 2**32, b"abc")
        self.assertEqual(text(self.direction.take(0, START + 1, b"XXde")), b"de")

    def test_a_gap_that_was_acknowledged_is_lost_after_a_while(self) -> None:
        self.take(0, 100)
        self.take(150, 200, time=7)
        self.assertEqual(self.direction.acknowledge(8, (START + 100) % 2**32), [])  # what is missing may still be on its way
        for _ in range(reassembly.PATIENCE_SEGMENTS * 2):
            self.assertEqual(self.direction.acknowledge(8, (START + 100) % 2**32), [])
        for _ in range(reassembly.PATIENCE_SEGMENTS - 1):
            self.assertEqual(self.direction.acknowledge(9, (START + 200) % 2**32), [])
        found = self.direction.acknowledge(10, (START + 200) % 2**32)
        self.assertEqual(bare(found), [Gap(7, 50), Piece(7, TEXT[150:200])])
        self.assertEqual(self.direction.lost, 50)

    def test_or_when_the_clock_of_the_capture_says_so(self) -> None:
        self.take(50, 100)
        self.assertEqual(self.direction.acknowledge(5, (START + 100) % 2**32), [])
        self.assertEqual(len(self.direction.acknowledge(5 + reassembly.PATIENCE, (START + 100) % 2**32)), 2)

    def test_what_waits_behind_a_gap_is_bounded(self) -> None:
        self.patch(reassembly, "HELD_OCTETS", 400)
        self.assertEqual(self.take(100, 400), [])
        self.assertEqual(self.take(400, 600), [Gap(0, 100), Piece(0, TEXT[100:400]), Piece(0, TEXT[400:600])])
        self.patch(reassembly, "HELD_SEGMENTS", 2)
        self.assertEqual([self.take(n, n + 1) for n in (700, 702)], [[], []])
        self.assertEqual(self.take(704, 705)[:2], [Gap(0, 100), Piece(0, TEXT[700:701])])

    def test_octets_that_were_cut_off_a_segment_are_lost(self) -> None:
        self.assertEqual(self.take(0, 60, missing=40), [Piece(0, TEXT[:60]), Gap(0, 40)])
        self.assertEqual(text(self.take(100, 120)), TEXT[100:120])
        self.assertEqual(self.take(0, 60, missing=40), [])
        self.assertEqual(self.take(100, 110, missing=30), [Gap(0, 20)])

    def test_at_the_end_what_is_held_comes_with_its_gaps(self) -> None:
        self.take(10, 20)
        self.take(30, 40)
        self.direction.close((START + 45) % 2**32)
        self.assertFalse(self.direction.is_ended)
        self.assertEqual(bare(self.direction.finish(9)), [Gap(0, 10), Piece(0, TEXT[10:20]), Gap(0, 10), Piece(0, TEXT[30:40]), Gap(9, 5)])
        self.assertTrue(self.direction.is_ended)

    def test_a_capture_that_begins_later_begins_with_its_first_segment(self) -> None:
        direction = Direction()
        self.assertFalse(direction.has_begun)
        self.assertEqual(text(direction.take(0, 5000, b"abc")), b"abc")
        self.assertEqual(direction.take(0, 4000, b"old"), [])

    def test_each_piece_knows_its_place_and_what_its_sender_had_heard(self) -> None:
        found = self.direction.take(0, START, b"abc", heard=17) + self.direction.take(0, START + 5, b"de") + self.direction.finish(0)
        self.assertEqual([one.place - START for one in found], [3, 5, 7])
        self.assertEqual([one.heard for one in found if isinstance(one, Piece)], [17, 0])
        self.assertEqual(self.direction.number(1000), 2**32 + 1000)

    @given(st.data())
    def test_any_cuts_in_any_order_with_any_repetition_give_the_same_octets(self, data: st.DataObject) -> None:
        direction = Direction()
        direction.open(START - 1)
        cuts = sorted({0, len(TEXT), *data.draw(st.lists(st.integers(0, len(TEXT)), max_size=12))})
        parts = list(pairwise(cuts))
        more = data.draw(st.lists(st.tuples(st.integers(0, len(TEXT)), st.integers(0, 300)), max_size=6))
        parts = data.draw(st.permutations(parts + [(start, min(len(TEXT), start + length)) for start, length in more]))
        found: list[Piece | Gap] = []
        for start, end in parts:
            found += direction.take(0, (START + start) % 2**32, TEXT[start:end])
        self.assertEqual(text(found), TEXT)
        self.assertEqual((direction.lost, direction.held_octets, direction.octets), (0, 0, len(TEXT)))

    @given(st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 50), st.integers(0, 50), st.integers(0, 2**32 - 1)), max_size=20))
    def test_no_numbers_raise_and_the_counts_add_up(self, segments: list[tuple[int, int, int, int]]) -> None:
        direction, found = Direction(), list[Piece | Gap]()
        for sequence, length, missing, number in segments:
            found += direction.take(0, sequence, TEXT[:length], missing)
            found += direction.acknowledge(0, number)
        found += direction.finish(0)
        self.assertEqual(direction.octets, len(text(found)))
        self.assertEqual(direction.lost, sum([one.missing for one in found if isinstance(one, Gap)]))
        self.assertEqual(direction.held_octets, 0)
