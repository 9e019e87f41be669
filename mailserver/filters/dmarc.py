"""Judges messages by what their authors' domains ask for (DMARC, RFC 9989), from the findings of `spf`, `dkim` and `arc`.

A policy alone refuses nothing by default: lists and forwarders break signatures, and section 7.4 says that nobody is to refuse
for p=reject alone.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import ip_network
from typing import Annotated, Any, Literal

from pydantic import Field
from twisted.internet.defer import TimeoutError
from zope.interface import implementer

from mailserver.api import (
    Clock,
    Content,
    Defer,
    Envelope,
    Finding,
    IComponentFactory,
    IContentFilter,
    IStateStore,
    Network,
    Options,
    Pass,
    Quarantine,
    Refuse,
    Services,
    StorageFault,
    Verdict,
)
from mailserver.filters.evidence import nobody_to_ask
from mailserver.plugins.awaiting import in_time, side_by_side
from mailserver.trust.authors import TooManyAuthors, author_domains
from mailserver.trust.dmarc import DMARCResult, Evidence, evaluate

__all__ = ["DMARC", "DMARCOptions", "factory"]

SECONDS = 20.0  # shorter than a filter's deadline: what takes longer is a temperror, which defers twice and not for ever
DEFERRALS_MOST = 2
RECIPIENTS_COUNTED = 20  # of one message
REMEMBERED_SECONDS = 5 * 86_400.0  # as long as hosts try
# Any virus and any listing; a scanner's score where it would be spam without the points that it gives for DMARC itself.
# That of bayes is one copy's, found when this is decided: `scores` weighs it.
SECOND_FINDINGS = {"virus": 0.0, "dnsbl": 0.1, "reputation": 2.0, "rspamd": 8.0, "spamassassin": 8.0}
WORST_FIRST = (  # by what follows: result and policy, "" where nobody knows it
    *(("fail", policy) for policy in ("reject", "quarantine")),
    *(("temperror", policy) for policy in ("reject", "quarantine", "")),
    *((result, "none") for result in ("fail", "temperror")),
)  # then those that take no part, and last who passes: he answers for nobody beside him
Score = Annotated[float, Field(ge=-1000, le=1000, allow_inf_nan=False)]


class DMARCOptions(Options):
    """What follows from a failure, and how much each result counts."""

    reject: Literal["never", "second", "always"] = "second"
    """When a failure under `p=reject` refuses: with a second finding against the message (`second_findings`), always, or never.
    Where it does not, the message is put aside."""
    second_findings: dict[str, Score] = Field(default_factory=lambda: dict(SECOND_FINDINGS))
    """The findings that count as a second one, and from which score on. What scanners find of SPF, DKIM and DMARC is in their
    scores, too: theirs have to be higher than that."""
    passed: Score = 0.0
    """The score of a message whose author's domain answers for it: anybody can have one."""
    failed: Score = 2.0
    """That of one for which it does not."""
    forwarded: Score = 0.0
    """That of one for which it does not, but did when a trusted sealer got it (`arc`)."""
    none: Score = 0.0
    """That of one whose domain takes no part in DMARC."""
    temperror: Score = 0.0
    """That of one of which the DNS could not tell."""
    no_author: Score = 3.0
    """That of one without an author, or with more authors than are judged."""
    networks: tuple[Network, ...] = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
    """Peers that send for others: own relays, the second mail exchanger. Nothing is asked about them."""


