"""What is tried, by the configuration: listeners, lists, and an account that is nobody's.  Blocks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mailserver.config import Configuration
from mailserver.config.endpoints import is_proxied, place_of
from mailserver.delivery.maildir import MaildirOptions
from mailserver.delivery.names import PathTemplate, TemplateError
from mailserver.doctor.own_network import is_ours
from mailserver.doctor.probe_mail import ACCOUNT
from mailserver.doctor.smtp_talk import ServerPlace
from mailserver.filters.dnsbl import DNSListsOptions
from mailserver.relay.own_ipv6 import FAR_IPV4, kernels_address
from mailserver.trust.dns_lists import CodeSet

__all__ = ["AskedList", "TrialFacts", "trial_facts_of"]

ANY = ("", "0.0.0.0", "::")
REFUSED = ("127.255.255.0/24", "127.0.0.1")
LOOPBACK = {4: "127.0.0.1", 6: "::1"}


@dataclass(frozen=True, slots=True)
class AskedList:
    """A DNS list of those who are not to send; `refused` are the codes by which it says that it does not answer."""

    name: str
    zone: str
    versions: tuple[int, ...] = (4, 6)
    refused: tuple[CodeSet, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialFacts:
    """`listeners` are those through which strangers may try to send; `probe` is the account for the message, `maildir` where its
    mail stands ("": nobody can tell, and no message is sent).
    """

    listeners: tuple[ServerPlace, ...] = ()
    lists: tuple[AskedList, ...] = ()
    probe: str = ""
    maildir: str = ""


def trial_facts_of(configuration: Configuration, domain: str, addresses: Iterable[str]) -> TrialFacts:
    """`addresses` are the host's own, as far as they are known."""
    probe = f"{ACCOUNT}@{domain}"
    return TrialFacts(
        listeners=_listeners(configuration, [one for one in addresses if is_ours(one)]),
        lists=_lists(configuration),
        probe=probe,
        maildir=_maildir(configuration, domain),
    )


def _listeners(configuration: Configuration, own: list[str]) -> tuple[ServerPlace, ...]:
    """On an address of the host that others can reach, where it has one: to loopback a server may be kinder."""
    found: dict[ServerPlace, None] = {}
    for one in configuration.listen:
        place = place_of(one.endpoint)
        if one.service not in ("mx", "submission") or is_proxied(one.endpoint) or place is None or not place.port:
            continue
        if place.kind not in ("tcp", "tcp6"):
            continue
        version = 4 if place.kind == "tcp" else 6
        host = place.host
        if host in ANY:
            mine = [ip for ip in own if (":" in ip) == (version == 6)]
            host = mine[0] if mine else (version == 4 and kernels_address(FAR_IPV4)) or LOOPBACK[version]
        found[ServerPlace(host, place.port, one.tls == "implicit")] = None
    return tuple(found)


def _lists(configuration: Configuration) -> tuple[AskedList, ...]:
    """Those that filters ask, without those of the good, and those of `dns.address_lists`."""
    found: dict[str, AskedList] = {}
    for table in configuration.filter:
        if table.use != "dnsbl" or not isinstance(table.options, DNSListsOptions):
            continue
        for one in table.options.list:
            versions = tuple([int(kind[-1]) for kind in ("ipv4", "ipv6") if kind in one.about])
            if versions and max([one.score or 0.0, *one.codes.values()]) > 0:
                name = "_".join((one.name or one.zone).split())
                found.setdefault(one.zone, AskedList(name, one.zone, versions, _codes(one.refused)))
    for zone in configuration.dns.address_lists:
        found.setdefault(zone, AskedList(zone, zone, refused=_codes(REFUSED)))
    return tuple(found.values())


def _codes(texts: Iterable[str]) -> tuple[CodeSet, ...]:
    return tuple([CodeSet.parse(one) for one in texts])


def _maildir(configuration: Configuration, domain: str) -> str:
    options = configuration.delivery.options
    if not isinstance(options, MaildirOptions):
        return ""
    try:
        template = PathTemplate(options.path, data_directory=configuration.data)
        return "" if template.needs_home else template.path(user=ACCOUNT, domain=domain)
    except TemplateError:
        return ""
