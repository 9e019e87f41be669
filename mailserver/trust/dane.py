"""DANE for SMTP: what the TLSA records of a host say about the certificates that it shows (RFC 6698, RFC 7671, RFC 7672).

`TLSAAnswer` is what the DNS has said about one host; `match` holds a chain of certificates against it.  Without I/O: who looks
the records up vouches for it that they are secure.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography import x509

from mailserver.mail.dns_records import TLSA
from mailserver.trust.chain import (
    BrokenChain,
    certificate_of,
    covers,
    is_signed_by,
    key_octets,
    key_of,
    names_of,
    verified_depth,
)

__all__ = ["NO_TLSA", "DaneFault", "DaneMatch", "DaneMismatch", "TLSAAnswer", "TLSAState", "in_words", "is_usable", "match"]

DANE_TA, DANE_EE = 2, 3  # usages (RFC 7671 section 2.1): a trust anchor, the host's own
CERTIFICATE, KEY = 0, 1  # selectors
FULL, SHA_256, SHA_512 = 0, 1, 2  # matching types
DIGESTS = {SHA_256: hashlib.sha256, SHA_512: hashlib.sha512}
DIGEST_OCTETS = {SHA_256: 32, SHA_512: 64}
CHAIN_MOST = 20  # certificates of a host that are looked at; OpenSSL itself takes 100 KB of them
FULL_ANCHORS_MOST = 4  # of usage 2 that stand in the DNS in full: each is held against each certificate, by signatures
NAMES_TOLD = 5


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


_NEARNESS = {
    DaneFault.NO_MATCH: 0,
    DaneFault.BROKEN_CHAIN: 1,
    DaneFault.EXPIRED: 2,
    DaneFault.NAME_MISMATCH: 3,
}


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


def is_usable(record: TLSA) -> bool:
    """Whether SMTP knows what to do with a record.

    Usages 0 and 1 rest on authorities that no two mail servers have in common (RFC 7672 section 3.1.3).  A digest of a wrong
    length, and data that are neither a certificate nor a key, are what a publisher got wrong: nothing could ever match them.
    """
    if record.usage not in (DANE_TA, DANE_EE):
        return False
    if record.matching_type != FULL:
        size = DIGEST_OCTETS.get(record.matching_type)
        return record.selector in (CERTIFICATE, KEY) and len(record.data) == size
    if record.selector == CERTIFICATE:
        return certificate_of(record.data) is not None
    return record.selector == KEY and key_of(record.data) is not None


def match(answer: TLSAAnswer, chain: Sequence[bytes], now: float) -> DaneMatch | DaneMismatch:
    """Whether the host's `chain` (certificates as DER, its own first) matches one of the records at `now` (Unix time).

    Of the host's own certificate usage 3 looks at nothing but what the record is about: neither name nor dates count (RFC 7671
    section 5.1).  With usage 2 the chain has to be valid up to the trust anchor, and the name has to be one of `answer.names`.
    """
    if not chain:
        return DaneMismatch("the host shows no certificate")
    shown = [_Shown(der) for der in chain[:CHAIN_MOST]]
    counted = _strongest(answer.records)
    for record in counted:
        if record.usage == DANE_EE and shown[0].matches(record):
            return DaneMatch(record, 0, f"{in_words(record)} is the host's certificate")
    nearest: DaneMismatch | None = None
    for record in counted:
        if record.usage == DANE_TA:
            found = _by_anchor(record, answer.names, shown, now)
            if isinstance(found, DaneMatch):
                return found
            if nearest is None or _NEARNESS[found.fault] > _NEARNESS[nearest.fault]:
                nearest = found
    kinds = ", ".join(dict.fromkeys(map(in_words, counted)))
    if nearest is None or nearest.fault is DaneFault.NO_MATCH:
        return DaneMismatch(f"none of the certificates is the one of {kinds}" if kinds else "there is no usable record")
    return nearest


def in_words(record: TLSA) -> str:
    """The record's three numbers and the beginning of its data, for people."""
    data = record.data.hex()
    return f"TLSA {record.usage} {record.selector} {record.matching_type} {data[:16]}{'…' if len(data) > 16 else ''}"


