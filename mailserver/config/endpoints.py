"""The syntax of endpoint strings, checked without opening anything.

``kind:argument:name=value:…``; a backslash before a colon, an equals sign or a backslash takes its meaning away, as in
Twisted's `serverFromString`.  The kinds that the server documents are checked argument by argument; others (from an
endpoint plugin) by their form alone.
"""

from __future__ import annotations

import ipaddress
import os
import re
from dataclasses import dataclass

from mailserver.former import former_names

__all__ = [
    "SOCKET_PATH_OCTETS",
    "EndpointPlace",
    "bare_endpoint",
    "checked_endpoint",
    "is_local",
    "is_proxied",
    "place_of",
    "reached_at",
    "socket_path",
    "split_endpoint",
    "unix_socket_of",
]


SOCKET_PATH_OCTETS = 107  # sun_path of Linux, without the closing NUL
KIND = re.compile(r"[A-Za-z][A-Za-z0-9_.+-]*")
PIECE = re.compile(r"((?:[^\\:=]|\\.)*)(:|=|$)", re.DOTALL)
TLS_KINDS = ("ssl", "tls")
ANY = {"tcp": "0.0.0.0", "tcp6": "::"}  # what Twisted takes where no interface is named
PROXIED = "haproxy:"
KEYWORDS = {
    "tcp": ("port", "interface", "backlog"),
    "tcp6": ("port", "interface", "backlog"),
    "unix": ("address", "mode", "backlog", "lockfile"),
    "systemd": ("domain", "index", "name"),
}


def split_endpoint(text: str) -> tuple[str, list[str], dict[str, str]]:
    """The kind, the positional and the named arguments.  Raises ValueError."""
    positional: list[str] = []
    named: dict[str, str] = {}
    name, at = "", 0
    while True:
        piece = PIECE.match(text, at)
        if piece is None:
            raise ValueError("an endpoint must not end in a backslash")
        value, at = re.sub(r"\\(.)", r"\1", piece[1]), piece.end()
        if piece[2] == "=" and not name:
            name = value
            continue
        if piece[2] == "=":
            raise ValueError("an endpoint's argument has a second '=': write \\= for one that is meant")
        if name:
            named[name] = value
        else:
            positional.append(value)
        name = ""
        if not piece[2]:
            break
    if not positional or not KIND.fullmatch(positional[0]):
        raise ValueError('must be an endpoint, such as "tcp:25" or "unix:/run/mail/lmtp.sock"')
    return positional[0], positional[1:], named


@dataclass(frozen=True, slots=True)
class EndpointPlace:
    """What an endpoint takes for itself: an address (`host`) and port of a family, a socket's path, or just its own text."""

    kind: str
    host: str
    port: int = 0

    def clashes_with(self, other: EndpointPlace) -> bool:
        """Whether both cannot be listened on at once.  Port 0 takes any free port.  A wildcard address includes every other."""
        if self.kind not in ("tcp", "tcp6") or self.kind != other.kind:
            return self == other
        return self._is_part_of(other)

    def clashes_across_families(self, other: EndpointPlace) -> bool:
        """The same, where ``tcp6`` on all addresses takes the IPv4 ones, too (Linux with ``bindv6only`` 0)."""
        if {self.kind, other.kind} != {"tcp", "tcp6"} or self.port != other.port or not self.port:
            return False
        return (self.host if self.kind == "tcp6" else other.host) == ANY["tcp6"]

    def _is_part_of(self, other: EndpointPlace) -> bool:
        if self.port != other.port or not self.port:
            return False
        return self.host == other.host or ANY[self.kind] in (self.host, other.host)


def place_of(text: str) -> EndpointPlace | None:
    """Where an endpoint listens, however it is written; None where it is malformed."""
    try:
        kind, positional, named = split_endpoint(text)
        if kind == "haproxy":
            return place_of(text.partition(":")[2])
        if kind in ("tcp", "tcp6"):
            host = named.get("interface", "") or ANY[kind]
            try:
                host = str(ipaddress.ip_address(host))
            except ValueError:
                host = host.lower()
            if ":" in host:
                kind = "tcp6"
            return EndpointPlace(kind, host, int(named.get("port", positional[0] if positional else "")))
    except ValueError:
        return None
    if kind == "unix":
        return EndpointPlace(kind, os.path.normpath(named.get("address", positional[0] if positional else "")))
    return EndpointPlace(kind, text)


