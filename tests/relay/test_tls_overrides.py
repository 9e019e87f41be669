"""Overrides of a domain's TLS: kept, found while they hold, over at their end."""

import json

from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from mailserver.config.next_hop import next_host_name
from mailserver.interfaces import CannotDo
from mailserver.mail.faults import StorageBroken
from mailserver.relay.hosts import named_hosts
from mailserver.relay.security import OverrideKind
from mailserver.relay.tls_overrides import TLSOverrides
from mailserver.testing.records import MemoryRecords

DAY = 86_400
PIN = "ab" * 32


class Case(TestCase):
    def setUp(self):
        self.clock = Clock()
        self.clock.advance(1_000_000)
        self.records = MemoryRecords()
        self.overrides = TLSOverrides(self.records, self.clock)

    async def no(self, words, **given):
        with self.assertRaisesRegex(CannotDo, words):
            await self.overrides.add(**{"domain": "example.org", "kind": "require", "seconds": DAY, **given})


class Holding(Case):
    async def test_one_holds_from_when_it_is_added_until_its_end_and_not_a_moment_longer(self):
        await self.overrides.add(domain="Example.ORG", kind="require", seconds=DAY)
        self.clock.advance(DAY - 1)
        self.assertIs(self.overrides.find("example.org").kind, OverrideKind.REQUIRE)
        self.assertIsNone(self.overrides.find("sub.example.org"))
        self.clock.advance(1)
        self.assertIsNone(self.overrides.find("example.org"))
        self.assertEqual([one.domain for one in await self.overrides.listed()], ["example.org"])  # to be seen for a while

    async def test_a_clock_that_was_set_back_makes_none_longer_but_the_one_that_requires(self):
        for domain, kind, pin in (("a.example", "allow", ""), ("t.example", "trust", PIN), ("r.example", "require", "")):
            await self.overrides.add(domain=domain, kind=kind, seconds=DAY, fingerprint=pin)
        earlier = Clock()
        again = TLSOverrides(self.records, earlier)
        earlier.advance(1_000_000 - 3600)
        await again.start()
        self.assertTrue(all(again.find(f"{one}.example") for one in "atr"))
        earlier.rightNow -= 1
        self.assertEqual([again.find(f"{one}.example") is not None for one in "atr"], [False, False, True])

    async def test_a_smarthost_that_is_named_by_its_number_has_one_too(self):
        for number in ("192.0.2.1", "2001:DB8::1"):
            await self.overrides.add(domain=number, kind="require", seconds=DAY)
            hosts = await named_hosts(next_host_name(number), resolver=None)  # as the configuration has it
            self.assertIsNotNone(self.overrides.find(hosts.domain), number)

    async def test_it_outlives_a_restart(self):
        await self.overrides.add(domain="bücher.example", kind="trust", seconds=DAY, fingerprint=":".join([*["AB"] * 32]))
        again = TLSOverrides(self.records, self.clock)
        self.assertIsNone(again.find("xn--bcher-kva.example"))
        await again.start()
        found = again.find("xn--bcher-kva.example")
        self.assertEqual((found.kind, found.fingerprint), (OverrideKind.TRUST, PIN))

    async def test_another_one_for_the_domain_takes_its_place_and_removing_ends_it(self):
        await self.overrides.add(domain="example.org", kind="require", seconds=DAY)
        await self.overrides.add(domain="example.org", kind="allow", seconds=DAY, why="a test", by="root")
        self.assertIs(self.overrides.find("example.org").kind, OverrideKind.ALLOW)
        gone = await self.overrides.remove("EXAMPLE.org")
        self.assertEqual((gone.kind, gone.why, gone.by), ("allow", "a test", "root"))
        self.assertIsNone(self.overrides.find("example.org"))
        with self.assertRaises(CannotDo):
            await self.overrides.remove("example.org")

    async def test_what_is_long_over_goes_with_the_next_one(self):
        await self.overrides.add(domain="old.example", kind="require", seconds=DAY)
        self.clock.advance(40 * DAY)
        await self.overrides.add(domain="new.example", kind="require", seconds=DAY)
        self.assertEqual([one.domain for one in await self.overrides.listed()], ["new.example"])


class Faults(Case):
    async def test_what_makes_no_sense_is_refused(self):
        await self.no("64 hexadecimal digits", kind="trust")
        await self.no("64 hexadecimal digits", kind="trust", fingerprint="zz" * 32)
        await self.no("takes no fingerprint", fingerprint=PIN)
        await self.no("none of", kind="believe")
        await self.no("is no domain", domain="not a domain")
        await self.no("is no domain", domain="")
        for seconds in (0, -1, float("inf"), float("nan"), 400 * DAY):
            await self.no("has an end", seconds=seconds)
        self.assertEqual(await self.overrides.listed(), [])

    async def test_a_damaged_one_is_told_and_the_others_hold(self):
        await self.overrides.add(domain="example.org", kind="require", seconds=DAY)
        good = await self.records.get("example.org")
        fields = json.loads(good)
        for domain, value in {
            "a.example": b"\0", "b.example": b"[]", "c.example": good, "d.example": b"{}",
            "e.example": json.dumps(fields | {"domain": "e.example", "kind": "believe"}).encode(),
            "f.example": json.dumps(fields | {"domain": "f.example", "until": "soon"}).encode(),
        }.items():  # fmt: skip
            await self.records.put(domain, value)
        again = TLSOverrides(self.records, self.clock)
        await again.start()
        self.assertEqual([one.domain for one in await again.listed()], ["example.org"])
        self.assertIsNotNone(again.find("example.org"))

    async def test_records_that_cannot_be_read_are_read_again_later(self):
        await self.overrides.add(domain="example.org", kind="require", seconds=DAY)
        broken = True

        async def items(*wanted, **named):
            if broken:
                raise StorageBroken("no")
            return await MemoryRecords.items(self.records, *wanted, **named)

        self.records.items = items
        again = TLSOverrides(self.records, self.clock)
        await again.start()
        self.assertIsNone(again.find("example.org"))
        broken = False
        self.clock.advance(60)
        self.assertIsNotNone(again.find("example.org"))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    async def test_a_stop_ends_the_waiting_for_records(self):
        async def items(*wanted, **named):
            raise StorageBroken("no")

        self.records.items = items
        await self.overrides.start()
        self.overrides.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
