"""What the policy host of MTA-STS shows (RFC 8461 section 3.3), at each of its addresses."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass

__all__ = ["CertificateFault", "CertificateSeen", "FetchPolicy", "HostFault", "PolicyAnswer"]


class HostFault(enum.Enum):
    """Why an address has given nothing."""

    UNREACHABLE = "nobody can connect"
    TLS = "no TLS comes about"
    HTTP = "no answer that makes sense"


class CertificateFault(enum.Enum):
    """Why nobody believes a certificate."""

    NAME = "it is for other names"
    EXPIRED = "it has expired"
    EARLY = "it is not valid yet"
    UNTRUSTED = "no CA that is trusted has made it"


@dataclass(frozen=True, slots=True)
class CertificateSeen:
    """A certificate as a client sees it; `fault` in the words of OpenSSL is `why`.  Times in seconds since the epoch."""

    names: tuple[str, ...]
    begins: float
    ends: float
    fault: CertificateFault | None = None
    why: str = ""

    @property
    def words(self) -> str:
        """For whom it is."""
        return ", ".join(self.names[:5]) or "nobody"


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