def reached_at(text: str) -> tuple[str, int] | None:
    """Where a program of this host reaches an endpoint: numeric address and port, or the path of its socket and 0.

    None where it cannot: a proxy's header is expected there, the port is not known, or the kind is not.
    """
    place = None if is_proxied(text) else place_of(text)
    if place is None or (place.kind != "unix" and not place.port):
        return None
    if place.kind not in ("tcp", "tcp6"):
        return (place.host, 0) if place.kind == "unix" else None
    if place.host == ANY[place.kind]:
        return "::1" if place.kind == "tcp6" else "127.0.0.1", place.port
    try:
        return str(ipaddress.ip_address(place.host)), place.port
    except ValueError:
        return None


def is_local(text: str) -> bool:
    """Whether only this host can connect: loopback, or a Unix socket."""
    place = place_of(text)
    if place is None:
        return False
    if place.kind not in ("tcp", "tcp6"):
        return place.kind == "unix"
    try:
        return ipaddress.ip_address(place.host).is_loopback
    except ValueError:
        return place.host == "localhost"


def unix_socket_of(text: str) -> tuple[str, int, bool] | None:
    """The path and the mode of a unix endpoint that was checked, and whether a socket left behind there is replaced; else None.

    Mode and `lockfile` (1: replaced) are by default what they are with Twisted, which kept a lock file for the last.
    """
    kind, positional, named = split_endpoint(bare_endpoint(text))
    if kind != "unix":
        return None
    path = named.get("address", positional[0] if positional else "")
    return os.path.normpath(path), int(named.get("mode", "666"), 8), named.get("lockfile", "1") != "0"


def socket_path(path: str) -> str:
    """Return the path.  Raises ValueError where it is too long for the address of a Unix socket."""
    if len(os.fsencode(path)) > SOCKET_PATH_OCTETS:
        raise ValueError(f"the path of a Unix socket has {SOCKET_PATH_OCTETS} octets at most")
    return path


def is_proxied(text: str) -> bool:
    """Whether connections begin with a PROXY header."""
    return text.startswith(PROXIED)


def bare_endpoint(text: str) -> str:
    """The endpoint below ``haproxy:``.  Twisted's own wrapper is not used, since `mailserver.receive` reads the header."""
    return text.removeprefix(PROXIED)


def checked_endpoint(text: str) -> str:
    """Return the text.  Raises ValueError with a sentence about the first fault."""
    kind, positional, named = split_endpoint(text)
    if kind in TLS_KINDS:
        raise ValueError(f'{kind!r} is not for a listener: use a tcp endpoint and tls = "implicit"')
    if kind == "haproxy":
        inner = checked_endpoint(bare_endpoint(text))
        if inner == text or is_proxied(inner):
            raise ValueError("haproxy: stands once, before an endpoint: haproxy:tcp:25")
        return text
    known = KEYWORDS.get(kind)
    if known is not None:
        unknown = [name for name in named if name not in known]
        if unknown:
            raise ValueError(f"a {kind} endpoint has no {unknown[0]!r}; it has {', '.join(known)}")
    if kind in ("tcp", "tcp6"):
        _check_tcp(positional, named)
    elif kind == "unix":
        _check_unix(positional, named)
    return text


def _check_tcp(positional: list[str], named: dict[str, str]) -> None:
    port = named.get("port", positional[0] if positional else "")
    if not re.fullmatch("[0-9]{1,5}", port) or int(port) > 65535:
        raise ValueError(f"{port!r} is not a port: a number from 0 to 65535")
    backlog = named.get("backlog", "50")
    if not re.fullmatch("[0-9]{1,9}", backlog):
        raise ValueError(f"{backlog!r} is not a backlog: a number of connections")
    interface = named.get("interface", "")
    if interface and re.fullmatch(r"[0-9A-Fa-f:.%\w-]+", interface) is None:
        raise ValueError(f"{interface!r} is not an interface: an IP address (in IPv6 each colon is written \\:)")


def _check_unix(positional: list[str], named: dict[str, str]) -> None:
    if not (path := named.get("address", positional[0] if positional else "")):
        raise ValueError("a unix endpoint needs a path: unix:/run/mail/lmtp.sock")
    socket_path(path)
    mode = named.get("mode", "660")
    if not re.fullmatch("[0-7]{3,4}", mode):
        raise ValueError(f"{mode!r} is not a mode: octal digits, such as 660")


__getattr__ = former_names(__name__)
