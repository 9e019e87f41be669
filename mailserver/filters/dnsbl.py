"""Asks DNS lists about peers, about the names that they give and about senders' domains (RFC 5782).

The lists are asked about the address at connect, side by side; what they said is noted for the connection and found with each
message of somebody who has not logged in.  A list that cannot be asked, refuses, or answers "everything" holds nobody.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine, Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.logger import Logger
from zope.interface import implementer

from mailserver.api import (
    Clock,
    ComponentMetrics,
    Defer,
    Duration,
    Envelope,
    Finding,
    HostName,
    IComponentFactory,
    IPeerFilter,
    IPeriodic,
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
from mailserver.trust.dns_lists import (
    DOMAIN_POINTS,
    UNLISTED,
    V4_POINTS,
    V6_POINTS,
    CodeSet,
    ListAnswer,
    TestPoints,
    address_name,
    read_answer,
)

__all__ = ["DNSLists", "DNSListsOptions", "ListTable", "factory"]

DAY_SECONDS = 86_400.0
REST_SECONDS = 3600.0  # how long a list that refuses or answers nonsense is left alone
ACCEPTED = "accepted"
NOTE = "answers"
DOMAIN = re.compile(r"(?=.*[A-Za-z])[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*\.[A-Za-z][A-Za-z0-9-]*\.?")
SILENT: Any = None  # in place of an answer: nobody could tell


def _codes(text: str) -> str:
    CodeSet.parse(text)
    return text


Codes = Annotated[str, AfterValidator(_codes)]
Score = Annotated[float, Field(ge=-1000, le=1000, allow_inf_nan=False)]
Wait = Annotated[Duration, Field(gt=0, le=600)]


class ListTable(Options):
    """One list."""

    zone: HostName
    """Where it is asked: `zen.spamhaus.org`, with the key in it where the list gives keys."""
    name: str = ""
    """What findings and the log call it; the zone where it is not given. Give one where the zone has a key in it."""
    about: tuple[Literal["ipv4", "ipv6", "hello", "sender"], ...] = ("ipv4", "ipv6")
    """What it is asked about: the peer's address of either kind, the domain of EHLO or HELO, the sender's domain."""
    score: Score | None = None
    """The score of an answer that `codes` does not name; a list of the good has a negative one."""
    codes: dict[Codes, Score] = Field(default_factory=dict)
    """Scores by the list's answers: `{ "127.0.0.2" = 3, "127.0.0.4-127.0.0.7" = 4, "127.0.0.10,127.0.0.11" = 2 }`. Of
    several that fit, the narrowest counts."""
    refused: tuple[Codes, ...] = ("127.255.255.0/24", "127.0.0.1")
    """The answers by which the list says that it does not answer us."""

    @model_validator(mode="after")
    def _counts(self) -> ListTable:
        if self.score is None and not self.codes:
            raise ValueError("score or codes: without them the list counts nothing")
        if not self.about:
            raise ValueError("about: names nothing that it could be asked about")
        return self


class DNSListsOptions(Options):
    """Which lists are asked, and what follows."""

    list: tuple[ListTable, ...] = Field(min_length=1, max_length=50)
    """The lists, each a table `[[filter.list]]`."""
    verdict: Literal["score", "refuse", "defer"] = "score"
    """What follows at MAIL: findings alone, or refusal or deferral where the lists' scores together reach `threshold`."""
    threshold: Score = 3.0
    """The sum for `verdict`."""
    wait: Wait = 5.0
    """How long the lists are waited for, at connect and at MAIL; those that have not answered are findings then."""
    exempt: tuple[Network, ...] = ()
    """Networks that are not asked about, beside those that nobody has in the Internet."""

    @model_validator(mode="after")
    def _have_names(self) -> DNSListsOptions:
        names = [table.name or table.zone for table in self.list]
        if len(set(names)) != len(names):
            raise ValueError("list: two of them have the same name")
        return self


