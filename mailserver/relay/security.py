"""What a connection to another host must have: the decision, without I/O.

`demanded` makes one `Demand` of all that is known before a connection is opened: the configuration, the host's TLSA records
(DANE, RFC 7672), its domain's policy (MTA-STS, RFC 8461), and what the message wants for itself (REQUIRETLS, RFC 8689).  Where a
host may not be used at all it is `Barred`.  In this order:

    tls = "none"          never encrypts, but for a message with REQUIRETLS
    REQUIRETLS            a certificate that DANE or an authority vouches for, and a host whose name is sure
    an override           what the administrator has said of the domain, until its end
    TLS-Required: No      what the domain wants is left out of account, what the configuration wants is not
    DANE                  the certificate has to match; records that are of no use still make TLS a must
    MTA-STS               the host has to be one of the policy's, its certificate an authority's with its name
    tls                   what the configuration wants: it is never weakened by anything above but an override

What was found is held against the demand by `concluded` (conclusions.py).
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from mailserver.mail.dns_records import TLSA
from mailserver.relay.hosts import Host
from mailserver.trust.dane import TLSAAnswer, TLSAState
from mailserver.trust.mta_sts import STSAnswer, STSMode

__all__ = ["Barred", "Demand", "DemandedBy", "OverrideKind", "TLSMode", "TLSOutcome", "TLSOverride", "demanded"]


class TLSMode(enum.Enum):
    """What a connection must have."""

    NONE = "none"
    OPPORTUNISTIC = "opportunistic"
    REQUIRED = "required"
    VERIFIED = "verified"
    DANE = "dane"  # never configured: the host's TLSA records decide


class DemandedBy(enum.Enum):
    """Where a demand comes from."""

    ROUTE = "route"  # the configuration
    OPPORTUNISTIC = "opportunistic"
    DANE = "dane"
    MTA_STS = "mta-sts"
    REQUIRETLS = "requiretls"
    OVERRIDE = "override"


class TLSOutcome(enum.Enum):
    """How the beginning of TLS came out.  `failure_type` is its name in RFC 8460 section 4.3, "" for a success."""

    SUCCESS = "success"
    NOT_OFFERED = "not offered"
    REFUSED = "refused"
    HANDSHAKE_FAILED = "handshake failed"
    EXPIRED = "expired"
    NAME_MISMATCH = "name mismatch"
    UNTRUSTED = "untrusted"
    DANE_REQUIRED = "dane required"
    TLSA_INVALID = "tlsa invalid"
    DNSSEC_INVALID = "dnssec invalid"
    STS_FETCH_ERROR = "sts fetch error"
    STS_POLICY_INVALID = "sts policy invalid"
    STS_WEBPKI_INVALID = "sts webpki invalid"

    @property
    def failure_type(self) -> str:
        """The result type that a TLS report has for it."""
        return FAILURE_TYPES[self]


FAILURE_TYPES = {
    TLSOutcome.SUCCESS: "",
    TLSOutcome.NOT_OFFERED: "starttls-not-supported",
    TLSOutcome.REFUSED: "starttls-not-supported",
    TLSOutcome.HANDSHAKE_FAILED: "validation-failure",
    TLSOutcome.EXPIRED: "certificate-expired",
    TLSOutcome.NAME_MISMATCH: "certificate-host-mismatch",
    TLSOutcome.UNTRUSTED: "certificate-not-trusted",
    TLSOutcome.DANE_REQUIRED: "dane-required",
    TLSOutcome.TLSA_INVALID: "tlsa-invalid",
    TLSOutcome.DNSSEC_INVALID: "dnssec-invalid",
    TLSOutcome.STS_FETCH_ERROR: "sts-policy-fetch-error",
    TLSOutcome.STS_POLICY_INVALID: "sts-policy-invalid",
    TLSOutcome.STS_WEBPKI_INVALID: "sts-webpki-invalid",
}


@dataclass(frozen=True)
class Demand:
    """What connections to one host must have, and why.

    `name` is the name that is said (SNI) and that a certificate must have where the mode is VERIFIED.  `tlsa` is there where the
    certificate has to match its records; `sts` what is known of the policy of `domain`.  With `is_tested` the certificate is
    looked at as VERIFIED does, and what is wrong with it is only told (an MTA-STS policy in the mode "testing").
    """

    mode: TLSMode
    name: str = ""
    tlsa: TLSAAnswer | None = None
    sts: STSAnswer | None = None
    source: DemandedBy = DemandedBy.ROUTE
    why: str = ""
    domain: str = ""
    is_tested: bool = False

    @cached_property
    def value(self) -> str:
        """The demand as the pool's key holds it: connections with different ones are never interchanged.

        It has the name only where the name is checked, and the TLSA records by a digest.
        """
        value = self.mode.value
        if self.mode is TLSMode.VERIFIED:
            value += f":{self.name}"
        if self.is_tested:
            value += f":tested:{self.name}"
        if self.tlsa is not None:
            value += f":{self.tlsa.base_name}:{_digest(self.tlsa.records, self.tlsa.names)}"
        return value

    @property
    def allows_clear(self) -> bool:
        """Whether mail may go unencrypted."""
        return self.mode in (TLSMode.NONE, TLSMode.OPPORTUNISTIC)

    @property
    def wants_tls(self) -> bool:
        """Whether STARTTLS is used where it is offered."""
        return self.mode is not TLSMode.NONE

    @property
    def looks_at_authorities(self) -> bool:
        """Whether it is looked at whether an authority vouches for the certificate and its name."""
        return self.mode is TLSMode.VERIFIED or self.is_tested


@dataclass(frozen=True, slots=True)
class Barred:
    """The host is not connected to in this attempt, and why.  `is_final`: it makes no sense to wait, the message goes back."""

    why: str
    outcome: TLSOutcome
    is_final: bool = False


class OverrideKind(enum.Enum):
    """What an administrator may say of a domain, for a time."""

    TRUST = "trust"  # this certificate and no other, whatever DANE and MTA-STS say
    REQUIRE = "require"  # TLS, at least
    ALLOW = "allow"  # mail may go in the clear, whatever DANE, MTA-STS and the configuration say


@dataclass(frozen=True, slots=True)
class TLSOverride:
    """An override for a domain.  `fingerprint` is the SHA-256 of the certificate (TRUST), in hex.

    It holds until `until` (Unix time): whoever hands it in leaves it out from then on.
    """

    kind: OverrideKind
    until: float
    fingerprint: str = ""


def demanded(
    *,
    tls: TLSMode,
    domain: str,
    host: Host,
    sts: STSAnswer | None = None,
    name_is_sure: bool = False,
    requires_tls: bool = False,
    tls_not_required: bool = False,
    override: TLSOverride | None = None,
    logs_in: bool = False,
) -> Demand | Barred:
    """What a connection to `host` must have for mail to `domain`.

    `tls` is the configuration's.  `name_is_sure`: DNSSEC or the configuration vouches for it that this is the domain's host.
    `requires_tls` is the message's REQUIRETLS, `tls_not_required` its header ``TLS-Required: No``.  `logs_in`: we say a password
    there, which is not the mail's matter: who allows mail in the clear does not give that to anybody.
    """
    of_route = Demand(
        tls, host.name, sts=sts, domain=domain,
        source=DemandedBy.OPPORTUNISTIC if tls is TLSMode.OPPORTUNISTIC else DemandedBy.ROUTE,
    )  # fmt: skip
    if requires_tls:
        return _of_requiretls(of_route, host, name_is_sure)
    if override is not None:
        return _of_override(of_route, override, host, sts, logs_in)
    if tls is TLSMode.NONE or tls_not_required:  # RFC 8689 section 4.2.2
        return replace(of_route, sts=None, why="TLS-Required: No" if tls_not_required else "")
    return _of_policies(of_route, host, sts)


def _of_requiretls(of_route: Demand, host: Host, name_is_sure: bool) -> Demand | Barred:
    """RFC 8689 section 4.2.1: the host's name has to be sure, and its certificate has to have it."""
    tlsa, policy = host.tlsa, None if of_route.sts is None else of_route.sts.policy
    demand = replace(of_route, source=DemandedBy.REQUIRETLS, why="the message has REQUIRETLS")
    if tlsa.state is TLSAState.FAILED:
        return _no_tlsa(host)
    if tlsa.state is TLSAState.USABLE:
        return _with_dane(demand, host)
    is_in_policy = policy is not None and policy.matches(host.name)
    if policy is not None and policy.mode is STSMode.ENFORCE and not is_in_policy:
        return replace(_not_in_policy(of_route, host), is_final=True)
    if not (name_is_sure or is_in_policy or tlsa.state is TLSAState.UNUSABLE):
        why = f"the message has REQUIRETLS, and neither DNSSEC nor MTA-STS vouches for the name {host.name}"
        return Barred(why, TLSOutcome.DANE_REQUIRED, is_final=True)
    return replace(demand, mode=TLSMode.VERIFIED)


