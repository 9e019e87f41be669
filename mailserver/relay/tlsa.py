"""The TLSA records of a host, looked up where the DNS is secure (RFC 7672 section 2.2).

The names under which they may stand follow from how the host's addresses were found:

    addresses secure, no CNAME                 the host's name
    addresses secure, the name is a CNAME      the name at its end, then the host's own
    addresses not secure, the CNAME itself is  the host's own name
    else                                       nobody is asked: no record could be believed

Nobody is asked either where the host's name came from an MX answer that is not secure.  So a resolver that is not believed costs
no question, and name servers that fail for TLSA, of which there are many in zones that are not signed, are never met.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mailserver.interfaces import IResolver
from mailserver.mail.dns_records import Answer, LookupFailed
from mailserver.trust.dane import NO_TLSA, TLSAAnswer, TLSAState, in_words, is_usable

__all__ = ["AddressAnswer", "tlsa_of"]

RECORDS_TOLD = 3


@dataclass(frozen=True, slots=True)
class AddressAnswer:
    """The addresses of a host.  `ttl_seconds` is the least of the answers'; `failure` says why a look-up failed, or "".

    `is_secure`: every answer came with a believed AD bit.  `canonical_name` is where a CNAME led to, else "".
    """

    addresses: tuple[str, ...]
    ttl_seconds: float = 0.0
    failure: str = ""
    is_secure: bool = False
    canonical_name: str = ""


async def tlsa_of(
    name: str, found: AddressAnswer, *, next_hops: Sequence[str], port: int, resolver: IResolver
) -> tuple[TLSAAnswer, float]:
    """What the DNS says about the certificates of the host `name`, and for how many seconds (0: as long as one likes).

    `next_hops` are the names by which the host was come to, each secure: the domain, and where a CNAME of it led to.  A
    certificate may have them, too, where usage 2 vouches for it (RFC 7672 section 3.2.2).  Raises nothing that a resolver is
    known for: a look-up that fails is an answer.
    """
    if not found.addresses:
        return NO_TLSA, 0.0
    try:
        bases = await _base_names(name, found, resolver)
        ttl_seconds = 0.0
        for base in bases:
            answer: Answer = await resolver.query(f"_{port}._tcp.{base}", "TLSA")
            ttl_seconds = float(answer.ttl_seconds)
            if answer.authenticated and answer.records:
                return _read(base, answer, next_hops), ttl_seconds
    except LookupFailed as error:
        return TLSAAnswer(TLSAState.FAILED, base_name=name, why=str(error)), 0.0
    why = f"no TLSA record at {' or '.join(bases)}" if bases else "the addresses are not secure"
    return TLSAAnswer(why=why), ttl_seconds


async def _base_names(name: str, found: AddressAnswer, resolver: IResolver) -> list[str]:
    if found.is_secure:
        return [found.canonical_name, name] if found.canonical_name else [name]
    if found.canonical_name:  # the name may be secure although the one that it leads to is not
        answer: Answer = await resolver.query(name, "CNAME")
        if answer.authenticated and answer.records:
            return [name]
    return []


def _read(base: str, answer: Answer, next_hops: Sequence[str]) -> TLSAAnswer:
    usable = tuple([record for record in answer.associations if is_usable(record)])
    told = ", ".join(map(in_words, (usable or answer.associations)[:RECORDS_TOLD]))
    names = tuple(dict.fromkeys([base, *next_hops]))
    state = TLSAState.USABLE if usable else TLSAState.UNUSABLE
    return TLSAAnswer(state, usable, base, names, told)
