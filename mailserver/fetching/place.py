"""Where a URL leads, if it is one that may be fetched (RFC 3986, RFC 9110 section 4.2.2)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from mailserver.mail.address import AddressError, normal_domain
from mailserver.mail.fetched import FetchFailed

__all__ = ["HTTPS_PORT", "Place", "place_of"]

HTTPS_PORT = 443
URL_CHARACTERS_MOST = 2048
PRINTABLE = re.compile(r"[!-~]+")
HOST = re.compile(r"(?=.{1,253}\Z)(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)+[a-z][a-z0-9-]*[a-z0-9]")


@dataclass(frozen=True, slots=True)
class Place:
    """The host, as the DNS and the certificate know it, the port, and the URL without its fragment."""

    host: str
    port: int
    url: bytes


def place_of(url: str) -> Place:
    """Where it leads.  Raises `FetchFailed` for what is not https, names no host, or has a user in it."""
    try:
        host_end = re.match(r"https://([^/?#]*)", url, re.IGNORECASE)
        if host_end is None or len(url) > URL_CHARACTERS_MOST:
            raise FetchFailed("only an https URL of at most 2,048 characters is fetched")
        if not url.isprintable() or " " in url:  # `urlsplit` takes some of it away
            raise FetchFailed("a URL has neither blanks nor control characters")
        parts = urlsplit(url)
        if "@" in parts.netloc:
            raise FetchFailed("a URL with a user in it is not fetched")
        host, port = normal_domain((parts.hostname or "").rstrip(".")), parts.port or HTTPS_PORT
        host = host.encode("ascii").decode("ascii") if host.isascii() else host.encode("idna").decode("ascii")
    except (ValueError, AddressError) as error:
        raise FetchFailed(f"this is no URL that can be fetched: {error}") from None
    if not HOST.fullmatch(host):
        raise FetchFailed("the URL names no host")
    rest = url[host_end.end() :].partition("#")[0]
    if rest and not PRINTABLE.fullmatch(rest):
        raise FetchFailed("beyond its host a URL is ASCII")
    shown = host if port == HTTPS_PORT else f"{host}:{port}"
    return Place(host, port, f"https://{shown}{rest if rest.startswith('/') else '/' + rest}".encode("ascii"))
