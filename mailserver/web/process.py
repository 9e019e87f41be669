"""The web process: takes up what the server hands over, accepts on the sockets that come with it, and answers.

    python -m mailserver.web.process NUMBER      a child of the server's or of the root process's, by its end of a socket pair
    python -m mailserver.web.process /PATH       a unit of its own, by the socket that the server has opened there

It opens no file and no connection for anybody, holds no descriptor of the server's but those sockets, and ends with the server.
"""

from __future__ import annotations

import contextlib
import ctypes
import ipaddress
import json
import os
import pwd
import resource
import socket
import sys
import time
from collections.abc import Sequence
from typing import Any

from OpenSSL import SSL
from twisted.internet.defer import maybeDeferred
from twisted.internet.interfaces import IReadDescriptor
from twisted.logger import Logger, globalLogBeginner
from zope.interface import implementer

from mailserver.mail.networks import Networks
from mailserver.processes import frames
from mailserver.processes.frames import DESCRIPTORS, LENGTH
from mailserver.processes.privileged import become
from mailserver.processes.spawning import STARTER_GONE, name_version, outlive_signals
from mailserver.processes.unix_port import listen_on
from mailserver.web.answers import WebAnswer, WebRequest, answer
from mailserver.web.certificates import WebCertificates, WebTLSFactory
from mailserver.web.channel import BehindProxyFactory, HTTPFactory, WebRoom
from mailserver.web.content import WebContent
from mailserver.web.log import WebLog
from mailserver.web.wire import QUESTION_OCTETS, decoded, said_number, taken_up

__all__ = ["WebProcess", "main"]

PIECE_OCTETS = 256 * 1024
DESCRIPTORS_MOST = 4096
PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS = 4, 38


class WebProcess:
    """What was handed over, and the listeners.  `ended` is called when the server has gone."""

    log = Logger()

    def __init__(self, reactor: Any, web_log: WebLog) -> None:
        self._reactor = reactor
        self.web_log = web_log
        self._content = WebContent()
        self._certificates = WebCertificates()
        self._room = WebRoom(connections=500, connections_per_network=50)
        self._ports: dict[str, Any] = {}
        self._heard_at = time.monotonic()

    def take_up(self, members: dict[str, Any], descriptors: list[int]) -> None:
        """A frame."""
        self._heard_at = time.monotonic()
        before, self._content = self._content, taken_up(self._content, members)
        if (before.certificate, before.alpn) != (self._content.certificate, self._content.alpn):
            try:
                self._certificates.take_up(self._content)
            except (ValueError, TypeError, SSL.Error):
                self.log.failure("a certificate that was handed over cannot be used; the one before stays")
        if "limits" in members:
            self._room.connections_most, self._room.per_network_most = members["limits"]
        if "log_format" in members:
            self.web_log.is_json = members["log_format"] == "json"
        for name in members.get("closed", ()):
            self._close(name)
        for (name, settings), descriptor in zip(members.get("opened", ()), descriptors, strict=True):
            self._close(name)
            self._listen(name, settings, descriptor)

    def answer(self, request: WebRequest) -> WebAnswer:
        """To one request."""
        return answer(request, self._content, silent_seconds=time.monotonic() - self._heard_at)

    def _listen(self, name: str, settings: dict[str, Any], descriptor: int) -> None:
        factory: Any = HTTPFactory(
            room=self._room,
            clock=self._reactor,
            answering=self.answer,
            tell=self.web_log.step,
            failed=lambda: self.log.failure("a request could not be answered"),
            https_port=settings.get("https_port"),
        )
        if settings["tls"]:
            factory = WebTLSFactory(self._certificates, factory, self._reactor)
        if settings["is_proxied"]:
            its = settings["proxies"]
            proxies = None if its is None else Networks(map(ipaddress.ip_network, its))
            factory = BehindProxyFactory(
                factory, proxies=proxies, room=self._room, clock=self._reactor, tell=self.web_log.step
            )
        with socket.socket(fileno=descriptor) as bound:
            if bound.family == socket.AF_UNIX:
                self._ports[name] = listen_on(bound.dup(), factory, self._reactor, removes=False)
            else:
                bound.setblocking(False)
                self._ports[name] = self._reactor.adoptStreamPort(bound.fileno(), bound.family, factory)

    def _close(self, name: str) -> None:
        port = self._ports.pop(name, None)
        if port is not None:
            maybeDeferred(port.stopListening).addErrback(
                lambda failure: self.log.failure("a listener did not stop well", failure)
            )


