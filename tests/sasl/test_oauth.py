"""OAUTHBEARER and XOAUTH2 from the client's side: what is said, and what becomes of a server's no."""

from __future__ import annotations

import json

from hypothesis import given
from twisted.trial.unittest import SynchronousTestCase

from mailserver.sasl.oauth import TokenCredentials, TokenExchange, is_token, words_of
from tests.any_octets import any_octets

TOKEN = "ya29.vF9dft4qmTc2Nvb3RlckBhdHRhdmlzdGEuY29tCg=="


def exchange(*offered: str, user: str = "user@example.com", host: str = "") -> TokenExchange:
    found = TokenCredentials(user, TOKEN, host, 143).exchange(offered)
    assert found is not None
    return found


class Words(SynchronousTestCase):
    def test_the_example_of_rfc_7628_section_4_1(self) -> None:
        said = exchange("OAUTHBEARER", host="server.example.com").first()
        self.assertEqual(
            said, b"n,a=user@example.com,\x01host=server.example.com\x01port=143\x01auth=Bearer " + TOKEN.encode() + b"\x01\x01"
        )

    def test_a_name_is_written_as_gs2_wants_it_and_an_address_is_no_host(self) -> None:
        self.assertEqual(exchange("OAUTHBEARER", user="a=b,c").first(), b"n,a=a=3Db=2Cc,\x01auth=Bearer " + TOKEN.encode() + b"\x01\x01")

    def test_xoauth2_says_the_same_in_its_own_way(self) -> None:
        self.assertEqual(exchange("PLAIN", "XOAUTH2").first(), b"user=user@example.com\x01auth=Bearer " + TOKEN.encode() + b"\x01\x01")

    def test_the_standard_goes_first_and_no_password_is_wanted(self) -> None:
        self.assertEqual(exchange("XOAUTH2", "OAUTHBEARER").mechanism, "OAUTHBEARER")
        self.assertIsNone(TokenCredentials("user", TOKEN).exchange(["PLAIN", "LOGIN"]))
        self.assertIsNone(TokenCredentials("user", TOKEN).exchange(["XOAUTH2"], ["OAUTHBEARER"]))

    def test_what_would_end_a_field_is_no_token_and_no_name(self) -> None:
        for token in ("", "a\x01b", "a b", "é", "a\n", "x" * 9000, "=a"):
            self.assertFalse(is_token(token))
            self.assertRaises(ValueError, TokenCredentials, "user", token)
        for user in ("", "a\x01auth=Bearer x", "a\0"):
            self.assertRaises(ValueError, TokenCredentials, user, TOKEN)


class No(SynchronousTestCase):
    def test_it_is_heard_and_answered_as_each_wants_it(self) -> None:
        said = json.dumps({"status": "invalid_token", "schemes": "bearer", "scope": "https://mail.example/"}).encode()
        for mechanism, regret in (("OAUTHBEARER", b"\x01"), ("XOAUTH2", b"")):
            one = exchange(mechanism)
            self.assertTrue(one.is_complete)
            self.assertEqual(one.respond(said), regret)
            self.assertEqual(one.heard, "status invalid_token, scope https://mail.example/")
            self.assertFalse(one.is_complete, "a yes behind it is not believed")
            self.assertRaises(ValueError, one.respond, said)

    def test_the_token_is_not_in_it_whatever_a_server_says(self) -> None:
        self.assertEqual(words_of(json.dumps({"status": f"no {TOKEN} no"}).encode(), TOKEN), "status no … no")
        self.assertNotIn("\x1b", words_of(b'{"status": "\\u001b[31m"}', TOKEN))
        self.assertLessEqual(len(words_of(json.dumps({"status": "x" * 9000}).encode(), TOKEN)), 200)

    @given(any_octets())
    def test_whatever_it_is_it_does_no_harm(self, octets: bytes) -> None:
        self.assertTrue(words_of(octets, TOKEN).isprintable())
        self.assertEqual(words_of(b"[" * 60_000, TOKEN), "")
