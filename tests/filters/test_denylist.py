"""The denylist: whom it names, and whom it leaves alone."""

from __future__ import annotations

from zope.interface.verify import verifyObject

from mailserver.config import ConfigurationError
from mailserver.filters.denylist import factory
from mailserver.interfaces import IComponentFactory
from mailserver.mail.answers import Verdict
from mailserver.testing import FilterCase


class Peers(FilterCase):
    def verdict(self, address: str = "192.0.2.25", hello: str = "client.example.net", **options: object) -> Verdict:
        denylist = self.build(factory, **options)
        return self.judge(denylist.judge_peer(self.peer(address, hello=hello)))

    def test_an_empty_list_names_nobody(self) -> None:
        self.assertPassed(self.verdict())

    def test_both_families_are_listed_by_network(self) -> None:
        networks = ["192.0.2.0/24", "2001:db8::/32"]
        self.assertRefused(self.verdict("192.0.2.255", networks=networks), "192.0.2.0/24")
        self.assertRefused(self.verdict("2001:db8::7", networks=networks), "2001:db8::/32")
        self.assertPassed(self.verdict("192.0.3.0", networks=networks))
        self.assertPassed(self.verdict("2001:db9::", networks=networks))

    def test_an_ipv4_peer_on_an_ipv6_socket_is_an_ipv4_peer(self) -> None:
        self.assertRefused(self.verdict("::ffff:192.0.2.1", networks=["192.0.2.1"]))

    def test_a_zone_index_does_not_hide_a_peer(self) -> None:
        self.assertRefused(self.verdict("fe80::1%eth0", networks=["fe80::/10"]))

    def test_a_peer_on_a_unix_socket_has_no_network(self) -> None:
        self.assertPassed(self.verdict("unix", networks=["0.0.0.0/0", "::/0"]))

    def test_a_peer_that_a_proxy_does_not_name_has_none(self) -> None:
        self.assertPassed(self.verdict("proxy:192.0.2.25", networks=["192.0.2.0/24"]))

    def test_a_hello_name_is_listed_with_all_names_below_it(self) -> None:
        for hello in ("spam.example", "SPAM.Example.", "a.b.spam.example"):
            self.assertRefused(self.verdict(hello=hello, hello_names=["Spam.Example"]), "calls itself")
        for hello in ("notspam.example", "example", "", "[192.0.2.1]"):
            self.assertPassed(self.verdict(hello=hello, hello_names=["spam.example"]))

    def test_an_address_literal_can_be_listed_as_a_name(self) -> None:
        self.assertRefused(self.verdict(hello="[127.0.0.1]", hello_names=["[127.0.0.1]"]))

    def test_defer_puts_off(self) -> None:
        self.assertDeferred(self.verdict(networks=["192.0.2.25"], verdict="defer"))


class Senders(FilterCase):
    def verdict(self, sender: str | None, **options: object) -> Verdict:
        denylist = self.build(factory, **options)
        return self.judge(denylist.judge_sender(self.envelope(sender)))

    def test_an_address_is_listed_in_any_case(self) -> None:
        self.assertRefused(self.verdict("Bad@EXAMPLE.net", senders=["bAD@example.NET"]), "is listed")
        self.assertPassed(self.verdict("good@example.net", senders=["bad@example.net"]))
        self.assertPassed(self.verdict("bad@sub.example.net", senders=["bad@example.net"]))

    def test_an_international_address_is_listed_in_all_its_forms(self) -> None:
        self.assertRefused(self.verdict("Ju\u0308rgen@bücher.example", senders=["jürgen@xn--bcher-kva.example"]), "is listed")

    def test_a_domain_is_listed_with_all_names_below_it(self) -> None:
        self.assertRefused(self.verdict("x@spam.example", sender_domains=["spam.example"]))
        self.assertRefused(self.verdict("x@deep.spam.example", sender_domains=["spam.example"]))
        self.assertPassed(self.verdict("x@notspam.example", sender_domains=["spam.example"]))

    def test_an_international_domain_is_the_same_in_both_its_forms(self) -> None:
        self.assertRefused(self.verdict("x@BÜCHER.example", sender_domains=["xn--bcher-kva.example"]))
        self.assertRefused(self.verdict("x@xn--bcher-kva.example", sender_domains=["bücher.example"]))

    def test_the_null_sender_passes_whatever_is_listed(self) -> None:
        self.assertPassed(self.verdict(None, sender_domains=["example"], senders=["a@b.example"]))


class Options(FilterCase):
    def test_the_factory_is_one(self) -> None:
        verifyObject(IComponentFactory, factory)

    def test_each_option_is_checked(self) -> None:
        wrong = {
            "networks": ["192.0.2.1/24"],
            "hello_names": ["not a name"],
            "senders": ["nobody"],
            "sender_domains": [".."],
            "verdict": "drop",
            "network": [],
        }
        for key, value in wrong.items():
            with self.assertRaises(ConfigurationError) as caught:
                self.build(factory, **{key: value})
            self.assertEqual([fault.key.partition("[")[0] for fault in caught.exception.faults], [key])
