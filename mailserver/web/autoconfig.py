"""What Thunderbird, and those that do as it does, read of a domain (draft-ietf-mailmaint-autoconfig, config-v1.1.xml).

Nothing of the request stands in it: the program itself puts the address where ``%EMAILADDRESS%`` stands.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from xml.sax.saxutils import escape, quoteattr

from mailserver.web.content import ClientSettings, MailAccess

__all__ = ["autoconfig"]

SOCKET_TYPES = {"implicit": "SSL", "starttls": "STARTTLS"}


def autoconfig(domain: str, settings: ClientSettings) -> bytes:
    """The document.  The best service of a kind comes first, as programs take the first that they can use."""
    return "\n".join(_lines(domain, settings)).encode("utf-8") + b"\n"


def _lines(domain: str, settings: ClientSettings) -> Iterator[str]:
    yield '<?xml version="1.0" encoding="UTF-8"?>'
    yield '<clientConfig version="1.1">'
    yield f"  <emailProvider id={quoteattr(domain)}>"
    yield f"    <domain>{escape(domain)}</domain>"
    yield f"    <displayName>{escape(domain)}</displayName>"
    yield f"    <displayShortName>{escape(domain)}</displayShortName>"
    yield from _servers("incomingServer", settings.incoming)
    yield from _servers("outgoingServer", settings.outgoing)
    yield "  </emailProvider>"
    yield "</clientConfig>"


def _servers(element: str, found: Iterable[MailAccess]) -> Iterator[str]:
    for one in found:
        yield f"    <{element} type={quoteattr(one.protocol)}>"
        yield f"      <hostname>{escape(one.host)}</hostname>"
        yield f"      <port>{one.port}</port>"
        yield f"      <socketType>{SOCKET_TYPES[one.tls]}</socketType>"
        yield "      <authentication>password-cleartext</authentication>"  # within TLS
        yield "      <username>%EMAILADDRESS%</username>"
        yield f"    </{element}>"