def _of_override(
    of_route: Demand, override: TLSOverride, host: Host, sts: STSAnswer | None, logs_in: bool
) -> Demand | Barred:
    demand = replace(of_route, source=DemandedBy.OVERRIDE)
    if override.kind is OverrideKind.TRUST:
        # The certificate itself, by its digest: what DANE calls 3 0 1.
        record = TLSA(3, 0, 1, bytes.fromhex(override.fingerprint))
        pinned = TLSAAnswer(TLSAState.USABLE, (record,), host.name, (host.name,))
        return replace(demand, mode=TLSMode.DANE, tlsa=pinned, why="this certificate is trusted by an override")
    if override.kind is OverrideKind.ALLOW:
        if logs_in:
            found = _of_policies(of_route, host, sts)
            why = "an override allows mail in the clear, but no password"
            return replace(found, why=f"{found.why}; {why}" if found.why else why)
        mode = TLSMode.NONE if of_route.mode is TLSMode.NONE else TLSMode.OPPORTUNISTIC
        return replace(demand, mode=mode, why="an override allows mail in the clear")
    found = _of_policies(of_route, host, sts)
    if isinstance(found, Demand) and found.allows_clear:
        return replace(found, mode=TLSMode.REQUIRED, source=DemandedBy.OVERRIDE, why="an override requires TLS")
    return found


