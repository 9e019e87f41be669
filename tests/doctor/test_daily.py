"""The look of each day: what is new is told once, over restarts too; what nobody can tell changes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailserver.assembly.daily_look import _Looks, looks_daily
from mailserver.doctor.daily import DailyLook
from mailserver.doctor.findings import CheckedRecord, RecordVerdict
from mailserver.doctor.report_evidence import ReportEvidence
from mailserver.testing.state import MemoryState
from tests.cli.support import CONFIGURATION

DAY = 86_400.0


def fault(name: str, verdict: RecordVerdict = RecordVerdict.WRONG, *, is_advice: bool = False) -> CheckedRecord:
    return CheckedRecord(
        group="MX", name="example.org", type=name.partition("-")[0].upper(), verdict=verdict, why="so it is", fault=name, is_advice=is_advice
    )


class Daily(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.state = MemoryState(self.clock)
        self.found: Mapping[str, Sequence[CheckedRecord]] = {}
        self.looks = self.given_up = 0
        self.asked: list[tuple[str, str, float]] = []
        self.evidence = ReportEvidence(9, 100, 100)
        self.wall = 1.8e9

    def daily(self) -> DailyLook:
        def look() -> Mapping[str, Sequence[CheckedRecord]]:
            self.looks += 1
            return self.found

        def give_up() -> None:
            self.given_up += 1

        def reports(kind: str, domain: str, seconds: float) -> ReportEvidence:
            self.asked.append((kind, domain, seconds / DAY))
            return self.evidence

        made = DailyLook(
            clock=self.clock, look=look, give_up=give_up, run_in_thread=maybeDeferred, state=self.state, reports=reports, wall=lambda: self.wall
        )
        made.start()
        return made

    def told(self, daily: DailyLook) -> str:
        problems = daily.problems()
        for one in problems:
            one.told()
        return "\n".join([line for one in problems for line in (one.title, *one.lines)])

    def test_what_has_turned_wrong_is_told_once(self) -> None:
        daily = self.daily()
        self.found = {"example.org": [fault("mx-missing"), fault("caa-missing", is_advice=True)], "example.net": []}
        self.assertEqual(daily.figures(), {})
        self.clock.advance(600)
        said = self.told(daily)
        self.assertIn("the DNS of example.org needs attention", said)
        self.assertIn("example.org MX: so it is [mx-missing]", said)
        self.assertNotIn("caa-missing", said)
        self.assertEqual(daily.figures(), {"looked_at": 2, "faults": {"example.org": 1}})
        self.clock.advance(DAY)
        self.assertEqual((self.looks, self.told(daily)), (2, ""))
        self.found = {"example.org": [fault("mx-missing"), fault("spf-two")], "example.net": [fault("spf-two")]}
        self.clock.advance(DAY)
        said = self.told(daily)
        self.assertIn("the DNS of example.net and 1 more needs attention", said)
        self.assertEqual((said.count("spf-two"), said.count("mx-missing")), (2, 0))

    def test_what_nobody_can_tell_neither_alarms_nor_mends(self) -> None:
        daily = self.daily()
        self.found = {"example.org": [fault("mx-missing")]}
        self.clock.advance(600)
        self.told(daily)
        self.found = {"example.org": [fault("mx-unknown", RecordVerdict.UNKNOWN)]}
        self.clock.advance(DAY)
        self.assertEqual((self.told(daily), daily.faults), ("", {"example.org": 1}))
        self.found = {"example.org": [fault("mx-missing")]}
        self.clock.advance(DAY)
        self.assertEqual(self.told(daily), "")

    def test_a_server_that_is_started_again_knows_what_the_one_before_has_seen(self) -> None:
        first = self.daily()
        self.found = {"example.org": [fault("mx-missing")]}
        self.clock.advance(600)
        first.stop()
        second = self.daily()
        self.clock.advance(600)
        self.assertEqual((self.looks, second.faults, second.problems()), (1, {"example.org": 1}, []))
        self.clock.advance(DAY)
        self.assertEqual((self.looks, second.problems()), (2, []))

    def test_the_days_without_a_fault_go_on_over_restarts_and_clocks_that_jump(self) -> None:
        policy = CheckedRecord(group="DMARC", name="_dmarc.example.org", type="TXT", verdict=RecordVerdict.OK, why="", seen=("v=DMARC1; p=none",))
        self.found = {"example.org": [policy]}
        daily = self.daily()
        self.clock.advance(600)
        for day in range(28):
            if day % 7 == 3:
                daily.stop()
                daily = self.daily()
                self.clock.advance(600)  # the day has had its look
                self.wall += 400 * DAY * (-1) ** day
                self.assertEqual(daily.figures()["clean_days"], {"example.org": {"DMARC": day + 1}})
            self.clock.advance(DAY)
        self.assertEqual((daily.figures()["clean_days"], daily.problems()), ({"example.org": {"DMARC": 29}}, []))
        self.clock.advance(DAY)
        self.assertEqual(self.asked[-1], ("DMARC", "example.org", 30.0))
        (problem,) = daily.problems()
        self.assertEqual(problem.title, "the DMARC policy of example.org can be stricter")
        daily.stop()
        daily = self.daily()  # nobody has been told yet
        self.clock.advance(600 + DAY)
        (problem,) = daily.problems()
        problem.told()
        self.assertEqual(daily.problems(), [])
        daily.stop()
        daily = self.daily()
        self.clock.advance(600 + DAY)
        self.assertEqual(daily.problems(), [])
        report = self.successResultOf(Deferred.fromCoroutine(daily.report()))
        self.assertEqual(report, {"at": self.wall, "faults": {"example.org": 0}, "clean": {"example.org": {"DMARC": {"stage": "none", "days": 32, "told": True, "waits": ""}}}})
        self.found = {"example.org": [fault("mx-missing")]}
        self.clock.advance(DAY)
        self.found = {"example.org": [policy]}
        self.clock.advance(DAY)
        self.assertEqual(daily.figures()["clean_days"], {"example.org": {"DMARC": 1}})

    def test_a_policy_that_changes_under_the_same_id_is_told_until_the_id_changes(self) -> None:
        def shown(id: str, mode: str) -> list[CheckedRecord]:
            record = CheckedRecord(group="MTA-STS", name="_mta-sts.example.org", type="TXT", verdict=RecordVerdict.OK, why="", seen=(f"v=STSv1; id={id}",))
            return [record, CheckedRecord(group="MTA-STS", name="mta-sts.example.org", type="policy", verdict=RecordVerdict.OK, why="", seen=("version: STSv1", f"mode: {mode}"))]

        daily, told = self.daily(), []
        self.clock.advance(600)
        for look in (shown("1", "testing"), shown("1", "enforce"), shown("1", "enforce"), shown("2", "enforce"), shown("2", "enforce")):
            self.found = {"example.org": look}
            self.clock.advance(DAY)
            told.append((daily.faults, "mta-sts-id-unchanged" in self.told(daily)))
        one, none = {"example.org": 1}, {"example.org": 0}
        self.assertEqual(told, [(none, False), (one, True), (one, False), (none, False), (none, False)])

    def test_a_store_that_fails_takes_nothing_from_the_look(self) -> None:
        daily = self.daily()
        self.state.failing = {"*"}
        self.found = {"example.org": [fault("mx-missing")]}
        self.clock.advance(600)
        self.assertIn("mx-missing", self.told(daily))
        self.assertEqual(daily.faults, {"example.org": 1})

    def test_a_look_that_fails_is_followed_by_the_one_of_the_next_day(self) -> None:
        daily = self.daily()
        daily._run_in_thread = lambda look: maybeDeferred(lambda: 1 / 0)
        self.clock.advance(600)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        daily._run_in_thread = maybeDeferred
        self.clock.advance(DAY)
        self.assertEqual(self.looks, 1)

    def test_a_stop_ends_the_look_and_leaves_nothing_behind(self) -> None:
        daily = self.daily()
        waiting: Deferred[Any] = Deferred()
        daily._run_in_thread = lambda look: waiting
        self.clock.advance(600)
        daily.stop()
        self.assertEqual((self.given_up, self.clock.getDelayedCalls()), (1, []))
        waiting.callback({"example.org": [fault("mx-missing")]})
        self.assertEqual((daily.faults, daily.problems()), (None, []))

    def test_a_long_list_is_cut(self) -> None:
        daily = self.daily()
        self.found = {f"d{n}.example": [fault("mx-missing")] for n in range(100)}
        self.clock.advance(600)
        self.assertLess(len(daily.problems()[0].lines), 50)


class Joined(SynchronousTestCase):
    def configuration(self, text: str) -> Any:
        from mailserver.config import load

        path = self.mktemp()
        with open(path, "w") as file:
            file.write(text)
        return load(path)

    def test_only_where_strangers_can_connect_and_nobody_has_said_no(self) -> None:
        self.assertFalse(looks_daily(self.configuration(CONFIGURATION)))
        opened = CONFIGURATION.replace("tcp:0:interface=127.0.0.1", "tcp:25")
        self.assertTrue(looks_daily(self.configuration(opened)))
        self.assertFalse(looks_daily(self.configuration(opened + "[dns]\ndaily_look = false\n")))

    def test_one_domains_trouble_is_not_anothers(self) -> None:
        text = CONFIGURATION + '[domain."example.net"]\n[domain."*.example.com"]\n[domain."off.example"]\ndisabled = true\n[dns]\nservers = ["127.0.0.1:1"]\ndaily_trials = false\n'
        configuration = self.configuration(text)
        from mailserver.doctor import configured, examination

        def of(configuration: Any, domain: str) -> Any:
            if domain == "example.org":
                raise OSError("its keys cannot be read")
            return domain

        self.patch(configured, "facts_of", of)
        self.patch(examination, "examined", lambda facts, seen, now, fetch: (facts,))
        looks = _Looks(lambda: configuration)
        self.assertEqual(looks(), {"example.net": ("example.net",)})
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
        looks.give_up()
        self.assertEqual(looks(), {})

    def test_the_trials_of_the_host_are_made_once_and_a_failure_of_them_takes_nothing(self) -> None:
        text = CONFIGURATION + '[domain."a.example"]\n[domain."b.example"]\n[dns]\nservers = ["127.0.0.1:1"]\npublic_addresses = ["192.0.2.1"]\n'
        configuration = self.configuration(text)
        from mailserver.doctor import examination, trying

        class Fake:
            def __init__(self, facts: Any, trial: Any, seen: Any, *, ask: Any) -> None:
                self.domain = facts.domain
                self.ask = ask

            def of_domain(self) -> list[str]:
                if self.domain == "a.example":
                    raise ValueError("a trial that fails")
                return [f"tried {self.domain}, asked {self.ask('route', {})}"]

            def of_host(self) -> list[str]:
                return ["the host"]

        self.patch(examination, "examined", lambda facts, seen, now, fetch: ("looked",))
        self.patch(trying, "Trials", Fake)
        found = _Looks(lambda: configuration)()
        self.assertEqual(found, {
            "example.org": ("looked", "tried example.org, asked None", "the host"), "a.example": ("looked",),
            "b.example": ("looked", "tried b.example, asked None"),
        })  # fmt: skip
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_what_others_report_is_asked_of_the_filters_that_read_it(self) -> None:
        filters = '[[filter]]\nuse = "spf"\n[[filter]]\nuse = "dmarc_reports"\nname = "reports"\n[[filter]]\nuse = "tls_reports"\n'
        looks = _Looks(lambda: self.configuration(CONFIGURATION + filters + '[dns]\npublic_addresses = ["192.0.2.1"]\n'))
        asked: list[Any] = []
        answers: dict[str, Any] = {
            "reports": {"reports": 1, "passed": 4, "rows": [{"source": "192.0.2.1", "messages": 5, "passed": 1, "failed": 4}]},
            "tls_reports": {"reports": 2, "successes": 7, "failures": 0},
        }

        def ask(command: str, arguments: Any) -> Any:
            asked.append((command, arguments["command"], arguments["arguments"]))
            return {"answer": answers[arguments["name"]]} if answers else None

        looks._ask_ourselves = ask  # type: ignore[method-assign]
        self.assertEqual(looks.reports("DMARC", "example.org", 2 * DAY), ReportEvidence(1, 8, 4))
        self.assertEqual(looks.reports("MTA-STS", "example.org", 2 * DAY), ReportEvidence(2, 7, 7))
        self.assertEqual(asked[0], ("component.run", "show", {"domain": "example.org", "since": 2 * DAY}))
        answers.clear()
        self.assertEqual(looks.reports("DMARC", "example.org", 2 * DAY), ReportEvidence())
        looks = _Looks(lambda: self.configuration(CONFIGURATION))
        self.assertEqual(looks.reports("DMARC", "example.org", 2 * DAY), ReportEvidence())
