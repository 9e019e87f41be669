"""How the beginning of TLS with another host came out, as a report to its domain counts it (RFC 8460 section 4)."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["NO_POLICY", "STS_POLICY", "TLSA_POLICY", "TLSPolicyFound", "TLSResult"]

TLSA_POLICY = "tlsa"  # section 4.2
STS_POLICY = "sts"
NO_POLICY = "no-policy-found"


@dataclass(frozen=True, slots=True)
class TLSPolicyFound:
    """The policy of a session: its kind, the domain where it stands (the TLSA base domain of a host, for DANE), its text in
    lines, and the patterns of hosts that an MTA-STS policy names.
    """

    kind: str
    domain: str
    strings: tuple[str, ...] = ()
    mx_patterns: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TLSResult:
    """One session for mail to `domain`.

    `failure` is a result type of section 4.3, "" for a success.  `host` and `address` are the other side, "" where nothing was
    connected to; `own_address` is ours.  `information` are words for people.
    """

    domain: str
    policy: TLSPolicyFound
    failure: str = ""
    host: str = ""
    address: str = ""
    own_address: str = ""
    information: str = ""
