"""Who a message says it is from, and what shows that: what SPF, DKIM and DMARC have found of it.  Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from mailserver.api import Address, AddressError, Content, Envelope, normal_names
from mailserver.mail.originators import OriginatorError, originators

__all__ = [
    "author_of",
    "domain_forms",
    "is_answered_for",
    "is_denied",
    "normal_addresses",
    "passed",
    "proved_domains",
    "spf_passes",
]

LABELS_MOST = 127


def passed(envelope: Envelope, name: str) -> frozenset[str]:
    """The domains for which findings of this name say "pass", and mean the whole message."""
    return frozenset(
        [
            str(one.properties["domain"]).lower().rstrip(".")
            for one in envelope.findings
            if one.name == name
            and one.properties.get("result") == "pass"
            and one.properties.get("domain")
            and not one.properties.get("partial")
            and not one.properties.get("testing")
            and not one.properties.get("weak")
        ]
    )


def spf_passes(envelope: Envelope) -> frozenset[tuple[str, str]]:
    """Scope ("mfrom", "helo") and domain of each pass of SPF."""
    spf = [one for one in envelope.findings if one.name == "spf" and one.properties.get("result") == "pass"]
    return frozenset([(str(one.properties.get("scope")), str(one.properties.get("domain"))) for one in spf])


def proved_domains(envelope: Envelope) -> frozenset[str]:
    """All domains that answer for the message: those of signatures, DMARC's, and the sender's where SPF passes."""
    senders = [domain for scope, domain in spf_passes(envelope) if scope == "mfrom"]
    return passed(envelope, "dkim") | passed(envelope, "dmarc") | frozenset(senders)


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
        authors = originators(content.head).authors
    except OriginatorError:
        return ()
    return authors if len(authors) == 1 else ()


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
