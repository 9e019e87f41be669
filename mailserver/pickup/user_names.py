"""Users' names by number, from the host's name service, asked outside the reactor.  One that hangs costs a pause, no more."""

from __future__ import annotations

import pwd
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from mailserver.interfaces import Clock
from mailserver.mail.until import still_holds

__all__ = ["UserNames", "in_thread_of_its_own"]

ANSWER_SECONDS = 5.0
REMEMBER_SECONDS = 300.0
REMEMBERED_MOST = 1000

Begin = Callable[[Callable[[int], str], int, Callable[[str], None]], None]


class UserNames:
    """Names by number.  One question is open at a time, so that a name service that hangs holds one thread.

    `begin(lookup, uid, answered)` calls `lookup(uid)` where it may block, then `answered(name)` in the reactor.
    """

    def __init__(self, *, clock: Clock, begin: Begin, lookup: Callable[[int], str] | None = None) -> None:
        self._clock = clock
        self._begin = begin
        self._lookup = lookup or _name_of
        self._known: OrderedDict[int, tuple[str, float]] = OrderedDict()  # the name, until when it is believed
        self._waiting: OrderedDict[int, list[Deferred[str]]] = OrderedDict()
        # The user whom the thread asks for.  With a deadline: the answer is waited for.  Without one: the name service hangs, and
        # everybody gets the number at once until the thread has come back.
        self._asked: int | None = None
        self._deadline: Any = None

    def name_of(self, uid: int) -> Deferred[str]:
        """Fires with the user's name; with "uid N" where there is none, or none to be had within some seconds."""
        found: Deferred[str] = Deferred()
        name, until = self._known.get(uid, ("", 0.0))
        if still_holds(until, self._clock.seconds(), REMEMBER_SECONDS):
            found.callback(name)
            return found
        if self._asked is not None and self._deadline is None:  # the name service hangs
            found.callback(number_of(uid))
            return found
        self._waiting.setdefault(uid, []).append(found)
        self._ask_next()
        return found

    def _ask_next(self) -> None:
        if self._asked is not None or not self._waiting:
            return
        self._asked = uid = next(iter(self._waiting))
        self._deadline = self._clock.callLater(ANSWER_SECONDS, self._hangs)
        self._begin(self._lookup, uid, self._answered)

    def _answered(self, name: str) -> None:
        uid, self._asked = self._asked, None
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if uid is not None:
            self._known.pop(uid, None)
            self._known[uid] = name, self._clock.seconds() + REMEMBER_SECONDS
            if len(self._known) > REMEMBERED_MOST:
                self._known.popitem(last=False)
            for found in self._waiting.pop(uid, ()):
                found.callback(name)
        self._ask_next()

    def _hangs(self) -> None:
        """Nobody waits longer.  What the thread says in the end is remembered, and only then is it asked again."""
        self._deadline = None
        waiting, self._waiting = self._waiting, OrderedDict()
        for uid, every in waiting.items():
            for found in every:
                found.callback(number_of(uid))


def in_thread_of_its_own(call_in_reactor: Callable[..., object]) -> Begin:
    """A `begin` for `UserNames`.  The thread is a daemon: one that never comes back does not keep the server from its end."""

    def begin(lookup: Callable[[int], str], uid: int, answered: Callable[[str], None]) -> None:
        def work() -> None:
            try:
                name = lookup(uid)
            except Exception:  # noqa: BLE001  whatever a name service raises: the number serves as well
                name = number_of(uid)
            call_in_reactor(answered, name)

        threading.Thread(target=work, name="user names", daemon=True).start()

    return begin


def number_of(uid: int) -> str:
    """What stands for a user without a name."""
    return f"uid {uid}"


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return number_of(uid)
