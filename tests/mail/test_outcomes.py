from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.mail.answers import Delayed, Delivered, Failed
from mailserver.mail.outcomes import UnsoundOutcome, clean_text, outcome_of, sound_outcome
from mailserver.mail.reply import Reply
from mailserver.queue.entry import decode_reply, encode_reply

BUSY = Reply.of(451, "4.2.1", "Busy")
NO = Reply.of(550, "5.1.1", "No")
SURROGATE = "caf\udce9"
WRONG = (None, 7, True, b"octets", [], {}, object(), SURROGATE)


class OwnFailed(Failed):
    pass


class OwnReply(Reply):
    pass


class Raising(Delayed):
    @property
    def note(self):
        raise RuntimeError("no")


class Words(str):
    def isascii(self):
        raise RuntimeError("no")


class NoMapping(Mapping):
    def __getitem__(self, key):
        raise RuntimeError("no")

    def __iter__(self):
        raise RuntimeError("no")

    def __len__(self):
        raise RuntimeError("no")


def forged(reply, **members):
    for name, value in members.items():
        object.__setattr__(reply, name, value)
    return reply


class Soundness(SynchronousTestCase):
    def test_a_sound_outcome_is_handed_on_as_it_is(self):
        for outcome in (
            Delivered(),
            Delivered("kept", "mx.example", True),
            Delayed(BUSY, "note", "mx.example", "RCPT", ("<< 451",)),
            Failed(NO, "grüße", "mx.example", "RCPT", ("<< 550",)),
        ):
            self.assertEqual(sound_outcome(outcome), outcome)
        same = Delivered("kept")
        self.assertIs(sound_outcome(same), same)

    def test_lone_surrogates_are_written_out_wherever_they_stand(self):
        reply = forged(Reply.of(451, "4.2.1", "x"), lines=(SURROGATE,))
        for kind in (Delayed, Failed):
            found = sound_outcome(kind(reply, SURROGATE, SURROGATE, SURROGATE, (SURROGATE,)))
            self.assertIs(type(found), kind)
            for text in (found.note, found.peer, found.phase, *found.dialogue, *found.reply.lines):
                self.assertEqual(text, "caf\\udce9")
        self.assertEqual(sound_outcome(Delivered(SURROGATE, SURROGATE)), Delivered("caf\\udce9", "caf\\udce9"))

    def test_what_was_delivered_stays_delivered_whatever_its_words(self):
        for wrong in WRONG[:-1]:
            self.assertEqual(sound_outcome(Delivered(wrong, wrong, None)), Delivered())

    def test_a_member_of_another_type_makes_a_refusal_unsound(self):
        for kind in (Delayed, Failed):
            for wrong in WRONG[:-1]:
                for members in ({"note": wrong}, {"peer": wrong}, {"phase": wrong}, {"dialogue": (wrong,)}):
                    self.assertRaises(UnsoundOutcome, sound_outcome, kind(BUSY, **members))
            for wrong in (None, 7, "text", {1: 2}):
                self.assertRaises(UnsoundOutcome, sound_outcome, kind(BUSY, dialogue=wrong))

    def test_a_time_at_which_nobody_should_come_again_makes_it_unsound(self):
        for seconds in (0, -1, 0.5, 90_000, True, "60", float("nan"), float("inf"), []):
            self.assertRaises(UnsoundOutcome, sound_outcome, Delayed(BUSY, put_off_seconds=seconds))
        self.assertEqual(sound_outcome(Delayed(BUSY, put_off_seconds=60)), Delayed(BUSY, put_off_seconds=60.0))

    def test_a_reply_that_is_none_or_says_yes_makes_it_unsound(self):
        wrong_members = ({"code": "451"}, {"code": True}, {"code": 999}, {"enhanced": None}, {"lines": "abc"}, {"lines": (7,)})
        replies = [forged(Reply.of(451, "4.2.1", "x"), **members) for members in wrong_members]
        for wrong in (*WRONG, "451 4.2.1 Busy", Reply.of(250, "2.0.0", "OK"), Reply.of(354, "", "Go on"), *replies):
            for kind in (Delayed, Failed):
                self.assertRaises(UnsoundOutcome, sound_outcome, kind(wrong))

    def test_an_enhanced_code_that_is_none_is_left_out(self):
        found = sound_outcome(Delayed(forged(Reply.of(451, "4.2.1", "x"), enhanced="4.2.1\r\nX: y")))
        self.assertEqual(found.reply, Reply.of(451, "", "x"))

    def test_a_subclass_becomes_the_class_that_it_is_one_of(self):
        found = sound_outcome(OwnFailed(OwnReply(550, "5.1.1", ("No",)), Words("words")))
        self.assertEqual((type(found), type(found.reply), type(found.note)), (Failed, Reply, str))
        self.assertEqual(found, Failed(NO, "words"))

    def test_long_texts_and_endless_replies_are_cut(self):
        found = sound_outcome(Failed(Reply(550, "", ("x" * 9000,) * 900), "n" * 9000, dialogue=("d",) * 9000))
        self.assertEqual((len(found.note), len(found.reply.lines), len(found.dialogue)), (2000, 100, 200))
        self.assertEqual({len(line) for line in found.reply.lines}, {2000})

    def test_what_is_no_outcome_or_no_mapping_is_unsound(self):
        for wrong in (7, "delivered", [Delivered()], Delivered, NoMapping(), Reply.of(250, "", "OK")):
            self.assertRaises(UnsoundOutcome, outcome_of, {0: wrong}, 0)
            self.assertRaises(UnsoundOutcome, outcome_of, wrong, 0)
        self.assertRaises(UnsoundOutcome, outcome_of, None, 0)
        self.assertRaises(UnsoundOutcome, outcome_of, {0: object.__new__(Raising)}, 0)

    def test_an_index_without_an_outcome_is_unsound(self):
        for answer in ({}, {1: Delivered()}, {"0": Delivered()}, {0: None}):
            self.assertRaises(UnsoundOutcome, outcome_of, answer, 0)

    @given(
        st.sampled_from([Delivered, Delayed, Failed]),
        st.lists(st.one_of(st.none(), st.integers(), st.text(), st.just(SURROGATE), st.tuples(st.text()), st.just(BUSY)), max_size=5),
    )
    def test_whatever_it_is_made_of_the_store_can_keep_it_or_it_is_unsound(self, kind, members):
        try:
            outcome = outcome_of({0: kind(*members)}, 0)
        except (UnsoundOutcome, TypeError):
            return
        outcome.note.encode()
        if isinstance(outcome, Delayed | Failed):
            self.assertEqual(decode_reply(encode_reply(outcome.reply)), outcome.reply)
            "".join([outcome.peer, outcome.phase, *outcome.dialogue]).encode()

    @given(st.text(st.characters()))
    def test_a_cleaned_text_can_be_encoded(self, text):
        clean_text(text + SURROGATE).encode()
