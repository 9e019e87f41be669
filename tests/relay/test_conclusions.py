"""What the beginning of TLS came to: every fault under every demand."""

import itertools

from twisted.trial.unittest import SynchronousTestCase

from mailserver.relay.conclusions import HandshakeFacts, TLSFault, concluded
from mailserver.relay.security import Demand, DemandedBy, TLSMode, TLSOutcome
from mailserver.trust.dane import TLSAAnswer, TLSAState
from mailserver.trust.mta_sts import FETCH_ERROR, POLICY_INVALID, WEBPKI_INVALID, STSAnswer, STSMode, STSPolicy

NAME = "mx.example.org"
USABLE = TLSAAnswer(TLSAState.USABLE)
DEMANDS = {
    "none": Demand(TLSMode.NONE),
    "opportunistic": Demand(TLSMode.OPPORTUNISTIC, NAME),
    "opportunistic, tested": Demand(TLSMode.OPPORTUNISTIC, NAME, is_tested=True),
    "required": Demand(TLSMode.REQUIRED, NAME),
    "required, tested": Demand(TLSMode.REQUIRED, NAME, is_tested=True),
    "verified": Demand(TLSMode.VERIFIED, NAME),
    "dane": Demand(TLSMode.DANE, NAME, USABLE),
    "verified and dane": Demand(TLSMode.VERIFIED, NAME, USABLE),
}
IN_THE_CLEAR = {"none", "opportunistic", "opportunistic, tested"}
LOOKS = {"verified", "dane", "verified and dane"}
# What each fault comes to, and the demands under which mail goes on all the same.
FAULTS = {
    TLSFault.NONE: (TLSOutcome.SUCCESS, set(DEMANDS)),
    TLSFault.NOT_OFFERED: (TLSOutcome.NOT_OFFERED, IN_THE_CLEAR),
    TLSFault.REFUSED: (TLSOutcome.REFUSED, IN_THE_CLEAR),
    TLSFault.HANDSHAKE: (TLSOutcome.HANDSHAKE_FAILED, set()),  # over this connection: the next one may be smaller, or in the clear
    TLSFault.EXPIRED: (TLSOutcome.EXPIRED, set(DEMANDS) - LOOKS),
    TLSFault.OTHER_NAME: (TLSOutcome.NAME_MISMATCH, set(DEMANDS) - LOOKS),
    TLSFault.UNTRUSTED: (TLSOutcome.UNTRUSTED, set(DEMANDS) - LOOKS),
    TLSFault.NO_TLSA_MATCH: (TLSOutcome.TLSA_INVALID, set(DEMANDS) - LOOKS),
}


class TheTable(SynchronousTestCase):
    def test_every_fault_under_every_demand(self):
        self.assertEqual(set(FAULTS), set(TLSFault))
        for (name, demand), (fault, (outcome, goes_on)) in itertools.product(DEMANDS.items(), FAULTS.items()):
            found = concluded(demand, HandshakeFacts(fault=fault, detail="their words"))
            self.assertEqual(found.outcome, outcome, (name, fault))
            self.assertEqual(found.may_go_on, name in goes_on, (name, fault))
            self.assertEqual(found.may_retry, fault is TLSFault.HANDSHAKE, (name, fault))
            self.assertEqual(found.detail, "" if fault is TLSFault.NONE else "their words")

    def test_what_is_wrong_with_a_policy_is_told_and_stops_nothing(self):
        for why, outcome in (
            (FETCH_ERROR, TLSOutcome.STS_FETCH_ERROR), (POLICY_INVALID, TLSOutcome.STS_POLICY_INVALID),
            (WEBPKI_INVALID, TLSOutcome.STS_WEBPKI_INVALID), ("", TLSOutcome.SUCCESS),
        ):  # fmt: skip
            demand = Demand(TLSMode.OPPORTUNISTIC, NAME, sts=STSAnswer(None, why, "a time-out"))
            found = concluded(demand, HandshakeFacts("TLSv1.3"))
            self.assertEqual((found.outcome, found.may_go_on), (outcome, True), why)

    def test_a_host_outside_a_policy_that_is_tested_is_told_and_stops_nothing(self):
        for mx, outcome in ((NAME, TLSOutcome.SUCCESS), ("other.example.org", TLSOutcome.NAME_MISMATCH)):
            sts = STSAnswer(STSPolicy("1", STSMode.TESTING, (mx,), 86400))
            found = concluded(Demand(TLSMode.OPPORTUNISTIC, NAME, sts=sts, is_tested=True), HandshakeFacts("TLSv1.3"))
            self.assertEqual((found.outcome, found.may_go_on), (outcome, True), mx)

    def test_under_dane_a_policy_is_nothing_to_tell_of(self):
        demand = Demand(TLSMode.DANE, NAME, USABLE, STSAnswer(None, FETCH_ERROR), DemandedBy.DANE)
        self.assertEqual(concluded(demand, HandshakeFacts("TLSv1.3")).outcome, TLSOutcome.SUCCESS)


class Words(SynchronousTestCase):
    def test_the_facts_are_one_line(self):
        self.assertEqual(str(HandshakeFacts()), "in the clear")
        facts = HandshakeFacts("TLSv1.3", "TLS_AES_256_GCM_SHA384", "X25519MLKEM768", match="DANE 3 1 1")
        self.assertEqual(str(facts), "TLSv1.3 TLS_AES_256_GCM_SHA384 X25519MLKEM768, DANE 3 1 1")
        self.assertEqual(str(HandshakeFacts("TLSv1.2", "ECDHE-RSA-AES256-GCM-SHA384")), "TLSv1.2 ECDHE-RSA-AES256-GCM-SHA384")
