"""The client with scripted peers: greetings, extensions, envelopes, outcomes, and every way to end."""

from twisted.trial.unittest import SynchronousTestCase

from mailserver.mail.answers import Delayed, Delivered, Failed
from mailserver.mail.reply import Reply
from mailserver.smtp.client.events import (
    Broken,
    Closing,
    Done,
    Greeted,
    Lost,
    Ready,
    ReadyForTLS,
    Refused,
    SendContent,
    TLSRefused,
)
from mailserver.smtp.client.offer import Offer
from mailserver.smtp.client.session import UNCERTAIN, ClientLimits, ClientSession, LocalProtocolError, Phase
from mailserver.smtp.events import Wait
from tests.smtp.client.client_talk import CONTENT, EHLO_LOCK_STEP, EHLO_PIPELINING, STUFFED, Talk, request

GREETING = b"220 mx.example.org ESMTP\r\n"
MAIL = b"MAIL FROM:<s@client.example>\r\n"
EHLO_LMTP = b"250-mx.example.org\r\n250 PIPELINING\r\n"


def rcpt(name: str) -> bytes:
    return b"RCPT TO:<%s@example.org>\r\n" % name.encode()


def kinds(talk: Talk) -> list[str]:
    return [type(event).__name__ for event in talk.events]


class HelloTests(SynchronousTestCase):
    def test_ehlo_follows_the_greeting(self):
        talk = Talk()
        self.assertIs(talk.session.phase, Phase.GREETING)
        self.assertEqual(talk.hear(GREETING), b"EHLO client.example\r\n")
        self.assertEqual(talk.events, [Greeted(Reply.of(220, "", "mx.example.org ESMTP"))])
        self.assertIs(talk.session.phase, Phase.HELLO)
        self.assertIs(talk.wait, Wait.NEED_DATA)
        self.assertEqual(talk.hear(EHLO_PIPELINING), b"")
        self.assertEqual(talk.events[1], Ready(Offer(host="mx.example.org", extended=True, pipelining=True, eightbitmime=True)))
        self.assertIs(talk.session.phase, Phase.IDLE)
        self.assertTrue(talk.session.is_ready)

    def test_a_greeting_may_have_several_lines(self):
        self.assertEqual(Talk().hear(b"220-mx\r\n220-no spam\r\n", b"220\r\n"), b"EHLO client.example\r\n")

    def test_a_greeting_that_refuses(self):
        # RFC 5321 section 3.1; RFC 7504.
        for code in (554, 521, 450):
            talk = Talk()
            self.assertEqual(talk.hear(b"%d no\r\n" % code), b"")
            self.assertEqual(talk.events, [Refused(Reply.of(code, "", "no"))])
            self.assertIs(talk.session.phase, Phase.GREETING)
            talk.session.quit()
            talk.take()
            self.assertEqual(talk.written, b"QUIT\r\n")
            talk.hear(b"221 bye\r\n")
            self.assertIs(talk.wait, Wait.CLOSED)
            self.assertEqual(len(talk.events), 1)

    def test_a_greeting_that_is_none(self):
        for octets in (b"SSH-2.0-OpenSSH\r\n", b"250 ok\r\n", b"354 go\r\n", b"HTTP/1.1 400 Bad Request\r\n"):
            talk = Talk()
            self.assertEqual(talk.hear(octets), b"")
            self.assertEqual(kinds(talk), ["Broken"])
            self.assertIs(talk.events[0].phase, Phase.GREETING)
            self.assertIs(talk.wait, Wait.CLOSED)

    def test_helo_where_ehlo_is_not_known(self):
        # RFC 5321 section 3.2.
        for code in (500, 501, 502, 504):
            talk = Talk()
            talk.hear(GREETING)
            self.assertEqual(talk.hear(b"%d what\r\n" % code), b"HELO client.example\r\n")
            self.assertIs(talk.session.phase, Phase.HELLO)
            talk.hear(b"250 old.example.org\r\n")
            self.assertEqual(talk.events[-1], Ready(Offer(host="old.example.org")))

    def test_ehlo_that_is_refused_for_another_reason(self):
        for code in (550, 554, 503, 450):
            talk = Talk()
            self.assertEqual(talk.hear(GREETING, b"%d no\r\n" % code), b"EHLO client.example\r\n")
            self.assertEqual(talk.events[-1], Refused(Reply.of(code, "", "no")))
            self.assertIs(talk.session.phase, Phase.HELLO)
            talk.eof()
            self.assertEqual(len(talk.events), 2)
            self.assertIs(talk.wait, Wait.CLOSED)

    def test_helo_after_550_and_554_for_callers_who_can_do_without_extensions(self):
        for code in (550, 554):
            talk = Talk(helo_after_refusal=True)
            self.assertEqual(talk.hear(GREETING, b"%d what\r\n" % code), b"EHLO client.example\r\nHELO client.example\r\n")
            talk.hear(b"250 old.example.org\r\n")
            self.assertEqual(talk.events[-1], Ready(Offer(host="old.example.org")))
        for code in (421, 450, 503, 552):
            talk = Talk(helo_after_refusal=True)
            self.assertNotIn(b"HELO", talk.hear(GREETING, b"%d no\r\n" % code))
        talk = Talk(helo_after_refusal=True, is_encrypted=True)
        self.assertNotIn(b"HELO", talk.hear(GREETING, b"550 no\r\n"))

    def test_helo_is_never_said_where_extensions_are_needed(self):
        for code in (500, 501, 502, 504, 550, 554):
            talk = Talk(needs_extensions=True)
            self.assertEqual(talk.hear(GREETING, b"%d what\r\n" % code), b"EHLO client.example\r\n")
            self.assertEqual(kinds(talk), ["Greeted", "Refused"])

    def test_helo_that_is_refused(self):
        talk = Talk()
        talk.hear(GREETING, b"502 no\r\n", b"502 no\r\n")
        self.assertEqual(kinds(talk), ["Greeted", "Refused"])

    def test_lmtp_says_lhlo_and_knows_no_helo(self):
        # RFC 2033 section 4.1.
        talk = Talk(lmtp=True)
        self.assertEqual(talk.hear(GREETING), b"LHLO client.example\r\n")
        self.assertEqual(talk.hear(b"500 no\r\n"), b"")
        self.assertEqual(kinds(talk), ["Greeted", "Refused"])

    def test_an_answer_to_ehlo_that_is_none(self):
        for octets in (b"354 go\r\n", b"220 again\r\n", b"251 x\r\n"):
            talk = Talk()
            talk.hear(GREETING, octets)
            self.assertEqual(kinds(talk), ["Greeted", "Broken"])

    def test_a_name_that_cannot_be_said_is_refused(self):
        for name in ("", "a b", "a\r\nQUIT", "ü.example", "x" * 256):
            self.assertRaises(ValueError, ClientSession, hello_name=name)


