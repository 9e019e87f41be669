"""The web process from the server's side: started, watched, started again, and told what has changed."""

from __future__ import annotations

import os
import pwd
import socket
import subprocess
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from mailserver.assembly.ports import Ports
from mailserver.assembly.server import Server
from mailserver.assembly.web import CertificateSource, WebHandOver, members_by, root_starts_web, web_start
from mailserver.assembly.web_log import WebLogReader
from mailserver.assembly.web_socket import WebSocket
from mailserver.config import Configuration
from mailserver.plugins.life import StartError
from mailserver.processes.kept import StartBackOff, see_off
from mailserver.processes.spawning import begin
from mailserver.tls import Pair, self_signed_pair
from mailserver.tls.identity import IdentityError, read_identity
from mailserver.web.content import WebCertificate
from mailserver.web.hand_over import HandOver, ListeningSocket

__all__ = ["WebService"]

HEALTH_SECONDS = 5.0
FILES_SECONDS = 60.0
END_SECONDS = 5.0
SEEN_OFF = "the end of a web process could not be waited for"


class WebService:
    """Of a server; there is a process as long as the configuration has a web listener.

    `not_ready` says why mail is not taken now: the same as the metrics listeners say.  `hand_over` is what others tell of
    certificates and challenges.
    """

    log = Logger()

    def __init__(self, server: Server, ports: Ports, not_ready: Callable[[], Sequence[str]]) -> None:
        self._server = server
        self._ports = ports
        self._not_ready = not_ready
        self._link = HandOver(server.reactor, server.reactor, self._has_died)
        self.hand_over = server.web = WebHandOver(self._link)
        self._run_in_thread = server.pools.of("web", 2)
        self._configuration: Configuration | None = None  # None: nobody is served
        self._is_open = False  # its process is started, or waited for
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: WebSocket | None = None
        self._timer: Any = None
        self._began = 0.0
        self._back_off = StartBackOff()
        self._missing = ""
        self._health = LoopingCall(self._look)
        self._files = LoopingCall(self._look_at_files)
        for call in (self._health, self._files):
            call.clock = server.reactor

    @property
    def missing(self) -> str:
        """Why nobody serves the web listeners; "" where somebody does, and where there are none."""
        if self._configuration is None:
            return ""
        if not self._link.is_served:
            return self._missing or "it starts"
        return f"somebody else listens on {', '.join(self._ports.in_use)}" if self._ports.in_use else ""

    async def take_up(self, configuration: Configuration) -> None:
        """After the ports are open, and after each reload.  Raises `StartError` and OSError at the start alone."""
        if not configuration.web_listeners:
            self.stop()
            return
        self._configuration = configuration
        self._put(**members_by(configuration))
        self._listen(configuration)
        if configuration.by_acme is None:  # nobody would renew it
            self.hand_over.put_certificate(CertificateSource.ISSUED, None).addErrback(lambda _: None)
        await self._read_certificate()
        if self._configuration is not configuration or self._is_open:  # a stop has come meanwhile; or there is a process already
            self.say_health()
            return
        try:
            self._open(configuration)
        except (StartError, OSError):
            self.stop()
            raise
        self._is_open = True
        self._server.processes.kept_elsewhere["web"] = lambda: self.missing
        self._health.start(HEALTH_SECONDS, now=False)
        self._files.start(FILES_SECONDS, now=False)
        self.say_health()

    def stop(self) -> None:
        """The process ends as it sees the end of its socket."""
        self._configuration, self._is_open = None, False
        self._server.processes.kept_elsewhere.pop("web", None)
        for call in (self._health, self._files):
            if call.running:
                call.stop()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._link.listen({})
        self._link.end()
        process, self._process = self._process, None
        if process is not None:
            self._in_thread(see_off, process, END_SECONDS).addErrback(self._failed, SEEN_OFF)

    # --- what it is told ---

    def _put(self, **members: Any) -> None:
        """Where nobody listens, the next process is told."""
        self._link.put(**members).addErrback(lambda _: None)

    def say_health(self) -> None:
        """Now, and not only when its time comes."""
        if self._configuration is None:
            return
        try:
            reasons = list(self._not_ready())
        except Exception as error:  # noqa: BLE001  # whoever cannot say how he is, is not well
            self.log.failure("the server's health could not be found out")
            reasons = [f"the server's health could not be found out: {type(error).__name__}"]
        self._put(not_ready=reasons)

    def _look(self) -> Deferred[None] | None:
        self.say_health()
        if not self._ports.in_use:
            return None
        return Deferred.fromCoroutine(self._listen_again()).addErrback(self._failed, "a listener that somebody else had")

    async def _listen_again(self) -> None:
        configuration = self._configuration
        if configuration is not None and await self._ports.listen_again(configuration.listen) and self._configuration is not None:
            self._listen(self._configuration)

    def _listen(self, configuration: Configuration) -> None:
        listeners = {one.endpoint: one for one in configuration.web_listeners}
        https = next((place for one in listeners.values() if one.tls != "none" and (place := self._port(one.endpoint))), None)
        has_tls = any(one.tls != "none" for one in listeners.values())
        sockets = {}
        for endpoint, descriptor in self._ports.held().items():
            if endpoint in listeners:
                one = listeners[endpoint]
                proxies = None if one.proxies is None else [str(network) for network in one.proxies]
                settings = {
                    "tls": one.tls != "none",
                    "https_port": (https or 443) if has_tls and one.tls == "none" else None,
                    "is_proxied": endpoint.startswith("haproxy:"),
                    "proxies": _proxies(endpoint, proxies),
                }
                sockets[endpoint] = ListeningSocket(descriptor, settings)
        self._link.listen(sockets)

    def _port(self, endpoint: str) -> int:
        try:
            return int(getattr(self._ports.host(endpoint), "port", 0))
        except KeyError:  # it could not be listened on
            return 0

    async def _read_certificate(self) -> None:
        """That of its files; without them one of our own making, as long as no CA's has come."""
        configuration = self._configuration
        if configuration is None:
            return
        web, hand_over = configuration.web, self.hand_over
        source = CertificateSource.OWN if web.certificate is None else CertificateSource.FILES
        if source is CertificateSource.OWN:
            hand_over.put_certificate(CertificateSource.FILES, None).addErrback(lambda _: None)
            if hand_over.has_issued:
                return
        try:
            found = await self._run_in_thread(_certificate_of, configuration, os.path.join(self._server.data, "tls-web"))
        except (IdentityError, OSError, ValueError) as error:
            self.log.error("the certificate of the web listeners cannot be read: {error}", error=error)
            return
        hand_over.put_certificate(source, found).addErrback(lambda _: None)

    def _look_at_files(self) -> None:
        if self._configuration is not None and self._configuration.web.certificate is not None:
            Deferred.fromCoroutine(self._read_certificate()).addErrback(self._failed, "the certificate of the web listeners")

    # --- the process ---

    def _open(self, configuration: Configuration) -> None:
        web = configuration.web
        if web.socket is not None:
            self._socket = WebSocket(
                web.socket,
                group=web.socket_group,
                version=self._server.program_version,
                reactor=self._server.reactor,
                run_in_thread=self._run_in_thread,
                is_wanted=lambda: not self._link.is_served,
                serve=self._serve,
            )
            self._missing = f"nothing has connected to {web.socket}: does its unit run?"
            return
        if self._server.processes.root is None and os.geteuid() != 0:
            self.log.info("the web process runs as the server's own user, as nobody here may start it as another")
        else:
            if self._server.processes.root is not None and not root_starts_web(self._server.begun_with):
                raise StartError("restart the server: it had no web listener at its start, so that root starts no process")
            try:
                user = pwd.getpwnam(web.user)
            except KeyError:
                raise StartError(f"web.user: there is no user {web.user} on this host") from None
            if user.pw_uid in (0, os.geteuid()):
                raise StartError(f"web.user: {web.user} is root, or the server's own user")
        self._begin()

    def _begin(self) -> None:
        self._timer = None
        self._began = self._server.reactor.seconds()
        self._in_thread(self._started).addCallbacks(self._has_begun, self._has_not_begun)

    def _started(self) -> tuple[subprocess.Popen[bytes] | None, socket.socket]:
        """Blocks.  Raises OSError."""
        root, configuration = self._server.processes.root, self._configuration
        if configuration is None:
            raise OSError("it is not wanted any more")
        if root is not None:
            return None, root.start("web")
        return begin(web_start(configuration, as_user=os.geteuid() == 0), self._server.program_version)

    def _has_begun(self, begun: tuple[subprocess.Popen[bytes] | None, socket.socket]) -> None:
        process, end = begun
        if self._configuration is None:
            end.close()
            if process is not None:
                self._in_thread(see_off, process, END_SECONDS).addErrback(self._failed, SEEN_OFF)
            return
        self._process = process
        ours, theirs = os.pipe2(os.O_CLOEXEC)
        WebLogReader(self._server.reactor, ours)
        self._serve(end, log=theirs)

    def _serve(self, end: socket.socket, *, log: int = -1) -> None:
        if self._configuration is None:
            end.close()
            return
        if self._socket is not None:
            self._began = self._server.reactor.seconds()
        if self._missing:
            self.log.warn("the web process runs again") if self._socket is None else self.log.info("the web process is here")
        self._missing = ""
        self._link.serve(end, log=log)

    def _has_not_begun(self, failure: Failure) -> None:
        if self._configuration is None:
            return
        why = failure.getErrorMessage()
        if why != self._missing:
            self._missing = why
            self.log.critical("the web process does not start, and nobody serves the web listeners: {why}", why=why)
        self._begin_later()

    def _has_died(self, why: str) -> None:
        self._missing = why
        self.log.error("the web process is gone, and the web listeners wait for the next: {why}", why=why)
        process, self._process = self._process, None
        if process is not None:
            process.kill()  # one that was stopped does not see the end of its socket
            self._in_thread(process.wait).addErrback(self._failed, SEEN_OFF)
        if self._socket is None:
            self._begin_later()
        else:
            self._socket.pause(self._pause())

    def _begin_later(self) -> None:
        self._timer = self._server.reactor.callLater(self._pause(), self._begin)

    def _pause(self) -> float:
        """Before the next process; longer each time where they die soon."""
        return self._back_off.pause(self._server.reactor.seconds() - self._began)

    def _in_thread(self, function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        async def run() -> Any:
            return await self._run_in_thread(function, *arguments)

        return Deferred.fromCoroutine(run())

    def _failed(self, failure: Failure, what: str) -> None:
        self.log.failure("{what}", failure, what=what)


def _proxies(endpoint: str, proxies: list[str] | None) -> list[str] | None:
    """None: whoever connects, who could only by a Unix socket."""
    if endpoint.startswith("haproxy:unix:"):
        return None
    return ["127.0.0.0/8", "::1/128"] if proxies is None else proxies


def _certificate_of(configuration: Configuration, folder: str) -> WebCertificate:
    """Blocks.  Raises `IdentityError`, OSError and ValueError."""
    web = configuration.web
    if web.certificate is not None and web.key is not None:
        pair = Pair(web.certificate, web.key)
    else:
        pair = self_signed_pair(folder, configuration.hostname, ["127.0.0.1", "::1"])
    read_identity(pair)
    with open(pair.certificate, encoding="ascii") as chain, open(pair.key, encoding="ascii") as key:
        return WebCertificate(chain.read(), key.read())