@implementer(IReadDescriptor)
class Hearing:
    """Reads the frames of the server, and says that each was taken up.  `ended`: the server has gone."""

    log = Logger()

    def __init__(self, reactor: Any, end: socket.socket, process: WebProcess) -> None:
        end.setblocking(False)
        self._reactor = reactor
        self._end = end
        self._process = process
        self._octets = bytearray()
        self._descriptors: list[int] = []

    def fileno(self) -> int:
        """As Twisted wants it."""
        return self._end.fileno()

    def logPrefix(self) -> str:
        """As Twisted wants it."""
        return "server"

    def doRead(self) -> None:
        """Something has come."""
        try:
            octets, descriptors, _, _ = socket.recv_fds(self._end, PIECE_OCTETS, DESCRIPTORS, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return
        except OSError:
            octets, descriptors = b"", []
        self._octets += octets
        self._descriptors += descriptors
        if not octets:
            self.connectionLost(None)
            return
        while len(self._octets) >= LENGTH.size:
            length = LENGTH.unpack_from(self._octets)[0]
            if length > QUESTION_OCTETS:
                self.connectionLost(None)
                return
            if len(self._octets) < LENGTH.size + length:
                return
            frame = bytes(self._octets[LENGTH.size : LENGTH.size + length])
            del self._octets[: LENGTH.size + length]
            self._take_up(frame)

    def connectionLost(self, reason: Any) -> None:
        """The server has gone, and so do we."""
        self._reactor.removeReader(self)
        self._end.close()
        with contextlib.suppress(Exception):
            self._reactor.stop()

    def _take_up(self, frame: bytes) -> None:
        number, members = decoded(frame)
        count = len(members.get("opened", ()))
        if members.pop("log", False):
            self._process.web_log.relay(self._descriptors.pop(0))
        descriptors, self._descriptors = self._descriptors[:count], self._descriptors[count:]
        self._process.take_up(members, descriptors)
        said = said_number(number)
        try:
            self._end.send(LENGTH.pack(len(said)) + said)  # a few octets, once for each frame: there is room
        except OSError:
            self.connectionLost(None)


def settle(user: str) -> None:
    """Become the user, where one is named, and give up what a web server needs nothing of.  Raises OSError and KeyError."""
    os.umask(0o077)
    os.chdir("/")
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS_MOST if most == resource.RLIM_INFINITY else min(DESCRIPTORS_MOST, most)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, wanted))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # there is a key in the memory
    if user:
        become(pwd.getpwnam(user))
    with contextlib.suppress(OSError, AttributeError):
        prctl = ctypes.CDLL(None).prctl
        prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)  # others of the same user do not read the memory
        prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def _user(control: socket.socket) -> str:
    try:
        instructions = frames.receive(control)[0]
    except (EOFError, ConnectionError):  # whoever has started it waits no longer
        sys.exit(STARTER_GONE)
    return str(json.loads(instructions)["user"])


def _say_nothing() -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    os.close(nowhere)


def main(arguments: Sequence[str]) -> None:
    """The argument is the number of our end, or the path of the server's socket."""
    from twisted.internet import reactor

    running: Any = reactor
    [place] = arguments
    is_child = place.isdigit()
    if is_child:
        outlive_signals()
        control = socket.socket(fileno=int(place))
        control.set_inheritable(False)
    else:
        control = socket.socket(socket.AF_UNIX)
        try:
            control.connect(place)
        except OSError as error:
            sys.stderr.write(f"mailserver web: the server is not to be reached at {place}: {error.strerror or error}\n")
            sys.exit(os.EX_UNAVAILABLE)
    name_version(control)
    settle(_user(control) if is_child else "")
    if is_child:  # what it has to say goes through the pipe that comes with the first frame
        _say_nothing()
    web_log = WebLog()
    globalLogBeginner.beginLoggingTo([web_log], redirectStandardIO=False, discardBuffer=True)
    running.addReader(Hearing(running, control, WebProcess(running, web_log)))
    running.run(installSignalHandlers=not is_child)


if __name__ == "__main__":
    main(sys.argv[1:])
