"""What becomes of each copy, for all verdicts beside each other."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.mail.answers import Accept, Defer, Discard, Pass, Quarantine, Refuse, Signal, Verdict
from mailserver.receive.fates import Answers, CopyFate, Decision, Fate, decide

YES, SAW, FRIEND = Pass(), Signal("x", 1.0, "seen"), Accept("a friend")
ASIDE, NO, LATER, GONE = Quarantine("odd"), Refuse("no"), Defer("later"), Discard("spam")
verdicts = st.lists(st.sampled_from([YES, SAW, FRIEND, ASIDE, NO, LATER, GONE]), min_size=1, max_size=6)
D, A, U, W, R, G, X = Fate.DELIVERED, Fate.ASIDE, Fate.UNDECIDED, Fate.WITHHELD, Fate.RETURNED, Fate.DISCARDED, Fate.REFUSED


def made(said: list[Verdict], answers: Answers = Answers.ONE, *, reports: bool = False) -> Decision:
    return decide(said, [""] * len(said), [""] * len(said), answers=answers, reports=reports)


class OneReply(SynchronousTestCase):
    def test_what_is_committed_by_the_verdicts(self) -> None:
        for said, fates in (
            ([YES], [D]),
            ([SAW, FRIEND, YES], [D, D, D]),
            ([YES, ASIDE], [D, A]),
            ([ASIDE, ASIDE], [A, A]),
            ([YES, NO], [D, W]),
            ([NO, ASIDE], [W, A]),
            ([LATER, YES], [U, D]),
            ([YES, NO, LATER, ASIDE], [D, W, U, A]),
        ):
            decision = made(said)
            self.assertEqual(([one.fate for one in decision.fates], decision.refusal, decision.each), (fates, None, False), said)

    def test_without_a_yes_nothing_is_and_one_later_is_the_answer_for_all(self) -> None:
        for said, refusal in (
            ([NO], NO),
            ([LATER], LATER),
            ([NO, LATER], LATER),
            ([LATER, NO, NO], LATER),
            ([Refuse("first"), NO], Refuse("first")),
        ):
            self.assertEqual(made(said).refusal, refusal, said)

    def test_a_copy_that_is_thrown_away_turns_neither_a_no_nor_a_later_into_a_yes(self) -> None:
        for said, fates, refusal in (
            ([GONE], [G], None),
            ([GONE, YES, NO], [G, D, W], None),
            ([GONE, NO], [G, W], NO),
            ([GONE, NO, LATER], [G, W, U], LATER),
        ):
            decision = made(said)
            self.assertEqual(([one.fate for one in decision.fates], decision.refusal), (fates, refusal), said)
        decision = decide([NO, LATER, YES], [""] * 3, ["early", "early", ""], answers=Answers.ONE, reports=False)
        self.assertEqual(decision.fates, ((G, "early"), (G, "early"), (D, "")))

    def test_a_sender_who_is_known_is_told_of_a_refusal_and_of_nothing_else(self) -> None:
        decision = made([YES, NO, LATER, ASIDE], reports=True)
        self.assertEqual([one.fate for one in decision.fates], [D, R, U, A])
        self.assertEqual(made([NO, NO], reports=True).refusal, NO)

    def test_what_an_earlier_stage_has_put_aside_is_aside_with_its_reason(self) -> None:
        decision = decide([YES, ASIDE, NO], ["early"] * 3, [""] * 3, answers=Answers.ONE, reports=False)
        self.assertEqual(decision.fates, ((A, "early"), (A, "early"), (W, "no")))


class RepliesOfTheirOwn(SynchronousTestCase):
    def test_in_lmtp_each_has_its_own_and_nothing_is_held(self) -> None:
        decision = made([YES, NO, LATER, ASIDE], Answers.EACH, reports=True)
        self.assertEqual((decision.fates, decision.each), ((CopyFate(D), (X, "no"), (X, "later"), (A, "odd")), True))
        self.assertEqual(made([NO, NO], Answers.EACH).refusal, None)

    def test_where_they_are_only_wanted_where_needed_those_who_agree_have_one(self) -> None:
        for said in ([YES, ASIDE], [NO, NO], [LATER, LATER], [YES]):
            self.assertFalse(made(said, Answers.WHERE_NEEDED).each, said)
        for said in ([YES, NO], [NO, LATER], [LATER, ASIDE]):
            self.assertTrue(made(said, Answers.WHERE_NEEDED).each, said)


class All(SynchronousTestCase):
    @given(verdicts, st.sampled_from(Answers), st.booleans())
    def test_nothing_is_lost_and_nothing_is_taken_that_its_sender_hears_refused(
        self, said: list[Verdict], answers: Answers, reports: bool
    ) -> None:
        decision = made(said, answers, reports=reports)
        committed = decision.refusal is None
        for verdict, (fate, _) in zip(said, decision.fates, strict=True):
            good = not isinstance(verdict, Refuse | Defer)
            if isinstance(verdict, Discard):
                self.assertIs(fate, G)
            elif not committed:  # the sender keeps all of it
                self.assertFalse(good)
            elif decision.each:
                self.assertEqual(fate is X, not good)
            else:
                self.assertIn(fate, (D, A) if good else (U,) if isinstance(verdict, Defer) else (W, R))
                self.assertFalse(fate is R and not reports)
        if not committed and any(isinstance(one, Defer) for one in said):
            self.assertIsInstance(decision.refusal, Defer, "a later is never a no")
