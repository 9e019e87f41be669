"""However the octets of a dialogue arrive, the events and the replies are the same."""

import itertools
from dataclasses import replace

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.mail.reply import Reply
from mailserver.smtp.events import Data, EndOfData, Event, Hello, Mail, Rcpt, Reset, StartTLS
from mailserver.smtp.server.session import SessionLimits
from tests.any_octets import any_octets
from tests.smtp.server.conversation import NO, Conversation, friendly, story

# Small enough that short dialogues meet every one of them.
TIGHT = SessionLimits(command_line_octets=64, auth_line_octets=80, message_octets=60, header_octets=40, excess_octets=30)
REFUSING = replace(TIGHT, stray_line_ends="refuse")

PIECES = st.sampled_from(
    [
        b"EHLO a.example\r\n",
        b"LHLO a.example\r\n",
        b"MAIL FROM:<a@b.example>\r\n",
        b"MAIL FROM:<> BODY=BINARYMIME\r\n",
        "MAIL FROM:<é@b.example> SMTPUTF8\r\n".encode(),
        b"RCPT TO:<c@d.example>\r\n",
        b"DATA\r\n",
        b"Subject: x\r\n\r\n",
        b"text",
        b"From ",
        b"A: b\r\n",
        b" ",
        b"x" * 50,
        b"\r\n.\r\n",
        b".\r\n",
        b"..\r\n",
        b"\n.\n",
        b"\r\n.\n",
        b"\n.\r\n",
        b"\r.\r",
        b"\r\n.\r",
        b"\r",
        b"\n",
        b"\r\n",
        b".",
        b"\0",
        b"\xff",
        b"BDAT 3\r\na\r\n",
        b"BDAT 2\r\n\r",
        b"BDAT 5 LAST\r\nabc\r\n",
        b"BDAT 0 LAST\r\n",
        b"BDAT 70\r\n",
        b"BDAT 99999\r\n",
        b"BDAT x\r\n",
        b"AUTH LOGIN\r\n",
        b"AUTH PLAIN YQ==\r\n",
        b"YWJj\r\n",
        b"*\r\n",
        b"AUTH " + b"A" * 90,
        b"STARTTLS\r\n",
        b"RSET\r\n",
        b"NOOP\r\n",
        b"VRFY a\r\n",
        b"QUI",
        b"T\r\n",
        b"y" * 61,
        b"NOOP " + b"z" * 57,
    ]
)
# A beginning that leads somewhere, then anything.
BEGINNINGS = st.sampled_from(
    [
        b"",
        b"EHLO a.example\r\n",
        b"EHLO a.example\r\nAUTH LOGIN\r\n",
        b"EHLO a.example\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\n",
        b"EHLO a.example\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n",
        b"EHLO a.example\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nBDAT 4\r\nabcd",
        b"LHLO a.example\r\nMAIL FROM:<>\r\nRCPT TO:<c@d.example>\r\nRCPT TO:<e@d.example>\r\nDATA\r\n",
    ]
)
DIALOGUES = st.builds(lambda first, rest: first + b"".join(rest), BEGINNINGS, st.lists(PIECES, max_size=14))


def mostly_friendly(event: Event) -> Reply:
    """Refuses STARTTLS: what is thrown away behind it depends on how it arrived, by design."""
    return Reply.of(454, "4.7.0", "Not now") if isinstance(event, StartTLS) else friendly(event)


def unfriendly(event: Event) -> Reply:
    """Lets nothing in but what is needed to get to the content, which is refused."""
    return friendly(event) if isinstance(event, Hello | Mail | Rcpt | Reset) else NO


def refusing_bdat(event: Event) -> Reply:
    return NO if isinstance(event, Data) and event.chunking else mostly_friendly(event)


def refusing_messages(event: Event) -> Reply:
    return NO if isinstance(event, EndOfData) else mostly_friendly(event)


ANSWERS = st.sampled_from([mostly_friendly, unfriendly, refusing_bdat, refusing_messages])