class _List:
    """One list, and how it fares.  `seconds` is a clock that nobody sets."""

    log = Logger()

    def __init__(self, table: ListTable, *, resolver: Any, seconds: Callable[[], float]) -> None:
        self.about = table.about
        self.name = table.name or table.zone
        self._zone = table.zone
        self._score = table.score or 0.0
        codes = [(CodeSet.parse(text), score) for text, score in table.codes.items()]
        self._codes = sorted(codes, key=lambda one: one[0].size)
        self._refused = [CodeSet.parse(text) for text in table.refused]
        self._resolver = resolver
        self._seconds = seconds
        self._told: dict[str, float] = {}
        self._is_checked = False
        self._rests_until: float | None = None

    @property
    def rests(self) -> bool:
        """It has refused us, or answers what makes no sense, and is left alone."""
        return self._rests_until is not None and self._seconds() < self._rests_until

    async def ask(self, name: str) -> ListAnswer:
        """What it says of a name; "unlisted" of everything while it rests.  Raises `LookupFailed` where nobody can tell."""
        if not self._is_checked and not self.rests:
            await self.check()
        if self.rests:
            return UNLISTED
        answer = await self._read(name)
        if answer.says in ("refused", "odd"):
            self._leave_alone(_fault(answer), REST_SECONDS)
        return answer

    async def check(self) -> None:
        """Look at the test points: a list that holds what it must not hold answers "everything", and is not asked for a day.

        Raises `LookupFailed` where nobody can tell; then it is looked at again before its next question.
        """
        self._is_checked = False
        fault = ""
        for points, use in self._points():
            answer = await self._read(points.unlisted)
            if answer.says != "unlisted":
                fault = _fault(answer) if answer.says != "listed" else f"lists everything, {use} among it"
                break
            answer = await self._read(points.listed)
            if answer.says in ("refused", "odd"):
                fault = _fault(answer)
                break
            if answer.says == "unlisted":
                self._tell(f"does not hold the test point for {use}: it is empty, closed, or has nothing of that kind")
        self._is_checked = True
        self._rests_until = None
        if fault:
            self._leave_alone(fault, DAY_SECONDS if fault.startswith("lists") else REST_SECONDS)

    def score(self, codes: Sequence[str]) -> float:
        """That of the answer that counts most, whichever way; it counts once."""
        return max([self._score_of(code) for code in codes], key=abs)

    def _score_of(self, code: str) -> float:
        number = int.from_bytes(bytes(map(int, code.split("."))), "big")
        return next((score for codes, score in self._codes if number in codes), self._score)

    async def _read(self, name: str) -> ListAnswer:
        answer = await self._resolver.query(f"{name}.{self._zone}", "A")
        return read_answer(answer.records, self._refused)

    def _points(self) -> list[tuple[TestPoints, str]]:
        found = []
        if "ipv4" in self.about:
            found.append((V4_POINTS, "IPv4"))
        if "ipv6" in self.about:
            found.append((V6_POINTS, "IPv6"))
        if "hello" in self.about or "sender" in self.about:
            found.append((DOMAIN_POINTS, "domains"))
        return found

    def _leave_alone(self, fault: str, seconds: float) -> None:
        self._rests_until = self._seconds() + seconds
        self._is_checked = False  # it is looked at before it counts again
        self._tell(f"{fault}; it does not count")

    def _tell(self, fault: str) -> None:
        """Once a day for each kind of fault."""
        now = self._seconds()
        told = self._told.get(fault)
        if told is None or now - told >= DAY_SECONDS * 0.9:  # checks come a day apart, more or less
            self._told[fault] = now
            self.log.warn("the DNS list {list} {fault}", list=self.name, fault=fault)


def _fault(answer: ListAnswer) -> str:
    """Only a few sentences: what is told once a day goes by them."""
    if answer.says == "refused":
        return "refuses to answer us (too many questions, a resolver that many share, or no key)"
    return "answers with addresses that are no codes: its name may belong to somebody else by now"


