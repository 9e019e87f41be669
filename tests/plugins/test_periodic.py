"""Periodic runs: never two at once, each with its deadline, whatever comes of one the next one comes."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.logger import LogEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from mailserver.interfaces import IPeriodic
from mailserver.plugins import failure_log
from mailserver.plugins.periodic import Periodic, interval_fault


@implementer(IPeriodic)
class Works:
    interval_seconds: Any = 100.0
    deadline_seconds: Any = 10.0

    def __init__(self) -> None:
        self.runs: list[Deferred[None]] = []
        self.answers: list[Any] = []

    def run_periodically(self) -> Any:
        self.runs.append(Deferred())
        if self.answers:
            answer = self.answers.pop(0)
            if isinstance(answer, BaseException):
                raise answer
            return answer
        return self.runs[-1]


class Runs(SynchronousTestCase):
    def setUp(self) -> None:
        self.logged: list[LogEvent] = []
        globalLogPublisher.addObserver(self.logged.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.logged.append)
        self.clock = Clock()
        self.component = Works()
        self.periodic = Periodic("the filter works", self.component, clock=self.clock, random_share=lambda: 0.5)
        self.periodic.start()

    def told(self) -> int:
        """How many failures the log has had since the last look."""
        found = [event for event in self.logged if event["log_namespace"] == failure_log.__name__]
        self.logged.clear()
        return len(found)

    def test_the_first_run_comes_within_a_minute_and_the_next_an_interval_after_its_end(self) -> None:
        self.clock.advance(29)
        self.assertEqual(len(self.component.runs), 0)
        self.clock.advance(1)
        self.assertEqual(len(self.component.runs), 1)
        self.clock.advance(5)
        self.component.runs[0].callback(None)
        self.assertEqual(self.periodic.state().seconds_left, 100)
        self.clock.advance(99)
        self.assertEqual(len(self.component.runs), 1)
        self.clock.advance(1)
        self.assertEqual(len(self.component.runs), 2)
        self.assertIsNone(self.periodic.state().seconds_left)

    def test_the_pause_differs_by_a_tenth(self) -> None:
        for share, pause in ((0.0, 90.0), (1.0, 110.0)):
            component = Works()
            periodic = Periodic("x", component, clock=self.clock, random_share=lambda share=share: share)  # type: ignore[misc]
            periodic.start()
            self.clock.advance(60)
            component.runs[0].callback(None)
            self.assertAlmostEqual(periodic.state().seconds_left or 0, pause)

    def test_a_run_that_hangs_is_cancelled_at_its_deadline_and_the_next_one_comes(self) -> None:
        self.clock.advance(30)
        self.clock.advance(10)
        state = self.periodic.state()
        self.assertEqual((state.failures, state.last_error), (1, "it took longer than 10 s and was cancelled"))
        self.clock.advance(100)
        self.assertEqual(len(self.component.runs), 2)
        self.component.runs[1].callback(None)
        self.assertEqual(self.periodic.state().last_error, "")

    def test_one_that_ignores_its_cancelling_keeps_the_next_from_beginning_until_it_has_ended(self) -> None:
        held: Deferred[None] = Deferred()

        async def stubborn() -> None:
            try:
                await Deferred()
            except CancelledError:
                await held

        self.component.answers = [stubborn()]
        self.clock.advance(30)
        self.clock.advance(10)
        self.clock.advance(100)
        self.clock.advance(100)
        state = self.periodic.state()
        self.assertEqual((state.runs, state.skipped), (1, 2))
        held.callback(None)
        self.clock.advance(100)
        self.assertEqual(self.periodic.state().runs, 2)

    def test_that_the_next_one_waits_is_told_once_a_minute(self) -> None:
        self.periodic.stop()

        async def stubborn() -> None:
            try:
                await Deferred()
            except CancelledError:
                await Deferred()

        self.component.interval_seconds = self.component.deadline_seconds = 10.0
        self.component.answers = [stubborn()]
        given_up: list[Any] = []
        periodic = Periodic("x", self.component, clock=self.clock, random_share=lambda: 0.5, given_up=given_up.append)
        periodic.start()
        self.clock.advance(5)
        self.clock.advance(10)
        for _ in range(7):
            self.clock.advance(10)
        self.assertEqual(periodic.state().skipped, 7)
        told = [event for event in self.logged if "goes on after it was cancelled" in (event.get("log_format") or "")]
        self.assertEqual(len(told), 2)
        self.assertEqual(len(given_up), 1)
        periodic.stop()

    def test_whatever_a_run_raises_or_returns_is_its_failure_and_the_next_one_comes(self) -> None:
        async def later_on() -> None:
            raise ValueError("in the coroutine")

        self.component.answers = [KeyError("at once"), later_on(), SystemExit(3), None, "a word"]
        self.clock.advance(30)
        for _ in range(4):
            self.clock.advance(100)
        state = self.periodic.state()
        self.assertEqual((state.runs, state.failures), (5, 5))
        self.assertTrue(state.last_error.startswith("TypeError"), state.last_error)

    def test_a_failure_of_one_kind_is_logged_once_a_minute(self) -> None:
        self.periodic.stop()
        self.component.interval_seconds = 10.0
        self.periodic = Periodic("x", self.component, clock=self.clock, random_share=lambda: 0.5)
        self.component.answers = [ValueError("x")] * 7
        self.periodic._run()
        for _ in range(6):
            self.clock.advance(10)
        self.assertEqual(self.periodic.state().failures, 7)
        self.assertEqual(self.told(), 2)

    def test_after_the_stop_no_run_begins_and_the_present_one_is_cancelled_which_is_no_failure(self) -> None:
        cancelled: list[Any] = []
        self.component.answers = [Deferred(cancelled.append)]
        self.clock.advance(30)
        self.periodic.stop()
        self.assertEqual(len(cancelled), 1)
        self.assertEqual(self.periodic.state().failures, 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stopped_before_the_first_run_nothing_is_left(self) -> None:
        self.periodic.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])


class Times(SynchronousTestCase):
    def test_times_that_are_none_are_told(self) -> None:
        component = Works()
        self.assertEqual(interval_fault(component), "")
        for right in (0.1, 400 * 86_400, 60):
            component.interval_seconds = right
            self.assertEqual(interval_fault(component), "")
        for wrong in (0, -1, float("nan"), float("inf"), "60", None, True, 10**12):
            component.interval_seconds = wrong
            self.assertIn("interval_seconds", interval_fault(component))
        component.interval_seconds, component.deadline_seconds = 60, 0
        self.assertIn("deadline_seconds", interval_fault(component))
