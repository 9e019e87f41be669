"""Passwords are taken out of a dialogue, in any pieces, and nothing else is."""

from __future__ import annotations

from base64 import b64encode
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

    def test_a_server_says_its_signature_in_stars_and_challenges_as_they_are(self) -> None:
        first, last = b"334 " + b64encode(b"r=nonce,s=c2FsdA==,i=4096") + b"\r\n", b"334 " + b64encode(b"v=rmF9pqV8S7suAoZWja4dJRkFsKQ=") + b"\r\n"
        said = b"220 mx\r\n" + first + last + b"235 yes\r\n"
        wanted = said.replace(last, b"334 " + b"*" * (len(last) - 6) + b"\r\n")
        self.assertEqual(SecretMask().server(said), wanted)
        for size in (1, 3, 7, 10):
            mask = SecretMask()
            found = b"".join([mask.server(said[at : at + size]) for at in range(0, len(said), size)])
            self.assertEqual(found.replace(b"dj", b"**").replace(b"*1", b"**"), wanted)  # its first letters are those of all

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

    def test_who_does_not_wait_for_his_turn_has_his_secrets_masked_too(self) -> None:
        name, word = b"YW5u", b"c2VjcmV0"
        burst = b"AUTH LOGIN\r\n" + name + b"\r\n" + word + b"\r\n"
        for before, replies in (
            (b"", b"334 \r\n334 \r\n235 \r\n"),
            (b"EHLO me\r\n", b"250 mx\r\n334 \r\n334 \r\n535 \r\n"),
            (b"DATA\r\nhello\r\n.\r\n", b"354 \r\n250 \r\n334 \r\n334 \r\n535 \r\n"),
            (b"DATA\r\nhello\r\n.\r\n" * 2, b"354 \r\n250 \r\n354 \r\n250 \r\n"),
        ):
            for cut in range(len(before + burst)):
                said = before + burst
                found = spoken([(b"C", said[:cut]), (b"C", said[cut:]), (b"S", replies), (b"C", burst), (b"S", b"503 no\r\n"), (b"C", b"QUIT\r\n")])
                wanted = (said + burst).replace(name, b"****").replace(word, b"********") + b"QUIT\r\n"
                self.assertEqual(found, wanted, (before, cut))

    def test_both_lines_after_one_challenge_are_secrets(self) -> None:
        found = spoken([(b"C", b"AUTH LOGIN\r\n"), (b"S", b"334 VXNl\r\n"), (b"C", b"YW5u\r\nc2VjcmV0\r\n")])
        self.assertEqual(found, b"AUTH LOGIN\r\n****\r\n********\r\n")

    def test_a_refused_login_hides_what_comes_late_and_no_commands(self) -> None:
        found = spoken([(b"C", b"AUTH LOGIN\r\n"), (b"S", b"503 no\r\n"), (b"C", b"YW5u\r\nc2V"), (b"C", b"jcmV0\r\nQUIT\r\n")])
        self.assertEqual(found, b"AUTH LOGIN\r\n****\r\n********\r\nQUIT\r\n")

    def test_commands_that_come_with_the_login_are_shown(self) -> None:
        after = b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nBDAT 7 LAST\r\nc2V\nj\r\nquit\r\n"
        for size in (1000, 5, 1):
            said = b"AUTH PLAIN eA==\r\n" + after
            pieces = [(b"C", said[at : at + size]) for at in range(0, len(said), size)]
            self.assertEqual(spoken(pieces), b"AUTH PLAIN ****\r\n" + after)

    def test_content_that_came_early_is_over_when_it_is_answered(self) -> None:
        login = b"AUTH PLAIN c2VjcmV0\r\n"
        for content in (b"hello\r\n.\r\n", b"BDAT 90000\r\n.\r\n", b"hello\n.\n", b""):
            pieces = [(b"C", b"DATA\r\n" + content), (b"S", b"354 go\r\n"), (b"S", b"250 ok\r\n"), (b"C", login)]
            self.assertTrue(spoken(pieces).endswith(b"AUTH PLAIN ********\r\n"), content)

    def test_a_chunk_that_the_server_does_not_know_hides_no_login(self) -> None:
        for line in (b"BDAT  5\r\n", b"BDAT\t5\r\n", b" BDAT 5\r\n", b"BDAT 5 FIRST\r\n"):
            self.assertEqual(spoken([(b"C", line + b"AUTH PLAIN eA==\r\n")]), line + b"AUTH PLAIN ****\r\n")

    def test_a_login_behind_many_blanks_is_one(self) -> None:
        self.assertEqual(spoken([(b"C", b" " * 200 + b"AUTH PLAIN eA==\r\n")]), b" " * 200 + b"AUTH PLAIN ****\r\n")

    def test_what_is_said_inside_tls_begins_anew(self) -> None:
        mask = SecretMask()
        mask.server(b"354 go\r\n")
        mask.encrypted()
        self.assertEqual(mask.client(b"AUTH PLAIN eA==\r\n"), b"AUTH PLAIN ****\r\n")

    @given(st.lists(st.tuples(st.booleans(), st.one_of(any_octets(max_size=30), st.sampled_from([b"354 \r\n", b"334 \r\n", b"BDAT 5\r\n", b"AUTH A ", b"\r\n.\r\n", b"\n"]))), max_size=15))
    def test_no_octets_raise_and_none_is_lost(self, pieces: list[tuple[bool, bytes]]) -> None:
        found = spoken([(b"C" if is_client else b"S", octets) for is_client, octets in pieces])
        self.assertEqual(len(found), sum([len(octets) for is_client, octets in pieces if is_client]))
