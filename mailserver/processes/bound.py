"""Listens on sockets that were bound before: by us while we were root, by the root process at a reload, or by systemd."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import AdoptedStreamServerEndpoint, serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint
from zope.interface import implementer

from mailserver.config.endpoints import bare_endpoint, place_of, split_endpoint, unix_socket_of
from mailserver.processes.binding import bound_socket, bound_unix_socket
from mailserver.processes.root_client import RootClient
from mailserver.processes.unix_port import listen_on

__all__ = [
    "AddressInUse",
    "BoundByRoot",
    "BoundHere",
    "HandedOver",
    "bound_by_root",
    "bound_here",
    "handed_over",
    "path_bound_here",
]

BACKLOG = "50"  # Twisted's


class AddressInUse(OSError):
    """Somebody else listens there."""


@implementer(IStreamServerEndpoint)
class BoundByRoot:
    """A tcp or unix endpoint of the configuration, by its text.

    Where the root process does not bind a port we try it ourselves.  A Unix socket we do not: it would get another owner than
    at the next start.
    """

    def __init__(self, reactor: Any, text: str, root: RootClient, run_in_thread: Callable[..., Awaitable[Any]]) -> None:
        self._reactor = reactor
        self._text = text
        self._root = root
        self._run_in_thread = run_in_thread

    def listen(self, factory: Any) -> Deferred[IListeningPort]:
        """Errs with OSError."""
        return Deferred.fromCoroutine(self._listen(factory))

    async def _listen(self, factory: Any) -> IListeningPort:
        is_path = unix_socket_of(self._text) is not None
        try:
            bound: socket.socket = await self._run_in_thread(self._root.bind, self._text)
        except OSError as refused:
            if is_path:
                raise
            try:
                own: IListeningPort = await serverFromString(self._reactor, self._text).listen(factory)
                return own
            except CannotListenError as error:
                raise OSError(f"{refused}; and without root: {error}") from error
        if is_path:
            bound.listen(_backlog(self._text))
            return listen_on(bound, factory, self._reactor, removes=True)
        with bound:
            bound.setblocking(False)
            bound.listen(_backlog(self._text))
            port: IListeningPort = self._reactor.adoptStreamPort(bound.fileno(), bound.family, factory)
        return port


@implementer(IStreamServerEndpoint)
class BoundHere:
    """An endpoint whose address we have bound.  `open` lets connections into the backlog; `listen` accepts them."""

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
        """Accept connections.  Never fails after `open`."""
        if self._bound.family == socket.AF_UNIX:
            return succeed(listen_on(self._bound, factory, self._reactor, removes=True))
        with self._bound as bound:
            return succeed(self._reactor.adoptStreamPort(bound.fileno(), bound.family, factory))

    def close(self) -> None:
        """Close the socket, and so free the address."""
        if self._bound.family == socket.AF_UNIX:
            with contextlib.suppress(OSError):
                os.unlink(self._bound.getsockname())
        self._bound.close()


@implementer(IStreamServerEndpoint)
class HandedOver:
    """A Unix socket from systemd.  Its mode and path stay as they are.  `listen` uses a duplicate of `descriptor`."""

    def __init__(self, reactor: Any, descriptor: int) -> None:
        self._reactor = reactor
        self._descriptor = descriptor

    def listen(self, factory: Any) -> Deferred[IListeningPort]:
        """Errs with OSError."""
        bound = socket.socket(fileno=os.dup(self._descriptor))  # systemd's own stays open: a later reload may need it again
        return succeed(listen_on(bound, factory, self._reactor, removes=False))


def handed_over(reactor: Any, made: Any) -> Any:
    """Twisted's endpoint, or ours for a Unix socket that systemd has handed over."""
    if isinstance(made, AdoptedStreamServerEndpoint) and made.addressFamily == socket.AF_UNIX:
        return HandedOver(reactor, made.fileno)
    return made


def bound_here(reactor: Any, text: str) -> BoundHere | None:
    """Bind the address of an endpoint, with our present rights.  None for kinds other than tcp and unix.

    A Unix socket listens from now on, and connections wait: one that refused them would look stale.  Raises OSError.
    """
    place = place_of(text)
    if place is None or place.kind not in ("tcp", "tcp6", "unix"):
        return None
    try:
        path = unix_socket_of(text)
        bound = bound_socket(place.host, place.port) if path is None else bound_unix_socket(path[0], path[1], replaces=path[2])
        if path is not None:
            bound.listen(_backlog(text))
    except OSError as error:
        raise _unable(text, error) from error
    bound.setblocking(False)
    return BoundHere(reactor, bare_endpoint(text), bound)


def path_bound_here(reactor: Any, text: str) -> BoundHere | None:
    """As `bound_here`, for unix endpoints only: at a reload without a root process."""
    return None if unix_socket_of(text) is None else bound_here(reactor, text)


def _backlog(text: str) -> int:
    return int(split_endpoint(bare_endpoint(text))[2].get("backlog", BACKLOG))


def _unable(text: str, error: OSError) -> OSError:
    kind = AddressInUse if error.errno == errno.EADDRINUSE else OSError
    return kind(f"cannot listen on {text}: {error.strerror or error}")


def bound_by_root(reactor: Any, text: str, root: RootClient, run_in_thread: Callable[..., Awaitable[Any]]) -> Any:
    """The endpoint for a text of the configuration; None for kinds that the root process does not bind."""
    place = place_of(text)
    if place is None or place.kind not in ("tcp", "tcp6", "unix"):
        return None
    return BoundByRoot(reactor, bare_endpoint(text), root, run_in_thread)
