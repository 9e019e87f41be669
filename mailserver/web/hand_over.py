"""The server's end of the web process: what it is to know, said in frames of which one is under way at a time.

What changes while a frame is under way waits for the next one, the last value alone; so what waits is bounded, whatever the
process does.  One that does not say in time that it has taken a frame up counts as dead.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import ServerFactory
from twisted.python.failure import Failure

from mailserver.processes.exchange import ProcessExchange
from mailserver.processes.frames import DESCRIPTORS
from mailserver.web.wire import ANSWER_OCTETS, encoded, number_of

__all__ = ["HandOver", "HeldListener", "ListeningSocket", "NoWebProcess"]

TAKEN_UP_SECONDS = 10.0
BACKLOG = 50


class NoWebProcess(Exception):
    """There is no web process, or it has died before it took that up."""


@dataclass(frozen=True, slots=True)
class ListeningSocket:
    """A socket on which the process is to accept.  `settings` are said with it; the descriptor stays the server's."""

    descriptor: int
    settings: Mapping[str, Any]


class HeldListener(ServerFactory):
    """A socket that we hold for the web process, which accepts on it."""

    noisy = False
    connections = 0  # of ours

    def shut_down(self) -> Deferred[None]:
        """There is none of ours."""
        return succeed(None)


def _have_it_listen(descriptor: int) -> None:
    """The process before had the same socket, and shutdown(2) ends the listening of all who have it."""
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as bound:
        if not bound.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            bound.listen(BACKLOG)


class HandOver:
    """To one process after the other.  `has_died` is called once for each that is served, when it has gone or counts as gone."""

    def __init__(self, reactor: Any, clock: IReactorTime, has_died: Callable[[str], None]) -> None:
        self._reactor = reactor
        self._clock = clock
        self._has_died = has_died
        self._members: dict[str, Any] = {}
        self._listening: dict[str, ListeningSocket] = {}
        self._unsaid: dict[str, None] = {}  # names of members
        self._unlistened: dict[str, None] = {}  # names of listeners, also of those that go
        self._waiting: list[Deferred[None]] = []  # for what is unsaid
        self._under_way: list[Deferred[None]] = []  # for the frame that was sent
        self._exchange: ProcessExchange | None = None
        self._timer: Any = None
        self._number = 0
        self._log = -1

    @property
    def is_served(self) -> bool:
        """There is a process."""
        return self._exchange is not None

    def serve(self, end: socket.socket, *, log: int = -1) -> None:
        """This is a new process, which knows nothing yet.  One that was served before is given up.

        `log` is the end of a pipe into which it is to write its lines; it is closed here once it is handed over.
        """
        self.end()
        self._log = log
        exchange = ProcessExchange(self._reactor, end, answer_octets_most=ANSWER_OCTETS, ended=self._has_ended)
        self._exchange = exchange
        exchange.watch()
        self._unsaid = dict.fromkeys(self._members)
        self._unlistened = dict.fromkeys(self._listening)
        for one in self._listening.values():
            _have_it_listen(one.descriptor)
        self._go_on()

    def put(self, **members: Any) -> Deferred[None]:
        """Say these members, now and to each process that follows.

        The Deferred fires when the process has taken them up.  It fails with `NoWebProcess` where there is none, and where it
        dies before that.
        """
        taken: Deferred[None] = Deferred()
        self._members.update(members)
        if self._exchange is None:
            taken.errback(NoWebProcess("there is no web process"))
            return taken
        self._unsaid.update(dict.fromkeys(members))
        self._waiting.append(taken)
        self._go_on()
        return taken

    def listen(self, sockets: Mapping[str, ListeningSocket]) -> None:
        """Accept on these sockets, by name, and on no others.  One whose descriptor is the same stays as it is."""
        changed = [name for name in {**self._listening, **sockets} if self._listening.get(name) != sockets.get(name)]
        self._listening = dict(sockets)
        if self._exchange is not None:
            self._unlistened.update(dict.fromkeys(changed))
            self._go_on()

    def end(self) -> None:
        """Serve no longer.  The process sees the end, and ends."""
        if self._log >= 0:
            os.close(self._log)
            self._log = -1
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            self._forget_timer()
            exchange.close()
            self._fail("the web process was ended")

    # --- one frame ---

    def _go_on(self) -> None:
        exchange = self._exchange
        if exchange is None or self._timer is not None or not (self._unsaid or self._unlistened):
            return
        members = {name: self._members[name] for name in self._unsaid}
        self._unsaid = {}
        log, self._log = self._log, -1
        names = list(self._unlistened)[: DESCRIPTORS - 1]  # one for the log
        opened = {name: self._listening[name] for name in names if name in self._listening}
        for name in names:
            del self._unlistened[name]
        if names:
            members["closed"] = [name for name in names if name not in opened]
            members["opened"] = [[name, dict(one.settings)] for name, one in opened.items()]
        if log >= 0:
            members["log"] = True
        self._under_way += self._waiting
        self._waiting = []
        self._number += 1
        self._timer = self._clock.callLater(TAKEN_UP_SECONDS, self._is_late)
        with contextlib.ExitStack() as stack:
            descriptors = [log] if log >= 0 else []
            descriptors += [os.dup(one.descriptor) for one in opened.values()]
            for descriptor in descriptors:
                stack.callback(os.close, descriptor)
            answer = exchange.ask(encoded(self._number, members), descriptors)
        answer.addCallbacks(self._has_answered, lambda failure: None, callbackArgs=(exchange,))

    def _has_answered(self, answer: bytes, exchange: ProcessExchange) -> None:
        if exchange is not self._exchange:
            return
        if number_of(answer) != self._number:
            self._give_up("it says what it was not asked")
            return
        self._forget_timer()
        taken, self._under_way = self._under_way, []
        for one in taken:
            one.callback(None)
        self._go_on()

    def _is_late(self) -> None:
        self._timer = None
        self._give_up(f"it has taken nothing up for {TAKEN_UP_SECONDS:.0f} seconds")

    def _has_ended(self) -> None:
        self._give_up("it has died")

    def _give_up(self, why: str) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is None:
            return
        self._forget_timer()
        exchange.close()
        self._fail(f"the web process is gone: {why}")
        self._has_died(why)

    def _forget_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _fail(self, why: str) -> None:
        waiting, self._waiting, self._under_way = [*self._under_way, *self._waiting], [], []
        for one in waiting:
            one.errback(Failure(NoWebProcess(why)))
