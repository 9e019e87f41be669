"""The session towards its caller: one question at a time, order, back-pressure, misuse, closing."""

import tracemalloc

from twisted.trial.unittest import SynchronousTestCase

from mailserver.mail.reply import Reply
from mailserver.smtp.events import Chunk, Data, EndOfData, Hello, Mail, Quit, Rcpt, Wait
from mailserver.smtp.server.session import Extensions, LocalProtocolError, ServerSession, SessionLimits
from mailserver.smtp.server.states import State
from tests.smtp.server.conversation import GO_ON, GREETING, NO, OK, QUESTIONS, Conversation, friendly
from tests.smtp.server.test_states import LINES, reach

CLOSING = Reply.of(421, "4.3.2", "Closing")


class OneQuestionTests(SynchronousTestCase):
    def test_no_event_while_a_question_is_open(self):
        conversation = Conversation(answer=lambda event: None)
        conversation.send(b"EHLO a.example\r\nQUIT\r\n")
        self.assertEqual(conversation.events, [Hello("EHLO", "a.example")])
        self.assertIs(conversation.wait, Wait.PAUSED)
        self.assertEqual(conversation.said, b"")
        conversation.session.reply(OK)
        conversation.take()
        self.assertEqual(conversation.events[-1], Quit())
        self.assertEqual(conversation.codes, [250, 221])

    def test_ten_thousand_pipelined_commands_with_slow_answers_are_answered_in_order(self):
        count = 10_000
        session = ServerSession(hostname="mx.example.org", extensions=Extensions(), limits=SessionLimits())
        session.greet(GREETING)
        session.receive_data(b"EHLO a.example\r\nMAIL FROM:<a@b.example>\r\n")
        session.receive_data(b"".join(b"RCPT TO:<u%d@b.example>\r\nNOOP\r\n" % n for n in range(count)))
        asked = 0
        while (event := session.next_event()) is not Wait.NEED_DATA:
            if not isinstance(event, Hello | Mail | Rcpt):
                continue
            for _ in range(2):  # a slow answer: others come in and the session is asked again meanwhile
                session.receive_data(b"HELP\r\n" if asked < 3 else b"")
                self.assertIs(session.next_event(), Wait.PAUSED)
            if isinstance(event, Rcpt):
                session.reply(Reply.of(250, "2.1.5", f"{event.address.local} it is"))
                asked += 1
            else:
                session.reply(OK)
        lines = [line for line in session.data_to_send().split(b"\r\n") if b"2.1.5" in line or b"2.0.0 OK" in line]
        expected = [b"250 2.0.0 OK"]
        for n in range(count):
            expected += [b"250 2.1.5 u%d it is" % n, b"250 2.0.0 OK"]
        self.assertEqual(lines, expected)

    def test_the_work_for_a_full_buffer_grows_with_its_length_only(self):
        def octets_looked_at(count: int) -> int:
            session = ServerSession(hostname="mx.example.org", extensions=Extensions(), limits=SessionLimits())
            session.greet(GREETING)
            session.receive_data(b"NOOP\r\n" * count)
            data = session._buffer.data
            while session.next_event() is not Wait.NEED_DATA:
                if session._buffer.at < len(data):
                    self.assertIs(session._buffer.data, data, "the rest is never copied")
            return len(session.data_to_send())

        self.assertEqual(octets_looked_at(10_000), 10_000 * len(b"250 2.0.0 OK\r\n") + len(GREETING.encode()))

    def test_pipelined_messages_do_not_copy_what_follows_them(self):
        session = ServerSession(hostname="mx.example.org", extensions=Extensions(), limits=SessionLimits())
        session.greet(GREETING)
        message = b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\nx\r\n.\r\n"
        session.receive_data(b"EHLO a.example\r\n" + message * 1000 + b"QUIT\r\n")
        data, ends = session._buffer.data, 0
        while not isinstance(event := session.next_event(), Quit):
            self.assertIs(session._buffer.data, data)
            if isinstance(event, QUESTIONS):
                session.reply(friendly(event))
            ends += isinstance(event, EndOfData)
        self.assertEqual(ends, 1000)

    def test_buffered_counts_what_waits(self):
        conversation = Conversation(answer=lambda event: None)
        conversation.send(b"EHLO a.example\r\n")
        self.assertEqual(conversation.session.buffered, 0)
        conversation.send(b"NOOP\r\n", b"x" * 50, b"y")
        self.assertEqual(conversation.session.buffered, 57)

    def test_octets_that_come_before_the_greeting_wait_and_can_be_seen(self):
        conversation = Conversation(greet=False)
        conversation.send(b"EHLO early.example\r\n")
        self.assertEqual((conversation.session.buffered, conversation.wait), (20, Wait.PAUSED))
        conversation.session.greet(GREETING)
        conversation.take()
        self.assertEqual(conversation.events, [Hello("EHLO", "early.example")])

    def test_all_ready_replies_leave_together(self):
        session = Conversation().session
        session.receive_data(b"NOOP\r\nRSET\r\nFOO\r\nQUIT\r\n")
        while session.next_event() is not Wait.CLOSED:
            pass
        self.assertEqual(len(session.data_to_send().split(b"\r\n")), 5)
        self.assertEqual(session.data_to_send(), b"", "and leave once")


