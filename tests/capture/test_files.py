"""Capture files, in all their forms and in any pieces."""

from __future__ import annotations

import struct
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import TestCase

from mailserver.capture.files import BLOCK_OCTETS, FRAME_OCTETS, CapturedFrame, CaptureFault, CaptureReader
from tests.any_octets import any_octets
from tests.capture.wire import SECOND, block, interface, packet, pcap, pcapng, section

FRAMES = [CapturedFrame(1_796_000_000 * SECOND + 123_456_000 * n, 1, b"frame %d" % n * n, 5 + 10 * n) for n in range(1, 6)]


def read(octets: bytes, size: int = 1 << 20) -> list[CapturedFrame]:
    reader = CaptureReader()
    return [frame for at in range(0, len(octets), size) for frame in reader.feed(octets[at : at + size])]


class Formats(TestCase):
    def test_pcap_is_read_in_both_byte_orders_and_both_units_of_time(self) -> None:
        for order in "<>":
            self.assertEqual(read(pcap(FRAMES, order)), FRAMES)
            self.assertEqual(read(pcap(FRAMES, order, magic=0xA1B2C3D4, unit=1000)), FRAMES)

    def test_pcapng_is_read_in_both_byte_orders(self) -> None:
        for order in "<>":
            octets = section(order) + interface(order=order) + b"".join([packet(one, order=order) for one in FRAMES])
            self.assertEqual(read(octets), FRAMES)

    def test_each_interface_has_its_link_type_and_its_unit_of_time(self) -> None:
        tenths = struct.pack("<HHB3x", 9, 1, 1)
        halves = struct.pack("<HHB3x", 9, 1, 0x81) + struct.pack("<HHq", 14, 8, 100)  # and an offset of 100 seconds
        octets = section() + interface(1, tenths) + interface(101, halves)
        octets += packet(FRAMES[0], 0, units=25) + packet(FRAMES[1], 1, units=3)
        found = read(octets)
        self.assertEqual([(one.time, one.link) for one in found], [(2_500_000_000, 1), (101_500_000_000, 101)])

    def test_a_new_section_has_interfaces_of_its_own(self) -> None:
        octets = pcapng(FRAMES[:1]) + section(">") + interface(113, order=">") + packet(FRAMES[1], order=">")
        self.assertEqual([one.link for one in read(octets)], [1, 113])
        with self.assertRaises(CaptureFault):
            read(pcapng(FRAMES[:1]) + section() + packet(FRAMES[1]))

    def test_blocks_without_packets_are_passed_over_however_long(self) -> None:
        names = block(4, bytes(3 * BLOCK_OCTETS))
        octets = section() + interface() + names + packet(FRAMES[0])
        self.assertEqual(read(octets, 4096), FRAMES[:1])
        reader = CaptureReader()
        for at in range(0, len(octets) - 200, 4096):
            list(reader.feed(octets[at : at + 4096]))
            self.assertLess(len(reader._held), 8192)

    def test_simple_and_old_packet_blocks_are_read(self) -> None:
        simple = block(3, struct.pack("<I", 1500) + bytes(96))
        old = block(2, struct.pack("<HHIIII", 0, 0, 0, 7, 4, 4) + b"abcd")
        found = read(section() + interface(snapshot=96) + simple + old)
        self.assertEqual([(one.time, len(one.octets), one.length) for one in found], [(0, 96, 1500), (7000, 4, 4)])

    @given(st.sampled_from([pcap(FRAMES), pcapng(FRAMES), section() + interface() + block(4, bytes(500)) + packet(FRAMES[0])]),
           st.lists(st.integers(0, 1200)))  # fmt: skip
    def test_any_pieces_give_the_same_frames(self, octets: bytes, cuts: list[int]) -> None:
        places = sorted({0, len(octets), *(cut for cut in cuts if cut < len(octets))})
        reader = CaptureReader()
        found = [
            frame for start, end in pairwise(places) for frame in reader.feed(octets[start:end])
        ]
        self.assertEqual(found, read(octets))
        self.assertFalse(reader.is_cut)


class Damage(TestCase):
    def test_what_is_no_capture_is_a_fault(self) -> None:
        for octets in (b"Subject: not a capture\r\n", bytes(100), b"\x1f\x8b" + bytes(30)):
            with self.assertRaises(CaptureFault):
                read(octets)

    def test_a_file_that_ends_within_a_frame_gives_those_before_it_and_says_so(self) -> None:
        for whole in (pcap(FRAMES), pcapng(FRAMES)):
            reader = CaptureReader()
            self.assertEqual(list(reader.feed(whole[:-1])), FRAMES[:-1])
            self.assertTrue(reader.is_cut)
        self.assertTrue(CaptureReader().is_cut)

    def test_a_length_that_cannot_be_is_a_fault_at_its_place_after_the_frames_before_it(self) -> None:
        good = pcap(FRAMES)
        reader = CaptureReader()
        found: list[CapturedFrame] = []
        with self.assertRaisesRegex(CaptureFault, f"octet {len(good):,}: a frame of"):
            for frame in reader.feed(good + struct.pack("<IIII", 0, 0, FRAME_OCTETS + 1, 4) + bytes(40)):
                found.append(frame)
        self.assertEqual(found, FRAMES)
        for length in (0, 8, 13, BLOCK_OCTETS + 4):
            with self.assertRaises(CaptureFault):
                read(section() + interface() + struct.pack("<II", 6, length) + bytes(40))
        for bad in (interface(options=struct.pack("<HHB3x", 9, 1, 100)), block(1, b"\0"), block(6, bytes(8)), packet(FRAMES[0], 7)):
            with self.assertRaises(CaptureFault):
                read(section() + interface() + bad)
        longer = struct.pack("<IIIII", 0, 0, 0, 500, 500)
        with self.assertRaises(CaptureFault):
            read(section() + interface() + block(6, longer + bytes(40)))

    def test_the_place_of_damage_is_that_in_the_file_whatever_the_pieces(self) -> None:
        beginning = section() + interface() + block(4, bytes(100)) + packet(FRAMES[0])
        for good, bad, words in (
            (beginning, struct.pack("<II", 6, 33), "a block of 33 octets"), (beginning, struct.pack("<II", 4, 8), "a block of 8 octets"),
            (section(), interface() * 10_001, "too many interfaces"), (pcap(FRAMES), struct.pack("<IIII", 0, 0, FRAME_OCTETS + 1, 4), "a frame of"),
        ):  # fmt: skip
            for size in (7, 1 << 20):
                with self.assertRaisesRegex(CaptureFault, words) as raised:
                    read(good + bad + bytes(60), size)
                if words != "too many interfaces":
                    self.assertIn(f"at octet {len(good):,}:", str(raised.exception))

    @given(st.sampled_from([b"", pcap([]), section(), section() + interface()]), any_octets(max_size=300))
    def test_no_octets_raise_anything_else(self, beginning: bytes, octets: bytes) -> None:
        try:
            read(beginning + octets)
        except CaptureFault:
            pass
