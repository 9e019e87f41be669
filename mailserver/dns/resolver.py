"""The resolver: answers from its cache and asks each other question once, however many ask for it."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from twisted.internet.defer import Deferred, fail, gatherResults, succeed
from twisted.internet.error import CannotListenError, MessageLengthError
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mailserver.dns.beliefs import Beliefs, Trust
from mailserver.dns.cache import Cache
from mailserver.dns.datagrams import Datagrams, QueryAttempt
from mailserver.dns.edns import EdnsMemory
from mailserver.dns.lookup import Lookup, LookupStep
from mailserver.dns.reading import SERVFAIL, Alias
from mailserver.dns.servers import NameServer, ServerList, SystemSettings, read_resolv_conf
from mailserver.dns.special import NOT_THERE, answer_here, stays_on_this_host
from mailserver.dns.streams import Streams
from mailserver.dns.validation import ProbeAnswer, ProbeNames, ProbeQuestion
from mailserver.dns.wire import TYPES, NotAName, encode_name, in_random_case, read_name
from mailserver.interfaces import IComponent, IResolver
from mailserver.mail.address import AddressError, normal_domain
from mailserver.mail.dns_records import Answer, LookupFailed

__all__ = ["ResolverCounts", "Resolver"]

SEND_ERRORS = (OSError, CannotListenError, MessageLengthError)
RESOLV_CONF = "/etc/resolv.conf"
RESOLV_CONF_SECONDS = 30.0  # how often it is looked at for a change
RESOLV_CONF_OCTETS = 65536
STREAMS = 50
PROBE_SECONDS = 12.0


@dataclass(slots=True)
class ResolverCounts:
    """What the resolver has done since its start."""

    queries: int = 0
    from_cache: int = 0
    datagrams: int = 0
    streams: int = 0
    timeouts: int = 0
    failures: int = 0


@implementer(IResolver, IComponent)
class Resolver:
    """A stub resolver (`IResolver`, `IComponent`).

    Without `servers` it follows /etc/resolv.conf and its changes.  `timeout_seconds` (how long one server has) and `attempts`
    (how often each is asked) then come from there as well, where they are None.  `question_seconds` bounds the whole of a
    question.  At most `in_flight` questions are with the servers; up to `waiting` more wait for their turn.  `seconds` is a
    monotonic clock; without it the reactor's is used.

    With `probe_names` servers that may be believed are examined (`Beliefs`), as `trust` says; without them they are believed.
    Without `checking` servers are told not to validate.
    """

    log = Logger()

    def __init__(
        self,
        *,
        reactor: Any,
        servers: Sequence[NameServer] = (),
        timeout_seconds: float | None = None,
        attempts: int | None = None,
        question_seconds: float = 30.0,
        in_flight: int = 500,
        waiting: int = 10_000,
        cache_entries: int = 10_000,
        cache_octets: int = 16 * 1024 * 1024,
        cache_seconds: float = 86_400.0,
        failure_seconds: float = 5.0,
        failure_seconds_most: float = 60.0,
        random_case: bool = False,
        checking: bool = True,
        trust: Trust = Trust.AUTO,
        probe_names: ProbeNames | None = None,
        resolv_conf: str = RESOLV_CONF,
        random_octets: Callable[[int], bytes] = os.urandom,
        seconds: Callable[[], float] | None = None,
    ) -> None:
        self.counts = ResolverCounts()
        self.watch: Callable[[float, str], None] | None = None
        """Is told how many seconds each question took, and whether it has "found" records, "none", or "failed"."""
        self._reactor = reactor
        self._seconds = seconds or reactor.seconds
        self._follows_system = not servers
        self._timeout_wanted = timeout_seconds
        self._attempts_wanted = attempts
        self._question_seconds = question_seconds
        self._in_flight_most = in_flight
        self._waiting_most = waiting
        self._random_case = random_case
        self._checking = checking
        self._beliefs: Beliefs | None = None
        if probe_names is not None:
            self._beliefs = Beliefs(
                clock=reactor,
                seconds=self._seconds,
                ask=self._probe,
                names=probe_names,
                trust=trust,
                changed=lambda: self._cache.clear(),
                settled=self._settled,
            )
        self._random_octets = random_octets
        self._resolv_conf = resolv_conf
        self._resolv_conf_seen: object = None
        self._resolv_conf_next = 0.0
        self._cache = Cache(
            entries_most=cache_entries,
            octets_most=cache_octets,
            longest_seconds=cache_seconds,
            failure_seconds=failure_seconds,
            failure_seconds_most=failure_seconds_most,
        )
        self._use(SystemSettings(servers=tuple(servers)) if servers else SystemSettings())
        self._pools: dict[NameServer, Datagrams] = {}
        self._streams = Streams(
            reactor=reactor,
            random_octets=random_octets,
            replied=self._replied,
            failed=self._failed,
            connections_most=STREAMS,
        )
        self._lookups: dict[tuple[str, str], Lookup] = {}  # ordered by the time at which they give up
        self._give_up_timer: Any = None
        self._queue: deque[Lookup] = deque()
        self._asking = 0
        self._taking_turns = False
        self._attempts: dict[QueryAttempt, None] = {}  # ordered by deadline
        self._timer: Any = None
        self._closing: list[Deferred[Any]] = []
        self._running = False

    # --- life ---

    async def start(self) -> None:
        """Read /etc/resolv.conf where no servers are configured.  Sockets are opened with the first question."""
        self._running = True
        if self._follows_system:
            self._look_at_system(self._seconds())
        if self._beliefs is not None:
            self._beliefs.start(self.servers)

    async def stop(self) -> None:
        """Fail the questions that wait and close every socket.  A later `start` begins with an empty cache."""
        self._running = False
        examinations = self._beliefs.stop() if self._beliefs is not None else []
        for timer in (self._timer, self._give_up_timer):
            if timer is not None:
                timer.cancel()
        self._timer = self._give_up_timer = None
        self._attempts.clear()
        self._queue.clear()
        lookups = list(self._lookups.values())
        self._lookups.clear()
        self._asking = 0
        self._cache.clear()
        closing = [*self._closing, *self._streams.close(), *examinations]
        for pool in self._pools.values():
            closing += pool.close()
        self._pools.clear()
        self._closing = []
        for lookup in lookups:
            _fire_failure(lookup, "the resolver has stopped")
        await gatherResults(closing, consumeErrors=True)

    @property
    def beliefs(self) -> dict[str, str]:
        """For people: each server, and whether its AD bit is believed."""
        return self._beliefs.described() if self._beliefs is not None else {}

    async def examined(self) -> dict[str, str]:
        """`beliefs`, when the servers have been examined."""
        if self._beliefs is not None:
            await self._beliefs.known()
        return self.beliefs

    @property
    def servers(self) -> tuple[NameServer, ...]:
        """The servers in use, in the order in which they are asked."""
        return tuple(self._servers.servers)

    # --- questions ---

    def query(self, name: str, record_type: str) -> Deferred[Answer]:
        """Ask for the records of `name`: A, AAAA, MX, TXT, PTR, TLSA, NS or CNAME (ValueError for others).

        The Deferred fails with `LookupFailed` where no server can tell.  A malformed name, such as "a..b", does not exist.
        Cancelling the Deferred does not cancel the question for others who asked the same.
        """
        number = TYPES.get(record_type)
        if number is None:
            raise ValueError(f"{record_type!r} is not a record type that the resolver asks for")
        if not self._running:
            return fail(LookupFailed("the resolver is not running"))
        self.counts.queries += 1
        now = self._seconds()
        key = (name, record_type)
        found = self._cache.get(key, now)
        if found is None:
            try:
                key, wire_name = _normal(name, record_type)
            except NotAName:
                return succeed(NOT_THERE)
            if (here := answer_here(*key)) is not None:
                return succeed(here)
            found = self._cache.get(key, now)
        if found is not None:
            self.counts.from_cache += 1
            return succeed(found) if isinstance(found, Answer) else fail(found)
        return self._join(key, wire_name, number, now)

    def _join(self, key: tuple[str, str], wire_name: bytes, number: int, now: float) -> Deferred[Answer]:
        lookup = self._lookups.get(key)
        is_new = lookup is None
        if lookup is None:
            if len(self._queue) >= self._waiting_most:
                return fail(LookupFailed("too many questions wait for the name servers"))
            lookup = self._lookups[key] = Lookup(key, wire_name, number, self._believes)
            lookup.gives_up_at = now + self._question_seconds  # the time in which it waits for its turn counts
            if self._give_up_timer is None:
                self._give_up_timer = self._reactor.callLater(self._question_seconds, self._give_up)
        deferred: Deferred[Answer] = Deferred(lookup.waiting.remove)
        lookup.waiting.append(deferred)
        if is_new:
            if self._beliefs is not None:
                self._beliefs.look()
            if self._asking < self._in_flight_most and not self._waits:
                self._begin(lookup, now)
            else:
                self._queue.append(lookup)
        return deferred

    def _begin(self, lookup: Lookup, now: float) -> None:
        if self._follows_system and now >= self._resolv_conf_next:
            self._look_at_system(now)
            if self._waits:  # there are other servers now, of which nothing is known yet
                self._queue.appendleft(lookup)
                return
        self._asking += 1
        self._ask_about(lookup, now)

    def _ask_about(self, lookup: Lookup, now: float) -> None:
        """Ask for the name, or for the one that its CNAMEs have led to.  Special names may go to servers on this host only."""
        here = answer_here(lookup.name, lookup.key[1])
        servers = self._servers.order(now)
        if here is None and stays_on_this_host(lookup.name):
            servers = [server for server in servers if server.address.is_loopback]
            here = None if servers else NOT_THERE
        if here is not None:
            self._finish(lookup, lookup.whole(here))
            return
        lookup.ask(servers, self._attempts_each)
        self._ask_next(lookup)

    def _ask_next(self, lookup: Lookup) -> None:
        """Send the question to the next server that can be reached.  Where none is left it has failed."""
        while (server := lookup.next_server()) is not None:
            attempt = self._attempt(lookup, server, self._seconds())
            self.counts.datagrams += 1
            try:
                self._pool(server).send(attempt)
                return
            except SEND_ERRORS as error:
                self._over(attempt)
                lookup.failed(server, f"cannot be reached: {error}")
        self._finish(lookup, None)

    def _ask_by_tcp(self, lookup: Lookup, server: NameServer) -> None:
        attempt = self._attempt(lookup, server, self._seconds(), by_tcp=True)
        self.counts.streams += 1
        try:
            self._streams.send(attempt, self._timeout_seconds)
        except OSError as error:
            self._over(attempt)
            lookup.failed(server, str(error))
            self._ask_next(lookup)

    def _attempt(self, lookup: Lookup, server: NameServer, now: float, *, by_tcp: bool = False) -> QueryAttempt:
        question = lookup.question
        if self._random_case:
            question = in_random_case(question, self._random_octets(len(question)))
        edns = server not in lookup.without_edns and self._edns.wants(server, now)
        attempt = QueryAttempt(
            lookup, server, question, edns=edns, exactly=self._random_case, by_tcp=by_tcp, checking=self._checking
        )
        lookup.attempt = attempt
        attempt.deadline = now + self._timeout_seconds
        self._attempts[attempt] = None
        if self._timer is None:
            self._timer = self._reactor.callLater(self._timeout_seconds, self._at_deadline)
        return attempt

    # --- what comes back ---

    def _over(self, attempt: QueryAttempt) -> None:
        """Forget an attempt that has ended."""
        self._attempts.pop(attempt, None)
        if attempt.lookup.attempt is attempt:
            attempt.lookup.attempt = None

    def _replied(self, attempt: QueryAttempt, data: bytes) -> None:
        self._over(attempt)
        lookup, server = attempt.lookup, attempt.server
        if self._servers.heard(server):
            if self._beliefs is not None:
                self._beliefs.heard_again(server)
            self.log.info("name server {server} answers again", server=str(server))
        after_failure = server in lookup.without_edns
        found = lookup.read(server, data, by_tcp=attempt.by_tcp, edns=attempt.edns)
        if found is LookupStep.WITHOUT_EDNS:
            self._edns.failed(server, edns=True)
        elif attempt.edns or found is not LookupStep.NEXT_SERVER:
            now = self._seconds()
            if self._edns.answered(server, now, edns=attempt.edns, after_failure=after_failure):
                self.log.info("name server {server} answers without EDNS only", server=str(server))
        if isinstance(found, Answer):
            self._finish(lookup, found)
        elif found is LookupStep.BY_TCP:
            self._ask_by_tcp(lookup, server)
        elif isinstance(found, Alias):
            self._ask_about(lookup, self._seconds())
        else:
            self._ask_next(lookup)

    def _failed(self, attempt: QueryAttempt, why: str) -> None:
        """The server does not listen, or the connection broke."""
        if attempt not in self._attempts:
            return
        self._over(attempt)
        self._silent(attempt.server)
        attempt.lookup.failed(attempt.server, why)
        self._ask_next(attempt.lookup)

    def _at_deadline(self) -> None:
        self._timer = None
        now = self._seconds()
        late = []
        for attempt in self._attempts:
            if attempt.deadline > now:
                self._timer = self._reactor.callLater(attempt.deadline - now, self._at_deadline)
                break
            late.append(attempt)
        for attempt in late:
            if attempt in self._attempts:  # handling the one before may have ended this one
                try:
                    self._too_late(attempt)
                except Exception:  # noqa: BLE001  # one question's trouble: the others must have their end, too
                    self.log.failure("a question to the name servers is given up: {key}", key=attempt.lookup.key)
                    self._over(attempt)
                    self._finish(attempt.lookup, None)

    def _too_late(self, attempt: QueryAttempt) -> None:
        self.counts.timeouts += 1
        attempt.waits_in.forget(attempt)
        if not attempt.by_tcp:
            self._edns.failed(attempt.server, edns=attempt.edns)
            if attempt.edns:  # some firewalls drop questions with an OPT record
                attempt.lookup.without_edns.add(attempt.server)
        self._failed(attempt, f"no answer in {self._timeout_seconds:g} s")

    def _give_up(self) -> None:
        """End the questions whose time is over, also those that still wait for their turn."""
        self._give_up_timer = None
        now = self._seconds()
        late = []
        for lookup in self._lookups.values():
            if lookup.gives_up_at > now:
                self._give_up_timer = self._reactor.callLater(lookup.gives_up_at - now, self._give_up)
                break
            late.append(lookup)
        while self._queue and self._queue[0].gives_up_at <= now:
            lookup = self._queue.popleft()
            del self._lookups[lookup.key]
            self.counts.failures += 1
            why = f"no turn in {self._question_seconds:g} s: too many questions wait for the name servers"
            _fire_failure(lookup, f"{lookup.key[0]} {lookup.key[1]}: {why}")
        for lookup in late:
            if self._lookups.get(lookup.key) is lookup:
                attempt = lookup.attempt
                if attempt is not None:
                    self._over(attempt)
                    attempt.waits_in.forget(attempt)
                lookup.why = f"no answer in {self._question_seconds:g} s; last {lookup.why}"
                self._finish(lookup, None)

    def _silent(self, server: NameServer) -> None:
        if self._servers.silent(server, self._seconds()):
            self.log.warn("name server {server} does not answer", server=str(server))

    def _finish(self, lookup: Lookup, answer: Answer | None) -> None:
        """End a question with its answer, or (None) with the failure that no server could tell."""
        if self._lookups.get(lookup.key) is not lookup:  # the resolver was stopped meanwhile
            return
        now = self._seconds()
        if self.watch is not None:
            taken = now - (lookup.gives_up_at - self._question_seconds)
            self.watch(taken, "failed" if answer is None else "found" if answer.records else "none")
        del self._lookups[lookup.key]
        self._asking -= 1
        if answer is not None:
            self._cache.put(lookup.key, answer, now)
            while lookup.waiting:  # one by one: a callback may cancel a later one
                lookup.waiting.popleft().callback(answer)
        else:
            self.counts.failures += 1
            why = f"{lookup.key[0]} {lookup.key[1]}: {lookup.why}"
            self._cache.put_failure(lookup.key, why, now, lookup.rcode)
            _fire_failure(lookup, why)
        if self._queue and not self._taking_turns:
            self._take_turns()

    def _take_turns(self) -> None:
        """Begin the questions that wait.  It is a loop and never nested: questions that fail at once would fill the stack."""
        self._taking_turns = True
        try:
            while self._queue and self._asking < self._in_flight_most and not self._waits:
                self._begin(self._queue.popleft(), self._seconds())
        finally:
            self._taking_turns = False

    # --- servers ---

    @property
    def _waits(self) -> bool:
        """Whether questions wait until it is known whom to believe."""
        return self._beliefs is not None and self._beliefs.is_finding_out

    def _settled(self) -> None:
        if not self._taking_turns:
            self._take_turns()

    def _believes(self, server: NameServer) -> bool:
        return server.trusted if self._beliefs is None else self._beliefs.believes(server)

    async def _probe(self, server: NameServer, question: ProbeQuestion) -> ProbeAnswer:
        """Ask one server, past the cache and all the others."""
        alone = Resolver(
            reactor=self._reactor,
            servers=[replace(server, trusted=True)],
            timeout_seconds=self._timeout_seconds,
            question_seconds=PROBE_SECONDS,
            checking=not question.checking_disabled,
            random_octets=self._random_octets,
            seconds=self._seconds,
        )
        await alone.start()
        try:
            answer = await alone.query(question.name, "NS")
        except LookupFailed as error:
            return ProbeAnswer(failure=str(error), is_servfail=error.rcode == SERVFAIL)
        finally:
            await alone.stop()
        return ProbeAnswer(answer.authenticated)

    def _pool(self, server: NameServer) -> Datagrams:
        pool = self._pools.get(server)
        if pool is None:
            pool = self._pools[server] = Datagrams(
                reactor=self._reactor,
                server=server,
                random_octets=self._random_octets,
                replied=self._replied,
                failed=self._failed,
            )
        return pool

    def _use(self, settings: SystemSettings) -> None:
        self._edns = EdnsMemory()
        self._servers = ServerList(settings.servers, rotate=settings.rotate)
        self._timeout_seconds = self._timeout_wanted or settings.timeout_seconds
        self._attempts_each = self._attempts_wanted or settings.attempts

    def _look_at_system(self, now: float) -> None:
        """Follow /etc/resolv.conf.  DHCP or a VPN may change it while the server runs."""
        self._resolv_conf_next = now + RESOLV_CONF_SECONDS
        try:
            status = os.stat(self._resolv_conf)
            seen = (status.st_mtime_ns, status.st_ino, status.st_size)
            if seen == self._resolv_conf_seen:
                return
            with open(self._resolv_conf, encoding="utf-8", errors="replace") as file:
                settings = read_resolv_conf(file.read(RESOLV_CONF_OCTETS))
            self._resolv_conf_seen = seen
        except OSError:
            if self._resolv_conf_seen is not None:  # the file is missing for a moment while it is replaced
                return
            settings = SystemSettings()  # as the C library does: a server on this host
        self._use(settings)
        if self._beliefs is not None:
            self._beliefs.use(self.servers)
        for server in [server for server in self._pools if server not in settings.servers]:
            pool = self._pools.pop(server)
            self._closing = [one for one in self._closing if not one.called] + pool.close()


def _normal(name: str, record_type: str) -> tuple[tuple[str, str], bytes]:
    """The key (the normal name and the type), and the name in wire format.  Raises `NotAName`."""
    if not name.isascii():
        with suppress(AddressError):  # as it stands it is no name either
            name = normal_domain(name)
    encoded = encode_name(name)
    name = read_name(encoded, 0)[0] if "\\" in name else name.lower().removesuffix(".") or "."
    return (name, record_type), encoded


def _fire_failure(lookup: Lookup, why: str) -> None:
    while lookup.waiting:  # each gets its own exception: a shared one would mix their tracebacks
        lookup.waiting.popleft().errback(Failure(LookupFailed(why, lookup.rcode)))
