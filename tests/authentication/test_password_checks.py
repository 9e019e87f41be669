"""The threads that compare passwords."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase

from mailserver.authentication.password_checks import CostlyThreads, NotRunning, PasswordChecks, TooMany
from mailserver.authentication.passwords import hash_password


class Running(TestCase):
    def threads(self, **bounds: int) -> CostlyThreads:
        from twisted.internet import reactor

        threads = CostlyThreads(call_in_reactor=reactor.callFromThread, **{"threads": 1, "waiting": 0, **bounds})  # type: ignore[attr-defined]
        self.addCleanup(threads.stop)
        return threads

    def test_before_the_start_and_after_the_end_work_is_refused_at_once(self) -> None:
        threads = self.threads()
        self.failureResultOf(threads.run(int), NotRunning)
        threads.start()
        threads.stop()
        self.failureResultOf(threads.run(int), NotRunning)

    async def test_other_bounds_hold_from_the_next_work_on(self) -> None:
        threads = self.threads()
        threads.start()
        first = threads.run(int)
        self.failureResultOf(threads.run(int), TooMany)
        threads.resize(threads=2, waiting=1)
        self.assertEqual(await gatherResults([first, threads.run(int), threads.run(int)]), [0, 0, 0])


class Remembering(SynchronousTestCase):
    def test_a_right_password_is_remembered_for_as_long_as_is_wanted_now(self) -> None:
        clock, compared = Clock(), []

        async def run(function: Any, *arguments: Any) -> Any:
            compared.append(function)
            return function(*arguments)

        checks = PasswordChecks(run=run, clock=clock, remember_seconds=60)
        hash = hash_password("right")

        def ask() -> int:
            self.assertTrue(self.successResultOf(Deferred.fromCoroutine(checks.matches("right", hash))))
            return len(compared)

        self.assertEqual((ask(), ask()), (1, 1))
        clock.advance(30)
        checks.remember_seconds = 20
        self.assertEqual(ask(), 2)
        checks.remember_seconds = 0
        self.assertEqual((ask(), ask()), (3, 4))
