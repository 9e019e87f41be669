"""Running what a component returns: at once where it can be, to its end where it has to wait."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.defer import TimeoutError as Late
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailserver.plugins.awaiting import in_time, later, now_or_later, side_by_side, within


async def _after(*waits_for: Any) -> list[Any]:
    """Await each; an error that comes is told as its words."""
    found: list[Any] = []
    for one in waits_for:
        try:
            found.append(await one)
        except ValueError as error:
            found.append(str(error))
    return found


async def _value(value: str) -> str:
    return value


async def _wait(waits_for: Deferred[str]) -> str:
    return await waits_for


async def _broken(waits_for: Any = None) -> None:
    if waits_for is not None:
        await waits_for
    raise ValueError("broken")


class NowOrLater(SynchronousTestCase):
    def test_a_coroutine_that_does_not_wait_gives_its_value(self) -> None:
        self.assertEqual(now_or_later(_after()), [])

    def test_deferreds_that_have_fired_are_no_reason_to_wait(self) -> None:
        self.assertEqual(now_or_later(_after(succeed(1), fail(ValueError("two")))), [1, "two"])

    def test_an_error_that_is_there_is_raised(self) -> None:
        self.assertRaises(ValueError, now_or_later, _broken())

    def test_a_deferred_is_handed_back_as_it_is(self) -> None:
        waiting: Deferred[int] = Deferred()
        self.assertIs(now_or_later(waiting), waiting)

    def test_a_coroutine_goes_on_with_each_value_as_it_comes(self) -> None:
        first: Deferred[int] = Deferred()
        second: Deferred[int] = Deferred()
        result = now_or_later(_after(first, succeed(2), second))
        self.assertIsInstance(result, Deferred)
        self.assertNoResult(result)
        first.callback(1)
        self.assertNoResult(result)
        second.callback(3)
        self.assertEqual(self.successResultOf(result), [1, 2, 3])

    def test_a_failure_is_raised_where_it_is_awaited(self) -> None:
        first: Deferred[int] = Deferred()
        second: Deferred[int] = Deferred()
        result = now_or_later(_after(first, second))
        first.errback(ValueError("one"))
        second.callback(2)
        self.assertEqual(self.successResultOf(result), ["one", 2])

    def test_an_error_after_waiting_is_a_failure_of_the_result(self) -> None:
        waiting: Deferred[None] = Deferred()
        result = now_or_later(_broken(waiting))
        waiting.callback(None)
        self.failureResultOf(result, ValueError)

    def test_cancelling_the_result_cancels_what_is_waited_for(self) -> None:
        waiting: Deferred[None] = Deferred()
        result: Any = now_or_later(_after(succeed(1), waiting))
        result.cancel()
        self.failureResultOf(result, CancelledError)
        self.assertTrue(waiting.called)

    def test_what_comes_after_the_cancelling_is_not_heard(self) -> None:
        waiting: Deferred[None] = Deferred(lambda _: None)
        result: Any = now_or_later(_after(waiting))
        waiting.addErrback(lambda _: None)
        result.cancel()
        self.failureResultOf(result, CancelledError)

    def test_an_awaitable_of_another_kind_is_awaited(self) -> None:
        class Other:
            def __await__(self) -> Any:
                return (yield from succeed(7).__await__())

        self.assertEqual(now_or_later(Other()), 7)


async def _stubborn(*waits_for: Any) -> str:
    """Catches whatever is thrown into it, as plugins do."""
    for one in waits_for:
        try:
            await one
        except Exception:
            continue
    return "at last"


class SideBySide(SynchronousTestCase):
    def test_what_is_there_already_and_what_comes_stand_in_their_order(self) -> None:
        late: Deferred[str] = Deferred()
        answer = now_or_later(side_by_side([_value("a"), _wait(late), _value("c")]))
        assert isinstance(answer, Deferred)
        late.callback("b")
        self.assertEqual(self.successResultOf(answer), ["a", "b", "c"])
        self.assertEqual(now_or_later(side_by_side([_value("a"), _value("b")])), ["a", "b"])
        self.assertEqual(now_or_later(side_by_side([])), [])

    def test_the_first_failure_is_raised_and_cancels_the_others(self) -> None:
        first: Deferred[str] = Deferred()
        second: Deferred[str] = Deferred()
        answer = now_or_later(side_by_side([_wait(first), _wait(second)]))
        assert isinstance(answer, Deferred)
        second.errback(ValueError("broken"))
        self.failureResultOf(answer, ValueError)
        self.assertTrue(first.called)

    def test_an_error_that_is_there_at_once_leaves_nothing_running(self) -> None:
        first: Deferred[str] = Deferred()
        never = _value("c")
        with self.assertRaises(ValueError):
            now_or_later(side_by_side([_wait(first), _broken(), never]))
        self.assertTrue(first.called)

    def test_cancelling_it_cancels_each(self) -> None:
        waits: list[Deferred[str]] = [Deferred(), Deferred()]
        answer = now_or_later(side_by_side([_wait(one) for one in waits]))
        assert isinstance(answer, Deferred)
        answer.cancel()
        self.failureResultOf(answer)
        self.assertTrue(all(one.called for one in waits))


class InTime(SynchronousTestCase):
    def test_a_timer_is_set_only_for_what_is_waited_for(self) -> None:
        clock = Clock()
        self.assertEqual(now_or_later(in_time(5.0, _value("a"), clock)), "a")
        self.assertEqual(clock.getDelayedCalls(), [])
        answer = now_or_later(in_time(5.0, _wait(Deferred()), clock))
        assert isinstance(answer, Deferred)
        clock.advance(5.0)
        self.failureResultOf(answer, Late)


class Within(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()

    def test_what_comes_in_time_is_the_answer_and_no_timer_is_left(self) -> None:
        waiting: Deferred[int] = Deferred()
        for answer in (within(5, waiting, self.clock), within(5, succeed(3), self.clock)):
            if not waiting.called:
                waiting.callback(3)
            self.assertEqual(self.successResultOf(answer), 3)
        self.failureResultOf(within(5, fail(ValueError()), self.clock), ValueError)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_what_does_not_let_itself_be_cancelled_is_not_waited_for(self) -> None:
        last: Deferred[None] = Deferred()
        for answer in (_stubborn(Deferred(), last), Deferred.fromCoroutine(_stubborn(Deferred(), last))):
            bounded = within(5, later(answer), self.clock)
            self.clock.advance(4)
            self.assertNoResult(bounded)
            self.clock.advance(1)
            self.failureResultOf(bounded, Late)
        last.callback(None)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_cancelling_it_cancels_what_is_waited_for(self) -> None:
        waiting: Deferred[None] = Deferred()
        bounded = within(5, waiting, self.clock)
        bounded.cancel()
        self.failureResultOf(bounded, CancelledError)
        self.assertTrue(waiting.called)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_canceller_that_raises_is_told(self) -> None:
        def raises(_: Any) -> None:
            raise RuntimeError("a plugin's")

        bounded = within(5, Deferred(raises), self.clock)
        self.clock.advance(5)
        self.failureResultOf(bounded, Late)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
