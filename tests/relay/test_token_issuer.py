"""IssuedTokens from a mock of an issuer on loopback: what is asked, and each way in which it can fail."""

from __future__ import annotations

import base64
import math
import os
from typing import Any

from hypothesis import given
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.ssl import Certificate, DefaultOpenSSLContextFactory, trustRootFromCertificates
from twisted.trial.unittest import SynchronousTestCase, TestCase

from mailserver.config.next_hop import checked_url
from mailserver.relay import token_issuer
from mailserver.relay.token_answers import IssuedTokens, TokenFailed, issuer_of, tokens_from, tokens_of
from mailserver.relay.token_issuer import Client, TokenIssuer
from tests.any_octets import any_octets
from tests.relay.issuer import MockIssuer
from tests.tls.authority import Authority

NOW = 1_000_000.0
BEFORE = IssuedTokens("old", 3600.0, NOW - 3600, "refresh-0")


class IssuerCase(TestCase):
    timeout = 30

    def setUp(self) -> None:
        self.mock = MockIssuer()
        self.addCleanup(lambda: self.mock.stop())
        self.secret = os.path.abspath(self.mktemp())
        with open(self.secret, "w") as file:
            file.write("s3cret +ü\n")

    def issuer(self, *, secret: bool = False, is_itself: bool = False, **more: Any) -> TokenIssuer:
        client = Client("our id", self.secret if secret else None, ("mail.send", "offline_access"), is_itself)
        return TokenIssuer(self.mock.url, client, reactor=reactor, seconds=lambda: NOW, **more)

    async def fails(self, issuer: TokenIssuer, before: IssuedTokens | None = BEFORE) -> TokenFailed:
        fault = await self.assertFailure(Deferred.fromCoroutine(issuer.renewed(before)), TokenFailed)
        assert isinstance(fault, TokenFailed)
        self.assertNotIn("refresh-0", str(fault))
        self.assertNotIn("s3cret", str(fault))
        return fault


class Questions(IssuerCase):
    async def test_the_next_token_is_asked_for_with_the_refresh_token(self) -> None:
        tokens = await self.issuer().renewed(BEFORE)
        self.assertEqual(tokens, IssuedTokens("token-1", 3600.0, NOW, "refresh-1", 0.0, NOW))
        self.assertEqual(self.mock.asked, [{"client_id": "our id", "grant_type": "refresh_token", "refresh_token": "refresh-0"}])

    async def test_a_client_asks_for_itself_with_its_secret(self) -> None:
        issuer = self.issuer(secret=True, is_itself=True)
        self.assertEqual((await issuer.renewed(None)).access, "token-1")
        self.assertEqual(self.mock.asked[0], {
            "client_id": "our id", "client_secret": "s3cret +ü", "grant_type": "client_credentials", "scope": "mail.send offline_access",
        })  # fmt: skip
        await issuer.renewed(None)
        self.assertEqual(self.mock.metadata_asked, 1)

    async def test_a_secret_goes_into_a_header_field_where_the_issuer_wants_it_there(self) -> None:
        del self.mock.metadata["token_endpoint_auth_methods_supported"]
        await self.issuer(secret=True, is_itself=True).renewed(None)
        self.assertNotIn("client_secret", self.mock.asked[0])
        [field] = self.mock.fields[0].getRawHeaders(b"authorization")
        self.assertEqual(base64.b64decode(field.removeprefix(b"Basic ")), b"our+id:s3cret+%2B%C3%BC")

    async def test_what_the_issuer_leaves_out_goes_on(self) -> None:
        self.mock.answers = [(200, {"access_token": "t", "token_type": "bearer"})]
        tokens = await self.issuer().renewed(BEFORE)
        self.assertEqual((tokens.access, tokens.refresh, tokens.lifetime), ("t", "refresh-0", 3600.0))

    async def test_over_https_the_certificate_is_verified(self) -> None:
        authority, folder = Authority(), os.path.abspath(self.mktemp())
        os.mkdir(folder)
        for name, is_good in (("localhost", True), ("other.example", False)):
            pair = authority.leaf(name).write(folder, name)
            mock = MockIssuer(DefaultOpenSSLContextFactory(pair.key, pair.certificate))
            self.addCleanup(mock.stop)
            trust = trustRootFromCertificates([Certificate.loadPEM(authority.pem)])
            issuer = TokenIssuer(
                mock.url, Client("id", None, ("x",)), reactor=reactor, seconds=lambda: NOW, trust_root=trust
            )
            if is_good:
                self.assertEqual((await issuer.renewed(BEFORE)).access, "token-1")
            else:
                self.assertIn("gives no answer", str(await self.fails(issuer)))
                self.assertEqual(mock.asked, [])


