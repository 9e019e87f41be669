"""The name that a client gives with EHLO or HELO: what is wrong with it as it stands (RFC 5321 section 4.1.1.1)."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Container, Iterable
from typing import Literal

from mailserver.mail.networks import LOOPBACK, Network, ip_of

__all__ = ["HelloFault", "hello_fault"]

HelloFault = Literal["hello_syntax", "hello_short", "hello_own", "hello_address", "hello_other_address"]
LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"  # many hosts have "_" in their names
NAME = re.compile(rf"(?=.{{1,254}}$)(?:{LABEL}\.)*{LABEL}\.?")
OF_THIS_HOST = ("localhost", "localhost.localdomain")


def hello_fault(
    hello: str,
    ip: ipaddress.IPv4Address | ipaddress.IPv6Address | None,
    *,
    own_names: Container[str],
    own_networks: Iterable[Network],
) -> tuple[HelloFault, str] | None:
    """The first thing that is wrong with the name that the peer at `ip` gave, with words for people; None where nothing is.

    `own_names` are in lower case.  Section 4.1.3 has the form of address literals.
    """
    literal = hello[1:-1] if hello.startswith("[") and hello.endswith("]") else None
    text = hello if literal is None else literal[5:] if literal[:5].lower() == "ipv6:" else literal
    address = None if "%" in text else ip_of(text)
    if address is not None:
        if str(address) in LOOPBACK or any(address in network for network in own_networks):
            return "hello_own", f"calls itself {hello}: that is an address of ours"
        if literal is None:
            return "hello_address", f"calls itself {hello}: an address stands in brackets"
        if ip is not None and address != ip:
            return "hello_other_address", f"calls itself {hello}: that is not its address"
        return None
    name = hello.rstrip(".").lower()
    if NAME.fullmatch(hello) is None or name.rpartition(".")[2].isdigit():
        return "hello_syntax", f"calls itself {hello!r}: neither a domain nor an address in brackets"
    if name in own_names or name in OF_THIS_HOST:
        return "hello_own", f"calls itself {hello}: that is a name of ours"
    if "." not in name:
        return "hello_short", f"calls itself {hello}: not a whole domain"
    return None
