"""The client core and the server core, joined in memory."""

from collections.abc import Callable
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.mail.address import Address
from mailserver.mail.reply import Reply
from mailserver.smtp.client.events import Closing, Lost
from mailserver.smtp.client.session import UNCERTAIN, Phase
from mailserver.smtp.client.states import ClientState
from mailserver.smtp.events import Data, EndOfData, Event, Hello, Mail, Rcpt, Reset, StartTLS, Wait
from mailserver.smtp.server.extensions import Extensions
from tests.smtp.client.client_talk import CONTENT, Joined, request
from tests.smtp.server.conversation import EVERYTHING, GO_ON, NO, OK, friendly

PLAIN = Extensions(
    pipelining=False, eightbitmime=False, smtputf8=False, chunking=False, binarymime=False, dsn=False, enhancedstatuscodes=False
)
NO_PIPELINING = replace(EVERYTHING, pipelining=False)
OFFERS = {"everything": EVERYTHING, "without PIPELINING": NO_PIPELINING, "nothing": PLAIN}
CLOSE = Reply.of(421, "4.3.2", "Shutting down")
TOO_MANY = Reply.of(452, "4.5.3", "One at a time")

Answer = Callable[[Event], Reply | None]


def refusing(*names: str, reply: Reply = NO) -> Answer:
    """Yes to all but these recipients."""
    return lambda event: reply if isinstance(event, Rcpt) and event.address.local in names else friendly(event)


def saying(reply: Reply, kind: type[Event], count: int = 1) -> Answer:
    """Yes to all but the event of this kind that is the `count`-th."""
    seen: list[Event] = []

    def answer(event: Event) -> Reply | None:
        seen.append(event)
        return reply if isinstance(event, kind) and sum(isinstance(e, kind) for e in seen) == count else friendly(event)

    return answer


def each_way() -> list[tuple[str, Joined]]:
    """Joined to a friendly server, by every offer, in both protocols, in one piece and octet by octet."""
    return [
        (f"{name}, lmtp={lmtp}, step={step}", Joined(extensions=offer, lmtp=lmtp, step=step))
        for name, offer in OFFERS.items()
        for lmtp in (False, True)
        for step in (0, 1)
    ]


