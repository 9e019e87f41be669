"""From a component's thread into the reactor's, and back with the answer."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

from mailserver.plugins.in_reactor import ReactorCalls, ReactorGone


class FromAThread(TestCase):
    def setUp(self) -> None:
        self.in_reactor = ReactorCalls(reactor.callFromThread)  # type: ignore[attr-defined]

    def result(self, function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        """What a thread hears."""
        return deferToThread(lambda: self.in_reactor(function, *arguments).result(timeout=30))

    async def test_the_function_runs_in_the_reactors_thread_and_the_thread_has_its_answer(self) -> None:
        self.assertEqual(await self.result(lambda word: (word, threading.get_ident()), "x"), ("x", threading.get_ident()))

    async def test_a_coroutine_and_a_deferred_are_waited_for(self) -> None:
        async def answer() -> str:
            return await succeed("from a coroutine")

        self.assertEqual(await self.result(answer), "from a coroutine")
        waits: Deferred[str] = Deferred()
        reactor.callLater(0, waits.callback, "from a Deferred")  # type: ignore[attr-defined]
        self.assertEqual(await self.result(lambda: waits), "from a Deferred")

    async def test_what_it_raises_is_raised_in_the_thread(self) -> None:
        async def fails() -> None:
            await succeed(None)
            raise KeyError("x")

        with self.assertRaises(ZeroDivisionError):
            await self.result(divmod, 1, 0)
        with self.assertRaises(KeyError):
            await self.result(fails)
        with self.assertRaises(SystemExit):
            await self.result(exit, 3)

    async def test_an_error_that_is_returned_is_an_answer(self) -> None:
        self.assertIsInstance(await self.result(ValueError, "x"), ValueError)


class WithoutAReactor(SynchronousTestCase):
    def setUp(self) -> None:
        self.calls: list[Any] = []
        self.in_reactor = ReactorCalls(lambda *call: self.calls.append(call))

    def asked(self, function: Callable[..., Any]) -> Future[Any]:
        """As a thread would ask."""
        found: list[Future[Any]] = []
        thread = threading.Thread(target=lambda: found.append(self.in_reactor(function)))
        thread.start()
        thread.join()
        return found[0]

    def turn(self) -> None:
        calls, self.calls = self.calls, []
        for function, *arguments in calls:
            function(*arguments)

    def test_after_the_stop_every_call_fails_at_once_and_so_do_those_that_wait(self) -> None:
        made: list[str] = []
        waiting = self.asked(lambda: made.append("waiting"))
        self.in_reactor.stop()
        self.assertIsInstance(waiting.exception(0), ReactorGone)
        self.assertIsInstance(self.asked(lambda: made.append("late")).exception(0), ReactorGone)
        self.turn()
        self.assertEqual(made, [])

    def test_one_that_was_given_up_is_not_called(self) -> None:
        made: list[str] = []
        future = self.asked(lambda: made.append("x"))
        future.cancel()
        self.turn()
        self.assertEqual((made, len(self.in_reactor._open)), ([], 0))
        with self.assertRaises(CancelledError):
            future.result(0)
        self.in_reactor.stop()

    def test_an_answer_that_comes_after_the_stop_or_to_nobody_harms_nothing(self) -> None:
        late: Deferred[int] = Deferred()
        stopped = self.asked(lambda: late)
        self.turn()
        self.in_reactor.stop()
        late.callback(7)
        self.assertIsInstance(stopped.exception(0), ReactorGone)
        self.in_reactor = ReactorCalls(lambda *call: self.calls.append(call))
        unheard: Deferred[int] = Deferred()
        given_up = self.asked(lambda: unheard)
        self.turn()
        given_up.cancel()
        unheard.callback(7)
        self.assertTrue(given_up.cancelled())

    def test_an_error_that_comes_later_is_raised_in_the_thread(self) -> None:
        later: Deferred[int] = Deferred()
        future = self.asked(lambda: later)
        self.turn()
        later.errback(KeyError("x"))
        self.assertIsInstance(future.exception(0), KeyError)
