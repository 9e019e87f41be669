"""Verifies the DKIM signatures of messages (RFC 6376): a finding for each, and no verdict of its own.

A signature that does not verify says no more against a message than none at all (section 6.3), so a failure is a finding, and
other filters (DMARC, lists) make of it what they do.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field
from zope.interface import implementer

from mailserver.api import (
    Clock,
    Content,
    Envelope,
    Finding,
    IComponentFactory,
    IContentFilter,
    Options,
    Pass,
    Services,
    Verdict,
)
from mailserver.filters.signed_content import hash_body, look_up_keys
from mailserver.trust.dkim import DKIMResult, forms_of, read_signatures, verify

__all__ = ["DKIM", "DKIMOptions", "factory"]

RESULTS = ("pass", "fail", "neutral", "temperror", "permerror", "none")
Score = Annotated[float, Field(ge=-1000, le=1000, allow_inf_nan=False)]


class DKIMOptions(Options):
    """How much each result counts."""

    passed: Score = -0.1
    """The score of a signature that verifies: anybody can sign with a domain of his own."""
    failed: Score = 0.5
    """That of one that does not: changed on its way, or forged."""
    none: Score = 0.0
    """That of a message without a signature."""


@implementer(IContentFilter)
class DKIM:
    """Asks for the keys of all signatures of a message side by side."""

    def __init__(self, options: DKIMOptions, *, resolver: Any, run_in_thread: Any, clock: Clock) -> None:
        self._scores = {"pass": options.passed, "fail": options.failed, "none": options.none}
        self._resolver = resolver
        self._run_in_thread = run_in_thread
        self._clock = clock

    async def judge_content(self, envelope: Envelope, content: Content) -> Verdict:
        """A finding for each signature, from the top; one that says so where there is none."""
        found = read_signatures(content.headers)
        if not found:
            return Pass(findings=(self._finding(DKIMResult("none")),))
        bodies = await hash_body(content, forms_of(found), self._run_in_thread)
        names = dict.fromkeys([one.signature.key_name for one in found if one.signature is not None])
        keys = await look_up_keys(self._resolver, list(names), self._clock)
        now = self._clock.seconds()
        results = [
            verify(one, content.headers, bodies, None if one.signature is None else keys[one.signature.key_name], now=now)
            for one in found
        ]
        words = [result.result for result in results]
        return Pass(findings=tuple([self._finding(one, counts=one.result not in words[:n]) for n, one in enumerate(results)]))

    def _finding(self, result: DKIMResult, *, counts: bool = True) -> Finding:
        """`counts`: it has a score.  Who signs with two keys says nothing more than who signs with one."""
        who = f"{result.domain} ({result.selector}, {result.algorithm})" if result.domain else ""
        words = " ".join(filter(None, [result.result, who, result.reason and f": {result.reason}"])).replace(" :", ":")
        return Finding(
            "dkim",
            self._scores.get(result.result, 0.0) if counts else 0.0,
            words,
            {
                "result": result.result,
                "domain": result.domain,
                "selector": result.selector,
                "identity": result.identity,
                "algorithm": result.algorithm,
                "reason": result.reason,
                "bits": result.key_bits,
                "partial": result.partial,
                "testing": result.testing,
            },
        )


@implementer(IComponentFactory)
class DKIMFactory:
    """Makes the filter for ``[[filter]] use = "dkim"``."""

    name = "dkim"
    summary = "Verifies DKIM signatures and notes what came of each (RFC 6376)."
    api_version = "1.0"
    replays = True
    provides = IContentFilter
    options = DKIMOptions

    def build(self, options: Any, services: Services) -> DKIM:
        """Return the filter."""
        return DKIM(options, resolver=services.resolver, run_in_thread=services.run_in_thread, clock=services.clock)


factory = DKIMFactory()