@implementer(IContentFilter)
class DMARC:
    """Reads the findings of `spf`, `dkim` and `arc`, and asks the DNS for the policy."""

    cost = 150  # behind the scanners: what they have found counts (`second_findings`)

    def __init__(self, options: DMARCOptions, *, resolver: Any, state: IStateStore, clock: Clock) -> None:
        self._options = options
        self._scores = {
            "pass": options.passed,
            "fail": options.failed,
            "none": options.none,
            "temperror": options.temperror,
            "permerror": options.no_author,
        }
        self._query = nobody_to_ask if resolver is None else resolver.query
        self._state = state
        self._clock = clock

    async def judge_content(self, envelope: Envelope, content: Content) -> Verdict:
        """One finding for a message, by the author who fares worst."""
        peer = envelope.peer
        if peer.service != "mx" or peer.login or peer.ip is None or any(peer.ip in one for one in self._options.networks):
            return Pass()
        try:
            domains = author_domains(content.headers)
        except TooManyAuthors as error:
            return self._nobody_judges(str(error))
        if content.has_cut_head:  # `limits.header_bytes` lets more through than is looked at
            return self._nobody_judges("the header section is longer than what is searched for authors")
        if not domains:
            return Pass(findings=(self._finding(DMARCResult("permerror", "", reason="the message has no author")),))
        evidence, has_dkim = _evidence(envelope.findings)
        answers = await side_by_side([self._evaluate(domain, evidence) for domain in domains])
        before, chain = _passed_before(envelope.findings)
        worst = min([_forgiven(result) if result.domain in before else result for result in answers], key=_place)
        if worst.result == "fail" and worst.domain in before:
            asks = any(result.domain == worst.domain and result.policy != "none" for result in answers)
            return Pass(findings=(self._finding(worst, override="local_policy" if asks else "", comment=chain),))
        if worst.result == "fail" and not has_dkim:
            # The filter is not there, or was skipped: nobody knows whether a signature speaks for the domain.
            worst = DMARCResult("temperror", worst.domain, "none", "", "no DKIM result", worst.published, worst.record)
        if worst.result == "pass" and (sure := _sure(envelope.findings)) is not None:
            is_weak = (await self._evaluate(worst.domain, sure)).result != "pass"
            return Pass(findings=(self._finding(worst, weak=is_weak),))
        findings = (self._finding(worst),)
        if worst.result == "temperror" and worst.policy != "none" and await self._may_defer(envelope, content):
            return Defer(f"DMARC: {worst.reason}", "4.7.0", findings=findings)
        if worst.result != "fail" or worst.policy == "none":
            return Pass(findings=findings)
        why = f"DMARC: {worst.domain} asks for {worst.policy}: {worst.reason}"
        if worst.policy == "reject" and len(domains) == 1 and self._refuses(envelope, content):
            return Refuse(why, findings=(self._finding(worst, "reject"),))
        override = ""
        if worst.policy == "reject":
            override = "mailing_list" if "List-Id" in content.headers else "local_policy"
        return Quarantine(why, findings=(self._finding(worst, "quarantine", override),))

    def _nobody_judges(self, reason: str) -> Verdict:
        return Quarantine(f"DMARC: {reason}", findings=(self._finding(DMARCResult("permerror", "", reason=reason)),))

    async def _evaluate(self, domain: str, evidence: Sequence[Evidence]) -> DMARCResult:
        try:
            return await in_time(SECONDS, evaluate(self._query, domain, evidence), self._clock)
        except TimeoutError:
            return DMARCResult("temperror", domain, "", reason="the DNS took too long")

    def _refuses(self, envelope: Envelope, content: Content) -> bool:
        """A list's mark makes it milder: lists change what was signed."""
        if self._options.reject == "never" or "List-Id" in content.headers:
            return False
        least = self._options.second_findings
        return self._options.reject == "always" or any(
            one.score >= least.get(one.name, math.inf) and not one.properties.get("noted") for one in envelope.findings
        )

    async def _may_defer(self, envelope: Envelope, content: Content) -> bool:
        """Twice for the same message, by whatever host it is tried again, and with however many of its recipients: of these each
        waits twice at most."""
        about = [str(envelope.sender or ""), content.headers.get("Message-ID") or ""]
        to = sorted({str(one.address) for one in envelope.recipients})[:RECIPIENTS_COUNTED]
        try:
            counts = [await self._state.add(_deferred_key(*about, one), 1, REMEMBERED_SECONDS) for one in to]
        except StorageFault:
            return False
        return max(counts, default=1) <= DEFERRALS_MOST

    def _finding(
        self, result: DMARCResult, disposition: str = "none", override: str = "", comment: str = "", *, weak: bool = False
    ) -> Finding:
        """`weak`: only signatures have spoken whose domain is trying DKIM out.
        `disposition` is what this verdict leads to: "none", "quarantine" or "reject"; `override` says why that is milder than
        what is published, in a word of the reports, and `comment` says more of it.  The one comment that there is is a chain."""
        record = result.record
        if not override and result.result == "fail" and result.policy != result.published:
            override = "policy_test_mode"
        words = " ".join(filter(None, [result.result, result.domain, f"({result.published})" if record else "", result.aligned]))
        reason = f"{result.reason}; it did before: {comment}" if comment else result.reason
        return Finding(
            "dmarc",
            self._options.forwarded if comment else self._scores[result.result],
            f"{words}{reason and ': '}{reason}"[:1000],
            {
                "result": result.result,
                "domain": result.domain,
                "policy": result.policy,
                "published": result.published,
                "aligned": result.aligned,
                "weak": weak,
                "record": record.domain if record else "",
                "testing": record is not None and record.testing,
                "reason": result.reason,
                "disposition": disposition,
                "override": override,
                "comment": comment,
                "terms": record.terms if record else "",
                "reports": record is not None and bool(record.reports_to),
            },
        )


