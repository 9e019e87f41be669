"""A listener in memory whose filters are real ones that talk to milters over loopback."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

from mailserver.filters.milter import factory
from mailserver.plugins.generation import Generation
from mailserver.receive.ends import ends_for
from mailserver.receive.judging import BoundFilter
from mailserver.testing import FilterCase
from tests.filters.fake_milter import commands, started
from tests.filters.scanner import turn
from tests.receive.connections import Listener

TURNS_MOST = 20_000
TEXT = b"Subject: one\r\nX-Old: 1\r\nX-Old: 2\r\n\r\nhello\r\n"


class MilterCase(FilterCase):
    timeout = 60

    def setUp(self) -> None:
        super().setUp()
        self.listeners: list[Listener] = []

    def milter(self, script: Any = None) -> Any:
        """One that answers by `script`."""
        return started(self, script)

    def filter_for(self, milter: Any, *, bound: dict[str, Any] | None = None, **options: Any) -> BoundFilter:
        """The filter that asks it, as a table has it."""
        options.setdefault("client_names", False)
        component = self.build(factory, endpoint=milter.endpoint, **options)
        self.addCleanup(component.stop)
        return BoundFilter(**{"name": "milter", "component": component, "cost": component.cost, **(bound or {})})

    def serve(self, *filters: BoundFilter, service: str = "mx", **options: Any) -> Listener:
        listener = Listener(self.mktemp(), filters=filters, service=service, **options)
        self.addCleanup(listener.factory._stop_checking)
        ends = ends_for(filters, service=service, clock=listener.clock, generation=Generation())
        self.listeners.append(listener)
        listener.profile = listener.factory.profile = replace(listener.profile, ends=ends)
        return listener

    async def until(self, condition: Any, what: Any = "") -> None:
        for _ in range(TURNS_MOST):
            if condition():
                return
            await turn()
            for listener in self.listeners:
                listener.clock.advance(0)  # whoever lets others have their turn

        self.fail(f"it does not come: {what() if callable(what) else what}")

    async def dial(self, listener: Listener, **options: Any) -> Dialled:
        protocol, wire = listener.connect(**options)
        dialled = Dialled(self, protocol, wire)
        await dialled.heard(1)
        return dialled

    async def send(self, listener: Listener, *recipients: str, text: bytes = TEXT, quits: bool = True) -> Dialled:
        """One message in one connection; `codes` has what was answered to MAIL, each RCPT, DATA and the end of the data."""
        dialled = await self.dial(listener)
        await dialled.say(b"EHLO client.example\r\n")
        await dialled.message(*recipients, text=text)
        if quits:
            await dialled.hang_up()
        return dialled

    async def settled(self, *milters: Any) -> None:
        """Until each has heard all: its SMTP connection is over."""
        for milter in milters:
            await self.until(lambda milter=milter: self.told(milter) and self.told(milter)[-1] in ("quit", "quit_nc"), lambda: self.told(milter))

    def told(self, milter: Any, *, macros: bool = False) -> list[str]:
        return commands(milter, macros=macros)

    def answers(self, listener: Listener) -> list[tuple[str, str]]:
        return [(fields["stage"], fields["verdict"]) for _, step, fields in listener.steps if step == "filter"]

    def errors(self, listener: Listener) -> str:
        return " ".join([fields["error"] for _, step, fields in listener.steps if step == "filter"])


class Dialled:
    """A client in memory, which waits for each reply."""

    def __init__(self, case: MilterCase, protocol: Any, wire: Any) -> None:
        self._case, self.protocol, self.wire = case, protocol, wire
        self.codes: list[int] = []
        self.lines: list[str] = []

    async def heard(self, count: int) -> None:
        """Wait for so many replies."""

        def codes() -> list[int]:
            return [int(line[:3]) for line in self.wire.value().splitlines() if line[3:4] == b" "]

        await self._case.until(lambda: len(codes()) >= count, self.wire.value)
        self.codes += codes()
        self.lines += self.wire.value().decode().split("\r\n")[:-1]
        self.wire.clear()

    async def say(self, octets: bytes) -> int:
        self.protocol.dataReceived(octets)
        await self.heard(1)
        return self.codes[-1]

    async def message(self, *recipients: str, text: bytes = TEXT, sender: str = "a@example.net") -> int:
        code = await self.say(f"MAIL FROM:<{sender}>\r\n".encode())
        if code != 250:
            return code
        codes = [await self.say(f"RCPT TO:<{one}@example.org>\r\n".encode()) for one in recipients or ("alice",)]
        if 250 not in codes:
            await self.say(b"RSET\r\n")
            return codes[-1]
        await self.say(b"DATA\r\n")
        return await self.say(text + b".\r\n")

    async def hang_up(self) -> None:
        await self.say(b"QUIT\r\n")
        self.lost()

    def lost(self) -> None:
        self.protocol.connectionLost(Failure(ConnectionDone()))
