"""For whom mail is taken over encrypted connections alone."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mailserver.mail.address import Address
from mailserver.receive.tls_rules import TLSRules

RULES = ["Alice@Example.org", "bank.example", "*.secure.example", "bücher.example"]


class Rules(SynchronousTestCase):
    def test_addresses_domains_and_everything_below_a_domain_are_meant(self) -> None:
        rules = TLSRules(required_from=RULES, required_for=RULES)
        meant = ["alice@example.org", "ALICE@EXAMPLE.ORG", "x@bank.example", "x@a.secure.example", "x@a.b.secure.example",
                 "x@BÜCHER.example", "x@xn--bcher-kva.example"]  # fmt: skip
        free = ["bob@example.org", "x@mail.bank.example", "x@secure.example", "x@notsecure.example", "x@[192.0.2.1]"]
        for text in meant + free:
            address = Address.parse(text, utf8=True)
            self.assertEqual(rules.requires_tls_from(address), text in meant, text)
            self.assertEqual(rules.requires_tls_for(address), text in meant, text)

    def test_senders_and_recipients_have_rules_of_their_own(self) -> None:
        rules = TLSRules(required_from=["a.example"], required_for=["b.example"])
        a, b = Address("x", "a.example"), Address("x", "b.example")
        self.assertEqual((rules.requires_tls_from(a), rules.requires_tls_for(a)), (True, False))
        self.assertEqual((rules.requires_tls_from(b), rules.requires_tls_for(b)), (False, True))

    def test_the_null_sender_and_impossible_domains_are_free(self) -> None:
        rules = TLSRules(required_from=RULES, required_for=RULES)
        self.assertFalse(rules.requires_tls_from(None))
        self.assertFalse(rules.requires_tls_for(Address("x", "\ufffd")))
        self.assertFalse(rules.requires_tls_for(Address("postmaster", "")))
