"""What of a session a report to its domain counts: under which policy, and as a success or why not (RFC 8460).  Pure."""

from __future__ import annotations

import re
from collections.abc import Callable

from mailserver.relay.conclusions import TLSSession
from mailserver.relay.hosts import Host, Hosts
from mailserver.relay.security import Barred, Demand, DemandedBy, TLSMode
from mailserver.trust.dane import TLSAState
from mailserver.trust.mta_sts import FETCH_ERROR, POLICY_INVALID, WEBPKI_INVALID
from mailserver.trust.tls_result import NO_POLICY, STS_POLICY, TLSA_POLICY, TLSPolicyFound, TLSResult

__all__ = ["NOT_REQUIRED", "barred_result", "result_of", "telling", "telling_barred"]

NOT_REQUIRED = "TLS-Required: No"  # what `security` says of a demand for such a message
DOMAIN = re.compile(r"(?=.{1,253}\Z)(?:[a-z0-9_-]+\.)+[a-z][a-z0-9-]*")  # neither a literal nor a number
OF_STS = frozenset({FETCH_ERROR, POLICY_INVALID, WEBPKI_INVALID})


def telling(tell: Callable[[TLSResult], None]) -> Callable[[TLSSession], None]:
    """Takes sessions (`Connections.tls_seen`), and tells those that count."""

    def seen(session: TLSSession) -> None:
        result = result_of(session)
        if result is not None:
            tell(result)

    return seen


def telling_barred(tell: Callable[[TLSResult], None]) -> Callable[[Hosts, Host, Barred], None]:
    """The same for hosts that may not be used (`Relay.barred_seen`)."""

    def seen(hosts: Hosts, host: Host, barred: Barred) -> None:
        result = barred_result(hosts, host, barred)
        if result is not None:
            tell(result)

    return seen


def result_of(session: TLSSession) -> TLSResult | None:
    """None for a session that no report is about.

    A connection that was opened for a message with ``TLS-Required: No`` is left out: reports are such messages, and two hosts
    that report about the sessions of their reports would never end.  So is one under an override of an administrator.
    Mail that is handed to a named host counts for the domain of that name (section 1.1); a numeric one has none.
    """
    demand = session.demand
    if DOMAIN.fullmatch(session.domain) is None or demand.source is DemandedBy.OVERRIDE or demand.why == NOT_REQUIRED:
        return None
    failure = session.outcome.failure_type
    return TLSResult(
        domain=session.domain,
        policy=_policy(session.domain, demand, failure),
        failure=failure,
        host=session.host,
        address=session.address,
        own_address=session.own_address,
        information=session.detail if failure else "",
    )


def barred_result(hosts: Hosts, host: Host, barred: Barred) -> TLSResult | None:
    """For a host to which no connection is opened, since what its domain says forbids it: as a session that failed."""
    if DOMAIN.fullmatch(hosts.domain) is None:
        return None
    failure = barred.outcome.failure_type
    if host.tlsa.state is TLSAState.FAILED:
        policy = TLSPolicyFound(TLSA_POLICY, host.tlsa.base_name or host.name)
    else:
        policy = _policy(hosts.domain, Demand(TLSMode.VERIFIED, host.name, sts=hosts.sts), failure)
    return TLSResult(hosts.domain, policy, failure, host.name, information=barred.why)


def _policy(domain: str, demand: Demand, failure: str) -> TLSPolicyFound:
    """DANE's where it was in force, since it comes first (RFC 8461 section 2), then that of MTA-STS."""
    if demand.tlsa is not None:
        strings = tuple([f"{one.usage} {one.selector} {one.matching_type} {one.data.hex()}" for one in demand.tlsa.records])
        return TLSPolicyFound(TLSA_POLICY, demand.tlsa.base_name or demand.name, strings)
    policy = None if demand.sts is None else demand.sts.policy
    if policy is not None:
        return TLSPolicyFound(STS_POLICY, domain, policy.lines, policy.mx)
    return TLSPolicyFound(STS_POLICY if failure in OF_STS else NO_POLICY, domain)
