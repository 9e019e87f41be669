"""Who takes the domain's mail: its MX records (RFC 5321 section 5.1, RFC 7505)."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from mailserver.doctor.findings import CheckedRecord, all_right, cannot_tell, missing, not_known, not_wanted, wrong
from mailserver.doctor.house_facts import DomainFacts
from mailserver.doctor.seen import Seen, SeenRecords, SeenState, followed
from mailserver.doctor.wanted import mx_record

__all__ = ["check_exchangers", "own_addresses"]

GROUP = "MX"


def check_exchangers(facts: DomainFacts, seen: Seen) -> Iterator[CheckedRecord]:
    """One verdict, or one for each fault."""
    found = seen.of(facts.domain, "MX")
    if not facts.receives:
        if found.state is SeenState.FOUND:
            yield all_right(GROUP, found, "mail for the domain goes elsewhere")
        else:
            yield not_wanted(GROUP, facts.domain, "MX", "no mail for the domain is delivered here")
        return
    ours = mx_record(facts)
    if cannot_tell(found):
        yield not_known(GROUP, found)
    elif found.alias:
        why = f"the domain itself is an alias (CNAME) of {found.alias}: beside it there can be no other record"
        yield wrong(GROUP, found, "domain-is-cname", why, add=[ours])
    elif found.state is not SeenState.FOUND:
        yield missing(GROUP, found, "mx-missing", "no record says who takes the mail of the domain", [ours])
    elif any(_host(one) == "." for one in found.records):
        null = [one for one in found.records if _host(one) == "."]
        why = "the null MX says that the domain takes no mail"
        yield wrong(GROUP, found, "mx-null", why, add=[] if ours.data in found.records else [ours], remove=null)
    else:
        faults = [*_faults(facts, found, seen)]
        yield from faults
        if not faults:
            yield all_right(GROUP, found, f"mail goes to {', '.join(map(_host, found.records))}")


def _faults(facts: DomainFacts, found: SeenRecords, seen: Seen) -> Iterator[CheckedRecord]:
    ours = mx_record(facts)
    hosts = {_host(one) for one in found.records}
    add = [] if facts.hostname in hosts else [ours]
    broken = False
    for record in found.records:
        host = _host(record)
        if _is_address(host):
            broken = True
            why = f"{host} is an address: an MX record names a host (RFC 5321 section 5.1)"
            yield wrong(GROUP, found, "mx-is-address", why, add=add, remove=[record])
            continue
        address, alias = seen.of(host, "A"), seen.of(host, "A").alias
        if alias:
            broken = True
            why = f"{host} is an alias (CNAME) of {alias}: an MX record names what has addresses itself (RFC 2181 section 10.3)"
            yield wrong(GROUP, found, "mx-is-cname", why, add=add, remove=[record])
        elif host != facts.hostname and not _has_address(address, seen.of(host, "AAAA")):
            broken = True
            why = f"{host} has no address: mail for the domain cannot come there"
            yield wrong(GROUP, found, "mx-without-address", why, add=add, remove=[record])
    if facts.hostname not in hosts and not broken and not any(_leads_to_us(facts, host, seen) for host in hosts):
        why = f"mail for the domain goes to {', '.join(sorted(hosts))}, and not to {facts.hostname}"
        yield wrong(GROUP, found, "mx-elsewhere", why, add=[ours], remove=found.records)


def _host(record: str) -> str:
    return record.rpartition(" ")[2]


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _has_address(*found: SeenRecords) -> bool:
    """Who cannot be asked gets no blame."""
    return any(one.state in (SeenState.FOUND, SeenState.FAILED) for one in found)


def own_addresses(facts: DomainFacts, seen: Seen) -> tuple[str, ...]:
    """Ours: as we know them, else as the DNS shows them."""
    if facts.addresses:
        return facts.addresses
    return tuple([one for type in ("A", "AAAA") for one in followed(seen, facts.hostname, type).records])


def _leads_to_us(facts: DomainFacts, host: str, seen: Seen) -> bool:
    ours = set(own_addresses(facts, seen))
    return any(ours & set(seen.of(host, type).records) for type in ("A", "AAAA"))
