"""Listening on a port that the root process binds for us."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint
from zope.interface import implementer

from mailserver.config.endpoints import bare_endpoint, place_of, split_endpoint
from mailserver.processes.root_link import RootLink

__all__ = ["BoundByRoot", "bound_by_root"]

BACKLOG = "50"  # Twisted's


@implementer(IStreamServerEndpoint)
class BoundByRoot:
    """A tcp endpoint of the configuration, by its text.  Where root does not bind it, our own rights may do."""

    def __init__(self, reactor: Any, text: str, root: RootLink, run_in_thread: Callable[..., Awaitable[Any]]) -> None:
        self._reactor = reactor
        self._text = text
        self._root = root
        self._run_in_thread = run_in_thread

    def listen(self, factory: Any) -> Deferred[IListeningPort]:
        """Errs with OSError."""
        return Deferred.fromCoroutine(self._listen(factory))

    async def _listen(self, factory: Any) -> IListeningPort:
        try:
            bound: socket.socket = await self._run_in_thread(self._root.bind, self._text)
        except OSError as refused:
            try:
                own: IListeningPort = await serverFromString(self._reactor, self._text).listen(factory)
                return own
            except CannotListenError as error:
                raise OSError(f"{refused}; and without root: {error}") from error
        with bound:
            bound.setblocking(False)
            bound.listen(int(split_endpoint(self._text)[2].get("backlog", BACKLOG)))
            port: IListeningPort = self._reactor.adoptStreamPort(bound.fileno(), bound.family, factory)
        return port


def bound_by_root(reactor: Any, text: str, root: RootLink, run_in_thread: Callable[..., Awaitable[Any]]) -> Any:
    """The endpoint for a text of the configuration, None for kinds that root has no part in."""
    place = place_of(text)
    if place is None or place.kind not in ("tcp", "tcp6"):
        return None
    return BoundByRoot(reactor, bare_endpoint(text), root, run_in_thread)
