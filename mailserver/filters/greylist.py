"""Greylisting (RFC 6647): who is doubtful and not known is asked to come again.

Whoever comes again after a while is let in and remembered.  Who sends, from where and to whom is kept as digests; so that many
hosts of one sender count as one, "from where" is the domain for which SPF vouches, else the network.
"""

from __future__ import annotations

import functools
import ipaddress
from hashlib import blake2b
from typing import Annotated, Any

from pydantic import Field, model_validator
from twisted.logger import Logger
from zope.interface import implementer

from mailserver.api import (
    ComponentMetrics,
    Defer,
    Duration,
    Envelope,
    Finding,
    IComponentFactory,
    IRecipientFilter,
    IStateStore,
    Network,
    Options,
    Pass,
    Recipient,
    Services,
    StorageFault,
    Verdict,
)
from mailserver.mail.networks import is_public

__all__ = ["Greylist", "GreylistOptions", "factory"]

SPARING = ("accepted", "contact", "expected")  # findings of lists and of contacts: he is no stranger, or is waited for
NEVER = frozenset(["postmaster", "abuse"])  # whoever has trouble with us must reach them at once
Score = Annotated[float, Field(ge=-1000, le=1000, allow_inf_nan=False)]
Wait = Annotated[Duration, Field(gt=0, le=86_400)]
Lifetime = Annotated[Duration, Field(gt=0, le=366 * 86_400)]


class GreylistOptions(Options):
    """Who has to come again, and for how long that is remembered."""

    doubtful: Score = 1.0
    """Only those are asked to come again of whom the scores that were found until RCPT add up to this."""
    everybody: bool = False
    """All strangers are, whatever was found of them."""
    wait: Wait = 300.0
    """How long it takes until another try is let in."""
    window: Lifetime = 2 * 86_400.0
    """How long another try is waited for."""
    remember: Lifetime = 35 * 86_400.0
    """How long who came again is known, since he sent last."""
    known_after: Annotated[int, Field(ge=0, le=1000)] = 5
    """After so many who came again within `remember`, a network or domain is known as a whole. 0: never."""
    ipv4_bits: Annotated[int, Field(ge=8, le=32)] = 24
    """How much of an IPv4 address is the network."""
    ipv6_bits: Annotated[int, Field(ge=16, le=128)] = 64
    """How much of an IPv6 address is."""
    exempt: tuple[Network, ...] = ()
    """Networks that are never asked to come again, beside those that nobody has in the Internet."""

    @model_validator(mode="after")
    def _fit_together(self) -> GreylistOptions:
        if self.window <= self.wait:
            raise ValueError("window: ends before wait does, so that nobody could ever come again in time")
        return self


