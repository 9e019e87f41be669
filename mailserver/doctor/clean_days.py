"""How long all has been well with a domain, and which stricter policy it is ready for then: DMARC's, MTA-STS's.

A day is one look of the daily ones, which are 20 hours apart at least by a clock that nobody sets: neither a restart nor a clock
that jumps makes it more.  A look that finds a fault begins anew, and so does another policy.  A look that cannot tell, and a day
without one, count nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from mailserver.doctor.findings import POLICY, TRIAL, CheckedRecord, RecordVerdict
from mailserver.doctor.report_evidence import ReportEvidence
from mailserver.doctor.zone_text import ZoneRecord
from mailserver.trust.dmarc_record import parse_record
from mailserver.trust.tag_list import TagFault, parse_tags

__all__ = ["CLEAN_DAYS", "CleanDays", "StricterPolicy", "counted", "is_clean", "policies_of", "proposal"]

CLEAN_DAYS = 30
Kind = Literal["DMARC", "MTA-STS"]
STRICTER: Mapping[str, Mapping[str, str]] = {
    "DMARC": {"none": "quarantine", "quarantine": "reject"},
    "MTA-STS": {"testing": "enforce"},
}
DONE = {"quarantine": "put aside", "reject": "refused"}


@dataclass(frozen=True, slots=True)
class StricterPolicy:
    """The policy that the domain shows now, the next stricter one, and the record or line that shows it now."""

    kind: Kind
    stage: str
    next: str
    text: str


@dataclass(frozen=True, slots=True)
class CleanDays:
    """How many there were with the policy `stage`; `told`: postmaster knows that the next one can come.

    `waits` says why nothing is proposed after as many days as are wanted: no reports, or what they say.
    """

    stage: str
    days: int = 0
    told: bool = False
    waits: str = ""

    @property
    def plain(self) -> dict[str, Any]:
        """For the state, and for programs."""
        return asdict(self)

    @classmethod
    def of(cls, plain: Any) -> CleanDays | None:
        """None for what is none."""
        if not isinstance(plain, dict) or not isinstance(plain.get("stage"), str) or not isinstance(plain.get("days"), int):
            return None
        return cls(plain["stage"], plain["days"], plain.get("told") is True, str(plain.get("waits", "")))


def policies_of(domain: str, records: Sequence[CheckedRecord]) -> tuple[StricterPolicy, ...]:
    """Those of the domain for which there is a stricter one, as a look has seen them."""
    found: list[StricterPolicy] = []
    for one in records:
        if one.verdict is not RecordVerdict.OK:
            continue
        if one.group == "DMARC" and one.name == f"_dmarc.{domain}" and len(one.seen) == 1:
            record = parse_record(domain, one.seen[0].encode("ascii", "surrogateescape"))
            if record is not None and record.valid:
                found += _stricter("DMARC", record.policy, one.seen[0])
        if one.group == "MTA-STS" and one.type == POLICY:
            modes = [line.partition(":")[2].strip() for line in one.seen if line.partition(":")[0].strip() == "mode"]
            found += _stricter("MTA-STS", modes[0], f"mode: {modes[0]}") if modes else []
    return tuple(found)


def _stricter(kind: Kind, stage: str, text: str) -> list[StricterPolicy]:
    after = STRICTER[kind].get(stage)
    return [] if after is None else [StricterPolicy(kind, stage, after, text)]


def is_clean(records: Sequence[CheckedRecord], faults: int) -> bool | None:
    """Whether a look has found nothing to be done; None where it could not tell.  `faults` has those of before that still count.

    A trial that does not come about from here says nothing: behind a NAT it never does.
    """
    if faults or any(one.is_to_be_done and one.verdict is not RecordVerdict.UNKNOWN for one in records):
        return False
    if any(one.is_to_be_done and one.type != TRIAL for one in records):
        return None
    return True


def counted(before: CleanDays | None, policy: StricterPolicy, clean: bool | None, evidence: ReportEvidence) -> CleanDays:
    """After a look.  `evidence` are the reports of as many days as the count has, of the last two at least."""
    found = before if before is not None and before.stage == policy.stage else CleanDays(policy.stage)
    if clean is False or evidence.is_good is False:
        return CleanDays(policy.stage, waits="" if clean is False else _doubt(policy, evidence))
    if clean is None:
        return found
    days = found.days + 1
    waits = ""
    if days >= CLEAN_DAYS and evidence.is_good is None:
        of_what = "mail in its name" if policy.kind == "DMARC" else "TLS with its hosts"
        waits = f"no report of others says anything about {of_what}"
    return replace(found, days=days, waits=waits)


def _doubt(policy: StricterPolicy, evidence: ReportEvidence) -> str:
    if policy.kind == "DMARC":
        return f"by reports of others {evidence.share} of our own mail pass DMARC: mailserver dmarc show"
    return f"by reports of others {evidence.share} of the sessions with our hosts have worked: mailserver tlsrpt show"


def proposal(domain: str, policy: StricterPolicy, found: CleanDays, evidence: ReportEvidence) -> tuple[str, ...]:
    """The lines for postmaster; none where it is not time."""
    if found.told or found.waits or found.days < CLEAN_DAYS:
        return ()
    if policy.kind == "DMARC":
        lines = [
            f"{domain}: all was well on {found.days} days.  Of {evidence.counted} messages of ours in {evidence.reports} reports",
            f"{evidence.share} have passed DMARC.  The policy can go from p={policy.stage} to p={policy.next}:",
            "",
            *_dmarc_change(domain, policy),
        ]
        if evidence.strangers:
            named = ", ".join([f"{source} ({count})" for source, count in evidence.strangers])
            lines += ["", f"Sources that have never passed, whose messages would be {DONE[policy.next]} then: {named}."]
            lines += [f"If one of these sends for you, let it sign first (mailserver dmarc show {domain})."]
        return tuple(lines)
    return (
        f"{domain}: all was well on {found.days} days.  Of {evidence.counted} sessions in {evidence.reports} reports",
        f"{evidence.share} have worked.  The policy can go from mode: {policy.stage} to mode: {policy.next}, and then the record",
        f"of _mta-sts.{domain} gets another id.  Where this server shows the policy it is `mta_sts` in [web], and",
        f"mailserver dns {domain} says which id.",
    )


def _dmarc_change(domain: str, policy: StricterPolicy) -> tuple[str, str]:
    try:
        tags = {name.lower(): value for name, value in parse_tags(policy.text).items()}
    except TagFault:  # it could be read a moment ago
        tags = {"v": "DMARC1"}
    text = "; ".join([f"{name}={policy.next if name == 'p' else value}" for name, value in tags.items()])
    name = f"_dmarc.{domain}"
    old, new = ZoneRecord(name, "TXT", policy.text), ZoneRecord(name, "TXT", text)
    return f"    take out  {old.line}", f"    put in    {new.line}"
