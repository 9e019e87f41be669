"""Doubts about usable certificates: each is a sentence that names the file.

They refuse nothing: old mail servers accept any certificate, and an expired one is better than none.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator, Sequence

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from mailserver.tls.identity import Identity, extension_of, is_readable_by_others

__all__ = ["authority_doubts", "identity_doubts", "revocation_doubts"]

SOON = datetime.timedelta(days=14)  # certificate programs renew a month before the end, those of 47 days two weeks before it
NAMES = 5  # of a certificate, in a sentence


def identity_doubts(
    identity: Identity, *, name: str = "", now: datetime.datetime, soon: datetime.timedelta = SOON
) -> Iterator[str]:
    """Doubts about an identity, also that less than `soon` is left.  Blocks.

    `name` is the name that clients will ask for, exact or ``*.`` and a domain, in A-labels; "" skips that check.
    """
    file, leaf = identity.pair.certificate, identity.leaf
    if leaf.not_valid_before_utc > now:
        yield f"{file}: the certificate is not valid before {_moment(leaf.not_valid_before_utc)}"
    yield from _ending(f"{file}: the certificate", identity.expires, now, soon)
    if name and not covers(identity.names, name.lower()):
        others = ", ".join([*identity.names[:NAMES], *(["…"] if len(identity.names) > NAMES else [])])
        yield f"{file}: the certificate is not for {name}, but for {others or 'no name at all'}"
    if not _is_for_servers(leaf):
        yield f"{file}: the certificate is not for servers (its extended key usage)"
    for below, above in zip(identity.chain, identity.chain[1:], strict=False):
        if below.issuer != above.subject:
            yield f"{file}: after the certificate of {_who(below.subject)} should come that of {_who(below.issuer)}, its issuer"
            break
    try:
        if is_readable_by_others(identity.pair.key):
            yield f"{identity.pair.key}: every user of the host can read the key"
    except OSError:
        pass  # removed since it was read: the next look reports it


def authority_doubts(file: str, authorities: Iterable[x509.Certificate], now: datetime.datetime) -> Iterator[str]:
    """Doubts about the authorities for client certificates in this file."""
    for authority in authorities:
        yield from _ending(f"{file}: the authority {_who(authority.subject)}", authority.not_valid_after_utc, now)


def revocation_doubts(
    file: str,
    revocations: Sequence[x509.CertificateRevocationList],
    authorities: Sequence[x509.Certificate],
    now: datetime.datetime,
) -> Iterator[str]:
    """Doubts about the certificate revocation lists (RFC 5280 section 5)."""
    for one in revocations:
        who, end = _who(one.issuer), one.next_update_utc
        if end is not None and end <= now:
            yield f"{file}: the list of {who} has expired, {_moment(end)}; no client certificate of that authority is believed"
        if not any(_is_signed_by(one, authority) for authority in authorities if authority.subject == one.issuer):
            yield f"{file}: the list of {who} is signed by none of the authorities"
    listed = {one.issuer for one in revocations}
    roots = {one.issuer for one in authorities if one.issuer != one.subject}  # they need no list where they sign authorities only
    for name in dict.fromkeys(one.subject for one in authorities):
        if name not in listed and name not in roots:
            yield f"{file}: there is no list of the authority {_who(name)}; no client certificate of it is believed"


def covers(names: Iterable[str], name: str) -> bool:
    """Whether one of these names matches `name`: exactly, or by ``*.`` for its first label (RFC 6125 section 6.4.3)."""
    found = set(names)
    return name in found or (not name.startswith("*.") and "*." + name.partition(".")[2] in found)


def _ending(what: str, end: datetime.datetime, now: datetime.datetime, soon: datetime.timedelta = SOON) -> Iterator[str]:
    if end <= now:
        yield f"{what} has expired, {_moment(end)}"
    elif end - now < soon:
        yield f"{what} expires soon, {_moment(end)}"


def _is_for_servers(leaf: x509.Certificate) -> bool:
    usage = extension_of(leaf, x509.ExtendedKeyUsage)
    if usage is None:
        return True  # for everything
    return ExtendedKeyUsageOID.SERVER_AUTH in usage or ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE in usage


def _is_signed_by(one: x509.CertificateRevocationList, authority: x509.Certificate) -> bool:
    try:
        return one.is_signature_valid(authority.public_key())  # type: ignore[arg-type]  # TypeError tells the others
    except TypeError:
        return False


def _who(name: x509.Name) -> str:
    return name.rfc4514_string() or "nobody"


def _moment(moment: datetime.datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"
