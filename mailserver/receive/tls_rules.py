"""Senders and recipients whose mail is taken over encrypted connections alone."""

from __future__ import annotations

from collections.abc import Iterable

from mailserver.mail.address import Address, AddressError, normal_domain, normal_name

__all__ = ["NO_TLS_RULES", "TLSRules"]


class TLSRules:
    """`required_from` and `required_for` hold addresses, domains, and ``*.`` with a domain: every name below it.

    A client that gets 530 5.7.0 for it may begin TLS and try again (RFC 3207 section 4).
    """

    __slots__ = ("_for", "_from")

    def __init__(self, *, required_from: Iterable[str] = (), required_for: Iterable[str] = ()) -> None:
        self._from = frozenset(map(_rule, required_from))
        self._for = frozenset(map(_rule, required_for))

    def requires_tls_from(self, sender: Address | None) -> bool:
        """For MAIL.  The null sender has no domain."""
        return sender is not None and bool(self._from) and _fits(self._from, sender)

    def requires_tls_for(self, recipient: Address) -> bool:
        """For RCPT."""
        return bool(self._for) and _fits(self._for, recipient)


def _rule(text: str) -> str:
    if "@" in text:
        return normal_name(Address.parse(text, utf8=True))
    return "*." + normal_domain(text[2:]) if text.startswith("*.") else normal_domain(text)


def _fits(rules: frozenset[str], address: Address) -> bool:
    try:
        domain = address.domain_key
    except AddressError:
        return False  # nothing can be sent from there or to there
    if domain in rules or normal_name(address) in rules:
        return True
    above = domain
    while "." in above and not above.startswith("["):
        above = above.partition(".")[2]
        if "*." + above in rules:
            return True
    return False


NO_TLS_RULES = TLSRules()
