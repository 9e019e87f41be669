"""PRDR (draft-hall-prdr): a reply for each recipient after the data, where they differ."""

from __future__ import annotations

from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from mailserver.mail.reply import Reply
from mailserver.smtp.events import EndOfData, Event, Mail
from mailserver.smtp.faults import LocalProtocolError
from mailserver.smtp.server.session import SessionLimits
from mailserver.smtp.server.states import State
from tests.smtp.server.conversation import EVERYTHING, NO, OK, Conversation, friendly

OFFERED = replace(EVERYTHING, prdr=True)
LATER = Reply.of(450, "4.7.1", "Later")


def leave_the_end_open(event: Event) -> Reply | None:
    return None if isinstance(event, EndOfData) else friendly(event)


class PRDR(SynchronousTestCase):
    def begun(self, parameter: bytes = b" PRDR", data: bytes = b"DATA\r\na\r\n.\r\nNOOP\r\n", **more: object) -> Conversation:
        conversation = Conversation(extensions=OFFERED, answer=leave_the_end_open, **more)  # type: ignore[arg-type]
        conversation.send(b"EHLO c.example\r\nMAIL FROM:<s@c.example>" + parameter + b"\r\n")
        conversation.send(b"RCPT TO:<a@example.org>\r\nRCPT TO:<b@example.org>\r\n" + data)
        conversation.said = b""
        return conversation

    def test_it_is_a_word_of_mail_without_a_value_where_it_is_offered(self) -> None:
        conversation = Conversation(extensions=OFFERED)
        self.assertIn(b"250-PRDR\r\n", conversation.send(b"EHLO c.example\r\n"))
        for words, code in ((b"PRDR=", b"501"), (b"PRDR=1", b"501"), (b"PRDR PRDR", b"501"), (b"prdr", b"250")):
            self.assertEqual(conversation.send(b"MAIL FROM:<s@c.example> " + words + b"\r\n")[:3], code, words)
        self.assertTrue(next(event for event in conversation.events if isinstance(event, Mail)).parameters.prdr)
        self.assertIn(b"555", Conversation().send(b"EHLO c.example\r\n", b"MAIL FROM:<s@c.example> PRDR\r\n"))

    def test_353_then_one_for_each_then_one_for_all_then_the_next_command(self) -> None:
        conversation = self.begun()
        conversation.session.reply_each([OK, NO], OK)
        conversation.take()
        self.assertEqual(conversation.codes, [353, 250, 550, 250, 250])
        self.assertIs(conversation.session.state, State.READY)

    def test_where_they_agree_one_reply_is_enough(self) -> None:
        conversation = self.begun()
        conversation.session.reply(NO)
        conversation.take()
        self.assertEqual(conversation.codes, [550, 250])

    def test_so_it_is_after_bdat_and_a_fault_before_last_has_one(self) -> None:
        conversation = self.begun(data=b"BDAT 2 LAST\r\n\r\n")
        conversation.session.reply_each([LATER, NO], LATER)
        conversation.take()
        self.assertEqual(conversation.codes, [353, 450, 550, 450])
        conversation = self.begun(data=b"BDAT 5\r\nabcde", limits=SessionLimits(message_octets=3))
        conversation.session.reply_each([NO, NO], NO)
        conversation.take()
        self.assertEqual(conversation.codes, [550])

    def test_what_was_not_asked_for_is_misuse_and_changes_nothing(self) -> None:
        conversation = self.begun(b"")
        for answers, overall in (([OK, NO], OK), ([OK, NO], None)):
            self.assertRaises(LocalProtocolError, conversation.session.reply_each, answers, overall)
        conversation.session.reply(OK)
        asked = self.begun()
        for answers, overall in (([OK], OK), ([OK, NO], None), ([OK, Reply.of(354, "", "go")], OK)):
            self.assertRaises(LocalProtocolError, asked.session.reply_each, answers, overall)
        asked.session.reply_each([OK, NO], OK)
