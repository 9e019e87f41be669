"""Networks: which addresses belong to one, and sets of them."""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Iterable

__all__ = ["LOOPBACK", "NO_NETWORKS", "Network", "Networks", "ip_of", "is_public", "network_name", "network_of"]

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
MAPPED_BITS = 96  # of ::ffff:0:0/96, where IPv4 addresses lie
REMEMBERED = 4096  # answers of one set


@functools.lru_cache(REMEMBERED)  # each filter asks of the same peer
def ip_of(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The IP address, without a zone; one that is mapped into IPv6 as IPv4; None for what is none."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return None
    return ip.ipv4_mapped or ip if isinstance(ip, ipaddress.IPv6Address) else ip


def network_of(address: str) -> bytes:
    """What is counted together: the IPv4 address, the IPv6 /64, b"" for a Unix socket.

    An IPv4 address that is mapped into IPv6 counts as IPv4.  What is no IP address (a proxy's peer) counts as its text.
    """
    if address == "unix":
        return b""
    if ":" in address:
        try:
            ip = ipaddress.IPv6Address(address.partition("%")[0])
        except ValueError:
            return address.encode()
        return str(ip.ipv4_mapped).encode() if ip.ipv4_mapped is not None else ip.packed[:8]
    return address.encode()


def network_name(address: str) -> str:
    """The same for people, without a blank: ``192.0.2.1``, ``2001:db8:1:2::/64``, else the text itself."""
    network = network_of(address)
    if ":" in address and len(network) == 8 and network != address.encode():
        return f"{ipaddress.IPv6Address(network + bytes(8))}/64"
    return "_".join(network.decode().split()) if network else address


class Networks:
    """A set of networks with a cached answer for each address.  What is no IP address is in none of them."""

    __slots__ = ("_answers", "_networks")

    def __init__(self, networks: Iterable[Network]) -> None:
        self._networks = tuple(networks)
        self._answers: dict[str, bool] = {}

    def __contains__(self, address: str) -> bool:
        answer = self._answers.get(address)
        if answer is None:
            if len(self._answers) >= REMEMBERED:
                self._answers.clear()
            answer = self._answers[address] = self._holds(address)
        return answer

    def overlaps(self, network: Network) -> bool:
        """Some address is in both."""
        return any(one.version == network.version and one.overlaps(network) for one in self._networks)

    def covers(self, network: Network) -> bool:
        """Every address of the network is in one or another of these; IPv4 mapped into IPv6 counts as IPv4."""
        first = network.network_address
        if isinstance(first, ipaddress.IPv6Address) and first.ipv4_mapped is not None and network.prefixlen >= MAPPED_BITS:
            network = ipaddress.ip_network((first.ipv4_mapped, network.prefixlen - MAPPED_BITS))
        # Networks that touch are joined into the widest ones, and one that is covered lies in one of those.
        if isinstance(network, ipaddress.IPv4Network):
            fours = [one for one in self._networks if isinstance(one, ipaddress.IPv4Network)]
            return any(network.subnet_of(one) for one in ipaddress.collapse_addresses(fours))
        sixes = [one for one in self._networks if isinstance(one, ipaddress.IPv6Network)]
        return any(network.subnet_of(one) for one in ipaddress.collapse_addresses(sixes))

    def _holds(self, address: str) -> bool:
        ip = ip_of(address)
        return ip is not None and any(ip in network for network in self._networks)


NO_NETWORKS = Networks(())
LOOPBACK = Networks((ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128")))

# The registries of special addresses (RFC 6890 and the IANA's lists after it) that are nobody's in the Internet.
SPECIAL_4 = Networks(
    map(
        ipaddress.IPv4Network,
        (
            "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
            "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
            "224.0.0.0/4", "240.0.0.0/4",
        ),
    )
)  # fmt: skip
GLOBAL_6 = ipaddress.IPv6Network("2000::/3")  # all that has been given to anybody
SPECIAL_6 = Networks(map(ipaddress.IPv6Network, ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")))
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052: the last 32 bits are an IPv4 address


@functools.lru_cache(REMEMBERED)
def is_public(address: str) -> bool:
    """Whether the address is one of the public Internet's, so that a stranger may name it: not ours, nor of our networks.

    An IPv4 address inside an IPv6 one (mapped, NAT64) is looked at itself; tunnels (6to4, Teredo) are nobody's.
    """
    ip = ip_of(address)
    if isinstance(ip, ipaddress.IPv6Address) and ip in NAT64:
        ip = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    if isinstance(ip, ipaddress.IPv6Address):
        return ip in GLOBAL_6 and str(ip) not in SPECIAL_6
    return ip is not None and str(ip) not in SPECIAL_4
