"""What our house has, by its configuration and its keys on the disk.  Everything blocks."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterable, Sequence
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import NameOID

from mailserver.config import Configuration
from mailserver.config.endpoints import bare_endpoint, is_local, place_of
from mailserver.config.route_table import next_hop_of, next_hop_of_relay
from mailserver.config.web_facts import policy_of
from mailserver.config.web_table import access_of
from mailserver.dns.servers import read_resolv_conf
from mailserver.doctor.house_facts import CertificateAuthority, DomainFacts, OfferedService, SendsBy, WantedKey
from mailserver.mail.dns_records import ServerAddress
from mailserver.relay.own_ipv6 import FAR_IPV4, kernels_address
from mailserver.tls.identity import IdentityError, read_authorities
from mailserver.tls.issued import account_url, issued_pair, later_spki, next_spki, spki_of
from mailserver.trust.signing_keys import read_keys

__all__ = ["facts_of", "recursive_servers"]

RESOLV_CONF = "/etc/resolv.conf"
RESOLV_CONF_OCTETS = 65536
SELF_SIGNED = os.path.join("tls", "self-signed.pem")  # as the server makes it below its data
# The name under which CAA records know the CA that a certificate calls by this organization (RFC 8659 section 4.2)
AUTHORITIES = {
    "let's encrypt": ("letsencrypt.org",),
    "zerossl": ("sectigo.com", "zerossl.com"),
    "sectigo limited": ("sectigo.com", "comodoca.com"),
    "digicert inc": ("digicert.com",),
    "globalsign nv-sa": ("globalsign.com",),
    "google trust services": ("pki.goog",),
    "google trust services llc": ("pki.goog",),
    "buypass as-983163327": ("buypass.com",),
    "actalis s.p.a.": ("actalis.it",),
    "ssl corporation": ("ssl.com",),
    "harica": ("harica.gr",),
}

# The same, by where the CA's directory is (RFC 8555 section 7.1.1)
DIRECTORIES = {
    "letsencrypt.org": ("letsencrypt.org",),
    "zerossl.com": ("sectigo.com",),
    "sectigo.com": ("sectigo.com",),
    "pki.goog": ("pki.goog",),
    "buypass.com": ("buypass.com",),
    "buypass.no": ("buypass.com",),
    "actalis.com": ("actalis.it",),
    "ssl.com": ("ssl.com",),
    "digicert.com": ("digicert.com",),
}


def facts_of(configuration: Configuration, domain: str, addresses: Sequence[str] = ()) -> DomainFacts:
    """Of one domain (A-labels, lower case), by a configuration with the checked options of its components.

    `addresses` are ours as a person says; else `dns.public_addresses`, else they are looked for on this host.  Raises OSError,
    with the file's name, where the keys for DKIM cannot be read.
    """
    known = tuple(addresses) or configuration.dns.public_addresses
    chain = _chain(configuration)
    serves_web = bool(configuration.web_listeners)
    keys = read_keys(configuration.keys_path).get(domain)
    return DomainFacts(
        domain=domain,
        hostname=configuration.hostname.lower().removesuffix("."),
        addresses=known or _own_addresses(configuration),
        addresses_are_sure=bool(known),
        receives=_is_ours(configuration, domain),
        sends_by=_sends_by(configuration),
        keys=() if keys is None else tuple([WantedKey(one.selector, one.key.record, one.state) for one in keys.keys]),
        signs=any(one.use == "dkim_signing" for one in configuration.filter),
        chain=tuple([one.public_bytes(serialization.Encoding.DER) for one in chain]),
        spki=spki_of(chain[0].public_key()) if chain else "",
        next_spki=next_spki(configuration.keys_path, "mail") if configuration.by_acme is not None else "",
        later_spki=later_spki(configuration.keys_path, "mail") if configuration.by_acme is not None else "",
        authorities=_authorities(configuration, chain),
        services=_services(configuration),
        dmarc_reports_to=_read_at(configuration, "dmarc_reports", domain),
        tls_reports_to=_read_at(configuration, "tls_reports", domain),
        serves_web=serves_web,
        serves_clients=serves_web and bool(configuration.web.imap or configuration.web.pop3),
        policy=policy_of(configuration, domain),
    )


def recursive_servers(configuration: Configuration) -> tuple[ServerAddress, ...]:
    """The name servers of this host, as the server itself asks them.  Raises OSError."""
    if configuration.dns.servers:
        return tuple(configuration.dns.servers)
    with open(RESOLV_CONF, encoding="utf-8", errors="replace") as file:
        return tuple([one.address for one in read_resolv_conf(file.read(RESOLV_CONF_OCTETS)).servers])


def _is_ours(configuration: Configuration, domain: str) -> bool:
    table = configuration.domain.get(domain) or configuration.domain.get(f"*.{domain.partition('.')[2]}")
    return table is not None and not table.disabled


def _sends_by(configuration: Configuration) -> SendsBy:
    match configuration.relay.use:
        case "mx":
            return SendsBy.OURSELVES
        case "none" | "capture":
            return SendsBy.OURSELVES if any(one.use == "mx" for one in configuration.route) else SendsBy.NOBODY
    return SendsBy.SMARTHOST


def _own_addresses(configuration: Configuration) -> tuple[str, ...]:
    """Those that a stranger can reach: of the listeners, and those from which mail leaves."""
    found = [place.host for one in configuration.listen if (place := place_of(bare_endpoint(one.endpoint))) is not None]
    relay = next_hop_of_relay(configuration.relay.use, configuration.relay.options)
    hops = [relay] if relay is not None else []
    for route in configuration.route:
        if route.use == "mx":
            hops.append(next_hop_of(route, relay))
    for hop in hops:
        found += [one for one in (hop.source_ipv4, hop.source_ipv6) if one]
    return _of_the_internet([*found, kernels_address(FAR_IPV4), kernels_address()])


def _of_the_internet(addresses: Iterable[str]) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for one in addresses:
        try:
            ip = ipaddress.ip_address(one)
        except ValueError:
            continue
        if ip.is_global:
            found[str(ip)] = None
    return tuple(found)


def _chain(configuration: Configuration) -> list[x509.Certificate]:
    """The certificate that other servers see; none where no listener for them has TLS, or it cannot be read."""
    if all(one.tls == "none" for one in configuration.listen if one.service == "mx"):
        return []
    named = configuration.tls.name.get(configuration.hostname)
    path = named.certificate if named is not None else configuration.tls.certificate
    issued = issued_pair(configuration.keys_path, "mail").certificate
    if path is None and configuration.by_acme is not None and os.path.exists(issued):
        path = issued
    try:
        return read_authorities(path or os.path.join(configuration.data, SELF_SIGNED))
    except IdentityError:  # `mailserver check` tells
        return []


def _authorities(configuration: Configuration, chain: Sequence[x509.Certificate]) -> tuple[CertificateAuthority, ...]:
    """Those from which the next certificate may come: the CAs of `[acme]`, else that of the present one."""
    found: list[CertificateAuthority] = []
    if (table := configuration.by_acme) is not None:
        for directory in filter(None, (table.directory, table.second)):
            host, account = urlsplit(directory).hostname or "", account_url(configuration.keys_path, directory)
            known = [names for end, names in DIRECTORIES.items() if f".{host}".endswith(f".{end}")]
            found += [CertificateAuthority(names, table.challenge, account) for names in known]
        return tuple(found)
    organizations = chain[0].issuer.get_attributes_for_oid(NameOID.ORGANIZATION_NAME) if chain else []
    names = AUTHORITIES.get(str(organizations[0].value).lower(), ()) if organizations else ()
    return (CertificateAuthority(names),) if names else ()


def _services(configuration: Configuration) -> tuple[OfferedService, ...]:
    found: dict[OfferedService, None] = {}
    for one in configuration.listen:
        place = place_of(bare_endpoint(one.endpoint))
        if one.service == "submission" and place is not None and place.port and not is_local(one.endpoint):
            name = "_submissions._tcp" if one.tls == "implicit" else "_submission._tcp"
            found[OfferedService(name, place.port)] = None
    web = configuration.web
    readers = [("imap", access_of(web.imap, "imap"))] if web.imap is not None else []
    readers += [("pop3", access_of(web.pop3, "pop3"))] if web.pop3 is not None else []
    for protocol, (host, port, tls) in readers:
        found[OfferedService(f"_{protocol}{'s' if tls == 'implicit' else ''}._tcp", port, host.lower())] = None
    return tuple(found)


def _read_at(configuration: Configuration, use: str, domain: str) -> str:
    """The address at which reports of others are read by a filter, "" where there is none."""
    for one in configuration.filter:
        local_part = getattr(one.options, "local_part", "")
        if one.use == use and local_part:
            return f"{local_part}@{domain}"
    return ""
