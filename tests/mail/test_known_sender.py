"""Who is told of a refusal after a 250: never somebody who may have sent nothing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.mail.address import Address
from mailserver.mail.answers import Finding
from mailserver.mail.known_sender import ToldSenders, is_proven, is_told

EVE = Address("eve", "far.example")
DMARC = Finding("dmarc", properties={"result": "pass", "domain": "far.example", "aligned": "dkim"})
SPF = Finding("spf", properties={"result": "pass", "domain": "far.example", "scope": "mfrom"})


def spf(**properties: str) -> Finding:
    return Finding("spf", properties={**SPF.properties, **properties})


class WhoIsTold(SynchronousTestCase):
    def told(self, told: ToldSenders, *findings: Finding, login: str = "", sender: Address | None = EVE) -> bool:
        return is_told(told, sender=sender, login=login, findings=findings)

    def test_users_are_unless_nobody_is(self) -> None:
        self.assertEqual([self.told(told, login="alice") for told in ToldSenders], [False, True, True])

    def test_strangers_are_only_where_that_was_said_and_their_domain_answers_for_the_message(self) -> None:
        self.assertEqual([self.told(told, DMARC, SPF) for told in ToldSenders], [False, False, True])
        self.assertEqual([self.told(told) for told in ToldSenders], [False, False, False])

    def test_a_signature_alone_makes_nobody_known_since_its_maker_may_write_any_reverse_path(self) -> None:
        self.assertFalse(self.told(ToldSenders.KNOWN, DMARC))
        self.assertFalse(self.told(ToldSenders.KNOWN, DMARC, spf(domain="evil.example")))
        self.assertFalse(self.told(ToldSenders.KNOWN, DMARC, spf(scope="helo")))
        self.assertFalse(self.told(ToldSenders.KNOWN, DMARC, spf(result="softfail")))

    def test_nor_does_spf_alone(self) -> None:
        self.assertFalse(self.told(ToldSenders.KNOWN, SPF))
        self.assertFalse(self.told(ToldSenders.KNOWN, SPF, Finding("dmarc", properties={"result": "fail"})))

    @given(st.sampled_from(ToldSenders), st.sampled_from(["", "alice"]))
    def test_the_null_sender_never_is(self, told: ToldSenders, login: str) -> None:
        self.assertFalse(self.told(told, DMARC, SPF, login=login, sender=None))

    def test_a_domain_counts_however_it_is_written(self) -> None:
        self.assertTrue(self.told(ToldSenders.KNOWN, DMARC, SPF, sender=Address("eve", "FAR.example")))
        self.assertFalse(self.told(ToldSenders.KNOWN, DMARC, SPF, sender=Address("eve", "sub.far.example")))


class WhatIsSentOn(SynchronousTestCase):
    """Whose mail is told of that another host refuses behind an alias."""

    def proven(self, *findings: Finding, sender: Address | None = EVE, trusted: bool = False) -> bool:
        return is_proven(sender, trusted=trusted, findings=findings)

    def test_spf_of_the_reverse_path_is_enough_and_dmarc_of_its_domain(self) -> None:
        self.assertEqual([self.proven(SPF), self.proven(DMARC), self.proven(trusted=True)], [True] * 3)
        self.assertTrue(self.proven(DMARC, sender=Address("eve", "Bounces.FAR.example")))
        self.assertTrue(self.proven(sender=None))

    def test_nothing_else_is(self) -> None:
        for findings in ((), (spf(result="fail"),), (spf(scope="helo"),), (spf(domain="evil.example"),)):
            self.assertFalse(self.proven(*findings), findings)
        for domain in ("innocent.example", "notfar.example", "example"):
            self.assertFalse(self.proven(DMARC, sender=Address("eve", domain)), domain)
        self.assertFalse(self.proven(Finding("dmarc", properties={"result": "pass", "domain": ""})))
