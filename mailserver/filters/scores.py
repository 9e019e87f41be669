"""Weighs what the other filters have found: the sum of the scores decides, by thresholds of the site, a domain or a user."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field, model_validator
from twisted.logger import Logger
from zope.interface import implementer

from mailserver.api import (
    AddHeader,
    Address,
    Argument,
    CannotDo,
    Clock,
    ComponentCommand,
    Defer,
    Envelope,
    Finding,
    IAccountFollower,
    ICommands,
    IComponent,
    IComponentFactory,
    IPeriodic,
    IRecords,
    IScorer,
    Options,
    Pass,
    Quarantine,
    Recipient,
    Refuse,
    Services,
    Verdict,
)
from mailserver.filters.followed_records import FollowedRecords, FollowsAccounts, KeyPart
from mailserver.filters.list_entries import SITE, read_scope, scopes_of
from mailserver.trust.weighing import LEVELS, Thresholds, Weighed, weigh

__all__ = ["Scores", "ScoresOptions", "factory", "read_thresholds"]

ACCEPTED = "accepted"
NAMED_MOST = 10
WEIGHTS_MOST = 40  # that are told with the sum
SCOPES_MOST = 200_000
PAGE = 250
OFF = "off"
USUAL = "usual"


class ScoresOptions(Options):
    """The sum of all findings' scores, and what it leads to for those who have no thresholds of their own."""

    tag: float | None = None
    """From this sum on a copy has the fields X-Spam-Flag, X-Spam-Score and X-Spam-Status; so it has from each further one on."""
    junk: float | None = 6.0
    """From this sum on a message is put aside (`Quarantine`): into Junk, where `policy.quarantine` says nothing else."""
    hold: float | None = None
    """From this sum on it is held until somebody decides (`mailserver quarantine`)."""
    defer: float | None = None
    """From this sum on it is deferred (4yz)."""
    refuse: float | None = 15.0
    """From this sum on it is refused (5yz)."""
    weights: dict[str, float] = Field(default_factory=dict)
    """What a finding's score is multiplied by, by the finding's name, or by the filter's name, a slash and the finding's:
    `weights = { "spf" = 0.5, "denylist/odd" = 0 }`. The others count as they are."""
    separator: str = Field(default="+", max_length=1)
    """What divides a user's name from a detail: mail for `alice+shop@example.org` goes by alice's thresholds. Empty: none."""

    @property
    def thresholds(self) -> Thresholds:
        """Those of the site."""
        return Thresholds(self.tag, self.junk, self.hold, self.defer, self.refuse)

    @model_validator(mode="after")
    def _fit_together(self) -> ScoresOptions:
        if self.thresholds == Thresholds():
            raise ValueError("tag, junk, hold, defer or refuse: without a threshold nothing follows from a sum")
        if not all(map(math.isfinite, self.weights.values())):
            raise ValueError("weights are finite numbers")
        if self.thresholds.faults:
            raise ValueError(self.thresholds.faults)
        return self


