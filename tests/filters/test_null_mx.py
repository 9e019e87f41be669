"""Senders of domains that take no mail."""

from __future__ import annotations

from mailserver.filters.null_mx import factory
from mailserver.mail.answers import Refuse, Verdict
from mailserver.testing import FakeResolver, FilterCase


class NullMXSenders(FilterCase):
    def verdict(self, sender: str | None) -> Verdict:
        zones = {"null.example": {"MX": ["0 ."]}, "mail.example": {"MX": ["10 mx.mail.example."]}, "bare.example": {}}
        self.resolver = FakeResolver(zones)
        return self.judge(self.build(factory).judge_sender(self.envelope(sender=sender)))

    def test_a_domain_with_a_null_mx_is_refused_with_its_own_code(self) -> None:
        verdict = self.verdict("news@null.example")
        self.assertRefused(verdict, "null MX")
        assert isinstance(verdict, Refuse)
        self.assertEqual(verdict.enhanced, "5.7.27")

    def test_other_domains_pass_with_and_without_exchangers(self) -> None:
        self.assertPassed(self.verdict("carol@mail.example"))
        self.assertPassed(self.verdict("carol@bare.example"))

    def test_bounces_and_literals_pass_without_a_question(self) -> None:
        self.assertPassed(self.verdict(None))
        self.assertPassed(self.verdict("carol@[192.0.2.1]"))
