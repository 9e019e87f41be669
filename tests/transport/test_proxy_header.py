"""The PROXY header, whole and in pieces, right and wrong."""

from __future__ import annotations

import ipaddress
import socket

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.transport.proxy_header import OCTETS_MOST, SIGNATURE, HeaderFault, Origin, read_header
from tests.any_octets import any_octets

INET, INET6, UNIX = 0x11, 0x21, 0x31
V4 = socket.inet_aton("192.0.2.7") + socket.inet_aton("192.0.2.1") + b"\x12\x67\x00\x19"


def version_2(command: int, family: int, addresses: bytes, version: int = 2) -> bytes:
    """A header of version 2."""
    return SIGNATURE + bytes([version << 4 | command, family]) + len(addresses).to_bytes(2, "big") + addresses


GOOD = {
    b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 25\r\n": Origin("192.0.2.7", 4711),
    b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n": Origin("255.255.255.255", 65535),
    b"PROXY TCP6 2001:db8::7 2001:DB8:0:0::1 0 25\r\n": Origin("2001:db8::7", 0),
    b"PROXY TCP6 ::ffff:192.0.2.7 ::ffff:192.0.2.1 1 25\r\n": Origin("192.0.2.7", 1),
    b"PROXY UNKNOWN\r\n": Origin(),
    b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n": Origin(),
    b"PROXY UNKNOWN " + b"x" * 91 + b"\r\n": Origin(),
    version_2(1, INET, V4): Origin("192.0.2.7", 4711),
    version_2(1, INET, V4 + b"\x04\0\x05hello"): Origin("192.0.2.7", 4711),
    version_2(1, INET6, socket.inet_pton(socket.AF_INET6, "2001:db8::7") + bytes(16) + b"\0\1\0\2"): Origin("2001:db8::7", 1),
    version_2(1, INET6, bytes(10) + b"\xff\xff" + socket.inet_aton("192.0.2.7") + bytes(20)): Origin("192.0.2.7", 0),
    version_2(0, 0, b""): Origin(),
    version_2(0, INET, V4): Origin(),
    version_2(0, 0x99, b"anything"): Origin(),
    version_2(1, 0, b""): Origin(),
    version_2(1, UNIX, bytes(216)): Origin(),
    version_2(1, 0x12, V4): Origin(),
    version_2(0, 0, bytes(OCTETS_MOST - 16)): Origin(),
}
BAD = (
    b"EHLO x\r\n",
    b"\r\nEHLO x\r\n",
    b"\x16\x03\x01",
    b"PROXY\r\n",
    b"proxy TCP4 192.0.2.7 192.0.2.1 4711 25\r\n",
    b"PROXY TCP4 192.0.2.7\r\n",
    b"PROXY TCP4 999.0.2.7 192.0.2.1 4711 25\r\n",
    b"PROXY TCP4 192.0.2.07 192.0.2.1 4711 25\r\n",
    b"PROXY TCP4 192.0.2.7 nonsense 4711 25\r\n",
    b"PROXY TCP4 2001:db8::7 2001:db8::1 4711 25\r\n",
    b"PROXY TCP6 192.0.2.7 192.0.2.1 4711 25\r\n",
    b"PROXY TCP6 fe80::1%eth0 fe80::2 4711 25\r\n",
    b"PROXY TCP4  192.0.2.7 192.0.2.1 4711 25\r\n",
    b"PROXY TCP4 192.0.2.7 192.0.2.1 x 25\r\n",
    b"PROXY TCP4 192.0.2.7 192.0.2.1 65536 25\r\n",
    b"PROXY TCP4 192.0.2.7 192.0.2.1 01 25\r\n",
    b"PROXY TCP4 192.0.2.7 192.0.2.1 \xb2 25\r\n",
    b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 25 \r\n",
    b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 25\nEHLO x\r\n",
    b"PROXY TCP5 192.0.2.7 192.0.2.1 4711 25\r\n",
    b"PROXY UNKNOWNS\r\n",
    b"PROXY " + b"x" * 5000,
    b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n",
    version_2(1, INET, b"xx"),
    version_2(1, INET6, V4),
    version_2(2, INET, V4),
    version_2(1, 0x13, V4),
    version_2(1, INET, V4, version=1),
    version_2(0, 0, bytes(OCTETS_MOST - 15)),
)


class Headers(SynchronousTestCase):
    def test_each_form_says_who_is_behind_the_proxy(self) -> None:
        for octets, origin in GOOD.items():
            self.assertEqual(read_header(octets), (origin, len(octets)), octets)

    def test_what_stands_behind_it_is_left_alone(self) -> None:
        for octets, origin in GOOD.items():
            self.assertEqual(read_header(octets + b"EHLO x\r\nPROXY UNKNOWN\r\n"), (origin, len(octets)), octets)

    def test_a_part_of_it_is_not_yet_one(self) -> None:
        for octets in GOOD:
            for end in range(len(octets)) if len(octets) < 300 else (0, 11, 12, 15, 16, len(octets) - 1):
                self.assertIsNone(read_header(octets[:end]), octets[:end])

    def test_whatever_else_comes_is_a_fault(self) -> None:
        for octets in BAD:
            with self.assertRaises(HeaderFault, msg=octets):
                read_header(octets)

    def test_what_can_be_no_header_any_more_is_a_fault_at_once(self) -> None:
        for octets in (b"E", b"PX", b"\r\n\r\nQ", b"PROXY " + b"x" * 101, version_2(1, 0x13, V4)[:16]):
            with self.assertRaises(HeaderFault, msg=octets):
                read_header(octets)

    @given(st.sampled_from([*GOOD, *BAD]), st.integers(0, 200), any_octets(max_size=40), any_octets(max_size=20))
    def test_pieces_say_the_same_as_the_whole(self, start: bytes, at: int, put: bytes, rest: bytes) -> None:
        """Octet by octet: the first that is no "not yet" is what the whole says, whatever was changed in it."""
        octets = start[:at] + put + start[at + len(put) :] + rest

        def outcome(some: bytes) -> object:
            try:
                return read_header(some)
            except HeaderFault:
                return HeaderFault

        whole = outcome(octets[:600])
        for end in range(len(octets[:600]) + 1):
            piece = outcome(octets[:end])
            if piece is not None:
                self.assertEqual(piece, whole)
                break
        else:
            self.assertIsNone(whole)

    @given(any_octets(max_size=300))
    def test_any_octets_give_an_address_that_is_one_or_none(self, octets: bytes) -> None:
        for start in (b"", b"PROXY TCP4 ", b"PROXY TCP6 ", SIGNATURE, SIGNATURE + b"\x21"):
            try:
                found = read_header(start + octets)
            except HeaderFault:
                continue
            if found is not None and found[0].address:
                self.assertEqual(str(ipaddress.ip_address(found[0].address)), found[0].address)