class MessageTests(SynchronousTestCase):
    def test_messages_arrive_whole(self):
        for way, joined in each_way():
            for _ in range(3):
                self.assertEqual(joined.send("a", "b"), ["ok", "ok"], way)
                self.assertEqual(joined.server.content, CONTENT, way)
                mail, *rcpts = [event for event in joined.server.events if isinstance(event, Mail | Rcpt)]
                self.assertEqual(mail.sender, Address("s", "client.example"), way)
                self.assertEqual([rcpt.address.local for rcpt in rcpts], ["a", "b"], way)
                self.assertEqual(joined.server.rejected, [], way)
            joined.talk.session.quit()
            joined.talk.take()
            joined.run()
            self.assertIs(joined.talk.wait, Wait.CLOSED, way)
            self.assertIs(joined.server.wait, Wait.CLOSED, way)

    def test_the_parameters_arrive_as_they_were_meant(self):
        joined = Joined()
        more = {"ret": "HDRS", "envid": "a+b=c d", "body": "8BITMIME", "smtputf8": True}
        self.assertEqual(joined.send("ü", **more), ["ok"])
        (mail,) = [event for event in joined.server.events if isinstance(event, Mail)]
        found = mail.parameters
        self.assertEqual((found.ret, found.envid, found.body, found.smtputf8, found.size), ("HDRS", "a+b=c d", "8BITMIME", True, len(CONTENT)))

    def test_some_are_refused(self):
        for offer in OFFERS.values():
            for lmtp in (False, True):
                joined = Joined(extensions=offer, lmtp=lmtp, answer=refusing("b", "d"))
                self.assertEqual(joined.send("a", "b", "c", "d"), ["ok", "never 550", "ok", "never 550"])
                self.assertEqual(joined.server.content, CONTENT)

    def test_all_are_refused_and_the_next_message_goes(self):
        for offer in OFFERS.values():
            for lmtp in (False, True):
                joined = Joined(extensions=offer, lmtp=lmtp, answer=refusing("a", "b"))
                self.assertEqual(joined.send("a", "b"), ["never 550", "never 550"])
                self.assertEqual(joined.server.messages, [])
                self.assertEqual(joined.send("c"), ["ok"])
                self.assertIn(Reset(), joined.server.events)
                self.assertEqual(joined.server.content, CONTENT)
                self.assertEqual(joined.server.rejected, [])

    def test_the_sender_is_refused_and_the_next_message_goes(self):
        for offer in OFFERS.values():
            joined = Joined(extensions=offer, answer=saying(NO, Mail))
            self.assertEqual(joined.send("a", "b"), ["never 550", "never 550"])
            self.assertEqual(joined.send("a"), ["ok"])

    def test_data_is_refused_and_the_next_message_goes(self):
        for offer in OFFERS.values():
            for prefers_bdat in (False, True):
                joined = Joined(extensions=offer, answer=saying(NO, Data))
                self.assertEqual(joined.send("a", prefers_bdat=prefers_bdat), ["never 550"])
                self.assertEqual(joined.send("a", prefers_bdat=prefers_bdat), ["ok"])

    def test_the_content_is_refused_and_the_next_message_goes(self):
        for offer in OFFERS.values():
            for prefers_bdat in (False, True):
                for lmtp in (False, True):
                    joined = Joined(extensions=offer, lmtp=lmtp, answer=saying(NO, EndOfData))
                    self.assertEqual(joined.send("a", "b", prefers_bdat=prefers_bdat), ["never 550", "never 550"])
                    self.assertEqual(joined.send("a", prefers_bdat=prefers_bdat), ["ok"])
                    self.assertNotIn(Reset(), joined.server.events)

    def test_lmtp_answers_for_each_recipient(self):
        for prefers_bdat in (False, True):
            joined = Joined(lmtp=True, answer=lambda event: None if isinstance(event, EndOfData) else refusing("b")(event))
            joined.talk.session.send(request("a", "b", "c", "d", prefers_bdat=prefers_bdat))
            joined.run()
            joined.server.session.reply_each([OK, NO, Reply.of(452, "4.2.2", "Full")])
            joined.run()
            self.assertEqual(joined.talk.verdicts, ["ok", "never 550", "never 550", "later 452"])

    def test_one_recipient_at_a_time(self):
        # RFC 5321 section 4.5.3.1.10.
        def one_at_a_time() -> Answer:
            taken: list[Event] = []

            def answer(event: Event) -> Reply | None:
                if isinstance(event, Mail):
                    taken.clear()
                if isinstance(event, Rcpt):
                    taken.append(event)
                    return TOO_MANY if len(taken) > 1 else OK
                return friendly(event)

            return answer

        for offer in OFFERS.values():
            joined = Joined(extensions=offer, answer=one_at_a_time())
            self.assertEqual(joined.send("a", "b", "c"), ["ok"] * 3)
            self.assertEqual(joined.server.content, CONTENT * 3)

    def test_rcptmax_and_mailmax_are_kept(self):
        # RFC 9422.
        for offer in (EVERYTHING, NO_PIPELINING):
            joined = Joined(extensions=replace(offer, recipients_max=2, mail_max=2))
            self.assertEqual(joined.send("a", "b", "c", "d", "e"), ["ok"] * 4 + ["later 451"])
            self.assertEqual(len(joined.server.messages), 2)
            self.assertFalse(joined.talk.session.is_ready)

    def test_binary_content(self):
        content = b"\0\r.\n\r\n.\r\n\xff"
        for offer in (EVERYTHING, NO_PIPELINING):
            joined = Joined(extensions=offer, step=1)
            joined.talk.content = (content[:4], content[4:])
            self.assertEqual(joined.send("a", body="BINARYMIME"), ["ok"])
            self.assertEqual(joined.server.content, content)

    def test_ehlo_that_is_refused_is_followed_by_helo(self):
        refuse_ehlo = saying(Reply.of(502, "5.5.1", "What?"), Hello)
        joined = Joined(answer=refuse_ehlo)
        self.assertEqual([event.verb for event in joined.server.events if isinstance(event, Hello)], ["EHLO", "HELO"])
        self.assertFalse(joined.talk.session.offer.extended)
        self.assertEqual(joined.send("a"), ["ok"])

    def test_starttls(self):
        for step in (0, 1):
            joined = Joined(step=step)
            joined.talk.session.start_tls()
            joined.talk.take()
            joined.run()
            self.assertTrue(joined.talk.session.is_encrypted)
            self.assertTrue(joined.talk.session.is_ready)
            self.assertEqual([event.verb for event in joined.server.events if isinstance(event, Hello)], ["EHLO", "EHLO"])
            self.assertEqual(joined.send("a"), ["ok"])

    def test_starttls_that_is_refused(self):
        joined = Joined(answer=saying(Reply.of(454, "4.7.0", "Not now"), StartTLS))
        joined.talk.session.start_tls()
        joined.talk.take()
        joined.run()
        self.assertEqual(joined.send("a"), ["ok"])

    def test_reset(self):
        joined = Joined()
        joined.talk.session.reset()
        joined.talk.take()
        joined.run()
        self.assertTrue(joined.talk.session.is_ready)
        self.assertIn(Reset(), joined.server.events)

    @settings(max_examples=200)
    @given(
        st.lists(st.sampled_from([b".", b"\r\n", b"\r\n.", b"\r\n.\r\n", b"a", b"\xff\xfe", b"x" * 50]), max_size=20).map(b"".join),
        st.integers(1, 30),
        st.integers(0, 7),
        st.booleans(),
        st.sampled_from(sorted(OFFERS)),
    )
    def test_any_content_arrives_as_it_was(self, content, piece, step, prefers_bdat, offer):
        joined = Joined(extensions=OFFERS[offer], step=step)
        joined.talk.content = [content[at : at + piece] for at in range(0, len(content), piece)]
        self.assertEqual(joined.send("a", prefers_bdat=prefers_bdat), ["ok"])
        uses_bdat = prefers_bdat and OFFERS[offer].chunking
        ends = content.endswith(b"\r\n") or not content or uses_bdat
        self.assertEqual(joined.server.content, content if ends else content + b"\r\n")

    @settings(max_examples=200)
    @given(
        st.lists(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=6), min_size=1, max_size=4),
        st.sets(st.sampled_from("abcdef")),
        st.integers(0, 3),
        st.integers(0, 5),
        st.booleans(),
        st.booleans(),
    )
    def test_every_message_has_the_right_outcomes(self, messages, unwanted, recipients_max, step, lmtp, prefers_bdat):
        offer = replace(EVERYTHING, recipients_max=recipients_max, mail_max=0)
        joined = Joined(extensions=offer, answer=refusing(*unwanted), step=step, lmtp=lmtp)
        for names in messages:
            verdicts = joined.send(*names, prefers_bdat=prefers_bdat)
            self.assertEqual(verdicts, ["never 550" if name in unwanted else "ok" for name in names])
            self.assertEqual(joined.server.rejected and {code for _, code, _ in joined.server.rejected}, joined.server.rejected and ({503} if lmtp else {554}))
            self.assertTrue(joined.talk.session.is_ready)


