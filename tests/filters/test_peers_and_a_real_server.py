"""DNS lists and names of peers, with the server's own resolver and a real name server."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import ensureDeferred
from twisted.logger import capturedLogs
from twisted.trial.unittest import TestCase

from mailserver.api import Envelope, Finding, Pass, Peer, Refuse, Services
from mailserver.dns import NameServer, Resolver
from mailserver.filters import dnsbl, peer_rules
from mailserver.mail.dns_records import ServerAddress
from mailserver.plugins.catalogue import build_component
from tests.dns.unbound import Unbound

V6_TEST = "2.0.0.0.0.0.f.7.f.f.f.f" + ".0" * 20
V6_PEER = "5.2.0.0" + ".0" * 20 + ".0.5.4.1.0.0.a.2"
SOUND = [
    "2.0.0.127.sound.example. 300 IN A 127.0.0.2",
    f"{V6_TEST}.sound.example. 300 IN A 127.0.0.2",
    "8.4.4.8.sound.example. 300 IN A 127.0.0.4",
    "8.4.4.8.sound.example. 300 IN A 127.0.0.10",
    f"{V6_PEER}.sound.example. 300 IN A 127.0.0.2",
]
EVERYTHING = ["everything.example. 300 IN A 127.0.0.2"]
REFUSING = ["2.0.0.127.full.example. 300 IN A 127.0.0.2", "8.4.4.8.full.example. 300 IN A 127.255.255.255"]
CLIENT = ["client.example. 300 IN A 8.4.4.8"]
REVERSE = ["8.4.4.8.in-addr.arpa. 300 IN PTR client.example."]
LISTS = [
    {"zone": "sound.example", "codes": {"127.0.0.2": 2, "127.0.0.4-127.0.0.7": 4, "127.0.0.10": 3}},
    {"zone": "everything.example", "score": 50},
    {"zone": "full.example", "score": 50, "about": ["ipv4"]},
    {"zone": "dead.example", "score": 50},
]


class RealServer(TestCase):
    def setUp(self) -> Any:
        server = Unbound(
            {"sound.example": SOUND, "full.example": REFUSING, "client.example": CLIENT, "8.in-addr.arpa": REVERSE},
            refused=["dead.example"],
            more=['local-zone: "everything.example" redirect', f'local-data: "{EVERYTHING[0]}"'],
        )
        self.addCleanup(server.stop)
        server.start()
        servers = [NameServer(ServerAddress.parse(server.address), trusted=True)]
        self.resolver = Resolver(reactor=reactor, servers=servers, timeout_seconds=20.0)
        self.addCleanup(self.resolver.stop)
        return ensureDeferred(self.resolver.start())

    def made(self, factory: Any, **options: Any) -> Any:
        clock: Any = reactor
        services = Services(
            clock=clock, run_in_thread=None, state=None, resolver=self.resolver,  # type: ignore[arg-type]
            hostname="mx.example.org", configuration_directory="/", data_directory="/", name="tested",
        )  # fmt: skip
        return build_component(factory, factory.options(**options), services)

    async def verdict(self, component: Any, address: str) -> Any:
        peer = Peer(address, 1, "mx", look_up=self.resolver.query)
        met = await component.judge_peer(peer)
        peer.notes.keep("tested", met.notes)
        said = Peer(address, 1, "mx", "client.example", "EHLO", notes=peer.notes, look_up=self.resolver.query)
        return await component.judge_sender(Envelope("1", said, None, (), 0.0))

    async def test_a_sound_list_counts_among_those_that_misbehave(self) -> None:
        lists = self.made(dnsbl.factory, list=LISTS, verdict="refuse", threshold=4, wait=20)
        with capturedLogs() as events:
            verdict = await self.verdict(lists, "8.4.4.8")
        found = {one.properties["list"]: (one.properties["result"], one.score) for one in verdict.findings}
        self.assertEqual(
            found,
            {"sound.example": ("fail", 4.0), "full.example": ("permerror", 0.0), "dead.example": ("temperror", 0.0)},
        )
        self.assertIs(type(verdict), Refuse)
        told = sorted([event["list"] for event in events if "list" in event])
        self.assertEqual(told, ["everything.example", "full.example"])
        verdict = await self.verdict(lists, "2a00:1450::25")
        self.assertIs(type(verdict), Pass)
        self.assertEqual([one.score for one in verdict.findings], [2.0, 0.0])

    async def test_a_name_that_leads_back_is_found(self) -> None:
        rules = self.made(peer_rules.factory, refuse=["reverse_name", "hello_unknown"])
        verdict = await self.verdict(rules, "8.4.4.8")
        self.assertEqual(verdict.findings[0], Finding("reverse-name", 0.0, "client.example", {"result": "pass", "name": "client.example"}))
        self.assertIs(type(verdict), Pass)
        self.assertIs(type(await self.verdict(rules, "8.4.4.9")), Refuse)
