"""DANE for SMTP: what the TLSA records of a host say about the certificates that it shows (RFC 6698, RFC 7671, RFC 7672).

`TLSAAnswer` is what the DNS has said about one host; `match` holds a chain of certificates against it.  Without I/O: who looks
the records up vouches for it that they are secure.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from mailserver.mail.dns_records import TLSA

__all__ = ["NO_TLSA", "DaneFault", "DaneMatch", "DaneMismatch", "TLSAAnswer", "TLSAState", "match"]


class TLSAState(enum.Enum):
    """What the DNS says about the TLSA records of a host (RFC 7672 section 2.2)."""

    NONE = "none"  # none, for sure; or the host's zone is not secure, so that none could be believed
    USABLE = "usable"  # the certificate has to match one of them
    UNUSABLE = "unusable"  # there are some, none of a kind that SMTP knows: TLS is a must, any certificate will do
    FAILED = "failed"  # the zone is secure, and nobody can tell: this host is not to be used now


@dataclass(frozen=True, slots=True)
class TLSAAnswer:
    """The TLSA records of one host.  `records` are the usable ones.

    `base_name` is the name below which they stand (RFC 7672 section 2.2.3), also the name for SNI.  A certificate that is
    trusted by usage 2 has to have one of `names` (section 3.2.2), the first of which is `base_name`.  `why` is for people.
    """

    state: TLSAState = TLSAState.NONE
    records: tuple[TLSA, ...] = ()
    base_name: str = ""
    names: tuple[str, ...] = ()
    why: str = ""


NO_TLSA = TLSAAnswer()


class DaneFault(enum.Enum):
    """Why no record matches: the reason that came nearest to a match."""

    NO_MATCH = "no record matches a certificate"
    EXPIRED = "expired"  # or not valid yet
    NAME_MISMATCH = "another name"
    BROKEN_CHAIN = "the chain does not lead to the trust anchor"


@dataclass(frozen=True, slots=True)
class DaneMatch:
    """The record that matched, and which certificate of the chain it stands for (0: the host's own)."""

    record: TLSA
    depth: int
    why: str = ""


@dataclass(frozen=True, slots=True)
class DaneMismatch:
    """No record matches."""

    why: str
    fault: DaneFault = DaneFault.NO_MATCH


def match(answer: TLSAAnswer, chain: Sequence[bytes], now: float) -> DaneMatch | DaneMismatch:
    """Whether the host's `chain` (certificates as DER, its own first) matches one of the records at `now` (Unix time)."""
    raise NotImplementedError
