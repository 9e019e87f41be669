"""One list of verbs and codes: the state tables are made of it, and the catalogue of replies says no other."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mailserver.mail.reply import Reply
from mailserver.smtp import replies
from mailserver.smtp.client.states import Command
from mailserver.smtp.server.states import Input
from mailserver.smtp.vocabulary import REPLY_CODE_DESCRIPTIONS, CommandVerb, ReplyCode, reply_code_description


class Vocabulary(SynchronousTestCase):
    def test_the_servers_verbs_and_the_clients_are_of_the_list(self) -> None:
        for member in [*Input, *Command]:
            if member.value.isupper():
                self.assertIn(member.value, CommandVerb.__members__)
        for text in (replies.HELP_SMTP.lines[0], replies.HELP_LMTP.lines[0]):
            self.assertLessEqual(set(text.split()), set(CommandVerb.__members__))

    def test_a_verb_is_its_name(self) -> None:
        self.assertEqual([one.value for one in CommandVerb], list(CommandVerb.__members__))

    def test_every_code_has_a_description_of_its_own_place(self) -> None:
        self.assertEqual(set(REPLY_CODE_DESCRIPTIONS), set(ReplyCode))
        for text in REPLY_CODE_DESCRIPTIONS.values():
            self.assertTrue(text.isprintable() and text[0].isupper() and not text.endswith("."), text)

    def test_every_reply_of_the_catalogue_has_a_code_of_the_list(self) -> None:
        said = {value.code for value in vars(replies).values() if isinstance(value, Reply)}
        self.assertGreater(len(said), 20)
        self.assertEqual({code for code in said if code not in REPLY_CODE_DESCRIPTIONS}, set())

    def test_a_code_of_no_list_is_told_by_its_first_digit(self) -> None:
        self.assertEqual(reply_code_description(571), "A code of no list: refused")
        self.assertEqual(reply_code_description(299), "A code of no list: done")
        for code in (-1, 0, 199, 600, 10**30):
            self.assertEqual(reply_code_description(code), "Not a reply code of SMTP")
