"""What shows that a name server validates, and that it does not."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.dns.validation import ProbeAnswer, ProbeNames, ProbeQuestion, ServerFinding, Validation, examination

NAMES = ProbeNames(("s1", "s2"), ("u1", "u2"), ("b1", "b2"))
AD, PLAIN = ProbeAnswer(True), ProbeAnswer()
SERVFAIL, SILENT = ProbeAnswer(failure="SERVFAIL", is_servfail=True), ProbeAnswer(failure="silence")
ANSWERS = AD, PLAIN, SERVFAIL, SILENT


def examined(world: Mapping[str, ProbeAnswer], names: ProbeNames = NAMES) -> tuple[ServerFinding, list[str]]:
    """What is found where a name (with "!" where nothing is to be checked) has this answer; PLAIN, where it is not said."""
    asked: list[str] = []
    steps = examination(names)
    try:
        question: ProbeQuestion = next(steps)
        while True:
            asked.append(question.name + ("!" if question.checking_disabled else ""))
            question = steps.send(world.get(asked[-1], PLAIN))
    except StopIteration as end:
        return end.value, asked


class Examination(SynchronousTestCase):
    def found(self, **world: ProbeAnswer) -> Validation:
        return examined({name.replace("_", "!"): answer for name, answer in world.items()})[0].validation

    def test_what_validates_is_found_with_few_questions(self) -> None:
        finding, asked = examined({"s1": AD, "b1": SERVFAIL})
        self.assertEqual(asked, ["s1", "u1", "b1", "b1!"])
        self.assertEqual(str(finding), "validates (s1 is authenticated, b1 is refused as bogus)")

    def test_without_the_ad_bit_it_does_not(self) -> None:
        self.assertEqual(self.found(), Validation.DOES_NOT)
        self.assertEqual(self.found(b1=SERVFAIL, b2=SERVFAIL), Validation.DOES_NOT)

    def test_what_passes_on_forged_data_does_not_although_it_sets_the_bit(self) -> None:
        self.assertEqual(self.found(s1=AD), Validation.DOES_NOT)
        self.assertEqual(self.found(s1=AD, b1=AD, b2=AD), Validation.DOES_NOT)
        self.assertEqual(self.found(s1=AD, b1=SILENT, b2=PLAIN), Validation.DOES_NOT)

    def test_the_bit_on_what_is_not_signed_is_a_lie(self) -> None:
        for lie in ({"u1": AD}, {"u1": SILENT, "u2": AD}, {"u1": SERVFAIL, "u2": AD}):
            self.assertEqual(examined({"s1": AD, "b1": SERVFAIL, **lie})[0].validation, Validation.LIES, lie)

    def test_another_name_of_a_kind_may_tell(self) -> None:
        self.assertEqual(self.found(s1=SILENT, s2=AD, u1=SILENT, b1=SILENT, b2=SERVFAIL), Validation.VALIDATES)
        self.assertEqual(self.found(s1=AD, b1=PLAIN, b2=SERVFAIL), Validation.VALIDATES)  # somebody has mended the first

    def test_a_forwarder_that_knows_nothing_of_cd_may_validate_all_the_same(self) -> None:
        failing = {"b1": SERVFAIL, "b1_": SERVFAIL, "b2": SERVFAIL, "b2_": SERVFAIL}
        self.assertEqual(self.found(s1=AD, **failing), Validation.VALIDATES)
        self.assertEqual(self.found(s1=AD, u1=SILENT, u2=SILENT, **failing), Validation.UNKNOWN)

    def test_where_nobody_answers_nothing_is_known(self) -> None:
        self.assertEqual(examined({"s1": SILENT, "s2": SERVFAIL})[0], ServerFinding(Validation.UNKNOWN, "SERVFAIL"))
        self.assertEqual(self.found(s1=AD, b1=SILENT, b2=SILENT), Validation.UNKNOWN)
        self.assertEqual(examined({}, ProbeNames((), (), ()))[0].validation, Validation.UNKNOWN)

    @given(st.dictionaries(st.sampled_from(["s1", "s2", "u1", "u2", "b1", "b2", "b1!", "b2!"]), st.sampled_from(ANSWERS)))
    @settings(max_examples=40)
    def test_whatever_comes_it_ends_and_nothing_is_believed_without_reason(self, world: dict[str, ProbeAnswer]) -> None:
        finding, asked = examined(world)
        self.assertLessEqual(len(asked), 8)
        if finding.validation is Validation.VALIDATES:
            seen = {name: world.get(name, PLAIN) for name in asked}
            self.assertIn(AD, [seen.get("s1"), seen.get("s2")])
            self.assertNotIn(AD, [seen.get("u1"), seen.get("u2")])
            self.assertIn(SERVFAIL, [seen.get("b1"), seen.get("b2")])
