"""REQUIRETLS (RFC 8689 section 2) as a word of MAIL."""

from __future__ import annotations

from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from mailserver.smtp.events import Mail
from tests.smtp.server.conversation import EVERYTHING, Conversation

OFFERED = replace(EVERYTHING, requiretls=True)


class RequireTLS(SynchronousTestCase):
    def test_it_is_a_word_of_mail_without_a_value_where_it_is_offered(self) -> None:
        conversation = Conversation(extensions=OFFERED)
        self.assertIn(b"250-REQUIRETLS\r\n", conversation.send(b"EHLO c.example\r\n"))
        for words, code in (
            (b"REQUIRETLS=", b"501"), (b"REQUIRETLS=1", b"501"), (b"REQUIRETLS REQUIRETLS", b"501"), (b"requiretls", b"250"),
        ):  # fmt: skip
            self.assertEqual(conversation.send(b"MAIL FROM:<s@c.example> " + words + b"\r\n")[:3], code, words)
        self.assertTrue(next(event for event in conversation.events if isinstance(event, Mail)).parameters.requiretls)

    def test_elsewhere_it_is_an_unknown_word(self) -> None:
        conversation = Conversation()
        self.assertNotIn(b"REQUIRETLS", conversation.send(b"EHLO c.example\r\n"))
        self.assertEqual(conversation.send(b"MAIL FROM:<s@c.example> REQUIRETLS\r\n")[:3], b"555")
