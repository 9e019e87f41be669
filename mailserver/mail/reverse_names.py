"""The names of an address that the DNS confirms: there and back again (RFC 8601 section 2.7.3, "iprev")."""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable

from mailserver.mail.dns_records import Answer, LookupFailed
from mailserver.mail.networks import ip_of

__all__ = ["LookUp", "confirmed_names"]

NAMES_MOST = 10  # that are looked up, as RFC 7208 section 5.5 has it

LookUp = Callable[[str, str], Awaitable[Answer]]


async def confirmed_names(ip: ipaddress.IPv4Address | ipaddress.IPv6Address, look_up: LookUp) -> tuple[str, ...]:
    """The names that the address has by its PTR records and that have the address by theirs, in the order of the answer.

    `look_up` is `IResolver.query`.  Raises `LookupFailed` where no name is confirmed and the DNS cannot tell about one of them.
    """
    pointers = await look_up(ip.reverse_pointer, "PTR")
    found, fault = [], None
    for name in list(dict.fromkeys(pointers.records))[:NAMES_MOST]:
        try:
            answer = await look_up(name, "A" if ip.version == 4 else "AAAA")
        except LookupFailed as error:
            fault = error
        else:
            if any(is_same(record, ip) for record in answer.records):
                found.append(name)
    if fault is not None and not found:
        raise fault
    return tuple(found)


def is_same(record: str, ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether an address record holds this address."""
    return ip_of(record) == ip
