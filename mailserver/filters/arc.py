"""Verifies the Authenticated Received Chains of messages (ARC, RFC 8617), and says what trusted sealers had found.

A chain alone says nothing: anybody can begin one.  It counts where the administrator trusts who has sealed it.  Then DMARC
believes what they had found before they changed the message.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from zope.interface import implementer

from mailserver.api import (
    Clock,
    Content,
    DomainName,
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
from mailserver.mail.address import AddressError, normal_domain
from mailserver.trust.arc import ARCResult, SealedSet, read_chain, trusted_sets, verify_chain

__all__ = ["ARC", "ARCOptions", "factory"]

AT_ONCE_SETS = 3  # the signatures of so many are verified at once, in less than a millisecond; more in a thread
TEXT_CHARACTERS = 1000
DOMAINS_MOST = 20
DOMAIN = re.compile(r"[a-z0-9_.-]{1,253}")


class ARCOptions(Options):
    """Whose word counts."""

    trusted: tuple[DomainName, ...] = ()
    """The domains of sealers (`d=` of their ARC-Seal) whose findings are believed: lists and forwarders that you know. Names
    below them are not meant."""


@implementer(IContentFilter)
class ARC:
    """A finding for each message that has a chain, and no verdict."""

    def __init__(self, options: ARCOptions, *, resolver: Any, run_in_thread: Any, clock: Clock) -> None:
        self._trusted = frozenset(options.trusted)
        self._resolver = resolver
        self._run_in_thread = run_in_thread
        self._clock = clock

    async def judge_content(self, envelope: Envelope, content: Content) -> Verdict:
        """Nothing is said of messages without a chain, nor of what our own users and programs send."""
        peer = envelope.peer
        if peer.service != "mx" or peer.login or peer.ip is None:
            return Pass()
        chain = read_chain(content.headers)
        if chain.signature is None and not chain.fault:
            return Pass()
        bodies = await hash_body(content, chain.body_forms, self._run_in_thread)
        keys = await look_up_keys(self._resolver, chain.key_names, self._clock)
        now = self._clock.seconds()
        if len(chain.sets) <= AT_ONCE_SETS:
            result = verify_chain(chain, content.headers, bodies, keys, now=now)
        else:
            result = await self._run_in_thread(lambda: verify_chain(chain, content.headers, bodies, keys, now=now))
        return Pass(findings=(self._finding(result),))

    def _finding(self, result: ARCResult) -> Finding:
        trusted = trusted_sets(result, self._trusted)
        passed = sorted(_passed(trusted))[:DOMAINS_MOST]
        words = f"{result.result} {result.sealer} ({len(result.sets)})" if result.sets else f"{result.result} {result.sealer}"
        if trusted:
            words += f", trusted: DMARC had passed for {' '.join(passed) or 'nobody'}"
        return Finding(
            "arc",
            0.0,
            f"{words.rstrip()}{result.reason and ': '}{result.reason}"[:TEXT_CHARACTERS],
            {
                "result": result.result,
                "sealer": result.sealer,
                "sets": len(result.sets),
                "reason": result.reason,
                "trusted": bool(trusted),
                "passed": " ".join(passed),
                "chain": _chain(result.sets) if passed else "",
            },
        )


def _passed(sets: Sequence[SealedSet]) -> set[str]:
    """The domains of authors for whom DMARC had passed when one of these sealers got the message.

    One that came later may well have found a failure: that is what the earlier one's changes have made.
    """
    passed: set[str] = set()
    for one in sets:
        found: dict[str, bool] = {}
        for result in one.results:
            author = _domain(result.properties.get("header.from", "")) if result.method == "dmarc" else ""
            if author:
                found[author] = found.get(author, True) and result.result == "pass"
        passed |= {author for author, is_pass in found.items() if is_pass}
    return passed


def _domain(text: str) -> str:
    try:
        found = normal_domain(text.rpartition("@")[2]).removesuffix(".")
    except AddressError:
        return ""
    return found if DOMAIN.fullmatch(found) else ""  # quoted, it could hold a blank, and be two


def _chain(sets: Sequence[SealedSet]) -> str:
    """As section 7.2.2 writes it for DMARC's reports."""

    def words() -> Iterator[str]:
        yield "arc=pass"
        for one in reversed(sets):
            yield f"as[{one.instance}].d={one.seal.domain}"
            yield f"as[{one.instance}].s={one.seal.selector}"

    text = ""
    for word in words():
        if len(text) + len(word) >= TEXT_CHARACTERS:
            break
        text += f"{text and ' '}{word}"
    return text


@implementer(IComponentFactory)
class ARCFactory:
    """Makes the filter for ``[[filter]] use = "arc"``."""

    name = "arc"
    summary = "Verifies ARC chains, and says what trusted sealers had found (RFC 8617)."
    api_version = "1.0"
    replays = True
    provides = IContentFilter
    options = ARCOptions

    def build(self, options: Any, services: Services) -> ARC:
        """Return the filter."""
        return ARC(options, resolver=services.resolver, run_in_thread=services.run_in_thread, clock=services.clock)


factory = ARCFactory()
