"""Each mechanism's exchange from the server's side, with the examples of its RFC."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.sasl.cram_md5 import NOBODY, cram_md5
from mailserver.sasl.exchange import RESPONSE_OCTETS, Exchange
from mailserver.sasl.exchanges import MECHANISMS, Need, Start, begin, offered
from mailserver.sasl.faults import LocalSASLError
from mailserver.sasl.scram import decoded, scram_sha_256, text_of
from mailserver.sasl.scram_keys import derive_scram_keys, false_scram_keys
from mailserver.sasl.steps import (
    Challenge,
    ChannelBindings,
    CheckCertificate,
    CheckPassword,
    Failed,
    FindScramKeys,
    FindSecret,
    ScramKeys,
    Step,
    Succeeded,
    Trouble,
)
from tests.any_octets import any_octets

BINDINGS = ChannelBindings({"tls-exporter": b"e" * 32, "tls-server-end-point": b"p" * 32})
START = Start(BINDINGS, offers_plus=True, hostname="mx.example.org")


class Plain(SynchronousTestCase):
    def respond(self, message: bytes) -> Step:
        return begin("PLAIN", START).respond(message)

    def test_the_password_is_asked_about_and_the_account_is_the_answer(self) -> None:
        # RFC 4616 section 4
        exchange = begin("PLAIN", START)
        self.assertEqual(exchange.respond(b"\0tim\0tanstaaftanstaaf"), CheckPassword("tim", "tanstaaftanstaaf", ""))
        self.assertEqual(exchange.answer("tim@example.org"), Succeeded("tim@example.org", ""))

    def test_without_an_initial_response_the_challenge_is_empty(self) -> None:
        exchange = begin("PLAIN", START)
        self.assertEqual(exchange.respond(None), Challenge(b"", True))
        self.assertEqual(exchange.respond(b"Ursel\0Kurt\0xipj3plmq"), CheckPassword("Kurt", "xipj3plmq", "Ursel"))

    def test_a_wrong_password_leaves_its_evidence_and_nothing_shows_it(self) -> None:
        exchange = begin("PLAIN", START)
        question = exchange.respond(b"\0tim\0hunter2")
        failed = exchange.answer(None)
        self.assertEqual(failed, Failed(Trouble.CREDENTIALS, "tim", b"hunter2"))
        self.assertNotIn("hunter2", repr(failed) + repr(question))

    def test_what_is_not_three_parts_of_utf8_is_malformed(self) -> None:
        for message in (b"", b"a", b"a\0b", b"a\0b\0c\0d", b"\0\0c", b"\0b\0", b"\0\xff\0c", b"\0b\0\xff", b"\xff\0b\0c"):
            found = self.respond(message)
            assert isinstance(found, Failed), message
            self.assertIs(found.trouble, Trouble.MALFORMED, message)

    def test_names_and_passwords_are_bounded(self) -> None:
        self.assertIsInstance(self.respond(b"\0" + b"a" * 1024 + b"\0" + b"b" * 1024), CheckPassword)
        self.assertIsInstance(self.respond(b"\0" + b"a" * 1025 + b"\0b"), Failed)
        self.assertIsInstance(self.respond(b"\0a\0" + b"b" * 1025), Failed)


class Login(SynchronousTestCase):
    def test_two_prompts(self) -> None:
        exchange = begin("LOGIN", START)
        self.assertEqual(exchange.respond(None), Challenge(b"Username:", True))
        self.assertEqual(exchange.respond(b"tim"), Challenge(b"Password:"))
        self.assertEqual(exchange.respond(b"secret"), CheckPassword("tim", "secret", ""))
        self.assertEqual(exchange.answer("tim"), Succeeded("tim"))

    def test_an_initial_response_is_the_user_name(self) -> None:
        exchange = begin("LOGIN", START)
        self.assertEqual(exchange.respond(b"tim"), Challenge(b"Password:"))


class CramMD5(SynchronousTestCase):
    CHALLENGE = b"<1896.697170952@postoffice.reston.mci.net>"
    RESPONSE = b"tim b913a602c7eda7a495b4e6e7334d3890"

    def run_with(self, response: bytes, secret: bytes | None) -> Step:
        exchange = Exchange(cram_md5(self.CHALLENGE))
        self.assertEqual(exchange.respond(None), Challenge(self.CHALLENGE))
        step = exchange.respond(response)
        return exchange.answer(secret) if isinstance(step, FindSecret) else step

    def test_the_example_of_the_rfc(self) -> None:
        # RFC 2195 section 2
        self.assertEqual(self.run_with(self.RESPONSE, b"tanstaaftanstaaf"), Succeeded("tim"))

    def test_a_wrong_digest_and_an_unknown_user_are_the_same(self) -> None:
        wrong = Failed(Trouble.CREDENTIALS, "tim")
        self.assertEqual(self.run_with(self.RESPONSE, b"other"), wrong)
        self.assertEqual(self.run_with(self.RESPONSE, None), wrong)
        nobody = hmac.new(b"", self.CHALLENGE, "md5").hexdigest().encode()
        self.assertEqual(self.run_with(b"tim " + nobody, None), wrong)

    def test_who_knows_the_secret_that_stands_for_nobodys_is_nobody_all_the_same(self) -> None:
        digest = hmac.digest(NOBODY, self.CHALLENGE, "md5").hex().encode()
        self.assertEqual(self.run_with(b"tim " + digest, None), Failed(Trouble.CREDENTIALS, "tim"))
        self.assertEqual(self.run_with(b"tim " + digest, NOBODY), Succeeded("tim"), "it is the right digest")

    def test_what_is_no_digest_is_malformed(self) -> None:
        for response in (b"", b"tim", b"tim abc", b" " + b"a" * 32, b"tim " + b"g" * 32, b"\xff " + b"a" * 32):
            found = self.run_with(response, b"x")
            assert isinstance(found, Failed)
            self.assertIs(found.trouble, Trouble.MALFORMED, response)

    def test_what_is_malformed_is_told_with_the_name_where_it_has_one(self) -> None:
        for response, username in ((b"tim no digest", "tim no"), (b"tim " + b"0" * 31, "tim"), (b" " + b"0" * 32, "")):
            self.assertEqual(self.run_with(response, b"x"), Failed(Trouble.MALFORMED, username))

    def test_the_client_may_not_speak_first(self) -> None:
        # RFC 4954 section 4
        self.assertEqual(Exchange(cram_md5(self.CHALLENGE)).respond(b"x"), Failed(Trouble.MALFORMED))

    def test_no_challenge_comes_twice(self) -> None:
        self.assertEqual(len({START.challenge() for _ in range(100)}), 100)
        self.assertRegex(START.challenge(), rb"^<[0-9a-f]{24}@mx\.example\.org>$")
        self.assertEqual(len({START.nonce() for _ in range(100)}), 100)


class External(SynchronousTestCase):
    def test_the_certificate_is_asked_about(self) -> None:
        exchange = begin("EXTERNAL", START)
        self.assertEqual(exchange.respond(b""), CheckCertificate(""))
        self.assertEqual(exchange.answer("alice@example.org"), Succeeded("alice@example.org", ""))

    def test_the_client_may_name_whom_it_wants_to_be(self) -> None:
        exchange = begin("EXTERNAL", START)
        self.assertEqual(exchange.respond(None), Challenge(b"", True))
        self.assertEqual(exchange.respond(b"bob@example.org"), CheckCertificate("bob@example.org"))
        self.assertEqual(exchange.answer(None), Failed(Trouble.CREDENTIALS, "bob@example.org"))

    def test_what_is_no_name_is_malformed(self) -> None:
        self.assertEqual(begin("EXTERNAL", START).respond(b"a\0b"), Failed(Trouble.MALFORMED))


class Client:
    """The client's side of SCRAM, written from RFC 5802 alone."""

    def __init__(self, user: str, password: str, *, gs2: str = "n,,", nonce: str = "cnonce", data: bytes = b"") -> None:
        self.gs2, self.nonce, self.password, self.data = gs2, nonce, password.encode(), data
        self.bare = f"n={user},r={nonce}"
        self.signature = b""

    def first(self) -> bytes:
        return (self.gs2 + self.bare).encode()

    def final(self, challenge: bytes, **changes: Any) -> bytes:
        server = challenge.decode()
        nonce, salt, iterations = re.fullmatch(r"r=([^,]*),s=([^,]*),i=([0-9]+)", server).groups()  # type: ignore[union-attr]
        bound = base64.b64encode(self.gs2.encode() + self.data).decode()
        without = f"c={changes.get('bound', bound)},r={changes.get('nonce', nonce)}"
        message = f"{self.bare},{server},{without}".encode()
        salted = hashlib.pbkdf2_hmac("sha256", self.password, base64.b64decode(salt), int(iterations))
        key = hmac.new(salted, b"Client Key", "sha256").digest()
        mine = hmac.new(hashlib.sha256(key).digest(), message, "sha256").digest()
        proof = bytes(a ^ b for a, b in zip(key, mine, strict=True))
        self.signature = hmac.new(hmac.new(salted, b"Server Key", "sha256").digest(), message, "sha256").digest()
        return f"{without},p={base64.b64encode(changes.get('proof', proof)).decode()}".encode()


