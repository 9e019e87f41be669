"""Passwords are taken out of a dialogue, in any pieces, and nothing else is."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import TestCase

from mailserver.capture.masking import SecretMask
from tests.any_octets import any_octets

LOGIN = [
    (b"S", b"220 mx ESMTP\r\n"), (b"C", b"EHLO me\r\n"), (b"S", b"250-mx\r\n250 AUTH PLAIN LOGIN\r\n"), (b"C", b"auth plain AGFubgBzZWNyZXQ=\r\n"), (b"S", b"535 no\r\n"),
    (b"C", b"AUTH PLAIN\r\n"), (b"S", b"334 \r\n"), (b"C", b"AGFubgBzZWNyZXQ=\r\n"), (b"S", b"535 no\r\n"), (b"C", b"AUTH\tLOGIN\t YW5u\r\n"), (b"S", b"334-more\r\n334 UGFzc3dvcmQ6\r\n"),
    (b"C", b"c2VjcmV0\r\n"), (b"S", b"235 yes\r\n"), (b"C", b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n"), (b"S", b"250 m\r\n250 r\r\n354 go\r\n"),
    (b"C", b"AUTH PLAIN not-a-secret\r\n..\r\nBDAT 900\r\n.\r\nAUTH PLAIN x y z\r\n"), (b"S", b"250 ok\r\n503 no\r\n"),
    (b"C", b"MAIL FROM:<>\r\nRCPT TO:<c@d>\r\nBDAT 26\r\nAUTH PLAIN not-a-secret\r\n\rBDAT 0 LAST\r\nAUTH XOAUTH2 dXNlcg==\r\n"), (b"S", b"250 m\r\n"),
]  # fmt: skip
SECRETS = (b"AGFubgBzZWNyZXQ=", b"c2VjcmV0", b"YW5u", b"x y z", b"dXNlcg==")


def spoken(pieces: list[tuple[bytes, bytes]]) -> bytes:
    """What the client has said, masked."""
    mask, found = SecretMask(), b""
    for who, octets in pieces:
        if who == b"C":
            found += mask.client(octets)
        else:
            mask.server(octets)
    return found


class Masking(TestCase):
    def test_responses_are_stars_and_the_rest_is_as_it_was(self) -> None:
        found = spoken(LOGIN)
        wanted = b"".join([octets for who, octets in LOGIN if who == b"C"])
        for secret in SECRETS:
            wanted = wanted.replace(secret, b"*" * len(secret))
        self.assertEqual(found, wanted)
        self.assertEqual(found.count(b"AUTH PLAIN not-a-secret"), 2)

    @given(st.data())
    def test_in_any_pieces(self, data: st.DataObject) -> None:
        pieces = []
        for who, octets in LOGIN:
            cuts = sorted({0, len(octets), *data.draw(st.lists(st.integers(0, len(octets)), max_size=4))})
            pieces += [(who, octets[start:end]) for start, end in pairwise(cuts)]
        self.assertEqual(spoken(pieces), spoken(LOGIN))

    def test_octet_by_octet(self) -> None:
        self.assertEqual(spoken([(who, bytes([one])) for who, octets in LOGIN for one in octets]), spoken(LOGIN))

    def test_a_long_response_is_masked_to_its_end(self) -> None:
        secret = b"c2VjcmV0" * 4000
        for line in (b"AUTH PLAIN " + secret + b"\r\n", b"  auth  plain  " + secret + b"\r\n"):
            for size in (1000, 7, 100000):
                found = spoken([(b"C", line[at : at + size]) for at in range(0, len(line), size)])
                self.assertEqual(found, line.replace(secret, b"*" * len(secret)))

    def test_what_is_said_inside_tls_begins_anew(self) -> None:
        mask = SecretMask()
        mask.server(b"354 go\r\n")
        mask.encrypted()
        self.assertEqual(mask.client(b"AUTH PLAIN eA==\r\n"), b"AUTH PLAIN ****\r\n")

    @given(st.lists(st.tuples(st.booleans(), st.one_of(any_octets(max_size=30), st.sampled_from([b"354 \r\n", b"334 \r\n", b"BDAT 5\r\n", b"AUTH A ", b"\r\n.\r\n", b"\n"]))), max_size=15))
    def test_no_octets_raise_and_none_is_lost(self, pieces: list[tuple[bool, bytes]]) -> None:
        found = spoken([(b"C" if is_client else b"S", octets) for is_client, octets in pieces])
        self.assertEqual(len(found), sum([len(octets) for is_client, octets in pieces if is_client]))
