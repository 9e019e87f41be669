"""Remembers what came of the mail of networks and of authenticated domains, and judges the next by it.

What is known of them fades.  The rules, in words, are in docs/filters.md.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field
from twisted.logger import Logger
from zope.interface import implementer

from mailserver.api import (
    Address,
    AddressError,
    Argument,
    CannotDo,
    ComponentCommand,
    Content,
    Duration,
    Envelope,
    Finding,
    ICommands,
    IComponentFactory,
    IContentFilter,
    IPeriodic,
    ISenderFilter,
    ITransactionEnd,
    Network,
    Options,
    Pass,
    Peer,
    Services,
    StorageFault,
    TransactionEnd,
    Verdict,
    normal_names,
)
from mailserver.filters.learnt import file_of
from mailserver.filters.reputation_book import MailOrigin, ReputationBook
from mailserver.mail.networks import is_public
from mailserver.state_store.learnt_file import LearntFile, Told
from mailserver.trust.bayes import score_of
from mailserver.trust.reputation import Repute

__all__ = ["Reputation", "ReputationOptions", "factory"]

FINDING = "reputation"
DOMAINS_MOST = 5
VIRUS_WEIGHT = 3.0  # beside a message that was bad by its score
LEARNT_WEIGHT = 3.0  # a person has said so
TOLD_AT_ONCE = 500
Score = Annotated[float, Field(ge=-1000, le=1000, allow_inf_nan=False)]


class ReputationOptions(Options):
    """What counts, for how long, and what follows from it."""

    bad: Score = 4.0
    """The score of an origin of whose mail nothing was good."""
    good: Score = -1.0
    """The score of one of whose mail nothing was bad."""
    minimum: Annotated[float, Field(ge=1, le=10_000)] = 10.0
    """So much has to be known of an origin before anything is said: a message counts 1, one that was learnt 3, a virus 3. What
    has faded counts as what is left of it."""
    half_life: Annotated[Duration, Field(ge=3600, le=366 * 86_400)] = 14 * 86_400.0
    """After this time half of what is known is left."""
    bad_from: Score = 6.0
    """A message is bad whose findings about peer, sender and content add up to this; a virus always is."""
    good_below: Score = 2.0
    """A message is good that was taken and whose findings add up to less than this. Between the two it counts nothing."""
    ipv4_bits: Annotated[int, Field(ge=8, le=32)] = 24
    """How much of an IPv4 address is the network."""
    ipv6_bits: Annotated[int, Field(ge=16, le=128)] = 64
    """How much of an IPv6 address is."""
    exempt: tuple[Network, ...] = ()
    """Networks of which nothing is remembered, beside those that nobody has in the Internet: own relays, a second mail
    exchanger."""
    learnt_by: str = Field(default="bayes", pattern=r"^[A-Za-z0-9._#-]{0,60}$")
    """The filter `bayes` whose learning counts, by its table's name: what users call spam, or not. Empty: none."""


