"""STARTTLS (RFC 3207) and AUTH (RFC 4954)."""

from twisted.trial.unittest import SynchronousTestCase

from mailserver.mail.reply import Reply
from mailserver.smtp.events import Authenticate, AuthResponse, Event, Hello, Mail, StartTLS, Wait
from mailserver.smtp.server.session import Extensions, LocalProtocolError, SessionLimits
from mailserver.smtp.server.states import State
from tests.smtp.server.conversation import (
    CHALLENGE,
    EVERYTHING,
    LOGGED_IN,
    OK,
    READY_FOR_TLS,
    Conversation,
    friendly,
)

FAILED = Reply.of(535, "5.7.8", "Wrong")


class StartTLSTests(SynchronousTestCase):
    def ask(self, wire: bytes) -> Conversation:
        """Up to the open question of STARTTLS."""
        conversation = Conversation(answer=lambda event: None if isinstance(event, StartTLS) else friendly(event)).say_hello()
        conversation.send(wire)
        return conversation

    def test_what_came_in_plain_text_behind_it_is_thrown_away(self):
        # RFC 3207 section 5; the command injection of CVE-2011-0411
        conversation = self.ask(b"STARTTLS\r\nMAIL FROM:<injected@b.example>\r\n")
        session = conversation.session
        self.assertGreater(session.buffered, 0)
        session.reply(READY_FOR_TLS)
        self.assertEqual(session.data_to_send(), b"220 2.0.0 Go ahead\r\n")
        self.assertEqual(session.buffered, 0)
        conversation.send(b"MAIL FROM:<injected@b.example>\r\n")
        self.assertIs(conversation.wait, Wait.PAUSED)
        session.tls_established()
        conversation.send(b"EHLO b.example\r\n")
        self.assertEqual(conversation.events, [StartTLS(), Hello("EHLO", "b.example")])

    def test_half_a_line_does_not_join_what_comes_encrypted(self):
        conversation = self.ask(b"STARTTLS\r\nNO")
        conversation.session.reply(READY_FOR_TLS)
        conversation.session.tls_established()
        conversation.forget()
        conversation.send(b"OP\r\n")
        self.assertEqual(conversation.rejected, [("", 500, "5.5.2")])

    def test_the_peer_is_a_stranger_again(self):
        # RFC 3207 section 4.2
        conversation = Conversation().say_hello()
        conversation.send(b"STARTTLS\r\n", b"MAIL FROM:<a@b.example>\r\n")
        self.assertEqual(conversation.codes, [220, 503])
        self.assertIs(conversation.session.state, State.STRANGER)

    def test_twice_is_503(self):
        conversation = Conversation().say_hello()
        conversation.send(b"STARTTLS\r\n", b"EHLO a.example\r\n", b"STARTTLS\r\n")
        self.assertEqual(conversation.rejected, [("STARTTLS", 503, "5.5.1")])

    def test_it_is_not_offered_under_tls(self):
        # RFC 3207 section 4.2
        conversation = Conversation().say_hello()
        conversation.send(b"STARTTLS\r\n")
        self.assertNotIn(b"STARTTLS", conversation.send(b"EHLO a.example\r\n"))
        self.assertIn(b"STARTTLS", Conversation().send(b"EHLO a.example\r\n"), "another session is not touched")

    def test_not_offered_is_502(self):
        conversation = Conversation(extensions=Extensions()).say_hello()
        conversation.send(b"STARTTLS\r\n")
        self.assertEqual(conversation.rejected, [("STARTTLS", 502, "5.5.1")])

    def test_a_refusal_goes_on_in_plain_text(self):
        conversation = self.ask(b"STARTTLS\r\nNOOP\r\n")
        conversation.session.reply(Reply.of(454, "4.7.0", "Not now"))
        conversation.take()
        self.assertEqual(conversation.codes, [454, 250])
        self.assertIs(conversation.session.state, State.READY)

    def test_nothing_but_220_or_a_refusal_is_an_answer(self):
        conversation = self.ask(b"STARTTLS\r\n")
        self.assertRaises(LocalProtocolError, conversation.session.reply, OK)
        conversation.session.reply(READY_FOR_TLS)

    def test_closing_during_the_handshake_says_nothing_in_plain_text(self):
        conversation = self.ask(b"STARTTLS\r\n")
        conversation.session.reply(READY_FOR_TLS)
        conversation.session.data_to_send()
        conversation.session.close(Reply.of(421, "4.4.2", "Too slow"))
        self.assertEqual(conversation.session.data_to_send(), b"")
        self.assertIs(conversation.session.next_event(), Wait.CLOSED)

    def test_a_login_does_not_outlive_the_handshake(self):
        conversation = Conversation().say_hello()
        conversation.send(b"AUTH PLAIN AGEAYg==\r\n", b"STARTTLS\r\n", b"EHLO a.example\r\n", b"AUTH PLAIN AGEAYg==\r\n")
        self.assertEqual([code for code in conversation.codes if code != 250], [235, 220, 235])


