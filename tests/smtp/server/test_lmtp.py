"""LMTP (RFC 2033)."""

from twisted.trial.unittest import SynchronousTestCase

from mailserver.mail.reply import Reply
from mailserver.smtp.events import Data, EndOfData, Event, Rcpt
from mailserver.smtp.server.session import LocalProtocolError, SessionLimits
from mailserver.smtp.server.states import State
from tests.smtp.server.conversation import NO, OK, Conversation, friendly


def leave_the_end_open(event: Event) -> Reply | None:
    return None if isinstance(event, EndOfData) else friendly(event)


class LmtpTests(SynchronousTestCase):
    def test_only_lhlo_is_a_greeting(self):
        # RFC 2033 section 4.1
        conversation = Conversation(lmtp=True)
        conversation.send(b"EHLO a.example\r\nHELO a.example\r\n")
        self.assertEqual(conversation.codes, [500, 500])
        self.assertTrue(conversation.send(b"LHLO a.example\r\n").startswith(b"250-mx.example.org\r\n250-PIPELINING\r\n"))

    def test_one_reply_for_each_accepted_recipient_in_order(self):
        # RFC 2033 section 4.2
        conversation = Conversation(lmtp=True, answer=leave_the_end_open).address(3)
        conversation.send(b"DATA\r\n", b"a\r\n.\r\nNOOP\r\n")
        self.assertEqual(conversation.said, b"354 Go on\r\n")
        conversation.session.reply_each([OK, NO, OK])
        conversation.take()
        self.assertEqual(conversation.codes, [354, 250, 550, 250, 250])
        self.assertIs(conversation.session.state, State.READY)

    def test_the_same_reply_for_all(self):
        conversation = Conversation(lmtp=True).address(3)
        conversation.send(b"DATA\r\n", b"a\r\n.\r\n")
        self.assertEqual(conversation.codes, [354, 250, 250, 250])

    def test_refused_recipients_have_no_reply_at_the_end(self):
        def answer(event: Event) -> Reply:
            return NO if isinstance(event, Rcpt) and event.address.local == "u1" else friendly(event)

        conversation = Conversation(lmtp=True, answer=answer).address(3)
        conversation.send(b"DATA\r\n", b"a\r\n.\r\n")
        self.assertEqual(conversation.codes, [354, 250, 250])

    def test_data_without_a_recipient_is_503(self):
        # RFC 2033 section 4.2
        conversation = Conversation(lmtp=True).say_hello()
        conversation.send(b"MAIL FROM:<a@b.example>\r\n")
        conversation.send(b"DATA\r\n")
        self.assertEqual(conversation.rejected, [("DATA", 503, "5.5.1")])

    def test_a_wrong_number_of_replies_is_misuse_and_changes_nothing(self):
        conversation = Conversation(lmtp=True, answer=leave_the_end_open).address(2)
        conversation.send(b"DATA\r\n", b"a\r\n.\r\n")
        self.assertRaises(LocalProtocolError, conversation.session.reply_each, [OK])
        conversation.session.reply_each([OK, OK])
        conversation.take()
        self.assertEqual(conversation.codes, [354, 250, 250])

    def test_bdat_has_one_reply_for_a_part_and_one_for_each_recipient_at_last(self):
        conversation = Conversation(lmtp=True).address(2)
        conversation.send(b"BDAT 2\r\nab")
        self.assertEqual(conversation.codes, [250])
        conversation.send(b"BDAT 2 LAST\r\n\r\n")
        self.assertEqual(conversation.codes, [250, 250, 250])

    def test_a_refused_bdat_last_has_one_reply_for_each_recipient_too(self):
        def answer(event: Event) -> Reply:
            return NO if isinstance(event, Data) else friendly(event)

        for line, codes in ((b"BDAT 2 LAST\r\nab", [550, 550]), (b"BDAT 2\r\nab", [550])):
            conversation = Conversation(lmtp=True, answer=answer).address(2)
            conversation.send(line)
            self.assertEqual(conversation.codes, codes, line)

    def test_a_fault_before_last_has_one_reply(self):
        conversation = Conversation(lmtp=True, limits=SessionLimits(message_octets=3), answer=leave_the_end_open).address(2)
        conversation.send(b"BDAT 5\r\nabcde")
        conversation.session.reply_each([NO, NO])
        conversation.take()
        self.assertEqual(conversation.codes, [550])

    def test_help_names_lhlo(self):
        self.assertIn(b"LHLO", Conversation(lmtp=True).send(b"HELP\r\n"))
