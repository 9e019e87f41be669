"""CHUNKING and BINARYMIME (RFC 3030)."""

from twisted.trial.unittest import SynchronousTestCase

from mailserver.mail.reply import Reply
from mailserver.smtp.events import Closed, Data, EndOfData, Event, Rejected, Reset, Wait
from mailserver.smtp.server.session import Extensions, SessionLimits
from mailserver.smtp.server.states import State
from tests.smtp.server.conversation import NO, Conversation, friendly


def no_data(event: Event) -> Reply:
    return NO if isinstance(event, Data) else friendly(event)

REFUSING = SessionLimits(message_octets=1_000_000, stray_line_ends="refuse")


class BdatTests(SynchronousTestCase):
    def test_one_last_chunk(self):
        conversation = Conversation().address()
        conversation.send(b"BDAT 7 LAST\r\nabcde\r\nNOOP\r\n")
        self.assertEqual(conversation.messages, [(b"abcde\r\n", EndOfData(7, None))])
        self.assertEqual(conversation.codes, [250, 250])

    def test_several_chunks_each_with_its_250(self):
        conversation = Conversation().address()
        conversation.send(b"BDAT 3\r\nab\r", b"BDAT 2\r\n\nc", b"BDAT 3 LAST\r\nd\r\n")
        self.assertEqual(conversation.messages, [(b"ab\r\ncd\r\n", EndOfData(8, None))])
        self.assertEqual(conversation.codes, [250, 250, 250])
        self.assertEqual([type(event) for event in conversation.events].count(Data), 1)

    def test_pipelined_in_one_piece(self):
        conversation = Conversation().say_hello()
        conversation.send(
            b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nBDAT 3\r\nabcBDAT 2 LAST\r\n\r\nMAIL FROM:<>\r\nQUIT\r\n"
        )
        self.assertEqual(conversation.codes, [250, 250, 250, 250, 250, 221])
        self.assertEqual(conversation.content, b"abc\r\n")

    def test_an_empty_last_chunk_ends_the_message(self):
        conversation = Conversation().address()
        conversation.send(b"BDAT 2\r\nab", b"BDAT 0 LAST\r\n")
        self.assertEqual(conversation.messages, [(b"ab", EndOfData(2, None))])
        conversation.address()
        conversation.send(b"BDAT 0 LAST\r\n")
        self.assertEqual(conversation.events, [Data(chunking=True), EndOfData(0, None)])

    def test_ten_thousand_empty_chunks(self):
        conversation = Conversation().address()
        conversation.send(b"BDAT 0\r\n" * 10_000 + b"BDAT 0 LAST\r\n")
        self.assertEqual(conversation.codes, [250] * 10_001)

    def test_dots_and_false_ends_are_content(self):
        conversation = Conversation().address()
        conversation.send(b"BDAT 12 LAST\r\na\r\n..\r\n.\r\n\r\n")
        self.assertEqual(conversation.content, b"a\r\n..\r\n.\r\n\r\n")

    def test_the_content_need_not_look_like_commands_end(self):
        conversation = Conversation().address()
        conversation.send(b"BDAT 14 LAST\r\nQUIT\r\nBDAT 0\r\n")
        self.assertEqual(conversation.content, b"QUIT\r\nBDAT 0\r\n")

    def test_other_commands_between_chunks(self):
        conversation = Conversation().address()
        conversation.send(b"BDAT 2\r\nab")
        conversation.forget()
        for line in (b"MAIL FROM:<a@b.example>", b"RCPT TO:<a@b.example>", b"DATA", b"STARTTLS", b"AUTH PLAIN"):
            conversation.send(line + b"\r\n")
        self.assertEqual(conversation.codes, [503] * 5)
        conversation.send(b"NOOP\r\nBDAT 1 LAST\r\nc")
        self.assertEqual(conversation.messages, [(b"c", EndOfData(3, None))])

    def test_rset_between_chunks_throws_them_away(self):
        conversation = Conversation().address()
        conversation.send(b"BDAT 2\r\nabRSET\r\nBDAT 3 LAST\r\nxyzNOOP\r\n")
        self.assertEqual([type(event) for event in conversation.events[-3:-1]], [Reset, Rejected])
        self.assertEqual(conversation.codes, [250, 250, 503, 250])

    def test_out_of_order_it_is_503_after_its_octets_have_been_thrown_away(self):
        for prepare in (b"", b"EHLO a.example\r\n", b"EHLO a.example\r\nMAIL FROM:<>\r\n"):
            for step in (1, 4, 100):
                conversation = Conversation()
                conversation.send(prepare)
                conversation.forget()
                wire = b"BDAT 6 LAST\r\nQUIT\r\nNOOP\r\n"
                conversation.send(*[wire[n : n + step] for n in range(0, len(wire), step)])
                self.assertEqual(conversation.rejected, [("BDAT", 503, "5.5.1")], (prepare, step))
                self.assertEqual(conversation.codes, [503, 250], (prepare, step))

    def test_the_503_is_not_said_before_the_octets_are_in(self):
        conversation = Conversation().say_hello()
        self.assertEqual(conversation.send(b"BDAT 6\r\nQUIT\r"), b"")
        self.assertEqual(conversation.send(b"\n")[:3], b"503")

    def test_a_refused_first_chunk_is_thrown_away_before_the_refusal(self):
        conversation = Conversation(answer=no_data).address()
        self.assertEqual(conversation.send(b"BDAT 6\r\nQUIT\r"), b"")
        self.assertEqual(conversation.send(b"\nNOOP\r\n"), b"550 5.7.1 No\r\n250 2.0.0 OK\r\n")
        self.assertIs(conversation.session.state, State.READY)

    def test_chunks_pipelined_behind_a_refused_one_are_thrown_away(self):
        # RFC 3030 section 2
        conversation = Conversation(answer=no_data).address()
        conversation.send(b"BDAT 6\r\nQUIT\r\nBDAT 6\r\nQUIT\r\nBDAT 6 LAST\r\nQUIT\r\nRSET\r\nNOOP\r\n")
        self.assertEqual(conversation.codes, [550, 503, 503, 250, 250])

    def test_after_last_it_is_503(self):
        conversation = Conversation().address()
        conversation.send(b"BDAT 2 LAST\r\nabBDAT 2 LAST\r\nab")
        self.assertEqual(conversation.codes, [250, 503])

    def test_malformed_counts_are_501_and_no_octets_are_waited_for(self):
        for argument in (b"", b"-5", b"+5", b"1.5", b"0x10", b"1_0", b"abc", b"5LAST", b"5 FIRST", b"5 LAST x", b"9" * 21, b"5  LAST", b" 5"):
            for prepare in (True, False):
                conversation = Conversation()
                conversation.address() if prepare else conversation.say_hello()
                conversation.send(b"BDAT " + argument + b"\r\nNOOP\r\n")
                self.assertEqual(conversation.codes, [501, 250], argument)
                self.assertEqual(conversation.rejected, [("BDAT", 501, "5.5.4")])

    def test_a_claim_far_past_the_limit_is_the_end(self):
        for claim in (b"9" * 20, b"11000001"):
            for line in (b"BDAT %s LAST\r\n", b"BDAT %s\r\n"):
                for prepare in (True, False):
                    conversation = Conversation(limits=SessionLimits(message_octets=500_000))
                    conversation.address() if prepare else conversation.say_hello()
                    conversation.send(line % claim + b"QUIT\r\n")
                    self.assertIsInstance(conversation.events[-1], Closed)
                    self.assertEqual(conversation.codes, [552])
                    self.assertIs(conversation.wait, Wait.CLOSED)

    def test_claims_that_add_up_far_past_the_limit_are_the_end_too(self):
        conversation = Conversation(limits=SessionLimits(message_octets=10, excess_octets=10)).address()
        conversation.send(b"BDAT 8\r\n12345678BDAT 13 LAST\r\n")
        self.assertEqual(conversation.codes, [250, 552])
        self.assertIsInstance(conversation.events[-1], Closed)

    def test_a_message_past_the_limit_is_refused_with_the_chunk_that_goes_past(self):
        conversation = Conversation(limits=SessionLimits(message_octets=10)).address()
        conversation.send(b"BDAT 8\r\n12345678BDAT 8\r\n12345678BDAT 2 LAST\r\nxyNOOP\r\n")
        self.assertEqual(conversation.codes, [250, 552, 503, 250])
        end = conversation.messages[0][1]
        self.assertEqual(end and end.fault and end.fault.code, 552)

    def test_it_is_502_where_it_is_not_offered_and_its_octets_are_not_commands(self):
        conversation = Conversation(extensions=Extensions(chunking=False, binarymime=False)).address()
        conversation.send(b"BDAT 6 LAST\r\nQUIT\r\nNOOP\r\n")
        self.assertEqual(conversation.codes, [502, 250])


