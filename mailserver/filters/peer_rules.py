"""What a peer shows of itself: its name in the DNS, the name that it gives, and whether it encrypts.

Each rule has a score, and the administrator names those that refuse or defer.  All of it speaks at MAIL, and never about somebody
who has logged in.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as Late
from zope.interface import implementer

from mailserver.api import (
    Clock,
    Defer,
    DomainName,
    Duration,
    Envelope,
    Finding,
    IComponentFactory,
    IPeerFilter,
    ISenderFilter,
    LookupFailed,
    Network,
    Options,
    Pass,
    Peer,
    Refuse,
    Services,
    Verdict,
)
from mailserver.mail.networks import is_public
from mailserver.trust.hello import hello_fault

__all__ = ["PeerRules", "PeerRulesOptions", "factory"]

ACCEPTED = "accepted"
NOTE = "names"
Score = Annotated[float, Field(ge=-1000, le=1000, allow_inf_nan=False)]
Wait = Annotated[Duration, Field(gt=0, le=600)]
Rule = Literal[
    "reverse_name",
    "hello_syntax",
    "hello_short",
    "hello_own",
    "hello_address",
    "hello_other_address",
    "hello_unknown",
    "cleartext",
]
CODES = {"reverse_name": "7.25", "cleartext": "7.10"}  # RFC 7372 section 3.3, RFC 5248; the others are 7.1


class PeerRulesOptions(Options):
    """The score of each rule, and which rules do more than that."""

    reverse_name: Score = 1.0
    """The address has no name in the DNS that has this address in turn."""
    hello_syntax: Score = 1.5
    """The name given with EHLO or HELO is neither a domain nor an address literal."""
    hello_short: Score = 1.0
    """It is no whole domain: `mailhost`."""
    hello_own: Score = 4.0
    """It is a name or an address of ours, or `localhost`."""
    hello_address: Score = 2.0
    """It is an address without brackets."""
    hello_other_address: Score = 2.0
    """It is an address literal of another address than the peer's."""
    hello_unknown: Score = 0.5
    """The DNS has neither an address nor a mail exchanger for it."""
    cleartext: Score = 0.0
    """The message comes without encryption."""
    refuse: tuple[Rule, ...] = ()
    """Rules by which a peer is refused (5yz at MAIL): `["hello_own", "cleartext"]`."""
    defer: tuple[Rule, ...] = ()
    """Rules by which it is deferred (4yz)."""
    own_names: tuple[DomainName, ...] = ()
    """Names of ours beside `hostname`, such as the domains that we receive mail for."""
    own_networks: tuple[Network, ...] = ()
    """Addresses of ours."""
    exempt: tuple[Network, ...] = ()
    """Networks of peers to whom no rule applies, beside those that nobody has in the Internet: other mail exchangers of ours."""
    wait: Wait = 5.0
    """How long the DNS is waited for."""

    @model_validator(mode="after")
    def _fit_together(self) -> PeerRulesOptions:
        both = sorted({*self.refuse} & {*self.defer})
        if both:
            raise ValueError(f"refuse, defer: {', '.join(both)} cannot do both")
        return self


