"""What the end of a transaction means: every combination."""

from twisted.trial.unittest import SynchronousTestCase

from mailserver.mail.address import Address
from mailserver.mail.answers import Delayed, Delivered, Failed
from mailserver.mail.content import Content
from mailserver.mail.envelope import Recipient
from mailserver.mail.reply import Reply
from mailserver.relay.conclusions import TLSRefusal
from mailserver.relay.pool import Key
from mailserver.relay.security import Barred, Demand, TLSMode, TLSOutcome
from mailserver.relay.transmission import LACKS_REQUIRETLS, Meaning, Target, Transmission, meaning_of, told
from mailserver.smtp.client.dialogue import Dialogue
from mailserver.smtp.client.events import Done
from mailserver.smtp.client.request import Request

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


class LastWords(SynchronousTestCase):
    """What is said when no host is left."""

    def last_word(self, faults, *, barred=(), require_tls=False):
        targets = [Target(f"mx{n}.example.org", Key("192.0.2.1", 25 + n, "x"), Demand(TLSMode.REQUIRED)) for n in range(len(faults))]
        sent_to = (Recipient(Address("user", "example.org")),)
        request = Request(Address("a", "example.net"), sent_to, 1, require_tls=require_tls)
        transmission = Transmission(request, Content.of(b"x"), (0,), targets, lambda *_: None, lambda: None, barred=barred)
        for fault in faults:
            transmission.fault(fault)
            transmission.place += 1
        word = transmission.last_word()
        return type(word), word.reply.enhanced

    def test_a_message_with_requiretls_goes_back_where_each_host_has_shown_that_it_does_not_meet_it(self):
        # RFC 8689 section 4.2.1.
        no_tls = TLSRefusal.of(451, "4.7.4", "TLS is demanded: STARTTLS is not offered")
        dead = Reply.of(451, "4.4.1", "No connection")
        never, later = Barred("no DNSSEC", TLSOutcome.DANE_REQUIRED, True), Barred("SERVFAIL", TLSOutcome.DNSSEC_INVALID)
        for faults, barred, word in (
            ((no_tls,), (), (Failed, "5.7.10")),
            ((LACKS_REQUIRETLS,), (), (Failed, "5.7.30")),
            ((LACKS_REQUIRETLS, no_tls), (never,), (Failed, "5.7.30")),
            ((), (never,), (Failed, "5.7.10")),
            ((), (never, later), (Delayed, "4.7.5")),
            ((no_tls, dead), (), (Delayed, "4.4.1")),  # the other one may come back
            ((no_tls,), (later,), (Delayed, "4.7.4")),
            ((), (), (Delayed, "4.4.4")),
        ):
            self.assertEqual(self.last_word(faults, barred=barred, require_tls=True), word, (faults, barred))

    def test_any_other_message_waits(self):
        for faults, barred, enhanced in (
            ((TLSRefusal.of(451, "4.7.5", "x"),), (), "4.7.5"), ((), (Barred("x", TLSOutcome.DANE_REQUIRED, True),), "4.7.5"),
            ((), (), "4.4.4"),
        ):  # fmt: skip
            self.assertEqual(self.last_word(faults, barred=barred), (Delayed, enhanced))


class Notes(SynchronousTestCase):
    def test_the_hosts_words_are_told_from_ours(self):
        outcomes = (Delivered("250 Ok"), Failed(NO, phase="RCPT"), Failed(NO, "not sent"), Delayed(BUSY))
        found = told(Done(outcomes, OK, OK), host="mx.example", note="here", dialogue=Dialogue())
        self.assertEqual([one.peer for one in found], ["mx.example", "mx.example", "", ""])
        self.assertEqual([one.note for one in found], ["250 Ok; here", "here", "not sent; here", "here"])

    def test_a_note_is_bounded(self):
        (found,) = told(Done((Delivered("x" * 5000),), OK, OK), host="mx.example", note="here", dialogue=Dialogue())
        self.assertEqual(len(found.note), 800)
