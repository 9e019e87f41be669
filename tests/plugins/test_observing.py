"""Observers in threads of their own: none holds up another, what one cannot keep up with is lost to it alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.logger import LogEvent, globalLogPublisher
from twisted.trial.unittest import TestCase

from mailserver.plugins import failure_log
from mailserver.plugins.observing import Observing

SOME = [{"id": "1", "step": "mail"}, {"id": "1", "step": "rcpt"}]


class OneObserver(TestCase):
    def setUp(self) -> None:
        self.hangs = threading.Event()
        self.addCleanup(self.hangs.set)
        self.seen: list[Any] = []
        self.logged: list[LogEvent] = []
        globalLogPublisher.addObserver(self.logged.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.logged.append)

    def told(self) -> int:
        """How many failures the log has had since the last look."""
        found = [event for event in self.logged if event["log_namespace"] == failure_log.__name__]
        self.logged.clear()
        return len(found)

    def observing(self, observe: Callable[[Mapping[str, Any]], Any], **options: Any) -> Observing:
        return Observing("some", observe, call_from_thread=reactor.callFromThread, **options)  # type: ignore[attr-defined]

    def block(self, step: Mapping[str, Any]) -> None:
        self.hangs.wait()
        self.seen.append(step["step"])

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await deferToThread(time.sleep, 0.001)

    async def test_it_sees_the_steps_in_their_order_outside_the_reactor(self) -> None:
        threads: set[int] = set()

        def observe(step: Mapping[str, Any]) -> None:
            threads.add(threading.get_ident())
            self.seen.append(step["step"])

        one = self.observing(observe)
        one.take(SOME)
        one.take(SOME)
        self.assertTrue(await one.end(30, reactor))
        self.assertEqual(self.seen, ["mail", "rcpt"] * 2)
        self.assertNotIn(threading.get_ident(), threads)
        self.assertEqual((one.lost, one.failures, one.waiting, one.hanging), (0, 0, 0, 0))

    async def test_one_that_blocks_loses_steps_which_is_counted_and_told_once(self) -> None:
        one = self.observing(self.block, waiting_most=3)
        for _ in range(4):
            one.take(SOME)
        self.assertEqual((one.lost, one.waiting), (5, 3))
        told = [event for event in self.logged if "does not keep up" in (event.get("log_format") or "")]
        self.assertEqual(len(told), 1)
        self.hangs.set()
        self.assertTrue(await one.end(30, reactor))
        self.assertEqual(self.seen, ["mail", "rcpt", "mail"])

    async def test_as_many_as_there_is_room_for_are_no_loss(self) -> None:
        one = self.observing(self.block, waiting_most=4)
        one.take(SOME)
        one.take(SOME)
        self.assertEqual((one.lost, one.waiting, self.logged), (0, 4, []))
        self.hangs.set()
        self.assertTrue(await one.end(30, reactor))

    async def test_its_thread_does_not_hinder_the_end_of_the_program(self) -> None:
        one = self.observing(self.block)
        one.take(SOME)
        assert one._thread is not None
        self.assertTrue(one._thread.daemon)
        self.hangs.set()
        self.assertTrue(await one.end(30, reactor))

    async def test_where_the_system_has_no_thread_left_steps_are_lost_until_it_has(self) -> None:
        def fails(thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        one = self.observing(lambda step: self.seen.append(step["step"]))
        patch = self.patch(threading.Thread, "start", fails)
        one.take(SOME)
        patch.restore()
        self.assertEqual(one.lost, 2)
        one.take(SOME)
        self.assertTrue(await one.end(30, reactor))
        self.assertEqual(self.seen, ["mail", "rcpt"])

    async def test_a_deferred_is_no_answer_either(self) -> None:
        one = self.observing(lambda step: Deferred())
        one.take(SOME)
        self.assertTrue(await one.end(30, reactor))
        [event] = [event for event in self.logged if event["log_namespace"] == failure_log.__name__]
        self.assertIn("it is a plain function", event["error"])

    async def test_one_that_does_not_end_is_left_behind_and_counted(self) -> None:
        one = self.observing(self.block)
        one.take(SOME)
        self.assertFalse(await one.end(0.01, reactor))
        self.assertEqual(one.hanging, 1)
        one.take(SOME)
        self.assertEqual(one.waiting, 2)
        self.hangs.set()
        await self.until(lambda: one.hanging == 0)

    async def test_whatever_it_raises_it_sees_the_next_step(self) -> None:
        class Unprintable(Exception):
            def __str__(self) -> str:
                raise RuntimeError

        kinds = [ValueError, SystemExit, KeyboardInterrupt, GeneratorExit, RecursionError, Unprintable]

        def observe(step: Mapping[str, Any]) -> None:
            self.seen.append(step["step"])
            raise kinds[len(self.seen) - 1]

        one = self.observing(observe)
        for _ in kinds[::2]:
            one.take(SOME)
        self.assertTrue(await one.end(30, reactor))
        self.assertEqual((len(self.seen), one.failures), (6, 6))
        self.assertEqual(self.told(), 6)

    async def test_a_failure_of_one_kind_is_told_once_a_minute(self) -> None:
        def observe(step: Mapping[str, Any]) -> None:
            raise ValueError(step["step"])

        now = 0.0
        one = self.observing(observe, seconds=lambda: now)
        one.take(SOME)
        await self.until(lambda: one.waiting == 0)
        self.assertEqual(self.told(), 1)
        now = 60.0
        one.take(SOME)
        self.assertTrue(await one.end(30, reactor))
        self.assertEqual(self.told(), 1)
        self.assertEqual(one.failures, 4)

    async def test_a_coroutine_function_is_told_that_it_is_none(self) -> None:
        async def observe(step: Mapping[str, Any]) -> None:
            self.seen.append(step)

        one = self.observing(observe)
        one.take(SOME)
        self.assertTrue(await one.end(30, reactor))
        self.assertEqual((self.seen, one.failures), ([], 2))
        [event] = [event for event in self.logged if event["log_namespace"] == failure_log.__name__]
        self.assertIn("it is a plain function", event["error"])

    async def test_where_no_thread_may_be_begun_all_is_lost_and_counted(self) -> None:
        one = self.observing(self.seen.append, may_begin=lambda: False)
        one.take(SOME)
        self.assertEqual((one.lost, one.waiting, self.seen), (2, 0, []))
        self.assertTrue(await one.end(30, reactor))

    async def test_one_that_was_never_told_anything_has_no_thread(self) -> None:
        before = [thread.name for thread in threading.enumerate()]
        one = self.observing(self.seen.append)
        self.assertTrue(await one.end(30, reactor))
        self.assertEqual([n for n in before if n == "observer some"], [])
