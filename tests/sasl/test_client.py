"""The client's side of SASL: against our server's side, against scramp's server, and against servers that cannot be believed."""

from __future__ import annotations

import base64
import hmac

from hypothesis import given, settings
from hypothesis import strategies as st
from scramp import ScramMechanism
from twisted.trial.unittest import SynchronousTestCase

from mailserver.sasl.client import CLIENT_MECHANISMS, KINDS, ClientExchange, Credentials, Login, ScramSHA256
from mailserver.sasl.exchanges import Start, begin
from mailserver.sasl.saslprep import saslprep
from mailserver.sasl.scram_keys import derive_scram_keys, false_scram_keys
from mailserver.sasl.steps import (
    Challenge,
    ChannelBindings,
    CheckPassword,
    Failed,
    FindScramKeys,
    FindSecret,
    Step,
    Succeeded,
    Trouble,
)

TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=30)


def is_prepared(text: str) -> bool:
    try:
        return bool(saslprep(text, stored=True))
    except ValueError:
        return False


BOUND = ChannelBindings({"tls-exporter": b"e" * 32})


def talk(
    client: ClientExchange, username: str, password: str, bindings: ChannelBindings = BOUND, *, offers_plus: bool = True
) -> Step:
    """With our server, whose one account is this."""
    server = begin(client.mechanism, Start(bindings, offers_plus, "mx.example.org"))
    step = server.respond(client.first())
    while not isinstance(step, Succeeded) and (isinstance(step, Challenge) or not hasattr(step, "trouble")):
        match step:
            case Challenge(data):
                step = server.respond(client.respond(data))
            case CheckPassword(name, given, _):
                step = server.answer(name if (name, given) == (username, password) else None)
            case FindScramKeys(name):
                known = name == saslprep(username)
                step = server.answer(
                    derive_scram_keys(password, salt=b"s" * 16, iterations=4096) if known else false_scram_keys(name, b"")
                )
            case FindSecret(name):
                step = server.answer(password.encode() if name == username else None)
    return step


class OurServer(SynchronousTestCase):
    def test_each_mechanism_is_understood(self) -> None:
        for mechanism in CLIENT_MECHANISMS:
            client = Credentials("user", "pencil").exchange([mechanism], bindings=ChannelBindings() if mechanism == "SCRAM-SHA-256" else BOUND)
            assert client is not None
            self.assertIsInstance(talk(client, "user", "pencil"), Succeeded, mechanism)
            self.assertTrue(client.is_complete, mechanism)

    def test_a_wrong_password_is_one_with_each(self) -> None:
        for mechanism in CLIENT_MECHANISMS:
            client = Credentials("user", "pen").exchange([mechanism], bindings=BOUND)
            assert client is not None
            self.assertNotIsInstance(talk(client, "user", "pencil"), Succeeded)

    @settings(max_examples=40)
    @given(TEXTS.filter(is_prepared), TEXTS.filter(is_prepared))
    def test_scram_takes_any_name_and_password(self, username: str, password: str) -> None:
        client = Credentials(username, password).exchange(["SCRAM-SHA-256"])
        assert client is not None
        self.assertIsInstance(talk(client, username, password), Succeeded)


class Binding(SynchronousTestCase):
    def exchange(self, *offered: str, bindings: ChannelBindings = BOUND, among: tuple[str, ...] = CLIENT_MECHANISMS) -> ClientExchange:
        client = Credentials("user", "pencil").exchange(offered, among, bindings)
        assert client is not None
        return client

    def test_plus_is_taken_where_the_connection_has_the_binding_of_tls_1_3(self) -> None:
        both = ("SCRAM-SHA-256", "SCRAM-SHA-256-PLUS")
        self.assertEqual(self.exchange(*both).mechanism, "SCRAM-SHA-256-PLUS")
        self.assertEqual(self.exchange(*both, bindings=ChannelBindings({"tls-server-end-point": b"x"})).mechanism, "SCRAM-SHA-256")
        self.assertIsNone(Credentials("user", "pencil").exchange(["SCRAM-SHA-256-PLUS"]))

    def test_another_connection_is_noticed(self) -> None:
        client = self.exchange("SCRAM-SHA-256-PLUS")
        self.assertEqual(talk(client, "user", "pencil", ChannelBindings({"tls-exporter": b"f" * 32})), Failed(Trouble.CHANNEL_BINDING, "user"))

    def test_a_server_sees_that_its_offer_was_taken_away(self) -> None:
        self.assertEqual(talk(self.exchange("SCRAM-SHA-256"), "user", "pencil"), Failed(Trouble.CHANNEL_BINDING, "user"))
        self.assertIsInstance(talk(self.exchange("SCRAM-SHA-256"), "user", "pencil", offers_plus=False), Succeeded)

    def test_where_plus_is_not_wanted_nothing_is_said_of_it(self) -> None:
        first = self.exchange("SCRAM-SHA-256", "SCRAM-SHA-256-PLUS", among=("SCRAM-SHA-256",)).first()
        self.assertEqual((first or b"")[:3], b"n,,")


class Scramp(SynchronousTestCase):
    def test_scram_goes_with_a_server_of_others(self) -> None:
        mechanism = ScramMechanism("SCRAM-SHA-256")
        known = mechanism.make_auth_info("pencil", iteration_count=4096)
        for password in ("pencil", "eraser"):
            server = mechanism.make_server(lambda name: known if name == "us,er=" else None)
            client = ScramSHA256(Credentials("us,er=", password))
            server.set_client_first(client.first().decode())
            final = client.respond(server.get_server_first().encode())
            if password == "pencil":
                server.set_client_final(final.decode())
                self.assertEqual(client.respond(server.get_server_final().encode()), b"")
                self.assertTrue(client.is_complete)
            else:
                self.assertRaises(Exception, server.set_client_final, final.decode())


