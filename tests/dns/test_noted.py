"""What the DNS has told the filters stands on the roads, once as long as it is the same, and is found again by its time."""

from __future__ import annotations

import os
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailserver.cli.without_server import finished
from mailserver.dns import noted
from mailserver.dns.noted import NotingResolver
from mailserver.mail.dns_records import LookupFailed
from mailserver.observe import RoadStore, Steps
from mailserver.observe.road_search import Wanted, search_roads
from mailserver.observe.roads import DnsOfThen, roads_since
from mailserver.testing import FakeResolver

DAY = 86_400.0


class Noted(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_800_000_000)
        folder = self.mktemp()
        os.mkdir(folder)
        self.path = os.path.join(folder, "explain.db")
        self.lines: list[bytes] = []
        roads = RoadStore(self.path)
        self.addCleanup(roads.close)
        self.steps = Steps(roads=roads, seconds=self.clock.seconds, write=self.lines.append, only_on_roads=frozenset({"dns"}))
        self.fake = FakeResolver({"a.example": {"TXT": ["one"]}}, failing=["dead.example"])
        self.resolver = NotingResolver(self.fake, note=self.steps.note, seconds=self.clock.seconds)

    def ask(self, name: str = "a.example", record_type: str = "TXT") -> Any:
        try:
            return finished(self.resolver.query(name, record_type)).records
        except LookupFailed:
            return "fails"

    def then(self, name: str, moment: float, record_type: str = "TXT") -> Any:
        self.steps.flush()
        dns = DnsOfThen(self.path)
        try:
            found = dns.answer(name, record_type, moment)
        finally:
            dns.close()
        return None if found is None else "fails" if found.get("fails") else found["records"]

    def test_each_answer_is_found_at_its_time_and_written_once_as_long_as_it_is_the_same(self) -> None:
        begin = self.clock.seconds()
        for _ in range(3):
            self.ask("A.Example.")
        self.clock.advance(100)
        self.fake.zones["a.example"] = {"TXT": ["two"]}
        self.ask()
        self.assertEqual(self.steps.counts["dns"], 2)
        self.assertEqual([self.then("a.example", begin + after) for after in (-1, 0, 99, 100)], [None, ["one"], ["one"], ["two"]])
        self.assertIsNone(self.then("a.example", begin + 100, "A"))
        self.clock.advance(DAY)
        self.ask()
        self.assertEqual(self.steps.counts["dns"], 3)

    def test_what_failed_and_what_does_not_exist_are_answers_and_what_was_called_off_is_none(self) -> None:
        self.assertEqual(self.ask("dead.example"), "fails")
        self.ask("none.example", "A")
        self.fake.silent.add("slow.example")
        waiting: Deferred[Any] = self.resolver.query("slow.example", "A")
        waiting.cancel()
        self.failureResultOf(waiting)
        now = self.clock.seconds()
        self.assertEqual((self.then("dead.example", now), self.then("none.example", now, "A"), self.then("slow.example", now, "A")), ("fails", [], None))

    def test_long_answers_are_found_whole_and_those_beyond_all_measure_are_not_kept(self) -> None:
        self.fake.zones |= {"long.example": {"TXT": ["x" * 5000]}, "huge.example": {"TXT": ["x" * 50_000]}}
        self.ask("long.example")
        self.ask("huge.example")
        now = self.clock.seconds()
        self.assertEqual((self.then("long.example", now), self.then("huge.example", now)), (["x" * 5000], None))

    def test_memory_is_bounded(self) -> None:
        self.patch(noted, "REMEMBERED", 3)
        for n in range(10):
            self.ask(f"n{n}.example", "A")
        self.ask("n9.example", "A")
        self.ask("n0.example", "A")
        self.assertEqual(self.steps.counts["dns"], 11)

    def test_it_stands_in_no_log_is_no_message_and_nobody_observes_it(self) -> None:
        seen: list[Any] = []

        class Observer:
            def take(self, steps: Any) -> None:
                seen.extend(steps)

        self.steps.observe_with([Observer()])
        self.ask()
        self.steps.note("0" * 16, "accepted", recipients=["a@example.org"])
        self.steps.flush()
        self.assertNotIn(b"dns", b"".join(self.lines))
        self.assertEqual([one["step"] for one in seen], ["accepted"])
        self.assertEqual([one.id for one in search_roads(self.path, Wanted(since=0.0), 10)], ["0" * 16])
        self.assertEqual([id for id, _ in roads_since(self.path, 0.0)], ["0" * 16])
