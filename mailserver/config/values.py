"""The types of configuration values: what a person writes in TOML, and what the server gets.

Each type takes the text that people like ("50M", "4h", "192.0.2.0/24") as well as the plain number.  A fault is a
`ValueError` whose sentence says what was expected.
"""

from __future__ import annotations

import ipaddress
import os
import re
from dataclasses import replace
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, ValidationInfo

from mailserver.config.endpoints import checked_endpoint, socket_path
from mailserver.config.quantities import octets, seconds
from mailserver.mail.address import Address, AddressError, normal_domain, parse_domain
from mailserver.mail.dns_records import ServerAddress

__all__ = [
    "AddressOrDomain",
    "AliasMember",
    "Count",
    "DomainKey",
    "DomainName",
    "Duration",
    "Endpoint",
    "FilePath",
    "Fingerprint",
    "HostName",
    "MailAddress",
    "NameServer",
    "Network",
    "Octets",
    "Size",
    "SocketPath",
    "Time",
]

COUNT_MOST = 1_000_000_000
FINGERPRINT = re.compile(r"[0-9a-f]{64}")

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network


def network(value: Any) -> IPNetwork:
    """A network, from ``"192.0.2.0/24"``, ``"2001:db8::/32"``, or one address."""
    if isinstance(value, ipaddress.IPv4Network | ipaddress.IPv6Network):
        return value
    if not isinstance(value, str):
        raise ValueError('must be a network, such as "192.0.2.0/24" or "::1"')
    try:
        return ipaddress.ip_network(value)
    except ValueError as error:
        raise ValueError(f"is not a network: {error}") from None


def domain_name(value: str) -> str:
    """A domain in normal form: lower case, A-labels."""
    try:
        return normal_domain(parse_domain(value, utf8=True))
    except AddressError as error:
        raise ValueError(f"{value!r} is not a domain: {error}") from None


def host_name(value: str) -> str:
    """A domain name that other hosts can look up: with at least one letter, and not an address literal."""
    name = domain_name(value)
    if name.startswith("[") or not re.search("[a-z]", name):
        raise ValueError(f"{value!r} is not a host name")
    return name


def domain_key(value: str) -> str:
    """A domain, or ``*.`` and a domain, which means every name below it."""
    return "*." + host_name(value[2:]) if value.startswith("*.") else domain_name(value)


def mail_address(value: Any) -> Address:
    """``"alice@example.org"`` as an `Address`, its domain normalised."""
    if not isinstance(value, str):
        if isinstance(value, Address):
            return value
        raise ValueError('must be an address, such as "alice@example.org"')
    try:
        address = Address.parse(value, utf8=True)
    except AddressError as error:
        raise ValueError(f"{value!r} is not an address: {error}") from None
    return replace(address, domain=address.domain_key)


def alias_member(value: Any) -> Address:
    """An address, or a local part alone: a name in the alias's own domain (the `Address` has the domain "" then)."""
    if not isinstance(value, str) or "@" in value:
        return mail_address(value)
    return replace(mail_address(value + "@example.invalid"), domain="")


def name_server(value: Any) -> ServerAddress:
    """A name server's address, from ``"127.0.0.1"``, ``"127.0.0.1:5353"`` or ``"[::1]:53"``."""
    if not isinstance(value, str):
        if isinstance(value, ServerAddress):
            return value
        raise ValueError('must be the address of a name server, such as "127.0.0.1" or "[::1]:53"')
    return ServerAddress.parse(value)


def address_or_domain(value: str) -> str:
    """``"alice@example.org"``, ``"example.org"`` or ``"*.example.org"``, normalised, as text."""
    return str(mail_address(value)) if "@" in value else domain_key(value)


def fingerprint(value: str) -> str:
    """A SHA-256 fingerprint in hex, with or without colons; lower case without them."""
    digits = value.replace(":", "").lower()
    if FINGERPRINT.fullmatch(digits) is None:
        raise ValueError("must be a SHA-256 fingerprint: 64 hexadecimal digits, colons between them or not")
    return digits


def absolute_path(value: str, info: ValidationInfo) -> str:
    """A path; a relative one counts from the folder of the configuration file, ``{data}/…`` and ``{home}/…`` stay."""
    if not value or "\0" in value:
        raise ValueError("must be a path")
    directory = (info.context or {}).get("directory")
    if directory is None or value.startswith("{"):
        return value
    return os.path.normpath(os.path.join(directory, os.path.expanduser(value)))


Size = Annotated[int, BeforeValidator(octets)]
Duration = Annotated[float, BeforeValidator(seconds)]
Time = Annotated[Duration, Field(gt=0)]
Octets = Annotated[Size, Field(gt=0)]
Count = Annotated[int, Field(ge=1, le=COUNT_MOST)]
Network = Annotated[IPNetwork, PlainValidator(network)]
DomainName = Annotated[str, AfterValidator(domain_name)]
DomainKey = Annotated[str, AfterValidator(domain_key)]
HostName = Annotated[str, AfterValidator(host_name)]
AddressOrDomain = Annotated[str, AfterValidator(address_or_domain)]
Fingerprint = Annotated[str, AfterValidator(fingerprint)]
AliasMember = Annotated[Address, PlainValidator(alias_member)]
NameServer = Annotated[ServerAddress, PlainValidator(name_server)]
MailAddress = Annotated[Address, PlainValidator(mail_address)]
FilePath = Annotated[str, AfterValidator(absolute_path)]
SocketPath = Annotated[FilePath, AfterValidator(socket_path)]
Endpoint = Annotated[str, AfterValidator(checked_endpoint)]
