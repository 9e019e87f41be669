"""Thirty days without a fault, and what is proposed then."""

from __future__ import annotations

from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from mailserver.doctor.clean_days import CleanDays, StricterPolicy, counted, is_clean, policies_of, proposal
from mailserver.doctor.findings import CheckedRecord, RecordVerdict
from mailserver.doctor.report_evidence import NO_EVIDENCE, ReportEvidence, dmarc_evidence, tls_evidence

GOOD = ReportEvidence(12, 500, 499, (("203.0.113.9", 40),))
BAD = ReportEvidence(12, 500, 400)
DMARC = StricterPolicy("DMARC", "none", "quarantine", "v=DMARC1; p=none; rua=mailto:d@example.org")
STS = StricterPolicy("MTA-STS", "testing", "enforce", "mode: testing")


def record(group: str, name: str, type: str, *seen: str, verdict: RecordVerdict = RecordVerdict.OK) -> CheckedRecord:
    return CheckedRecord(group=group, name=name, type=type, verdict=verdict, why="", seen=seen)


class Counting(SynchronousTestCase):
    def days(self, *looks: tuple[bool | None, ReportEvidence], policy: StricterPolicy = DMARC, before: CleanDays | None = None) -> CleanDays:
        found = before
        for clean, evidence in looks:
            found = counted(found, policy, clean, evidence)
        assert found is not None
        return found

    def test_each_clean_look_is_a_day_and_a_fault_begins_anew(self) -> None:
        self.assertEqual(self.days(*[(True, NO_EVIDENCE)] * 12).days, 12)
        self.assertEqual(self.days(*[(True, GOOD)] * 12, (None, GOOD), (True, GOOD)).days, 13)
        self.assertEqual(self.days(*[(True, GOOD)] * 12, (False, GOOD), (True, GOOD)).days, 1)
        self.assertEqual(self.days(*[(True, GOOD)] * 12, (True, BAD)), CleanDays("none", 0, waits="by reports of others 80 % of our own mail pass DMARC: mailserver dmarc show"))
        self.assertEqual(self.days((True, GOOD), before=CleanDays("quarantine", 29, True)), CleanDays("none", 1))

    def test_after_thirty_days_the_next_policy_is_proposed_once(self) -> None:
        self.assertEqual(proposal("example.org", DMARC, CleanDays("none", 29), GOOD), ())
        found = self.days(*[(True, GOOD)] * 30)
        said = "\n".join(proposal("example.org", DMARC, found, GOOD))
        self.assertIn("Of 500 messages of ours in 12 reports\n99.8 % have passed DMARC.  The policy can go from p=none to p=quarantine:", said)
        self.assertIn('    take out  _dmarc.example.org. 3600 IN TXT "v=DMARC1; p=none; rua=mailto:d@example.org"\n    put in    _dmarc.example.org. 3600 IN TXT "v=DMARC1; p=quarantine; rua=mailto:d@example.org"', said)
        self.assertIn("whose messages would be put aside then: 203.0.113.9 (40).", said)
        self.assertEqual(proposal("example.org", DMARC, replace(found, told=True), GOOD), ())
        found = self.days(*[(True, GOOD)] * 30, policy=STS)
        self.assertIn("from mode: testing to mode: enforce", "\n".join(proposal("example.org", STS, found, GOOD)))

    def test_without_reports_nothing_is_proposed_until_there_are_some(self) -> None:
        found = self.days(*[(True, NO_EVIDENCE)] * 31)
        self.assertEqual((found.days, found.waits), (31, "no report of others says anything about mail in its name"))
        self.assertEqual(proposal("example.org", DMARC, found, NO_EVIDENCE), ())
        found = self.days((True, GOOD), before=found)
        self.assertNotEqual(proposal("example.org", DMARC, found, GOOD), ())

    def test_the_policies_are_those_that_the_domain_shows(self) -> None:
        name = "_dmarc.example.org"
        found = policies_of("example.org", [record("DMARC", name, "TXT", DMARC.text), record("MTA-STS", "mta-sts.example.org", "policy", "version: STSv1", "mode: testing")])
        self.assertEqual(found, (DMARC, STS))
        for one in (
            record("DMARC", name, "TXT", "v=DMARC1; p=reject"), record("DMARC", "_dmarc.org", "TXT", DMARC.text),
            record("DMARC", name, "TXT", DMARC.text, verdict=RecordVerdict.WRONG), record("MTA-STS", "mta-sts.example.org", "policy", "mode: enforce"),
        ):  # fmt: skip
            self.assertEqual(policies_of("example.org", [one]), ())

    def test_a_trial_that_does_not_come_about_says_nothing(self) -> None:
        unknown = RecordVerdict.UNKNOWN
        self.assertTrue(is_clean([record("arrival", "mail.example.org[192.0.2.1]", "trial", verdict=unknown)], 0))
        self.assertIsNone(is_clean([record("MX", "example.org", "MX", verdict=unknown)], 0))
        self.assertFalse(is_clean([record("MX", "example.org", "MX", verdict=RecordVerdict.WRONG)], 1))
        self.assertFalse(is_clean([], 1))

    def test_what_is_kept_of_a_day_is_read_again_and_nonsense_is_none(self) -> None:
        one = CleanDays("none", 12, True, "why")
        self.assertEqual(CleanDays.of(one.plain), one)
        self.assertEqual([CleanDays.of(wrong) for wrong in ({}, 3, {"stage": 1, "days": 2}, {"stage": "none", "days": "2"})], [None] * 4)


class Evidence(SynchronousTestCase):
    def test_forgers_are_not_our_own_mail(self) -> None:
        rows = [
            {"source": "203.0.113.9", "messages": 40, "passed": 0, "failed": 40},
            {"source": "192.0.2.1", "messages": 9, "passed": 3, "failed": 6},
            {"source": "198.51.100.7", "messages": 10, "passed": 9, "failed": 1},
        ]
        answer = {"reports": 2, "messages": 259, "passed": 212, "rows": rows}
        self.assertEqual(dmarc_evidence(answer, ["192.0.2.1"]), ReportEvidence(2, 219, 212, (("203.0.113.9", 40),)))
        self.assertEqual(dmarc_evidence({"reports": 0, "passed": 0, "rows": []}, []), NO_EVIDENCE)

    def test_shares_are_not_rounded_up(self) -> None:
        found = tls_evidence({"reports": 3, "successes": 99_999, "failures": 1})
        self.assertEqual((found.share, found.is_good, tls_evidence({"reports": 0, "successes": 0, "failures": 0}).is_good), ("99.9 %", True, None))
