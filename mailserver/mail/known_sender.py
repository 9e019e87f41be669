"""Whether a sender may be told what became of a message that was answered with 250.

A report to an address that anybody has written is backscatter: it goes to whoever was named, and to those who know nothing of the
message most of all.  So it goes only to somebody who is known to have sent it.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable

from mailserver.mail.address import Address, AddressError
from mailserver.mail.answers import Finding

__all__ = ["ToldSenders", "is_proven", "is_told"]


class ToldSenders(enum.Enum):
    """Who is told of a refusal after a 250: nobody; whoever has logged in, or is a program of this host; or those and every
    sender whose domain answers for the message."""

    NOBODY = "nobody"
    USERS = "users"
    KNOWN = "known"


def is_told(told: ToldSenders, *, sender: Address | None, login: str, findings: Iterable[Finding]) -> bool:
    """`findings` are those of the message.

    A domain answers for it where its author's passes DMARC and the reverse-path's passes SPF.  DMARC alone does not do: it may
    pass by a signature, and whoever has signed may have written any reverse-path.
    """
    if sender is None or told is ToldSenders.NOBODY:
        return False
    if login:
        return True
    return told is ToldSenders.KNOWN and _is_answered_for(sender, list(findings))


def is_proven(sender: Address | None, *, trusted: bool, findings: Iterable[Finding]) -> bool:
    """Whether a report on what another host has refused goes to the sender: it would be ours, on mail that we have only sent on.

    So it does where the peer was `trusted` (by its login or its address), where the reverse-path's domain passes SPF, or where
    DMARC passes for a domain in which the reverse-path is.  For the null reverse-path there is nothing to prove.
    """
    if sender is None or trusted:
        return True
    try:
        domain = sender.domain_key
    except AddressError:
        return False
    for one in findings:
        properties = one.properties
        if properties.get("result") != "pass":
            continue
        named = str(properties.get("domain") or "").lower()
        if one.name == "spf" and properties.get("scope") == "mfrom" and named == domain:
            return True
        if one.name == "dmarc" and named and (domain == named or domain.endswith(f".{named}")):
            return True
    return False


def _is_answered_for(sender: Address, findings: list[Finding]) -> bool:
    try:
        domain = sender.domain_key
    except AddressError:
        return False
    passes = [one for one in findings if one.properties.get("result") == "pass"]
    by_spf = [one for one in passes if one.name == "spf" and one.properties.get("scope") == "mfrom"]
    return any(one.name == "dmarc" for one in passes) and any(one.properties.get("domain") == domain for one in by_spf)