class TLSTests(SynchronousTestCase):
    EHLO = b"250-mx.example.org\r\n250-PIPELINING\r\n250 STARTTLS\r\n"

    def secure(self) -> Talk:
        talk = Talk().ready(self.EHLO)
        talk.session.start_tls()
        talk.take()
        return talk

    def test_the_handshake_is_the_callers_and_ehlo_comes_again(self):
        talk = self.secure()
        self.assertEqual(talk.written, b"STARTTLS\r\n")
        self.assertIs(talk.session.phase, Phase.TLS)
        self.assertEqual(talk.hear(b"220 go\r\n"), b"")
        self.assertEqual(talk.events, [ReadyForTLS()])
        self.assertIs(talk.wait, Wait.PAUSED)
        self.assertIs(talk.session.phase, Phase.TLS)
        talk.session.tls_established()
        self.assertIsNone(talk.session.offer)
        self.assertEqual(talk.hear(EHLO_PIPELINING), b"EHLO client.example\r\n")
        self.assertTrue(talk.session.offer.pipelining)
        self.assertTrue(talk.session.is_encrypted)
        self.assertRaises(LocalProtocolError, talk.session.start_tls)

    def test_octets_in_the_clear_behind_the_220_end_the_session(self):
        """RFC 3207 section 5: an attacker's 250 for what is said under TLS."""
        for behind in (b"250-evil\r\n250 SIZE 1\r\n", b"2", b"\r\n", b"\n"):
            talk = self.secure()
            talk.hear(b"220 go\r\n" + behind)
            self.assertEqual((kinds(talk), talk.wait), (["Broken"], Wait.CLOSED), behind)
            talk = self.secure()
            talk.hear(b"220 go\r\n", behind)
            self.assertEqual((kinds(talk), talk.wait), (["ReadyForTLS", "Broken"], Wait.CLOSED), behind)

    def test_the_220_keeps_to_the_form(self):
        for answer in (b"220 go\n", b"220-go\r\n250 on\r\n", b"\r\n220 go\r\n"):
            talk = self.secure()
            talk.hear(answer)
            self.assertEqual(kinds(talk), ["Broken"], answer)

    def test_helo_does_not_follow_under_tls(self):
        talk = self.secure()
        talk.hear(b"220 go\r\n")
        talk.session.tls_established()
        talk.hear(b"502 no\r\n")
        self.assertIsInstance(talk.events[-1], Refused)
        self.assertNotIn(b"HELO", talk.written)

    def test_a_refusal_leaves_the_session_as_it_was(self):
        talk = self.secure()
        talk.hear(b"454 4.7.0 not now\r\n")
        self.assertEqual(talk.events, [TLSRefused(Reply.of(454, "4.7.0", "not now"))])
        self.assertTrue(talk.session.is_ready)
        self.assertIn(MAIL, talk.send())

    def test_an_answer_that_is_none(self):
        talk = self.secure()
        talk.hear(b"250 ok\r\n")
        self.assertEqual(kinds(talk), ["Broken"])

    def test_the_connection_ends_in_the_handshake(self):
        talk = self.secure()
        talk.hear(b"220 go\r\n")
        talk.eof()
        self.assertEqual(talk.events[1:], [Lost(Phase.TLS)])

    def test_it_must_be_offered(self):
        self.assertRaises(LocalProtocolError, Talk().ready().session.start_tls)
        self.assertRaises(LocalProtocolError, Talk(is_encrypted=True).ready(self.EHLO).session.start_tls)


class SloppyPeerTests(SynchronousTestCase):
    """Replies that break the form are understood while one answer is waited for, and such a peer is asked one thing at a time."""

    def deliver(self, *story: bytes) -> Talk:
        talk = Talk()
        talk.hear(story[0])
        talk.hear(story[1])
        talk.send()
        talk.hear(*story[2:])
        return talk

    def test_line_ends_that_are_lf(self):
        talk = self.deliver(b"220 x\n", b"250-x\n250 PIPELINING\n", *[b"250 ok\n"] * 2, b"354 go\n", b"250 ok\n")
        self.assertEqual(talk.verdicts, ["ok"])
        self.assertTrue(talk.session.is_ready)

    def test_two_codes_in_one_reply(self):
        talk = self.deliver(
            GREETING, EHLO_LOCK_STEP, b"250 ok\r\n", b"251-a\r\n250 b\r\n", b"354 go\r\n", b"250-a\r\n451 later\r\n"
        )
        self.assertEqual(talk.verdicts, ["later 451"])

    def test_empty_lines_behind_any_reply(self):
        story = [GREETING, EHLO_PIPELINING, b"250 ok\r\n", b"250 ok\r\n", b"354 go\r\n", b"250 ok\r\n"]
        for place in range(6):
            for blank in (b"\r\n", b"\n", b"\r\n\r\n"):
                heard = list(story)
                if place < 2:
                    heard[place] += blank
                else:
                    heard[1] = EHLO_LOCK_STEP
                    heard[place] += blank
                talk = self.deliver(*heard)
                self.assertEqual(talk.verdicts, ["ok"], (place, blank))

    def test_it_is_asked_one_thing_at_a_time_whatever_it_offers(self):
        talk = Talk()
        talk.hear(b"220 x\n", EHLO_PIPELINING)
        self.assertEqual(talk.send(), MAIL)

    def test_in_a_group_of_commands_the_form_is_kept(self):
        for answer in (b"250 ok\n", b"251-a\r\n250 b\r\n", b"\r\n250 ok\r\n"):
            talk = Talk().ready()
            talk.send("a", "b")
            talk.hear(b"250 ok\r\n", answer)
            self.assertEqual(talk.verdicts, ["later 451", "later 451"], answer)
            self.assertIsInstance(talk.events[-1], Broken)

    def test_a_second_reply_is_none_however_it_comes(self):
        talk = Talk().ready(EHLO_LOCK_STEP)
        talk.send()
        talk.hear(b"250 ok\n250 ok\n")
        self.assertEqual(talk.verdicts, ["later 451"])
        self.assertIsInstance(talk.events[-1], Broken)


