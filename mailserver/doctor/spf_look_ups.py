"""How many look-ups an SPF record costs whoever reads all of it (RFC 7208 section 4.6.4)."""

from __future__ import annotations

from dataclasses import dataclass

from mailserver.doctor.seen import Seen, followed
from mailserver.trust.spf_record import SPFFault, is_record, parse_record

__all__ = ["LOOK_UPS_MOST", "SPFLookUps", "count_look_ups"]

LOOK_UPS_MOST = 10
COUNTED_MOST = 60  # nobody's record needs more to be wrong
ASKING = ("include", "a", "mx", "ptr", "exists")


@dataclass(frozen=True, slots=True)
class SPFLookUps:
    """The number, and the dearest of the terms of the record itself: (term, its look-ups and those below it)."""

    count: int
    terms: tuple[tuple[str, int], ...] = ()


def count_look_ups(seen: Seen, domain: str, text: bytes) -> SPFLookUps:
    """For a record that can be read.  What macros hide costs its own look-up alone."""
    terms = _of_record(seen, text, (domain,))
    dearest = sorted(terms, key=lambda one: -one[1])
    return SPFLookUps(sum(count for _, count in terms), tuple(dearest))


def _of_record(seen: Seen, text: bytes, path: tuple[str, ...]) -> list[tuple[str, int]]:
    try:
        record = parse_record(text)
    except SPFFault:
        return []
    found: list[tuple[str, int]] = []
    for term in record.terms:
        if term.mechanism == "all":
            return found
        if term.mechanism in ASKING:
            below = _of_domain(seen, term.domain, path, sum(count for _, count in found)) if term.mechanism == "include" else 0
            found.append((term.text, 1 + below))
    if record.redirect:
        spent = sum(count for _, count in found)
        found.append((f"redirect={record.redirect}", 1 + _of_domain(seen, record.redirect, path, spent)))
    return found


def _of_domain(seen: Seen, domain: str, path: tuple[str, ...], spent: int) -> int:
    name = domain.lower().removesuffix(".")
    if "%" in name or name in path or len(path) > COUNTED_MOST or spent > COUNTED_MOST:
        return 0
    texts = [one for one in followed(seen, name, "TXT").texts if is_record(one)]
    return sum(count for _, count in _of_record(seen, texts[0], (*path, name))) if len(texts) == 1 else 0
