"""What a peer says, read as replies."""

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.mail.reply import Reply
from mailserver.smtp.client.limits import ClientLimits, Phase
from mailserver.smtp.client.replies import ReplyFault, ReplyReader
from tests.any_octets import any_octets

LIMITS = ClientLimits(reply_line_octets=40, reply_lines=4, reply_octets=100)


def read(*pieces: bytes, limits: ClientLimits = LIMITS, lenient: bool = False) -> list[object]:
    """The replies, and the fault that ends them as its text."""
    reader = ReplyReader(limits)
    heard: list[object] = []
    try:
        for piece in pieces:
            reader.append(piece)
            while (reply := reader.next_reply(lenient=lenient)) is not None:
                heard.append(reply)
    except ReplyFault as fault:
        heard.append(str(fault).partition(":")[0])
    return heard


class ReplyTests(SynchronousTestCase):
    def test_one_line(self):
        self.assertEqual(read(b"250 2.1.0 OK so far\r\n"), [Reply.of(250, "2.1.0", "OK so far")])

    def test_the_code_may_stand_alone(self):
        # RFC 5321 section 4.2.
        for line in (b"250\r\n", b"250 \r\n"):
            self.assertEqual(read(line), [Reply.of(250, "", "")])
        self.assertEqual(read(b"250-\r\n250\r\n"), [Reply.of(250, "", "", "")])

    def test_several_lines_make_one_reply(self):
        self.assertEqual(read(b"550-a\r\n550-b\r\n550 c\r\n250 d\r\n"), [Reply.of(550, "", "a", "b", "c"), Reply.of(250, "", "d")])

    def test_the_enhanced_code_is_taken_from_each_line(self):
        self.assertEqual(read(b"550-5.1.1 a\r\n550 5.1.1 b\r\n"), [Reply.of(550, "5.1.1", "a", "b")])
        self.assertEqual(read(b"550 5.1.1\r\n"), [Reply.of(550, "5.1.1", "")])

    def test_an_enhanced_code_of_another_class_is_text(self):
        # RFC 2034 section 4: its class is that of the code.
        self.assertEqual(read(b"550 4.1.1 a\r\n"), [Reply.of(550, "", "4.1.1 a")])
        self.assertEqual(read(b"550-4.1.1 a\r\n550 4.1.1 b\r\n"), [Reply.of(550, "", "4.1.1 a", "4.1.1 b")])

    def test_enhanced_codes_that_differ_are_text(self):
        self.assertEqual(read(b"550-5.1.1 a\r\n550 5.1.2 b\r\n"), [Reply.of(550, "", "5.1.1 a", "5.1.2 b")])

    def test_an_address_is_no_enhanced_code(self):
        self.assertEqual(read(b"554 5.6.7.8 is listed\r\n"), [Reply.of(554, "", "5.6.7.8 is listed")])

    def test_non_ascii_and_control_octets_are_made_harmless(self):
        self.assertEqual(read("550 größer\r\n".encode()), [Reply.of(550, "", "größer")])
        self.assertEqual(read(b"550 gr\xf6\xdfer\r\n"), [Reply.of(550, "", "gr\ufffd\ufffder")])
        self.assertEqual(read(b"550 a\x1b[2Jb\0\r\n"), [Reply.of(550, "", "a?[2Jb?")])
        self.assertEqual(read(b"550-a\x00\r\n550 b\xff\r\n"), [Reply.of(550, "", "a?", "b\ufffd")])

    def test_garbage_is_a_fault(self):
        for line in (b"\r\n", b"hello\r\n", b"25\r\n", b"2500 x\r\n", b"250x\r\n", b"150 x\r\n", b"650 x\r\n", b" 250 x\r\n", b"SSH-2.0-x\r\n"):
            self.assertEqual(read(line), ["not a line of a reply"], line)
        self.assertEqual(read(b"250 ok\r\n<html>\r\n"), [Reply.of(250, "", "ok"), "not a line of a reply"])

    def test_a_bare_cr_or_lf_is_a_fault_since_it_could_hide_a_reply(self):
        for line in (b"250 ok\n550 no\r\n", b"250 ok\r550 no\r\n", b"250\nx\r\n"):
            self.assertEqual(read(line), ["not a line of a reply"], line)
        self.assertEqual(read(b"250-a\nb\r\n250 c\r\n"), ["not a line of a reply"])

    def test_only_crlf_ends_a_line_and_nobody_waits_for_it_where_an_lf_has_come(self):
        self.assertEqual(read(b"250 ok\n"), ["not a line of a reply"])
        self.assertEqual(read(b"250 ok\n\r\n"), ["not a line of a reply"])

    def test_two_codes_in_one_reply_are_a_fault(self):
        # RFC 5321 section 4.2.1.
        self.assertEqual(read(b"250-a\r\n550 b\r\n"), ["a reply with two codes"])

    def test_a_line_has_a_greatest_length(self):
        self.assertEqual(len(read(b"250 " + b"x" * 34 + b"\r\n")), 1)
        self.assertIsInstance(read(b"250 " + b"x" * 34 + b"\r\n")[0], Reply)
        self.assertEqual(read(b"250 " + b"x" * 35 + b"\r\n"), ["a line of a reply is too long"])
        self.assertEqual(read(b"250 " + b"x" * 37), ["a line of a reply is too long"])
        self.assertEqual(read(b"250 " + b"x" * 36), [])

    def test_a_reply_has_a_greatest_number_of_lines(self):
        self.assertIsInstance(read(b"250-a\r\n" * 3 + b"250 a\r\n")[0], Reply)
        self.assertEqual(read(b"250-a\r\n" * 4 + b"250 a\r\n"), ["the reply is too long"])
        self.assertEqual(read(b"250-a\r\n" * 5), ["the reply is too long"])

    def test_a_reply_has_a_greatest_length(self):
        self.assertEqual(read((b"250-" + b"x" * 34 + b"\r\n") * 3), ["the reply is too long"])
        self.assertEqual(read((b"250-" + b"x" * 19 + b"\r\n") * 3 + b"250 " + b"x" * 19 + b"\r\n")[0].code, 250)
        self.assertEqual(read((b"250-" + b"x" * 19 + b"\r\n") * 3 + b"250 " + b"x" * 20 + b"\r\n"), ["the reply is too long"])

    def test_replies_of_one_line_that_come_again_are_the_same_object(self):
        first, second = read(b"250 2.1.0 OK\r\n250 2.1.0 OK\r\n")
        self.assertIs(first, second)

    def test_what_is_remembered_is_bounded(self):
        reader = ReplyReader(ClientLimits())
        for n in range(100):
            reader.append(b"250 %d\r\n" % n)
            self.assertEqual(reader.next_reply().lines, (str(n),))
        self.assertEqual(len(reader._remembered), 16)

    def test_a_line_that_was_a_reply_is_none_at_the_end_of_another_one(self):
        self.assertEqual(read(b"250 a\r\n250-b\r\n250 a\r\n"), [Reply.of(250, "", "a"), Reply.of(250, "", "b", "a")])

    def test_it_knows_whether_something_waits(self):
        reader = ReplyReader(ClientLimits())
        self.assertTrue(reader.is_empty)
        for octets in (b"2", b"50-a\r\n", b"250 b\r\n250"):
            reader.append(octets)
            reader.next_reply()
            self.assertFalse(reader.is_empty, octets)
        reader.append(b" c\r\n")
        reader.next_reply()
        self.assertTrue(reader.is_empty)
        reader.append(b"250-d\r\n")
        reader.next_reply()
        reader.clear()
        self.assertTrue(reader.is_empty)
        reader.append(b"250 e\r\n")
        self.assertEqual(reader.next_reply(), Reply.of(250, "", "e"))

    @settings(max_examples=300)
    @given(
        st.lists(
            st.one_of(
                st.sampled_from([b"250 a\r\n", b"250-", b"250-a\r\n", b"250", b"\r\n", b"\r", b"\n", b"550 5.1.1 x\r\n", b"x" * 20]),
                any_octets(max_size=12),
            ),
            max_size=12,
        ),
        st.lists(st.integers(0, 200), max_size=8),
    )
    def test_any_split_gives_the_same_replies(self, parts, cuts):
        wire = b"".join(parts)
        borders = [0, *sorted(min(cut, len(wire)) for cut in cuts), len(wire)]
        for lenient in (False, True):
            whole = read(wire, lenient=lenient)
            self.assertEqual(read(*[wire[a:b] for a, b in itertools.pairwise(borders)], lenient=lenient), whole)
            self.assertEqual(read(*[wire[n : n + 1] for n in range(len(wire))], lenient=lenient), whole)


