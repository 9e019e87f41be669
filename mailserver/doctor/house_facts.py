"""What our house has, as far as the DNS has to show it."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Literal

__all__ = ["CertificateAuthority", "DomainFacts", "OfferedService", "SendsBy", "WantedKey"]


class SendsBy(enum.Enum):
    """How mail of the domain leaves."""

    OURSELVES = "from our addresses"
    SMARTHOST = "by another host, whose addresses its operator knows"
    NOBODY = "not at all"


@dataclass(frozen=True, slots=True)
class WantedKey:
    """A key of DKIM; `record` is its TXT record."""

    selector: str
    record: str
    state: Literal["active", "next", "retired"]


@dataclass(frozen=True, slots=True)
class CertificateAuthority:
    """A CA that makes certificates for the host: the `names` under which CAA records know it, any of which will do (RFC 8659).

    `method` is how it is shown that the host is ours ("http-01"), `account` the URL of our account there (RFC 8657); "" where
    that is not known.
    """

    names: tuple[str, ...]
    method: str = ""
    account: str = ""


@dataclass(frozen=True, slots=True)
class OfferedService:
    """A service that clients find by SRV (RFC 6186, RFC 8314): ``_submissions._tcp`` on port 465.  `host` "" is our own."""

    service: str
    port: int
    host: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainFacts:
    """A domain of ours, and the host that takes its mail.  All names are A-labels in lower case, without a final dot.

    `addresses` are our own, as the Internet sees them.  Without `addresses_are_sure` they were found on the host's interfaces,
    and the host may have more; where there are none, those that the DNS shows are believed.
    `chain` is the host's certificate with its chain (DER, its own first).  `spki` and `next_spki` are the SHA-256 of its public
    key and of the one that will follow it (lower-case hex, "" where there is none), `later_spki` of the one after that.
    With `serves_clients` our web service tells mail programs their settings.
    `policy` is the text of the MTA-STS policy that our own web service shows, "" where it shows none.
    `authorities` are the CAs that may make our certificates, as far as they are known: the one that we have first.
    """

    domain: str
    hostname: str
    addresses: tuple[str, ...] = ()
    addresses_are_sure: bool = False
    receives: bool = True
    sends_by: SendsBy = SendsBy.OURSELVES
    keys: tuple[WantedKey, ...] = ()
    signs: bool = True
    chain: tuple[bytes, ...] = ()
    spki: str = ""
    next_spki: str = ""
    later_spki: str = ""
    authorities: tuple[CertificateAuthority, ...] = ()
    services: tuple[OfferedService, ...] = ()
    dmarc_reports_to: str = ""
    tls_reports_to: str = ""
    serves_web: bool = False
    serves_clients: bool = False
    policy: str = ""
