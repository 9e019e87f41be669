"""What MTA-STS says about a domain to which mail goes (RFC 8461 section 5): looked up, fetched, kept, renewed.

    no TXT record                        no policy, but one that is in force stays so until its max_age
    the record has the id that we know   the policy that is kept
    another id                           a new one is fetched; until that has worked, the one in force stays
    nothing can be fetched               the one in force; without one mail goes as if there were none (section 5.1)
    mode: none                           no policy any more

Mail waits for a first fetch ten seconds at most; the fetch goes on, and what it brings counts for the next look-up.  One look-up
serves all who ask meanwhile.  A failure is remembered for five minutes.  Once a day, or after half of its max_age, a policy is
fetched again, whatever its TXT record says: whoever can keep the DNS from us for a while shall not end it (section 10.2).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as Late
from twisted.logger import Logger

from mailserver.interfaces import Clock, IResolver
from mailserver.mail.dns_records import Answer, LookupFailed
from mailserver.mail.faults import StorageFault
from mailserver.plugins.awaiting import later, within
from mailserver.relay.hosts import Hosts
from mailserver.relay.sts_fetching import PolicyFetching, PolicyNotFetched
from mailserver.relay.sts_store import KeptPolicies
from mailserver.trust.mta_sts import FETCH_ERROR, NO_STS, STSAnswer, STSMode, STSPolicy, find_id

__all__ = ["STSKeeper", "with_sts"]

WAIT_SECONDS = 10.0
FAILURE_SECONDS = 300.0
FAILURES_MOST = 10_000
PENDING_SECONDS = 30.0  # for so long hosts are kept without the answer that was not there in time
LOOKUPS_MOST = 2_000  # under way
DOMAINS_MOST = 20_000  # whose policies are kept
LOOK_SECONDS = 60.0
RENEWED_AT_ONCE = 20
DAY_SECONDS = 86_400.0
RENEWED_AGE_SECONDS_LEAST = 3_600  # a policy with a shorter life is fetched when there is mail
AGAIN_SECONDS = 3_600.0  # after a renewal that has failed
DOMAIN_CHARACTERS_MOST = 240  # with the labels in front of it, it has to be a name


@dataclass(slots=True)
class _Lookup:
    """One that is under way.  `in_force` is what was in force before; `is_announced`: there is a policy to be fetched."""

    in_force: STSPolicy | None = None
    is_announced: bool = False
    waiting: list[Deferred[STSAnswer]] = field(default_factory=list)
    running: Deferred[None] | None = None


@dataclass(frozen=True, slots=True)
class _Failure:
    """Why nothing was fetched for this id ("": why no id is known), and until when that is believed."""

    id: str
    until: float
    why: str
    detail: str


class STSKeeper:
    """Of one relay.  `seconds` is a clock that nobody sets."""

    log = Logger()

    def __init__(
        self,
        *,
        resolver: IResolver,
        fetching: PolicyFetching,
        kept: KeptPolicies,
        clock: Clock,
        seconds: Callable[[], float],
    ) -> None:
        self._resolver = resolver
        self._fetching = fetching
        self._kept = kept
        self._clock = clock
        self._seconds = seconds
        self._lookups: dict[str, _Lookup] = {}
        self._failures: dict[str, _Failure] = {}
        self._due: dict[str, float] = {}  # when a kept policy is renewed
        self._told_full = False
        self._timer: Any = None
        self._loading: Deferred[None] | None = None
        self._is_stopped = False

    # --- life ---

    def start(self) -> None:
        """Find out which policies are kept, and renew them when it is time."""
        self._timer = self._clock.callLater(LOOK_SECONDS, self._look)
        self._loading = Deferred.fromCoroutine(self._load())

    async def stop(self) -> None:
        """End it; whoever waits is told that there is no policy."""
        self._is_stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._loading is not None:
            self._loading.cancel()
        for lookup in list(self._lookups.values()):
            if lookup.running is not None:
                lookup.running.cancel()

    def counts(self) -> dict[str, int]:
        """Figures of now."""
        return {"sts_policies": len(self._due), "sts_failures": len(self._failures)}

    async def seconds_left(self, domain: str) -> float | None:
        """For how long the domain's policy is in force yet; None where there is none, or nobody can tell."""
        return await self._kept.seconds_left(domain)

    # --- for mail ---

    async def find(self, domain: str) -> STSAnswer:
        """What is known about the domain (A-labels, lower case), within ten seconds.  Raises no errors."""
        if domain.startswith("[") or len(domain) > DOMAIN_CHARACTERS_MOST or self._is_stopped:
            return NO_STS
        lookup = self._lookups.get(domain)
        if lookup is None and len(self._lookups) >= LOOKUPS_MOST:
            in_force = _active(await self._kept.get(domain))  # what others make us look up weakens no policy that is kept
            return STSAnswer(in_force, detail=f"{LOOKUPS_MOST} look-ups of MTA-STS are under way", is_pending=True)
        waiting: Deferred[STSAnswer] = Deferred()
        answer = within(WAIT_SECONDS, waiting, self._clock)
        lookup = lookup or _Lookup()
        lookup.waiting.append(waiting)
        if domain not in self._lookups:
            self._begin(domain, lookup)
        try:
            return await answer
        except (Late, CancelledError):
            words = f"nothing is known about MTA-STS after {WAIT_SECONDS:g} seconds"
            return STSAnswer(_active(lookup.in_force), FETCH_ERROR if lookup.is_announced else "", words, is_pending=True)

    # --- one look-up at a time for each domain ---

    def _begin(self, domain: str, lookup: _Lookup, *, renews: bool = False) -> None:
        self._lookups[domain] = lookup
        running = Deferred.fromCoroutine(self._work(domain, lookup, renews))
        if not running.called:
            lookup.running = running

    async def _work(self, domain: str, lookup: _Lookup, renews: bool) -> None:
        answer = NO_STS
        try:
            answer = await (self._renewed(domain, lookup) if renews else self._found(domain, lookup))
        except CancelledError:
            answer = STSAnswer(_active(lookup.in_force), detail="the server stops")
        except Exception:  # noqa: BLE001  ours; mail goes on
            self.log.failure("MTA-STS of {domain} could not be looked up", domain=domain)
            answer = STSAnswer(_active(lookup.in_force), detail="an error of our own")
        finally:
            del self._lookups[domain]
            for one in lookup.waiting:
                if not one.called:
                    one.callback(answer)

    async def _found(self, domain: str, lookup: _Lookup) -> STSAnswer:
        kept = lookup.in_force = await self._kept.get(domain)
        id, detail = await self._announced(domain)
        if kept is not None and (not id or id == kept.id):
            await self._kept.use(domain)
            if domain not in self._due:  # nobody needed it for so long that it was to end
                self._due[domain] = self._seconds() + await self._renewal_left(domain, kept)
            return STSAnswer(_active(kept), detail=detail)
        if not id:
            return STSAnswer(detail=detail) if detail else NO_STS
        lookup.is_announced = True
        failure = self._failures.get(domain)
        if failure is not None and failure.id == id and self._seconds() < failure.until:
            return STSAnswer(_active(kept), failure.why, failure.detail)
        answer = await self._fetched(domain, id, kept)
        await self._kept.use(domain)
        return answer

    async def _renewal_left(self, domain: str, kept: STSPolicy) -> float:
        """In how many seconds it is renewed."""
        left = await self._kept.seconds_left(domain)
        age = 0.0 if left is None else kept.max_age_seconds - left
        return max(0.0, _renewal_seconds(kept) - age)

    async def _renewed(self, domain: str, lookup: _Lookup) -> STSAnswer:
        kept = lookup.in_force = await self._kept.get(domain)
        if kept is None or not await self._kept.is_used(domain):
            self._due.pop(domain, None)  # it has ended, or may end
            return STSAnswer(_active(kept))
        id, _ = await self._announced(domain)
        self._due[domain] = self._seconds() + AGAIN_SECONDS
        return await self._fetched(domain, id or kept.id, kept)

    async def _announced(self, domain: str) -> tuple[str, str]:
        """The id of the TXT record, "" where there is none; and why it is not known.

        That is remembered like other failures: name servers that drop such questions would hold up mail each time.
        """
        failure = self._failures.get(domain)
        if failure is not None and not failure.id and self._seconds() < failure.until:
            return "", failure.detail
        try:
            answer: Answer = await self._resolver.query(f"_mta-sts.{domain}", "TXT")
        except LookupFailed as error:
            detail = f"the DNS does not say whether there is an MTA-STS policy: {error}"
            self._failed(domain, _Failure("", self._seconds() + FAILURE_SECONDS, "", detail))
            return "", detail
        return find_id(answer.texts), ""

    async def _fetched(self, domain: str, id: str, kept: STSPolicy | None) -> STSAnswer:
        try:
            policy = await self._fetching.policy(domain, id)
        except PolicyNotFetched as error:
            self.log.warn("{domain}: MTA-STS: {why}: {detail}", domain=domain, why=error.why, detail=error.detail)
            self._failed(domain, _Failure(id, self._seconds() + FAILURE_SECONDS, error.why, error.detail))
            return STSAnswer(_active(kept), error.why, error.detail)
        self._failures.pop(domain, None)
        await self._keep(domain, policy)
        return STSAnswer(_active(policy))

    async def _keep(self, domain: str, policy: STSPolicy) -> None:
        if domain not in self._due and len(self._due) >= DOMAINS_MOST:
            if not self._told_full:
                self._told_full = True
                self.log.warn("MTA-STS policies of {count} domains are kept: no others are", count=DOMAINS_MOST)
            return
        await self._kept.put(domain, policy)
        self._due[domain] = self._seconds() + _renewal_seconds(policy)

    def _failed(self, domain: str, failure: _Failure) -> None:
        self._failures.pop(domain, None)
        self._failures[domain] = failure
        if len(self._failures) > FAILURES_MOST:
            del self._failures[next(iter(self._failures))]

    # --- time ---

    async def _load(self) -> None:
        try:
            async for domain, policy, left_seconds in self._kept.all():
                age = policy.max_age_seconds - left_seconds
                self._due.setdefault(domain, self._seconds() + max(0.0, _renewal_seconds(policy) - age))
        except StorageFault as fault:
            self.log.warn("the MTA-STS policies that are kept cannot be read: {fault}", fault=fault)
        except CancelledError:
            pass
        except Exception:  # noqa: BLE001  each is read when there is mail
            self.log.failure("the MTA-STS policies that are kept cannot be read")

    def _look(self) -> None:
        self._timer = self._clock.callLater(LOOK_SECONDS, self._look)
        now = self._seconds()
        self._failures = {domain: one for domain, one in self._failures.items() if one.until > now}
        due = sorted((at, domain) for domain, at in self._due.items() if at <= now and domain not in self._lookups)
        for _, domain in due[:RENEWED_AT_ONCE]:  # those that wait longest: many that fail each hour are before nobody
            self._begin(domain, _Lookup(), renews=True)


def _active(policy: STSPolicy | None) -> STSPolicy | None:
    """Mode *none* says that there is no policy (RFC 8461 section 5)."""
    return None if policy is None or policy.mode is STSMode.NONE else policy


def _renewal_seconds(policy: STSPolicy) -> float:
    """When it is fetched again, counted from the last time."""
    if policy.max_age_seconds < RENEWED_AGE_SECONDS_LEAST:
        return float(policy.max_age_seconds)
    return min(DAY_SECONDS, policy.max_age_seconds / 2)


def with_sts(look_up: Callable[[str], Awaitable[Hosts]], keeper: STSKeeper) -> Callable[[str], Awaitable[Hosts]]:
    """A look-up of hosts (`HostBook`) that asks for the domain's policy at the same time."""

    async def found(domain: str) -> Hosts:
        asked = later(keeper.find(domain))
        hosts = await look_up(domain)
        sts = await asked
        seconds = min(hosts.ttl_seconds, PENDING_SECONDS) if sts.is_pending else hosts.ttl_seconds
        return replace(hosts, sts=sts, ttl_seconds=seconds)

    return found
