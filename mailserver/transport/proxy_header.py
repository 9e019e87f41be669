"""The header of the PROXY protocol, versions 1 and 2, by which a proxy names its client.  Read without I/O.

The source is HAProxy's `doc/proxy-protocol.txt`; the sections named here are its own.  Version 1 is a line of 107 octets at most
(section 2.1), version 2 a signature of 12 octets, 4 octets that say what follows, and that (section 2.2); what stands behind
the addresses there (TLVs) is skipped.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

__all__ = ["OCTETS_MOST", "HeaderFault", "Origin", "read_header"]

OCTETS_MOST = 4096  # of a version 2; one with all its TLVs, a certificate's names among them, has some hundred
LINE_OCTETS = 107  # section 2.1, with the CRLF
WORD = b"PROXY "
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
START_OCTETS = 16
PORT = re.compile(r"0|[1-9][0-9]{0,4}")
LOCAL, PROXY = 0, 1
TCP_OVER_IPV4, TCP_OVER_IPV6 = 0x11, 0x21
NO_INTERNET_STREAM = frozenset({0x00, 0x12, 0x22, 0x31, 0x32})  # unspecified, datagrams, Unix sockets


class HeaderFault(Exception):
    """The header is missing or malformed; the words say what is wrong."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Who is behind the proxy: a numeric IP address and a port.

    `address` is "" where the proxy does not say: for connections of its own (LOCAL, a health check) and for what it does not
    know or cannot express (UNKNOWN).  An IPv4 address that is mapped into IPv6 is given as IPv4.
    """

    address: str = ""
    port: int = 0


def read_header(octets: bytes) -> tuple[Origin, int] | None:
    """Who is behind the proxy, and how many octets the header has; None: it is not whole yet.

    `octets` are all that have come so far.  Raises `HeaderFault` as soon as no octet that follows could mend it.
    """
    if octets.startswith(WORD):
        return _read_line(octets)
    if octets.startswith(SIGNATURE):
        return _read_binary(octets)
    if WORD.startswith(octets) or SIGNATURE.startswith(octets):
        return None
    raise HeaderFault("none found")


def _read_line(octets: bytes) -> tuple[Origin, int] | None:
    end = octets.find(b"\r\n", 0, LINE_OCTETS)
    if end < 0:
        if len(octets) >= LINE_OCTETS:
            raise HeaderFault("its line is too long")
        return None
    words = octets[len(WORD) : end].decode("latin-1").split(" ")
    if words[0] == "UNKNOWN":  # whatever follows is to be ignored
        return Origin(), end + 2
    if words[0] not in ("TCP4", "TCP6") or len(words) != 5:
        raise HeaderFault("it is not PROXY TCP4 or TCP6 with two addresses and two ports")
    _, source, destination, source_port, destination_port = words
    _address(words[0], destination)
    _port(destination_port)
    return Origin(_address(words[0], source), _port(source_port)), end + 2


def _address(family: str, text: str) -> str:
    try:
        if family == "TCP4":
            return str(ipaddress.IPv4Address(text))
        if "%" in text:  # a zone means nothing here
            raise ValueError(text)
        return _text(ipaddress.IPv6Address(text))
    except ValueError:
        raise HeaderFault(f"it has no address of {family} where one has to be") from None


def _port(text: str) -> int:
    if PORT.fullmatch(text) is None or int(text) > 65535:
        raise HeaderFault("it has no port where one has to be")
    return int(text)


def _read_binary(octets: bytes) -> tuple[Origin, int] | None:
    if len(octets) < START_OCTETS:
        return None
    version, command, family = octets[12] >> 4, octets[12] & 0x0F, octets[13]
    end = START_OCTETS + int.from_bytes(octets[14:START_OCTETS], "big")
    if version != 2 or command not in (LOCAL, PROXY):
        raise HeaderFault("it is of a version or has a command that does not exist")
    if end > OCTETS_MOST:
        raise HeaderFault("it is too long")
    if command == PROXY and family not in (TCP_OVER_IPV4, TCP_OVER_IPV6, *NO_INTERNET_STREAM):
        raise HeaderFault("its address family does not exist")
    if len(octets) < end:
        return None
    if command == LOCAL or family in NO_INTERNET_STREAM:
        return Origin(), end
    size = 4 if family == TCP_OVER_IPV4 else 16
    addresses = octets[START_OCTETS:end]
    if len(addresses) < 2 * size + 4:
        raise HeaderFault("it is too short for its addresses")
    source, port = addresses[:size], int.from_bytes(addresses[2 * size : 2 * size + 2], "big")
    return Origin(str(ipaddress.IPv4Address(source)) if size == 4 else _text(ipaddress.IPv6Address(source)), port), end


def _text(address: ipaddress.IPv6Address) -> str:
    return str(address.ipv4_mapped or address)
