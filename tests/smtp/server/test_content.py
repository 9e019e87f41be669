"""The content of DATA: its end, its dots, its faults (RFC 5321 sections 2.3.8, 4.1.1.4, 4.5.2)."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.smtp.client.content import DotWriter
from mailserver.smtp.events import Chunk, Closed, Data, EndOfData, Wait
from mailserver.smtp.server.data import DotReader, LineFeedReader
from mailserver.smtp.server.session import SessionLimits
from mailserver.smtp.server.states import State
from tests.smtp.server.conversation import NO, Conversation, friendly

REFUSING = SessionLimits(message_octets=1_000_000, stray_line_ends="refuse")


def receive(wire: bytes, **kinds: object) -> Conversation:
    conversation = Conversation(**kinds).address()  # type: ignore[arg-type]
    conversation.send(b"DATA\r\n")
    conversation.send(wire)
    return conversation


class DataTests(SynchronousTestCase):
    def test_a_message_goes_through(self):
        conversation = receive(b"Subject: hi\r\n\r\nHello\r\n.\r\n")
        self.assertEqual(conversation.messages, [(b"Subject: hi\r\n\r\nHello\r\n", EndOfData(22, None))])
        self.assertEqual(conversation.codes, [354, 250])
        self.assertIs(conversation.session.state, State.READY)

    def test_an_empty_message(self):
        conversation = receive(b".\r\n")
        self.assertEqual(conversation.events, [Data(False), EndOfData(0, None)])

    def test_dots_are_undone(self):
        # RFC 5321 section 4.5.2
        for wire, content in (
            (b"..\r\n.\r\n", b".\r\n"),
            (b"...\r\n.\r\n", b"..\r\n"),
            (b".a\r\n.\r\n", b"a\r\n"),
            (b"a\r\n..b\r\n.c\r\nd.\r\n.\r\n", b"a\r\n.b\r\nc\r\nd.\r\n"),
            (b"\r\n..\r\n..\r\n\r\n.\r\n", b"\r\n.\r\n.\r\n\r\n"),
            (b"a.\r\n.\r\n", b"a.\r\n"),
        ):
            self.assertEqual(receive(wire).messages, [(content, EndOfData(len(content), None))], wire)

    def test_the_size_is_that_of_the_content_not_of_the_wire(self):
        self.assertEqual(receive(b"..\r\n" * 10 + b".\r\n").events[-1], EndOfData(30, None))

    def test_what_follows_the_end_is_the_next_command(self):
        conversation = receive(b"a\r\n.\r\nNOOP\r\nQUIT\r\n")
        self.assertEqual(conversation.codes, [354, 250, 250, 221])

    def test_the_end_is_found_across_any_border(self):
        wire = b"line\r\n..dot\r\n.\r\n"
        for cut in range(len(wire)):
            for second in range(cut, len(wire)):
                conversation = Conversation().address()
                conversation.send(b"DATA\r\n", wire[:cut], wire[cut:second], wire[second:])
                self.assertEqual(conversation.messages, [(b"line\r\n.dot\r\n", EndOfData(12, None))], (cut, second))

    def test_octets_above_127_are_content(self):
        self.assertEqual(receive(b"\xff\x80\r\n.\r\n").content, b"\xff\x80\r\n")

    def test_a_refused_data_ends_the_transaction_and_is_no_354(self):
        conversation = Conversation(answer=lambda event: NO if isinstance(event, Data) else friendly(event)).address()
        self.assertEqual(conversation.send(b"DATA\r\n"), b"550 5.7.1 No\r\n")
        self.assertIs(conversation.session.state, State.READY)
        self.assertEqual(conversation.send(b"NOOP\r\n")[:3], b"250")

    def test_data_with_binarymime_is_503(self):
        # RFC 3030 section 3
        conversation = Conversation().address(parameters=b" BODY=BINARYMIME")
        conversation.send(b"DATA\r\n")
        self.assertEqual(conversation.rejected, [("DATA", 503, "5.5.1")])

    def test_content_that_came_before_354_is_noted(self):
        # RFC 2920 section 3.1: DATA ends a group
        conversation = Conversation().address()
        conversation.send(b"DATA\r\nearly\r\n.\r\n")
        self.assertTrue(conversation.session.data_was_early)
        conversation.address()
        conversation.send(b"DATA\r\n", b"patient\r\n.\r\n")
        self.assertFalse(conversation.session.data_was_early)
        self.assertEqual(conversation.content, b"patient\r\n")

    def test_chunks_come_as_they_arrive_and_are_not_gathered(self):
        conversation = receive(b"x" * 100_000, limits=SessionLimits(header_octets=0))
        self.assertEqual(conversation.events, [Data(False), Chunk(b"x" * 100_000)])
        self.assertEqual(conversation.session.buffered, 0)


class FaultTests(SynchronousTestCase):
    def fault(self, wire: bytes, **kinds: object) -> tuple[int, str]:
        conversation = receive(wire, **kinds)
        end = conversation.events[-1]
        if not isinstance(end, EndOfData) or end.fault is None:
            raise AssertionError(f"no fault: {end}")
        self.assertIs(conversation.session.state, State.READY)
        self.assertEqual(conversation.send(b"NOOP\r\n"), b"250 2.0.0 OK\r\n")
        return end.fault.code, end.fault.enhanced

    def test_bare_cr_bare_lf_and_nul_where_they_are_refused(self):
        for wire in (b"a\rb", b"a\nb", b"\na", b"\ra", b"a\n", b"a\r", b"a\n\r", b"a\r\r", b"\0", b"a\0b", b".\r.", b".\n"):
            self.assertEqual(self.fault(wire + b"\r\n.\r\n", limits=REFUSING), (550, "5.6.0"), wire)

    def test_a_fault_is_seen_across_any_border(self):
        for wire in (b"ab\ncd\r\n.\r\n", b"ab\rcd\r\n.\r\n", b"ab\r\r\n.\r\n", b"\n.\r\n.\r\n", b"ab\r\n\n.\r\n.\r\n", b"a\0\r\n.\r\n"):
            for cut in range(1, len(wire)):
                conversation = Conversation(limits=REFUSING).address()
                conversation.send(b"DATA\r\n", wire[:cut], wire[cut:], b"NOOP\r\n")
                self.assertEqual(conversation.codes, [354, 550, 250], (wire, cut))

    def test_too_large_is_552_at_the_true_end(self):
        limits = SessionLimits(message_octets=1000)
        self.assertEqual(self.fault(b"x\r\n" * 334 + b".\r\n", limits=limits), (552, "5.3.4"))
        self.assertEqual(receive(b"x" * 998 + b"\r\n.\r\n", limits=limits).codes, [354, 250])

    def test_a_limit_of_one_octet_is_one_and_none_is_none(self):
        for octets, code in ((0, 250), (1, 552)):
            limits = SessionLimits(message_octets=octets, excess_octets=5000)
            self.assertEqual(receive(b"a\r\n.\r\n", limits=limits).codes, [354, code], octets)
        self.assertEqual(receive(b"a\r\n" * 3000 + b".\r\n", limits=SessionLimits(message_octets=0, excess_octets=1)).codes, [354, 250])

    def test_no_chunk_goes_past_the_limit_by_more_than_one_arrival(self):
        conversation = Conversation(limits=SessionLimits(message_octets=1000, header_octets=0)).address()
        conversation.send(b"DATA\r\n", *[b"x" * 400] * 100)
        self.assertEqual(sum(len(event.data) for event in conversation.events if isinstance(event, Chunk)), 800)

    def test_far_past_the_limit_the_peer_is_cut_off(self):
        limits = SessionLimits(message_octets=1000, excess_octets=5000, header_octets=0)
        conversation = receive(b"x" * 6000, limits=limits)
        self.assertIs(conversation.wait, Wait.NEED_DATA)
        conversation.send(b"x")
        self.assertIsInstance(conversation.events[-1], Closed)
        self.assertEqual(conversation.codes, [354, 552])
        self.assertIs(conversation.wait, Wait.CLOSED)

    def test_an_endless_header_is_a_fault(self):
        limits = SessionLimits(header_octets=100)
        field = b"X: " + b"y" * 45 + b"\r\n"
        self.assertEqual(self.fault(field * 2 + b"\r\n\r\n.\r\n", limits=limits), (552, "5.3.4"))
        self.assertEqual(self.fault(field * 50 + b".\r\n", limits=limits), (552, "5.3.4"))
        self.assertEqual(receive(field + b"\r\n" + field * 50 + b".\r\n", limits=limits).codes, [354, 250])
        self.assertEqual(receive(b"\r\n" + field * 50 + b".\r\n", limits=limits).codes, [354, 250])

    def test_the_header_limit_is_exact_across_any_border(self):
        for spare, code in ((0, 250), (-1, 552)):
            wire = b"A: b\r\nC: d\r\n\r\nbody\r\n.\r\n"
            limits = SessionLimits(header_octets=wire.index(b"body") + spare)
            for cut in range(len(wire)):
                conversation = Conversation(limits=limits).address()
                conversation.send(b"DATA\r\n", wire[:cut], wire[cut:])
                self.assertEqual(conversation.codes, [354, code], (spare, cut))


class NormalizeTests(SynchronousTestCase):
    def test_a_bare_lf_becomes_crlf_a_lone_cr_a_blank_and_nul_passes(self):
        for wire, content in (
            (b"a\nb\r\nc\n\nd\n\r\n.\r\n", b"a\r\nb\r\nc\r\n\r\nd\r\n\r\n"),
            (b"\na\r\n.\r\n", b"\r\na\r\n"),
            (b"a\rb\r\n.\r\n", b"a b\r\n"),
            (b"\ra\r\r\n.\r\n", b" a \r\n"),
            (b"a\n\rb\r\n.\r\n", b"a\r\n b\r\n"),
            (b"a\0b\0\r\n.\r\n", b"a\0b\0\r\n"),
            (b"a\r\0\nb\r\n.\r\n", b"a \0\r\nb\r\n"),
        ):
            for cut in range(len(wire)):
                conversation = Conversation().address()
                conversation.send(b"DATA\r\n", wire[:cut], wire[cut:])
                self.assertEqual(conversation.content, content, (wire, cut))
                self.assertEqual(conversation.codes, [354, 250], (wire, cut))

    def test_dots_are_undone_after_crlf_alone(self):
        for wire, content in (
            (b"a\n..b\r\n..c\r\n", b"a\r\n..b\r\n.c\r\n"),
            (b"a\r..b\r\n", b"a ..b\r\n"),
            (b".a\n.b\r\n", b"a\r\n.b\r\n"),
            (b"a\r\n.\nb\r\n", b"a\r\n\r\nb\r\n"),
            (b"a\r\n.\rb\r\n", b"a\r\n b\r\n"),
        ):
            for cut in range(len(wire)):
                conversation = Conversation().address()
                conversation.send(b"DATA\r\n", wire[:cut], wire[cut:] + b".\r\n")
                self.assertEqual(conversation.content, content, (wire, cut))

    def test_a_line_with_a_lone_dot_that_comes_into_being_is_content(self):
        for wire, content in (
            (b"a\n.\nb", b"a\r\n.\r\nb"),
            (b"a\n.\r\nb", b"a\r\n.\r\nb"),
            (b"\n.\n.\n.\r\nb", b"\r\n.\r\n.\r\n.\r\nb"),
            (b"\r\n..\nb", b"\r\n.\r\nb"),
        ):
            for cut in range(len(wire) + 5):
                whole = wire + b"\r\n.\r\n"
                conversation = Conversation().address()
                conversation.send(b"DATA\r\n", whole[:cut], whole[cut:])
                ((kept, end),) = conversation.messages
                self.assertEqual((kept, end.size, end.fault), (content + b"\r\n", len(content) + 2, None), (wire, cut))

    def test_the_size_is_that_after_the_conversion(self):
        limits = SessionLimits(message_octets=1000, header_octets=0)
        self.assertEqual(receive(b"\n" * 499 + b"\r\n.\r\n", limits=limits).codes, [354, 250])
        self.assertEqual(receive(b"\n" * 500 + b"\r\n.\r\n", limits=limits).codes, [354, 552])
        conversation = receive(b"\n" * 6000, limits=SessionLimits(message_octets=1000, excess_octets=5000, header_octets=0))
        self.assertIsInstance(conversation.events[-1], Closed)

    def test_what_stood_in_the_header_is_told(self):
        for wire, told in (
            (b"A: b\nC: d\r\n\r\ntext\r\n", True),
            (b"A: b\rc\r\n\r\ntext\r\n", True),
            (b"A: b\r\n\ntext\r\n", True),
            (b"A: b\r\n\r\nte\nxt\r\n", False),
            (b"A: b\r\n\r\n\ntext\r\n", False),
            (b"\r\nA: b\nC: d\r\n", False),
            (b"A: b\r\nno field\nC: d\r\n", False),
            (b"From me\nA: b\r\n\r\ntext\r\n", True),
            (b"A: b\r\n\r\ntext\r\n", False),
        ):
            for cut in range(len(wire)):
                conversation = Conversation().address()
                conversation.send(b"DATA\r\n", wire[:cut], wire[cut:], b".\r\n")
                self.assertEqual(conversation.events[-1].stray_in_header, told, (wire, cut))

    @given(st.lists(st.sampled_from([b"a", b".", b"\n", b"\r\n", b"\r", b"\0", b": "]), max_size=12))
    def test_stuffing_what_was_kept_gives_it_back(self, parts):
        # Safe to relay: dot-stuffing the content and receiving it again is no change and no earlier end.
        first = receive(b"".join(parts) + b"\r\n.\r\nNOOP\r\n").messages[0]
        content, end = first
        self.assertEqual((end.size, end.fault), (len(content), None))
        stuffed = (b"\r\n" + content).replace(b"\r\n.", b"\r\n..")[2:] + b".\r\n"
        self.assertEqual(receive(stuffed).messages, [(content, EndOfData(len(content), None))])
        writer = DotWriter()
        self.assertEqual(writer.write(content) + writer.end(), stuffed)


class HeaderEndTests(SynchronousTestCase):
    """Text that follows the header without an empty line is no endless header."""

    def test_a_line_that_is_no_field_ends_the_header(self):
        limits = SessionLimits(header_octets=60)
        text = b"Many words of a report\r\n" * 20
        for head, code in (
            (b"A: b\r\n", 250),
            (b"", 250),
            (b"A : b\r\n c\r\n", 250),
            (b"From me\r\nA: b\r\n", 250),
            (b"A: b\r\n" * 12, 552),
            (b"A: b\r\nx\r\n" + b"A: b\r\n" * 12, 250),
        ):
            for cut in range(1, len(head) + 30):
                conversation = Conversation(limits=limits).address()
                conversation.send(b"DATA\r\n", (head + text)[:cut], (head + text)[cut:], b".\r\n")
                self.assertEqual(conversation.codes, [354, code], (head, cut))

    def test_a_line_without_a_colon_is_no_field_however_long(self):
        limits = SessionLimits(header_octets=5000)
        self.assertEqual(receive(b"A: b\r\n" + b"x" * 100_000 + b"\r\n.\r\n", limits=limits).codes, [354, 250])
        self.assertEqual(receive(b"A: b\r\nc:" + b"x" * 100_000 + b"\r\n.\r\n", limits=limits).codes, [354, 552])
        conversation = Conversation(limits=limits).address()
        conversation.send(b"DATA\r\n", b"A: b\r\n", *[b"x" * 100] * 100, b"\r\n.\r\n")
        self.assertEqual(conversation.codes, [354, 250])


class LineFeedTests(SynchronousTestCase):
    """A peer that ends every line with LF alone (`lf_lines`)."""

    def device(self, *content: bytes, hello: bytes = b"EHLO dev\n", **kinds: object) -> Conversation:
        conversation = Conversation(lf_lines=True, **kinds)  # type: ignore[arg-type]
        conversation.send(hello)
        conversation.send(b"MAIL FROM:<a@client.example>\n")
        conversation.send(b"RCPT TO:<u@example.org>\n")
        conversation.forget()
        conversation.send(b"DATA\n")
        conversation.send(*content)
        return conversation

    def test_lf_dot_lf_ends_its_data_and_the_next_message_goes_the_same_way(self):
        for content, kept in (
            (b"Subject: a\n\none\ntwo\n.\n", b"Subject: a\r\n\r\none\r\ntwo\r\n"),
            (b".\n", b""),
            (b"..a\n..\n.b\n.\n", b".a\r\n.\r\nb\r\n"),
            (b"a\rb\n.\rc\n.\n", b"a b\r\n c\r\n"),
        ):
            for cut in range(len(content)):
                conversation = self.device(content[:cut], content[cut:])
                self.assertEqual(conversation.content, kept, (content, cut))
                self.assertEqual(conversation.codes, [354, 250], (content, cut))
                conversation.send(b"MAIL FROM:<a@client.example>\n")
                conversation.send(b"RCPT TO:<u@example.org>\n")
                conversation.send(b"DATA\n")
                conversation.send(b"more\n.\n")
                self.assertEqual(conversation.codes[2:], [250, 250, 354, 250], (content, cut))
                conversation.send(b"QUIT\n")
                self.assertEqual(conversation.codes[-1], 221)

    def test_after_one_crlf_only_crlf_ends_the_data(self):
        for content, kept in (
            (b"a\r\nb\n.\nc", b"a\r\nb\r\n.\r\nc"),
            (b"a\n.\r\nb\n.\nc", b"a\r\n.\r\nb\r\n.\r\nc"),
            (b"a\n.b\r\n.c\n.\nd", b"a\r\nb\r\nc\r\n.\r\nd"),
            (b"\r\n.\nb\n.\nc", b"\r\n\r\nb\r\n.\r\nc"),
        ):
            content += b"\r\n.\r\n"
            for cut in range(len(content)):
                conversation = self.device(content[:cut], content[cut:])
                self.assertEqual((conversation.content, conversation.codes), (kept + b"\r\n", [354, 250]), (content, cut))
                self.assertFalse(conversation.session.lf_ends_data)

    def test_after_one_crlf_an_end_of_lf_that_arrives_alone_is_none_either(self):
        for first in (b"a\r\n", b"a\n.\nb\n", b"\r\n"):
            for step in (1, 4):
                false_end = b"b\n.\n"
                conversation = self.device(first, *[false_end[at : at + step] for at in range(0, len(false_end), step)])
                self.assertEqual(conversation.codes, [354], first)
                conversation.send(b"c\r\n.\r\n")
                self.assertEqual(conversation.codes, [354, 250], first)
                self.assertEqual(conversation.content, first.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n") + b"b\r\n.\r\nc\r\n")

    def test_after_a_command_that_ended_in_crlf_too(self):
        for command in (b"NOOP\r\n", b"x" * 3000 + b"\r\n", b"EHLO dev\r\n"):
            conversation = self.device(b"a\n.\n", hello=b"EHLO dev\n" if command[:4] != b"EHLO" else command)
            if command[:4] != b"EHLO":
                self.assertEqual(conversation.codes, [354, 250])
                conversation.send(command)
                conversation.send(b"MAIL FROM:<a@client.example>\n")
                conversation.send(b"RCPT TO:<u@example.org>\n")
                conversation.send(b"DATA\n")
                conversation.send(b"a\n.\n")
            self.assertEqual(conversation.codes[-1], 354)
            conversation.send(b"\r\n.\r\n")
            self.assertEqual(conversation.codes[-1], 250)

    def test_not_with_octets_behind_it(self):
        conversation = self.device(b"a\n.\nMAIL FROM:<evil@b.example>\n")
        self.assertEqual(conversation.codes, [354])
        self.assertEqual(conversation.send(b"b\r\n.\r\n")[:3], b"250")
        self.assertEqual(conversation.content, b"a\r\n.\r\nMAIL FROM:<evil@b.example>\r\nb\r\n")

        conversation = self.device(b".\nb\n.c\r\n..d\r\n.\r\n")
        self.assertEqual(conversation.content, b".\r\nb\r\n.c\r\n.d\r\n", "where the octets behind it begin, dots are undone after CRLF alone")

    def test_after_one_crlf_what_follows_the_end_is_the_next_command(self):
        for first in (b"a\r\n", b"a\n.b\r\n", b"\r\n"):
            conversation = self.device(first + b"b\r\n.\r\nNOOP\r\nQUIT\r\n")
            self.assertEqual(conversation.codes, [354, 250, 250, 221], first)

    def test_not_after_pipelining_a_login_tls_or_bdat(self):
        for before in (b"NOOP\nNOOP\n", b"AUTH PLAIN YQ==\n", b"STARTTLS\n", b"BDAT 2\n"):
            conversation = Conversation(lf_lines=True)
            conversation.send(b"EHLO dev\n")
            conversation.send(before)
            if before == b"BDAT 2\n":
                conversation.send(b"a\n")
            self.assertIs(conversation.session.lf_ends_data, False, repr(before))

    def test_not_where_content_came_with_its_command(self):
        conversation = Conversation(lf_lines=True)
        for line in (b"EHLO dev\n", b"MAIL FROM:<a@client.example>\n", b"RCPT TO:<u@example.org>\n", b"DATA\na\n.\n"):
            conversation.send(line)
        self.assertEqual(conversation.codes[-1], 354)

    def test_the_caller_may_rule_it_out(self):
        conversation = Conversation(lf_lines=True)
        conversation.session.lf_ends_data = False
        for line in (b"EHLO dev\n", b"MAIL FROM:<a@client.example>\n", b"RCPT TO:<u@example.org>\n", b"DATA\n", b"a\n.\n"):
            conversation.send(line)
        self.assertEqual(conversation.codes[-1], 354)

    def test_stray_line_ends_are_mended_also_where_others_are_refused(self):
        self.assertEqual(self.device(b"a\rb\n.\n", limits=REFUSING).content, b"a b\r\n")


class ReaderTests(SynchronousTestCase):
    def test_minus_one_is_the_end_that_has_not_come(self):
        for text in (b"a", b"a\r\n", b"a\r\n.b", b"a\n"):
            self.assertEqual(DotReader(REFUSING, converts=False).read(text, 0)[1], -1)
            self.assertEqual(LineFeedReader(REFUSING).read(text, 0)[1], -1)

    def test_only_the_reader_of_lf_lines_has_an_end_of_lf(self):
        self.assertFalse(DotReader(REFUSING, converts=False).lf_ends)
        reader = LineFeedReader(REFUSING)
        self.assertTrue(reader.lf_ends)
        reader.read(b"a\r\n", 0)
        self.assertFalse(reader.lf_ends)


class RoundTripTests(SynchronousTestCase):
    @given(st.lists(st.sampled_from([b"a", b".", b"..", b"\r\n", b"\r\n.", b"text"]), max_size=20), st.integers(1, 7))
    def test_what_a_client_stuffs_comes_out_as_it_was(self, parts, step):
        content = b"".join(parts) + b"\r\n"
        wire = (b"\r\n" + content).replace(b"\r\n.", b"\r\n..")[2:] + b".\r\n"
        conversation = Conversation().address()
        conversation.send(b"DATA\r\n", *[wire[n : n + step] for n in range(0, len(wire), step)])
        self.assertEqual(conversation.messages, [(content, EndOfData(len(content), None))])
