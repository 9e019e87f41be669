"""The TCP segment in a frame, whatever is around it."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import TestCase

from mailserver.capture import segments
from mailserver.capture.files import CapturedFrame
from mailserver.capture.segments import ACK, Segment, segment
from tests.any_octets import any_octets
from tests.capture.wire import ethernet, ipv4, ipv6, tcp

SAID = b"EHLO client.example\r\n"
TCP = tcp(40000, 25, 7, 9, ACK, SAID)
V4 = ipv4("192.0.2.1", "192.0.2.25", TCP)
V6 = ipv6("2001:db8::1", "2001:db8::25", TCP)


def found(link: int, octets: bytes, length: int | None = None) -> Segment | None:
    return segment(CapturedFrame(0, link, octets, len(octets) if length is None else length))


class Links(TestCase):
    def test_the_segment_is_found_on_each_link_with_each_family(self) -> None:
        cooked = bytes(14)
        frames = {
            "ethernet": [(1, ethernet(V4)), (1, ethernet(V6, 0x86DD))],
            "vlan": [(1, ethernet(V4, tags=b"\x81\0\0\x05")), (1, ethernet(V6, 0x86DD, tags=b"\x88\xa8\0\x05\x81\0\0\x07"))],
            "pppoe": [(1, ethernet(b"\x11\0\0\1\0\x40\0\x21" + V4, 0x8864)), (1, ethernet(b"\x11\0\0\1\0\x40\0\x57" + V6, 0x8864))],
            "cooked": [(113, cooked + b"\x08\0" + V4), (113, cooked + b"\x86\xdd" + V6)],
            "cooked 2": [(276, b"\x08\0" + bytes(18) + V4), (276, b"\x86\xdd" + bytes(18) + V6)],
            "raw": [(link, packet) for link in (12, 14, 101) for packet in (V4, V6)],
            "one family": [(228, V4), (229, V6)],
            "loopback of BSD": [(link, family + packet) for link in (0, 108) for family, packet in ((b"\2\0\0\0", V4), (b"\0\0\0\x1e", V6))],
        }  # fmt: skip
        for name, each in frames.items():
            for link, octets in each:
                one = found(link, octets)
                self.assertIsNotNone(one, name)
                assert one is not None
                self.assertEqual((one.source_port, one.destination_port, one.payload, one.missing), (40000, 25, SAID, 0), name)
                self.assertEqual((one.sequence, one.acknowledged, one.flags), (7, 9, ACK), name)

    def test_extension_headers_of_ipv6_are_passed_over(self) -> None:
        hops = bytes([43, 0]) + bytes(6)
        routing = bytes([60, 1]) + bytes(14)
        options = bytes([44, 0]) + bytes(6)
        fragment = bytes([51, 0]) + struct.pack("!HI", 0x0001, 5)  # the first of several
        authentication = bytes([6, 4]) + bytes(22)
        one = found(101, ipv6("2001:db8::1", "2001:db8::25", hops + routing + options + fragment + authentication + TCP, 0))
        assert one is not None
        self.assertEqual(one.payload, SAID)

    def test_a_packet_without_a_length_goes_to_the_end_of_its_frame(self) -> None:
        for octets in (V4[:2] + bytes(2) + V4[4:], V6[:4] + bytes(2) + V6[6:]):
            one = found(101, octets[:-4], len(octets))
            assert one is not None
            self.assertEqual((one.payload, one.missing), (SAID[:-4], 4))

    def test_another_version_than_the_link_says_is_no_packet(self) -> None:
        self.assertIsNone(found(1, ethernet(V4, 0x86DD)))
        self.assertIsNone(found(1, ethernet(V6, 0x0800)))

    @given(st.sampled_from([(1, ethernet(V4)), (113, bytes(14) + b"\x08\0" + V4), (101, V4), (101, V6), (1, ethernet(V4, tags=b"\x81\0\x45\x05"))]),
           st.lists(st.tuples(st.integers(0, 60), st.integers(0, 255)), max_size=2), st.integers(0, 90), st.integers(0, 4))  # fmt: skip
    def test_the_shorter_way_finds_what_the_longer_one_does(self, frame: tuple[int, bytes], changes: list[tuple[int, int]], cut: int, more: int) -> None:
        link, whole = frame
        octets = bytearray(whole)
        for at, octet in changes:
            octets[min(at, len(octets) - 1)] = octet
        kept = bytes(octets[: max(0, len(octets) - cut)])
        one = CapturedFrame(0, link, kept, len(octets) + more)
        self.assertEqual(segment(one), segments._found(one))

    def test_the_filling_of_a_short_frame_is_no_payload(self) -> None:
        empty = ethernet(ipv4("192.0.2.1", "192.0.2.25", tcp(1, 2, 3, 4, ACK, b"")) , 0x0800) + bytes(10)
        one = found(1, empty)
        assert one is not None
        self.assertEqual(one.payload, b"")

    def test_what_was_not_captured_is_counted(self) -> None:
        octets = ethernet(V4)[:-6]
        one = found(1, octets, len(octets) + 6)
        assert one is not None
        self.assertEqual((one.payload, one.missing), (SAID[:-6], 6))

    def test_a_length_of_zero_is_that_of_the_frame(self) -> None:
        one = found(101, V4[:2] + b"\0\0" + V4[4:])
        assert one is not None
        self.assertEqual(one.payload, SAID)


class Others(TestCase):
    def test_what_is_no_segment_is_none(self) -> None:
        udp = ipv4("192.0.2.1", "192.0.2.25", TCP, protocol=17)
        later = V4[:6] + b"\0\x10" + V4[8:]  # a later fragment
        for link, octets in (
            (1, b""), (1, ethernet(b"\0\1", 0x0806)), (1, ethernet(udp)), (1, ethernet(later)), (999, ethernet(V4)), (101, V4[:30]), (101, b"\x70" + V4[1:]),
            (101, b"\x42" + V4[1:]), (101, V4[:32] + b"\x40" + V4[33:]), (101, V6[:6] + b"\x3b" + V6[7:]), (101, V4[:20] + TCP[:12] + b"\xf0" + TCP[13:]),
            (1, ethernet(V4, tags=b"\x81\0\0\1" * 40)),
        ):  # fmt: skip
            self.assertIsNone(found(link, octets), (link, octets))

    @given(st.sampled_from([0, 1, 12, 101, 108, 113, 228, 276]), st.sampled_from([b"", ethernet(V4)[:20], V4[:20], V6[:40], bytes(14) + b"\x81\0"]),
           any_octets(max_size=120), st.integers(0, 1 << 32))  # fmt: skip
    def test_no_octets_raise(self, link: int, beginning: bytes, octets: bytes, length: int) -> None:
        one = found(link, beginning + octets, length)
        self.assertTrue(one is None or one.missing >= 0)
