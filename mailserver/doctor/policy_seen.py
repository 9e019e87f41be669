"""What the policy host of MTA-STS shows (RFC 8461 section 3.3), at each of its addresses."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mailserver.doctor.certificate_seen import CertificateSeen

__all__ = ["FetchPolicy", "HostFault", "PolicyAnswer"]


class HostFault(enum.Enum):
    """Why an address has given nothing."""

    UNREACHABLE = "nobody can connect"
    TLS = "no TLS comes about"
    HTTP = "no answer that makes sense"


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyAnswer:
    """What one address has answered; with a `fault` the fields below are those of what came before it.

    `is_ours`: this host has the address itself.  `body` has what was read: one octet more than a policy may have says that
    there is more.
    """

    address: str
    fault: HostFault | None = None
    why: str = ""
    is_ours: bool = False
    certificate: CertificateSeen | None = None
    status: int = 0
    location: str = ""
    media_type: str = ""
    body: bytes = b""


FetchPolicy = Callable[[str, Sequence[str]], Sequence[PolicyAnswer]]
"""From the host of this name at these addresses."""
