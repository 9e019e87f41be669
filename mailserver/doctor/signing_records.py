"""The keys of DKIM (RFC 6376 section 3.6.1): those that sign, those that will, and those by which mail on its way was signed."""

from __future__ import annotations

from collections.abc import Iterator

from mailserver.doctor.findings import (
    CheckedRecord,
    RecordVerdict,
    all_right,
    cannot_tell,
    missing,
    not_known,
    not_wanted,
    wrong,
)
from mailserver.doctor.house_facts import DomainFacts, SendsBy, WantedKey
from mailserver.doctor.seen import Seen, SeenState, followed
from mailserver.doctor.zone_text import ZoneRecord
from mailserver.trust.dkim_key import is_shown, parse_key
from mailserver.trust.tag_list import TagFault, parse_tags

__all__ = ["check_signing"]

GROUP = "DKIM"
FAULTS = {"active": "dkim-missing", "next": "dkim-next-missing", "retired": "dkim-retired-missing"}
WORDS = {
    "active": "the key that signs is not shown: nobody can verify the mail of the domain",
    "next": "the key that will sign next is not shown: it has to be there before `mailserver dkim rotate`",
    "retired": "a key that has signed until a short while ago is not shown: mail that is on its way cannot be verified",
}


def check_signing(facts: DomainFacts, seen: Seen) -> Iterator[CheckedRecord]:
    """A verdict for each key."""
    if not facts.keys or not facts.signs:
        yield _nobody_signs(facts)
    for key in facts.keys:
        yield _key(key, seen, f"{key.selector}._domainkey.{facts.domain}")


def _nobody_signs(facts: DomainFacts) -> CheckedRecord:
    name = f"_domainkey.{facts.domain}"
    if facts.sends_by is SendsBy.NOBODY:
        return not_wanted(GROUP, name, "TXT", "no mail leaves from here")
    if not facts.keys:
        why, to_do = "the domain has no keys: its mail is not signed", f"`mailserver dkim new {facts.domain}` makes some"
    else:
        why = "there are keys, and nobody signs with them"
        to_do = 'the configuration needs a table [[filter]] with use = "dkim_signing"'
    return CheckedRecord(
        group=GROUP, name=name, type="TXT", verdict=RecordVerdict.MISSING, why=why, fault="dkim-not-signing", to_do=to_do,
        is_advice=facts.sends_by is SendsBy.SMARTHOST,  # which may sign
    )  # fmt: skip


def _key(key: WantedKey, seen: Seen, name: str) -> CheckedRecord:
    found = followed(seen, name, "TXT")
    ours = ZoneRecord(name, "TXT", key.record)
    if cannot_tell(found):
        return not_known(GROUP, found)
    if found.state is not SeenState.FOUND:
        return missing(GROUP, found, FAULTS[key.state], WORDS[key.state], [ours])
    if len(found.records) > 1:
        others = [one for one in found.records if not is_shown(key.record, [one.encode("ascii", "replace")])]
        why = f"there are {len(found.records)} records: which of them is taken is a matter of luck (RFC 6376 section 3.6.2.2)"
        shown = len(others) < len(found.records)
        return wrong(GROUP, found, "dkim-two", why, add=[] if shown else [ours], remove=others or found.records[1:])
    (text,) = found.records
    fault, why = _fault(key, text)
    if fault:
        return wrong(GROUP, found, fault, why, add=[ours], remove=[text])
    return all_right(GROUP, found, {"active": "signs", "next": "will sign next", "retired": "has signed"}[key.state])


def _fault(key: WantedKey, text: str) -> tuple[str, str]:
    octets = text.encode("ascii", "surrogateescape")
    try:
        tags = parse_tags(text)
        if "p" in tags and not tags["p"].strip():
            return "dkim-revoked", "the record says that the key has been revoked (p= is empty)"
        found = parse_key(octets.decode("ascii", "replace"))
    except TagFault as error:
        return "dkim-syntax", f"the record cannot be read: {error}"
    if not is_shown(key.record, [octets]):
        return "dkim-other", "the record has another key than ours"
    if found.testing:
        return "dkim-testing", "t=y says that the domain only tries DKIM: what it signs counts as if it were not signed"
    return "", ""
