"""Threads of one's own: what hangs keeps its thread, and nobody else waits for it."""

from __future__ import annotations

import threading
import time
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, gatherResults
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from mailserver.plugins.threads import AllHang, QueueFull, Threads


class OwnThreads(TestCase):
    def setUp(self) -> None:
        self.threads = self.made(1)
        self.hangs = threading.Event()
        self.addCleanup(self.hangs.set)

    def made(self, most: int, **options: Any) -> Threads:
        made = Threads("some", most, call_from_thread=reactor.callFromThread, **options)  # type: ignore[attr-defined]
        self.addCleanup(made.stop)
        return made

    async def ended(self, threads: Threads) -> None:
        """Wait until no call that was given up is left."""
        while threads.hanging:
            await deferToThread(time.sleep, 0.001)

    async def test_what_the_function_returns_or_raises_is_what_comes(self) -> None:
        self.assertEqual(await self.threads.run(divmod, 7, 2), (3, 1))
        with self.assertRaises(ZeroDivisionError):
            await self.threads.run(divmod, 1, 0)
        self.assertEqual(await self.threads.run(divmod, 7, 2), (3, 1))

    async def test_one_call_at_a_time_in_the_order_in_which_they_came(self) -> None:
        under_way: list[int] = []
        seen: list[tuple[int, ...]] = []

        def call(n: int) -> None:
            under_way.append(n)
            seen.append(tuple(under_way))
            under_way.remove(n)

        await gatherResults([self.threads.run(call, n) for n in range(20)])
        self.assertEqual(seen, [(n,) for n in range(20)])

    async def test_no_more_threads_than_allowed_and_no_more_than_needed(self) -> None:
        threads = self.made(3)
        names = await gatherResults([threads.run(threading.get_ident) for _ in range(30)])
        self.assertLessEqual(len(set(names)), 3)
        alone = self.made(3)
        self.assertEqual(len({await alone.run(threading.get_ident) for _ in range(5)}), 1)

    async def test_a_call_that_was_given_up_keeps_its_thread_and_the_next_one_hears_that_at_once(self) -> None:
        call = self.threads.run(self.hangs.wait)
        waiting = self.threads.run(divmod, 7, 2)
        call.cancel()
        self.failureResultOf(call, CancelledError)
        self.failureResultOf(waiting, AllHang)
        self.failureResultOf(self.threads.run(divmod, 7, 2), AllHang)
        self.assertEqual(self.threads.hanging, 1)
        self.hangs.set()
        await self.ended(self.threads)
        self.assertEqual(await self.threads.run(divmod, 7, 2), (3, 1))

    async def test_the_threads_that_are_left_serve_the_others(self) -> None:
        threads = self.made(2)
        threads.run(self.hangs.wait).addErrback(lambda failure: failure.trap(CancelledError)).cancel()
        self.assertEqual(await gatherResults([threads.run(divmod, n, 2) for n in range(4)]), [(0, 0), (0, 1), (1, 0), (1, 1)])

    async def test_a_call_that_was_given_up_before_its_turn_is_never_made(self) -> None:
        made: list[int] = []
        first, second = self.threads.run(self.hangs.wait), self.threads.run(made.append, 2)
        third = self.threads.run(made.append, 3)
        second.cancel()
        self.failureResultOf(second, CancelledError)
        self.hangs.set()
        await gatherResults([first, third])
        self.assertEqual(made, [3])

    async def test_after_the_end_nothing_is_taken_and_nobody_waits(self) -> None:
        call: Any = self.threads.run(self.hangs.wait)
        waiting = self.threads.run(divmod, 7, 2)
        self.threads.stop()
        self.failureResultOf(waiting, CancelledError)
        self.failureResultOf(self.threads.run(divmod, 7, 2), AllHang)
        self.hangs.set()
        await call

    async def test_a_full_queue_answers_at_once_and_a_call_that_was_given_up_makes_room(self) -> None:
        threads = self.made(1, waiting_most=2)
        first = threads.run(self.hangs.wait)
        second, third = threads.run(divmod, 7, 2), threads.run(divmod, 8, 2)
        self.failureResultOf(threads.run(divmod, 9, 2), QueueFull)
        second.cancel()
        self.failureResultOf(second, CancelledError)
        fourth = threads.run(divmod, 9, 2)
        self.failureResultOf(threads.run(divmod, 9, 2), QueueFull)
        self.assertEqual((threads.counts.running, threads.counts.waiting, threads.counts.hanging), (1, 2, 0))
        self.hangs.set()
        self.assertEqual(await gatherResults([first, third, fourth]), [True, (4, 0), (4, 1)])

    async def test_threads_that_hang_elsewhere_are_ones_it_has_fewer(self) -> None:
        elsewhere = 1
        threads = self.made(2, left_behind=lambda: elsewhere)
        first, second = threads.run(self.hangs.wait), threads.run(divmod, 7, 2)
        self.assertEqual((threads.counts.running, threads.counts.waiting), (1, 1))
        elsewhere = 2
        self.failureResultOf(threads.run(divmod, 7, 2), AllHang)
        self.hangs.set()
        await gatherResults([first, second])

    async def test_when_all_that_is_left_of_its_threads_hangs_those_who_wait_hear_it_at_once(self) -> None:
        threads = self.made(2, left_behind=lambda: 1)
        first, waiting = threads.run(self.hangs.wait), threads.run(divmod, 7, 2)
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.assertIn("2 earlier calls have not ended", str(self.failureResultOf(waiting, AllHang).value))

    async def test_with_patience_a_call_that_was_just_given_up_is_not_taken_for_one_that_hangs(self) -> None:
        threads = self.made(1, patience_seconds=1000.0)
        threads.run(self.hangs.wait).addErrback(lambda failure: failure.trap(CancelledError)).cancel()
        later = threads.run(divmod, 7, 2)
        self.assertNoResult(later)
        self.hangs.set()
        self.assertEqual(await later, (3, 1))

    async def test_after_the_end_all_that_has_not_ended_hangs(self) -> None:
        call = self.threads.run(self.hangs.wait)
        self.assertEqual(self.threads.hanging, 0)
        self.threads.stop()
        self.assertEqual(self.threads.hanging, 1)
        self.hangs.set()
        await call
        self.assertEqual(self.threads.hanging, 0)

    async def test_a_function_that_ends_the_program_fails_and_ends_no_thread(self) -> None:
        def leave() -> None:
            raise SystemExit(3)

        with self.assertRaises(SystemExit):
            await self.threads.run(leave)
        self.assertEqual(await self.threads.run(divmod, 7, 2), (3, 1))

    async def test_a_stop_ends_the_threads_that_have_nothing_to_do_and_begins_none(self) -> None:
        name = "threads that a stop ends"
        threads = Threads(name, 2, call_from_thread=reactor.callFromThread)  # type: ignore[attr-defined]
        await threads.run(divmod, 7, 2)
        [thread] = [one for one in threading.enumerate() if one.name == name]
        threads.stop()
        await deferToThread(thread.join, 30)
        self.assertFalse(thread.is_alive())
        self.failureResultOf(threads.run(divmod, 7, 2), AllHang)
        self.assertEqual([one for one in threading.enumerate() if one.name == name], [])