class LenientTests(SynchronousTestCase):
    """What is understood while one answer is waited for."""

    def lenient(self, *pieces: bytes) -> list[object]:
        return read(*pieces, lenient=True)

    def test_lf_alone_ends_a_line(self):
        self.assertEqual(self.lenient(b"250-a\n250 b\n220 c\r\n"), [Reply.of(250, "", "a", "b"), Reply.of(220, "", "c")])

    def test_of_two_codes_in_one_reply_the_last_counts(self):
        self.assertEqual(self.lenient(b"251-a\r\n250 b\r\n"), [Reply.of(250, "", "a", "b")])
        self.assertEqual(self.lenient(b"250-2.1.5 a\r\n550 5.1.1 b\r\n"), [Reply.of(550, "", "2.1.5 a", "5.1.1 b")])

    def test_empty_lines_between_replies_are_passed_over_and_counted(self):
        self.assertEqual(self.lenient(b"\r\n\n250 a\r\n\r\n", b"\r", b"\n250 b\r\n"), [Reply.of(250, "", "a"), Reply.of(250, "", "b")])
        self.assertEqual(self.lenient(b"\r\n" * 4 + b"250 a\r\n"), [Reply.of(250, "", "a")])
        self.assertEqual(self.lenient(b"\r\n" * 5), ["empty lines in place of a reply"])

    def test_an_empty_line_inside_a_reply_and_a_bare_cr_stay_faults(self):
        self.assertEqual(self.lenient(b"250-a\r\n\r\n250 b\r\n"), ["not a line of a reply"])
        self.assertEqual(self.lenient(b"250 a\r550 b\n"), ["not a line of a reply"])

    def test_it_is_known_that_leniency_was_needed(self):
        for octets, sloppy in ((b"250 a\r\n", False), (b"250 a\n", True), (b"250-a\r\n251 b\r\n", True), (b"\r\n250 a\r\n", True)):
            reader = ReplyReader(LIMITS)
            reader.append(octets)
            self.assertIsNotNone(reader.next_reply(lenient=True))
            self.assertEqual(reader.is_sloppy, sloppy, octets)


class LimitsTests(SynchronousTestCase):
    def test_every_phase_has_its_time(self):
        limits = ClientLimits(rcpt_seconds=7)
        self.assertEqual(limits.seconds(Phase.RCPT), 7)
        # RFC 5321 section 4.5.3.2.
        wanted = {"GREETING": 300, "MAIL": 300, "RCPT": 300, "DATA": 120, "CONTENT": 180, "END": 600}
        for name, seconds in wanted.items():
            self.assertEqual(ClientLimits().seconds(Phase[name]), seconds)
        for phase in Phase:
            self.assertGreater(ClientLimits().seconds(phase), 0)
