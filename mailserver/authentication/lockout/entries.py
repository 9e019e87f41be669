"""Lockouts as an administrator names them: entries, and which of them are meant."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

__all__ = ["ACCOUNT", "NETWORK", "PAIR", "LockoutEntry", "LockoutSelection", "key_of", "parts_of", "space_of"]

PAIR = "account-from-network"
ACCOUNT = "account"
NETWORK = "network"
SPACES = {PAIR: "lockout.pair", ACCOUNT: "lockout.account", NETWORK: "lockout.network"}

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class LockoutEntry:
    """What is held against one subject.

    `network` is "" for an account everywhere, `account` is "" for a network.
    `locked_until` is seconds since the epoch, 0 where it is only counted; `lockouts` is how many there have been in a row.
    """

    scope: str
    account: str
    network: str
    failures: int
    locked_until: float
    lockouts: int


@dataclass(frozen=True, slots=True)
class LockoutSelection:
    """Which entries are meant: those that fit all that is given.  `network` may be an address, or wider than the entries'."""

    account: str = ""
    network: str = ""

    def means(self, account: str, network: str) -> bool:
        """Whether it means the entry of this account and this network."""
        if self.account and self.account != account:
            return False
        return not self.network or (network != "" and _meet(self.network, network))


def key_of(account: str, network: str) -> str:
    """The key in the state store.  A network has no blank in its name."""
    return f"{network} {account}"


def parts_of(key: str) -> tuple[str, str]:
    """Account and network of a key."""
    network, _, account = key.partition(" ")
    return account, network


def space_of(scope: str) -> str:
    """Where the state store has the entries of a scope."""
    return SPACES[scope]


def _meet(wanted: str, network: str) -> bool:
    """They have addresses in common."""
    one, other = _network(wanted), _network(network)
    if one is None or other is None or one.version != other.version:
        return wanted == network
    return one.overlaps(other)


def _network(text: str) -> IPNetwork | None:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None
