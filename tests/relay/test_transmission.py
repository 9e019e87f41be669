"""What the end of a transaction means: every combination."""

from twisted.trial.unittest import SynchronousTestCase

from mailserver.mail.answers import Delayed, Delivered, Failed
from mailserver.mail.reply import Reply
from mailserver.relay.transmission import Meaning, meaning_of, told
from mailserver.smtp.client.dialogue import Dialogue
from mailserver.smtp.client.events import Done

OK = Reply.of(250, "2.1.0", "Ok")
BUSY = Reply.of(451, "4.3.0", "Busy")
NO = Reply.of(550, "5.7.1", "No")
LEAVING = Reply.of(421, "4.3.2", "Leaving")


class Meanings(SynchronousTestCase):
    def meanings(self, **facts):
        return [meaning_of(sender_reply=reply, **facts) for reply in (None, OK, BUSY, NO, LEAVING)]

    def test_once_the_content_is_sent_nobody_else_gets_it(self):
        for lost in (True, False):
            for reused in (True, False):
                found = self.meanings(connection_lost=lost, reused=reused, content_sent=True)
                self.assertEqual(set(found), {Meaning.SETTLED})

    def test_on_a_connection_that_goes_on_a_4yz_to_mail_alone_sends_it_elsewhere(self):
        for reused in (True, False):
            found = self.meanings(connection_lost=False, reused=reused, content_sent=False)
            settled, elsewhere = Meaning.SETTLED, Meaning.ELSEWHERE
            self.assertEqual(found, [settled, settled, elsewhere, settled, elsewhere])

    def test_a_reused_connection_lost_before_mail_was_answered_was_stale(self):
        found = self.meanings(connection_lost=True, reused=True, content_sent=False)
        stale, elsewhere = Meaning.STALE, Meaning.ELSEWHERE
        self.assertEqual(found, [stale, elsewhere, elsewhere, elsewhere, stale])

    def test_a_new_connection_is_never_stale(self):
        found = self.meanings(connection_lost=True, reused=False, content_sent=False)
        self.assertEqual(set(found), {Meaning.ELSEWHERE})


class Notes(SynchronousTestCase):
    def test_the_hosts_words_are_told_from_ours(self):
        outcomes = (Delivered("250 Ok"), Failed(NO, phase="RCPT"), Failed(NO, "not sent"), Delayed(BUSY))
        found = told(Done(outcomes, OK, OK), host="mx.example", note="here", dialogue=Dialogue())
        self.assertEqual([one.peer for one in found], ["mx.example", "mx.example", "", ""])
        self.assertEqual([one.note for one in found], ["250 Ok; here", "here", "not sent; here", "here"])

    def test_a_note_is_bounded(self):
        (found,) = told(Done((Delivered("x" * 5000),), OK, OK), host="mx.example", note="here", dialogue=Dialogue())
        self.assertEqual(len(found.note), 800)
