"""Listening on tcp ports that were bound before: by ourselves while we were root, or by the root process at a reload."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint
from zope.interface import implementer

from mailserver.config.endpoints import bare_endpoint, place_of, split_endpoint
from mailserver.processes.binding import bound_socket
from mailserver.processes.root_link import RootLink

__all__ = ["BoundByRoot", "BoundHere", "bound_by_root", "bound_here"]

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
            bound.listen(_backlog(self._text))
            port: IListeningPort = self._reactor.adoptStreamPort(bound.fileno(), bound.family, factory)
        return port


@implementer(IStreamServerEndpoint)
class BoundHere:
    """A tcp endpoint whose address we have bound.  `open` lets connections into the backlog, `listen` takes them."""

    def __init__(self, reactor: Any, text: str, bound: socket.socket) -> None:
        self._reactor = reactor
        self._text = text
        self._bound = bound

    def open(self) -> None:
        """listen(2).  Raises OSError."""
        try:
            self._bound.listen(_backlog(self._text))
        except OSError as error:
            raise _unable(self._text, error) from error

    def listen(self, factory: Any) -> Deferred[IListeningPort]:
        """Never errs after `open`."""
        with self._bound as bound:
            return succeed(self._reactor.adoptStreamPort(bound.fileno(), bound.family, factory))

    def close(self) -> None:
        """Give the address up."""
        self._bound.close()


def bound_here(reactor: Any, text: str) -> BoundHere | None:
    """Bind the address of an endpoint, with the rights that we have now; None for kinds other than tcp.  Raises OSError."""
    place = place_of(text)
    if place is None or place.kind not in ("tcp", "tcp6"):
        return None
    try:
        bound = bound_socket(place.host, place.port)
    except OSError as error:
        raise _unable(text, error) from error
    bound.setblocking(False)
    return BoundHere(reactor, bare_endpoint(text), bound)


def _backlog(text: str) -> int:
    return int(split_endpoint(text)[2].get("backlog", BACKLOG))


def _unable(text: str, error: OSError) -> OSError:
    return OSError(f"cannot listen on {text}: {error.strerror or error}")


def bound_by_root(reactor: Any, text: str, root: RootLink, run_in_thread: Callable[..., Awaitable[Any]]) -> Any:
    """The endpoint for a text of the configuration, None for kinds that root has no part in."""
    place = place_of(text)
    if place is None or place.kind not in ("tcp", "tcp6"):
        return None
    return BoundByRoot(reactor, bare_endpoint(text), root, run_in_thread)
