"""Plugins that keep something, over a restart and a kill: one of today, and one of API 0.1."""

from __future__ import annotations

import json
import signal

from tests.documents import blocks, page_text
from tests.scenarios.support import BASIC, ScenarioCase, Server, Wire

FORMER = '''
from twisted.plugin import IPlugin
from zope.interface import implementer

from mailserver.config import Options
from mailserver.interfaces import IComponentFactory, ISenderFilter
from mailserver.mail.answers import Pass, Refuse


@implementer(ISenderFilter)
class Once:
    def __init__(self, services):
        self.state = services.state

    async def judge_sender(self, envelope):
        if str(envelope.sender) == "greedy@client.example" and self.state.get("once", "greedy"):
            return Refuse("once was enough")
        self.state.put("once", "greedy", b"seen", 86400)
        return Pass()


@implementer(IPlugin, IComponentFactory)
class OnceFactory:
    name = "once"
    summary = "Takes one message"
    provides = ISenderFilter
    options = Options

    def build(self, options, services):
        return Once(services)


once = OnceFactory()
'''
KEEPER = '''
from twisted.plugin import IPlugin
from zope.interface import implementer

from mailserver.api import IComponentFactory, IContentFilter, Options, Pass, Refuse


@implementer(IContentFilter)
class Suppressing:
    def __init__(self, services):
        self.records = services.records

    async def judge_content(self, envelope, content):
        who = str(envelope.sender)
        if await self.records.get(who) is not None:
            return Refuse("they want no more")
        if "unsubscribe" in (content.headers.get("Subject") or ""):
            await self.records.put(who, b"asked")
        return Pass()


@implementer(IPlugin, IComponentFactory)
class SuppressingFactory:
    name = "suppressing"
    api_version = "1.0"
    summary = "Keeps who wants no more"
    provides = IContentFilter
    options = Options

    def build(self, options, services):
        return Suppressing(services)


suppressing = SuppressingFactory()
'''
FILTERS = """
[[filter]]
use = "once"

[[filter]]
use = "come_again"
name = "grey"
wait = 0.5

[[filter]]
use = "suppressing"
"""


class Remembering(ScenarioCase):
    def answers(self, server: Server, sender: str, subject: str = "hello") -> list[int]:
        """The codes of MAIL, RCPT and the data, up to the first that is no success."""
        codes = []
        with Wire(server.port) as wire:
            wire.command("EHLO client.example")
            for line in (f"MAIL FROM:<{sender}>", "RCPT TO:<alice@example.org>", "DATA", f"Subject: {subject}\r\n\r\nhello\r\n."):
                codes.append(wire.command(line).code)
                if codes[-1] >= 400:
                    break
        return codes

    def test_what_they_keep_is_theirs_and_there_again(self) -> None:
        server = self.prepare(BASIC + FILTERS)
        for name, text in (("once", FORMER), ("greylist_page", blocks(page_text("plugins/remembering.md"), "python")[0]), ("keeper", KEEPER)):
            server.install_plugin(name, text)
        server.start()
        self.assertEqual(self.answers(server, "greedy@client.example"), [250, 450])
        self.assertEqual(self.answers(server, "greedy@client.example"), [550], "the plugin of 0.1 remembers")
        self.assertEqual(self.answers(server, "ann@client.example")[:2], [250, 450])
        while (codes := self.answers(server, "ann@client.example", "unsubscribe"))[-1] == 450:
            pass
        self.assertEqual(codes, [250, 250, 354, 250])
        server.signal(signal.SIGKILL)  # records are synced; state may lose seconds
        server.ended()
        server.start()
        listed = json.loads(server.command("records", "list", "--json").stdout)
        self.assertEqual([(one["space"], one["records"]) for one in listed], [("filter/suppressing", 1)])
        while (codes := self.answers(server, "ann@client.example"))[-1] == 450:
            pass
        self.assertEqual(codes[-1], 550)
        self.answers(server, "bob@client.example")
        self.assertEqual(server.stop(), 0)
        server.start()
        while (codes := self.answers(server, "bob@client.example"))[-1] == 450:
            pass
        self.assertEqual(codes[-1], 250)
        self.assertEqual(self.answers(server, "greedy@client.example")[0], 550)
        self.assertIn("written for plugin API 0.1", server.log())