class Vector(SynchronousTestCase):
    def client(self) -> ScramSHA256:
        return ScramSHA256(Credentials("user", "pencil"), lambda: "rOprNGfwEbeRWgbNEkqO")

    SERVER_FIRST = b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"

    def test_the_example_of_rfc_7677_section_3(self) -> None:
        client = self.client()
        self.assertEqual(client.first(), b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO")
        self.assertEqual(
            client.respond(self.SERVER_FIRST),
            b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
        )
        self.assertFalse(client.is_complete)
        self.assertEqual(client.respond(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="), b"")
        self.assertTrue(client.is_complete)
        self.assertRaises(ValueError, client.respond, b"")

    def test_a_server_that_does_not_know_the_password_is_not_believed(self) -> None:
        for final in (b"v=" + base64.b64encode(b"x" * 32), b"e=other-error", b"", b"v=", b"\xff", b"v=%s" % (b"A" * 43)):
            client = self.client()
            client.respond(self.SERVER_FIRST)
            self.assertRaises(ValueError, client.respond, final)
            self.assertFalse(client.is_complete)

    def test_a_first_message_that_cannot_be_is_not_answered(self) -> None:
        for old, new in (
            (b"r=rOprNGfwEbeRWgbNEkqO%", b"r=xOprNGfwEbeRWgbNEkqO%"),  # not made from our nonce
            (b"%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0", b""),  # nothing of its own
            (b"i=4096", b"i=4095"), (b"i=4096", b"i=200001"), (b"i=4096", b"i=99999999999"), (b"i=4096", b"i=-1"),
            (b"s=W22ZaJ0SNY7soEsUEjb6gQ==", b"s="), (b"s=W22ZaJ0SNY7soEsUEjb6gQ==", b"s=W2"),
            (b"r=", b"m=x,r="), (b"r=", b"\xff"), (self.SERVER_FIRST, b""),
        ):  # fmt: skip
            message = self.SERVER_FIRST.replace(old, new, 1)
            self.assertNotEqual(message, self.SERVER_FIRST)
            self.assertRaises(ValueError, self.client().respond, message)


class Choosing(SynchronousTestCase):
    def test_the_best_that_is_offered_and_wanted(self) -> None:
        credentials = Credentials("user", "pencil")
        for offered, among, chosen in (
            (("LOGIN", "PLAIN", "SCRAM-SHA-256"), CLIENT_MECHANISMS, "SCRAM-SHA-256"),
            (("LOGIN", "PLAIN", "SCRAM-SHA-256"), ("LOGIN",), "LOGIN"),
            (("CRAM-MD5", "LOGIN"), CLIENT_MECHANISMS, "LOGIN"),
        ):
            exchange = credentials.exchange(offered, among)
            assert exchange is not None
            self.assertEqual(exchange.mechanism, chosen)
        self.assertIsNone(credentials.exchange(("XOAUTH2", "GSSAPI")))
        self.assertIsNone(credentials.exchange(("PLAIN",), ("LOGIN",)))

    def test_what_no_mechanism_can_say_is_refused(self) -> None:
        for pair in (("", "x"), ("x", ""), ("a\0b", "x"), ("x", "a\0b"), ("a\x07", "x")):
            self.assertRaises(ValueError, Credentials, *pair)

    def test_more_questions_than_the_mechanism_has_are_not_answered(self) -> None:
        for mechanism, answers in (("PLAIN", 0), ("LOGIN", 2), ("CRAM-MD5", 1)):
            exchange = Credentials("user", "pencil").exchange([mechanism])
            assert exchange is not None
            exchange.first()
            for _ in range(answers):
                exchange.respond(b"x")
            self.assertRaises(ValueError, exchange.respond, b"x")

    def test_cram_md5_is_what_rfc_2195_says(self) -> None:
        exchange = Credentials("tim", "tanstaaftanstaaf").exchange(["CRAM-MD5"])
        assert exchange is not None
        self.assertIsNone(exchange.first())
        challenge = b"<1896.697170952@postoffice.reston.mci.net>"
        self.assertEqual(exchange.respond(challenge), b"tim b913a602c7eda7a495b4e6e7334d3890")
        self.assertEqual(hmac.digest(b"tanstaaftanstaaf", challenge, "md5").hex(), "b913a602c7eda7a495b4e6e7334d3890")


class Completeness(SynchronousTestCase):
    def test_no_success_is_believed_before_all_has_been_said(self) -> None:
        complete = {kind.mechanism: kind(Credentials("alice", "secret")).is_complete for kind in KINDS}
        self.assertEqual({mechanism for mechanism, is_complete in complete.items() if is_complete}, {"PLAIN"})

    def test_login_has_said_all_with_the_password(self) -> None:
        login = Login(Credentials("alice", "secret"))
        self.assertEqual((login.respond(b"Username:"), login.is_complete), (b"alice", False))
        self.assertEqual((login.respond(b"Password:"), login.is_complete), (b"secret", True))


class ServerFirst(SynchronousTestCase):
    def test_where_the_server_speaks_first_no_initial_response_is_taken(self) -> None:
        """RFC 4954 section 4"""
        for response in (b"", b"alice 0123"):
            step = begin("CRAM-MD5", Start(ChannelBindings({}), False, "mx.example.org")).respond(response)
            self.assertEqual(step, Failed(Trouble.MALFORMED))
