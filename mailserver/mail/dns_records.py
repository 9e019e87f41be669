"""The questions that a resolver is asked, and its answers."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from mailserver.mail.quick import quick

__all__ = ["MX", "TLSA", "Answer", "LookupFailed", "ServerAddress"]

DNS_PORT = 53


class LookupFailed(Exception):
    """The resolver cannot tell: a time-out, SERVFAIL, REFUSED, an answer that makes no sense.

    It never means that there is no such record.  `rcode` is the code of the last answer, 0 where none came or it made no sense.
    """

    def __init__(self, why: str = "", rcode: int = 0) -> None:
        super().__init__(why)
        self.rcode = rcode


@dataclass(frozen=True, slots=True, order=True)
class MX:
    """A mail exchanger (RFC 1035 section 3.3.9); they sort by preference.  The null MX of RFC 7505 has the exchange "."."""

    preference: int
    exchange: str


@dataclass(frozen=True, slots=True)
class TLSA:
    """A certificate association (RFC 6698 section 2.1): the three numbers as they are, whether known or not."""

    usage: int
    selector: int
    matching_type: int
    data: bytes


@quick
@dataclass(frozen=True, slots=True)
class Answer:
    """The records of one name and type; none where the name or the type does not exist.

    `records` are in the text form of zone files: ``"192.0.2.1"``, ``"10 mx.example.org"``, ``"3 1 1 0f3a…"``.  Names are in
    lower case and have no final dot (the root is "."); an octet that is neither a letter nor plain stands as ``\\DDD``.  The
    strings of a TXT record are joined and unquoted; octets that are not ASCII are surrogates there, see `texts`.

    `name_exists` is False for NXDOMAIN.  `authenticated` is the AD bit of a server whose AD bit may be believed.
    `canonical_name` is where a chain of CNAMEs ended, else empty: then the records are those of the name itself.
    """

    records: tuple[str, ...]
    ttl_seconds: int = 0
    authenticated: bool = False
    name_exists: bool = True
    canonical_name: str = ""

    @property
    def exchanges(self) -> tuple[MX, ...]:
        """The records of an MX answer, in the order of the answer."""
        pairs = [record.split(" ", 1) for record in self.records]
        return tuple([MX(int(preference), exchange) for preference, exchange in pairs])

    @property
    def associations(self) -> tuple[TLSA, ...]:
        """The records of a TLSA answer."""
        fields = [record.split(" ", 3) for record in self.records]
        return tuple([TLSA(int(one), int(two), int(three), bytes.fromhex(data)) for one, two, three, data in fields])

    @property
    def texts(self) -> tuple[bytes, ...]:
        """The records of a TXT answer as octets; the strings of each are joined without a space (RFC 7208 section 3.3)."""
        return tuple([record.encode("ascii", "surrogateescape") for record in self.records])


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """Where a name server listens."""

    host: str
    port: int = DNS_PORT

    @classmethod
    def parse(cls, text: str) -> ServerAddress:
        """``"127.0.0.1"``, ``"127.0.0.1:5353"``, ``"::1"``, ``"[::1]:53"``, ``"fe80::1%eth0"``.  Raises ValueError for others."""
        host, colon, port = text, "", ""
        if text.startswith("["):
            host, bracket, rest = text[1:].partition("]")
            if not bracket or (rest and not rest.startswith(":")):
                raise ValueError(f"{text!r} is not the address of a name server")
            colon, port = rest[:1], rest[1:]
        elif text.count(":") == 1:
            host, colon, port = text.partition(":")
        if colon and not (port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) < 65536):
            raise ValueError(f"{text!r} has no port between 1 and 65535 after the colon")
        try:
            found = ipaddress.ip_address(host)
        except ValueError:
            raise ValueError(f"{text!r} is not the address of a name server (a host name will not do)") from None
        return cls(str(found), int(port) if port else DNS_PORT)

    @property
    def is_loopback(self) -> bool:
        """Whether it is on this host."""
        return ipaddress.ip_address(self.host).is_loopback

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DNS_PORT else f"{host}:{self.port}"
