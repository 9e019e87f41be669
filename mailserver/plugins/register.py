"""The components of the running server: what each of them was lent, and how it does.

`lend` before a component is built, `built` after it, `begin` when it has started, `end` when it is to stop.  What it was lent is
its own: its threads, its queue of steps, its periodic runs.  Where something of it does not end, that is left behind, and counted
against the next component of the same name: reloads do not add up threads that hang for ever.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, replace
from itertools import islice
from types import FrameType
from typing import Any

from twisted.logger import Logger

from mailserver.interfaces import Clock, ComponentCommand, ICommands, ICounting, IPeriodic, Services
from mailserver.plugins.awaiting import FAULTS, later, within
from mailserver.plugins.catalogue import PluginError
from mailserver.plugins.component_commands import checked_commands
from mailserver.plugins.in_reactor import ReactorCalls
from mailserver.plugins.lent import Hanging, Jobs, Lent
from mailserver.plugins.metrics import Series
from mailserver.plugins.observing import Observing
from mailserver.plugins.periodic import Periodic, interval_fault
from mailserver.plugins.rarely import Rarely
from mailserver.plugins.threads import Threads

__all__ = ["Register", "checked_offers"]

THREADS = 8  # of a component, for `run_in_thread`
CALLS_WAITING = 1_000  # of a filter
CALLS_WAITING_ELSEWHERE = 10_000  # a relay's connections, a directory's questions have bounds of their own
LEFT_BEHIND_MOST = 2  # times as many threads as a component has; from there on the next one has fewer
OBSERVERS_LEFT_BEHIND_MOST = 4
OBSERVER_SECONDS = 5.0
PROCESS_SECONDS = 5.0  # for processes that were killed
NEVER_BEGUN_MOST = 1_000
FIGURE_MOST = 2**63
NOBODYS_PACKAGES = frozenset({"mailserver", "twisted"})  # a plugin may be a module of `twisted.plugins`


class Register:
    """`call_from_thread` is the reactor's, `steady_seconds` a clock that nobody sets.

    `new_processes` makes what runs a component's heavy work, of its name; None where nobody can.
    """

    log = Logger()

    def __init__(
        self,
        *,
        clock: Clock,
        call_from_thread: Callable[..., Any],
        steady_seconds: Callable[[], float],
        new_processes: Callable[[str], Jobs] | None = None,
    ) -> None:
        self._new_processes = new_processes
        self.in_reactor = ReactorCalls(call_from_thread)
        self._clock = clock
        self._call_from_thread = call_from_thread
        self._steady_seconds = steady_seconds
        self._lent: dict[int, Lent] = {}  # by the component's id(): a component need be neither hashable nor known to weakref
        self._left_behind: dict[tuple[str, str, str], list[Hanging]] = {}
        self._rarely = Rarely()

    # --- a component's life ---

    def lend(self, kind: str, name: str, services: Services) -> tuple[Lent, Services]:
        """What a component of this kind and name is lent; `services` has all that is not its own."""
        lent = Lent(kind, name)

        def new_threads(use: str, most: int, waiting_most: int | None = None) -> Threads:
            left = self._left(kind, name, use)
            made = Threads(
                f"{name}: {use}",
                most,
                call_from_thread=self._call_from_thread,
                waiting_most=waiting_most,
                left_behind=lambda: max(0, left() - LEFT_BEHIND_MOST * most),
            )
            lent.pools[use if use not in lent.pools else f"{use} {len(lent.pools) + 1}"] = made
            return made

        calls = new_threads("calls", THREADS, CALLS_WAITING if kind == "filter" else CALLS_WAITING_ELSEWHERE)
        if self._new_processes is not None:
            lent.processes = self._new_processes(name)
        return lent, replace(
            services,
            name=name,
            run_in_thread=calls.run,
            run_in_process=services.run_in_process if lent.processes is None else lent.processes.run,
            new_threads=new_threads,
            in_reactor=self.in_reactor,
            metrics=lent.metrics,
        )

    def built(self, lent: Lent, component: Any, use: str = "") -> None:
        """The component is there; `use` is its table's.  Raises `PluginError` where it says of itself what cannot be."""
        lent.commands = checked_offers(lent.kind, lent.name, component, use)
        lent.component = component
        self._lent[id(component)] = lent
        never_begun = [key for key, one in self._lent.items() if not one.is_running]
        for key in never_begun[:-NEVER_BEGUN_MOST]:  # of reloads that were refused
            del self._lent[key]

    def of(self, component: Any) -> Lent | None:
        """What it was lent, None for one that is not in the register."""
        lent = self._lent.get(id(component))
        return lent if lent is not None and lent.component is component else None

    def begin(self, component: Any) -> None:
        """It has started: its periodic runs begin."""
        lent = self.of(component)
        if lent is None or lent.is_running:
            return
        lent.is_running = True
        if IPeriodic.providedBy(component):
            lent.periodic = Periodic(str(lent), component, clock=self._clock, given_up=lent.left.add)
            lent.periodic.start()

    def observing(self, component: Any) -> Observing:
        """Hands steps to the observer; the same one each time."""
        lent = self.of(component)
        if lent is None:
            raise LookupError("the observer is not in the register")
        if lent.observing is None:
            left = self._left(lent.kind, lent.name, "observer")
            lent.observing = Observing(
                lent.name,
                component.observe,
                call_from_thread=self._call_from_thread,
                may_begin=lambda: left() < OBSERVERS_LEFT_BEHIND_MOST,
            )
        return lent.observing

    async def end(self, component: Any, stop: Callable[[], Awaitable[None]], flush: Callable[[], Awaitable[Any]]) -> None:
        """Stop it with `stop`: no periodic run begins any more; an observer is told what was noted before (`flush`)."""
        lent = self.of(component)
        if lent is None:
            await stop()
            return
        if lent.periodic is not None:
            lent.periodic.stop()
        if lent.observing is not None:
            try:
                await within(OBSERVER_SECONDS, later(flush()), self._clock)  # the log's disk may hang
            except Exception:  # noqa: BLE001  # it ends all the same
                self.log.failure("steps could not be handed to {who} before its end", who=str(lent))
            await lent.observing.end(OBSERVER_SECONDS, self._clock)
        try:
            await stop()
        finally:
            await self._end_processes(lent)
            self._leave(lent)

    async def _end_processes(self, lent: Lent) -> None:
        if lent.processes is not None:
            try:
                await within(PROCESS_SECONDS, lent.processes.stop(), self._clock)
            except Exception:  # noqa: BLE001  # it ends all the same
                self.log.error("{who} leaves processes behind that were killed and do not end", who=str(lent))

    def _leave(self, lent: Lent) -> None:
        self._lent.pop(id(lent.component), None)
        self.left_behind()  # those that have ended meanwhile are forgotten
        for use, pool in lent.pools.items():
            pool.stop()
            if pool.hanging:
                self._left_behind.setdefault((lent.kind, lent.name, use), []).append(pool)
        if lent.observing is not None and lent.observing.hanging:
            self._left_behind.setdefault((lent.kind, lent.name, "observer"), []).append(lent.observing)
        if hanging := lent.threads.hanging:
            self.log.error("{who} leaves threads behind that hang: {hanging}", who=str(lent), hanging=hanging)

    def _left(self, kind: str, name: str, use: str) -> Callable[[], int]:
        def left() -> int:
            found = self._left_behind.get((kind, name, use))
            return 0 if not found else sum([one.hanging for one in found])

        return left

    def stop(self) -> None:
        """The server has stopped: nobody's thread waits for the reactor any more."""
        self.in_reactor.stop()
        for lent in list(self._lent.values()):
            for pool in lent.pools.values():
                pool.stop()
            if lent.processes is not None:
                lent.processes.stop()

    # --- the watchdog's questions ---

    def who(self, frames: list[FrameType]) -> Lent | None:
        """In whose call the frames are.  Two of one module are told apart by the object whose method is called."""
        by_module: dict[str, list[Lent]] = {}
        for lent in self._lent.values():
            by_module.setdefault(type(lent.component).__module__, []).append(lent)
        packages = {
            package: lents
            for module, lents in by_module.items()
            if (package := module.partition(".")[0]) not in NOBODYS_PACKAGES
        }
        for frame in frames:
            module = str(frame.f_globals.get("__name__"))
            lents = by_module.get(module) or packages.get(module.partition(".")[0])
            if lents:
                return _of_these(lents, frames)
        return None

    def held(self, lent: Lent | None, seconds: float) -> None:
        """A call of the component has held the reactor for so long."""
        if lent is not None:
            lent.blocks += 1
            lent.longest_block = max(lent.longest_block, seconds)

    # --- for people ---

    def left_behind(self) -> Mapping[str, int]:
        """How many threads hang that components have left behind, by component."""
        found: dict[str, int] = {}
        for key, ones in list(self._left_behind.items()):
            ones[:] = [one for one in ones if one.hanging]
            if not ones:
                del self._left_behind[key]
                continue
            name = f"{key[0]} {key[1]}"
            found[name] = found.get(name, 0) + sum([one.hanging for one in ones])
        return found

    def running(self) -> list[Lent]:
        """Those that serve, by kind and name."""
        return sorted([one for one in self._lent.values() if one.is_running], key=lambda one: (one.kind, one.name))

    def described(self) -> list[dict[str, Any]]:
        """What is known of each: plain values, as JSON holds them."""
        return [self._described(lent) for lent in self.running()]

    def series(self) -> dict[str, list[Series]]:
        """What each component counts, by its name."""
        found: dict[str, list[Series]] = {}
        for lent in self.running():
            found.setdefault(lent.name, []).extend(lent.metrics.series())
        return found

    def _described(self, lent: Lent) -> dict[str, Any]:
        now = self._steady_seconds()
        threads = lent.threads
        found: dict[str, Any] = {
            "kind": lent.kind,
            "name": lent.name,
            "threads": asdict(threads),
            "calls_hanging": len(lent.left),
            "blocks": {"count": lent.blocks, "longest_seconds": round(lent.longest_block, 3)},
            "circuits": {
                stage: {**asdict(state), "words": str(state)}
                for stage, state in [(stage, budget.state(now)) for stage, budget in lent.budgets.items()]
            },
            "metrics": dict(lent.metrics.figures()),
        }
        if lent.processes is not None:
            found["processes"] = asdict(lent.processes.counts)
        if lent.durations is not None:
            found["milliseconds"] = lent.durations.figures()
        if lent.observing is not None:
            one = lent.observing
            found["observer"] = {"waiting": one.waiting, "lost": one.lost, "failures": one.failures}
        if lent.periodic is not None:
            found["periodic"] = asdict(lent.periodic.state())
        if ICounting.providedBy(lent.component):
            found["counts"] = self._counts(lent)
        return found

    def _counts(self, lent: Lent) -> dict[str, Any]:
        """What the component says in figures; what is no figure is left out."""
        try:
            counts = lent.component.counts()
            if not isinstance(counts, Mapping):  # which may be endless
                raise TypeError(f"counts are a mapping, not {type(counts).__name__}")
            return {str(name)[:64]: value for name, value in islice(counts.items(), 200) if _is_figure(value)}
        except FAULTS:
            if self._rarely.may(("counts", lent.name)):
                self.log.failure("{who} cannot say its counts", who=str(lent))
            return {}


def checked_offers(kind: str, name: str, component: Any, use: str) -> dict[str, ComponentCommand]:
    """The commands of a component, and whether it can run periodically as it says.  Raises `PluginError`."""
    fault = interval_fault(component) if IPeriodic.providedBy(component) else ""
    if fault:
        raise PluginError(f"the {kind} {name} cannot run periodically: {fault}")
    try:
        return checked_commands(component, name, kind, use) if ICommands.providedBy(component) else {}
    except ValueError as error:
        raise PluginError(f"the {kind} {name} cannot offer commands: {error}") from error


def _is_figure(value: Any) -> bool:
    """What JSON, and whoever reads it, holds as a number."""
    return (type(value) is int and abs(value) < FIGURE_MOST) or (type(value) is float and math.isfinite(value))


def _of_these(lents: list[Lent], frames: list[FrameType]) -> Lent:
    if len(lents) > 1:
        for frame in frames:
            code = frame.f_code
            own = frame.f_locals.get(code.co_varnames[0]) if code.co_argcount else None
            for lent in lents:
                if own is lent.component:
                    return lent
    return lents[0]
