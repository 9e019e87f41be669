"""The ports of all listeners: bound while we may, opened when all is ready, changed by a reload, closed at the stop."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint
from twisted.logger import Logger
from twisted.python.failure import Failure

from mailserver.config import ListenTable
from mailserver.config.endpoints import bare_endpoint
from mailserver.control.parts import ListenerFigures
from mailserver.plugins.awaiting import within
from mailserver.processes.bound import AddressInUse, BoundHere, bound_here, handed_over, path_bound_here
from mailserver.processes.small import SmallProcesses
from mailserver.receive.factory import ReceiveFactory
from mailserver.receive.profile import Profile
from mailserver.receive.throttle import Admission
from mailserver.transport.recording import Recordings
from mailserver.web.hand_over import HeldListener

if TYPE_CHECKING:
    from mailserver.metrics.pages import MonitoringFactory  # whose web server only those need who have such a listener

    Listening = ReceiveFactory | MonitoringFactory | HeldListener

__all__ = ["Ports"]

MAIL = "mail"  # whatever takes it
CLOSE_SECONDS = 25.0  # of one port: an endpoint is anybody's plugin


class Ports:
    """`profile` gives how the listener of an endpoint behaves by the policy in force, `monitoring` what serves one of figures.

    An endpoint's string is the key throughout: a listener whose endpoint stays keeps its port over a reload.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        *,
        processes: SmallProcesses,
        admission: Admission,
        recordings: Recordings,
        profile: Callable[[str], Profile],
        monitoring: Callable[[ListenTable], MonitoringFactory],
    ) -> None:
        self._reactor = reactor
        self._processes = processes
        self._admission = admission
        self._recordings = recordings
        self._profile = profile
        self._monitoring = monitoring
        self._bound: dict[str, BoundHere] = {}  # listened on when all is ready
        self._listening: list[Deferred[None]] = []  # of endpoints that take their time
        self._ports: dict[str, tuple[IListeningPort, Listening]] = {}
        self._leaving: list[Listening] = []  # of ports that are closed
        self._in_use: dict[str, None] = {}
        self._are_open = False
        self._are_closed = False

    # --- the start ---

    def bind(self, listeners: Iterable[ListenTable]) -> None:
        """Bind ports and Unix sockets; nobody is served before `open`.  Other endpoints can only be listened on.

        Raises OSError and CannotListenError.  Mail does not wait for a web listener's address that somebody else has, such as
        a web process that a server before has left behind: see `listen_again`.
        """
        for listen in listeners:
            try:
                bound = bound_here(self._reactor, listen.endpoint)
            except AddressInUse as error:
                if listen.service != "web":
                    raise
                self._in_use[listen.endpoint] = None
                self.log.critical("{error}; mail is served all the same, and it is tried again", error=error)
                continue
            if bound is not None:
                self._bound[listen.endpoint] = bound
                continue
            failed: list[Failure] = []
            listening = self._listen(listen)
            if listening.called:
                listening.addErrback(failed.append)
            else:
                self._listening.append(listening)  # a plugin's, which takes its time
            if failed:
                failed[0].raiseException()

    async def bound(self) -> None:
        """Wait for the endpoints that take their time.  Raises what the first of them has met with."""
        for listening in self._listening:
            await listening

    async def open(self, listeners: Iterable[ListenTable]) -> None:
        """After all that can fail.  Raises OSError where somebody else has begun to listen meanwhile."""
        for bound in self._bound.values():
            bound.open()
        self._are_open = True
        for port, factory in self._ports.values():
            if not isinstance(factory, HeldListener):
                _accept(port)
        for listen in listeners:
            if listen.endpoint not in self._ports and listen.endpoint not in self._in_use:
                await self._listen(listen, self._bound.pop(listen.endpoint, None))

    def _listen(self, listen: ListenTable, endpoint: IStreamServerEndpoint | None = None) -> Deferred[None]:
        if endpoint is None:
            root_binds = self._processes.endpoint(listen.endpoint)
            endpoint = root_binds or path_bound_here(self._reactor, listen.endpoint) or self._made(bare_endpoint(listen.endpoint))
        factory = self._factory(listen)

        def is_listening(port: IListeningPort) -> None:
            if self._are_closed:  # while root has bound it, say
                maybeDeferred(port.stopListening)
                return
            self._ports[listen.endpoint] = (port, factory)
            if not self._are_open or isinstance(factory, HeldListener):
                _wait(port)  # connections stay in the backlog until the queue is ready, or for the web process

        listening: Deferred[None] = endpoint.listen(factory).addCallback(is_listening)
        return listening

    def _factory(self, listen: ListenTable) -> Listening:
        if listen.service == "web":
            return HeldListener()
        if not listen.takes_mail:
            return self._monitoring(listen)
        return ReceiveFactory(self._profile(listen.endpoint), self._admission, self._recordings)

    def _made(self, text: str) -> IStreamServerEndpoint:
        try:
            made: IStreamServerEndpoint = handed_over(self._reactor, serverFromString(self._reactor, text))
        except LookupError as error:
            if not text.startswith("systemd:"):
                raise
            why = "systemd has handed over no such socket; start its .socket unit first"
            raise OSError(f"cannot listen on {text}: {why}") from error
        return made

    # --- while they listen ---

    def figures(self) -> list[ListenerFigures]:
        """Of the ports that listen now."""
        return [
            ListenerFigures(_service(factory), endpoint, factory.connections)
            for endpoint, (_, factory) in self._ports.items()
        ]

    def held(self) -> dict[str, int]:
        """The descriptors of the sockets that we hold for the web process, by endpoint."""
        found: dict[str, Any] = {
            endpoint: port for endpoint, (port, factory) in self._ports.items() if isinstance(factory, HeldListener)
        }
        return {endpoint: port.fileno() for endpoint, port in found.items()}

    @property
    def in_use(self) -> Sequence[str]:
        """The endpoints of web listeners that somebody else has."""
        return [*self._in_use]

    async def listen_again(self, listeners: Iterable[ListenTable]) -> bool:
        """Try these that somebody else has had.  Whether one listens now."""
        wanted = [listen for listen in listeners if listen.endpoint in self._in_use and listen.endpoint not in self._ports]
        self._in_use = dict.fromkeys([listen.endpoint for listen in wanted])
        found = False
        for listen in wanted:
            if self._are_closed:
                break
            try:
                await self._listen(listen)
            except Exception:  # noqa: BLE001, S112  # it was told once
                continue
            self._in_use.pop(listen.endpoint, None)
            self.log.info("{endpoint} is free, and is listened on", endpoint=listen.endpoint)
            found = True
        return found

    def host(self, endpoint: str) -> Any:
        """The address on which it listens, as Twisted has it."""
        return self._ports[endpoint][0].getHost()

    def take_up(self, listeners: Sequence[ListenTable]) -> list[IListeningPort]:
        """Give those that stay the profiles of the policy now in force, and end the connections of those that go.

        Nothing is waited for.  What is returned are the ports of those that go; `change` closes them.
        """
        wanted = {listen.endpoint: MAIL if listen.takes_mail else listen.service for listen in listeners}
        stays = {endpoint for endpoint, (_, factory) in self._ports.items() if wanted.get(endpoint) == _kind(factory)}
        going = [self._ports.pop(endpoint) for endpoint in [*self._ports] if endpoint not in stays]
        self._leaving = [*[one for one in self._leaving if one.connections], *[factory for _, factory in going]]
        for endpoint, (_, factory) in self._ports.items():
            if isinstance(factory, ReceiveFactory):
                factory.profile = self._profile(endpoint)
        for _, factory in going:
            factory.shut_down()
        return [port for port, _ in going]

    async def change(self, listeners: Iterable[ListenTable], going: Iterable[IListeningPort]) -> list[str]:
        """Listen where nobody does yet, and no more on these.  What could not be done.  A stop, which closes all, ends it."""
        faults: list[str] = []
        for port in going:
            try:
                await within(CLOSE_SECONDS, maybeDeferred(port.stopListening), self._reactor)
            except Exception as error:  # noqa: BLE001  # an endpoint is anybody's plugin
                faults.append(f"a listener does not stop: {error}")
                self.log.failure("a listener that a reload has taken away did not stop well")
        faults += await self._processes.read_again()
        for listen in listeners:
            if listen.endpoint in self._ports or self._are_closed:
                continue
            try:
                await self._listen(listen)
            except Exception as error:  # noqa: BLE001  # as above
                faults.append(f"cannot listen on {listen.endpoint}: {error}")
                if listen.service == "web":
                    self._in_use[listen.endpoint] = None
                self.log.error("cannot listen on {endpoint}: {error}", endpoint=listen.endpoint, error=error)
        return faults

    # --- the stop ---

    def stop_listening(self) -> Deferred[Any]:
        """Close all ports; fires when they are closed.  Connections stay."""
        self._are_closed = True
        for bound in self._bound.values():
            bound.close()
        ports, self._ports = list(self._ports.values()), {}
        self._leaving += [factory for _, factory in ports]
        return gatherResults([maybeDeferred(port.stopListening).addErrback(self._did_not_stop) for port, _ in ports])

    def _did_not_stop(self, failure: Failure) -> None:
        """An endpoint is anybody's plugin: the other ports are waited for all the same."""
        self.log.failure("a listener did not stop well", failure)

    def say_goodbye(self) -> Deferred[Any]:
        """End the connections of all ports that are closed; fires when they are gone."""
        return gatherResults([factory.shut_down() for factory in self._leaving])


def _service(factory: Listening) -> str:
    return factory.profile.service if isinstance(factory, ReceiveFactory) else _kind(factory)


def _kind(factory: Listening) -> str:
    if isinstance(factory, HeldListener):
        return "web"
    return MAIL if isinstance(factory, ReceiveFactory) else "metrics"


def _wait(port: Any) -> None:
    if hasattr(port, "stopReading"):
        port.stopReading()


def _accept(port: Any) -> None:
    if hasattr(port, "startReading"):
        port.startReading()
