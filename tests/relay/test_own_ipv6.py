"""Our own IPv6 address: mail leaves from it where it has a reverse name, or where somebody has said so."""

import ipaddress

from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from mailserver.relay.own_ipv6 import AGAIN_SECONDS, UNKNOWN_AGAIN_SECONDS, OwnIPv6
from mailserver.testing import FakeResolver
from tests.relay.network import Peer, RelayCase

OURS, OTHER = "2600:1f18::7", "2600:1f18::8"
POINTER = ipaddress.ip_address(OURS).reverse_pointer
NAMED = {POINTER: {"PTR": ["mx.us.example"]}, "mx.us.example": {"AAAA": [OURS]}}


class FindingOut(SynchronousTestCase):
    def made(self, zones=None, *, sources=("",), kernels=OURS, failing=()):
        self.clock, self.changes = Clock(), []
        self.resolver = FakeResolver(zones or {}, failing=failing)
        own = OwnIPv6(
            resolver=self.resolver, clock=self.clock, sources=lambda: sources, changed=lambda: self.changes.append(1),
            kernels=lambda: kernels,
        )  # fmt: skip
        with capturedLogs() as self.said:
            own.start()
        self.addCleanup(own.stop)
        return own

    def test_a_name_that_leads_back_confirms_it(self):
        own = self.made(NAMED)
        self.assertFalse(own.is_missing(""))
        self.assertEqual(own.facts, {OURS: "confirmed: is mx.us.example"})

    def test_no_name_and_a_name_that_leads_elsewhere_do_not(self):
        for zones in ({}, {**NAMED, "mx.us.example": {"AAAA": [OTHER]}}, {**NAMED, "mx.us.example": {"A": ["192.0.2.1"]}}):
            own = self.made(zones)
            self.assertTrue(own.is_missing(""))
            self.assertEqual(own.facts, {OURS: "missing: has no reverse name that leads back to it"})
            (told,) = [event for event in self.said if "our IPv6 address" in event["log_format"]]
            self.assertEqual((told["address"], told["log_level"].name), (OURS, "warn"))

    def test_what_the_dns_does_not_say_is_not_known_and_asked_again_soon(self):
        for failing in ([POINTER], ["mx.us.example"]):
            own = self.made(NAMED, failing=failing)
            self.assertFalse(own.is_missing(""))
            self.assertIn("unknown: the DNS does not say", own.facts[OURS])
            self.resolver.failing.clear()
            self.clock.advance(UNKNOWN_AGAIN_SECONDS)
            self.assertEqual(own.facts, {OURS: "confirmed: is mx.us.example"})

    def test_it_is_looked_at_each_hour_and_a_change_is_told_once(self):
        own = self.made()
        self.resolver.zones.update(FakeResolver(NAMED).zones)
        self.clock.advance(AGAIN_SECONDS - 1)
        self.assertTrue(own.is_missing(""))
        self.clock.advance(1)
        self.assertFalse(own.is_missing(""))
        for _ in range(3):
            self.clock.advance(AGAIN_SECONDS)
        self.assertEqual(len(self.changes), 2)

    def test_each_source_is_looked_at_by_itself(self):
        own = self.made(NAMED, sources=(OURS, OTHER))
        self.assertEqual((own.is_missing(OURS), own.is_missing(OTHER)), (False, True))

    def test_without_ipv6_and_in_a_private_network_nothing_is_known(self):
        for kernels in ("", "fd00::7", "::1"):
            own = self.made(kernels=kernels)
            self.assertEqual((own.is_missing(""), self.resolver.asked), (False, []))

    def test_nothing_is_left_after_the_stop(self):
        own = self.made(NAMED)
        own.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.resolver.silent.add(POINTER)
        own.start()
        own.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])


class Missing:
    facts = {}

    def is_missing(self, source):
        return source == ""

    def start(self):
        pass

    def stop(self):
        pass


class Leaving(RelayCase):
    """Which addresses are tried where our own has no name."""

    SIX = "2600:1f18::1"

    def tried(self, zone, *, by_domain=True, **settings):
        self.setUp()
        self.relay = self.make(zones={"both.example": zone}, settings=settings, by_domain=by_domain)
        self.relay.own_ipv6 = Missing()
        if not by_domain:
            book = self.relay.routes.default.book
            find, book.find = book.find, lambda _: find("both.example")
        self.deliver("user@both.example")
        return list(self.network.attempts)

    def test_ipv6_is_left_out_where_there_is_ipv4_and_nobody_has_said_otherwise(self):
        zone = {"A": ["192.0.2.9"], "AAAA": [self.SIX]}
        self.assertEqual(self.tried(zone), ["192.0.2.9"])
        self.assertEqual(self.tried(zone, prefer="ipv4"), ["192.0.2.9"])
        self.assertEqual(self.tried(zone, prefer="ipv6"), [self.SIX, "192.0.2.9"])
        self.assertEqual(self.tried(zone, ipv4=False), [self.SIX])
        self.assertEqual(self.tried(zone, source_ipv6="2600:1f18::2"), ["192.0.2.9", self.SIX])

    def test_a_domain_with_ipv6_alone_a_private_network_and_a_host_of_the_configuration_are_not_concerned(self):
        self.assertEqual(self.tried({"AAAA": [self.SIX]}), [self.SIX])
        self.assertEqual(self.tried({"A": ["192.0.2.9"], "AAAA": ["fd00::1"]}), ["192.0.2.9", "fd00::1"])
        self.assertEqual(self.tried({"A": ["192.0.2.9"], "AAAA": [self.SIX]}, by_domain=False), ["192.0.2.9", self.SIX])

    def test_what_is_found_out_counts_for_hosts_that_are_known_already(self):
        self.relay = self.make(zones={"both.example": {"A": ["192.0.2.9"], "AAAA": [self.SIX]}})
        self.network.peers[self.SIX] = peer = Peer()
        self.deliver("user@both.example")
        self.assertEqual(len(peer.messages), 1)
        self.relay.own_ipv6 = Missing()
        self.relay.forget_order()
        self.network.attempts.clear()
        self.connections.forgive()
        self.deliver("user@both.example")
        self.assertEqual((list(self.network.attempts), len(peer.messages)), (["192.0.2.9"], 1))
