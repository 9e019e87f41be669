"""Packets that are made are those that are read."""

from __future__ import annotations

from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import TestCase

from mailserver.capture.files import CaptureReader
from mailserver.capture.packets import SEGMENT_OCTETS, BuiltConnection, file_header, packet_block
from mailserver.capture.session import SessionEnding
from mailserver.capture.sessions import Sessions
from tests.any_octets import any_octets
from tests.capture.test_sessions import MESSAGE, PLAIN, PLAIN_PAIRS, content, ends, pairs


class Packets(TestCase):
    def test_a_dialogue_that_is_written_is_read_again(self) -> None:
        for client, server in (("192.0.2.1", "192.0.2.25"), ("2001:db8::1", "2001:db8::25")):
            built = BuiltConnection(ip_address(client), 40000, ip_address(server), 25, start=2**32 - 20)
            frames = built.opened(1_796_000_000_123_456_789)
            for n, line in enumerate(PLAIN):
                frames += built.said(1_796_000_001_000_000_001 + n, line[:1] == b"C", line[3:])
            frames += built.closed(1_796_000_002_000_000_000)
            octets = file_header() + b"".join([packet_block(one, "a comment") for one in frames])
            reader, sessions = CaptureReader(), Sessions()
            read = list(reader.feed(octets))
            self.assertEqual(read, frames)
            said = [one for frame in read for one in sessions.feed(frame)] + list(sessions.finish())
            self.assertEqual(pairs(said), PLAIN_PAIRS)
            self.assertEqual(content(said), MESSAGE)
            self.assertEqual((said[-1].session.ending, said[-1].session.started), (SessionEnding.CLOSED, 1_796_000_000_123_456_789))

    def test_beginning_and_end_take_a_number_each(self) -> None:
        built = BuiltConnection(ip_address("192.0.2.1"), 1, ip_address("192.0.2.2"), 2, start=100)
        frames = [*built.opened(0), *built.said(0, True, b"QUIT\r\n"), *built.closed(0)]
        numbers = [(int.from_bytes(one.octets[24:28], "big"), int.from_bytes(one.octets[28:32], "big")) for one in frames]
        other = 100 + (1 << 30)
        self.assertEqual(numbers, [
            (100, 0), (other, 101), (101, other + 1), (101, other + 1), (107, other + 1), (other + 1, 108), (108, other + 2),
        ])  # fmt: skip

    def test_what_is_not_known_is_read_as_not_captured(self) -> None:
        built = BuiltConnection(ip_address("192.0.2.1"), 40000, ip_address("192.0.2.25"), 25)
        frames, missing = built.opened(1), b"and more\r\n"
        for line in PLAIN:
            is_client, before, after = line[:1] == b"C", *line[3:].partition(missing)[::2]
            frames += built.said(2, is_client, before)
            if missing in line:
                built.missed(is_client, len(missing))
            frames += built.said(3, is_client, after)
        sessions = Sessions()
        said = [one for frame in [*frames, *built.closed(4)] for one in sessions.feed(frame)] + list(sessions.finish())
        self.assertEqual(pairs(said), PLAIN_PAIRS)
        self.assertEqual(content(said), MESSAGE.replace(missing, b""))
        self.assertEqual([one.is_whole for one in ends(said)], [False])

    def test_long_words_are_several_segments(self) -> None:
        built = BuiltConnection(ip_address("192.0.2.1"), 1, ip_address("192.0.2.2"), 2)
        self.assertEqual([len(one.octets) for one in built.said(0, True, bytes(SEGMENT_OCTETS + 1))], [SEGMENT_OCTETS + 40, 41])
        self.assertEqual(built.said(0, True, b""), [])

    def test_two_families_do_not_speak_with_each_other(self) -> None:
        with self.assertRaises(ValueError):
            BuiltConnection(ip_address("192.0.2.1"), 1, ip_address("2001:db8::1"), 2)

    @given(any_octets(max_size=60), st.sampled_from(["192.0.2.1", "2001:db8::1"]))
    def test_checksums_add_up(self, octets: bytes, host: str) -> None:
        (frame,) = BuiltConnection(ip_address(host), 1, ip_address(host), 2).said(0, True, octets + b"x")
        header = 20 if "." in host else 40
        addresses = frame.octets[header - (8 if header == 20 else 32) : header]
        segment = frame.octets[header:]
        for covered in [addresses + len(segment).to_bytes(4, "big") + b"\0\0\0\x06" + segment] + ([frame.octets[:20]] if header == 20 else []):
            covered += bytes(len(covered) % 2)
            total = sum([int.from_bytes(covered[at : at + 2], "big") for at in range(0, len(covered), 2)])
            self.assertEqual(total % 0xFFFF, 0)
