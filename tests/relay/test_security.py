"""What a connection must have, in tables: each row is one set of facts and what follows from it."""

import itertools

from twisted.trial.unittest import SynchronousTestCase

from mailserver.mail.dns_records import TLSA
from mailserver.relay.hosts import Host
from mailserver.relay.security import (
    FAILURE_TYPES,
    Barred,
    Demand,
    DemandedBy,
    OverrideKind,
    TLSMode,
    TLSOutcome,
    TLSOverride,
    demanded,
)
from mailserver.trust.dane import NO_TLSA, TLSAAnswer, TLSAState
from mailserver.trust.mta_sts import FETCH_ERROR, STSAnswer, STSMode, STSPolicy

NONE, OPPORTUNISTIC, REQUIRED, VERIFIED, DANE = TLSMode
NAME = "mx.example.org"
RECORD = TLSA(3, 1, 1, b"\1" * 32)
USABLE = TLSAAnswer(TLSAState.USABLE, (RECORD,), "base.example.org", ("base.example.org", "example.org"))
UNUSABLE = TLSAAnswer(TLSAState.UNUSABLE, why="usage 0")
FAILED = TLSAAnswer(TLSAState.FAILED, why="SERVFAIL")
TLSAS = {"no TLSA": NO_TLSA, "usable": USABLE, "unusable": UNUSABLE, "failed": FAILED}
STS = {
    "no policy": None,
    "enforce": STSAnswer(STSPolicy("1", STSMode.ENFORCE, (NAME,), 86400)),
    "enforce, other": STSAnswer(STSPolicy("1", STSMode.ENFORCE, ("other.example.org",), 86400)),
    "testing": STSAnswer(STSPolicy("1", STSMode.TESTING, (NAME,), 86400)),
    "testing, other": STSAnswer(STSPolicy("1", STSMode.TESTING, ("other.example.org",), 86400)),
    "no fetch": STSAnswer(None, FETCH_ERROR, "a time-out"),
}
LATER, BACK = "not now", "not at all"


def decided(tls, tlsa="no TLSA", sts="no policy", **more):
    """The mode and who demands it; or that the host is barred, and the outcome."""
    found = demanded(tls=tls, domain="example.org", host=Host(NAME, ("192.0.2.1",), 0, TLSAS[tlsa]), sts=STS[sts], **more)
    if isinstance(found, Barred):
        return (BACK if found.is_final else LATER), found.outcome
    return found.mode.value + (", tested" if found.is_tested else ""), found.source.value


