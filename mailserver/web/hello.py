"""Which protocols a client offers in its ClientHello (ALPN, RFC 7301 section 3.1): read from the octets, without I/O.

OpenSSL tells it only when the certificate has been chosen, and a CA that asks for ``acme-tls/1`` wants another one.
"""

from __future__ import annotations

__all__ = ["HELLO_OCTETS", "offered_protocols"]

HELLO_OCTETS = 65536  # more than any has, with post-quantum shares and padding; OpenSSL takes no more than 131,396
HANDSHAKE, CLIENT_HELLO, ALPN = 22, 1, 16


def offered_protocols(octets: bytes) -> tuple[bytes, ...]:
    """Those in the ClientHello with which a connection begins; none where it offers none, or is no whole one."""
    try:
        return _protocols(_hello(octets))
    except IndexError:
        return ()


def _hello(octets: bytes) -> bytes:
    """The handshake message, out of the records in which it came (RFC 8446 section 5.1)."""
    message, at = b"", 0
    while octets[at] == HANDSHAKE:
        end = at + 5 + int.from_bytes(octets[at + 3 : at + 5], "big")
        message += octets[at + 5 : end]
        if len(message) >= 4 and len(message) >= (length := 4 + int.from_bytes(message[1:4], "big")):
            return message[:length] if message[0] == CLIENT_HELLO else b""
        at = end
    return b""


def _protocols(hello: bytes) -> tuple[bytes, ...]:
    at = 4 + 2 + 32  # type and length, version, random (RFC 8446 section 4.1.2)
    at += 1 + hello[at]  # session
    at += 2 + int.from_bytes(hello[at : at + 2], "big")  # ciphers
    at += 1 + hello[at]  # compressions
    at += 2
    while at < len(hello):
        kind, length = int.from_bytes(hello[at : at + 2], "big"), int.from_bytes(hello[at + 2 : at + 4], "big")
        if kind == ALPN:
            return tuple(_names(hello[at + 6 : at + 4 + length]))
        at += 4 + length
    return ()


def _names(octets: bytes) -> list[bytes]:
    found, at = [], 0
    while at < len(octets):
        found.append(octets[at + 1 : at + 1 + octets[at]])
        at += 1 + octets[at]
    return found
