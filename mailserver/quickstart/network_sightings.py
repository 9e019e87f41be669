"""What is seen of the network: the resolver, our addresses and their names, port 25, lists, and the age of the domain."""

from __future__ import annotations

import errno
import ipaddress
from collections.abc import Iterable
from datetime import UTC, datetime

from mailserver.config.schema import DNSTable
from mailserver.dns.validation import ProbeAnswer, ProbeNames, Validation, examination
from mailserver.doctor.findings import CheckedRecord, RecordVerdict
from mailserver.doctor.host_addresses import check_addresses, check_reverse_names
from mailserver.quickstart.domain_age import NotTold, registered_at
from mailserver.quickstart.verdicts import Outlook, Sighting
from mailserver.quickstart.what_is_seen import Seeing
from mailserver.trust.dns_lists import CodeSet, address_name, read_answer

__all__ = ["addresses", "age", "dns_lists", "outwards", "resolver", "reverse_names"]

LISTS = (
    ("zen.spamhaus.org", "127.255.255.0/24", "https://check.spamhaus.org/"),
    ("bl.spamcop.net", "127.255.255.0/24", "https://www.spamcop.net/bl.shtml"),
)  # zone, the codes with which it refuses a resolver, where to ask to be taken off
FAR_DOMAINS = ("gmail.com", "outlook.com", "yahoo.com")  # whose hosts take connections from everybody
NO_WAY = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN)
YOUNG_DAYS = 30


def resolver(seeing: Seeing) -> list[Sighting]:
    """Whether it validates DNSSEC: it calls a signed name authenticated, and refuses a bogus one."""
    defaults = DNSTable()
    asking = examination(ProbeNames(defaults.signed_zones, defaults.unsigned_zones, defaults.bogus_zones))
    question = next(asking)
    while True:
        told = seeing.eyes.ask(question.name, "NS", checking_disabled=question.checking_disabled)
        try:
            question = asking.send(ProbeAnswer(told.authenticated, told.failure, told.is_servfail))
        except StopIteration as ended:
            finding = ended.value
            break
    fix = "apt install unbound, and in /etc/resolv.conf: nameserver 127.0.0.1"
    if finding.validation is Validation.VALIDATES:
        return [Sighting("resolver", Outlook.OK, str(finding))]
    if finding.validation is Validation.UNKNOWN:
        return [Sighting("resolver", Outlook.UNKNOWN, finding.why, "" if seeing.eyes.servers else fix)]
    return [Sighting("resolver", Outlook.WARN, f"{finding}: there is no DANE with it, and answers may be forged", fix)]


def addresses(seeing: Seeing) -> list[Sighting]:
    """The host's own, as the Internet sees them; and that its name leads to them."""
    facts = seeing.facts
    if not facts.addresses and seeing.wishes.behind_nat:
        found = [one for type in ("A", "AAAA") for one in seeing.seen.of(facts.hostname, type).records]
        if found:
            return [Sighting("addresses", Outlook.OK, f"behind a NAT, and {facts.hostname} leads to {', '.join(found)}")]
        why = f"behind a NAT, and the DNS shows no address of {facts.hostname}"
        return [Sighting("addresses", Outlook.WARN, why, "say which it is: --address 203.0.113.7")]
    if not facts.addresses:
        why = "this host has no address of the Internet: is it behind a NAT?"
        fix = "say --address 203.0.113.7, or --nat where the DNS shows it already"
        return [Sighting("addresses", Outlook.UNKNOWN, why, fix)]
    own = Sighting("addresses", Outlook.OK, ", ".join(facts.addresses))
    return [own, *_records("host's records", check_addresses(facts, seeing.seen))]


def reverse_names(seeing: Seeing) -> list[Sighting]:
    """PTR of each address, and that it leads back."""
    if seeing.wishes.smarthost:
        return [Sighting("reverse names", Outlook.OK, f"{seeing.wishes.smarthost} sends for us: its own count")]
    found = _records("reverse names", check_reverse_names(seeing.facts, seeing.seen))
    return found or [Sighting("reverse names", Outlook.UNKNOWN, "the host's addresses are not known")]


