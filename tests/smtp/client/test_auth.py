"""The client logs in (RFC 4954)."""

import base64

from twisted.trial.unittest import SynchronousTestCase

from mailserver.mail.reply import Reply
from mailserver.smtp.client.events import Authenticated, AuthRefused, Broken
from mailserver.smtp.client.session import LocalProtocolError, Phase
from mailserver.smtp.client.states import ClientState
from tests.smtp.client.client_talk import Talk

EHLO = b"250-mx.example.org\r\n250-PIPELINING\r\n250 AUTH X PLAIN\r\n"
OK = b"235 2.7.0 Welcome\r\n"


class Script:
    """An exchange that says what it was given, and is complete after `needed` challenges."""

    mechanism = "X"

    def __init__(self, first=None, answers=(), needed=0):
        self._first, self.answers, self.needed = first, list(answers), needed
        self.heard = []

    def first(self):
        return self._first

    def respond(self, challenge):
        self.heard.append(challenge)
        if not self.answers:
            raise ValueError("it asks too much")
        return self.answers.pop(0)

    @property
    def is_complete(self):
        return len(self.heard) >= self.needed


def b64(text):
    return base64.b64encode(text)


class Login(SynchronousTestCase):
    def begin(self, exchange):
        self.talk = Talk(is_encrypted=True).ready(EHLO)
        self.talk.session.authenticate(exchange)
        self.talk.take()
        return self.talk.written

    def refused(self):
        [event] = self.talk.events
        self.assertIsInstance(event, AuthRefused)
        self.assertIs(self.talk.session.state, ClientState.READY)
        self.assertFalse(self.talk.session.is_authenticated)
        return event

    def test_with_an_initial_response(self):
        self.assertEqual(self.begin(Script(b"\0user\0secret")), b"AUTH X AHVzZXIAc2VjcmV0\r\n")
        self.assertIs(self.talk.session.phase, Phase.AUTH)
        self.assertEqual(self.talk.hear(OK), b"")
        self.assertEqual(self.talk.events, [Authenticated(Reply.of(235, "2.7.0", "Welcome"))])
        self.assertTrue(self.talk.session.is_authenticated and self.talk.session.is_ready)

    def test_an_initial_response_of_nothing_is_an_equals_sign(self):
        # RFC 4954 section 4
        self.assertEqual(self.begin(Script(b"")), b"AUTH X =\r\n")

    def test_an_initial_response_that_makes_the_line_too_long_comes_after_the_334(self):
        for octets, fits in ((375, True), (376, False)):
            exchange = Script(b"x" * octets)
            said = self.begin(exchange)
            self.assertEqual(said == b"AUTH X " + b64(b"x" * octets) + b"\r\n", fits)
            self.assertLessEqual(len(said), 512)
            if not fits:
                self.assertEqual(said, b"AUTH X\r\n")
                self.assertEqual(self.talk.hear(b"334 \r\n"), b64(b"x" * octets) + b"\r\n")
                self.assertEqual(exchange.heard, [])
            self.talk.hear(OK)
            self.assertTrue(self.talk.session.is_authenticated)

    def test_challenges_are_answered_one_by_one(self):
        exchange = Script(None, [b"user", b"secret", b""], needed=3)
        self.assertEqual(self.begin(exchange), b"AUTH X\r\n")
        self.assertEqual(self.talk.hear(b"334 VXNlcm5hbWU6\r\n"), b"dXNlcg==\r\n")
        self.assertEqual(self.talk.hear(b"334 UGFzc3dvcmQ6\r\n"), b"c2VjcmV0\r\n")
        self.assertEqual(self.talk.hear(b"334\r\n"), b"\r\n")
        self.assertEqual(exchange.heard, [b"Username:", b"Password:", b""])
        self.talk.hear(OK)
        self.assertTrue(self.talk.session.is_authenticated)

    def test_a_refusal_leaves_the_session_as_it_was(self):
        for code in (b"535 5.7.8 No", b"454 4.7.0 Later", b"504 5.5.4 What?"):
            self.begin(Script(b"x"))
            self.talk.hear(code + b"\r\n")
            self.assertEqual((str(self.refused().reply).encode(), self.refused().doubt), (code, ""))
            self.assertTrue(self.talk.send("a").startswith(b"MAIL FROM:"))

    def test_a_peer_that_cannot_be_believed_hears_a_star(self):
        for challenge, doubt in ((b"334 x", "a challenge is not Base64"), (b"334 eA==", "it asks too much")):
            self.begin(Script(None))
            self.assertEqual(self.talk.hear(challenge + b"\r\n"), b"*\r\n")
            self.talk.hear(b"501 5.0.0 Cancelled\r\n")
            self.assertEqual(self.refused().doubt, doubt)

    def test_a_response_that_no_line_holds_is_not_said(self):
        self.begin(Script(None, [b"x" * 10_000]))
        self.assertEqual(self.talk.hear(b"334 \r\n"), b"*\r\n")
        self.talk.hear(b"501 Cancelled\r\n")
        self.assertEqual(self.refused().doubt, "a response is too long")

    def test_a_success_before_the_peer_has_proven_itself_ends_the_session(self):
        for exchange in (Script(b"x", [b"y"], needed=1), Script(b"x" * 400)):  # the second has not even been heard
            self.begin(exchange)
            self.talk.hear(OK)
            self.assertIsInstance(self.talk.events[-1], Broken)
            self.assertFalse(self.talk.session.is_authenticated)
            self.assertIs(self.talk.session.state, ClientState.CLOSED)

    def test_a_star_that_is_taken_for_a_login_ends_the_session(self):
        self.begin(Script(None, needed=2))
        self.talk.hear(b"334 x\r\n", OK)
        self.assertIsInstance(self.talk.events[-1], Broken)

    def test_any_other_answer_is_none(self):
        for code in (b"220", b"250", b"354"):
            self.begin(Script(b"x"))
            self.talk.hear(code + b" ok\r\n")
            self.assertIsInstance(self.talk.events[-1], Broken)

    def test_once_and_with_what_is_offered(self):
        talk = Talk(is_encrypted=True).ready(b"250-mx\r\n250 AUTH PLAIN\r\n")
        self.assertRaises(LocalProtocolError, talk.session.authenticate, Script(b"x"))
        self.begin(Script(b"x"))
        self.assertRaises(LocalProtocolError, self.talk.session.authenticate, Script(b"x"))
        self.talk.hear(OK)
        self.assertRaises(LocalProtocolError, self.talk.session.authenticate, Script(b"x"))

    def test_the_dialogue_has_no_secret(self):
        self.begin(Script(b"\0user\0secret", [b"hunter2"], needed=1))
        self.talk.hear(b"334 eA==\r\n", b"535 5.7.8 No\r\n")
        lines = self.talk.session.dialogue.lines()
        self.assertEqual(lines[-4:], ("C: AUTH", "S: 334 eA==", "C: (a response)", "S: 535 5.7.8 No"))
        whole = "".join(lines)
        for secret in (b64(b"\0user\0secret").decode(), b64(b"hunter2").decode(), "hunter2"):
            self.assertNotIn(secret, whole)
