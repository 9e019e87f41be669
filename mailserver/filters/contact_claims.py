"""Whom a message claims to be from, and which of a user's contacts that would be.  Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from mailserver.api import Content, Envelope
from mailserver.filters.contact_records import Contact
from mailserver.filters.evidence import (
    author_of,
    domain_forms,
    is_answered_for,
    is_denied,
    normal_addresses,
    proved_domains,
)

__all__ = ["Claims", "claims_of", "is_automatic", "is_report"]

BULK = frozenset(["bulk", "junk", "list", "auto_reply"])


@dataclass(frozen=True, slots=True)
class Claims:
    """`senders` are the author (after the data, where `From` names one) and the reverse-path, as addresses are compared.

    `proved` are the domains that answer for the message; `is_denied`: one says that it is not from there.
    """

    senders: tuple[str, ...]
    proved: frozenset[str]
    is_denied: bool

    @property
    def subjects(self) -> list[str]:
        """As contacts are named, the author first."""
        return [f"address:{one}" for one in self.senders]

    @property
    def subject(self) -> str:
        """Whom its reader takes for its sender, "" for nobody."""
        return f"address:{self.senders[0]}" if self.senders else ""

    @property
    def evidence(self) -> str:
        """"pass" where it is shown that it is from him, "fail" where a domain denies it, else "none"."""
        return "pass" if self.proves(self.subject) else "fail" if self.is_denied else "none"

    @property
    def domains(self) -> list[str]:
        """The senders' domains and those above them, without a dot in front."""
        return [form.removeprefix(".") for sender in self.senders for form in domain_forms(_domain(sender))]

    def proves(self, subject: str) -> bool:
        """It is shown that the message is from this address, or from an address of this domain."""
        kind, _, value = subject.partition(":")
        for sender in self.senders:
            names = (sender,) if kind == "address" else domain_forms(_domain(sender))
            if value in names and is_answered_for(_domain(sender), self.proved):
                return True
        return False

    def is_shown_from(self, domain: str) -> bool:
        """It is shown that it is from this domain, or from one below it."""
        return self.proves(f"domain:{domain}") or self.proves(f"domain:.{domain}")

    def shows(self, contact: Contact) -> bool:
        """The message is from the contact, as far as he wants that shown."""
        return not contact.needs_evidence or self.proves(contact.subject)

    def contact(self, contacts: Mapping[str, Contact]) -> Contact | None:
        """The contact that it claims to be from.

        Addresses go before domains, and these from the narrowest.  Of equals a refusal goes first, then who is shown to be the
        one; of those who only say so the first.
        """
        claimed: Contact | None = None
        for names in self._levels():
            found = [contacts[name] for name in names if name in contacts]
            for one in found:
                if one.state == "refused":
                    return one
            for one in found:
                if self.shows(one):
                    return one
            claimed = claimed or (found[0] if found else None)
        return claimed

    def _levels(self) -> Iterator[list[str]]:
        yield self.subjects
        forms = dict.fromkeys([form for sender in self.senders for form in domain_forms(_domain(sender))])
        for form in sorted(forms, key=lambda one: (one.startswith("."), -one.count("."))):
            yield [f"domain:{form}"]


def claims_of(envelope: Envelope, content: Content | None = None) -> Claims:
    """Without the content: what is claimed at RCPT."""
    addresses = [] if content is None else list(author_of(content))
    if envelope.sender is not None:
        addresses.append(envelope.sender)
    senders = tuple(dict.fromkeys(normal_addresses(addresses)))
    return Claims(senders, proved_domains(envelope), is_denied(envelope))


def is_report(envelope: Envelope, content: Content) -> bool:
    """A report on somebody's mail (RFC 3464): the null reverse-path, and the form of one.  It is judged by the others."""
    form = (content.headers.get("Content-Type") or "").partition(";")[0].strip().lower()
    return envelope.sender is None and form == "multipart/report"


def is_automatic(content: Content) -> bool:
    """A program has written it, not a person: an answer of somebody who is away, a report (RFC 3834 section 5)."""
    said = (content.headers.get("Auto-Submitted") or "no").partition(";")[0].partition("(")[0].strip().lower()
    form = (content.headers.get("Content-Type") or "").partition(";")[0].strip().lower()
    precedence = (content.headers.get("Precedence") or "").strip().lower()
    return said != "no" or form == "multipart/report" or precedence in BULK


def _domain(address: str) -> str:
    return address.rpartition("@")[2]
