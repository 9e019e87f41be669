"""A component that hangs, in a coroutine or in a thread: at the start, at a reload, at the stop."""

from __future__ import annotations

import signal

from tests.scenarios.support import BASIC, ScenarioCase, Server, Wire, wait_until

PLUGIN = '''
import time
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from zope.interface import implementer

from mailserver.api import IComponent, IComponentFactory, IRecipientFilter, Options, Pass


@implementer(IRecipientFilter, IComponent)
class Hanging:
    def __init__(self, options):
        self.options = options

    async def hang(self, how):
        if how == "thread":
            await deferToThread(time.sleep, 1000)
        while how == "coroutine":
            try:
                await Deferred()
            except Exception:
                pass

    async def start(self):
        await self.hang(self.options.start)

    async def stop(self):
        await self.hang(self.options.stop)

    async def judge_recipient(self, envelope, recipient):
        return Pass()


class HangingOptions(Options):
    start: str = ""
    stop: str = ""


@implementer(IComponentFactory)
class HangingFactory:
    name = "hanging"
    summary = "Hangs."
    api_version = "1.0"
    provides = IRecipientFilter
    options = HangingOptions

    def build(self, options, services):
        return Hanging(options)


hanging = HangingFactory()
'''
LIMITS = '[limits]\nstart_seconds = "300ms"\nstop_seconds = "300ms"\nmessage_bytes = {octets}\n'
TABLE = '[[filter]]\nuse = "hanging"\n'


class Hanging(ScenarioCase):
    def prepared(self, more: str, octets: int = 100_000) -> Server:
        server = self.prepare(self.config(more, octets))
        server.install_plugin("hanging_plugin", PLUGIN)
        return server

    def config(self, more: str, octets: int = 100_000) -> str:
        return BASIC + LIMITS.format(octets=octets) + TABLE + more

    def size(self, server: Server) -> str:
        with Wire(server.port) as wire:
            return next(line for line in wire.command("EHLO client.example").lines if line.startswith("SIZE"))

    def test_a_start_that_hangs_ends_the_server_with_the_components_name(self) -> None:
        for how in ("coroutine", "thread"):
            server = self.prepared(f'start = "{how}"\n')
            server.launch()
            self.assertEqual(server.ended(), 1, server.log())
            self.assertIn("mailserver cannot start: filter hanging: start has not ended within 0.3 seconds", server.log())

    def test_a_stop_that_hangs_is_left_behind_and_the_server_ends(self) -> None:
        for how in ("coroutine", "thread"):
            server = self.prepared(f'stop = "{how}"\n')
            server.start()
            self.assertServes(server)
            self.assertEqual(server.stop(), 0)
            self.assertIn("filter hanging: stop has not ended within 0.3 seconds; nobody waits for it", server.log())
            self.assertEqual("without threads that have not ended" in server.log(), how == "thread")

    def test_a_reload_that_hangs_is_given_up_and_the_next_hang_up_is_taken(self) -> None:
        server = self.prepared("")
        server.start()
        for number, how in enumerate(("coroutine", "thread"), 1):
            server.configure(self.config(f'start = "{how}"\n', 200_000))
            server.signal(signal.SIGHUP)
            wait_until(lambda number=number: server.log().count("the configuration is refused, the old one stays") == number, server.log)
            self.assertEqual(self.size(server), "SIZE 100000")
        self.assertServes(server)
        server.configure(self.config("", 300_000))
        server.signal(signal.SIGHUP)
        wait_until(lambda: self.size(server) == "SIZE 300000", server.log)
        self.assertServes(server)
        self.assertEqual(server.stop(), 0)
