"""A component's coroutine may wait for asyncio's futures as for Deferreds, where asyncio's loop runs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from mailserver.plugins.asyncio_world import NoAsyncio, in_asyncio
from mailserver.plugins.awaiting import now_or_later


def in_a_loop(begin: Callable[[], Any]) -> list[Any]:
    """What the Deferred that `begin` makes has come to, with asyncio's loop running."""
    seen: list[Any] = []

    async def main() -> None:
        over = asyncio.get_running_loop().create_future()
        answer = begin()

        def heard(result: Any) -> None:
            seen.append(getattr(result, "value", result))
            over.set_result(None)

        answer.addBoth(heard)
        await asyncio.wait_for(over, 30)

    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(main())
    finally:
        loop.close()
    return seen


class Futures(SynchronousTestCase):
    def test_both_worlds_in_one_coroutine(self) -> None:
        async def both() -> list[str]:
            found = [await succeed("from Twisted")]
            await asyncio.sleep(0.001)
            await asyncio.sleep(0)
            task = asyncio.get_running_loop().create_task(asyncio.sleep(0.001, "from a task"))
            found.append(await task)
            found += await asyncio.gather(asyncio.sleep(0.001, "side"), asyncio.sleep(0, "by side"))
            waits: Deferred[str] = Deferred()
            asyncio.get_running_loop().call_later(0.001, waits.callback, "Twisted again")
            return [*found, await waits]

        answer = in_a_loop(lambda: now_or_later(both()))
        self.assertEqual(answer, [["from Twisted", "from a task", "side", "by side", "Twisted again"]])

    def test_an_error_of_a_future_is_raised_where_it_is_awaited(self) -> None:
        async def fails() -> None:
            await asyncio.sleep(0.001)
            raise KeyError("x")

        async def catches() -> str:
            try:
                await asyncio.get_running_loop().create_task(fails())
            except KeyError:
                return "caught"
            return ""

        self.assertEqual(in_a_loop(lambda: now_or_later(catches())), ["caught"])

    def test_a_future_by_itself_and_an_awaitable_that_wraps_one(self) -> None:
        class Wraps:
            def __await__(self) -> Any:
                return asyncio.sleep(0.001, "wrapped").__await__()

        self.assertEqual(in_a_loop(lambda: now_or_later(Wraps())), ["wrapped"])
        task: Callable[[], Awaitable[Any]] = lambda: asyncio.get_running_loop().create_task(asyncio.sleep(0, 7))  # noqa: E731
        self.assertEqual(in_a_loop(lambda: now_or_later(task())), [7])

    def test_cancelling_cancels_the_future(self) -> None:
        futures: list[asyncio.Future[None]] = []

        async def waits() -> None:
            futures.append(asyncio.get_running_loop().create_future())
            await futures[0]

        def begin() -> Deferred[None]:
            answer: Any = now_or_later(waits())
            asyncio.get_running_loop().call_soon(answer.cancel)
            return answer  # type: ignore[no-any-return]

        [error] = in_a_loop(begin)
        self.assertIsInstance(error, CancelledError | asyncio.CancelledError)
        self.assertTrue(futures[0].cancelled())

    def test_a_future_that_was_cancelled_elsewhere_is_an_error(self) -> None:
        async def waits() -> None:
            future = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().call_soon(future.cancel)
            await future

        [error] = in_a_loop(lambda: now_or_later(waits()))
        self.assertIsInstance(error, asyncio.CancelledError)


class Tasks(SynchronousTestCase):
    def test_what_asks_for_the_present_task_has_one(self) -> None:
        async def bounded() -> str:
            async with asyncio.timeout(30):
                return await asyncio.sleep(0.001, "in time")

        async def filter_of_twisted() -> str:
            return await in_asyncio(bounded())

        self.assertEqual(in_a_loop(lambda: now_or_later(filter_of_twisted())), ["in time"])

    def test_cancelling_cancels_the_task(self) -> None:
        ended: list[str] = []

        async def waits() -> None:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                ended.append("cancelled")
                raise

        def begin() -> Deferred[None]:
            answer = in_asyncio(waits())
            asyncio.get_running_loop().call_later(0.001, answer.cancel)
            loop_turns: Deferred[None] = Deferred()
            answer.addErrback(lambda failure: failure.trap(CancelledError))
            asyncio.get_running_loop().call_later(0.01, loop_turns.callback, None)
            return loop_turns

        in_a_loop(begin)
        self.assertEqual(ended, ["cancelled"])

    def test_without_the_loop_the_error_says_which_reactor_to_use(self) -> None:
        error = self.assertRaises(NoAsyncio, in_asyncio, asyncio.sleep(0))
        self.assertIn("twistd --reactor=asyncio", str(error))
        error = self.assertRaises(NoAsyncio, now_or_later, asyncio.sleep(1))
        self.assertIn("twistd --reactor=asyncio", str(error))
        waits: Deferred[None] = Deferred()

        async def later() -> None:
            await waits
            await asyncio.sleep(1)

        answer = now_or_later(later())
        assert isinstance(answer, Deferred)
        waits.callback(None)
        self.assertIn("twistd --reactor=asyncio", self.failureResultOf(answer, NoAsyncio).getErrorMessage())

    def test_other_errors_of_their_kind_stay_what_they_are(self) -> None:
        async def fails() -> None:
            raise RuntimeError("something else")

        error = self.assertRaises(RuntimeError, now_or_later, fails())
        self.assertIs(type(error), RuntimeError)
