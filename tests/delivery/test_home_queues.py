"""One delivery at a time into each home, and none that waits long for another one's."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as Late
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailserver.delivery.home_queues import (
    PENALTY_SECONDS,
    PENALTY_SECONDS_MOST,
    SLOW_SECONDS,
    SUSPECTS_AT_ONCE,
    HomeBusy,
    HomeQueues,
)


class Turns(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.turns = HomeQueues(clock=self.clock, at_once=8)
        self.under_way: dict[str, list[Deferred[str]]] = {}

    def ask(self, user: str, last_start: float = 1e9) -> Deferred[Any]:
        async def work() -> str:
            done: Deferred[str] = Deferred()
            self.under_way.setdefault(user, []).append(done)
            return await done

        return Deferred.fromCoroutine(self.turns.serve(user, work, last_start=last_start))

    def answer(self, user: str, result: Any = "path") -> None:
        self.under_way[user].pop(0).callback(result)
        self.clock.advance(0)

    def hang(self, user: str) -> None:
        """A delivery that does not answer until its deadline."""
        asked = self.ask(user)
        self.clock.advance(SLOW_SECONDS + 25)
        self.under_way[user].pop(0).errback(Late())
        self.failureResultOf(asked, HomeBusy)
        self.clock.advance(0)

    def why(self, asked: Deferred[Any]) -> str:
        return str(self.failureResultOf(asked, HomeBusy).value)

    def test_one_at_a_time_for_each_user_in_their_order_and_users_side_by_side(self) -> None:
        asked = [self.ask("alice"), self.ask("alice"), self.ask("bob")]
        self.assertEqual({user: len(done) for user, done in self.under_way.items()}, {"alice": 1, "bob": 1})
        self.answer("alice", "first")
        self.answer("alice", "second")
        self.answer("bob")
        self.assertEqual([self.successResultOf(one) for one in asked], ["first", "second", "path"])
        self.assertEqual(self.turns._homes, {}, "nothing is kept of a home that answers")

    def test_a_clock_that_goes_back_does_not_keep_a_home_waiting(self) -> None:
        self.clock.advance(1e6)
        self.hang("alice")
        self.assertIn("the next try", self.why(self.ask("alice")))
        self.clock.rightNow -= 86_400
        asked = self.ask("alice")
        self.answer("alice")
        self.assertEqual(self.successResultOf(asked), "path")

    def test_who_is_behind_a_slow_delivery_waits_a_few_seconds_and_no_longer(self) -> None:
        first, second = self.ask("alice"), self.ask("alice")
        self.clock.advance(SLOW_SECONDS - 1)
        self.assertNoResult(second)
        self.clock.advance(1)
        self.assertIn("does not answer", self.why(second))
        self.assertIn("does not answer", self.why(self.ask("alice")))
        self.answer("alice")
        self.assertEqual(self.successResultOf(first), "path")
        third = self.ask("alice")
        self.answer("alice")
        self.assertEqual(self.successResultOf(third), "path", "it was slow, and that is forgiven")

    def test_many_that_are_quick_may_take_long_together(self) -> None:
        asked = [self.ask("alice") for _ in range(20)]
        for _ in range(20):
            self.clock.advance(SLOW_SECONDS - 1)
            self.answer("alice")
        for one in asked:
            self.successResultOf(one)

    def test_after_a_deadline_the_home_is_left_alone_longer_each_time(self) -> None:
        seconds = PENALTY_SECONDS
        for _ in range(6):
            self.hang("alice")
            self.clock.advance(seconds - 1)
            self.assertIn("the next try is in 1 seconds", self.why(self.ask("alice")))
            self.clock.advance(1)
            seconds = min(2 * seconds, PENALTY_SECONDS_MOST)
        asked = self.ask("alice")
        self.answer("alice")
        self.successResultOf(asked)
        self.hang("alice")
        self.clock.advance(PENALTY_SECONDS)
        self.assertNoResult(self.ask("alice"))
        self.flushLoggedErrors()

    def test_homes_that_have_not_answered_never_take_all_places(self) -> None:
        users = [f"u{n}" for n in range(8)]
        hanging = [self.ask(user) for user in users]
        waits = self.ask("alice")
        self.clock.advance(25)
        for user in users:
            self.under_way[user].pop(0).errback(Late())
        for one in hanging:
            self.failureResultOf(one, HomeBusy)
        self.answer("alice")
        self.successResultOf(waits)
        self.clock.advance(PENALTY_SECONDS)
        asked = [self.ask(user) for user in users]
        self.assertEqual(sum(one.called for one in asked), len(users) - SUSPECTS_AT_ONCE)
        for one in asked[SUSPECTS_AT_ONCE:]:
            self.assertIn("others like it", self.why(one))
        bob = self.ask("bob")
        self.answer("bob")
        self.successResultOf(bob)

    def test_who_gets_no_place_in_time_is_not_begun(self) -> None:
        for n in range(8):
            self.ask(f"u{n}")
        late = self.ask("alice", last_start=10.0)
        others = [self.ask(user, last_start=10.0) for user in ("alice", "bob") for _ in range(300)]
        self.clock.advance(4)
        self.assertNoResult(late)
        self.clock.advance(6)
        self.assertIn("took the time", self.why(late))
        while self.clock.getDelayedCalls():
            self.clock.advance(1)
        for one in others:
            self.failureResultOf(one, HomeBusy)
        self.answer("u0")
        last = self.ask("carol")
        self.answer("carol")
        self.assertEqual(self.successResultOf(last), "path")

    def test_an_error_and_a_cancellation_let_the_next_one_in(self) -> None:
        broken, cancelled, waiting = self.ask("alice"), self.ask("alice"), self.ask("alice")
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.under_way["alice"].pop(0).errback(OSError("no"))
        self.failureResultOf(broken, OSError)
        self.clock.advance(0)
        cancelled.cancel()
        self.failureResultOf(cancelled, CancelledError)
        self.under_way.clear()
        self.clock.advance(0)
        last = self.ask("alice")
        self.answer("alice")
        self.assertEqual(self.successResultOf(last), "path")
        self.assertEqual((self.turns._homes, self.clock.getDelayedCalls()), ({}, []))

    def test_what_is_remembered_is_bounded(self) -> None:
        from mailserver.delivery import home_queues

        self.patch(home_queues, "REMEMBERED_MOST", 5)
        for n in range(20):
            self.hang(f"u{n}")
            self.clock.advance(PENALTY_SECONDS)
        self.assertLessEqual(len(self.turns._homes), 6)
