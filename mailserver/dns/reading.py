"""What a message says about a name: an answer, another name to ask for, or nothing."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass

from mailserver.dns.wire import TYPES, MalformedMessage, Message, Record, read_name
from mailserver.mail.dns_records import Answer

__all__ = ["CHAIN_NAMES", "Alias", "ServerFailure", "read_message", "reverse_name"]

CHAIN_NAMES = 8  # the longest chain of CNAMEs, over all messages of one question
NEGATIVE_SECONDS = 3600  # RFC 2308 section 5: one to three hours
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED = range(6)
RCODES = {FORMERR: "FORMERR", SERVFAIL: "SERVFAIL", NOTIMP: "NOTIMP", REFUSED: "REFUSED", 16: "BADVERS"}
A, CNAME, PTR, MX, TXT, AAAA, TLSA = (TYPES[name] for name in ("A", "CNAME", "PTR", "MX", "TXT", "AAAA", "TLSA"))
NS, SOA = 2, 6


class ServerFailure(Exception):
    """This server cannot tell.  `rcode` is its response code; 0 where its answer was malformed."""

    def __init__(self, why: str, rcode: int = 0) -> None:
        super().__init__(why)
        self.rcode = rcode


@dataclass(frozen=True, slots=True)
class Alias:
    """A chain of CNAMEs that leads out of the message."""

    canonical_name: str
    names: int
    ttl_seconds: int
    authenticated: bool


def read_message(message: Message, name: str, record_type: int, *, trusted: bool) -> Answer | Alias:
    """What the message says about `name`.  `trusted`: its AD bit counts.  Raises `ServerFailure`."""
    if message.rcode not in (NOERROR, NXDOMAIN):
        word = RCODES.get(message.rcode, f"return code {message.rcode}")
        more = f" ({message.extended_error})" if message.extended_error else ""
        raise ServerFailure(word + more, message.rcode)
    try:
        return _read(message, name, record_type, trusted and message.authenticated)
    except (MalformedMessage, IndexError) as error:
        raise ServerFailure(f"an answer that makes no sense: {error}") from None


def _read(message: Message, name: str, record_type: int, authenticated: bool) -> Answer | Alias:
    canonical, names, ttl_seconds = _follow(message, name, record_type)
    records = []
    for record in message.answers:
        if record.type == record_type and record.owner == canonical:
            ttl_seconds = min(ttl_seconds, record.ttl_seconds)
            records.append(_text(message.data, record))
    end = canonical if names else ""
    if records and message.rcode == NOERROR:
        return Answer(tuple(dict.fromkeys(records)), ttl_seconds, authenticated, True, end)
    soa = next((record for record in message.authority if record.type == SOA), None)
    if message.rcode == NXDOMAIN:  # the code is about the last name of the chain (RFC 6604 section 2.1)
        return Answer((), min(ttl_seconds, _negative_seconds(message.data, soa)), authenticated, False, end)
    if soa is None:
        if names:
            return Alias(canonical, names, ttl_seconds, authenticated)
        if _is_referral(message):
            raise ServerFailure("a referral: the server does not ask others")
    return Answer((), min(ttl_seconds, _negative_seconds(message.data, soa)), authenticated, True, end)


def _follow(message: Message, name: str, record_type: int) -> tuple[str, int, int]:
    """The name at the end of the CNAMEs, the number of CNAMEs, and the shortest of their times to live in seconds."""
    longest = 0x7FFFFFFF
    if record_type == CNAME:
        return name, 0, longest
    aliases = {record.owner: record for record in message.answers if record.type == CNAME}
    names = 0
    while (record := aliases.get(name)) is not None:
        names += 1
        if names > CHAIN_NAMES:
            raise MalformedMessage("CNAMEs without end")
        longest = min(longest, record.ttl_seconds)
        name = _name(message.data, record.start, record.end)
    return name, names, longest


def _negative_seconds(data: bytes, soa: Record | None) -> int:
    """How many seconds a negative answer may be kept (RFC 2308 section 5).  Without an SOA record it is 0."""
    if soa is None:
        return 0
    _, at = read_name(data, soa.start)
    _, at = read_name(data, at)
    if at + 20 != soa.end:
        raise MalformedMessage("an SOA record of another length")
    minimum = int.from_bytes(data[soa.end - 4 : soa.end])
    return min(soa.ttl_seconds, minimum, NEGATIVE_SECONDS)


def _is_referral(message: Message) -> bool:
    return (
        not message.recursion_available
        and not message.authoritative
        and any(record.type == NS for record in message.authority)
    )


# --- the data of each type, as text ---


def _text(data: bytes, record: Record) -> str:
    type, start, end = record.type, record.start, record.end
    if type == A:
        if end - start != 4:
            raise MalformedMessage("an A record of another length")
        return socket.inet_ntop(socket.AF_INET, data[start:end])
    if type == AAAA:
        if end - start != 16:
            raise MalformedMessage("an AAAA record of another length")
        return socket.inet_ntop(socket.AF_INET6, data[start:end])
    if type == MX:  # where it is too short, no name ends with it
        return f"{data[start] << 8 | data[start + 1]} {_name(data, start + 2, end)}"
    if type == TXT:
        return _strings(data, start, end)
    if type == TLSA:
        if end - start < 3:  # without any data it is of no use, but takes nothing from the others
            raise MalformedMessage("a TLSA record of another length")
        return f"{data[start]} {data[start + 1]} {data[start + 2]} {data[start + 3 : end].hex()}"
    return _name(data, start, end)  # PTR, CNAME, NS


def _name(data: bytes, start: int, end: int) -> str:
    name, behind = read_name(data, start)
    if behind != end:
        raise MalformedMessage("a name of another length than its record")
    return name


def _strings(data: bytes, start: int, end: int) -> str:
    if start == end:
        raise MalformedMessage("a TXT record without a string")  # RFC 1035 section 3.3.14: one or more
    parts = []
    while start < end:
        length = data[start]
        parts.append(data[start + 1 : start + 1 + length])
        start += 1 + length
    if start != end:
        raise MalformedMessage("a string that reaches beyond its TXT record")
    return b"".join(parts).decode("ascii", "surrogateescape")


def reverse_name(address: str) -> str:
    """The name at which the PTR records of an address are (RFC 1035 section 3.5, RFC 3596 section 2.5).  Raises ValueError."""
    return ipaddress.ip_address(address).reverse_pointer
