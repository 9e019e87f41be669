"""What can be asked about who is connected."""

from __future__ import annotations

import ipaddress
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from mailserver.mail.dns_records import LookupFailed
from mailserver.mail.envelope import Peer
from mailserver.mail.networks import network_name, network_of
from mailserver.testing import FakeResolver
from tests.at_once import at_once


def peer(address: str, zones: Any = None, failing: Any = ()) -> Peer:
    resolver = FakeResolver(zones or {})
    resolver.failing.update(failing)
    return Peer(address, 25, "mx", look_up=resolver.query)


class Address(SynchronousTestCase):
    def test_it_is_an_ip_address_and_a_mapped_one_is_ipv4(self) -> None:
        for address, ip, network in (
            ("192.0.2.1", "192.0.2.1", "192.0.2.1/32"),
            ("::ffff:192.0.2.1", "192.0.2.1", "192.0.2.1/32"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
            ("fe80::1%eth0", "fe80::1", "fe80::/64"),
        ):
            self.assertEqual((str(peer(address).ip), str(peer(address).network)), (ip, network))

    def test_what_has_none_has_none(self) -> None:
        for address in ("unix", "local", "proxy:192.0.2.1", "", "192.0.2", "::x"):
            self.assertEqual((peer(address).ip, peer(address).network, at_once(peer(address).names())), (None, None, ()))

    @given(st.ip_addresses())
    def test_two_have_one_network_where_they_are_counted_together(self, ip: Any) -> None:
        one = peer(str(ip))
        assert one.network is not None
        last = peer(str(one.network.broadcast_address))
        self.assertEqual(network_of(last.address), network_of(one.address))
        self.assertEqual(last.network, one.network)
        if one.network.version == 6:
            self.assertEqual(str(one.network), str(ipaddress.ip_network(network_name(one.address))))


class Names(SynchronousTestCase):
    ZONES = {
        "1.2.0.192.in-addr.arpa": {"PTR": ["a.example", "forged.example", "gone.example", "b.example"]},
        "a.example": {"A": ["192.0.2.9", "192.0.2.1"]},
        "forged.example": {"A": ["192.0.2.9"]},
        "b.example": {"A": ["192.0.2.1"]},
    }

    def test_those_are_believed_that_have_the_address_themselves(self) -> None:
        self.assertEqual(at_once(peer("192.0.2.1", self.ZONES).names()), ("a.example", "b.example"))
        six = ipaddress.ip_address("2001:db8::1")
        zones = {six.reverse_pointer: {"PTR": ["six.example"]}, "six.example": {"AAAA": ["2001:DB8:0::1"]}}
        self.assertEqual(at_once(peer("2001:db8::1", zones).names()), ("six.example",))
        self.assertEqual(at_once(peer("2001:db8::2", zones).names()), ())

    def test_they_are_looked_up_once_for_a_connection_and_its_address(self) -> None:
        resolver = FakeResolver(self.ZONES)
        first = Peer("192.0.2.1", 25, "mx", look_up=resolver.query)
        names = at_once(first.names())
        asked = len(resolver.asked)
        self.assertGreater(asked, 0)
        self.assertEqual(at_once(replace(first, hello="a.example").names()), names)
        self.assertEqual(len(resolver.asked), asked)
        self.assertEqual(at_once(replace(first, address="192.0.2.2").names()), ())
        self.assertGreater(len(resolver.asked), asked)

    def test_no_answer_is_something_else_than_no_name(self) -> None:
        with self.assertRaises(LookupFailed):
            at_once(peer("192.0.2.1", self.ZONES, ["1.2.0.192.in-addr.arpa"]).names())
        with self.assertRaises(LookupFailed):
            at_once(peer("192.0.2.1", self.ZONES, ["a.example", "b.example"]).names())
        self.assertEqual(at_once(peer("192.0.2.1", self.ZONES, ["a.example"]).names()), ("b.example",), "one is confirmed")
        with self.assertRaises(LookupFailed):
            at_once(Peer("192.0.2.1", 25, "mx").names())

    def test_a_thousand_names_cost_ten_questions(self) -> None:
        asked: list[str] = []
        resolver = FakeResolver({"1.2.0.192.in-addr.arpa": {"PTR": [f"n{n}.example" for n in range(1000)]}})

        async def look_up(name: str, record_type: str) -> Any:
            asked.append(name)
            return await resolver.query(name, record_type)

        self.assertEqual(at_once(Peer("192.0.2.1", 25, "mx", look_up=look_up).names()), ())
        self.assertEqual(len(asked), 11)

    def test_they_are_waited_for(self) -> None:
        held: Deferred[Any] = Deferred()
        names = Deferred.fromCoroutine(Peer("192.0.2.1", 25, "mx", look_up=lambda name, kind: held).names())
        self.assertNoResult(names)
        held.errback(LookupFailed("late"))
        self.failureResultOf(names, LookupFailed)

    def test_who_looks_them_up_makes_no_other_peer(self) -> None:
        one = peer("192.0.2.1")
        self.assertEqual(one, replace(one, look_up=None))
        self.assertNotIn("look_up", repr(one))