class AuthTests(SynchronousTestCase):
    def test_in_the_clear_it_is_538_where_it_will_be_offered_under_tls(self):
        # RFC 4954 section 6
        conversation = Conversation(extensions=Extensions(starttls=True, auth_needs_tls=True)).say_hello()
        conversation.send(b"AUTH PLAIN AGEAYg==\r\n")
        self.assertEqual(conversation.rejected, [("AUTH", 538, "5.7.11")])

    def test_not_offered_at_all_is_502(self):
        conversation = Conversation(extensions=Extensions(starttls=True)).say_hello()
        conversation.send(b"AUTH PLAIN AGEAYg==\r\n")
        self.assertEqual(conversation.rejected, [("AUTH", 502, "5.5.1")])

    def test_an_initial_response(self):
        conversation = Conversation().say_hello()
        conversation.send(b"auth plain AGEAYg==\r\n")
        self.assertEqual(conversation.events, [Authenticate("PLAIN", b"\0a\0b")])
        self.assertEqual(conversation.said, b"235 2.7.0 Welcome\r\n")
        self.assertIs(conversation.session.state, State.READY)

    def test_an_empty_initial_response_is_an_equals_sign(self):
        conversation = Conversation(answer=lambda event: LOGGED_IN if isinstance(event, Authenticate) else OK).say_hello()
        conversation.send(b"AUTH PLAIN =\r\n")
        self.assertEqual(conversation.events, [Authenticate("PLAIN", b"")])

    def test_a_challenge_and_its_response(self):
        conversation = Conversation().say_hello()
        conversation.send(b"AUTH LOGIN\r\n")
        self.assertEqual(conversation.said, b"334 Y2hhbGxlbmdl\r\n")
        conversation.send(b"dXNlcg==\r\n")
        self.assertEqual(conversation.events, [Authenticate("LOGIN", None), AuthResponse(b"user")])
        self.assertEqual(conversation.codes, [334, 235])

    def test_several_rounds_with_an_empty_challenge_and_an_empty_response(self):
        rounds = [Reply.of(334, "", ""), CHALLENGE, LOGGED_IN]

        def answer(event: Event) -> Reply:
            return rounds.pop(0) if isinstance(event, Authenticate | AuthResponse) else friendly(event)

        conversation = Conversation(answer=answer).say_hello()
        conversation.send(b"AUTH LOGIN\r\n\r\nYg==\r\nNOOP\r\n")
        self.assertEqual(conversation.events[:3], [Authenticate("LOGIN", None), AuthResponse(b""), AuthResponse(b"b")])
        self.assertEqual(conversation.said, b"334 \r\n334 Y2hhbGxlbmdl\r\n235 2.7.0 Welcome\r\n250 2.0.0 OK\r\n")

    def test_a_failure_lets_the_peer_try_again(self):
        answers = [FAILED, LOGGED_IN]

        def answer(event: Event) -> Reply:
            return answers.pop(0) if isinstance(event, Authenticate) else friendly(event)

        conversation = Conversation(answer=answer).say_hello()
        conversation.send(b"AUTH PLAIN YQ==\r\nAUTH PLAIN YQ==\r\n")
        self.assertEqual(conversation.codes, [535, 235])

    def test_a_star_cancels(self):
        # RFC 4954 section 4
        conversation = Conversation().say_hello()
        conversation.send(b"AUTH LOGIN\r\n*\r\nNOOP\r\n")
        self.assertEqual(conversation.rejected, [("AUTH", 501, "5.7.0")])
        self.assertEqual(conversation.codes, [334, 501, 250])

    def test_bad_base64_is_501_and_ends_the_exchange(self):
        for response in (b"!", b"YQ", b"YQ=", b"=", b"YQ==YQ==", b"Y Q==", b"\xff", b"\0", b"YQ==\n", b"**"):
            conversation = Conversation().say_hello()
            conversation.send(b"AUTH LOGIN\r\n" + response + b"\r\nNOOP\r\n")
            self.assertEqual(conversation.rejected, [("AUTH", 501, "5.5.2")], response)
            self.assertEqual(conversation.codes, [334, 501, 250], response)

    def test_a_bad_initial_response_is_501(self):
        for response in (b"YQ", b"====", b"Y==="):
            conversation = Conversation().say_hello()
            conversation.send(b"AUTH PLAIN " + response + b"\r\n")
            self.assertEqual(conversation.rejected, [("AUTH", 501, "5.5.2")], response)

    def test_malformed_auth_is_501(self):
        for argument in (b"", b" PLAIN YQ== YQ==", b" " + b"X" * 21, b" PL!IN", b" PLAIN !"):
            conversation = Conversation().say_hello()
            conversation.send(b"AUTH" + argument + b"\r\n")
            self.assertEqual(conversation.rejected, [("AUTH", 501, "5.5.4")], argument)

    def test_a_mechanism_that_is_not_offered_is_504(self):
        conversation = Conversation().say_hello()
        conversation.send(b"AUTH CRAM-MD5\r\n")
        self.assertEqual(conversation.rejected, [("AUTH", 504, "5.5.4")])

    def test_where_nothing_is_offered_it_is_502(self):
        conversation = Conversation(extensions=Extensions()).say_hello()
        conversation.send(b"AUTH PLAIN\r\n")
        self.assertEqual(conversation.rejected, [("AUTH", 502, "5.5.1")])

    def test_twice_is_503(self):
        # RFC 4954 section 4; also when nothing is offered any more
        for later in (EVERYTHING, Extensions()):
            conversation = Conversation().say_hello()
            conversation.send(b"AUTH PLAIN AGEAYg==\r\n")
            conversation.session.extensions = later
            conversation.send(b"EHLO again.example\r\n", b"AUTH PLAIN AGEAYg==\r\n")
            self.assertEqual(conversation.rejected, [("AUTH", 503, "5.5.1")])

    def test_a_response_line_past_its_limit_ends_the_exchange(self):
        # RFC 4954 section 4 and 6
        for pieces in ([b"A" * 12287 + b"\r\n"], [b"A" * 10_000] * 50 + [b"\r\n"]):
            conversation = Conversation(limits=SessionLimits()).say_hello()
            conversation.send(b"AUTH LOGIN\r\n", *pieces, b"NOOP\r\n")
            self.assertEqual(conversation.rejected, [("AUTH", 500, "5.5.6")])
            self.assertEqual(conversation.codes, [334, 500, 250])

    def test_the_longest_response_line(self):
        conversation = Conversation().say_hello()
        conversation.send(b"AUTH LOGIN\r\n" + b"A" * 12284 + b"\r\n")
        self.assertEqual(conversation.codes, [334, 235])

    def test_nothing_but_334_235_or_a_refusal_is_an_answer(self):
        conversation = Conversation(answer=lambda event: None if isinstance(event, Authenticate) else OK).say_hello()
        conversation.send(b"AUTH LOGIN\r\n")
        for reply in (OK, Reply.of(354, "", "Go on")):
            self.assertRaises(LocalProtocolError, conversation.session.reply, reply)
        conversation.session.reply(LOGGED_IN)
        self.assertEqual(conversation.session.data_to_send(), b"235 2.7.0 Welcome\r\n")

    def test_auth_at_mail_is_taken_where_auth_is_offered_or_done(self):
        # RFC 4954 section 5
        for extensions, code in ((EVERYTHING, 250), (Extensions(), 555)):
            conversation = Conversation(extensions=extensions).say_hello()
            conversation.send(b"MAIL FROM:<a@b.example> AUTH=c@d.example\r\n")
            self.assertEqual(conversation.codes, [code])
            # What claims nothing comes from many, whatever was offered.
            conversation = Conversation(extensions=extensions).say_hello()
            conversation.send(b"MAIL FROM:<a@b.example> AUTH=<>\r\n")
            self.assertEqual(conversation.codes, [250])
        conversation = Conversation().say_hello()
        conversation.send(b"AUTH PLAIN AGEAYg==\r\n")
        conversation.session.extensions = Extensions()
        conversation.send(b"MAIL FROM:<a@b.example> AUTH=c@d.example\r\n")
        self.assertIsInstance(conversation.events[-1], Mail)

    def test_blanks_behind_base64_are_tolerated(self):
        conversation = Conversation().say_hello()
        conversation.send(b"AUTH  LOGIN \r\n", b"YWJj \t\r\n")
        self.assertEqual(conversation.events, [Authenticate("LOGIN", None), AuthResponse(b"abc")])
        conversation = Conversation().say_hello()
        conversation.send(b"AUTH PLAIN  YQ== \r\n")
        self.assertEqual(conversation.events, [Authenticate("PLAIN", b"a")])
        conversation = Conversation().say_hello()
        conversation.send(b"AUTH LOGIN\r\n", b"* \r\n")
        self.assertEqual(conversation.codes, [334, 501])
        conversation = Conversation().say_hello()
        conversation.send(b"AUTH LOGIN\r\n", b"YW Jj\r\n")
        self.assertEqual(conversation.rejected, [("AUTH", 501, "5.5.2")])
