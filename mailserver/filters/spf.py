"""Asks whether the peer may send for the sender's domain and for its HELO name (RFC 7208): findings, and no verdict of its own.

Forwarders change no sender, so even a fail speaks of the road and not of the message alone; DMARC and the scores weigh it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterator, Mapping
from ipaddress import ip_network
from typing import Annotated, Any

from pydantic import Field
from twisted.internet.defer import TimeoutError
from zope.interface import implementer

from mailserver.api import (
    Address,
    AddressError,
    Clock,
    Envelope,
    Finding,
    IComponentFactory,
    ISenderFilter,
    Network,
    Options,
    Pass,
    Services,
    Verdict,
    normal_domain,
)
from mailserver.filters.evidence import nobody_to_ask
from mailserver.plugins.awaiting import in_time, side_by_side
from mailserver.trust.spf import SPFResult, check_host

__all__ = ["SPF", "SPFOptions", "factory"]

SECONDS = 20.0  # RFC 7208 section 4.6.4: at least so long, then it is a temperror
Score = Annotated[float, Field(ge=-1000, le=1000, allow_inf_nan=False)]


class SPFOptions(Options):
    """How much each result counts, and who is not asked about."""

    passed: Score = 0.0
    """The score where the peer may send for the domain: anybody can say so of a domain of his own."""
    failed: Score = 2.0
    """Where the domain says that it may not."""
    softfail: Score = 1.0
    """Where the domain thinks that it may not."""
    neutral: Score = 0.0
    """Where the domain says nothing about it."""
    none: Score = 0.0
    """Where the domain has no record."""
    permerror: Score = 0.5
    """Where its record cannot be used."""
    temperror: Score = 0.0
    """Where the DNS could not tell."""
    networks: tuple[Network, ...] = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
    """Peers that send for others: own relays, the second mail exchanger. Nothing is asked about them."""


@implementer(ISenderFilter)
class SPF:
    """Checks the identities MAIL FROM and HELO of who comes from elsewhere."""

    def __init__(self, options: SPFOptions, *, resolver: Any, clock: Clock) -> None:
        self._scores = {
            "pass": options.passed,
            "fail": options.failed,
            "softfail": options.softfail,
            "neutral": options.neutral,
            "none": options.none,
            "permerror": options.permerror,
            "temperror": options.temperror,
        }
        self._networks = options.networks
        self._query = nobody_to_ask if resolver is None else resolver.query
        self._clock = clock

    async def judge_sender(self, envelope: Envelope) -> Verdict:
        """A finding for the sender's domain, and one for the HELO name where there is no sender or where it tells something."""
        peer, sender = envelope.peer, envelope.sender
        if peer.service != "mx" or peer.login or peer.ip is None or any(peer.ip in network for network in self._networks):
            return Pass()
        hello = _hello_of(peer.hello)
        asked: dict[str, Awaitable[SPFResult]] = {}
        domain = hello
        if sender is not None:
            domain = _domain_of(sender)
            asked["mfrom"] = self._check(peer.ip, domain, f"{sender.local}@{domain}", hello)
        if sender is None or hello != domain:
            asked["helo"] = self._check(peer.ip, hello, f"postmaster@{hello}", hello)
        results = dict(zip(asked, await side_by_side(list(asked.values())), strict=True))
        return Pass(findings=tuple(self._findings(results, peer.address)))

    def _findings(self, results: Mapping[str, SPFResult], address: str) -> Iterator[Finding]:
        for scope, result in results.items():
            score = self._scores[result.result]
            if scope == "helo" and "mfrom" in results:  # the sender is what counts; a pass takes nothing away from it
                if result.result == "none":
                    continue
                score = score if result.result == "fail" else 0.0
            yield self._finding(scope, result, address, score)

    async def _check(self, ip: Any, domain: str, sender: str, hello: str) -> SPFResult:
        try:
            return await in_time(SECONDS, check_host(self._query, ip, domain, sender, hello), self._clock)
        except TimeoutError:
            return SPFResult("temperror", domain, reason="the DNS took too long")

    def _finding(self, scope: str, result: SPFResult, address: str, score: float) -> Finding:
        why = result.reason or (result.mechanism and f"by {result.mechanism}")
        return Finding(
            "spf",
            score,
            f"{result.result} {scope} {result.domain} for {address}{why and ': '}{why}"[:1000],
            {
                "result": result.result,
                "domain": result.domain,
                "scope": scope,
                "mechanism": result.mechanism,
                "reason": result.reason,
            },
        )


def _domain_of(sender: Address) -> str:
    """The domain as the DNS has it, "" where it has none."""
    try:
        return "" if sender.is_literal else sender.domain_key
    except AddressError:
        return ""


def _hello_of(name: str) -> str:
    """The name of HELO as the DNS has it, "" where it is none."""
    try:
        return "" if name.startswith("[") else normal_domain(name).removesuffix(".")
    except AddressError:
        return ""


@implementer(IComponentFactory)
class SPFFactory:
    """Makes the filter for ``[[filter]] use = "spf"``."""

    name = "spf"
    summary = "Asks whether the peer may send for the sender's domain, and notes the answer (SPF, RFC 7208)."
    api_version = "1.0"
    replays = True
    provides = ISenderFilter
    options = SPFOptions

    def build(self, options: Any, services: Services) -> SPF:
        """Return the filter."""
        return SPF(options, resolver=services.resolver, clock=services.clock)


factory = SPFFactory()
