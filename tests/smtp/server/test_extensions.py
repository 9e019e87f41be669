"""What EHLO announces (RFC 5321 section 4.1.1.1)."""

from twisted.trial.unittest import SynchronousTestCase

from mailserver.smtp.server.extensions import Extensions
from tests.smtp.server.conversation import NO, Conversation


class ExtensionsTests(SynchronousTestCase):
    def test_all_of_them(self):
        offered = Extensions(size=99, starttls=True, auth=("PLAIN", "LOGIN"), recipients_max=50, mail_max=7)
        self.assertEqual(
            Conversation(extensions=offered).send(b"EHLO c.example\r\n"),
            b"250-mx.example.org\r\n250-PIPELINING\r\n250-SIZE 99\r\n250-8BITMIME\r\n250-STARTTLS\r\n250-AUTH PLAIN LOGIN\r\n"
            b"250-ENHANCEDSTATUSCODES\r\n250-SMTPUTF8\r\n250-CHUNKING\r\n250-BINARYMIME\r\n250-DSN\r\n"
            b"250 LIMITS RCPTMAX=50 MAILMAX=7\r\n",
        )

    def test_none_of_them(self):
        nothing = Extensions(
            pipelining=False, eightbitmime=False, smtputf8=False, chunking=False, binarymime=False, dsn=False, enhancedstatuscodes=False
        )
        conversation = Conversation(extensions=nothing)
        self.assertEqual(conversation.send(b"EHLO c.example\r\n"), b"250 mx.example.org\r\n")
        self.assertEqual(conversation.send(b"NOOP\r\n"), b"250 OK\r\n", "no enhanced code where they are not offered")
        self.assertEqual(conversation.send(b"BDAT 3\r\nabc"), b"503 MAIL comes first\r\n")

    def test_limits_holds_only_what_is_limited(self):
        # RFC 9422 section 3
        self.assertEqual(Extensions(mail_max=3).lines[-1], "LIMITS MAILMAX=3")
        self.assertEqual(Extensions(recipients_max=3).lines[-1], "LIMITS RCPTMAX=3")
        self.assertNotIn("LIMITS", " ".join(Extensions().lines))

    def test_helo_announces_nothing(self):
        self.assertEqual(Conversation().send(b"HELO c.example\r\n"), b"250 mx.example.org\r\n")

    def test_extensions_that_need_another_are_refused_without_it(self):
        self.assertRaises(ValueError, Extensions, eightbitmime=False)
        self.assertRaises(ValueError, Extensions, chunking=False)

    def test_a_refused_hello_has_no_enhanced_code_and_leaves_a_stranger(self):
        conversation = Conversation(answer=lambda event: NO)
        self.assertEqual(conversation.send(b"EHLO c.example\r\n"), b"550 No\r\n")
        self.assertEqual(conversation.send(b"MAIL FROM:<a@b.example>\r\n"), b"503 5.5.1 Say hello first\r\n")

    def test_other_extensions_hold_from_the_next_command_on(self):
        conversation = Conversation(extensions=Extensions()).say_hello()
        conversation.session.extensions = Extensions(size=5, auth=("PLAIN",))
        self.assertIn(b"AUTH PLAIN", conversation.send(b"EHLO c.example\r\n"))