class TheTable(SynchronousTestCase):
    maxDiff = None

    def test_who_allows_mail_in_the_clear_gives_a_password_to_nobody_else(self):
        allow = TLSOverride(OverrideKind.ALLOW, 0.0)
        for tls in (TLSMode.VERIFIED, TLSMode.REQUIRED):
            for tlsa in ("no TLSA", "usable", "failed"):
                without = decided(tls, tlsa, logs_in=True)
                self.assertEqual(decided(tls, tlsa, override=allow, logs_in=True), without, (tls, tlsa))
            self.assertEqual(decided(tls, override=allow)[0], "opportunistic")

    def test_what_dane_and_mta_sts_make_of_a_connection(self):
        table = {
            # TLSA, MTA-STS: opportunistic, required, verified
            ("no TLSA", "no policy"): ("opportunistic/opportunistic", "required/route", "verified/route"),
            ("no TLSA", "enforce"): ("verified/mta-sts", "verified/mta-sts", "verified/mta-sts"),
            ("no TLSA", "enforce, other"): (LATER,) * 3,
            ("no TLSA", "testing"): ("opportunistic, tested/mta-sts", "required, tested/mta-sts", "verified/route"),
            ("no TLSA", "testing, other"): ("opportunistic, tested/mta-sts", "required, tested/mta-sts", "verified/route"),
            ("no TLSA", "no fetch"): ("opportunistic/opportunistic", "required/route", "verified/route"),
            ("usable", "no policy"): ("dane/dane", "dane/dane", "verified/dane"),
            ("usable", "enforce"): ("dane/dane", "dane/dane", "verified/dane"),
            ("usable", "enforce, other"): ("dane/dane", "dane/dane", "verified/dane"),  # DANE first
            ("usable", "testing"): ("dane/dane", "dane/dane", "verified/dane"),
            ("usable", "testing, other"): ("dane/dane", "dane/dane", "verified/dane"),
            ("usable", "no fetch"): ("dane/dane", "dane/dane", "verified/dane"),
            ("unusable", "no policy"): ("required/dane", "required/dane", "verified/route"),
            ("unusable", "enforce"): ("verified/mta-sts", "verified/mta-sts", "verified/mta-sts"),
            ("unusable", "enforce, other"): (LATER,) * 3,
            ("unusable", "testing"): ("required, tested/dane", "required, tested/dane", "verified/route"),
            ("unusable", "testing, other"): ("required, tested/dane", "required, tested/dane", "verified/route"),
            ("unusable", "no fetch"): ("required/dane", "required/dane", "verified/route"),
        }
        for sts in STS:
            table["failed", sts] = (LATER,) * 3
        self.assertEqual(set(table), set(itertools.product(TLSAS, STS)), "each pair stands in the table")
        for (tlsa, sts), expected in table.items():
            for tls, wanted in zip((OPPORTUNISTIC, REQUIRED, VERIFIED), expected, strict=True):
                mode, by = decided(tls, tlsa, sts)
                self.assertEqual(mode if mode == LATER else f"{mode}/{by}", wanted, (tls, tlsa, sts))

    def test_a_host_is_barred_with_the_outcome_that_a_report_names(self):
        self.assertEqual(decided(OPPORTUNISTIC, "failed"), (LATER, TLSOutcome.DNSSEC_INVALID))
        self.assertEqual(decided(OPPORTUNISTIC, sts="enforce, other"), (LATER, TLSOutcome.NAME_MISMATCH))

    def test_tls_none_asks_nobody_but_for_requiretls(self):
        for tlsa, sts in itertools.product(TLSAS, STS):
            self.assertEqual(decided(NONE, tlsa, sts), ("none", "route"), (tlsa, sts))
        self.assertEqual(decided(NONE, "usable", requires_tls=True), ("dane", "requiretls"))

    def test_tls_required_no_leaves_out_what_the_domain_wants_and_nothing_else(self):
        for tlsa, sts in itertools.product(TLSAS, STS):
            for tls, wanted in ((NONE, "none"), (OPPORTUNISTIC, "opportunistic"), (REQUIRED, "required"), (VERIFIED, "verified")):
                self.assertEqual(decided(tls, tlsa, sts, tls_not_required=True)[0], wanted, (tls, tlsa, sts))

    def test_requiretls_wants_a_name_that_is_sure_and_a_certificate_that_has_it(self):
        # RFC 8689 section 4.2.1.
        table = {
            # TLSA, MTA-STS, is the name sure?
            ("no TLSA", "no policy", False): (BACK, TLSOutcome.DANE_REQUIRED),
            ("no TLSA", "no policy", True): ("verified", "requiretls"),
            ("no TLSA", "no fetch", False): (BACK, TLSOutcome.DANE_REQUIRED),
            ("no TLSA", "enforce", False): ("verified", "requiretls"),
            ("no TLSA", "testing", False): ("verified", "requiretls"),
            ("no TLSA", "testing, other", False): (BACK, TLSOutcome.DANE_REQUIRED),
            ("no TLSA", "testing, other", True): ("verified", "requiretls"),
            ("no TLSA", "enforce, other", True): (BACK, TLSOutcome.NAME_MISMATCH),
            ("usable", "no policy", True): ("dane", "requiretls"),
            ("usable", "enforce, other", True): ("dane", "requiretls"),
            ("unusable", "no policy", True): ("verified", "requiretls"),
            ("failed", "enforce", True): (LATER, TLSOutcome.DNSSEC_INVALID),
        }
        for (tlsa, sts, is_sure), wanted in table.items():
            for tls in (NONE, OPPORTUNISTIC, REQUIRED):
                found = decided(tls, tlsa, sts, name_is_sure=is_sure, requires_tls=True)
                self.assertEqual(found, wanted, (tls, tlsa, sts, is_sure))

    def test_requiretls_is_past_every_override_and_tls_required_no(self):
        for kind in OverrideKind:
            override = TLSOverride(kind, 0.0, "ab" * 32)
            for tlsa, sts in itertools.product(TLSAS, STS):
                plain = decided(OPPORTUNISTIC, tlsa, sts, requires_tls=True)
                more = decided(OPPORTUNISTIC, tlsa, sts, requires_tls=True, tls_not_required=True, override=override)
                self.assertEqual(plain, more, (kind, tlsa, sts))

    def test_an_override_trusts_one_certificate_or_requires_tls_or_allows_mail_without(self):
        trust, require, allow = [TLSOverride(kind, 0.0, "ab" * 32) for kind in OverrideKind]
        for tlsa, sts in itertools.product(TLSAS, STS):
            for tls in (OPPORTUNISTIC, REQUIRED, VERIFIED):
                self.assertEqual(decided(tls, tlsa, sts, override=trust), ("dane", "override"), (tls, tlsa, sts))
                self.assertEqual(decided(tls, tlsa, sts, override=allow), ("opportunistic", "override"), (tls, tlsa, sts))
                mode, _ = plain = decided(tls, tlsa, sts)
                wanted = (mode.replace("opportunistic", "required"), "override") if mode.startswith("opportunistic") else plain
                self.assertEqual(decided(tls, tlsa, sts, override=require), wanted, (tls, tlsa, sts))
        demand = demanded(tls=OPPORTUNISTIC, domain="example.org", host=Host(NAME, ()), override=trust)
        self.assertEqual((demand.tlsa.records, demand.name), ((TLSA(3, 0, 1, b"\xab" * 32),), NAME))


