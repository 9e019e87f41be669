"""PRDR (draft-hall-prdr) from the client's side: whoever refuses the content refuses it for himself alone."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mailserver.smtp.client.session import UNCERTAIN
from tests.smtp.client.client_talk import CONTENT, Talk

EHLO = b"250-mx.example.org\r\n250-PIPELINING\r\n250-DSN\r\n250 PRDR\r\n"
LET_IN = b"250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n"


class PRDR(SynchronousTestCase):
    def asked(self, *answers: bytes, ehlo: bytes = EHLO) -> Talk:
        talk = Talk().ready(ehlo)
        self.assertIn(b" PRDR\r\n", talk.send("a", "b", envid="x"))
        talk.hear(LET_IN, *answers)
        return talk

    def test_it_is_asked_for_where_it_is_offered_and_there_are_several(self) -> None:
        self.assertNotIn(b"PRDR", Talk().ready(EHLO).send("a"))
        self.assertNotIn(b"PRDR", Talk().ready().send("a", "b"))
        self.assertNotIn(b"PRDR", Talk(lmtp=True).ready(EHLO).send("a", "b"))

    def test_each_has_his_own_answer(self) -> None:
        for pieces in ((b"353 go\r\n250 a\r\n550 b\r\n250 some\r\n",), (b"353 go\r\n", b"250 a\r\n", b"550 b\r\n", b"250 some\r\n")):
            talk = self.asked(*pieces)
            self.assertEqual(talk.verdicts, ["ok", "never 550"])
            self.assertTrue(talk.session.is_ready)

    def test_a_host_that_has_one_answer_for_all_may_say_it(self) -> None:
        for answer, verdict in ((b"250 ok\r\n", "ok"), (b"550 no\r\n", "never 550"), (b"451 later\r\n", "later 451")):
            self.assertEqual(self.asked(answer).verdicts, [verdict] * 2)

    def test_a_no_for_the_whole_is_one_for_whoever_had_a_yes_and_a_later_never_becomes_a_no(self) -> None:
        for overall, verdicts in ((b"451 disk\r\n", ["later 451", "never 550"]), (b"554 none\r\n", ["never 554", "never 550"])):
            self.assertEqual(self.asked(b"353 go\r\n250 a\r\n550 b\r\n", overall).verdicts, verdicts)
        self.assertEqual(self.asked(b"353 go\r\n450 a\r\n550 b\r\n554 none\r\n").verdicts, ["later 450", "never 550"])

    def test_a_connection_that_is_lost_before_the_last_answer_leaves_all_uncertain(self) -> None:
        for said in (b"", b"353 go\r\n", b"353 go\r\n250 a\r\n550 b\r\n"):
            talk = self.asked(said)
            talk.eof()
            self.assertEqual([(outcome.note) for outcome in talk.done.outcomes], [UNCERTAIN] * 2, said)

    def test_353_is_no_answer_where_it_was_not_asked_for_nor_twice(self) -> None:
        talk = Talk().ready()
        talk.send("a", "b")
        talk.hear(LET_IN, b"353 go\r\n250 a\r\n")
        self.assertEqual(talk.verdicts, ["later 451"] * 2)
        self.assertEqual(self.asked(b"353 go\r\n353 go\r\n").verdicts, ["later 451"] * 2)

    def test_refused_recipients_have_no_answer_after_the_data(self) -> None:
        talk = Talk().ready(EHLO)
        talk.send("a", "b", "c")
        talk.hear(b"250 ok\r\n250 ok\r\n550 no\r\n250 ok\r\n354 go\r\n", b"353 go\r\n450 a\r\n250 c\r\n250 some\r\n")
        self.assertEqual(talk.verdicts, ["later 450", "never 550", "ok"])
        talk.forget()
        self.assertIn(b"MAIL", talk.send("a", content=CONTENT))
