"""Which of our names a request is for.  Names that are not ours are nobody's."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from mailserver.web.content import WebContent

__all__ = ["Site", "SiteKind", "domain_of", "host_of", "site_of"]

HOST = re.compile(r"(?=.{1,253}(?::|\Z))([a-z0-9_](?:[a-z0-9_-]{0,62})(?:\.[a-z0-9_][a-z0-9_-]{0,62})*)\.?(?::[0-9]{0,5})?")


class SiteKind(Enum):
    """What a name serves beside challenges and health; the values of all but two stand before a domain's name."""

    POLICY = "mta-sts"
    AUTOCONFIG = "autoconfig"
    AUTODISCOVER = "autodiscover"
    USER_AGENTS = "ua-auto-config"
    DOMAIN = "domain"
    HOST = "host"


PREFIXES = {kind.value: kind for kind in SiteKind if kind not in (SiteKind.DOMAIN, SiteKind.HOST)}


@dataclass(frozen=True, slots=True)
class Site:
    """A name of ours.  `domain` is the mail domain that it belongs to, "" for the host's own name that is none."""

    kind: SiteKind
    domain: str


def host_of(authority: str) -> str:
    """The host of a Host field (RFC 9110 section 7.2), without its port; "" where it cannot be one of our names."""
    found = HOST.fullmatch(authority.strip(" \t").lower())
    return "" if found is None else found[1]


def domain_of(name: str, content: WebContent) -> str:
    """The key of `clients` that holds for a domain, "" where it is not ours."""
    if name in content.clients:
        return name
    above = name.partition(".")[2]
    while above:
        if f"*.{above}" in content.clients:
            return f"*.{above}"
        above = above.partition(".")[2]
    return ""


def site_of(host: str, content: WebContent) -> Site | None:
    """None: it is not ours."""
    if host and host == content.hostname:
        return Site(SiteKind.HOST, host if domain_of(host, content) else "")
    prefix, _, rest = host.partition(".")
    if prefix in PREFIXES and domain_of(rest, content):
        return Site(PREFIXES[prefix], rest)
    return Site(SiteKind.DOMAIN, host) if domain_of(host, content) else None