class Demands(SynchronousTestCase):
    def test_connections_with_different_demands_have_different_keys_and_others_share_them(self):
        other = TLSAAnswer(TLSAState.USABLE, (TLSA(3, 1, 1, b"\2" * 32),), USABLE.base_name, USABLE.names)
        different = [
            Demand(NONE), Demand(OPPORTUNISTIC), Demand(REQUIRED), Demand(VERIFIED, "a"), Demand(VERIFIED, "b"),
            Demand(OPPORTUNISTIC, "a", is_tested=True), Demand(DANE, "a", USABLE), Demand(DANE, "a", other),
            Demand(VERIFIED, "a", USABLE),
        ]  # fmt: skip
        self.assertEqual(len({one.value for one in different}), len(different))
        same = Demand(VERIFIED, "a", sts=STS["enforce"], source=DemandedBy.MTA_STS, why="words", domain="example.net")
        self.assertEqual(same.value, Demand(VERIFIED, "a").value)
        turned = TLSAAnswer(TLSAState.USABLE, (other.records[0], RECORD), "a", ("a",))
        straight = TLSAAnswer(TLSAState.USABLE, (RECORD, other.records[0]), "a", ("a",))
        self.assertEqual(Demand(DANE, "a", turned).value, Demand(DANE, "a", straight).value)
        self.assertEqual(Demand(OPPORTUNISTIC, "a").value, Demand(OPPORTUNISTIC, "b").value)

    def test_dane_says_the_base_name_and_the_others_the_hosts(self):
        host = Host(NAME, (), 0, USABLE)
        self.assertEqual(demanded(tls=OPPORTUNISTIC, domain="", host=host).name, "base.example.org")
        self.assertEqual(demanded(tls=OPPORTUNISTIC, domain="", host=host, tls_not_required=True).name, NAME)
        for requires_tls in (False, True):
            demand = demanded(tls=VERIFIED, domain="", host=host, requires_tls=requires_tls)
            self.assertEqual((demand.mode, demand.name, demand.tlsa), (VERIFIED, NAME, USABLE), "the name that is configured")

    def test_only_none_and_opportunistic_allow_mail_in_the_clear(self):
        self.assertEqual([mode for mode in TLSMode if Demand(mode).allows_clear], [NONE, OPPORTUNISTIC])
        self.assertEqual([mode for mode in TLSMode if not Demand(mode).wants_tls], [NONE])

    def test_each_outcome_but_a_success_has_the_name_that_reports_give_it(self):
        # RFC 8460 section 4.3.
        names = {
            "starttls-not-supported", "certificate-host-mismatch", "certificate-expired", "certificate-not-trusted",
            "validation-failure", "tlsa-invalid", "dnssec-invalid", "dane-required", "sts-policy-fetch-error",
            "sts-policy-invalid", "sts-webpki-invalid",
        }  # fmt: skip
        self.assertEqual(set(FAILURE_TYPES), set(TLSOutcome))
        self.assertEqual({one.failure_type for one in TLSOutcome}, {*names, ""})
        self.assertEqual([one for one in TLSOutcome if not one.failure_type], [TLSOutcome.SUCCESS])