class RefusalTests(SynchronousTestCase):
    def test_refused_recipients_leave_no_transaction_to_fill(self):
        conversation = Conversation(answer=lambda event: NO if isinstance(event, Rcpt) else friendly(event)).say_hello()
        conversation.send(b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\nRSET\r\n")
        self.assertEqual(conversation.codes, [250, 550, 554, 250])

    def test_a_refused_sender_leaves_none(self):
        conversation = Conversation(answer=lambda event: NO if isinstance(event, Mail) else friendly(event)).say_hello()
        conversation.send(b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n")
        self.assertEqual(conversation.codes, [550, 503, 503])

    def test_one_accepted_recipient_is_enough(self):
        def answer(event: object) -> Reply:
            return NO if isinstance(event, Rcpt) and event.address.local == "bad" else friendly(event)  # type: ignore[arg-type]

        conversation = Conversation(answer=answer).say_hello()
        conversation.send(b"MAIL FROM:<>\r\nRCPT TO:<good@d.example>\r\nRCPT TO:<bad@d.example>\r\nDATA\r\nx\r\n.\r\n")
        self.assertEqual(conversation.codes, [250, 250, 550, 354, 250])

    def test_a_refused_message_leaves_a_ready_session(self):
        conversation = Conversation(answer=lambda event: NO if isinstance(event, EndOfData) else friendly(event)).address()
        conversation.send(b"DATA\r\nx\r\n.\r\nMAIL FROM:<>\r\n")
        self.assertEqual(conversation.codes, [354, 550, 250])

    def test_the_second_message_knows_nothing_of_the_first(self):
        limits = SessionLimits(stray_line_ends="refuse")
        conversation = Conversation(limits=limits).address(parameters=b" SMTPUTF8 BODY=BINARYMIME")
        conversation.send(b"BDAT 1 LAST\r\n\n")
        conversation.address()
        conversation.send("RCPT TO:<jörg@d.example>\r\n".encode())
        conversation.send(b"DATA\r\n", b"x\n\r\n.\r\n")
        self.assertEqual(conversation.codes, [553, 354, 550])


class MisuseTests(SynchronousTestCase):
    def test_an_answer_without_a_question(self):
        for state in State:
            conversation = reach(state)
            self.assertRaises(LocalProtocolError, conversation.session.reply, OK)
            self.assertRaises(LocalProtocolError, conversation.session.reply_each, [OK])
            self.assertIs(conversation.session.state, state)
            self.assertEqual(conversation.session.data_to_send(), b"")

    def test_a_second_answer(self):
        conversation = Conversation()
        conversation.send(b"EHLO a.example\r\n")
        self.assertRaises(LocalProtocolError, conversation.session.reply, OK)

    def test_greeting_twice_and_tls_without_starttls(self):
        for state in set(State) - {State.GREETING}:
            self.assertRaises(LocalProtocolError, reach(state).session.greet, GREETING)
        for state in set(State) - {State.HANDSHAKE}:
            self.assertRaises(LocalProtocolError, reach(state).session.tls_established)

    def test_an_intermediate_reply_where_none_is_expected_leaves_the_question_open(self):
        lines = [b"EHLO a.example\r\n", b"MAIL FROM:<>\r\n", b"RCPT TO:<a@b.example>\r\n", b"VRFY a\r\n", b"EXPN a\r\n"]
        conversation = Conversation(answer=lambda event: None)
        for line in lines:
            conversation.send(line)
            self.assertRaises(LocalProtocolError, conversation.session.reply, GO_ON)
            self.assertIs(conversation.session.next_event(), Wait.PAUSED)
            conversation.session.reply(OK)
        conversation.take()
        self.assertEqual(conversation.codes, [250] * 5)

    def test_a_message_with_a_fault_cannot_be_accepted(self):
        # Its content was not given on, so to accept it would be to lose it.
        limits = SessionLimits(stray_line_ends="refuse")
        conversation = Conversation(
            limits=limits, answer=lambda event: None if isinstance(event, EndOfData) else friendly(event)
        ).address()
        conversation.send(b"DATA\r\n", b"a\nb\r\n.\r\n")
        self.assertRaises(LocalProtocolError, conversation.session.reply, OK)
        conversation.session.reply(Reply.of(451, "4.3.0", "Or so"))
        conversation.take()
        self.assertEqual(conversation.codes, [354, 451])

    def test_reply_each_is_for_lmtp(self):
        conversation = Conversation(answer=lambda event: None if isinstance(event, EndOfData) else friendly(event)).address()
        conversation.send(b"DATA\r\n", b".\r\n")
        self.assertRaises(LocalProtocolError, conversation.session.reply_each, [OK])
        conversation.session.reply(OK)


class CloseTests(SynchronousTestCase):
    def test_in_any_state(self):
        for state in State:
            conversation = reach(state)
            conversation.session.close(CLOSING)
            said = {
                State.GREETING: b"421 Closing\r\n",  # no enhanced code in a greeting (RFC 2034 section 4)
                State.CLOSED: b"",
                State.HANDSHAKE: b"",
            }.get(state, b"421 4.3.2 Closing\r\n")
            self.assertEqual(conversation.session.data_to_send(), said, state)
            for verb in ("NOOP", "EHLO", "DATA"):
                self.assertEqual(conversation.send(LINES[verb]), b"")
            self.assertIs(conversation.wait, Wait.CLOSED)
            self.assertEqual(conversation.session.buffered, 0)

    def test_with_a_question_open(self):
        conversation = Conversation(answer=lambda event: None)
        conversation.send(b"EHLO a.example\r\nNOOP\r\n")
        conversation.session.close(CLOSING)
        self.assertEqual(conversation.session.data_to_send(), b"421 4.3.2 Closing\r\n")
        self.assertIs(conversation.session.next_event(), Wait.CLOSED)
        self.assertRaises(LocalProtocolError, conversation.session.reply, OK)

    def test_twice_is_said_once(self):
        conversation = Conversation()
        conversation.session.close(CLOSING)
        conversation.session.close(CLOSING)
        self.assertEqual(conversation.session.data_to_send(), b"421 4.3.2 Closing\r\n")

    def test_between_a_last_chunk_and_its_end(self):
        conversation = Conversation().address()
        session = conversation.session
        conversation.send(b"DATA\r\n")
        session.receive_data(b"x\r\n.\r\n")
        self.assertEqual(session.next_event(), Chunk(b"x\r\n"))
        session.close(CLOSING)
        self.assertIs(session.next_event(), Wait.CLOSED)

    def test_a_421_to_any_question_ends_the_session(self):
        kinds = (Hello, Mail, Rcpt, Data, EndOfData)
        lines = [*(LINES[verb] for verb in ("EHLO", "MAIL", "RCPT", "DATA")), b".\r\n"]
        for kind in kinds:
            conversation = Conversation(answer=lambda event, kind=kind: CLOSING if isinstance(event, kind) else friendly(event))
            conversation.send(*lines, b"NOOP\r\n")
            self.assertIsInstance(conversation.events[-1], kind)
            self.assertTrue(conversation.said.endswith(b"421 4.3.2 Closing\r\n"), kind)
            self.assertIs(conversation.wait, Wait.CLOSED)


class MemoryTests(SynchronousTestCase):
    def test_an_idle_session_is_small_and_keeps_nothing_of_its_last_message(self):
        def idle() -> ServerSession:
            conversation = Conversation().address()
            conversation.send(b"DATA\r\n", b"x" * 60_000 + b"\r\n.\r\n")
            return conversation.session

        idle()
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            sessions = [idle() for _ in range(50)]
            each = (tracemalloc.get_traced_memory()[0] - before) / len(sessions)
        finally:
            tracemalloc.stop()
        self.assertLess(each, 1200)

    def test_a_session_in_the_middle_of_a_large_message_keeps_no_content(self):
        conversation = Conversation(limits=SessionLimits(header_octets=0)).address()
        session = conversation.session
        session.receive_data(b"DATA\r\n")
        session.next_event()
        session.reply(GO_ON)
        for _ in range(100):
            session.receive_data(b"y" * 65536)
            while session.next_event() is not Wait.NEED_DATA:
                pass
            self.assertEqual((session.buffered, session._buffer.data), (0, b""))
