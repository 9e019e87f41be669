"""Whom Postfix lets relay by the address alone: never more than there, and never the whole Internet."""

from __future__ import annotations

import ipaddress

from mailserver.config.values import network
from mailserver.moving.postfix_files import Service, words
from mailserver.moving.postfix_source import PostfixSource

__all__ = ["relaying_networks"]

Net = ipaddress.IPv4Network | ipaddress.IPv6Network
PERMITS = frozenset({"permit", "permit_mynetworks"})
REFUSES = frozenset({"reject", "defer", "defer_if_permit", "reject_unauth_destination", "defer_unauth_destination"})
BITS_LEAST = {4: 8, 6: 16}  # wider ones are no network of anybody's
TODO = "write the networks that are yours into [relay] networks"


def relaying_networks(source: PostfixSource) -> list[str]:
    """mynetworks, as [relay] has it.

    Empty where the rules for relaying refuse before they come to permit_mynetworks.  ``!`` takes a network out of what follows.
    """
    smtp = next((one for one in source.services if _is_smtp(one)), None)
    for name in ("smtpd_relay_restrictions", "smtpd_recipient_restrictions"):
        if not _permits(source.value_for(smtp, name) if smtp else source[name]):
            why = f"{name} refuses before it comes to permit_mynetworks: they may not relay, and [relay] networks is empty"
            source.reckoning.same("mynetworks", source["mynetworks"], why)
            return []
    found: list[Net] = []
    out: list[Net] = []
    for word in source.listed("mynetworks"):
        try:
            one = _network(word.removeprefix("!"))
        except ValueError as error:
            source.reckoning.left("mynetworks", word, str(error), "write the networks that remain into [relay] networks")
            if word.startswith("!"):  # what it takes out is not known
                break
            continue
        if word.startswith("!"):
            out.append(one)
        elif _is_too_wide(one):
            source.reckoning.left("mynetworks", word, "a relay that is open to the Internet", TODO)
        else:
            found += _less([one], out)
    if source.is_set("mynetworks") and not source.reckoning.knows("mynetworks"):
        source.reckoning.carried("mynetworks", source.raw("mynetworks"), "[relay] networks")
    return list(dict.fromkeys(str(network(str(one))) for one in found))


def _is_smtp(service: Service) -> bool:
    is_server = service.type == "inet" and service.program in ("smtpd", "postscreen")
    return is_server and service.name.rpartition(":")[2] in ("smtp", "25")


def _permits(rules: str) -> bool:
    """Whether who is in mynetworks gets by.  At the end of a list everybody does."""
    after = ""
    for word in words(rules):
        if word in PERMITS:
            return True
        if word in REFUSES and after != "warn_if_reject":
            return False
        after = word
    return True


def _is_too_wide(one: Net) -> bool:
    return one.prefixlen < BITS_LEAST[one.version] and not (one.is_private or one.is_link_local)


def _less(these: list[Net], out: list[Net]) -> list[Net]:
    for gone in out:
        left: list[Net] = []
        for one in these:
            if one.version != gone.version or not one.overlaps(gone):
                left.append(one)
            elif isinstance(one, ipaddress.IPv4Network) and isinstance(gone, ipaddress.IPv4Network):
                left += one.address_exclude(gone) if gone.prefixlen > one.prefixlen else []
            elif isinstance(one, ipaddress.IPv6Network) and isinstance(gone, ipaddress.IPv6Network):
                left += one.address_exclude(gone) if gone.prefixlen > one.prefixlen else []
        these = left
    return these


def _network(word: str) -> Net:
    """A network; IPv4 that is mapped into IPv6 is IPv4.  Raises ValueError."""
    found = ipaddress.ip_network(word.replace("[", "").replace("]", ""), strict=False)
    if isinstance(found, ipaddress.IPv6Network) and found.network_address.ipv4_mapped is not None and found.prefixlen >= 96:
        return ipaddress.ip_network((int(found.network_address.ipv4_mapped), found.prefixlen - 96))
    return found