def _records(name: str, checked: Iterable[CheckedRecord]) -> list[Sighting]:
    found = []
    for one in checked:
        if one.verdict is RecordVerdict.NOT_WANTED:
            continue
        standing = {RecordVerdict.OK: Outlook.OK, RecordVerdict.UNKNOWN: Outlook.UNKNOWN}.get(one.verdict, Outlook.WARN)
        fix = "; ".join([*[record.line for record in one.add], *([one.to_do] if one.to_do else [])])
        found.append(Sighting(name, standing, one.why, fix))
    return found


def outwards(seeing: Seeing) -> list[Sighting]:
    """Whether anybody lets us send: many providers close port 25."""
    name = "port 25 outwards"
    if seeing.wishes.smarthost:
        return [Sighting(name, Outlook.OK, f"not needed: mail leaves by {seeing.wishes.smarthost}")]
    failures: list[str] = []
    for domain in FAR_DOMAINS:
        told = seeing.eyes.ask(domain, "MX")
        hosts = sorted((int(one.split()[0]), one.split()[1]) for one in told.records if len(one.split()) == 2)
        if not hosts:
            continue
        host = hosts[0][1].removesuffix(".")
        try:
            said = seeing.eyes.greeting(host, 25)
        except OSError as error:
            if error.errno in NO_WAY:
                return [Sighting(name, Outlook.UNKNOWN, f"there is no way to {host}: {error.strerror}")]
            failures.append(f"{host}: {error.strerror or error}")
            continue
        return [Sighting(name, Outlook.OK, f"{host} says {said[:3]}")]
    if not failures:
        return [Sighting(name, Outlook.UNKNOWN, "the DNS tells no host that could be tried")]
    fix = "ask whoever lends you the host to open port 25 outwards, or say --smarthost HOST:PORT"
    return [Sighting(name, Outlook.FAIL, f"closed on the way: {'; '.join(failures)}", fix)]


def dns_lists(seeing: Seeing) -> list[Sighting]:
    """Whether the addresses stand on a list by which many refuse mail."""
    found = []
    for address in seeing.facts.addresses:
        listed = []
        for zone, refusals, where in LISTS:
            told = seeing.eyes.ask(f"{address_name(ipaddress.ip_address(address))}.{zone}", "A")
            answer = read_answer(told.records, [CodeSet.parse(refusals)])
            if told.failure or answer.says in ("refused", "odd"):
                why = told.failure or "it does not answer this resolver: lists want one of your own"
                listed.append(Sighting("DNS lists", Outlook.UNKNOWN, f"{zone}: {why}"))
            elif answer.says == "listed":
                why = f"{address} is on {zone} ({', '.join(answer.codes)})"
                listed.append(Sighting("DNS lists", Outlook.FAIL, why, f"ask to be taken off: {where}"))
        clean = len(LISTS) - len(listed)
        found += [*([Sighting("DNS lists", Outlook.OK, f"{address}: on none of {clean}")] if clean else []), *listed]
    return found or [Sighting("DNS lists", Outlook.UNKNOWN, "the host's addresses are not known")]


def age(seeing: Seeing) -> list[Sighting]:
    """Mail of a domain that is new is distrusted."""
    name = "age of the domain"
    try:
        domain, since = registered_at(seeing.wishes.domain, seeing.eyes.fetch)
    except (NotTold, OSError, ValueError) as error:
        return [Sighting(name, Outlook.UNKNOWN, str(getattr(error, "reason", error)))]
    days = (datetime.now(UTC) - since).days
    if days < YOUNG_DAYS:
        fix = "send little in the first weeks: large providers distrust new domains"
        return [Sighting(name, Outlook.WARN, f"{domain} was registered {days} days ago", fix)]
    return [Sighting(name, Outlook.OK, f"{domain} was registered on {since.date()}")]
