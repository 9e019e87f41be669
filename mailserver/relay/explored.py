"""What is known of a domain's TLS, what would be demanded of each of its hosts, and what was seen: in plain values, for people.

The same decision is taken as for mail (`ConnectSettings.targets`), from the same facts.
"""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Sequence
from typing import Any

from cryptography import x509

from mailserver.mail.dns_records import TLSA
from mailserver.relay.conclusions import TLSSession
from mailserver.relay.hosts import Host, Hosts
from mailserver.relay.security import Barred, Demand, TLSOverride
from mailserver.transport.certificate_faults import UNREADABLE
from mailserver.trust.chain import key_octets, names_of
from mailserver.trust.mta_sts import STSAnswer

__all__ = ["explored_hosts", "explored_override", "explored_session", "explored_sts"]

NAMES_MOST = 20  # of a certificate
CERTIFICATES_MOST = 5  # of a host
TEXT_CHARACTERS = 500


def explored_hosts(
    hosts: Hosts, decided: Sequence[tuple[Host, Demand | Barred]], seen: Sequence[TLSSession]
) -> list[dict[str, Any]]:
    """Each host with its rank, its addresses, its TLSA records, what is demanded of it or why it is barred, and what was seen."""
    ranks = {host.name: rank for rank, group in enumerate(hosts.groups) for host in group}
    return [
        {
            "name": host.name,
            "rank": ranks[host.name],
            "addresses": list(host.addresses),
            "tlsa": _tlsa(host),
            **_decision(decision),
            "seen": [explored_session(one) for one in seen if one.host == host.name],
        }
        for host, decision in sorted(decided, key=lambda one: ranks[one[0].name])
    ]


def explored_sts(answer: STSAnswer | None, seconds_left: float | None) -> dict[str, Any] | None:
    """The domain's MTA-STS policy, or why there is none.  None where nobody was asked."""
    if answer is None:
        return None
    policy = answer.policy
    found: dict[str, Any] = {"why": answer.why, "detail": answer.detail[:TEXT_CHARACTERS], "policy": None}
    if policy is not None:
        found["policy"] = {
            "id": policy.id,
            "mode": policy.mode.value,
            "mx": list(policy.mx),
            "max_age_seconds": policy.max_age_seconds,
            "seconds_left": None if seconds_left is None else round(seconds_left),
        }
    return found


def explored_override(override: TLSOverride | None) -> dict[str, Any] | None:
    """The override that holds now."""
    if override is None:
        return None
    return {"kind": override.kind.value, "until": override.until, "fingerprint": override.fingerprint}


def explored_session(session: TLSSession) -> dict[str, Any]:
    """What the last connection to one address had: demanded, found, concluded."""
    facts = session.facts
    return {
        "time": session.time,
        "address": session.address,
        "own_address": session.own_address,
        "demand": _demand(session.demand),
        "outcome": session.outcome.value,
        "failure_type": session.outcome.failure_type,
        "detail": session.detail[:TEXT_CHARACTERS],
        "version": facts.version,
        "cipher": facts.cipher,
        "group": facts.group,
        "match": facts.match,
        "certificates": [_certificate(one) for one in facts.chain[:CERTIFICATES_MOST]],
    }


def _decision(decision: Demand | Barred) -> dict[str, Any]:
    if isinstance(decision, Barred):
        barred = {
            "why": decision.why,
            "outcome": decision.outcome.value,
            "failure_type": decision.outcome.failure_type,
            "is_final": decision.is_final,
        }
        return {"demand": None, "barred": barred}
    return {"demand": _demand(decision), "barred": None}


def _demand(demand: Demand | Barred) -> dict[str, Any] | None:
    """None for a host that was not connected to."""
    if isinstance(demand, Barred):
        return None
    return {
        "mode": demand.mode.value,
        "by": demand.source.value,
        "name": demand.name,
        "why": demand.why,
        "allows_clear": demand.allows_clear,
        "is_tested": demand.is_tested,
    }


def _tlsa(host: Host) -> dict[str, Any]:
    tlsa = host.tlsa
    return {
        "state": tlsa.state.value,
        "base_name": tlsa.base_name,
        "records": [_record(one) for one in tlsa.records],
        "why": tlsa.why[:TEXT_CHARACTERS],
    }


def _record(record: TLSA) -> str:
    return f"{record.usage} {record.selector} {record.matching_type} {record.data.hex()}"


def _certificate(der: bytes) -> dict[str, Any]:
    """A certificate that a host has shown.  The digests are those that TLSA records have."""
    shown: dict[str, Any] = {"sha256": hashlib.sha256(der).hexdigest()}
    try:
        certificate = x509.load_der_x509_certificate(der)
        shown |= {
            "key_sha256": hashlib.sha256(key_octets(der) or b"").hexdigest(),
            "subject": certificate.subject.rfc4514_string()[:TEXT_CHARACTERS],
            "issuer": certificate.issuer.rfc4514_string()[:TEXT_CHARACTERS],
            "names": [one[:255] for one in names_of(certificate)[:NAMES_MOST]],
            "not_before": _unix(certificate.not_valid_before_utc),
            "not_after": _unix(certificate.not_valid_after_utc),
        }
    except (TypeError, *UNREADABLE) as error:  # what cannot be read is what was shown, too
        shown["fault"] = str(error)[:TEXT_CHARACTERS]
    return shown


def _unix(moment: datetime.datetime) -> float:
    return moment.timestamp()