@implementer(IScorer, IComponent, IPeriodic, ICommands, IAccountFollower)
class Scores(FollowsAccounts):
    """Adds up the scores.  Where a filter has said Accept, nothing is weighed.

    Thresholds of domains and users stand in the records, and are in memory.  What one has not set is his domain's, then the
    site's.
    """

    skippable = True
    interval_seconds = 60.0
    deadline_seconds = 60.0
    log = Logger()

    def __init__(self, options: ScoresOptions, records: IRecords, clock: Clock) -> None:
        self._weights: Mapping[str, float] = options.weights
        self._told_weights = {f"weight {name}": value for name, value in list(options.weights.items())[:WEIGHTS_MOST]}
        self._site = options.thresholds
        self._separator = options.separator
        self._records = records
        self._followed = FollowedRecords(records, KeyPart(0), separator=options.separator, clock=clock)
        self._scopes: dict[str, Mapping[str, float | None]] = {}
        self._changes = 0

    # --- Life. ---

    async def start(self) -> None:
        """Read the thresholds of domains and users."""
        await self.run_periodically()

    async def stop(self) -> None:
        """Nothing is open."""

    async def run_periodically(self) -> None:
        """Take up what an import has put there.  Raises `StorageBroken`; then what was read before holds."""
        while True:
            changes, first = self._changes, ""
            found: dict[str, Mapping[str, float | None]] = {}
            while page := await self._records.items(first, most=PAGE):
                for scope, value in page:
                    try:
                        found[scope] = read_thresholds(value)
                    except ValueError as error:
                        self.log.warn("the thresholds of {scope!r} are none: {error}", scope=scope[:200], error=error)
                first = page[-1][0] + "\0"
            if changes == self._changes:  # else somebody has changed some while they were read
                self._scopes = found
                return

    # --- Weighing. ---

    async def weigh(self, envelope: Envelope, recipient: Recipient) -> Verdict:
        """The verdict of the highest threshold that the sum has reached."""
        findings = envelope.findings
        if not findings:
            return Pass()
        if any(one.name == ACCEPTED for one in findings):
            return Pass()
        weighed = weigh(findings, self._weights)
        thresholds, scope = self.thresholds_for(recipient.address)
        level = thresholds.reached(weighed.total)
        evidence = ", ".join([f"{name} {score:g}" for name, score in weighed.parts[:NAMED_MOST]])
        known = {name: value for name in LEVELS if (value := getattr(thresholds, name)) is not None}
        properties = {"outcome": level, "of": scope or "site", **known, **self._told_weights}
        tags = _tags(weighed, thresholds) if level else ()
        found = (Finding("score", round(weighed.total, 3), evidence, properties, tags=tags),)
        why = f"score {weighed.total:g}: {evidence}"
        match level:
            case "refuse":
                return Refuse(why, findings=found)
            case "defer":
                return Defer(why, findings=found)
            case "hold" | "junk":
                return Quarantine(why, hold=level == "hold", findings=found)
            case _:
                return Pass(findings=found)

    def thresholds_for(self, address: Address) -> tuple[Thresholds, str]:
        """Those that hold for a recipient, and the nearest scope that has set some of them."""
        if not self._scopes:
            return self._site, SITE
        thresholds, nearest = self._site, SITE
        for scope in reversed(scopes_of(address, self._separator)):
            given = self._scopes.get(scope)
            if given:
                thresholds, nearest = thresholds.changed(given), scope
        return thresholds, nearest

    # --- Renamed and removed users. ---

    async def _read_anew(self) -> None:
        self._changes += 1
        await self.run_periodically()

    # --- Orders. ---

    def commands(self) -> Sequence[ComponentCommand]:
        """``set``, ``clear`` and ``show``."""
        scope = Argument("scope", "a user's address, or @DOMAIN")
        levels = tuple(
            [Argument(level, f"a number, {OFF} for never, {USUAL} for what holds above", required=False) for level in LEVELS]
        )
        return (
            ComponentCommand("set", "set thresholds of a user or a domain", self.set, (scope, *levels)),
            ComponentCommand("clear", "take away those of a user or a domain", self.clear, (scope,)),
            ComponentCommand("show", "the thresholds that are set, or that hold for one", self.show, (
                Argument("scope", "a user's address, or @DOMAIN; absent: all that are set", required=False),
            )),
        )  # fmt: skip

    async def set(self, scope: str, **levels: str) -> str:
        """What holds now, in words."""
        scope = _scope(scope)
        given = dict(self._scopes.get(scope, {}))
        for level, text in levels.items():
            if text == USUAL:
                given.pop(level, None)
            elif text == OFF:
                given[level] = None
            else:
                given[level] = _number(level, text)
        if not levels:
            raise CannotDo(f"say which: {', '.join(LEVELS)}")
        if scope not in self._scopes and len(self._scopes) >= SCOPES_MOST:
            raise CannotDo(f"{SCOPES_MOST} users and domains have thresholds already")
        if not given:
            return await self.clear(scope)
        faults = self._above(scope).changed(given).faults
        if faults:
            raise CannotDo(faults)
        await self._records.put(scope, json.dumps(given, sort_keys=True).encode())
        self._changes += 1
        self._scopes[scope] = given
        return f"{scope}: {_in_words(self._above(scope).changed(given))}"

    async def clear(self, scope: str) -> str:
        """What was done, in words."""
        scope = _scope(scope)
        await self._records.drop(scope)
        self._changes += 1
        there = self._scopes.pop(scope, None)
        return f"{scope}: {'cleared' if there is not None else 'nothing was set'}; {_in_words(self._above(scope))}"

    async def show(self, scope: str | None = None) -> list[dict[str, Any]]:
        """A row for each scope that has set some."""
        if scope is None:
            own = [_row(one, self._above(one).changed(self._scopes[one])) for one in sorted(self._scopes)]
            return [_row("site", self._site), *own]
        scope = _scope(scope)
        return [_row(scope, self._above(scope).changed(self._scopes.get(scope, {})))]

    def _above(self, scope: str) -> Thresholds:
        """What holds for it where it has set nothing."""
        domain = f"@{scope.rpartition('@')[2]}"
        return self._site if scope.startswith("@") else self._site.changed(self._scopes.get(domain, {}))


