"""Which addresses belong together."""

from __future__ import annotations

import ipaddress

from twisted.trial.unittest import SynchronousTestCase

from mailserver.mail.networks import Networks, network_name, network_of


class OneNetwork(SynchronousTestCase):
    def test_an_ipv6_network_is_the_first_64_bits(self) -> None:
        self.assertEqual(network_of("2001:db8::1"), network_of("2001:db8:0:0:ffff::9"))
        self.assertNotEqual(network_of("2001:db8::1"), network_of("2001:db8:0:1::1"))

    def test_an_ipv4_address_mapped_into_ipv6_is_the_ipv4_address(self) -> None:
        self.assertEqual(network_of("::ffff:192.0.2.1"), network_of("192.0.2.1"))

    def test_a_zone_does_not_make_another_network(self) -> None:
        self.assertEqual(network_of("fe80::1%eth0"), network_of("fe80::2"))

    def test_its_name_is_for_people_and_has_no_blank(self) -> None:
        names = {
            "192.0.2.1": "192.0.2.1",
            "::ffff:192.0.2.1": "192.0.2.1",
            "2001:db8:1:2:3::4": "2001:db8:1:2::/64",
            "::1": "::/64",
            "unix": "unix",
            "what:is:this": "what:is:this",
            "a b": "a_b",
            ":x:y:z:": ":x:y:z:",
            ":x:y:z:w": ":x:y:z:w",
        }
        self.assertEqual({address: network_name(address) for address in names}, names)


class SetsOfNetworks(SynchronousTestCase):
    def test_it_holds_the_addresses_of_its_networks_alone(self) -> None:
        networks = Networks([ipaddress.ip_network("192.0.2.0/24"), ipaddress.ip_network("2001:db8::/32")])
        for address in ("192.0.2.9", "::ffff:192.0.2.9", "2001:db8::1", "2001:db8::1%eth0"):
            for _ in range(2):
                self.assertIn(address, networks)
        for address in ("192.0.3.1", "2001:db9::1", "unix", "local", "", "nonsense"):
            self.assertNotIn(address, networks)

    def test_a_network_is_covered_where_each_of_its_addresses_is(self) -> None:
        ends = Networks([ipaddress.ip_network("192.0.2.0/26"), ipaddress.ip_network("192.0.2.192/26")])
        halves = Networks([ipaddress.ip_network("192.0.2.0/25"), ipaddress.ip_network("192.0.2.128/25")])
        whole, mapped = ipaddress.ip_network("192.0.2.0/24"), ipaddress.ip_network("::ffff:192.0.2.0/120")
        for network in (whole, mapped):
            self.assertFalse(ends.covers(network))  # its first and its last address are
            self.assertTrue(halves.covers(network))
        self.assertFalse(halves.covers(ipaddress.ip_network("192.0.0.0/16")))
        self.assertFalse(halves.covers(ipaddress.ip_network("::/0")))
        six = Networks([ipaddress.ip_network("2001:db8::/33"), ipaddress.ip_network("2001:db8:8000::/33")])
        self.assertTrue(six.covers(ipaddress.ip_network("2001:db8::/32")))
        self.assertFalse(six.covers(whole))
