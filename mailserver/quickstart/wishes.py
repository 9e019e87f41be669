"""What is asked for: the first address, what the host is called, and where everything goes.  No I/O but for what this host is."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from mailserver.config.choice import INSTALLED
from mailserver.config.values import host_name
from mailserver.mail.address import Address, AddressError

__all__ = ["HousePorts", "HouseWishes", "WrongWish", "checked_address", "checked_host", "default_places", "hostname_of"]

SYSTEM_USER = "mailserver"
SYSTEM_DATA = "/var/lib/mailserver"
LOCAL_ENDS = ("localhost", "localdomain", "local", "lan", "internal", "home.arpa")
HOSTS_OCTETS = 65536


class WrongWish(ValueError):
    """What is asked for cannot be; the words say why."""


@dataclass(frozen=True, slots=True)
class HousePorts:
    """Where the server will listen."""

    mx: int = 25
    submissions: int = 465
    submission: int = 587
    https: int = 443
    http: int = 80
    metrics: int = 9154


HIGH_PORTS = HousePorts(2525, 2465, 2587, 8443, 8080, 9154)  # for a user who may not have the low ones


@dataclass(frozen=True, slots=True, kw_only=True)
class HouseWishes:
    """`address` is the first account's, in normal form, `domain` its domain.

    `config`, `data` and `keys` are absolute paths; `user` is the system user who runs the server, "" for whoever runs this.
    `addresses` are the host's own as the Internet sees them, where it does not know them itself; `behind_nat` says that it does
    not, and that the DNS shall be believed.
    `smarthost` is "" or ``HOST:PORT``, through which all mail leaves.  `with_web_unit`: the web process is a unit of its own.
    `imap` is "" or ``HOST`` or ``HOST:PORT``, where users read their mail.
    """

    address: str
    domain: str
    hostname: str
    config: str
    data: str
    keys: str
    user: str = ""
    addresses: tuple[str, ...] = ()
    behind_nat: bool = False
    smarthost: str = ""
    with_acme: bool = True
    with_web: bool = True
    acme_directory: str = ""
    ports: HousePorts = HousePorts()
    has_ipv6: bool = True
    local_programs: bool = False
    with_web_unit: bool = False
    imap: str = ""

    @property
    def accounts(self) -> str:
        """The accounts file."""
        return os.path.join(self.data, "accounts.toml")

    @property
    def plain(self) -> dict[str, Any]:
        """For the ledger."""
        return asdict(self) | {"addresses": list(self.addresses)}

    @classmethod
    def of_plain(cls, found: Mapping[str, Any]) -> HouseWishes:
        """Raises ValueError, TypeError or KeyError for what is none."""
        known = {field.name: found[field.name] for field in fields(cls)}
        return cls(**known | {"addresses": tuple(found["addresses"]), "ports": HousePorts(**found["ports"])})


def checked_address(text: str) -> tuple[str, str]:
    """The address in the form in which the account is kept, and its domain in A-labels.  Raises `WrongWish`."""
    try:
        address = Address.parse(text, utf8=True)
        domain = address.domain_key
    except AddressError as error:
        raise WrongWish(f"{text!r} is not an address: {error}") from None
    if address.bare or address.has_odd_dots:
        raise WrongWish(f"{text!r}: no new account can have this local part")
    if address.is_literal:
        raise WrongWish(f"{text!r}: an account needs a domain, not an address literal")
    if "." not in domain:
        raise WrongWish(f"{text!r}: {domain} is a single label, and the DNS has no mail for it: say you@example.org")
    try:
        host_name(domain)
    except ValueError as error:
        raise WrongWish(str(error)) from None
    local = text.rpartition("@")[0]
    return f"{local}@{domain}", domain


def checked_host(text: str) -> str:
    """The host's name in A-labels.  Raises `WrongWish` for one that is not fully qualified."""
    try:
        name = host_name(text.removesuffix("."))
    except ValueError as error:
        raise WrongWish(str(error)) from None
    if "." not in name:
        raise WrongWish(f"{text!r} is not fully qualified: say mail.example.org")
    return name


def hostname_of(domain: str, own: str, hosts: str) -> str:
    """What the host shall be called: its own full name, else ``mail.`` and the domain.

    `own` is what the kernel says, `hosts` the text of /etc/hosts, which may have the full name of a short one.
    """
    names = [own]
    for line in hosts.splitlines():
        words = line.partition("#")[0].split()[1:]
        if own and own in words:
            names += words
    for name in names:
        try:
            full = checked_host(name)
        except WrongWish:
            continue
        if not any(full == end or full.endswith("." + end) for end in LOCAL_ENDS):
            return full
    return f"mail.{domain}"


def own_names() -> tuple[str, str]:
    """What the kernel calls this host, and /etc/hosts."""
    try:
        with open("/etc/hosts", encoding="utf-8", errors="replace") as file:
            return socket.gethostname(), file.read(HOSTS_OCTETS)
    except OSError:
        return socket.gethostname(), ""


def default_places(uid: int, home: str) -> tuple[str, str, str]:
    """Configuration, data, and the system user: those of the system for root, else in the user's own folders."""
    if uid == 0:
        return INSTALLED, SYSTEM_DATA, SYSTEM_USER
    return (
        os.path.join(home, ".config", "mailserver", "mailserver.toml"),
        os.path.join(home, ".local", "share", "mailserver"),
        "",
    )


def checked_ip(text: str) -> str:
    """A numeric address.  Raises `WrongWish`."""
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise WrongWish(f"{text!r} is no IP address") from None


def checked_host_and_port(text: str, usual: int) -> str:
    """``HOST:PORT``; the `usual` port where none is said.  Raises `WrongWish`."""
    host, colon, port = text.rpartition(":")
    if not colon:
        host, port = text, str(usual)
    if not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise WrongWish(f"{text!r}: say HOST or HOST:PORT")
    try:
        return f"{host_name(host)}:{int(port)}"
    except ValueError as error:
        raise WrongWish(str(error)) from None
