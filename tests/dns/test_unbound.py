"""The resolver against a real name server."""

from __future__ import annotations

from twisted.internet import reactor
from twisted.internet.defer import ensureDeferred
from twisted.trial.unittest import TestCase

from mailserver.dns import NameServer, Resolver, reverse_name
from mailserver.mail.dns_records import MX, TLSA, LookupFailed, ServerAddress
from tests.dns.unbound import Unbound

ZONE = [
    "example.org. 3600 IN SOA ns.example.org. hostmaster.example.org. 1 7200 3600 604800 600",
    "example.org. 300 IN MX 10 mx1.example.org.",
    "example.org. 300 IN MX 20 mx2.example.org.",
    'example.org. 300 IN TXT "v=spf1 mx " "-all"',
    "null.example.org. 300 IN MX 0 .",
    "mx1.example.org. 60 IN A 127.0.0.2",
    "mx1.example.org. 60 IN A 127.0.0.3",
    "mx1.example.org. 60 IN AAAA ::1",
    "_25._tcp.mx1.example.org. 300 IN TLSA 3 1 1 " + "0f" * 32,
    "alias.example.org. 300 IN CNAME mx1.example.org.",
    *[f'big.example.org. 300 IN TXT "{n:03} {"x" * 200}"' for n in range(40)],
]
REVERSE = ["2.0.0.127.in-addr.arpa. 300 IN PTR mx1.example.org."]


class RealServer(TestCase):
    def setUp(self) -> None:
        server = Unbound({"example.org": ZONE, "127.in-addr.arpa": REVERSE}, refused=["refused.example"])
        self.addCleanup(server.stop)
        server.start()
        self.resolver = Resolver(
            reactor=reactor, servers=[NameServer(ServerAddress.parse(server.address), trusted=True)], timeout_seconds=20.0
        )
        self.addCleanup(self.resolver.stop)
        return ensureDeferred(self.resolver.start())

    async def test_each_type_is_understood(self) -> None:
        query = self.resolver.query
        mail = await query("example.org", "MX")
        self.assertEqual(sorted(mail.exchanges), [MX(10, "mx1.example.org"), MX(20, "mx2.example.org")])
        self.assertEqual(mail.ttl_seconds, 300)
        self.assertEqual((await query("null.example.org", "MX")).exchanges, (MX(0, "."),))
        self.assertEqual(set((await query("mx1.example.org", "A")).records), {"127.0.0.2", "127.0.0.3"})
        self.assertEqual((await query("mx1.example.org", "AAAA")).records, ("::1",))
        self.assertEqual((await query("example.org", "TXT")).texts, (b"v=spf1 mx -all",))
        self.assertEqual((await query(reverse_name("127.0.0.2"), "PTR")).records, ("mx1.example.org",))
        tlsa = await query("_25._tcp.mx1.example.org", "TLSA")
        self.assertEqual(tlsa.associations, (TLSA(3, 1, 1, b"\x0f" * 32),))
        self.assertEqual((await query("alias.example.org", "CNAME")).records, ("mx1.example.org",))

    async def test_an_alias_is_followed(self) -> None:
        found = await self.resolver.query("alias.example.org", "A")
        self.assertEqual(set(found.records), {"127.0.0.2", "127.0.0.3"})
        self.assertEqual(found.canonical_name, "mx1.example.org")

    async def test_no_such_name_no_such_type_and_cannot_tell_are_three_things(self) -> None:
        absent = await self.resolver.query("nowhere.example.org", "A")
        empty = await self.resolver.query("example.org", "AAAA")
        self.assertEqual((absent.name_exists, absent.records), (False, ()))
        self.assertEqual((empty.name_exists, empty.records), (True, ()))
        self.assertEqual((absent.ttl_seconds, empty.ttl_seconds), (600, 600))
        with self.assertRaisesRegex(LookupFailed, "REFUSED"):
            await self.resolver.query("www.refused.example", "A")

    async def test_an_answer_that_does_not_fit_comes_by_tcp(self) -> None:
        found = await self.resolver.query("big.example.org", "TXT")
        self.assertEqual(len(found.records), 40)
        self.assertEqual(self.resolver.counts.streams, 1)

    async def test_the_second_time_nobody_is_asked(self) -> None:
        for _ in range(2):
            await self.resolver.query("example.org", "MX")
        self.assertEqual((self.resolver.counts.datagrams, self.resolver.counts.from_cache), (1, 1))
