"""What the beginning of TLS came to: the facts of one connection, held against what was demanded of it.  Pure."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from mailserver.mail.reply import Reply
from mailserver.relay.security import Demand, DemandedBy, TLSMode, TLSOutcome
from mailserver.trust.mta_sts import FETCH_ERROR, POLICY_INVALID, WEBPKI_INVALID, STSMode

__all__ = ["Conclusion", "HandshakeFacts", "TLSFault", "TLSRefusal", "TLSSession", "concluded"]


class TLSFault(enum.Enum):
    """What went wrong before a connection was encrypted, or with the certificate that was shown."""

    NONE = ""
    NOT_OFFERED = "STARTTLS is not offered"
    REFUSED = "STARTTLS is refused"
    HANDSHAKE = "the handshake fails"
    EXPIRED = "the certificate has expired"
    OTHER_NAME = "the certificate has another name"
    UNTRUSTED = "no authority vouches for the certificate"
    NO_TLSA_MATCH = "no TLSA record matches the certificate"


@dataclass(frozen=True, slots=True)
class HandshakeFacts:
    """What was seen of a host's TLS.

    `version`, `cipher` and `group` are OpenSSL's words, "" where there was no TLS.  `chain` are the host's certificates as DER,
    its own first.  `match` says what vouches for the host ("DANE 3 1 1", "WebPKI"), "" where nothing does or nobody asked.
    `detail` are words for `fault`, `shown` are some for the host's own certificate.
    """

    version: str = ""
    cipher: str = ""
    group: str = ""
    chain: tuple[bytes, ...] = ()
    match: str = ""
    fault: TLSFault = TLSFault.NONE
    detail: str = ""
    shown: str = ""

    def __str__(self) -> str:
        """In one line: ``TLSv1.3 TLS_AES_256_GCM_SHA384 X25519, DANE 3 1 1``."""
        if not self.version:
            return "in the clear"
        words = " ".join(filter(None, (self.version, self.cipher, self.group)))
        return f"{words}, {self.match}" if self.match else words


class TLSRefusal(Reply):
    """Why a host gets no mail, in our own words: its TLS is not what is demanded, and for now that is certain."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Conclusion:
    """The outcome, why, and the peer's or the library's own words.  `may_go_on`: mail may go over this connection.

    `may_retry`: what has failed could work with a smaller hello, since nothing was said of the certificate.  `demanded` says why
    anything was demanded, where it is not the configuration that did.
    """

    outcome: TLSOutcome
    why: str
    detail: str = ""
    may_go_on: bool = True
    may_retry: bool = False
    demanded: str = ""

    @property
    def refusal(self) -> Reply:
        """The reply for those who wait for the host, where mail may not go on: deferred, and why."""
        demanded = f"TLS is demanded ({self.demanded})" if self.demanded else "TLS is demanded"
        lines = (f"{demanded}: {self.why}" + (f": {self.detail}" if self.detail else ""),)
        if self.outcome in (TLSOutcome.NOT_OFFERED, TLSOutcome.REFUSED):
            return TLSRefusal.heard(451, "4.7.4", lines)
        if self.outcome is TLSOutcome.HANDSHAKE_FAILED:
            return Reply.heard(451, "4.7.5", (f"TLS could not be established: {self.detail}",))
        return TLSRefusal.heard(451, "4.7.5", lines)


@dataclass(frozen=True, slots=True)
class TLSSession:
    """The end of the beginning of one connection, for those who count and those who explain.  `time` is Unix time."""

    domain: str
    demand: Demand
    host: str
    address: str
    own_address: str
    outcome: TLSOutcome
    detail: str
    facts: HandshakeFacts
    time: float


OUTCOMES = {
    TLSFault.NOT_OFFERED: TLSOutcome.NOT_OFFERED,
    TLSFault.REFUSED: TLSOutcome.REFUSED,
    TLSFault.HANDSHAKE: TLSOutcome.HANDSHAKE_FAILED,
    TLSFault.EXPIRED: TLSOutcome.EXPIRED,
    TLSFault.OTHER_NAME: TLSOutcome.NAME_MISMATCH,
    TLSFault.UNTRUSTED: TLSOutcome.UNTRUSTED,
    TLSFault.NO_TLSA_MATCH: TLSOutcome.TLSA_INVALID,
}
OF_CERTIFICATE = frozenset({TLSFault.EXPIRED, TLSFault.OTHER_NAME, TLSFault.UNTRUSTED, TLSFault.NO_TLSA_MATCH})
STS_OUTCOMES = {
    FETCH_ERROR: TLSOutcome.STS_FETCH_ERROR,
    POLICY_INVALID: TLSOutcome.STS_POLICY_INVALID,
    WEBPKI_INVALID: TLSOutcome.STS_WEBPKI_INVALID,
}


def concluded(demand: Demand, facts: HandshakeFacts) -> Conclusion:
    """What came of the demand.

    The certificate is one of the facts only where the demand has it looked at.  A demand that allows mail in the clear lets it go
    on whatever has failed, except over the broken connection itself.
    """
    fault = facts.fault
    if fault is TLSFault.NONE:
        return _of_policy(demand)
    outcome = OUTCOMES[fault]
    broken = fault is TLSFault.HANDSHAKE
    is_looked_at = demand.mode in (TLSMode.VERIFIED, TLSMode.DANE)
    is_only_told = not is_looked_at if fault in OF_CERTIFICATE else demand.allows_clear and not broken
    return Conclusion(outcome, fault.value, facts.detail, may_go_on=is_only_told, may_retry=broken, demanded=demand.why)


def _of_policy(demand: Demand) -> Conclusion:
    """The connection has what was demanded.  What is wrong with the domain's policy is told all the same."""
    sts = demand.sts
    if sts is None or demand.source is DemandedBy.DANE:
        return SUCCESS
    policy = sts.policy
    if policy is None:
        outcome = STS_OUTCOMES.get(sts.why)
        return SUCCESS if outcome is None else Conclusion(outcome, "the MTA-STS policy cannot be had", sts.detail)
    if policy.mode is STSMode.TESTING and not policy.matches(demand.name):
        return Conclusion(TLSOutcome.NAME_MISMATCH, "the host is not in the MTA-STS policy, which is tested", demand.name)
    return SUCCESS


SUCCESS = Conclusion(TLSOutcome.SUCCESS, "")
