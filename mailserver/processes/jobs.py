"""A component's processes for heavy work: begun when they are needed, ended when they are idle, late or broken.

A thread cannot be killed, and its work takes the interpreter from everybody.  A process can, and has an interpreter of its own.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable
from typing import Any, TypeVar, TypeVarTuple

from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from mailserver.interfaces import Timer
from mailserver.mail.process_failure import ProcessFailed
from mailserver.plugins.threads import AllHang, QueueFull, ThreadCounts
from mailserver.processes.exchange import ProcessExchange
from mailserver.processes.job_format import RESULT_OCTETS, job_of, place_of_function, result_of, take_beyond
from mailserver.processes.spawning import spawn

__all__ = ["JobProcesses"]

PROCESSES = 2  # of a component
CALLS_WAITING = 100  # each of them holds its arguments
IDLE_SECONDS = 300.0
LOOK_SECONDS = 0.05  # whether a process that was killed has ended
ENDING_MOST = 4  # so many that were killed and do not end: the kernel keeps them, and would keep the next ones

Arguments = TypeVarTuple("Arguments")
T = TypeVar("T")


class _Call:
    """A call that waits or runs.  `process` is who runs it."""

    __slots__ = ("arguments", "done", "function", "process", "seconds", "timer")

    def __init__(self, function: Any, arguments: tuple[Any, ...], seconds: float, given_up: Callable[[_Call], None]) -> None:
        self.function = function
        self.arguments = arguments
        self.seconds = seconds
        self.process: _Process | None = None
        self.timer: Timer | None = None
        self.done: Deferred[Any] = Deferred(lambda _: given_up(self))


class _Process:
    """A process that runs.  `idle` is the timer of one that has nothing to do."""

    __slots__ = ("exchange", "idle", "program")

    def __init__(self, program: subprocess.Popen[bytes], exchange: ProcessExchange) -> None:
        self.program = program
        self.exchange = exchange
        self.idle: Timer | None = None


class JobProcesses:
    """At most `PROCESSES` of them.  Everything here runs in the reactor's thread.

    `name` is the component's.  `version` is what a process has to be of, "" for any.  A process has `memory_octets` at most.
    """

    log = Logger()

    def __init__(self, name: str, *, reactor: Any, version: Callable[[], str], memory_octets: Callable[[], int]) -> None:
        self._name = name
        self._reactor = reactor
        self._version = version
        self._memory_octets = memory_octets
        self._waiting: dict[_Call, None] = {}  # the first that came stands first
        self._running: dict[_Process, _Call] = {}
        self._idle: list[_Process] = []
        self._ending: list[subprocess.Popen[bytes]] = []
        self._look: Timer | None = None
        self._ended: list[Deferred[None]] = []
        self._turn: Timer | None = None
        self._stopped = False

    @property
    def counts(self) -> ThreadCounts:
        """Calls that run, that wait, and processes that were killed and have not ended."""
        return ThreadCounts(len(self._running), len(self._waiting), self.hanging)

    @property
    def hanging(self) -> int:
        """Processes that were killed and have not ended."""
        return len(self._ending)

    def run(self, function: Callable[[*Arguments], T], /, *arguments: *Arguments, seconds: float = 60.0) -> Deferred[T]:
        """As `mailserver.interfaces.RunInProcess`."""
        if not 0 < seconds <= 3600:
            return fail(ValueError("a call may take up to an hour"))
        try:
            place_of_function(function)
        except TypeError as error:
            return fail(error)
        if self._stopped:
            return fail(AllHang(f"{self._name}: it ends"))
        if len(self._ending) >= ENDING_MOST:
            return fail(AllHang(f"{self._name}: {len(self._ending)} processes were killed and have not ended"))
        if len(self._waiting) >= CALLS_WAITING:
            return fail(QueueFull(f"{self._name}: {len(self._waiting)} calls wait for a process already"))
        call = _Call(function, arguments, seconds, self._given_up)
        self._waiting[call] = None
        if self._turn is None:
            self._serve()
        return call.done

    def stop(self) -> Deferred[None]:
        """Kill all processes and fail what they were asked.  Fires when they have ended."""
        self._stopped = True
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None
        waiting, self._waiting = self._waiting, {}
        why = AllHang(f"{self._name}: it ends")
        for process in self._idle:
            self._part(process)
        self._idle = []
        calls = [*self._running.values(), *waiting]
        for call in list(self._running.values()):
            self._take_away(call)
        for call in calls:
            if not call.done.called:  # who hears of one may call off another
                call.done.errback(why)
        if not self._ending:
            return succeed(None)
        ended: Deferred[None] = Deferred()
        self._ended.append(ended)
        return ended

    # --- calls ---

    def _serve(self) -> None:
        """Begin what waits, as far as there are processes for it."""
        self._turn = None
        while self._waiting and len(self._running) < PROCESSES:
            call = next(iter(self._waiting))
            del self._waiting[call]
            try:
                self._begin(call)
            except (TypeError, OSError) as error:
                call.done.errback(error)

    def _serve_soon(self) -> None:
        """In another turn: of many calls that are given up in this one, none is to have a process begun for it."""
        if self._waiting and self._turn is None and not self._stopped:
            self._turn = self._reactor.callLater(0, self._serve)

    def _begin(self, call: _Call) -> None:
        job = job_of(call.function, call.arguments, call.seconds)
        process = call.process = self._one()
        self._running[process] = call
        call.timer = self._reactor.callLater(call.seconds, self._late, call)
        process.exchange.ask(job).addCallbacks(self._answered, self._died, callbackArgs=(call,), errbackArgs=(call,))

    def _answered(self, octets: bytes, call: _Call) -> None:
        process = call.process
        if process is None:
            return
        self._finish(call)
        result: Any = None
        try:
            result, beyond = result_of(octets)
            take_beyond(call.arguments, beyond)
        except ProcessFailed as error:
            result = Failure(error)
            if error.how == "died" or error.kind == "MemoryError":  # what a full memory has left behind nobody knows
                self._part(process)
                process = None
        if process is not None:
            process.idle = self._reactor.callLater(IDLE_SECONDS, self._is_idle, process)
            self._idle.append(process)
        self._serve_soon()
        call.done.callback(result)

    def _died(self, failure: Failure, call: _Call) -> None:
        if call.process is None:  # we have closed it ourselves
            return
        self._take_away(call)
        failure.trap(EOFError)
        call.done.errback(ProcessFailed("died", "the process has died"))

    def _late(self, call: _Call) -> None:
        call.timer = None
        self._take_away(call)
        call.done.errback(ProcessFailed("late", f"no answer within {call.seconds:g} seconds: the process was killed"))

    def _given_up(self, call: _Call) -> None:
        self._waiting.pop(call, None)
        self._take_away(call)

    def _take_away(self, call: _Call) -> None:
        """Its process with it: there is no other way to end what a function does."""
        process = call.process
        if process is not None:
            self._finish(call)
            self._part(process)
            self._serve_soon()

    def _finish(self, call: _Call) -> None:
        if call.timer is not None:
            call.timer.cancel()
            call.timer = None
        if call.process is not None:
            del self._running[call.process]
            call.process = None

    # --- processes ---

    def _one(self) -> _Process:
        """An idle process, or a new one.  Raises OSError."""
        while self._idle:
            process = self._idle.pop()
            if process.idle is not None:
                process.idle.cancel()
                process.idle = None
            if not _has_ended(process.program):
                return process
            self._part(process)  # it died while it had nothing to do, and what it has started need not have
        program, end = spawn("mailserver.processes.job_process", (str(self._memory_octets()), self._version()))
        return _Process(program, ProcessExchange(self._reactor, end, answer_octets_most=2 * RESULT_OCTETS))

    def _is_idle(self, process: _Process) -> None:
        process.idle = None
        self._idle.remove(process)
        self._part(process)

    def _part(self, process: _Process) -> None:
        """Kill the process and whatever it has started."""
        if process.idle is not None:
            process.idle.cancel()
            process.idle = None
        process.exchange.close()
        if process.program.returncode is None:  # nobody has waited for it: its number is still its own
            with contextlib.suppress(OSError):
                os.killpg(process.program.pid, signal.SIGKILL)
            self._ending.append(process.program)
            self._look_soon()

    def _look_soon(self) -> None:
        if self._look is None:
            self._look = self._reactor.callLater(LOOK_SECONDS, self._look_again)

    def _look_again(self) -> None:
        self._look = None
        self._ending = [program for program in self._ending if program.poll() is None]
        if self._ending:
            self._look_soon()
            return
        ended, self._ended = self._ended, []
        for one in ended:
            if not one.called:
                one.callback(None)


def _has_ended(program: subprocess.Popen[bytes]) -> bool:
    """Whether it has.  It stays to be waited for, so that its number is still its own, and its group's."""
    if program.returncode is not None:
        return True
    try:
        return os.waitid(os.P_PID, program.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except OSError:
        return True
