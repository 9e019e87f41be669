"""What the DNS says of our host's certificate: TLSA (RFC 7672), and who may make one (CAA, RFC 8659)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from mailserver.doctor.findings import CheckedRecord, all_right, cannot_tell, missing, not_known, not_wanted, wrong
from mailserver.doctor.house_facts import CertificateAuthority, DomainFacts
from mailserver.doctor.seen import DNSSECState, Seen, SeenRecords, SeenState, followed
from mailserver.doctor.wanted import SMTP_PORT, caa_records, tlsa_records
from mailserver.doctor.zone_text import ZoneRecord
from mailserver.mail.dns_records import TLSA, Answer
from mailserver.trust.dane import DaneMismatch, TLSAAnswer, TLSAState, is_usable, match

__all__ = ["check_authorities", "check_tlsa"]

TLSA_GROUP, CAA_GROUP = "TLSA", "CAA"
SIGNED = (DNSSECState.SECURE, DNSSECState.EXPIRED, DNSSECState.BOGUS)
# property  flags tag value; of an issue property the value begins with the CA's name     RFC 8659 sections 4.1 and 4.2
PROPERTY = re.compile(r'(\d{1,3}) ([A-Za-z0-9]+) "?\s*([^";\s]*)\s*(;[^"]*)?"?')


def check_tlsa(facts: DomainFacts, seen: Seen, now: float) -> Iterator[CheckedRecord]:
    """`now` in seconds since the epoch: a certificate of a trust anchor has dates."""
    if not facts.receives:
        return
    name = f"_{SMTP_PORT}._tcp.{facts.hostname}"
    found = followed(seen, name, "TLSA")
    zone = seen.zone(facts.hostname)
    if cannot_tell(found):
        yield not_known(TLSA_GROUP, found)
    elif zone.dnssec not in SIGNED and zone.dnssec is not DNSSECState.UNKNOWN:
        if found.state is SeenState.FOUND:
            why = f"the zone {zone.name} is not signed, so nobody believes these records (RFC 7672 section 2.2)"
            to_do = f"sign the zone {zone.name}, or take them out"
            yield wrong(TLSA_GROUP, found, "tlsa-unsigned", why, remove=found.records, to_do=to_do)
        else:
            yield not_wanted(TLSA_GROUP, name, "TLSA", f"the zone {zone.name} is not signed")
    elif not facts.chain:
        yield not_wanted(TLSA_GROUP, name, "TLSA", "the configuration names no certificate: the server makes one of its own")
    elif found.state is not SeenState.FOUND:
        why = "the zone is signed: with these records everybody knows the host's certificate"
        yield missing(TLSA_GROUP, found, "tlsa-missing", why, tlsa_records(facts))
    else:
        yield from _certificate(facts, found, now)


def _certificate(facts: DomainFacts, found: SeenRecords, now: float) -> Iterator[CheckedRecord]:
    associations = Answer(found.records).associations
    usable = tuple([one for one in associations if is_usable(one)])
    names = (facts.hostname, facts.domain)
    matched = match(TLSAAnswer(TLSAState.USABLE, usable, facts.hostname, names), facts.chain, now)
    present, *following = tlsa_records(facts)
    if isinstance(matched, DaneMismatch):
        add = [one for one in (present, *following) if one.data not in found.records]
        why = f"whoever asks for DANE sends us nothing: {matched.why}"
        yield wrong(TLSA_GROUP, found, "tlsa-wrong", why, add=add, remove=found.records)
    elif following and following[0].data not in found.records and not _holds_any_key(usable):
        why = "the key that comes next is not shown: mail would stop on the day of the new certificate"
        yield wrong(TLSA_GROUP, found, "tlsa-next-missing", why, add=following)
    else:
        yield all_right(TLSA_GROUP, found, matched.why)
        if len(usable) == 1 and not following and not _holds_any_key(usable):
            why = "there is one record for one key: before the key changes, the next one's has to be shown beside it"
            yield wrong(TLSA_GROUP, found, "tlsa-only-one", why, is_advice=True)


def _holds_any_key(records: tuple[TLSA, ...]) -> bool:
    """A trust anchor stays when the key changes."""
    return any(one.usage == 2 for one in records)


def check_authorities(facts: DomainFacts, seen: Seen) -> Iterator[CheckedRecord]:
    """The CAA records that count for the host: its own, else those of the nearest name above (RFC 8659 section 3)."""
    ours = caa_records(facts)
    labels = facts.hostname.split(".")
    found = SeenRecords(facts.hostname, "CAA")
    for start in range(len(labels) - 1):
        found = followed(seen, ".".join(labels[start:]), "CAA")
        if found.state is SeenState.FOUND or cannot_tell(found):
            break
    if cannot_tell(found):
        yield not_known(CAA_GROUP, found)
    elif found.state is not SeenState.FOUND:
        if ours:
            why = "every CA of the world may make a certificate for the host"
            yield missing(CAA_GROUP, SeenRecords(facts.hostname, "CAA"), "caa-missing", why, ours, is_advice=True)
        else:
            yield not_wanted(CAA_GROUP, facts.hostname, "CAA", "every CA may make a certificate for the host")
    else:
        yield from _permission(facts, found)


def _permission(facts: DomainFacts, found: SeenRecords) -> Iterator[CheckedRecord]:
    properties = [one for record in found.records if (one := PROPERTY.fullmatch(record)) and one[2].lower() == "issue"]
    issuers = {one[3].lower() for one in properties} - {""}
    faults = [one for authority in facts.authorities for one in _of_authority(authority, found, properties)] if properties else []
    if not faults:
        yield all_right(CAA_GROUP, found, f"{', '.join(sorted(issuers)) or 'no CA'} may make certificates")
        return
    yield from faults


def _of_authority(
    authority: CertificateAuthority, found: SeenRecords, properties: Sequence[re.Match[str]]
) -> Iterator[CheckedRecord]:
    """Its name has to stand there once without a condition that we do not meet (RFC 8657)."""
    name = authority.names[0]
    ours = [one for one in properties if one[3].lower() in authority.names]
    if not ours:
        why = f"the CA {name}, from which our certificates come or may come, may make none: a renewal will fail"
        forbidding = [one[0] for one in properties if not one[3]]
        add = [ZoneRecord(found.name, "CAA", f'0 issue "{one}"') for one in authority.names]
        yield wrong(CAA_GROUP, found, "caa-forbids", why, add=add, remove=forbidding)
        return
    for fault, parameter, value in (
        ("caa-method", "validationmethods", authority.method), ("caa-account", "accounturi", authority.account)
    ):  # fmt: skip
        conditions = [_parameters(one[4] or "").get(parameter, "") for one in ours]
        if value and all(conditions) and all(value not in [part.strip() for part in one.split(",")] for one in conditions):
            why = f"the CA {name} may make certificates with {parameter}={conditions[0]} alone, and we have {value}"
            add = [ZoneRecord(found.name, "CAA", f'0 issue "{name}; {parameter}={value}"')]
            yield wrong(CAA_GROUP, found, fault, why, add=add, remove=[one[0] for one in ours])


def _parameters(text: str) -> dict[str, str]:
    """``; accounturi=https://…; validationmethods=http-01`` (RFC 8659 section 4.2)."""
    pairs = [one.partition("=") for one in text.split(";") if "=" in one]
    return {name.strip().lower(): value.strip() for name, _, value in pairs}