class PipelinedTests(SynchronousTestCase):
    """RFC 2920: MAIL, RCPT and DATA leave in one write."""

    def test_a_message(self):
        talk = Talk().ready()
        self.assertEqual(talk.send("a", "b"), MAIL + rcpt("a") + rcpt("b") + b"DATA\r\n")
        self.assertIs(talk.session.phase, Phase.MAIL)
        self.assertEqual(talk.hear(b"250 ok\r\n"), b"")
        self.assertIs(talk.session.phase, Phase.RCPT)
        self.assertEqual(talk.hear(b"250 ok\r\n250 ok\r\n"), b"")
        self.assertIs(talk.session.phase, Phase.DATA)
        self.assertEqual(talk.hear(b"354 go\r\n"), STUFFED)
        self.assertEqual(talk.events, [SendContent()])
        self.assertIs(talk.session.phase, Phase.END)
        talk.hear(b"250 2.0.0 queued as 1\r\n")
        self.assertEqual(
            talk.done,
            Done((Delivered("250 2.0.0 queued as 1"),) * 2, Reply.of(250, "", "ok"), Reply.of(250, "2.0.0", "queued as 1")),
        )
        self.assertTrue(talk.session.is_ready)

    def test_the_next_message_needs_no_rset(self):
        talk = Talk().ready()
        for _ in range(3):
            talk.forget()
            self.assertEqual(talk.send(), MAIL + rcpt("a") + b"DATA\r\n")
            talk.hear(b"250 ok\r\n250 ok\r\n354 go\r\n", b"250 ok\r\n")
            self.assertEqual(talk.verdicts, ["ok"])

    def test_content_waits_for_the_caller(self):
        talk = Talk(streams=False).ready()
        talk.send()
        talk.hear(b"250 ok\r\n250 ok\r\n354 go\r\n")
        self.assertIs(talk.session.phase, Phase.CONTENT)
        self.assertIs(talk.wait, Wait.NEED_DATA)
        self.assertEqual(talk.session.content(b".a"), b"..a")
        self.assertEqual(talk.session.end_of_content(), b"\r\n.\r\n")
        self.assertEqual(talk.session.data_to_send(), b"")

    def test_some_recipients_are_refused(self):
        talk = Talk().ready()
        talk.send("a", "b", "c", "d")
        talk.hear(b"250 ok\r\n550-5.1.1 no\r\n550 5.1.1 such\r\n250 ok\r\n450 4.2.1 later\r\n251 elsewhere\r\n354 go\r\n", b"250 ok\r\n")
        self.assertEqual(talk.verdicts, ["never 550", "ok", "later 450", "ok"])
        self.assertEqual(talk.done.outcomes[0], Failed(Reply.of(550, "5.1.1", "no", "such"), phase="RCPT"))

    def test_content_that_is_refused_keeps_what_rcpt_said(self):
        for reply, word in ((b"554 5.7.1 spam\r\n", "never 554"), (b"451 4.3.0 later\r\n", "later 451")):
            talk = Talk().ready()
            talk.send("a", "b")
            talk.hear(b"250 ok\r\n550 no\r\n250 ok\r\n354 go\r\n", reply)
            self.assertEqual(talk.verdicts, ["never 550", word])
            self.assertEqual(talk.done.outcomes[1].phase, "END")
            self.assertTrue(talk.session.is_ready)

    def test_all_recipients_are_refused(self):
        talk = Talk().ready()
        talk.send("a", "b")
        self.assertEqual(talk.hear(b"250 ok\r\n550 no\r\n450 no\r\n554 no valid recipients\r\n"), b"")
        self.assertEqual(talk.verdicts, ["never 550", "later 450"])
        self.assertNotIn(SendContent(), talk.events)

    def test_an_empty_message_ends_a_data_that_was_taken_without_recipients(self):
        # RFC 2920 section 3.1.
        talk = Talk().ready()
        talk.send("a")
        self.assertEqual(talk.hear(b"250 ok\r\n550 no\r\n354 go\r\n"), b".\r\n")
        self.assertIs(talk.session.phase, Phase.END)
        self.assertEqual(kinds(talk), [])
        talk.hear(b"250 ok\r\n")
        self.assertEqual(talk.verdicts, ["never 550"])
        self.assertNotIn(b"RSET", talk.send())

    def test_the_end_of_that_empty_message_never_comes(self):
        talk = Talk().ready()
        talk.send("a")
        talk.hear(b"250 ok\r\n550 no\r\n354 go\r\n")
        talk.eof()
        self.assertEqual(talk.verdicts, ["never 550"])
        self.assertEqual(kinds(talk), ["Done", "Lost"])

    def test_a_refused_sender_refuses_all(self):
        for reply, word in ((b"550 5.7.1 no\r\n", "never 550"), (b"451 later\r\n", "later 451"), (b"552 5.3.4 big\r\n", "never 552")):
            talk = Talk().ready()
            talk.send("a", "b")
            talk.hear(reply, b"503 no\r\n503 no\r\n503 no\r\n")
            self.assertEqual(talk.verdicts, [word, word])
            self.assertEqual(talk.done.outcomes[0].phase, "MAIL")
            self.assertEqual(talk.done.sender_reply.code, int(reply[:3]))
            self.assertNotIn(b"RSET", talk.send())

    def test_a_refused_sender_and_data_taken_nevertheless(self):
        talk = Talk().ready()
        talk.send("a")
        self.assertEqual(talk.hear(b"550 no\r\n503 no\r\n354 go\r\n", b"554 no\r\n"), b".\r\n")
        self.assertEqual(talk.verdicts, ["never 550"])

    def test_a_recipient_without_a_sender_is_no_smtp(self):
        talk = Talk().ready()
        talk.send("a")
        self.assertEqual(talk.hear(b"550 no\r\n250 ok\r\n354 go\r\n"), b"")
        self.assertEqual(kinds(talk), ["Done", "Broken"])
        self.assertEqual(talk.verdicts, ["never 550"])

    def test_data_that_is_refused(self):
        talk = Talk().ready()
        talk.send("a", "b")
        self.assertEqual(talk.hear(b"250 ok\r\n250 ok\r\n550 no\r\n451 4.3.0 full\r\n"), b"")
        self.assertEqual(talk.verdicts, ["later 451", "never 550"])
        self.assertEqual(talk.done.outcomes[0].phase, "DATA")

    def test_rset_goes_in_front_of_the_next_message_where_the_last_one_came_to_nothing(self):
        for replies in (b"250 ok\r\n550 no\r\n554 no\r\n", b"250 ok\r\n250 ok\r\n451 no\r\n"):
            talk = Talk().ready()
            talk.send("a")
            talk.hear(replies)
            talk.forget()
            self.assertEqual(talk.send("b"), b"RSET\r\n" + MAIL + rcpt("b") + b"DATA\r\n")
            self.assertIs(talk.session.phase, Phase.RESET)
            talk.hear(b"250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n", b"250 ok\r\n")
            self.assertEqual(talk.verdicts, ["ok"])
            talk.forget()
            self.assertNotIn(b"RSET", talk.send("c"))

    def test_after_a_refused_sender_that_rset_has_done_its_work(self):
        talk = Talk().ready()
        talk.send("a")
        talk.hear(b"250 ok\r\n550 no\r\n554 no\r\n")
        talk.forget()
        talk.send("b")
        talk.hear(b"250 ok\r\n550 no\r\n503 no\r\n503 no\r\n")
        self.assertEqual(talk.verdicts, ["never 550"])
        self.assertNotIn(b"RSET", talk.send("c"))

    def test_that_rset_is_refused(self):
        talk = Talk().ready()
        talk.send("a")
        talk.hear(b"250 ok\r\n550 no\r\n554 no\r\n")
        talk.forget()
        talk.send("b")
        talk.hear(b"500 what\r\n")
        self.assertEqual(kinds(talk), ["Done", "Broken"])
        self.assertEqual(talk.verdicts, ["later 451"])

    def test_answers_that_cannot_be(self):
        for replies in (b"354 go\r\n", b"250 ok\r\n354 go\r\n", b"250 ok\r\n250 ok\r\n250 ok\r\n", b"250 ok\r\n250 ok\r\n334 x\r\n"):
            talk = Talk().ready()
            talk.send("a")
            self.assertEqual(talk.hear(replies), b"", replies)
            self.assertEqual(talk.verdicts, ["later 451"], replies)
            self.assertEqual(talk.done.outcomes[0].reply.enhanced, "4.5.0")
            self.assertEqual(kinds(talk), ["Done", "Broken"])
            self.assertIs(talk.wait, Wait.CLOSED)

    def test_354_to_the_content_is_no_answer(self):
        talk = Talk().ready()
        talk.send("a")
        talk.hear(b"250 ok\r\n250 ok\r\n354 go\r\n", b"354 go\r\n")
        self.assertEqual(kinds(talk), ["SendContent", "Done", "Broken"])
        self.assertEqual(talk.done.outcomes[0].note, UNCERTAIN)