def read_thresholds(value: bytes) -> dict[str, float | None]:
    """A record, read.  Raises ValueError."""
    try:
        given = json.loads(value)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"no JSON: {type(error).__name__}") from error
    if not isinstance(given, dict):
        raise ValueError("no object")
    for level, number in given.items():
        if level not in LEVELS or not (number is None or (type(number) in (int, float) and math.isfinite(number))):
            raise ValueError(f"{str(level)[:20]!r} is no threshold, or has none")
    return given


def _tags(weighed: Weighed, thresholds: Thresholds) -> tuple[AddHeader, ...]:
    """For the reader's rules; the names as SpamAssassin has them."""
    required = min(value for level in LEVELS if (value := getattr(thresholds, level)) is not None)
    tests = ",".join([f"{name}={score:.6g}" for name, score in weighed.parts[:NAMED_MOST]])
    status = f"Yes, score={weighed.total:.6g} required={required:.6g} tests={tests}"
    plain = "".join([c if " " <= c <= "~" else "?" for c in status])[:900]
    return (
        AddHeader("X-Spam-Flag", "YES"),
        AddHeader("X-Spam-Score", f"{weighed.total:.6g}"),
        AddHeader("X-Spam-Status", plain),
    )


def _scope(text: str) -> str:
    try:
        scope = read_scope(text)
    except ValueError as error:
        raise CannotDo(str(error)) from error
    if scope == SITE:
        raise CannotDo("the site's thresholds stand in the configuration")
    return scope


def _number(level: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise CannotDo(f"{level}: {text[:40]!r} is no number, nor {OFF} or {USUAL}")
    return number


def _in_words(thresholds: Thresholds) -> str:
    known = [f"{level} {value:g}" for level in LEVELS if (value := getattr(thresholds, level)) is not None]
    return ", ".join(known) or "no thresholds"


def _row(scope: str, thresholds: Thresholds) -> dict[str, Any]:
    return {"scope": scope, **{level: getattr(thresholds, level) for level in LEVELS}}


@implementer(IComponentFactory)
class ScoresFactory:
    """Makes the scorer for ``[[filter]] use = "scores"``."""

    name = "scores"
    summary = "Adds up the scores of what the other filters have found: a tag, Junk, held, later or no, by thresholds."
    api_version = "1.0"
    replays = True
    provides = IScorer
    options = ScoresOptions

    def build(self, options: Any, services: Services) -> Scores:
        """Return the scorer."""
        return Scores(options, services.records, services.clock)


factory = ScoresFactory()
