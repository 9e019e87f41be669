"""Who a message says it is from, and what shows that: what SPF, DKIM and DMARC have found of it.  Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from mailserver.api import Address, AddressError, Answer, Content, Envelope, Finding, LookupFailed, normal_names
from mailserver.mail.originators import OriginatorError, originators

__all__ = [
    "Proofs",
    "author_of",
    "domain_forms",
    "is_answered_for",
    "is_denied",
    "nobody_to_ask",
    "normal_addresses",
    "passed",
    "proofs_of",
    "proved_domains",
    "spf_passes",
]

LABELS_MOST = 127


def passed(envelope: Envelope, name: str) -> frozenset[str]:
    """The domains for which findings of this name say "pass", and mean the whole message."""
    return frozenset([_domain_of(one) for one in envelope.findings if one.name == name and _means_all(one)])


def _means_all(finding: Finding) -> bool:
    said = finding.properties
    return bool(
        said.get("result") == "pass"
        and said.get("domain")
        and not (said.get("partial") or said.get("testing") or said.get("weak"))
    )


def _domain_of(finding: Finding) -> str:
    return str(finding.properties["domain"]).lower().rstrip(".")


def spf_passes(envelope: Envelope) -> frozenset[tuple[str, str]]:
    """Scope ("mfrom", "helo") and domain of each pass of SPF."""
    return proofs_of(envelope).spf


def proved_domains(envelope: Envelope) -> frozenset[str]:
    """All domains that answer for the message: those of signatures, DMARC's, and the sender's where SPF passes."""
    return proofs_of(envelope).domains


class Proofs(NamedTuple):
    """What answers for a message: the domains of `signers`, all `domains`, and what `spf_passes` returns."""

    signers: frozenset[str]
    domains: frozenset[str]
    spf: frozenset[tuple[str, str]]


def proofs_of(envelope: Envelope) -> Proofs:
    """All of it by one look at the findings."""
    signers: list[str] = []
    domains: list[str] = []
    spf: list[tuple[str, str]] = []
    for one in envelope.findings:
        match one.name:
            case "dkim" if _means_all(one):
                signers.append(_domain_of(one))
            case "dmarc" if _means_all(one):
                domains.append(_domain_of(one))
            case "spf" if one.properties.get("result") == "pass":
                scope, domain = str(one.properties.get("scope")), str(one.properties.get("domain"))
                spf.append((scope, domain))
                if scope == "mfrom":
                    domains.append(domain)
    return Proofs(frozenset(signers), frozenset(signers + domains), frozenset(spf))


def is_denied(envelope: Envelope) -> bool:
    """The author's domain, or the sender's, says that the message is not from there."""
    return any(one.name in ("dmarc", "spf") and one.properties.get("result") == "fail" for one in envelope.findings)


def is_answered_for(domain: str, proved: Collection[str]) -> bool:
    """Whether one of those that answer is this domain or one above it, down to two labels."""
    labels = domain.split(".")[:LABELS_MOST]
    return domain in proved or any(".".join(labels[n:]) in proved for n in range(1, len(labels) - 1))


def domain_forms(domain: str) -> list[str]:
    """As which an entry can name a domain: itself, and each domain above it with a dot."""
    if not domain or domain.startswith("["):
        return [domain] if domain else []
    labels = domain.split(".")[:LABELS_MOST]
    return [domain, *["." + ".".join(labels[n:]) for n in range(1, len(labels))]]


def author_of(content: Content) -> Sequence[Address]:
    """The one author; nobody where there are several, or where the fields cannot be understood."""
    try:
        authors = originators(content.head, content.headers).authors
    except OriginatorError:
        return ()
    return authors if len(authors) == 1 else ()


async def nobody_to_ask(_name: str, _record_type: str) -> Answer:
    """In the place of `IResolver.query` where there is no resolver.  Raises `LookupFailed`."""
    raise LookupFailed("there is no resolver")


def normal_addresses(addresses: Sequence[Address]) -> list[str]:
    """In the form in which they are compared and kept; what has no domain is left out."""
    found = []
    for one in addresses:
        try:
            local, domain = normal_names(one)
        except AddressError:
            continue
        if domain:
            found.append(f"{local}@{domain}")
    return found