class LockStepTests(SynchronousTestCase):
    """A peer that does not offer PIPELINING gets one command at a time."""

    def test_a_message(self):
        talk = Talk().ready(EHLO_LOCK_STEP)
        self.assertEqual(talk.send("a", "b"), MAIL)
        self.assertEqual(talk.hear(b"250 ok\r\n"), rcpt("a"))
        self.assertEqual(talk.hear(b"550 no\r\n"), rcpt("b"))
        self.assertEqual(talk.hear(b"250 ok\r\n"), b"DATA\r\n")
        self.assertIs(talk.session.phase, Phase.DATA)
        self.assertEqual(talk.hear(b"354 go\r\n"), STUFFED)
        talk.hear(b"250 ok\r\n")
        self.assertEqual(talk.verdicts, ["never 550", "ok"])

    def test_nothing_follows_a_refused_sender(self):
        talk = Talk().ready(EHLO_LOCK_STEP)
        talk.send("a", "b")
        self.assertEqual(talk.hear(b"550 no\r\n"), b"")
        self.assertEqual(talk.verdicts, ["never 550", "never 550"])

    def test_data_is_not_said_where_all_recipients_are_refused_and_rset_is_then(self):
        talk = Talk().ready(EHLO_LOCK_STEP)
        talk.send("a")
        self.assertEqual(talk.hear(b"250 ok\r\n", b"550 no\r\n"), rcpt("a"))
        self.assertEqual(talk.verdicts, ["never 550"])
        talk.forget()
        self.assertEqual(talk.send("b"), b"RSET\r\n")
        self.assertEqual(talk.hear(b"250 ok\r\n"), MAIL)

    def test_an_answer_too_many_ends_the_session(self):
        talk = Talk().ready(EHLO_LOCK_STEP)
        talk.send("a")
        self.assertEqual(talk.hear(b"250 ok\r\n250 ok\r\n"), b"")
        self.assertEqual(kinds(talk), ["Done", "Broken"])

    def test_helo_peers_get_no_parameters(self):
        talk = Talk()
        talk.hear(GREETING, b"502 no\r\n", b"250 old\r\n")
        self.assertEqual(talk.send("a", ret="FULL", envid="x"), MAIL)


