"""Which policy a session is counted under in TLS reports, and which are left out (RFC 8460)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailserver.mail.dns_records import TLSA
from mailserver.relay.conclusions import HandshakeFacts, TLSSession
from mailserver.relay.hosts import Host, Hosts
from mailserver.relay.security import (
    Barred,
    Demand,
    DemandedBy,
    OverrideKind,
    TLSMode,
    TLSOutcome,
    TLSOverride,
    demanded,
)
from mailserver.relay.tls_results import barred_result, result_of
from mailserver.trust.dane import TLSAAnswer, TLSAState
from mailserver.trust.mta_sts import FETCH_ERROR, STSAnswer, parse_policy
from mailserver.trust.tls_result import TLSPolicyFound

POLICY = parse_policy(b"version: STSv1\nmode: enforce\nmx: *.example.net\nmax_age: 86400\n", id="a")
RECORDS = TLSAAnswer(TLSAState.USABLE, (TLSA(3, 1, 1, b"\x0f" * 32),), "mx1.example.net", ("mx1.example.net",))
HOST = Host("mx1.example.net", ("192.0.2.7",))


def session(outcome: TLSOutcome = TLSOutcome.SUCCESS, host: Host = HOST, **wishes: Any) -> TLSSession:
    demand = demanded(tls=TLSMode.OPPORTUNISTIC, domain="example.net", host=host, **wishes)
    assert isinstance(demand, Demand), demand
    return TLSSession("example.net", demand, host.name, "192.0.2.7", "192.0.2.1", outcome, "words", HandshakeFacts(), 1.0)


class Results(SynchronousTestCase):
    def test_the_policy_in_force_is_that_of_dane_else_of_mta_sts_else_none(self) -> None:
        for wishes, policy in (
            ({}, TLSPolicyFound("no-policy-found", "example.net")),
            ({"sts": STSAnswer(POLICY)}, TLSPolicyFound("sts", "example.net", POLICY.lines, ("*.example.net",))),
            ({"sts": STSAnswer(POLICY), "host": Host("mx1.example.net", ("192.0.2.7",), tlsa=RECORDS)},
             TLSPolicyFound("tlsa", "mx1.example.net", ("3 1 1 " + "0f" * 32,))),
        ):  # fmt: skip
            found = result_of(session(**wishes))
            assert found is not None
            self.assertEqual((found.policy, found.failure, found.information), (policy, "", ""))

    def test_each_failure_has_its_word_and_what_is_known(self) -> None:
        for outcome in TLSOutcome:
            found = result_of(session(outcome, sts=STSAnswer(POLICY)))
            assert found is not None
            self.assertEqual(found.failure, outcome.failure_type)
            if found.failure:
                self.assertEqual((found.host, found.address, found.own_address, found.information),
                                 ("mx1.example.net", "192.0.2.7", "192.0.2.1", "words"))  # fmt: skip

    def test_a_policy_that_cannot_be_had_is_a_failure_of_that_kind_of_policy(self) -> None:
        found = result_of(session(TLSOutcome.STS_FETCH_ERROR, sts=STSAnswer(None, FETCH_ERROR, "404")))
        self.assertEqual(found and (found.policy, found.failure), (TLSPolicyFound("sts", "example.net"), FETCH_ERROR))

    def test_a_host_that_the_policy_does_not_let_in_is_a_failure_of_it(self) -> None:
        other = Host("mx.elsewhere.example", ("192.0.2.9",))
        hosts = Hosts(((other,),), domain="example.net", sts=STSAnswer(POLICY))
        barred = demanded(tls=TLSMode.OPPORTUNISTIC, domain="example.net", host=other, sts=hosts.sts)
        assert isinstance(barred, Barred)
        found = barred_result(hosts, other, barred)
        assert found is not None
        self.assertEqual((found.policy.kind, found.failure, found.host, found.address), ("sts", barred.outcome.failure_type, other.name, ""))
        self.assertIn("no host of the MTA-STS policy", found.information)

    def test_a_host_whose_tlsa_records_cannot_be_had_is_a_failure_of_dane(self) -> None:
        broken = Host("mx1.example.net", ("192.0.2.7",), tlsa=TLSAAnswer(TLSAState.FAILED, base_name="mx1.example.net", why="bogus"))
        barred = demanded(tls=TLSMode.OPPORTUNISTIC, domain="example.net", host=broken)
        assert isinstance(barred, Barred)
        found = barred_result(Hosts(((broken,),), domain="example.net"), broken, barred)
        self.assertEqual(found and (found.policy, found.failure), (TLSPolicyFound("tlsa", "mx1.example.net"), "dnssec-invalid"))
        self.assertIsNone(barred_result(Hosts(((broken,),), domain="[192.0.2.7]"), broken, barred))

    def test_numeric_hosts_have_no_domain(self) -> None:
        for domain in ("", "[192.0.2.1]", "192.0.2.1", "::1", "[ipv6:2001:db8::1]"):
            self.assertIsNone(result_of(replace(session(), domain=domain)), domain)

    def test_sessions_of_reports_and_of_overrides_are_left_out(self) -> None:
        self.assertIsNone(result_of(session(tls_not_required=True)))
        self.assertIsNone(result_of(session(override=TLSOverride(OverrideKind.ALLOW, 1e12))))
        self.assertEqual(DemandedBy.OVERRIDE, session(override=TLSOverride(OverrideKind.ALLOW, 1e12)).demand.source)
