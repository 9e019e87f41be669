"""The dialogue with a milter, without I/O: whatever octets come, wherever they are cut."""

from __future__ import annotations

import struct
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.filters.milter_answers import (
    Accepted,
    AddedField,
    Agreement,
    BodyPart,
    ChangedField,
    Continued,
    Declined,
    Discarded,
    InsertedField,
    LostRecipient,
    NewRecipient,
    NewSender,
    PutAway,
    ShutDown,
    Skipped,
    StillWorking,
    read_answer,
    read_offer,
)
from mailserver.filters.milter_dialogue import MOVES, MilterDialogue, Position
from mailserver.filters.milter_wire import (
    FRAME_OCTETS_MOST,
    Frames,
    MilterFault,
    MilterStep,
    Omits,
    frame,
    number,
    texts,
    texts_in,
)
from mailserver.mail.reply import Reply
from tests.any_octets import any_octets
from tests.filters.fake_milter import negotiates, said

ROAD = (MilterStep.CONNECT, MilterStep.HELO, MilterStep.MAIL, MilterStep.RCPT, MilterStep.DATA, MilterStep.HEADER, MilterStep.END_OF_HEADER, MilterStep.BODY, MilterStep.END)
INDEX = struct.pack("!I", 3)
LETTERS = [bytes([one]) for one in b"OcartyfpdshibmeqO4+2-?\0"]


def agreed(omits: int = 0, **more: Any) -> MilterDialogue:
    dialogue = MilterDialogue()
    dialogue.begin()
    dialogue.receive(negotiates(steps=omits, **more))
    assert isinstance(dialogue.next_event(), Agreement)
    return dialogue


def at(step: MilterStep, dialogue: MilterDialogue | None = None) -> MilterDialogue:
    """One that waits for the answer to this step."""
    dialogue = dialogue or agreed()
    for one in ROAD:
        dialogue.say(one, b"x")
        if one is step:
            return dialogue
        if dialogue.awaits is not None:
            dialogue.receive(said(b"c"))
            dialogue.next_event()
    raise AssertionError(step)


def events(dialogue: MilterDialogue) -> list[Any]:
    found = []
    try:
        while (event := dialogue.next_event()) is not None:
            found.append(event)
    except MilterFault as fault:
        found.append(str(fault))
    return found


class AnyOctets(SynchronousTestCase):
    @given(octets=any_octets(max_size=200), step=st.sampled_from(ROAD))
    def test_whatever_comes_is_an_answer_or_a_fault_and_bounded(self, octets: bytes, step: MilterStep) -> None:
        dialogue = at(step)
        self.assertBounded(dialogue, octets)

    @given(st.lists(st.tuples(st.sampled_from(LETTERS), any_octets(max_size=40)), max_size=6), st.sampled_from(ROAD))
    def test_so_are_frames_of_any_letters(self, frames: list[tuple[bytes, bytes]], step: MilterStep) -> None:
        self.assertBounded(at(step), b"".join([frame(*one) for one in frames]))

    @given(any_octets(max_size=100))
    def test_so_is_whatever_answers_the_offer(self, octets: bytes) -> None:
        for given_octets in (octets, frame(b"O", octets), frame(b"O", struct.pack("!III", 6, 0, 0) + octets)):
            dialogue = MilterDialogue()
            dialogue.begin()
            self.assertBounded(dialogue, given_octets)

    def assertBounded(self, dialogue: MilterDialogue, octets: bytes) -> None:
        dialogue.receive(octets)
        found = events(dialogue)
        if found and isinstance(found[-1], str):
            self.assertIs(dialogue.position, Position.BROKEN)
            self.assertEqual((dialogue.abort(), dialogue.quit()), (b"", b""))
            self.assertTrue(found[-1].isprintable() and len(found[-1]) < 300, found[-1])
        for event in found:
            if isinstance(event, Declined) and event.reply is not None:
                self.assertTrue(all(line.isascii() and line.isprintable() for line in event.reply.lines))

    @given(st.data())
    def test_wherever_the_octets_are_cut_the_events_are_the_same(self, data: Any) -> None:
        octets = said(b"p") + said(b"h", b"A\0b\0") + said(b"b", b"xyz") + said(b"c")
        cuts = sorted(data.draw(st.lists(st.integers(0, len(octets)), max_size=8)))
        dialogue, found = at(MilterStep.END), []
        for start, end in zip([0, *cuts], [*cuts, len(octets)], strict=True):
            if octets[start:end]:
                dialogue.receive(octets[start:end])
            found += events(dialogue)
        self.assertEqual(found, [StillWorking(), AddedField(b"A", b"b"), BodyPart(b"xyz"), Continued()])

    def test_a_frame_that_is_too_long_or_empty_is_told_at_its_head(self) -> None:
        for length in (0, FRAME_OCTETS_MOST + 1, 2**32 - 1):
            frames = Frames()
            frames.add(struct.pack("!I", length))
            self.assertRaises(MilterFault, frames.next)