KEYS = derive_scram_keys("pencil", salt=base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ=="), iterations=4096)


class Scram(SynchronousTestCase):
    def scram(self, *, plus: bool = False, nonce: str = "snonce", offers_plus: bool = True) -> Exchange:
        return Exchange(scram_sha_256(plus=plus, nonce=nonce, bindings=BINDINGS, offers_plus=offers_plus))

    def run_with(self, exchange: Exchange, client: Client, keys: ScramKeys = KEYS, **changes: Any) -> Step:
        step = exchange.respond(client.first())
        if not isinstance(step, FindScramKeys):
            return step
        challenge = exchange.answer(keys)
        assert isinstance(challenge, Challenge)
        step = exchange.respond(client.final(challenge.data, **changes))
        if not isinstance(step, Challenge):
            return step
        self.assertEqual(step.data, b"v=" + base64.b64encode(client.signature))
        return exchange.respond(b"")

    def test_the_example_of_the_rfc(self) -> None:
        # RFC 7677 section 3
        exchange = self.scram(nonce="%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0", offers_plus=False)
        self.assertEqual(exchange.respond(b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO"), FindScramKeys("user"))
        self.assertEqual(
            exchange.answer(KEYS),
            Challenge(b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"),
        )
        final = (
            b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        )
        self.assertEqual(exchange.respond(final), Challenge(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=", is_proof=True))
        self.assertEqual(exchange.respond(b""), Succeeded("user", ""))

    def test_a_wrong_password_fails_and_so_does_nobodys(self) -> None:
        self.assertEqual(self.run_with(self.scram(), Client("user", "pencil")), Succeeded("user", ""))
        wrong = Failed(Trouble.CREDENTIALS, "user")
        self.assertEqual(self.run_with(self.scram(), Client("user", "pen")), wrong)
        self.assertEqual(self.run_with(self.scram(), Client("user", "pencil"), false_scram_keys("user", b"s")), wrong)

    def test_false_keys_never_succeed_even_if_someone_knew_them(self) -> None:
        known = ScramKeys(KEYS.iterations, KEYS.salt, KEYS.stored_key, KEYS.server_key, is_false=True)
        self.assertEqual(self.run_with(self.scram(), Client("user", "pencil"), known), Failed(Trouble.CREDENTIALS, "user"))

    def test_commas_and_equals_signs_in_a_name(self) -> None:
        # RFC 5802 section 5.1
        self.assertEqual(self.run_with(self.scram(), Client("a=2Cb=3Dc", "pencil")), Succeeded("a,b=c", ""))
        for name in ("a=b", "a=2", "=2c", ""):
            self.assertEqual(self.run_with(self.scram(), Client(name, "pencil")), Failed(Trouble.MALFORMED), name)

    def test_a_message_has_4096_octets_at_most(self) -> None:
        self.assertEqual(text_of(b"n" * 4096), "n" * 4096)
        self.assertEqual(text_of(b"n" * 4097), "")

    def test_an_authorization_identity_comes_along(self) -> None:
        client = Client("user", "pencil", gs2="n,a=bob=2Cjr,")
        self.assertEqual(self.run_with(self.scram(), client), Succeeded("user", "bob,jr"))

    def test_plus_binds_to_the_channel(self) -> None:
        # RFC 5802 section 6; RFC 9266; RFC 5929
        for kind, data in BINDINGS.data.items():
            client = Client("user", "pencil", gs2=f"p={kind},,", data=data)
            self.assertEqual(self.run_with(self.scram(plus=True), client), Succeeded("user", ""))
            other = Client("user", "pencil", gs2=f"p={kind},,", data=b"x" * 32)
            self.assertEqual(self.run_with(self.scram(plus=True), other), Failed(Trouble.CHANNEL_BINDING, "user"))

    def test_plus_without_a_binding_that_we_know_is_refused(self) -> None:
        for gs2 in ("n,,", "y,,", "p=tls-unique,,"):
            found = self.run_with(self.scram(plus=True), Client("user", "pencil", gs2=gs2))
            self.assertEqual(found, Failed(Trouble.CHANNEL_BINDING, "user"), gs2)

    def test_a_client_that_was_not_shown_our_plus_is_told_that_somebody_took_it_away(self) -> None:
        # RFC 5802 section 6: "y" although PLUS was offered
        client = Client("user", "pencil", gs2="y,,")
        self.assertEqual(self.run_with(self.scram(), client), Failed(Trouble.CHANNEL_BINDING, "user"))
        self.assertEqual(self.run_with(self.scram(offers_plus=False), client), Succeeded("user", ""))

    def test_a_binding_without_plus_is_refused(self) -> None:
        client = Client("user", "pencil", gs2="p=tls-exporter,,", data=b"e" * 32)
        self.assertEqual(self.run_with(self.scram(), client), Failed(Trouble.CHANNEL_BINDING, "user"))

    def test_a_binding_that_does_not_go_with_the_mechanism_is_refused_before_any_keys_are_looked_for(self) -> None:
        for plus, gs2 in ((False, "p=tls-exporter,,"), (True, "n,,")):
            first = Client("user", "pencil", gs2=gs2).first()
            self.assertEqual(self.scram(plus=plus).respond(first), Failed(Trouble.CHANNEL_BINDING, "user"))

    def test_a_final_message_of_another_form_is_malformed(self) -> None:
        for final in (b"", b"c=biws", b"c=biws,r=cnoncesnonce", b"r=cnoncesnonce,c=biws,p=AA==", b"c=biws,r=cnoncesnonce,p=AA==,x=y", b"\xff"):
            exchange = self.scram()
            exchange.respond(Client("user", "pencil").first())
            exchange.answer(KEYS)
            self.assertEqual(exchange.respond(final), Failed(Trouble.MALFORMED, "user"), final)

    def test_what_is_not_strictly_base64_is_nothing(self) -> None:
        for text in ("YQ", "YQ=", "YQ==\n", " YQ==", "Y-_=", "YQ==YQ==", "\u0661\u0661\u0661\u0661", "A"):
            self.assertIsNone(decoded(text), text)
        for octets in (b"", b"a", b"ab", b"abc", bytes(range(256))):
            self.assertEqual(decoded(base64.b64encode(octets).decode()), octets)

    def test_another_nonce_header_or_proof_is_no_proof(self) -> None:
        wrong = Failed(Trouble.CREDENTIALS, "user")
        self.assertEqual(self.run_with(self.scram(), Client("user", "pencil"), nonce="cnonce"), wrong)
        self.assertEqual(self.run_with(self.scram(), Client("user", "pencil"), proof=b"x" * 32), wrong)
        self.assertEqual(self.run_with(self.scram(), Client("user", "pencil"), proof=b"x"), wrong)
        header = Failed(Trouble.CHANNEL_BINDING, "user")
        self.assertEqual(self.run_with(self.scram(), Client("user", "pencil"), bound="eSws"), header)

    def test_extensions_that_must_be_understood_are_not(self) -> None:
        for first in (b"n,,m=x,n=user,r=c", b"n,,n=user", b"x,,n=user,r=c", b"n,n=user,r=c", b"n,,n=user,r=", b"\xff", b"n,," * 2000):
            self.assertEqual(self.scram().respond(first), Failed(Trouble.MALFORMED), first[:30])

    def test_the_client_has_nothing_to_say_after_the_signature(self) -> None:
        exchange, client = self.scram(), Client("user", "pencil")
        exchange.respond(client.first())
        challenge = exchange.answer(KEYS)
        assert isinstance(challenge, Challenge)
        exchange.respond(client.final(challenge.data))
        self.assertEqual(exchange.respond(b"x"), Failed(Trouble.MALFORMED, "user"))


class Exchanges(SynchronousTestCase):
    def test_what_is_offered_is_what_the_accounts_can_serve_the_best_first(self) -> None:
        everything = frozenset(Need)
        self.assertEqual(offered(everything, is_encrypted=True, has_certificate=True), tuple(MECHANISMS))
        self.assertEqual(
            offered(everything, is_encrypted=False, has_certificate=False), ("SCRAM-SHA-256", "CRAM-MD5", "PLAIN", "LOGIN")
        )
        self.assertEqual(offered({Need.PASSWORD}, is_encrypted=True, has_certificate=True), ("PLAIN", "LOGIN"))
        self.assertEqual(
            offered(everything, is_encrypted=True, has_certificate=False, wanted={"LOGIN", "PLAIN", "EXTERNAL"}),
            ("PLAIN", "LOGIN"),
        )
        self.assertEqual(offered((), is_encrypted=True, has_certificate=True), ())

    def test_misuse_is_an_error_of_the_caller(self) -> None:
        exchange = begin("PLAIN", START)
        self.assertRaises(LocalSASLError, exchange.answer, None)
        exchange.respond(b"\0a\0b")
        self.assertRaises(LocalSASLError, exchange.respond, b"")
        exchange.answer(None)
        self.assertRaises(LocalSASLError, exchange.respond, b"")
        exchange = begin("LOGIN", START)
        exchange.respond(None)
        self.assertRaises(LocalSASLError, exchange.respond, None)

    def test_a_response_that_is_too_long_ends_it(self) -> None:
        for name in MECHANISMS:
            self.assertEqual(begin(name, START).respond(b"x" * (RESPONSE_OCTETS + 1)), Failed(Trouble.MALFORMED))

    ANSWERS: dict[type, Callable[[Any], Any]] = {
        CheckPassword: lambda question: None,
        FindScramKeys: lambda question: false_scram_keys(question.username, b"secret"),
        FindSecret: lambda question: None,
        CheckCertificate: lambda question: None,
    }

    @given(st.sampled_from(sorted(MECHANISMS)), st.none() | any_octets(), st.lists(any_octets(max_size=60), min_size=4, max_size=4))
    def test_whatever_a_client_says_it_fails_and_nothing_breaks(
        self, name: str, initial: bytes | None, responses: list[bytes]
    ) -> None:
        exchange = begin(name, START)
        step = exchange.respond(initial)
        for response in responses:
            while type(step) in self.ANSWERS:
                step = exchange.answer(self.ANSWERS[type(step)](step))
            if not isinstance(step, Challenge):
                break
            step = exchange.respond(response)
        self.assertIsInstance(step, Failed)