@implementer(ISenderFilter, IContentFilter, ITransactionEnd, IPeriodic, ICommands)
class Reputation:
    """At MAIL it speaks of the network, after the data of the domains; when a transaction has ended it counts what came of it."""

    cost = 2.0  # behind SPF and DKIM, which say whose mail it is
    skippable = True
    interval_seconds = 60.0
    deadline_seconds = 60.0
    log = Logger()

    def __init__(self, options: ReputationOptions, services: Services) -> None:
        self._options = options
        self._services = services
        self._book = ReputationBook(services.state, clock=services.clock, half_life=options.half_life)

    # --- Judging. ---

    async def judge_sender(self, envelope: Envelope) -> Verdict:
        """What is thought of the network."""
        network = self._network(envelope.peer)
        return Pass() if network is None else await self._judged([network])

    async def judge_content(self, envelope: Envelope, content: Content) -> Verdict:
        """What is thought of the domains that answer for the message: of several the worst, else the best."""
        domains = self._domains(envelope)
        return await self._judged(domains) if domains else Pass()

    async def _judged(self, origins: Sequence[MailOrigin]) -> Verdict:
        try:
            found = [(origin, await self._book.standing(origin)) for origin in origins]
        except StorageFault as fault:
            words = f"nothing can be said: {fault}"[:1000]
            return Pass(findings=(Finding(FINDING, 0.0, words, {"result": "temperror"}),))
        findings = [self._finding(origin, one) for origin, one in found if one.seen >= self._options.minimum]
        if not findings:
            return Pass()
        worst = max(findings, key=lambda one: one.score)
        chosen = worst if worst.score > 0 else min(findings, key=lambda one: one.score)
        self._services.metrics.count("judged", result=str(chosen.properties["result"]))
        return Pass(findings=(chosen,))

    def _finding(self, origin: MailOrigin, standing: Repute) -> Finding:
        score = score_of(standing.badness, spam=self._options.bad, ham=self._options.good)
        result = "mixed" if not score else "bad" if standing.badness > 0.5 else "good"
        words = f"{origin.name}: {standing.bad:.1f} bad and {standing.good:.1f} good of late"
        return Finding(FINDING, score, words, {
            "result": result,
            "kind": origin.kind,
            "of": origin.name,
            "bad": round(standing.bad, 1),
            "good": round(standing.good, 1),
        })  # fmt: skip

    # --- Counting. ---

    async def ended(self, envelope: Envelope, how: TransactionEnd) -> None:
        """Count what came of a message, and remember from where one came that was taken."""
        network = self._network(envelope.peer)
        origins = [*([network] if network is not None else []), *self._domains(envelope)]
        if not origins or how in (TransactionEnd.RESET, TransactionEnd.LOST):
            return
        bad, good = self._outcome(envelope, how)
        self._services.metrics.count("outcomes", outcome="bad" if bad else "good" if good else "none")
        try:
            if bad or good:
                for origin in origins:
                    await self._book.count(origin, bad=bad, good=good)
            if how is TransactionEnd.ACCEPTED and self._options.learnt_by:
                await self._book.remember(envelope.id, origins)
        except StorageFault as fault:
            self.log.warn("what came of {id} is not counted: {fault}", id=envelope.id, fault=str(fault))

    def _outcome(self, envelope: Envelope, how: TransactionEnd) -> tuple[float, float]:
        """How bad it was, and how good.  What this filter has said itself does not count: it would prove itself right."""
        others = [one for one in envelope.findings if one.name != FINDING]
        total = sum([one.score for one in others])
        if any(one.name == "virus" and not one.properties.get("noted") for one in others):
            return VIRUS_WEIGHT, 0.0
        if total >= self._options.bad_from:
            return 1.0, 0.0
        return 0.0, float(how is TransactionEnd.ACCEPTED and total < self._options.good_below)

    async def run_periodically(self) -> None:
        """Count what people have learnt since: spam or not, of messages that are remembered."""
        name = self._options.learnt_by
        path = file_of(self._services.data_directory, name)
        if not name or not os.path.exists(path):
            return
        try:
            before = await self._book.learnt_to(name)
            told: list[Told] = await self._services.run_in_thread(_told_after, path, before)
            for one in told:
                await self._count_learnt(one)
                await self._book.put_learnt_to(name, one.number)
        except StorageFault as fault:
            self.log.warn("what was learnt is not counted yet: {fault}", fault=str(fault))

    async def _count_learnt(self, told: Told) -> None:
        """Each message counts once, however many have it and say so; of those who disagree, who says it last."""
        origins, was = await self._book.learnt_of(told.message, told.kind)
        weights = {"spam": 0.0, "ham": 0.0}
        for kind, weight in ((was, -LEARNT_WEIGHT), (told.kind, LEARNT_WEIGHT)):
            if kind in weights:
                weights[kind] += weight
        for origin in origins:
            await self._book.count(origin, bad=weights["spam"], good=weights["ham"])

    # --- Where it comes from. ---

    def _network(self, peer: Peer) -> MailOrigin | None:
        ip = peer.ip
        if peer.login or peer.service != "mx" or ip is None or not is_public(str(ip)):
            return None
        if any(ip in network for network in self._options.exempt):
            return None
        return _network_of(ip, self._options)

    def _domains(self, envelope: Envelope) -> list[MailOrigin]:
        """Those for which a signature or SPF has passed, of a peer whose mail is judged at all."""
        if envelope.peer.login or envelope.peer.service != "mx":
            return []
        passed = [
            str(one.properties["domain"]).lower().rstrip(".")
            for one in envelope.findings
            if one.name in ("dkim", "spf") and one.properties.get("result") == "pass" and one.properties.get("domain")
            and not one.properties.get("partial") and not one.properties.get("testing")
            and one.properties.get("scope", "mfrom") == "mfrom"
        ]  # fmt: skip
        return [MailOrigin("domain", name) for name in list(dict.fromkeys(passed))[:DOMAINS_MOST]]

    # --- For people. ---

    def commands(self) -> Sequence[ComponentCommand]:
        """``show``, ``forget``."""
        origin = Argument("origin", "an address, a network or a domain")
        return (
            ComponentCommand("show", "what is thought of a network or a domain", self.show, (origin,)),
            ComponentCommand("forget", "forget all that is known of a network or a domain", self.forget, (origin,)),
        )

    async def show(self, origin: str) -> dict[str, Any]:
        """What is known of it, and the score that follows."""
        found = _origin(origin, self._options)
        try:
            standing = await self._book.standing(found)
        except StorageFault as fault:
            raise CannotDo(str(fault)) from fault
        finding = self._finding(found, standing)
        says = standing.seen >= self._options.minimum
        return {
            found.kind: found.name,
            "bad": round(standing.bad, 1),
            "good": round(standing.good, 1),
            "score": finding.score if says else 0.0,
            "result": finding.properties["result"] if says else "too little is known",
        }

    async def forget(self, origin: str) -> str:
        """What was done, in words."""
        found = _origin(origin, self._options)
        try:
            if not await self._book.forget(found):
                raise CannotDo(f"nothing is known of {found.name}")
        except StorageFault as fault:
            raise CannotDo(str(fault)) from fault
        return f"forgotten: what was known of {found.name}"