class Moves(SynchronousTestCase):
    def test_every_command_where_it_may_not_stand_is_our_own_fault(self) -> None:
        for position in Position:
            for step in MilterStep:
                dialogue = agreed()
                dialogue.position = position
                if position in MOVES[step] or (position is Position.OVER and step is MilterStep.MAIL):
                    self.assertEqual(dialogue.say(step)[4:5], step.value)
                else:
                    self.assertRaises(RuntimeError, dialogue.say, step)

    def test_a_command_waits_for_its_answer(self) -> None:
        dialogue = at(MilterStep.MAIL)
        self.assertRaises(RuntimeError, dialogue.say, MilterStep.RCPT)
        self.assertRaises(RuntimeError, dialogue.abort)
        self.assertFalse(dialogue.takes_another)

    def test_what_is_said_unasked_breaks_it(self) -> None:
        dialogue = agreed()
        self.assertRaises(MilterFault, dialogue.receive, said(b"c"))
        self.assertIs(dialogue.position, Position.BROKEN)

    def test_a_step_that_is_not_wanted_is_left_out_and_passed(self) -> None:
        for step, flag in zip(ROAD, (Omits.NO_CONNECT, Omits.NO_HELO, Omits.NO_MAIL, Omits.NO_RCPT, Omits.NO_DATA, Omits.NO_HEADER, Omits.NO_END_OF_HEADER, Omits.NO_BODY), strict=False):
            dialogue = at(step, agreed(flag))
            self.assertIsNone(dialogue.awaits, step)

    def test_data_came_with_version_4(self) -> None:
        self.assertIsNone(at(MilterStep.DATA, agreed(version=3)).awaits)
        self.assertIs(at(MilterStep.DATA, agreed(version=4)).awaits, MilterStep.DATA)

    def test_after_the_last_word_there_is_another_message_or_another_peer(self) -> None:
        for step in ROAD[2:]:
            for letter in (b"a", b"d", b"r"):
                dialogue = at(step)
                dialogue.receive(said(letter))
                dialogue.next_event()
                self.assertEqual(dialogue.abort()[4:], b"A")
                self.assertEqual(dialogue.say(MilterStep.MAIL)[4:5], b"M")
                dialogue.receive(said(b"c"))
                dialogue.next_event()
                self.assertEqual(dialogue.release(), frame(b"A") + frame(b"K"))
                self.assertEqual(dialogue.say(MilterStep.CONNECT)[4:5], b"C")

    def test_a_goodbye_amid_a_message_takes_that_back(self) -> None:
        dialogue = at(MilterStep.RCPT)
        dialogue.receive(said(b"c"))
        dialogue.next_event()
        self.assertEqual(dialogue.quit(), frame(b"A") + frame(b"Q"))
        self.assertEqual((dialogue.quit(), at(MilterStep.RCPT).quit()), (b"", frame(b"Q")))

    def test_macros_come_before_their_command(self) -> None:
        dialogue = agreed()
        octets = dialogue.say(MilterStep.CONNECT, b"x", {"j": "mx", "{a}": "b\0c"})
        self.assertEqual(octets, frame(b"D", b"Cj\0mx\0{a}\0b?c\0") + frame(b"C", b"x"))