def _of_policies(of_route: Demand, host: Host, sts: STSAnswer | None) -> Demand | Barred:
    """What the domain wants of those who send to it.  It adds to what the configuration wants, and takes nothing from it."""
    tlsa = host.tlsa
    is_verified = of_route.mode is TLSMode.VERIFIED
    if tlsa.state is TLSAState.FAILED:
        return _no_tlsa(host)
    if tlsa.state is TLSAState.USABLE:  # RFC 8461 section 2: MTA-STS does not override what DANE has found
        return _with_dane(replace(of_route, source=DemandedBy.DANE, why="the host has TLSA records"), host)
    policy = None if sts is None else sts.policy
    if policy is not None and policy.mode is STSMode.ENFORCE:
        if not policy.matches(host.name):
            return _not_in_policy(of_route, host)
        return replace(
            of_route, mode=TLSMode.VERIFIED, source=DemandedBy.MTA_STS, why=f"the MTA-STS policy of {of_route.domain}"
        )
    demand = of_route
    if policy is not None and policy.mode is STSMode.TESTING and not is_verified:
        demand = replace(demand, is_tested=True, source=DemandedBy.MTA_STS, why="an MTA-STS policy that is tested")
    if tlsa.state is TLSAState.UNUSABLE and not is_verified:  # RFC 7672 section 2.2
        why = f"TLSA records of no use: {tlsa.why}" if tlsa.why else "TLSA records of no use"
        demand = replace(demand, mode=TLSMode.REQUIRED, source=DemandedBy.DANE, why=why)
    return demand


def _with_dane(demand: Demand, host: Host) -> Demand:
    """The certificate has to match.  Where the configuration wants one with the host's name, it has to have that, too."""
    if demand.mode is TLSMode.VERIFIED:
        return replace(demand, tlsa=host.tlsa)
    return replace(demand, mode=TLSMode.DANE, name=host.tlsa.base_name or host.name, tlsa=host.tlsa)


def _no_tlsa(host: Host) -> Barred:
    """RFC 7672 section 2.1.2: whoever suppresses the answer must not get the mail."""
    return Barred(f"{host.name}: its TLSA records cannot be had: {host.tlsa.why}", TLSOutcome.DNSSEC_INVALID)


def _not_in_policy(demand: Demand, host: Host) -> Barred:
    """RFC 8461 section 4.1; RFC 8460 section 4.3.2 counts it as a mismatch with what the policy says."""
    return Barred(f"{host.name} is no host of the MTA-STS policy of {demand.domain}", TLSOutcome.NAME_MISMATCH)


def _digest(records: Sequence[TLSA], names: Sequence[str]) -> str:
    return hashlib.sha256(repr((sorted(map(repr, records)), names)).encode()).hexdigest()[:32]