class PartsTests(SynchronousTestCase):
    """Fewer recipients at a time than there are: the rest comes in another transaction at once, with the content again."""

    LIMITED = b"250-mx\r\n250-PIPELINING\r\n250 LIMITS RCPTMAX=2\r\n"
    TWO = b"250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n"
    ONE = b"250 ok\r\n250 ok\r\n354 go\r\n"

    def test_rcptmax(self):
        # RFC 9422 section 4.2.
        talk = Talk().ready(self.LIMITED)
        self.assertEqual(talk.send("a", "b", "c"), MAIL + rcpt("a") + rcpt("b") + b"DATA\r\n")
        self.assertEqual(talk.hear(self.TWO), STUFFED)
        self.assertEqual(talk.hear(b"250 one\r\n"), MAIL + rcpt("c") + b"DATA\r\n")
        self.assertEqual(talk.hear(self.ONE), STUFFED)
        self.assertEqual(kinds(talk), ["SendContent", "SendContent"])
        talk.hear(b"250 two\r\n")
        self.assertEqual([outcome.note for outcome in talk.done.outcomes], ["250 one", "250 one", "250 two"])

    def test_a_part_whose_recipients_are_all_refused_does_not_stop_the_next(self):
        talk = Talk().ready(self.LIMITED)
        talk.send("a", "b", "c")
        written = talk.hear(b"250 ok\r\n550 no\r\n550 no\r\n554 no\r\n")
        self.assertEqual(written, b"RSET\r\n" + MAIL + rcpt("c") + b"DATA\r\n")
        talk.hear(b"250 ok\r\n" + self.ONE, b"250 ok\r\n")
        self.assertEqual(talk.verdicts, ["never 550", "never 550", "ok"])

    def test_rcptdomainmax(self):
        # RFC 9422 section 4.3.
        talk = Talk().ready(b"250-mx\r\n250-PIPELINING\r\n250 LIMITS RCPTDOMAINMAX=1\r\n")
        written = talk.send("a@one.example", "b@ONE.example", "c@two.example", "d@one.example")
        self.assertEqual((written.count(b"RCPT"), written.count(b"ne.example"), written.count(b"two")), (2, 1, 0))
        self.assertEqual(talk.hear(self.TWO, b"250 ok\r\n").count(b"two.example"), 1)
        self.assertEqual(talk.hear(self.ONE, b"250 ok\r\n").count(b"<d@one.example"), 1)
        talk.hear(self.ONE, b"250 ok\r\n")
        self.assertEqual(talk.verdicts, ["ok"] * 4)

    def test_452_for_one_recipient_too_many(self):
        # RFC 5321 section 4.5.3.1.10; 552 without another meaning is the same.
        for reply in (b"452 4.5.3 too many\r\n", b"452 too many\r\n", b"552 too many\r\n", b"552 5.5.3 too many\r\n"):
            talk = Talk().ready()
            talk.send("a", "b", "c")
            talk.hear(b"250 ok\r\n250 ok\r\n" + reply + b"550 no\r\n354 go\r\n")
            self.assertEqual(talk.hear(b"250 ok\r\n"), MAIL + rcpt("b") + b"DATA\r\n", reply)
            talk.hear(self.ONE, b"250 ok\r\n")
            self.assertEqual(talk.verdicts, ["ok", "ok", "never 550"])

    def test_452_for_another_reason_is_no_invitation(self):
        for reply, word in ((b"452 4.2.2 full\r\n", "later 452"), (b"552 5.2.2 full\r\n", "never 552"), (b"450 4.5.3 x\r\n", "later 450")):
            talk = Talk().ready()
            talk.send("a", "b")
            self.assertEqual(talk.hear(b"250 ok\r\n250 ok\r\n" + reply + b"354 go\r\n", b"250 ok\r\n"), STUFFED)
            self.assertEqual(talk.verdicts, ["ok", word])

    def test_a_peer_that_takes_nobody_is_not_asked_again(self):
        talk = Talk().ready()
        talk.send("a", "b")
        talk.hear(b"250 ok\r\n452 too many\r\n552 too many\r\n554 no\r\n")
        self.assertEqual(talk.verdicts, ["later 452", "later 552"])

    def test_452_to_the_content_is_no_invitation(self):
        talk = Talk().ready()
        talk.send("a")
        talk.hear(self.ONE, b"452 4.5.3 full\r\n")
        self.assertEqual(talk.verdicts, ["later 452"])

    def test_mailmax_leaves_the_rest_for_another_connection(self):
        # RFC 9422 section 4.1.
        talk = Talk().ready(b"250-mx\r\n250-PIPELINING\r\n250 LIMITS RCPTMAX=1 MAILMAX=2\r\n")
        self.assertTrue(talk.session.is_ready)
        talk.send("a", "b", "c")
        talk.hear(self.ONE, b"250 ok\r\n", self.ONE, b"250 ok\r\n")
        self.assertEqual(talk.verdicts, ["ok", "ok", "later 451"])
        self.assertFalse(talk.session.is_ready)
        talk.session.quit()

    def test_a_mailmax_of_one_is_for_one_message(self):
        talk = Talk().ready(b"250-mx\r\n250-PIPELINING\r\n250 LIMITS MAILMAX=1\r\n")
        talk.send("a")
        talk.hear(self.ONE, b"250 ok\r\n")
        self.assertEqual((talk.verdicts, talk.session.is_ready), (["ok"], False))
        talk.session.quit()

    def test_the_connection_is_lost_in_the_second_part(self):
        for heard, phase in ((b"", Phase.MAIL), (b"250 ok\r\n", Phase.RCPT), (b"250 ok\r\n250 ok\r\n", Phase.DATA)):
            talk = Talk().ready(self.LIMITED)
            talk.send("a", "b", "c")
            talk.hear(self.TWO, b"250 ok\r\n", heard)
            talk.eof()
            self.assertEqual(talk.verdicts, ["ok", "ok", "later 451"])
            self.assertEqual(talk.done.outcomes[2].note, "", "the content of this part was not sent")
            self.assertEqual(talk.done.sender_reply is None, phase is Phase.MAIL)
            self.assertEqual(talk.events[-1], Lost(phase))

    def test_those_who_were_too_many_come_first_in_the_next_part(self):
        talk = Talk().ready(self.LIMITED)
        talk.send("a", "b", "c")
        written = talk.hear(b"250 ok\r\n250 ok\r\n452 4.5.3 many\r\n354 go\r\n", b"250 ok\r\n")
        self.assertTrue(written.endswith(MAIL + rcpt("b") + rcpt("c") + b"DATA\r\n"))


