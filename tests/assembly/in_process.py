"""The whole server in the process of the test: real sockets, files and threads, and no start of another Python.

What takes a process of its own (twistd, privileges, signals, kills) stands in `tests/scenarios`.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import FailTest, TestCase

from mailserver import service as service_module
from mailserver.config import load
from mailserver.control.client import ask
from mailserver.plugins import catalogue
from mailserver.service import MailService
from tests.control.test_server import without_bytes_warning
from tests.scenarios.support import Answer, Wire

__all__ = ["BASIC", "Running", "WholeCase"]

BASIC = """
hostname = "mx.example.org"
data = "{work}/data"

[[listen]]
service = "mx"
endpoint = "tcp:0:interface=127.0.0.1"
tls = "none"

[accounts]
use = "file"
path = "{work}/accounts.toml"

[delivery]
use = "maildir"
path = "{work}/mail/{user}"

[log]
path = "{work}/log"

[domain."example.org"]
"""
STOP_SECONDS = 10.0
Found = TypeVar("Found")


class Running(MailService):
    """A server whose start is waited for, and which leaves the process as it was."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.started: Deferred[None] = Deferred()

    async def _start(self) -> None:
        await super()._start()
        if not self.started.called:
            self.started.callback(None)

    def _start_failed(self, failure: Failure) -> None:
        self.started.errback(failure)

    def _take_signals(self) -> None:
        pass  # they are the test's


class WholeCase(TestCase):
    """`work` is the folder of a test's server; `{work}` in a configuration stands for it."""

    timeout = 60
    accounts: tuple[str, ...] = ("alice@example.org", "bob@example.org")

    def setUp(self) -> None:
        without_bytes_warning(self)
        self.patch(service_module, "settle_memory", lambda: None)
        self.work = Path(tempfile.mkdtemp(prefix="mail")).resolve()
        self.addCleanup(shutil.rmtree, self.work, ignore_errors=True)
        (self.work / "accounts.toml").write_text("".join(f'[account."{one}"]\n' for one in self.accounts))
        self.path = self.work / "mailserver.toml"

    def configure(self, text: str) -> None:
        """Write the configuration file."""
        self.path.write_text(text.replace("{work}", str(self.work)))

    def made(self, text: str = BASIC, *, components: Sequence[Any] = (), **more: Any) -> Running:
        """A server that has not been started.  It knows the factories `components` besides those that are installed."""
        self.configure(text)
        found = catalogue.discover()
        if components:
            found = catalogue.Catalogue([*found.found, *(catalogue.FoundPlugin(one, __name__) for one in components)])
        configuration = load(str(self.path), found.options_of)
        return Running(configuration, path=str(self.path), catalogue=found, reactor=reactor, **more)

    async def serve(self, text: str = BASIC, **more: Any) -> Running:
        """A server that serves, until the test ends."""
        service = self.made(text, **more)
        await self.begun(service).started
        return service

    def begun(self, service: Running) -> Running:
        """Begin its start."""
        service.privilegedStartService()
        globalLogPublisher.addObserver(service._server.log_observer)
        self.addCleanup(globalLogPublisher.removeObserver, service._server.log_observer)
        self.addCleanup(self.stop, service)
        service.startService()
        return service

    async def stop(self, service: Running) -> None:
        if service.running:
            await service.stopService()

    def port(self, service: Running, number: int = 0) -> int:
        """That of the listener with this place in the configuration in force."""
        endpoint = service._in_force.configuration.listen[number].endpoint
        return int(service._in_force.ports.host(endpoint).port)

    async def ask(self, command: str, /, **arguments: Any) -> dict[str, Any]:
        """Of the control socket."""
        answer: dict[str, Any] = await deferToThread(ask, str(self.work / "data" / "control.sock"), command, arguments, 20.0)
        return answer

    async def talk(self, service: Running, work: Callable[[Wire], Found], number: int = 0, **more: Any) -> Found:
        """What a client does in a thread, on a connection of its own."""

        def client() -> Found:
            with Wire(self.port(service, number), **more) as wire:
                return work(wire)

        found: Found = await deferToThread(client)
        return found

    async def say(self, service: Running, *lines: str | bytes, number: int = 0) -> list[int]:
        """The codes that a client hears to these lines."""
        return await self.talk(service, lambda wire: wire.dialogue(*lines), number)

    async def send(
        self, service: Running, body: bytes = b"Subject: x\r\n\r\nhello\r\n", *, to: str = "alice@example.org", number: int = 0
    ) -> Answer:
        """One message; the reply after the data."""

        def mail(wire: Wire) -> Answer:
            wire.dialogue("EHLO client.example", "MAIL FROM:<sender@example.net>", f"RCPT TO:<{to}>", "DATA")
            wire.send(body + b".\r\n")
            return wire.reply()

        return await self.talk(service, mail, number)

    async def until(self, condition: Callable[[], Found], what: str, seconds: float = 20.0) -> Found:
        """Wait for the condition's first true value, while the server goes on."""
        end = reactor.seconds() + seconds  # type: ignore[attr-defined]
        while not (found := condition()):
            if reactor.seconds() > end:  # type: ignore[attr-defined]
                raise FailTest(f"not within {seconds:g} s: {what}")
            turn: Deferred[None] = Deferred()
            reactor.callLater(0.005, turn.callback, None)  # type: ignore[attr-defined]
            await turn
        return found

    def log(self) -> str:
        return (self.work / "log").read_text()

    def messages(self, user: str) -> list[bytes]:
        """What stands in a user's Maildir."""
        return [path.read_bytes() for path in sorted((self.work / "mail" / user).glob("new/*"))]