class Read(SynchronousTestCase):
    def test_every_answer_is_known(self) -> None:
        for letter, data, value in (
            (b"c", b"", Continued()), (b"a", b"", Accepted()), (b"d", b"", Discarded()), (b"r", b"", Declined(False)), (b"t", b"", Declined(True)),
            (b"4", b"", ShutDown()), (b"f", b"", ShutDown()), (b"p", b"", StillWorking()), (b"y", b"421 bye\0", ShutDown()),
            (b"h", b"A\0b\0", AddedField(b"A", b"b")), (b"i", INDEX + b"A\0b\0", InsertedField(3, b"A", b"b")),
            (b"m", INDEX + b"A\0\0", ChangedField(3, b"A", b"")), (b"b", b"x\0y", BodyPart(b"x\0y")), (b"e", b"<a>\0", NewSender(b"<a>")),
            (b"e", b"<a>\0X=1\0Y\0", NewSender(b"<a>", b"X=1 Y")), (b"+", b"<a>\0", NewRecipient(b"<a>")), (b"2", b"<a>\0X\0", NewRecipient(b"<a>", b"X")),
            (b"-", b"<a>\0", LostRecipient(b"<a>")), (b"q", "wh\x1by\u202e\0".encode(), PutAway("wh?y?")),
        ):  # fmt: skip
            self.assertEqual(read_answer(MilterStep.END, letter, data), value)
        self.assertEqual(read_answer(MilterStep.BODY, b"s", b""), Skipped())

    def test_replies_are_sanitised(self) -> None:
        for text, reply in (
            ("550 5.7.1 no", Reply(550, "5.7.1", ("no",))), ("550 no", Reply(550, "5.7.1", ("no",))), ("451", Reply(451, "4.7.1", ("Not now",))),
            ("550 4.7.1 odd", Reply(550, "5.7.1", ("odd",))), ("554-5.6.0 a\r\n554-5.6.0 b\r\n554 5.6.0 c", Reply(554, "5.6.0", ("a", "b", "c"))),
            ("550 a\nb\r250 ok", Reply(550, "5.7.1", ("a", "b", "250 ok"))), ("550 a\x1b[1m\u00e9", Reply(550, "5.7.1", ("a?[1m?",))),
            ("550 5.7.1 100%% %", Reply(550, "5.7.1", ("100% %",))), ("550 " + "x" * 5000, Reply(550, "5.7.1", ("x" * 400,))),
            ("550 x\r\n" * 200, Reply(550, "5.7.1", ("x",) * 32)),
        ):  # fmt: skip
            self.assertEqual(read_answer(MilterStep.MAIL, b"y", text.encode() + b"\0"), Declined(text[0] == "4", reply), text[:40])
        for wrong in ("250 ok", "55 x", "5500 x", "", "abc", "650 x", " 550 x"):
            self.assertRaises(MilterFault, read_answer, MilterStep.MAIL, b"y", wrong.encode() + b"\0")

    def test_whoever_is_done_before_a_message_has_none_to_end(self) -> None:
        for step, where in ((MilterStep.CONNECT, Position.GREETED), (MilterStep.HELO, Position.GREETED)):
            dialogue = at(step)
            dialogue.receive(said(b"a"))
            self.assertEqual(events(dialogue), [Accepted()])
            self.assertEqual((dialogue.position, dialogue.is_in_message, dialogue.abort()), (where, False, b""))
        dialogue = at(MilterStep.MAIL)
        dialogue.receive(said(b"a"))
        self.assertEqual(events(dialogue), [Accepted()])
        self.assertEqual((dialogue.position, dialogue.abort()), (Position.OVER, frame(b"A")))

    def test_an_offer_with_lists_of_macros(self) -> None:
        offer = read_offer(struct.pack("!IIII", 6, 1, 2, 3) + b"i, {mail_addr} j rcpt_addr\0" + struct.pack("!I", 5) + b"\0")
        self.assertEqual(offer, Agreement(6, 1, 2, {3: ("i", "{mail_addr}", "j", "{rcpt_addr}"), 5: ()}))
        for wrong in (b"", b"\0" * 11, struct.pack("!IIII", 6, 1, 2, 3) + b"no end", struct.pack("!III", 6, 1, 2) + b"x"):
            self.assertRaises(MilterFault, read_offer, wrong)

    def test_numbers_and_texts_without_an_end_are_faults(self) -> None:
        self.assertRaises(MilterFault, number, b"\0\0\0")
        self.assertRaises(MilterFault, texts_in, b"abc")
        self.assertEqual(texts(("a\0b", "\udcff\ud800")), b"a?b\0??\0")
