"""The register: what components were lent, how they do, and what former ones have left behind."""

from __future__ import annotations

import sys
import threading
from types import FrameType
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from mailserver.interfaces import ComponentCommand, ICommands, ICounting, IObserver, IPeriodic, Services
from mailserver.plugins.budget import Budget
from mailserver.plugins.catalogue import PluginError
from mailserver.plugins.lent import Lent
from mailserver.plugins.register import CALLS_WAITING, THREADS, Register
from mailserver.plugins.threads import AllHang, QueueFull
from mailserver.plugins.watchdog import frames_of


@implementer(IPeriodic, IObserver, ICounting, ICommands)
class Everything:
    interval_seconds: Any = 60.0
    deadline_seconds = 5.0

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.figures: Any = {"lookups": 3, "ratio": 0.5, "no figure": "x", "neither": True}

    async def run_periodically(self) -> None: ...

    def observe(self, step: Any) -> None:
        self.seen.append(step)

    def counts(self) -> Any:
        return self.figures

    async def show(self) -> str:
        return "shown"

    def commands(self) -> list[ComponentCommand]:
        return [ComponentCommand("show", "show it", self.show)]

    def frames(self) -> list[FrameType]:
        return frames_of(sys._getframe())


async def nothing() -> None: ...


class InTheRegister(TestCase):
    def setUp(self) -> None:
        self.now = 0.0
        self.register = Register(
            clock=reactor, call_from_thread=reactor.callFromThread, steady_seconds=lambda: self.now  # type: ignore[attr-defined,arg-type]
        )
        self.hangs = threading.Event()
        self.addCleanup(self.register.stop)
        self.addCleanup(self.hangs.set)

    def services(self) -> Services:
        nowhere: Any = None
        return Services(nowhere, nowhere, nowhere, nowhere, "mx.example", "/", "/")

    def lent(self, component: Any, name: str = "some") -> tuple[Lent, Services]:
        lent, services = self.register.lend("filter", name, self.services())
        self.register.built(lent, component)
        self.register.begin(component)
        return lent, services

    async def end(self, component: Any) -> None:
        await self.register.end(component, nothing, nothing)

    async def test_a_component_is_lent_its_name_its_threads_and_its_metrics(self) -> None:
        component = Everything()
        lent, services = self.lent(component)
        self.assertEqual(services.name, "some")
        self.assertEqual(await services.run_in_thread(divmod, 7, 2), (3, 1))
        services.metrics.count("hits")
        self.assertEqual(services.in_reactor(divmod, 7, 2).result(0), (3, 1))
        self.assertIs(self.register.of(component), lent)
        self.assertEqual(await lent.commands["show"].run(), "shown")
        await self.end(component)
        self.assertIsNone(self.register.of(component))

    async def test_one_components_threads_that_hang_are_not_anothers(self) -> None:
        _, one = self.lent(slow := Everything(), "slow")
        _, other = self.lent(sound := Everything(), "sound")
        for _ in range(THREADS):
            one.run_in_thread(self.hangs.wait).addErrback(lambda failure: failure.trap(CancelledError)).cancel()
        self.failureResultOf(one.run_in_thread(divmod, 7, 2), AllHang)
        self.assertEqual(await other.run_in_thread(divmod, 7, 2), (3, 1))
        self.hangs.set()
        await self.end(slow)
        await self.end(sound)
        self.flushLoggedErrors()

    async def test_its_queue_is_bounded(self) -> None:
        _, services = self.lent(component := Everything())
        calls = [services.run_in_thread(self.hangs.wait) for _ in range(THREADS + CALLS_WAITING)]
        self.failureResultOf(services.run_in_thread(divmod, 7, 2), QueueFull)
        self.hangs.set()
        for call in calls:
            await call
        await self.end(component)

    async def test_threads_that_hang_over_reloads_are_counted_and_come_to_an_end(self) -> None:
        begun = 0
        for _ in range(10):
            _, services = self.lent(component := Everything())
            for _ in range(THREADS):
                call = services.run_in_thread(self.hangs.wait)
                call.addErrback(lambda failure: failure.trap(CancelledError, AllHang))
                begun += not call.called
                call.cancel()
            await self.end(component)
        self.assertEqual(begun, 3 * THREADS)
        self.assertEqual(self.register.left_behind(), {"filter some": 3 * THREADS})
        _, services = self.lent(component := Everything())
        self.failureResultOf(services.run_in_thread(divmod, 7, 2), AllHang)
        self.hangs.set()
        while self.register.left_behind():
            await self.pause()
        self.assertEqual(await services.run_in_thread(divmod, 7, 2), (3, 1))
        await self.end(component)

    async def test_observers_that_hang_over_reloads_come_to_an_end_too(self) -> None:
        self.patch(sys.modules[Register.__module__], "OBSERVER_SECONDS", 0.001)
        component = Everything()
        for _ in range(6):
            component = Everything()
            component.observe = lambda step: self.hangs.wait()  # type: ignore[assignment,method-assign,misc]
            self.lent(component)
            self.register.observing(component).take([{}])
            await self.end(component)
        self.assertEqual(self.register.left_behind(), {"filter some": 4})
        self.hangs.set()
        while self.register.left_behind():
            await self.pause()

    def pause(self) -> Deferred[None]:
        done: Deferred[None] = Deferred()
        reactor.callLater(0.001, done.callback, None)  # type: ignore[attr-defined]
        return done

    async def test_an_observer_is_told_what_was_noted_before_its_end_and_before_it_is_stopped(self) -> None:
        component = Everything()
        self.lent(component)
        observing = self.register.observing(component)
        self.assertIs(self.register.observing(component), observing)
        stopped: list[int] = []

        async def stop() -> None:
            stopped.append(len(component.seen))

        async def flush() -> None:
            observing.take([{"step": "last"}])

        await self.register.end(component, stop, flush)
        self.assertEqual(stopped, [1])

    async def test_where_the_steps_cannot_be_flushed_it_is_stopped_all_the_same(self) -> None:
        component = Everything()
        self.lent(component)
        self.register.observing(component)
        stopped: list[int] = []

        async def stop() -> None:
            stopped.append(1)

        async def flush() -> None:
            raise OSError("the disk")

        await self.register.end(component, stop, flush)
        self.assertEqual(stopped, [1])
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)

    async def test_and_where_the_disk_of_the_log_hangs(self) -> None:
        self.patch(sys.modules[Register.__module__], "OBSERVER_SECONDS", 0.001)
        component = Everything()
        self.lent(component)
        self.register.observing(component)
        stopped: list[int] = []

        async def stop() -> None:
            stopped.append(1)

        await self.register.end(component, stop, lambda: Deferred())
        self.assertEqual(stopped, [1])
        self.assertEqual(len(self.flushLoggedErrors()), 1)

    async def test_periodic_runs_begin_and_end_with_the_component(self) -> None:
        lent, _ = self.lent(component := Everything())
        assert lent.periodic is not None
        self.assertIsNotNone(lent.periodic.state().seconds_left)
        await self.end(component)
        self.assertIsNone(lent.periodic.state().seconds_left)

    def test_times_that_are_none_are_the_plugins_fault(self) -> None:
        component = Everything()
        component.interval_seconds = 0
        lent, _ = self.register.lend("filter", "some", self.services())
        with self.assertRaisesRegex(PluginError, "the filter some cannot run periodically: interval_seconds"):
            self.register.built(lent, component)

    def test_components_that_never_begin_are_forgotten(self) -> None:
        for _ in range(1_500):
            lent, _ = self.register.lend("filter", "some", self.services())
            self.register.built(lent, Everything())
        self.assertEqual(len(self.register._lent), 1_000)
        self.assertEqual(self.register.running(), [])

    def test_what_is_known_of_each_is_said_in_plain_values(self) -> None:
        lent, services = self.lent(component := Everything())
        self.register.observing(component)
        services.metrics.count("hits", 2)
        lent.budgets["content"] = Budget(failures=1, window_seconds=60, pause_seconds=30)
        lent.budgets["content"].failed(0.0)
        self.register.held(lent, 2.0)
        self.register.held(lent, 1.0)
        self.register.held(None, 9.0)
        [said] = self.register.described()
        left = said["periodic"].pop("seconds_left")
        self.assertTrue(0 <= left <= 60)
        self.assertEqual(
            said,
            {
                "kind": "filter",
                "name": "some",
                "threads": {"running": 0, "waiting": 0, "hanging": 0},
                "calls_hanging": 0,
                "blocks": {"count": 2, "longest_seconds": 2.0},
                "circuits": {
                    "content": {
                        "circuit": "open", "seconds_left": 30.0, "failures": 1, "opened": 1,
                        "words": "open for another 30 s",
                    }
                },
                "metrics": {"hits": 2},
                "observer": {"waiting": 0, "lost": 0, "failures": 0},
                "periodic": {"runs": 0, "failures": 0, "skipped": 0, "last_error": ""},
                "counts": {"lookups": 3, "ratio": 0.5},
            },
        )  # fmt: skip
        return self.end(component)  # type: ignore[return-value]

    def test_a_component_that_cannot_say_its_counts_costs_no_other_figure(self) -> None:
        self.lent(component := Everything())
        for wrong in (None, 7, "abc", [1, 2], [("lookups", 3)], {"lookups": 10**5000}, {"ratio": float("inf")}):
            component.figures = wrong
            self.assertEqual(self.register.described()[0]["counts"], {})
        self.assertEqual(len(self.flushLoggedErrors()), 1)
        return Deferred.fromCoroutine(self.end(component))  # type: ignore[return-value]

    async def test_a_frame_of_a_library_is_its_callers_and_one_of_twisted_nobodys(self) -> None:
        names: dict[str, Any] = {"__name__": "twisted.plugins.acme", "frames": Everything.frames}
        exec("class Acme:\n    def frames(self, inner):\n        return inner()\n", names)
        foreign: dict[str, Any] = {"__name__": "some_library.inside", "frames_of": frames_of, "sys": sys}
        exec("def inner():\n    return frames_of(sys._getframe())\n", foreign)
        twisted_own: dict[str, Any] = {"__name__": "twisted.internet.tcp", "frames_of": frames_of, "sys": sys}
        exec("def inner():\n    return frames_of(sys._getframe())[:1]\n", twisted_own)
        component = names["Acme"]()
        self.lent(component, "acme")
        self.assertEqual(str(self.register.who(component.frames(foreign["inner"]))), "the filter acme")
        self.assertIsNone(self.register.who(twisted_own["inner"]()))
        await self.end(component)

    async def test_who_holds_the_reactor_is_told_by_the_frames_module_and_of_two_by_the_object(self) -> None:
        one, two = Everything(), Everything()
        self.lent(one, "one")
        self.lent(two, "two")
        self.assertEqual([str(self.register.who(each.frames())) for each in (one, two)], ["the filter one", "the filter two"])
        self.assertIsNone(self.register.who(await succeed(sys._current_frames()) and []))
        await self.end(one)
        await self.end(two)
