"""The watchdog: who holds the reactor is told with its name and its stack, once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from twisted.internet.task import Clock
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from mailserver.interfaces import Services
from mailserver.plugins import watchdog
from mailserver.plugins.register import Register
from mailserver.plugins.watchdog import Heartbeat, Watchdog


class Beats(SynchronousTestCase):
    def setUp(self) -> None:
        self.heart = Heartbeat(0.5)

    def test_a_beat_that_comes_in_time_says_nothing(self) -> None:
        self.heart.ask(100.0)
        self.assertFalse(self.heart.late(100.49))
        self.assertIsNone(self.heart.came(100.5))
        self.assertFalse(self.heart.is_asked)

    def test_a_late_one_is_told_once_and_in_the_end_for_how_long(self) -> None:
        self.heart.ask(100.0)
        self.assertEqual([self.heart.late(at) for at in (100.4, 100.5, 100.6, 102.0)], [False, True, False, False])
        self.assertEqual(self.heart.came(102.0), 2.0)
        self.assertIsNone(self.heart.came(103.0))
        self.heart.ask(200.0)
        self.assertTrue(self.heart.late(200.5))

    def test_time_in_which_the_system_had_no_processor_for_it_is_nobodys(self) -> None:
        self.heart.ask(100.0, starved=7.0)
        self.assertFalse(self.heart.late(101.0, starved=7.9))
        self.assertTrue(self.heart.late(101.5, starved=7.9))
        self.assertAlmostEqual(self.heart.came(102.0, starved=8.0) or 0, 1.0)

    def test_no_beat_was_asked_for(self) -> None:
        self.assertFalse(self.heart.late(1000.0))
        self.assertIsNone(self.heart.came(1000.0))


class Slow:
    """A component; `work` is what the reactor calls."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work

    def call(self) -> None:
        self._work()


class AWatchedThread(SynchronousTestCase):
    """A thread that stands for the reactor's: it runs what is put into its hands."""

    def setUp(self) -> None:
        self.logged: list[LogEvent] = []
        globalLogPublisher.addObserver(self.logged.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.logged.append)
        self.calls: list[Any] = []
        self.now = 100.0
        clock: Any = Clock()
        self.register = Register(clock=clock, call_from_thread=self.take, steady_seconds=time.monotonic)
        self.watchdog = Watchdog(seconds=0.02, call_from_thread=self.take, register=self.register, steady_seconds=lambda: self.now)
        self.free = threading.Event()
        self.addCleanup(self.free.set)

    def take(self, *call: Any) -> None:
        self.calls.append(call)

    def watched(self, component: Slow, begun: threading.Event, name: str = "slow") -> threading.Thread:
        """The thread in which the component's call runs."""
        nowhere: Any = None
        lent, _ = self.register.lend("filter", name, Services(nowhere, nowhere, nowhere, nowhere, "", "", ""))
        self.register.built(lent, component)
        self.register.begin(component)

        def run() -> None:
            self.watchdog._watched = threading.get_ident()
            begun.set()
            component.call()

        thread = threading.Thread(target=run)
        thread.start()
        begun.wait()
        return thread

    def look(self, at: float) -> None:
        self.now = at
        self.watchdog._look()

    def said(self) -> list[str]:
        return [formatEvent(event) for event in self.logged if (event.get("log_namespace") or "").startswith(watchdog.__name__)]

    def test_a_component_that_holds_it_is_named_with_its_stack_counted_and_told_once_a_minute(self) -> None:
        thread = self.watched(Slow(self.free.wait), threading.Event())  # type: ignore[arg-type]
        self.look(100.0)
        self.assertEqual([call[0] for call in self.calls], [self.watchdog._beat])
        self.look(100.01)
        self.assertEqual(self.said(), [])
        self.look(100.03)
        self.look(100.5)
        [told] = self.said()
        self.assertIn("the filter slow holds the reactor for more than 0.02 s", told)
        self.assertIn("in call", told)
        self.free.set()
        thread.join()
        self.now = 102.0
        self.calls.pop()[0]()
        self.assertEqual(self.register.described()[0]["blocks"], {"count": 1, "longest_seconds": 2.0})
        self.assertEqual(self.calls, [])

    def test_a_call_of_the_servers_own_is_told_too(self) -> None:
        component = Slow(self.free.wait)  # type: ignore[arg-type]
        thread = self.watched(component, threading.Event())
        self.register._lent.clear()
        self.look(100.0)
        self.look(101.0)
        self.assertIn("the server itself holds the reactor", self.said()[0])
        self.free.set()
        thread.join()

    def test_a_thread_that_waits_for_the_network_is_not_asked(self) -> None:
        names = {"__name__": "twisted.internet.epollreactor", "wait": self.free.wait}
        exec("def doPoll():\n    wait()\n", names)
        begun = threading.Event()

        def poll() -> None:
            self.watchdog._watched = threading.get_ident()
            begun.set()
            names["doPoll"]()  # type: ignore[operator]

        # The innermost Python frame has to be doPoll's own: Event.wait is Python.
        names["wait"] = threading.Lock()
        lock: Any = names["wait"]
        lock.acquire()
        names["wait"] = lock.acquire
        thread = threading.Thread(target=poll, daemon=True)
        thread.start()
        begun.wait()
        deadline = time.monotonic() + 30
        while not watchdog._is_waiting(watchdog.sys._current_frames().get(self.watchdog._watched)):
            self.assertLess(time.monotonic(), deadline)
        self.look(100.0)
        self.assertEqual(self.calls, [])
        lock.release()
        thread.join()

    def test_a_fault_of_its_own_does_not_end_the_watch(self) -> None:
        looks: list[int] = []
        enough = threading.Event()

        def look() -> None:
            looks.append(1)
            if len(looks) == 3:
                enough.set()
            raise RuntimeError("fault")

        self.patch(self.watchdog, "_look", look)
        self.watchdog.start()
        self.assertTrue(enough.wait(30))
        self.watchdog.stop()
        assert self.watchdog._thread is not None
        self.watchdog._thread.join()
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