# --- the parts ---


class _Shown:
    """A certificate as a host has shown it, and what records may say of it."""

    def __init__(self, der: bytes) -> None:
        self.der = der
        self._selected = {CERTIFICATE: der, KEY: key_octets(der)}
        self._digests: dict[tuple[int, int], bytes] = {}

    def matches(self, record: TLSA) -> bool:
        selected = self._selected.get(record.selector)
        return selected is not None and self._form(record.selector, record.matching_type, selected) == record.data

    def _form(self, selector: int, matching_type: int, selected: bytes) -> bytes | None:
        if matching_type == FULL:
            return selected
        found = self._digests.get((selector, matching_type))
        if found is None and (digest := DIGESTS.get(matching_type)) is not None:
            found = self._digests[selector, matching_type] = digest(selected).digest()
        return found


def _strongest(records: Sequence[TLSA]) -> list[TLSA]:
    """The usable records without those of SHA-256 beside which, for the same purpose, SHA-512 stands (RFC 7671 section 9).

    Of anchors in full the first few count: who publishes hundreds gets no seconds of work for it with each connection.
    """
    usable = [record for record in dict.fromkeys(records) if is_usable(record)]
    in_full = [one for one in usable if one.usage == DANE_TA and one.matching_type == FULL]
    if len(in_full) > FULL_ANCHORS_MOST:
        left_out = set(in_full[FULL_ANCHORS_MOST:])
        usable = [one for one in usable if one not in left_out]
    best: dict[tuple[int, int], int] = {}
    for record in usable:
        kind = record.usage, record.selector
        best[kind] = max(best.get(kind, FULL), record.matching_type)
    return [one for one in usable if one.matching_type in (FULL, best[one.usage, one.selector])]


def _by_anchor(record: TLSA, names: Sequence[str], shown: Sequence[_Shown], now: float) -> DaneMatch | DaneMismatch:
    """Whether the chain is valid up to the trust anchor of this record (RFC 7671 section 5.2), and has one of the names."""
    leaf = certificate_of(shown[0].der)
    if leaf is None:
        return DaneMismatch("the host's certificate makes no sense", DaneFault.BROKEN_CHAIN)
    others = [(one, found) for one in shown[1:] if (found := certificate_of(one.der)) is not None]
    anchors = [found for one, found in others if one.der != shown[0].der and one.matches(record)]
    if record.matching_type == FULL:  # the anchor stands in the DNS, and the host may leave it out
        anchors += _anchors_in_full(record, [leaf, *(found for _, found in others)], shown[0].der)
    if not anchors:
        return DaneMismatch(f"none of the certificates is the one of {in_words(record)}")
    depth, why = -1, []
    for anchor in anchors:
        try:
            depth = verified_depth(anchor, leaf, [other for _, other in others], now)
            break
        except BrokenChain as broken:
            why.append(broken)
    if depth < 0:
        told = next((one for one in why if one.is_a_matter_of_time), why[0])
        return DaneMismatch(str(told), DaneFault.EXPIRED if told.is_a_matter_of_time else DaneFault.BROKEN_CHAIN)
    own = names_of(leaf)
    if not any(covers(pattern, name) for pattern in own for name in names):
        said, wanted = ", ".join(own[:NAMES_TOLD]) or "no name at all", ", ".join(names)
        return DaneMismatch(f"the certificate is not for {wanted}, but for {said}", DaneFault.NAME_MISMATCH)
    return DaneMatch(record, depth, f"{in_words(record)} vouches for the host's certificate")


def _anchors_in_full(record: TLSA, shown: Sequence[x509.Certificate], leaf: bytes) -> list[x509.Certificate]:
    if record.selector == CERTIFICATE:
        anchor = certificate_of(record.data)
        return [anchor] if anchor is not None and record.data != leaf else []
    key = key_of(record.data)
    return [one for one in shown if is_signed_by(one, key)]  # the key has no certificate: what it signs is as good
