"""What a reload has replaced: when it stops."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from mailserver.assembly.retirement import Retirement
from mailserver.plugins.generation import Generation


class Parts:
    def __init__(self) -> None:
        self.generation = Generation()
        self.stopped = 0
        self.stopping: Deferred[None] | None = None
        self.error: Exception | None = None

    async def stop(self) -> None:
        self.stopped += 1
        if self.stopping is not None:
            await self.stopping
        if self.error is not None:
            raise self.error


class Retired(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.retirement = Retirement(self.clock)
        self.parts = Parts()

    def test_what_nobody_uses_stops_at_once(self) -> None:
        self.retirement.retire(self.parts, 30)
        self.assertEqual((self.parts.stopped, len(self.retirement), self.clock.getDelayedCalls()), (1, 0, []))

    def test_what_is_used_stops_with_its_last_use(self) -> None:
        with self.parts.generation:
            self.retirement.retire(self.parts, 30)
            self.clock.advance(29)
            self.assertEqual((self.parts.stopped, len(self.retirement)), (0, 1))
        self.assertEqual((self.parts.stopped, len(self.retirement), self.clock.getDelayedCalls()), (1, 0, []))

    def test_what_is_used_for_too_long_stops_under_who_uses_it_which_is_told(self) -> None:
        with self.parts.generation, capturedLogs() as events:
            self.retirement.retire(self.parts, 30)
            self.clock.advance(30)
            self.assertEqual((self.parts.stopped, len(self.retirement)), (1, 0))
        self.assertEqual([event["uses"] for event in events], [1])

    def test_a_stop_waits_for_no_use_but_for_what_is_stopping(self) -> None:
        slow, used = Parts(), Parts()
        slow.stopping = Deferred()
        self.retirement.retire(slow, 30)
        with used.generation:
            self.retirement.retire(used, 30)
            self.assertEqual((slow.stopped, used.stopped, len(self.retirement)), (1, 0, 2))
            done = Deferred.fromCoroutine(self.retirement.finish())
            self.assertEqual((used.stopped, len(self.retirement)), (1, 1))
            self.assertNoResult(done)
            slow.stopping.callback(None)
            self.successResultOf(done)
        self.assertEqual((slow.stopped, used.stopped, len(self.retirement), self.clock.getDelayedCalls()), (1, 1, 0, []))
        self.successResultOf(Deferred.fromCoroutine(self.retirement.finish()))

    def test_one_that_does_not_stop_well_is_logged_and_has_gone(self) -> None:
        self.parts.error = ValueError("no")
        self.retirement.retire(self.parts, 30)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.assertEqual(len(self.retirement), 0)
