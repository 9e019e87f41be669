"""Host names that the system's resolver looks up (an LDAP server's): in threads of their own.

Twisted asks the system in the reactor's pool, which a plugin may fill with calls that hang.
"""

from __future__ import annotations

import functools
import socket
from collections.abc import Callable
from typing import Any

from twisted.internet._resolver import GAIResolver
from twisted.python.failure import Failure

from mailserver.plugins.threads import Threads

__all__ = ["HostNames"]

THREADS = 4
WAITING_MOST = 100


class HostNames:
    """`reactor` has a place for a resolver (`IReactorPluggableNameResolver`)."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self.threads = Threads("host names", THREADS, call_from_thread=reactor.callFromThread, waiting_most=WAITING_MOST)
        self._before: Any = None

    def start(self) -> None:
        """From now on they are looked up here."""
        resolver = GAIResolver(self._reactor, lambda: self)  # type: ignore[arg-type,return-value]
        self._before = self._reactor.installNameResolver(resolver)

    def stop(self) -> None:
        """Nothing is looked up here any more."""
        if self._before is not None:
            self._reactor.installNameResolver(self._before)
            self._before = None
        self.threads.stop()

    def callInThreadWithCallback(
        self, on_result: Callable[[bool, Any], object], function: Callable[..., Any], *arguments: Any, **named: Any
    ) -> None:
        """As Twisted's `ThreadPool`.  Where no thread is left, the name cannot be found now (`socket.gaierror`)."""
        found = self.threads.run(functools.partial(function, *arguments, **named))
        found.addCallbacks(lambda result: on_result(True, result), lambda failure: on_result(False, _as_unknown(failure)))


def _as_unknown(failure: Failure) -> Failure:
    """An error that the resolver takes for "no address"; any other would never be heard of."""
    return failure if failure.check(socket.gaierror) else Failure(socket.gaierror(socket.EAI_AGAIN, failure.getErrorMessage()))