@implementer(IPeerFilter, ISenderFilter, IPeriodic)
class DNSLists:
    """Asks all lists side by side.  `seconds` is a clock that nobody sets."""

    cost = 10
    skippable = True
    interval_seconds = DAY_SECONDS
    deadline_seconds = 120.0

    def __init__(
        self,
        options: DNSListsOptions,
        *,
        name: str,
        resolver: Any,
        clock: Clock,
        seconds: Callable[[], float],
        metrics: ComponentMetrics | None = None,
    ) -> None:
        self._name = name
        self._lists = [_List(table, resolver=resolver, seconds=seconds) for table in options.list]
        self._no = {"score": None, "refuse": Refuse, "defer": Defer}[options.verdict]
        self._threshold = options.threshold
        self._wait = options.wait
        self._exempt = options.exempt
        self._clock = clock
        self._metrics = metrics

    async def judge_peer(self, peer: Peer) -> Verdict:
        """Ask at connect, and note it; where people log in nobody is asked about."""
        if peer.hello or peer.login or peer.service == "submission" or not self._may_ask(peer):
            return Pass()
        return Pass(notes={NOTE: await self._about_address(peer)})

    async def judge_sender(self, envelope: Envelope) -> Verdict:
        """What was found of the peer and is found of the names; nothing of those who logged in or whom a list has accepted."""
        peer = envelope.peer
        if peer.login or peer.service == "submission" or not self._may_ask(peer):
            return Pass()
        if any(one.name == ACCEPTED for one in envelope.findings):
            return Pass()
        noted: Any = peer.notes.get(self._name, {}).get(NOTE)
        if noted is None:
            noted = await self._about_address(peer)
        found = (*noted, *await self._about_names(envelope))
        total = sum([one.score for one in found])
        if self._no is not None and total >= self._threshold:
            return self._no(f"DNS lists: {', '.join([one.evidence for one in found if one.score > 0])}", findings=found)
        return Pass(findings=found)

    async def run_periodically(self) -> None:
        """Look at the test points of all lists.  Raises `LookupFailed` where nobody can tell of one of them."""
        checks = [Deferred.fromCoroutine(one.check()) for one in self._lists]
        _results(await DeferredList(checks, consumeErrors=True))

    def _may_ask(self, peer: Peer) -> bool:
        ip = peer.ip
        return ip is not None and is_public(peer.address) and not any(ip in network for network in self._exempt)

    async def _about_address(self, peer: Peer) -> tuple[Finding, ...]:
        ip = peer.ip
        if ip is None:
            return ()
        kind, name = f"ipv{ip.version}", address_name(ip)
        return await self._found([(one, name, str(ip)) for one in self._lists if kind in one.about])

    async def _about_names(self, envelope: Envelope) -> tuple[Finding, ...]:
        names = {"hello": envelope.peer.hello, "sender": ""}
        if envelope.sender is not None and not envelope.sender.is_literal:
            names["sender"] = envelope.sender.domain_key
        questions = {
            (one.name, name): (one, name, name)
            for kind, name in [(kind, name.rstrip(".").lower()) for kind, name in names.items() if DOMAIN.fullmatch(name)]
            for one in self._lists
            if kind in one.about
        }
        return await self._found(list(questions.values()))

    async def _found(self, questions: Sequence[tuple[_List, str, str]]) -> tuple[Finding, ...]:
        """A finding for each list that says something or cannot tell."""
        if not questions:
            return ()
        answers = await self._within_time([self._answer(one, name) for one, name, _ in questions])
        found = [self._finding(one, subject, answer) for (one, _, subject), answer in zip(questions, answers, strict=True)]
        return tuple([one for one in found if one is not None])

    async def _within_time(self, coroutines: Sequence[Coroutine[Any, Any, ListAnswer | None]]) -> Sequence[ListAnswer | None]:
        asked = [Deferred.fromCoroutine(one) for one in coroutines]
        if all(one.called for one in asked):
            return _results(await DeferredList(asked, consumeErrors=True))

        def give_up() -> None:
            for one in asked:
                one.cancel()

        timer = self._clock.callLater(self._wait, give_up)
        try:
            return _results(await DeferredList(asked, consumeErrors=True))
        finally:
            if timer.active():
                timer.cancel()

    async def _answer(self, one: _List, name: str) -> ListAnswer | None:
        try:
            answer = await one.ask(name)
        except (LookupFailed, CancelledError):
            answer = SILENT
        if self._metrics is not None:
            self._metrics.count("answers", list=one.name, result="temperror" if answer is SILENT else answer.says)
        return answer

    def _finding(self, one: _List, subject: str, answer: ListAnswer | None) -> Finding | None:
        if answer is None:  # SILENT
            return _finding(one.name, 0.0, f"{one.name} cannot be asked", "temperror")
        if answer.says == "unlisted":
            return None
        codes = " ".join(answer.codes)[:200]
        if answer.says != "listed":
            return _finding(one.name, 0.0, f"{one.name} {_fault(answer)}", "permerror", codes)
        score = one.score(answer.codes)
        result = "pass" if score < 0 else "fail"
        return _finding(one.name, score, f"{subject} is listed by {one.name} ({codes})", result, codes)


def _results(ended: Any) -> list[Any]:
    """What all came to, when the last has ended; the first failure is raised then."""
    for is_well, result in ended:
        if not is_well:
            result.raiseException()
    return [result for _, result in ended]


def _finding(name: str, score: float, evidence: str, result: str, code: str = "") -> Finding:
    return Finding("dnsbl", score, evidence, {"list": name, "code": code, "result": result})


@implementer(IComponentFactory)
class DNSListsFactory:
    """Makes the filter for ``[[filter]] use = "dnsbl"``."""

    name = "dnsbl"
    summary = "Asks DNS lists about peers, the names they give and senders' domains (RFC 5782)."
    api_version = "1.0"
    replays = True
    provides = (IPeerFilter, ISenderFilter)
    options = DNSListsOptions

    def build(self, options: Any, services: Services) -> DNSLists:
        """Return the filter."""
        return DNSLists(
            options,
            name=services.name,
            resolver=services.resolver,
            clock=services.clock,
            seconds=services.steady_seconds,
            metrics=services.metrics,
        )


factory = DNSListsFactory()