class SplitTests(SynchronousTestCase):
    # Whether LF.LF ends the data depends on what waits behind it, by design: `test_content` and `test_smuggling` have that.

    @settings(max_examples=400)
    @given(DIALOGUES, st.lists(st.integers(0, 400), max_size=8), ANSWERS, st.booleans(), st.booleans())
    @example(b"EHLO a\r\nMAIL FROM:<>\r\nRCPT TO:<c@d.example>\r\nDATA\r\na\n.\r\n.\r\n", [56, 57, 58], mostly_friendly, False, False)
    def test_any_split_gives_the_same_story(self, wire, cuts, answer, lmtp, lf_lines):
        kinds = {"limits": TIGHT, "answer": answer, "lmtp": lmtp, "lf_lines": lf_lines, "lf_ends_data": False}
        whole = Conversation(**kinds)
        whole.send(wire)
        pieces = Conversation(**kinds)
        borders = [0, *sorted(min(cut, len(wire)) for cut in cuts), len(wire)]
        pieces.send(*[wire[a:b] for a, b in itertools.pairwise(borders)])
        self.assertEqual(story(pieces), story(whole))

    @settings(max_examples=200)
    @given(DIALOGUES, ANSWERS, st.booleans(), st.booleans())
    def test_octet_by_octet_gives_the_same_story(self, wire, answer, lmtp, lf_lines):
        kinds = {"limits": TIGHT, "answer": answer, "lmtp": lmtp, "lf_lines": lf_lines, "lf_ends_data": False}
        whole = Conversation(**kinds)
        whole.send(wire)
        single = Conversation(**kinds)
        single.send(*[wire[n : n + 1] for n in range(len(wire))])
        self.assertEqual(story(single), story(whole))

    @settings(max_examples=200)
    @given(DIALOGUES)
    def test_octet_by_octet_gives_the_same_story_where_stray_line_ends_are_refused(self, wire):
        kinds = {"limits": REFUSING, "answer": mostly_friendly}
        whole, single = Conversation(**kinds), Conversation(**kinds)
        whole.send(wire)
        single.send(*[wire[n : n + 1] for n in range(len(wire))])
        self.assertEqual(story(single), story(whole))

    @settings(max_examples=200)
    @given(DIALOGUES, st.integers(1, 30), ANSWERS)
    def test_slow_answers_give_the_same_story(self, wire, step, answer):
        quick = Conversation(limits=TIGHT, answer=answer)
        quick.send(wire)
        slow = Conversation(limits=TIGHT, answer=lambda event: None)
        for n in range(0, len(wire), step):
            slow.send(wire[n : n + step])  # a question that is open stays open meanwhile
            if slow.session.next_event().name == "PAUSED":
                slow.session.reply(answer(slow.events[-1]))
        slow.answer = answer
        slow.take()
        while slow.wait.name == "PAUSED":
            slow.session.reply(answer(slow.events[-1]))
            slow.take()
        self.assertEqual(story(slow), story(quick))


class FuzzTests(SynchronousTestCase):
    """Whatever the peer sends has an answer: nothing raises, and nothing grows."""

    @settings(max_examples=300)
    @given(st.lists(st.one_of(PIECES, any_octets(max_size=40)), max_size=25), ANSWERS, st.booleans())
    def test_anything_is_answered_and_nothing_is_kept(self, pieces, answer, lmtp):
        conversation = Conversation(limits=TIGHT, answer=answer, lmtp=lmtp)
        for piece in pieces:
            conversation.send(piece)
            self.assertLessEqual(conversation.session.buffered, 80)
            self.assertIn(conversation.wait.name, ("NEED_DATA", "CLOSED"))
        conversation.session.receive_eof()
        conversation.take()
        self.assertEqual(conversation.wait.name, "CLOSED")

    @settings(max_examples=300)
    @given(st.lists(st.one_of(PIECES, any_octets(max_size=40)), max_size=25), ANSWERS)
    def test_every_reply_is_well_formed_printable_and_ascii(self, pieces, answer):
        conversation = Conversation(limits=TIGHT, answer=answer)
        conversation.send(*pieces)
        self.assertTrue(conversation.said.endswith(b"\r\n") or not conversation.said)
        for line in conversation.said.split(b"\r\n")[:-1]:
            self.assertRegex(line, rb"^[2345][0-9]{2}[ -][ -~]*$")
