"""Who sends for the domain: SPF, of the domain and of the host's name (RFC 7208)."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence

from mailserver.doctor.evaluation import at_once, query_of
from mailserver.doctor.findings import CheckedRecord, all_right, cannot_tell, missing, not_known, wrong
from mailserver.doctor.house_facts import DomainFacts, SendsBy
from mailserver.doctor.mail_exchangers import own_addresses
from mailserver.doctor.seen import Seen, SeenRecords, SeenState, ZoneSeen, followed
from mailserver.doctor.spf_look_ups import LOOK_UPS_MOST, count_look_ups
from mailserver.doctor.wanted import address_type, domain_spf, host_spf, mx_record
from mailserver.doctor.zone_text import ZoneRecord
from mailserver.trust.spf import SPFResult, check_host
from mailserver.trust.spf_record import SPFFault, SPFRecord, is_record, parse_record

__all__ = ["check_sender_policy"]

GROUP = "SPF"
DEAREST_SHOWN = 3


def check_sender_policy(facts: DomainFacts, seen: Seen) -> Iterator[CheckedRecord]:
    """The domain's record, and the host's."""
    yield from _record(facts, seen, facts.domain, domain_spf(facts), is_host=False)
    if facts.hostname != facts.domain:
        yield from _record(facts, seen, facts.hostname, host_spf(facts), is_host=True)


def _record(facts: DomainFacts, seen: Seen, name: str, wanted: ZoneRecord, *, is_host: bool) -> Iterator[CheckedRecord]:
    found = followed(seen, name, "TXT")
    if cannot_tell(found):
        yield not_known(GROUP, found)
        return
    texts = [one for one in found.records if one[:6].lower() == "v=spf1"]
    shown = _only(found, texts)
    if not texts:
        why = "the host's name, which is in HELO, has no SPF record" if is_host else "no record says who sends for the domain"
        fault = "spf-host-missing" if is_host else "spf-missing"
        yield missing(GROUP, shown, fault, why, [wanted], is_advice=is_host)
    elif len(texts) > 1:
        why = f"there are {len(texts)} SPF records, which counts as none that can be read (RFC 7208 section 3.2)"
        yield wrong(GROUP, shown, "spf-two", why, add=[ZoneRecord(name, "TXT", _joined(texts, wanted.data))], remove=texts)
    else:
        try:
            record = parse_record(_octets(texts[0]))
            if not is_record(_octets(texts[0])):
                raise SPFFault("behind v=spf1 there is no space")
        except SPFFault as error:
            yield wrong(GROUP, shown, "spf-syntax", f"the SPF record cannot be read: {error}", add=[wanted], remove=texts)
            return
        faults = [*_faults(facts, seen, shown, record)]
        yield from faults
        if not faults:
            count = count_look_ups(seen, name, _octets(texts[0])).count
            yield all_right(GROUP, shown, f"{count} of {LOOK_UPS_MOST} look-ups")


def _faults(facts: DomainFacts, seen: Seen, found: SeenRecords, record: SPFRecord) -> Iterator[CheckedRecord]:
    """What is to be put in is one record for all faults that another record mends."""
    (text,) = found.records
    rewritten, told = text, []
    everybody = [one for one in record.terms if one.mechanism == "all" and one.result == "pass"]
    if everybody:
        rewritten = _without(rewritten, everybody[0].text) + " ~all"
        told.append(("spf-plus-all", f"{everybody[0].text} says that everybody may send for {found.name}"))
    by_name = [one for one in record.terms if one.mechanism == "ptr"]
    if by_name:
        rewritten = _without(rewritten, by_name[0].text)
        told.append(("spf-ptr", f"{by_name[0].text} is slow, and must not be used (RFC 7208 section 5.5)"))
    look_ups = count_look_ups(seen, found.name, _octets(text))
    if look_ups.count > LOOK_UPS_MOST:
        dearest = ", ".join([f"{term} ({count})" for term, count in look_ups.terms[:DEAREST_SHOWN]])
        why = f"the record costs {look_ups.count} look-ups, and {LOOK_UPS_MOST} are allowed (RFC 7208 section 4.6.4): {dearest}"
        to_do = "put addresses (ip4:, ip6:) in the place of the dearest terms, or leave out whoever sends no more for you"
        yield wrong(GROUP, found, "spf-look-ups", why, to_do=to_do)
    elif facts.sends_by is SendsBy.OURSELVES:
        lacking = _lacking(facts, seen, found, rewritten)
        if isinstance(lacking, CheckedRecord):
            yield lacking
        elif lacking:
            terms = " ".join([f"ip{ipaddress.ip_address(one).version}:{one}" for one in lacking])
            rewritten = f"{rewritten[:6]} {terms}{rewritten[6:]}"
            if not told:  # else it may be that what is taken out has named us
                told.append(("spf-without-us", f"our address {', '.join(lacking)} may not send for {found.name}"))
    for fault, why in told:
        yield wrong(GROUP, found, fault, why, add=[ZoneRecord(found.name, "TXT", rewritten)], remove=found.records)


class _Mended:
    """What would be seen with this SPF record, and if MX and the host's addresses were as they are wanted: their faults are told
    once, with them.
    """

    def __init__(self, facts: DomainFacts, seen: Seen, name: str, text: str) -> None:
        self._seen = seen
        self._sets: dict[tuple[str, str], tuple[str, ...]] = {(name, "TXT"): (text,)}
        for address in facts.addresses:
            key = facts.hostname, address_type(address)
            self._sets[key] = (*self._sets.get(key, ()), address)
        if facts.receives:
            self._sets[facts.domain, "MX"] = (mx_record(facts).data,)

    def of(self, name: str, type: str) -> SeenRecords:
        records = self._sets.get((name, type))
        return self._seen.of(name, type) if records is None else SeenRecords(name, type, SeenState.FOUND, records)

    def zone(self, name: str) -> ZoneSeen:
        return self._seen.zone(name)


def _lacking(facts: DomainFacts, seen: Seen, found: SeenRecords, text: str) -> list[str] | CheckedRecord:
    """Those of our addresses that may not send by this record, or why that is not known."""
    lacking: list[str] = []
    mended = _Mended(facts, seen, found.name, text)
    for address in own_addresses(facts, seen):
        said = _said(mended, address, found.name, facts.hostname)
        if said.result == "permerror":
            return wrong(GROUP, found, "spf-broken", f"the record cannot be evaluated: {said.reason}")
        if said.result == "temperror":
            return not_known(GROUP, SeenRecords(found.name, "TXT", SeenState.FAILED, why=said.reason))
        if said.result != "pass":
            lacking.append(address)
    return lacking


def _without(text: str, term: str) -> str:
    return " ".join([one for one in text.split(" ") if one != term])


def _joined(texts: Sequence[str], wanted: str) -> str:
    """One record with the terms of all that can be read."""
    terms: list[str] = []
    for text in texts:
        try:
            record = parse_record(_octets(text))
        except SPFFault:
            continue
        terms += [one.text for one in record.terms if one.mechanism != "all"]
        terms += [f"include:{record.redirect}"] if record.redirect else []
    return " ".join(["v=spf1", *dict.fromkeys(terms), "~all"]) if terms else wanted


def _only(found: SeenRecords, texts: Sequence[str]) -> SeenRecords:
    return SeenRecords(found.name, found.type, found.state, tuple(texts))


def _octets(text: str) -> bytes:
    return text.encode("ascii", "surrogateescape")


def _said(seen: Seen, address: str, domain: str, hello: str) -> SPFResult:
    asked = check_host(query_of(seen), ipaddress.ip_address(address), domain, f"postmaster@{domain}", hello)
    result: SPFResult = at_once(asked)
    return result