class BdatTests(SynchronousTestCase):
    EHLO = b"250-mx\r\n250-PIPELINING\r\n250-CHUNKING\r\n250 BINARYMIME\r\n"
    BINARY = b"\r.\n\0\r\n.\r\n"

    def test_binary_content_goes_as_one_chunk(self):
        # RFC 3030 sections 2 and 3.
        for hello in (self.EHLO, self.EHLO.replace(b"PIPELINING", b"HELP")):
            talk = Talk(content=(self.BINARY[:3], self.BINARY[3:])).ready(hello)
            written = talk.send("a", body="BINARYMIME")
            if b"RCPT" not in written:
                written += talk.hear(b"250 ok\r\n")
                self.assertEqual(talk.hear(b"250 ok\r\n"), b"BDAT %d LAST\r\n" % len(self.BINARY) + self.BINARY)
            else:
                self.assertEqual(talk.hear(b"250 ok\r\n", b"250 ok\r\n"), b"BDAT %d LAST\r\n" % len(self.BINARY) + self.BINARY)
            self.assertEqual(written, b"MAIL FROM:<s@client.example> BODY=BINARYMIME\r\n" + rcpt("a"))
            talk.hear(b"250 ok\r\n")
            self.assertEqual(talk.verdicts, ["ok"])

    def test_text_goes_with_data_unless_bdat_is_preferred_and_offered(self):
        self.assertIn(b"DATA\r\n", Talk().ready(self.EHLO).send())
        self.assertNotIn(b"DATA\r\n", Talk().ready(self.EHLO).send(prefers_bdat=True))
        self.assertIn(b"DATA\r\n", Talk().ready().send(prefers_bdat=True))

    def test_nothing_is_sent_where_all_recipients_are_refused(self):
        talk = Talk().ready(self.EHLO)
        talk.send("a", prefers_bdat=True)
        self.assertEqual(talk.hear(b"250 ok\r\n550 no\r\n"), b"")
        self.assertEqual(talk.verdicts, ["never 550"])
        self.assertTrue(talk.send("b", prefers_bdat=True).startswith(b"RSET\r\n"))

    def test_an_answer_that_comes_before_the_caller_has_said_the_end_waits_for_it(self):
        for answer_at_once in (True, False):
            talk = Talk(streams=False).ready(self.EHLO)
            talk.send("a", prefers_bdat=True)
            talk.hear(b"250 ok\r\n250 ok\r\n")
            talk.session.content(CONTENT)
            if answer_at_once:
                self.assertEqual(talk.hear(b"250 ok\r\n"), b"")
                self.assertIs(talk.wait, Wait.PAUSED)
            self.assertEqual(talk.session.end_of_content(), b"")
            talk.hear(*(() if answer_at_once else (b"250 ok\r\n",)))
            talk.take()
            self.assertEqual(talk.verdicts, ["ok"])

    def test_that_answer_counts_also_where_the_peer_has_gone_meanwhile(self):
        talk = Talk(streams=False).ready(self.EHLO)
        talk.send("a", prefers_bdat=True)
        talk.hear(b"250 ok\r\n250 ok\r\n")
        talk.session.content(CONTENT)
        talk.hear(b"250 ok\r\n")
        talk.eof()
        self.assertEqual(talk.verdicts, ["ok"])
        self.assertEqual(kinds(talk), ["SendContent", "Done", "Lost"])

    def test_all_octets_without_an_answer_are_uncertain_and_fewer_are_not(self):
        for octets, note in ((CONTENT, UNCERTAIN), (CONTENT[:-1], "")):
            talk = Talk(streams=False).ready(self.EHLO)
            talk.send("a", prefers_bdat=True)
            talk.hear(b"250 ok\r\n250 ok\r\n")
            talk.session.content(octets)
            talk.eof()
            self.assertEqual([(outcome.reply.code, outcome.note) for outcome in talk.done.outcomes], [(451, note)])

    def test_content_of_another_length_is_a_fault_of_ours(self):
        talk = Talk(streams=False).ready(self.EHLO)
        talk.send("a", prefers_bdat=True)
        talk.hear(b"250 ok\r\n250 ok\r\n")
        self.assertRaises(LocalProtocolError, talk.session.end_of_content)
        self.assertRaises(LocalProtocolError, talk.session.content, CONTENT + b"x")


