"""Which records a domain of ours has to show in the DNS, and those of a domain that neither sends nor takes mail."""

from __future__ import annotations

import hashlib
import ipaddress

from mailserver.doctor.house_facts import DomainFacts, SendsBy
from mailserver.doctor.zone_text import ZoneRecord

__all__ = [
    "SMTP_PORT", "address_records", "address_type", "caa_records", "client_records", "dkim_records", "dmarc_record",
    "domain_spf", "host_spf", "mx_record", "parked", "policy_records", "ptr_record", "tls_report_record", "tlsa_records",
    "wanted",
]  # fmt: skip

SMTP_PORT = 25


def wanted(facts: DomainFacts, *, signed: bool) -> tuple[ZoneRecord, ...]:
    """What the zones have to show.  `signed`: the host's zone is; TLSA records are of no use elsewhere (RFC 7672 section 2.2).

    The reverse names are left out: they stand in another's zone.
    """
    found: list[ZoneRecord] = []
    if facts.receives:
        found.append(mx_record(facts))
    found += address_records(facts)
    found += [domain_spf(facts), host_spf(facts)]
    found += dkim_records(facts)
    found.append(dmarc_record(facts))
    if facts.receives:
        found += policy_records(facts) if facts.serves_web else ()
        found += tls_report_record(facts)
        found += tlsa_records(facts) if signed else ()
    found += caa_records(facts)
    found += client_records(facts)
    return tuple(dict.fromkeys(found))


def mx_record(facts: DomainFacts) -> ZoneRecord:
    """Who takes the domain's mail."""
    return ZoneRecord(facts.domain, "MX", f"10 {facts.hostname}")


def address_records(facts: DomainFacts) -> tuple[ZoneRecord, ...]:
    """The host's addresses."""
    return tuple([ZoneRecord(facts.hostname, address_type(one), one) for one in facts.addresses])


def address_type(address: str) -> str:
    """A or AAAA."""
    return "A" if ipaddress.ip_address(address).version == 4 else "AAAA"


def ptr_record(facts: DomainFacts, address: str) -> ZoneRecord:
    """The reverse name of one of our addresses: it stands in the zone of whoever lends the address."""
    return ZoneRecord(ipaddress.ip_address(address).reverse_pointer, "PTR", facts.hostname)


def domain_spf(facts: DomainFacts) -> ZoneRecord:
    """Who sends for the domain (RFC 7208).  ``~all``, since forwarded mail has DKIM alone, and DMARC decides over both."""
    match facts.sends_by:
        case SendsBy.NOBODY:
            text = "v=spf1 -all"
        case SendsBy.SMARTHOST:
            text = "v=spf1 mx ?all" if facts.receives else f"v=spf1 a:{facts.hostname} ?all"
        case _:
            text = "v=spf1 mx ~all" if facts.receives else f"v=spf1 a:{facts.hostname} ~all"
    return ZoneRecord(facts.domain, "TXT", text)


def host_spf(facts: DomainFacts) -> ZoneRecord:
    """The host's name is in HELO, and the sender's domain of its bounces (RFC 7208 section 2.3)."""
    if facts.hostname == facts.domain:
        return domain_spf(facts)
    return ZoneRecord(facts.hostname, "TXT", "v=spf1 a -all")


def dkim_records(facts: DomainFacts) -> tuple[ZoneRecord, ...]:
    """The keys that sign, those that will, and those by which mail on its way was signed."""
    return tuple([ZoneRecord(f"{one.selector}._domainkey.{facts.domain}", "TXT", one.record) for one in facts.keys])


def dmarc_record(facts: DomainFacts) -> ZoneRecord:
    """At first it asks for nothing but reports (RFC 9989)."""
    reports = f"; rua=mailto:{facts.dmarc_reports_to}" if facts.dmarc_reports_to else ""
    return ZoneRecord(f"_dmarc.{facts.domain}", "TXT", f"v=DMARC1; p=none{reports}")


def policy_records(facts: DomainFacts) -> tuple[ZoneRecord, ...]:
    """MTA-STS (RFC 8461): the id is another one where the policy is, or the host."""
    id = hashlib.sha256((facts.policy or facts.hostname).encode()).hexdigest()[:16]
    return (
        ZoneRecord(f"_mta-sts.{facts.domain}", "TXT", f"v=STSv1; id={id}"),
        ZoneRecord(f"mta-sts.{facts.domain}", "CNAME", facts.hostname),
    )


def tls_report_record(facts: DomainFacts) -> tuple[ZoneRecord, ...]:
    """Who wants to know how TLS with our hosts has worked (RFC 8460)."""
    if not facts.tls_reports_to:
        return ()
    return (ZoneRecord(f"_smtp._tls.{facts.domain}", "TXT", f"v=TLSRPTv1; rua=mailto:{facts.tls_reports_to}"),)


def tlsa_records(facts: DomainFacts) -> tuple[ZoneRecord, ...]:
    """The key of the host's certificate, the next one, and one after it made ahead: 3 1 1 (RFC 7672 section 3.1.1)."""
    keys = [one for one in (facts.spki, facts.next_spki, facts.later_spki) if one]
    return tuple([ZoneRecord(f"_{SMTP_PORT}._tcp.{facts.hostname}", "TLSA", f"3 1 1 {one}") for one in keys])


def caa_records(facts: DomainFacts) -> tuple[ZoneRecord, ...]:
    """Who may make certificates for the host (RFC 8659)."""
    names = dict.fromkeys([one for authority in facts.authorities for one in authority.names])
    return tuple([ZoneRecord(facts.hostname, "CAA", f'0 issue "{one}"') for one in names])


def client_records(facts: DomainFacts) -> tuple[ZoneRecord, ...]:
    """Where clients find the ports (RFC 6186, RFC 8314), and the file with all that they need."""
    found = [
        ZoneRecord(f"{one.service}.{facts.domain}", "SRV", f"0 1 {one.port} {one.host or facts.hostname}")
        for one in facts.services
    ]
    if facts.serves_clients:
        found += [ZoneRecord(f"{name}.{facts.domain}", "CNAME", facts.hostname) for name in ("autoconfig", "autodiscover")]
    return tuple(found)


def parked(domain: str) -> tuple[ZoneRecord, ...]:
    """A domain that sends and takes nothing: null MX (RFC 7505), nobody sends, all is refused, no key is valid."""
    return (
        ZoneRecord(domain, "MX", "0 ."),
        ZoneRecord(domain, "TXT", "v=spf1 -all"),
        ZoneRecord(f"_dmarc.{domain}", "TXT", "v=DMARC1; p=reject; sp=reject; adkim=s; aspf=s"),
        ZoneRecord(f"*._domainkey.{domain}", "TXT", "v=DKIM1; p="),
    )