def _deferred_key(*parts: str) -> str:
    return "deferred/" + hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()


def _place(result: DMARCResult) -> int:
    found = result.result, result.policy
    return WORST_FIRST.index(found) if found in WORST_FIRST else len(WORST_FIRST) + (result.result == "pass")


def _passed_before(findings: Sequence[Finding]) -> tuple[frozenset[str], str]:
    """The authors' domains for which DMARC had passed when a trusted sealer got the message, and the chain that says so."""
    chains = [one.properties for one in findings if one.name == "arc" and one.properties.get("result") == "pass"]
    domains = [domain for one in chains for domain in str(one.get("passed") or "").split()]
    return frozenset(domains), " ".join([str(one.get("chain") or "arc=pass") for one in chains])


def _forgiven(result: DMARCResult) -> DMARCResult:
    """What the domain asks for is not done: the failure is one of those who have changed the message since."""
    return replace(result, policy="none") if result.result in ("fail", "temperror") else result


def _evidence(findings: Sequence[Finding]) -> tuple[list[Evidence], bool]:
    """What counts for DMARC, and whether signatures were looked at.

    SPF's is the sender's domain; the HELO name stands for it where there is no sender (RFC 7208 section 2.4).  A signature that
    leaves a part of the body out (l=) speaks for nobody: whoever has such a message could add what he likes.
    """
    spf = [one for one in findings if one.name == "spf"]
    dkim = [one for one in findings if one.name == "dkim"]
    spf = [one for one in spf if one.properties.get("scope") == "mfrom"] or spf
    found = [
        Evidence(one.name, str(one.properties.get("domain") or ""), str(one.properties.get("result") or ""))
        for one in spf + dkim
        if not one.properties.get("partial")
    ]
    return found, bool(dkim)


def _sure(findings: Sequence[Finding]) -> list[Evidence] | None:
    """What counts, without signatures of a key that is only tried (RFC 6376 section 3.6.1, t=y); None where there are none."""
    rest = [one for one in findings if one.name != "dkim" or not one.properties.get("testing")]
    return None if len(rest) == len(findings) else _evidence(rest)[0]


@implementer(IComponentFactory)
class DMARCFactory:
    """Makes the filter for ``[[filter]] use = "dmarc"``."""

    name = "dmarc"
    summary = "Judges messages by what their authors' domains ask for (DMARC, RFC 9989)."
    api_version = "1.0"
    replays = True
    provides = IContentFilter
    options = DMARCOptions

    def build(self, options: Any, services: Services) -> DMARC:
        """Return the filter."""
        return DMARC(options, resolver=services.resolver, state=services.state, clock=services.clock)


factory = DMARCFactory()