class LmtpTests(SynchronousTestCase):
    """RFC 2033 section 4.2: one answer to the content for each recipient that was accepted."""

    def ready(self, *names: str) -> Talk:
        talk = Talk(lmtp=True).ready(EHLO_LMTP)
        talk.send(*names)
        return talk

    def test_one_answer_for_each(self):
        talk = self.ready("a", "b", "c", "d")
        talk.hear(b"250 ok\r\n250 ok\r\n550 no\r\n250 ok\r\n250 ok\r\n354 go\r\n")
        talk.hear(b"250 one\r\n452 4.2.2 full\r\n")
        self.assertEqual(kinds(talk), ["SendContent"])
        self.assertIs(talk.session.phase, Phase.END)
        talk.hear(b"552 5.2.2 full\r\n")
        self.assertEqual(talk.verdicts, ["ok", "never 550", "later 452", "never 552"])

    def test_the_connection_is_lost_between_the_answers(self):
        talk = self.ready("a", "b", "c")
        talk.hear(b"250 ok\r\n250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n", b"250 one\r\n550 no\r\n")
        talk.eof()
        self.assertEqual(talk.verdicts, ["ok", "never 550", "later 451"])
        self.assertEqual(talk.done.outcomes[2].note, UNCERTAIN)

    def test_421_between_the_answers(self):
        talk = self.ready("a", "b", "c")
        talk.hear(b"250 ok\r\n250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n", b"250 one\r\n421 bye\r\n")
        self.assertEqual(talk.verdicts, ["ok", "later 421", "later 421"])
        self.assertEqual(talk.done.outcomes[2].note, UNCERTAIN)
        self.assertEqual(kinds(talk), ["SendContent", "Done", "Closing"])

    def test_data_that_is_refused_has_one_answer(self):
        talk = self.ready("a", "b")
        talk.hear(b"250 ok\r\n250 ok\r\n250 ok\r\n451 no\r\n")
        self.assertEqual(talk.verdicts, ["later 451", "later 451"])
        self.assertTrue(talk.session.is_ready)

    def test_data_without_recipients_must_be_refused(self):
        talk = self.ready("a")
        self.assertEqual(talk.hear(b"250 ok\r\n550 no\r\n503 no\r\n"), b"")
        self.assertEqual(talk.verdicts, ["never 550"])
        talk = self.ready("a")
        self.assertEqual(talk.hear(b"250 ok\r\n550 no\r\n354 go\r\n"), b"")
        self.assertEqual((talk.verdicts, kinds(talk)), (["never 550"], ["Done", "Broken"]))

    def test_bdat(self):
        talk = Talk(lmtp=True).ready(b"250-mx\r\n250-PIPELINING\r\n250 CHUNKING\r\n")
        talk.send("a", "b", prefers_bdat=True)
        talk.hear(b"250 ok\r\n250 ok\r\n250 ok\r\n", b"250 ok\r\n550 no\r\n")
        self.assertEqual(talk.verdicts, ["ok", "never 550"])


# What has come of a message when something happens after so many of the peer's answers: a phase, and the word for a and b.
STORY = (b"250 ok\r\n", b"250 ok\r\n", b"550 no\r\n", b"354 go\r\n", b"250 ok\r\n")
PHASES = (Phase.MAIL, Phase.RCPT, Phase.RCPT, Phase.DATA, Phase.END)