@implementer(IPeerFilter, ISenderFilter)
class PeerRules:
    """Looks up the peer's names at connect, and says at MAIL what it has found."""

    cost = 5

    def __init__(self, options: PeerRulesOptions, *, name: str, hostname: str, resolver: Any, clock: Clock) -> None:
        self._name = name
        self._options = options
        self._own_names = frozenset([hostname.lower(), *options.own_names])
        self._resolver = resolver
        self._clock = clock
        self._asks_for_hello = bool(options.hello_unknown) or "hello_unknown" in (*options.refuse, *options.defer)

    async def judge_peer(self, peer: Peer) -> Verdict:
        """Look up its names at connect, and note them."""
        if peer.hello or not self._applies(peer):
            return Pass()
        return Pass(notes={NOTE: await self._names(peer)})

    async def judge_sender(self, envelope: Envelope) -> Verdict:
        """What the rules say: a finding for each that is broken, and one for the names."""
        peer = envelope.peer
        if not self._applies(peer):
            return Pass()
        findings: list[Finding] = []
        broken: list[tuple[Rule, str]] = []
        if not any(one.name == ACCEPTED for one in envelope.findings):
            await self._look(peer, findings, broken)
        if peer.tls is None:  # to demand encryption is no suspicion, which a list could take away
            findings.append(Finding("cleartext", self._options.cleartext, "without encryption"))
            broken.append(("cleartext", "without encryption"))
        return self._verdict(broken, tuple(findings))

    async def _look(self, peer: Peer, findings: list[Finding], broken: list[tuple[Rule, str]]) -> None:
        """Names: add what is found, and the rules that are broken."""
        noted = peer.notes.get(self._name, {})
        names: Any = noted[NOTE] if NOTE in noted else await self._names(peer)
        if names is None:
            findings.append(Finding("reverse-name", 0.0, "the DNS cannot tell", {"result": "temperror", "name": ""}))
        elif names:
            findings.append(Finding("reverse-name", 0.0, " ".join(names), {"result": "pass", "name": names[0]}))
        else:
            words = f"{peer.ip} has no name in the DNS that has this address"
            findings.append(Finding("reverse-name", self._options.reverse_name, words, {"result": "fail", "name": ""}))
            broken.append(("reverse_name", words))
        hello = await self._hello(peer)
        if hello is not None:
            rule, words = hello
            findings.append(Finding("hello", self._score(rule), words, {"result": "fail", "rule": rule}))
            broken.append((rule, words))

    def _verdict(self, broken: Sequence[tuple[Rule, str]], findings: tuple[Finding, ...]) -> Verdict:
        for rule, words in broken:
            if rule in self._options.refuse:
                return Refuse(words, enhanced="5." + CODES.get(rule, "7.1"), findings=findings)
        for rule, words in broken:
            if rule in self._options.defer:
                return Defer(words, enhanced="4." + CODES.get(rule, "7.1"), findings=findings)
        return Pass(findings=findings)

    def _applies(self, peer: Peer) -> bool:
        if peer.login or peer.service != "mx":
            return False
        ip = peer.ip
        return ip is not None and is_public(str(ip)) and not any(ip in network for network in self._options.exempt)

    def _score(self, rule: Rule) -> float:
        score: float = getattr(self._options, rule)
        return score

    async def _names(self, peer: Peer) -> tuple[str, ...] | None:
        """None where the DNS cannot tell in time."""
        names: tuple[str, ...] | None = await self._in_time(peer.names())
        return names

    async def _hello(self, peer: Peer) -> tuple[Rule, str] | None:
        fault = hello_fault(peer.hello, peer.ip, own_names=self._own_names, own_networks=self._options.own_networks)
        if fault is not None:
            return fault
        if not self._asks_for_hello or peer.hello.startswith("["):
            return None
        if await self._in_time(self._is_known(peer.hello)) is False:
            return "hello_unknown", f"calls itself {peer.hello}: the DNS knows no such host"
        return None

    async def _is_known(self, name: str) -> bool:
        """Whether it has an address or a mail exchanger.  Raises `LookupFailed` where nobody can tell."""
        fault = None
        for record_type in ("A", "AAAA", "MX"):
            try:
                answer = await self._resolver.query(name, record_type)
            except LookupFailed as error:
                fault = error
                continue
            if answer.records:
                return True
            if not answer.name_exists:
                return False
        if fault is not None:
            raise fault
        return False

    async def _in_time(self, question: Awaitable[Any]) -> Any:
        """The answer; None where nobody can tell in time."""
        try:
            return await Deferred.fromCoroutine(question).addTimeout(self._wait, self._clock)  # type: ignore[arg-type]
        except (LookupFailed, Late):
            return None

    @property
    def _wait(self) -> float:
        return self._options.wait


@implementer(IComponentFactory)
class PeerRulesFactory:
    """Makes the filter for ``[[filter]] use = "peer_rules"``."""

    name = "peer_rules"
    summary = "Looks at a peer's name in the DNS, the name that it gives, and whether it encrypts."
    api_version = "1.0"
    replays = True
    provides = (IPeerFilter, ISenderFilter)
    options = PeerRulesOptions

    def build(self, options: Any, services: Services) -> PeerRules:
        """Return the filter."""
        return PeerRules(
            options, name=services.name, hostname=services.hostname, resolver=services.resolver, clock=services.clock
        )


factory = PeerRulesFactory()