class FaultTests(SynchronousTestCase):
    def test_stray_line_ends_are_mended_or_a_fault_as_in_data_across_chunks(self):
        for chunks, content in (
            ((b"a\r", b"\nb"), None),
            ((b"a\r", b"b"), b"a b"),
            ((b"a", b"\nb"), b"a\r\nb"),
            ((b"a\r\n", b"\nb"), b"a\r\n\r\nb"),
            ((b"a\r", b"\r\n"), b"a \r\n"),
            ((b"a", b"b\r"), b"ab "),
            ((b"a", b"\0"), b"a\0"),
        ):
            wire = b"BDAT %d\r\n" % len(chunks[0]) + chunks[0], b"BDAT %d LAST\r\n" % len(chunks[1]) + chunks[1]
            conversation = Conversation().address()
            conversation.send(*wire)
            self.assertEqual((conversation.codes, conversation.content), ([250, 250], content or b"a\r\nb"), chunks)
            conversation = Conversation(limits=REFUSING).address()
            conversation.send(*wire)
            self.assertEqual(conversation.codes, [250, 550 if content else 250], chunks)

    def test_a_fault_ends_the_message_with_the_chunk_that_has_it(self):
        conversation = Conversation(limits=REFUSING).address()
        conversation.send(b"BDAT 3\r\na\nbBDAT 2 LAST\r\nabNOOP\r\n")
        self.assertEqual(conversation.codes, [550, 503, 250])

    def test_binarymime_may_hold_anything(self):
        content = bytes(range(256)) + b"\r\n.\r\n\n.\n\0"
        conversation = Conversation().address(parameters=b" BODY=BINARYMIME")
        conversation.send(b"BDAT %d LAST\r\n" % len(content) + content)
        self.assertEqual(conversation.messages, [(content, EndOfData(len(content), None))])

    def test_the_header_limit_holds_for_binary_across_any_border(self):
        content = b"A: b\r\n\r\n" + b"x" * 90
        for spare, code in ((0, 250), (-1, 552)):
            for cut in range(len(content)):
                conversation = Conversation(limits=SessionLimits(header_octets=8 + spare)).address(parameters=b" BODY=BINARYMIME")
                conversation.send(b"BDAT %d LAST\r\n" % len(content) + content[:cut], content[cut:])
                self.assertEqual(conversation.codes, [code], (spare, cut))

    def test_stray_line_ends_are_not_mended_in_binary(self):
        conversation = Conversation().address()
        conversation.send(b"BDAT 2\r\na\nBDAT 2 LAST\r\nb\n")
        self.assertEqual(conversation.content, b"a\r\nb\r\n")
        conversation.address(parameters=b" BODY=BINARYMIME")
        conversation.send(b"BDAT 2 LAST\r\na\n")
        self.assertEqual(conversation.messages, [(b"a\n", EndOfData(2, None))])
