"""A scanner that says what the test tells it to, and a real one that the test starts."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet import reactor as the_reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol

from mailserver.testing import FilterCase

reactor: Any = the_reactor
EICAR = b"X5O!P%@AP[4\\PZX54(P^)7CC)7}$EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"


def turn(seconds: float = 0.001) -> Deferred[None]:
    done: Deferred[None] = Deferred()
    reactor.callLater(seconds, done.callback, None)
    return done


class FakeScanner(Protocol):
    """Gathers what it is given; `factory.heard` looks at it after each piece."""

    factory: Any

    def connectionMade(self) -> None:
        self.octets = b""
        self.factory.open.append(self)
        self.factory.made += 1

    def connectionLost(self, reason: Any = None) -> None:
        self.factory.open.remove(self)

    def dataReceived(self, data: bytes) -> None:
        self.octets += data
        self.factory.heard(self)

    def say(self, octets: bytes) -> None:
        transport: Any = self.transport
        transport.write(octets)
        transport.loseConnection()


def silent(scanner: FakeScanner) -> None:
    """It never answers."""


def cutting(scanner: FakeScanner) -> None:
    """It dies in the middle of the message."""
    transport: Any = scanner.transport
    transport.abortConnection()


class ScannerCase(FilterCase):
    timeout = 60

    def setUp(self) -> None:
        super().setUp()
        self.scanner: Any = Factory.forProtocol(FakeScanner)
        self.scanner.open, self.scanner.made, self.scanner.heard = [], 0, silent
        port = reactor.listenTCP(0, self.scanner, interface="127.0.0.1")
        self.addCleanup(self.closed)
        self.addCleanup(port.stopListening)
        self.endpoint = f"tcp:127.0.0.1:{port.getHost().port}"

    async def closed(self) -> None:
        """Wait until the scanner has seen the end of each connection."""
        while self.scanner.open:
            await turn()

    async def verdict(self, component: Any, content: Any = None, **rules: Any) -> Any:
        """What the core makes of the answer, with `on_error` as the test wants it."""
        judgement = self.configured(component, **rules).content(self.envelope(), content or self.content())
        return (await judgement) if isinstance(judgement, Deferred) else judgement


class RealScanner:
    """A program in a folder of its own, ended with the test."""

    def __init__(self, case: Any) -> None:
        self.folder = tempfile.mkdtemp(prefix="scanner-")
        case.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        os.chmod(self.folder, 0o755)
        self._case = case

    def write(self, name: str, text: str) -> str:
        path = os.path.join(self.folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path

    async def start(self, command: Sequence[str], is_there: Callable[[], bool], **more: Any) -> subprocess.Popen[bytes]:
        """Start it and wait until it is there."""
        process = self.launch(command, **more)
        while not is_there():
            if process.poll() is not None:
                self._case.fail(f"{command[0]} has ended: {self.output()}")
            await turn(0.02)
        return process

    def launch(self, command: Sequence[str], **more: Any) -> subprocess.Popen[bytes]:
        """Start it."""
        with open(os.path.join(self.folder, "output"), "wb") as output:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True, **more)
        self._case.addCleanup(end, process)
        return process

    def output(self) -> str:
        """The last of what it has said."""
        with open(os.path.join(self.folder, "output"), encoding="utf-8", errors="replace") as file:
            return file.read()[-2000:]


def end(process: subprocess.Popen[bytes]) -> None:
    """It, and the processes that it has started."""
    if process.poll() is None:
        os.killpg(process.pid, 9)
    process.wait()