class EndTests(SynchronousTestCase):
    """421 at each question of a message, and a connection that ends after each octet of the server's."""

    def test_421_at_each_point(self):
        for offer in OFFERS.values():
            for kind, count, verdicts in (
                (Mail, 1, ["later 421", "later 421"]),
                (Rcpt, 1, ["later 421", "later 421"]),
                (Rcpt, 2, ["later 421", "later 421"]),
                (Data, 1, ["later 421", "later 421"]),
                (EndOfData, 1, ["later 421", "later 421"]),
            ):
                for lmtp in (False, True):
                    joined = Joined(extensions=offer, lmtp=lmtp, answer=saying(CLOSE, kind, count))
                    self.assertEqual(joined.send("a", "b"), verdicts)
                    self.assertIs(joined.talk.wait, Wait.CLOSED)
                    self.assertIsInstance(joined.talk.events[-1], Closing)

    def test_421_keeps_what_was_refused_before(self):
        def answer(event: Event) -> Reply | None:
            return CLOSE if isinstance(event, Data) else refusing("a")(event)

        self.assertEqual(Joined(answer=answer).send("a", "b"), ["never 550", "later 421"])

    def test_421_to_hello(self):
        joined = Joined(answer=saying(CLOSE, Hello))
        self.assertIs(joined.talk.session.state, ClientState.CLOSED)
        self.assertIs(joined.talk.session.phase, Phase.HELLO)

    def test_whenever_the_connection_ends_nobody_is_told_delivered_without_an_answer(self):
        for lmtp in (False, True):
            whole = Joined(lmtp=lmtp)
            said: list[bytes] = []
            whole.talk.session.send(request("a", "b"))
            # All that the server says in this transaction, in its two flights.
            whole.talk.take()
            for _ in range(2):
                written, whole.talk.written = whole.talk.written, b""
                said.append(whole.server.send(written))
                whole.server.said = b""
                whole.talk.hear(said[-1])
            self.assertEqual(whole.talk.verdicts, ["ok", "ok"])
            for flight in range(2):
                for octets in range(len(said[flight])):
                    joined = Joined(lmtp=lmtp)
                    talk = joined.talk
                    talk.session.send(request("a", "b"))
                    talk.take()
                    talk.events.clear()
                    talk.hear(*said[:flight], said[flight][:octets])
                    talk.eof()
                    got = said[1][:octets].count(b"\r\n") if flight else 0
                    expected = ["ok" if lmtp and n < got else "later 451" for n in range(2)]
                    self.assertEqual(talk.verdicts, expected, (lmtp, flight, octets))
                    notes = {outcome.note for outcome in talk.done.outcomes if outcome.__class__.__name__ == "Delayed"}
                    self.assertEqual(notes, {UNCERTAIN if flight else ""})
                    self.assertIsInstance(talk.events[-1], Lost)


class OrderTests(SynchronousTestCase):
    def test_the_envelope_travels_in_one_write_and_the_content_in_the_next(self):
        # RFC 2920: two journeys for a message.
        joined = Joined()
        joined.talk.session.send(request("a", "b"))
        joined.talk.take()
        first, joined.talk.written = joined.talk.written, b""
        answers = joined.server.send(first)
        self.assertEqual([int(line[:3]) for line in answers.splitlines()], [250, 250, 250, 354])
        joined.server.said = b""
        second = joined.talk.hear(answers)
        self.assertTrue(second.endswith(b"\r\n.\r\n"))
        joined.talk.hear(joined.server.send(second))
        self.assertEqual(joined.talk.verdicts, ["ok", "ok"])

    def test_354_is_the_only_positive_answer_to_data(self):
        self.assertEqual(GO_ON.code, 354)
        self.assertEqual(Joined(answer=lambda event: OK if isinstance(event, Data) else friendly(event)).send("a"), ["ok"])