@implementer(IRecipientFilter)
class Greylist:
    """Keeps three kinds of facts: who was met, for whom it is too early, and who has passed.

    Each verb of the state store is atomic, and their order is such that of several who are asked at once about the same try all
    hear the same.
    """

    log = Logger()
    skippable = True
    cost = 1

    def __init__(self, options: GreylistOptions, *, state: IStateStore, metrics: ComponentMetrics | None = None) -> None:
        self._options = options
        self._state: Any = state
        self._metrics = metrics

    async def judge_recipient(self, envelope: Envelope, recipient: Recipient) -> Verdict:
        """Defer the first try of a doubtful stranger.  A store that fails holds nobody."""
        if not self._may_ask(envelope, recipient):
            return Pass()
        if not self._options.everybody and sum([one.score for one in envelope.findings]) < self._options.doubtful:
            return Pass()
        source, network = self._source(envelope), self._network(envelope)
        sender, to = _sender(envelope), _text(recipient)
        triplet = _digest(source, sender, to)
        by_network = triplet if network == source else _digest(network, sender, to)
        try:
            verdict, result = await self._judged(source, triplet, by_network)
        except StorageFault as error:
            verdict, result = _passed("temperror", f"nothing can be remembered: {error}", source), "temperror"
        if self._metrics is not None:
            self._metrics.count("judged", result=result)
        return verdict

    async def _judged(self, source: str, triplet: str, by_network: str) -> tuple[Verdict, str]:
        """`by_network`: the same try where SPF vouches for nobody.  A DNS that cannot tell once makes no stranger of one."""
        state, options = self._state, self._options
        passed, met, early, count = f"passed {triplet}", f"met {triplet}", f"early {triplet}", f"count {_digest(source)}"
        if options.known_after:
            seen = await state.get(count)
            if seen is not None and int(seen) >= options.known_after:
                return _passed("pass", f"{source} is known", source), "known"
        if await state.get(passed) is not None:
            await state.put(passed, b"1", options.remember)
            return _passed("pass", f"known from {source}", source), "known"
        if await state.get(met) is None and not await self._is_back(by_network, triplet):
            for one in {triplet, by_network}:
                # In this order: nobody finds "met" without "early".
                await state.put_if_absent(f"early {one}", b"1", options.wait)
                await state.put_if_absent(f"met {one}", b"1", options.window)
        if await state.get(early) is not None:
            words = f"unknown from {source}: to come again"
            return Defer(words, findings=(_found("temperror", words, source),)), "deferred"
        # "met" stays: whoever was asked before he had passed does not take him for a stranger.
        if await state.put_if_absent(passed, b"1", options.remember):  # of several who come again at once, one is counted
            await state.add(count, 1, options.remember)
        return _passed("pass", f"came again from {source}", source), "passed"

    async def _is_back(self, by_network: str, triplet: str) -> bool:
        if by_network == triplet or await self._state.get(f"met {by_network}") is None:
            return False
        return await self._state.get(f"early {by_network}") is None

    def _may_ask(self, envelope: Envelope, recipient: Recipient) -> bool:
        peer = envelope.peer
        ip = peer.ip
        if peer.login or peer.service != "mx" or ip is None or not is_public(peer.address):
            return False
        if any(one.name in SPARING and one.properties.get("result", "pass") == "pass" for one in envelope.findings):
            return False
        if recipient.address.local.lower() in NEVER:
            return False
        return not any(ip in network for network in self._options.exempt)

    def _source(self, envelope: Envelope) -> str:
        """The domain for which SPF vouches, the sender's rather than the HELO name; else the network."""
        by_scope = {
            one.properties.get("scope"): str(one.properties["domain"]).lower()
            for one in envelope.findings
            if one.name == "spf" and one.properties.get("result") == "pass" and one.properties.get("domain")
        }
        for scope in ("mfrom", "helo"):
            if scope in by_scope:
                return by_scope[scope]
        return self._network(envelope)

    def _network(self, envelope: Envelope) -> str:
        ip = envelope.peer.ip
        if ip is None:
            return envelope.peer.address
        bits = self._options.ipv4_bits if ip.version == 4 else self._options.ipv6_bits
        return _network_of(ip, bits)


@functools.lru_cache(4096)
def _network_of(ip: ipaddress.IPv4Address | ipaddress.IPv6Address, bits: int) -> str:
    return str(ipaddress.ip_network((ip, bits), strict=False))


def _sender(envelope: Envelope) -> str:
    sender = envelope.sender
    return "" if sender is None else f"{sender.local.lower()}@{sender.domain_key}"


def _text(recipient: Recipient) -> str:
    return f"{recipient.address.local.lower()}@{recipient.address.domain_key}"


def _digest(*parts: str) -> str:
    """Of bounded length, and it tells nobody who writes to whom."""
    whole = blake2b(digest_size=16)
    for part in parts:
        octets = part.encode("utf-8", "surrogateescape")
        whole.update(len(octets).to_bytes(4, "big") + octets)
    return whole.hexdigest()


def _found(result: str, words: str, source: str) -> Finding:
    return Finding("greylist", 0.0, words, {"result": result, "from": source})


def _passed(result: str, words: str, source: str) -> Pass:
    return Pass(findings=(_found(result, words, source),))


@implementer(IComponentFactory)
class GreylistFactory:
    """Makes the filter for ``[[filter]] use = "greylist"``."""

    name = "greylist"
    summary = "Asks doubtful strangers to come again, once (greylisting, RFC 6647)."
    api_version = "1.0"
    replays = True
    provides = IRecipientFilter
    options = GreylistOptions

    def build(self, options: Any, services: Services) -> Greylist:
        """Return the filter."""
        return Greylist(options, state=services.state, metrics=services.metrics)


factory = GreylistFactory()
