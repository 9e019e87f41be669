"""Which names the certificate of the web listener is for: those that lead here by now (RFC 8461, Thunderbird's and Outlook's)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from twisted.internet.defer import DeferredList

from mailserver.mail.dns_records import Answer, LookupFailed
from mailserver.plugins.awaiting import later

__all__ = ["names_most", "names_that_lead_here", "wanted_web_names"]

LABELS = ("mta-sts", "autoconfig", "autodiscover")  # the first matters to other servers
LESS_OFTEN_ASKED = "ua-auto-config"
DOMAINS_MOST = 200  # each is five questions
NAMES_MOST = 100  # in one certificate, of Let's Encrypt's usual profile
NAMES_MOST_OF_NEW_PROFILES = 25
NEW_PROFILES = ("tlsserver", "shortlived")
AT_ONCE = 20

Query = Callable[[str, str], Awaitable[Answer]]


def wanted_web_names(hostname: str, domains: Sequence[str]) -> list[str]:
    """All that the web listener has something to say about, what matters most first."""
    some = domains[:DOMAINS_MOST]
    names = [f"{label}.{domain}" for label in LABELS for domain in some]
    return list(dict.fromkeys([*names, hostname, *some, *[f"{LESS_OFTEN_ASKED}.{domain}" for domain in some]]))


def names_most(profile: str) -> int:
    """How many names one certificate takes."""
    return NAMES_MOST_OF_NEW_PROFILES if profile in NEW_PROFILES else NAMES_MOST


async def names_that_lead_here(
    names: Sequence[str], hostname: str, addresses: Sequence[str], query: Query, known: frozenset[str]
) -> list[str]:
    """Those of `names` with an address of ours: one of `addresses`, or of `hostname` itself.

    `known` are in the certificate that we have: one of them of which nobody can tell is thought to lead here still.
    """
    own = await _addresses(hostname, query)
    ours = {*addresses, *(own or ())}
    found: list[str] = []
    for n in range(0, len(names), AT_ONCE):
        part = names[n : n + AT_ONCE]
        said = await DeferredList([later(_addresses(name, query)) for name in part], consumeErrors=True)
        for name, (is_told, those) in zip(part, said, strict=True):
            if not is_told or those is None or own is None:
                if name in known:
                    found.append(name)
            elif ours & set(those):
                found.append(name)
    return found


async def _addresses(name: str, query: Query) -> list[str] | None:
    """None where nobody can tell."""
    found: list[str] = []
    for type in ("A", "AAAA"):
        try:
            found += (await query(name, type)).records
        except LookupFailed:
            return None
    return found