class EndTests(SynchronousTestCase):
    """The end of a session at each point of it."""

    def after(self, answers: int, hello: bytes = EHLO_PIPELINING) -> Talk:
        talk = Talk().ready(hello)
        talk.send("a", "b")
        for reply in STORY[:answers]:
            talk.hear(reply)
        self.assertIs(talk.session.phase, PHASES[answers])
        return talk

    def words(self, talk: Talk, code: int, answers: int) -> None:
        b = "never 550" if answers >= 3 else f"later {code}"
        self.assertEqual(talk.verdicts, [f"later {code}", b])
        self.assertIs(talk.wait, Wait.CLOSED)
        self.assertFalse(talk.session.is_ready)
        self.assertIs(talk.session.phase, PHASES[answers])
        self.assertEqual(talk.done.outcomes[0].phase, PHASES[answers].name)

    def test_421_at_each_point_of_a_message(self):
        # RFC 5321 section 3.8.  What was answered before stays.
        for hello in (EHLO_PIPELINING, EHLO_LOCK_STEP):
            for answers in range(5):
                talk = self.after(answers, hello)
                talk.hear(b"421 4.3.2 bye\r\n250 ok\r\n")
                self.words(talk, 421, answers)
                self.assertEqual(talk.events[-1], Closing(Reply.of(421, "4.3.2", "bye"), PHASES[answers]))
                self.assertEqual(talk.done.outcomes[0].note, "")

    def test_the_connection_ends_at_each_point_of_a_message(self):
        for hello in (EHLO_PIPELINING, EHLO_LOCK_STEP):
            for answers in range(5):
                talk = self.after(answers, hello)
                talk.eof()
                self.words(talk, 451, answers)
                self.assertEqual(talk.events[-1], Lost(PHASES[answers]))
                # After the final dot nobody knows: it is tried again, and told to be uncertain.
                self.assertEqual(talk.done.outcomes[0].note, UNCERTAIN if answers == 4 else "")

    def test_the_caller_gives_up_at_each_point_of_a_message(self):
        for answers in range(5):
            talk = self.after(answers)
            talk.session.give_up(Reply.of(451, "4.4.2", "too slow"))
            talk.take()
            self.words(talk, 451, answers)
            self.assertEqual(talk.done.outcomes[0].reply.lines, ("too slow",))
            self.assertEqual(talk.events[-1], Lost(PHASES[answers]))

    def test_nonsense_at_each_point_of_a_message(self):
        for nonsense in (b"<html>\r\n", b"250-a\r\n550 b\r\n", b"250 " + b"x" * 5000, b"250-x\r\n" * 200):
            for answers in range(5):
                if answers >= 3 and nonsense.startswith(b"250-a"):
                    continue  # the last answer of a group, and that to the content: nothing else can be meant
                talk = self.after(answers)
                talk.hear(nonsense)
                self.words(talk, 451, answers)
                self.assertIsInstance(talk.events[-1], Broken)
                self.assertIs(talk.events[-1].phase, PHASES[answers])

    def test_421_before_and_between_messages(self):
        for heard, phase in (((), Phase.GREETING), ((GREETING,), Phase.HELLO), ((GREETING, EHLO_PIPELINING), Phase.IDLE)):
            talk = Talk()
            talk.hear(*heard)
            talk.forget()
            talk.hear(b"421 bye\r\n")
            self.assertEqual(talk.events, [Closing(Reply.of(421, "", "bye"), phase)])
            self.assertIs(talk.wait, Wait.CLOSED)

    def test_the_connection_ends_before_and_between_messages(self):
        for heard, phase in (((), Phase.GREETING), ((GREETING,), Phase.HELLO), ((GREETING, EHLO_PIPELINING), Phase.IDLE)):
            talk = Talk()
            talk.hear(*heard)
            talk.forget()
            talk.eof()
            self.assertEqual(talk.events, [Lost(phase)])
            self.assertIs(talk.session.phase, phase)

    def test_answers_that_have_come_are_used_before_the_end_is(self):
        talk = Talk().ready()
        talk.send("a")
        talk.hear(b"250 ok\r\n250 ok\r\n354 go\r\n")
        talk.session.receive_data(b"250 ok\r\n")
        talk.session.receive_eof()
        talk.take()
        self.assertEqual(talk.verdicts, ["ok"])
        self.assertEqual(kinds(talk), ["SendContent", "Done", "Lost"])

    def test_a_stale_connection_shows_at_mail(self):
        talk = Talk().ready()
        talk.send("a")
        talk.eof()
        self.assertEqual(talk.events, [Done((Delayed(talk.done.outcomes[0].reply, phase="MAIL"),), None, None), Lost(Phase.MAIL)])

    def test_something_unasked_between_messages_ends_the_session(self):
        for octets in (b"250 ok\r\n", b"554 idle\r\n", b"* hello\r\n"):
            talk = Talk().ready()
            talk.hear(octets)
            self.assertEqual(kinds(talk), ["Broken"])
            self.assertIs(talk.events[0].phase, Phase.IDLE)

    def test_something_unasked_is_not_taken_for_the_answer_to_the_next_message(self):
        for unasked, last in ((b"250 ok\r\n", Broken), (b"421 bye\r\n", Closing)):
            talk = Talk().ready()
            talk.session.receive_data(unasked)
            self.assertEqual(talk.send("a"), b"")
            self.assertEqual(talk.verdicts, [f"later {421 if last is Closing else 451}"])
            self.assertIsInstance(talk.events[-1], last)

    def test_an_answer_before_the_end_of_the_content_is_no_answer_to_it(self):
        talk = Talk(streams=False).ready()
        talk.send("a")
        talk.hear(b"250 ok\r\n250 ok\r\n354 go\r\n")
        talk.session.content(CONTENT)
        talk.session.receive_data(b"250 ok\r\n")
        talk.session.end_of_content()
        talk.take()
        self.assertEqual(talk.verdicts, ["later 451"])
        self.assertIsInstance(talk.events[-1], Broken)

    def test_content_that_is_refused_on_its_way(self):
        for reply, word in ((b"552 5.3.4 big\r\n", "never 552"), (b"451 later\r\n", "later 451"), (b"421 bye\r\n", "later 421")):
            talk = Talk(streams=False).ready()
            talk.send("a", "b")
            talk.hear(b"250 ok\r\n550 no\r\n250 ok\r\n354 go\r\n")
            talk.session.content(CONTENT)
            talk.hear(reply)
            self.assertEqual(talk.verdicts, ["never 550", word])
            self.assertEqual(str(talk.done.outcomes[1].reply), reply.decode().strip())
            self.assertEqual((talk.done.outcomes[1].note, talk.done.outcomes[1].phase), ("", "CONTENT"))
            self.assertIs(talk.wait, Wait.CLOSED)
            self.assertRaises(LocalProtocolError, talk.session.content, b"more")

    def test_quit(self):
        for last in (b"221 bye\r\n", b"421 bye\r\n", b"500 what\r\n", b"nonsense\r\n", None):
            talk = Talk().ready()
            talk.session.quit()
            talk.take()
            self.assertEqual(talk.written, b"QUIT\r\n")
            self.assertIs(talk.session.phase, Phase.QUIT)
            self.assertIs(talk.wait, Wait.NEED_DATA)
            if last is None:
                talk.eof()
            else:
                talk.hear(last)
            self.assertIs(talk.wait, Wait.CLOSED)
            self.assertEqual(kinds(talk), [])

    def test_rset(self):
        talk = Talk().ready()
        talk.session.reset()
        talk.take()
        self.assertEqual(talk.written, b"RSET\r\n")
        self.assertIs(talk.session.phase, Phase.RESET)
        self.assertFalse(talk.session.is_ready)
        talk.hear(b"250 ok\r\n")
        self.assertEqual(talk.events, [Ready(talk.session.offer)])
        talk.session.reset()
        talk.eof()
        self.assertEqual(talk.events[1:], [Lost(Phase.RESET)])

    def test_354_to_rset_is_no_answer(self):
        talk = Talk().ready()
        talk.session.reset()
        talk.hear(b"354 go\r\n")
        self.assertEqual(kinds(talk), ["Broken"])

    def test_a_session_whose_outcomes_have_not_been_taken_is_not_ready(self):
        talk = Talk().ready()
        talk.session.send(request("a", body="BINARYMIME"))
        self.assertFalse(talk.session.is_ready)
        talk.take()
        self.assertTrue(talk.session.is_ready)

    def test_giving_up_twice_is_giving_up_once(self):
        talk = Talk()
        talk.session.give_up()
        talk.session.give_up()
        talk.take()
        self.assertEqual(talk.events, [Lost(Phase.GREETING)])

    def test_nothing_is_read_or_kept_after_the_end(self):
        talk = Talk()
        talk.eof()
        talk.hear(GREETING * 100)
        self.assertEqual(kinds(talk), ["Lost"])
        self.assertTrue(talk.session._replies.is_empty)

    def test_limits_are_those_given(self):
        talk = Talk(limits=ClientLimits(reply_line_octets=20))
        talk.hear(GREETING)
        self.assertEqual(kinds(talk), ["Broken"])

    def test_each_recipient_has_its_own_outcome_even_where_two_are_the_same(self):
        talk = Talk().ready()
        talk.session.send(request("a", "a"))
        talk.take()
        self.assertEqual(talk.written.count(b"RCPT"), 2)
        talk.hear(b"250 ok\r\n250 ok\r\n550 no\r\n354 go\r\n", b"250 ok\r\n")
        self.assertEqual(talk.verdicts, ["ok", "never 550"])