def _told_after(path: str, number: int) -> list[Told]:
    """Blocks.  Raises `StorageFault`."""
    file = LearntFile.open(path, writes=False)
    try:
        return file.told_after(number if number <= file.told_to() else 0, TOLD_AT_ONCE)
    finally:
        file.close()


def _network_of(ip: ipaddress.IPv4Address | ipaddress.IPv6Address, options: ReputationOptions) -> MailOrigin:
    bits = options.ipv4_bits if ip.version == 4 else options.ipv6_bits
    return MailOrigin("network", str(ipaddress.ip_network((ip, bits), strict=False)))


def _origin(text: str, options: ReputationOptions) -> MailOrigin:
    """As a person has typed it.  Raises `CannotDo`."""
    try:
        network = ipaddress.ip_network(text.strip("[]"), strict=False)
    except ValueError:
        pass
    else:
        address = network.network_address
        mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
        return _network_of(mapped or address, options)
    try:
        domain = text.rpartition("@")[2].rstrip(".")
        return MailOrigin("domain", normal_names(Address.parse(f"x@{domain}", utf8=True))[1])
    except AddressError as error:
        raise CannotDo(f"{text[:200]!r} is no address, network or domain: {error}") from error


@implementer(IComponentFactory)
class ReputationFactory:
    """Makes the filter for ``[[filter]] use = "reputation"``."""

    name = "reputation"
    summary = "Judges by what came of earlier mail of the same network and of the same authenticated domains."
    api_version = "1.0"
    replays = True
    provides = (ISenderFilter, IContentFilter)
    options = ReputationOptions

    def build(self, options: Any, services: Services) -> Reputation:
        """Return the filter."""
        return Reputation(options, services)


factory = ReputationFactory()