class Failures(IssuerCase):
    async def test_a_refusal_is_told_in_its_words_without_the_secrets(self) -> None:
        self.mock.refresh = "another"
        fault = await self.fails(self.issuer())
        self.assertEqual((str(fault), fault.error, fault.is_refused), ("the issuer refuses: invalid_grant: … is not good", "invalid_grant", True))

    async def test_what_may_pass_is_no_refusal(self) -> None:
        for answer in (
            (503, b"<html>"), (500, {"error": "server_error"}), (429, {"error": "slow_down"}), (200, b"garbage"), (200, b"[" * 60_000),
            (200, {"token_type": "Bearer"}), (200, {"access_token": "a b", "token_type": "Bearer"}),
            (200, {"access_token": "a", "token_type": "mac"}), (302, b""), (200, b"x" * 200_000),
        ):  # fmt: skip
            self.mock.answers = [answer]
            self.assertFalse((await self.fails(self.issuer())).is_refused, answer[0])

    async def test_one_that_is_silent_is_given_up(self) -> None:
        self.mock.answers = [None]
        self.patch(token_issuer, "ASK_SECONDS", 0.2)
        self.assertIn("no answer within 0.2 seconds", str(await self.fails(self.issuer())))

    async def test_one_that_is_not_there_is_told(self) -> None:
        issuer = self.issuer()
        await self.mock.listening.stopListening()
        self.assertIn("gives no answer", str(await self.fails(issuer)))

    async def test_metadata_of_another_issuer_are_not_believed(self) -> None:
        self.mock.metadata["issuer"] = "https://other.example"
        fault = await self.fails(self.issuer())
        self.assertIn("of the issuer https://other.example: write that", str(fault))
        self.assertEqual(self.mock.asked, [])

    async def test_a_token_endpoint_in_the_clear_is_not_used(self) -> None:
        self.mock.metadata["token_endpoint"] = "http://issuer.example/token"
        self.assertIn("name no token_endpoint that may be used", str(await self.fails(self.issuer())))

    async def test_a_secret_that_cannot_be_read_is_told(self) -> None:
        os.unlink(self.secret)
        self.assertIn("the client's secret cannot be read", str(await self.fails(self.issuer(secret=True))))

    async def test_without_a_refresh_token_nobody_is_asked(self) -> None:
        self.assertTrue((await self.fails(self.issuer(), None)).is_refused)
        self.assertEqual(self.mock.metadata_asked, 0)


class Pure(SynchronousTestCase):
    @given(any_octets())
    def test_whatever_an_issuer_says_it_is_taken_or_refused(self, octets: bytes) -> None:
        for parse in (lambda: issuer_of(200, octets, "https://i.example"), lambda: tokens_of(200, octets, (), NOW)):
            try:
                parse()
            except TokenFailed as fault:
                self.assertTrue(str(fault).isprintable())

    def test_lifetimes_are_bounded_and_odd_ones_are_none(self) -> None:
        for said, lifetime in (("3599", 3599.0), (1e300, 86_400.0), (-1, 3600.0), ("NaN", 3600.0), (None, 3600.0), (True, 3600.0), (0, 0.0)):
            octets = f'{{"access_token": "t", "token_type": "Bearer", "expires_in": {said if said is not None else "null"}}}'
            octets = octets.replace("True", "true").replace("NaN", '"NaN"')
            self.assertEqual(tokens_of(200, octets.encode(), (), NOW).lifetime, lifetime, said)

    def test_a_token_is_good_until_shortly_before_its_end_and_fresh_for_three_quarters(self) -> None:
        tokens = IssuedTokens("t", 3600.0, NOW)
        self.assertTrue(tokens.is_fresh(NOW + 2600))
        self.assertFalse(tokens.is_fresh(NOW + 2800))
        self.assertTrue(tokens.is_good(NOW + 3500))
        self.assertFalse(tokens.is_good(NOW + 3590))
        self.assertFalse(tokens.is_good(NOW - 3600), "from the future: a clock was set")
        self.assertEqual(tokens.refresh_seconds_left(NOW), math.inf)

    def test_a_token_is_not_in_its_representation_and_survives_its_text(self) -> None:
        tokens = IssuedTokens("access-secret", 3600.0, NOW, "refresh-secret", 5.0, NOW)
        self.assertNotIn("secret", repr(tokens))
        self.assertEqual(tokens_from(tokens.as_text()), tokens)
        for text in ("{}", "[]", "x", '{"access": 1}'):
            self.assertRaises(ValueError, tokens_from, text)

    def test_secrets_go_to_https_or_to_this_host(self) -> None:
        for url in ("https://login.example/a/v2.0", "http://127.0.0.1:8080/x", "http://localhost/", "http://[::1]/"):
            self.assertEqual(checked_url(url), url)
        for url in ("", "http://login.example/", "ftp://x/", "https://", "https://u@x/", "https://x/#y", "https://x/\n", "https://x:0/", "https://x:99999/"):
            self.assertRaises(ValueError, checked_url, url)
