"""What the metrics listeners give out: figures that are counted as things happen, and those that are read when somebody asks.

Nothing is counted before the first such listener is made: who wants no figures pays nothing for them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Protocol

from twisted.logger import Logger

from mailserver.assembly.server import Server
from mailserver.config import Configuration, ListenTable
from mailserver.config.password_file import password_of
from mailserver.control.parts import ListenerFigures
from mailserver.mail.answers import Delayed, Delivered, Outcome
from mailserver.mail.faults import StorageFault
from mailserver.metrics.counters import Counters
from mailserver.metrics.gauge import Gauge
from mailserver.metrics.health import ServerFacts, reasons_against
from mailserver.metrics.lag import Lag
from mailserver.metrics.meter import Meter
from mailserver.plugins.metrics import Series
from mailserver.queue.spool import free_bytes_of
from mailserver.relay.conclusions import TLSSession
from mailserver.relay.operators import PaceLimit, PaceTable
from mailserver.relay.security import Barred

if TYPE_CHECKING:
    from mailserver.metrics.pages import MonitoringFactory

__all__ = ["Monitoring"]

STATES_KEPT_SECONDS = 15.0  # counting the states of a long queue takes a while
OTHER = "other"


class InForce(Protocol):
    """What is asked of the policy in force."""

    configuration: Configuration

    @property
    def is_started(self) -> bool: ...

    @property
    def is_stopping(self) -> bool: ...

    def listeners(self) -> Sequence[ListenerFigures]: ...


class Monitoring:
    """Of a server."""

    log = Logger()

    def __init__(self, server: Server, in_force: InForce) -> None:
        self._server = server
        self._in_force = in_force
        self._figures = Counters()
        self._meter = Meter(self._figures)
        self._lag = Lag(server.reactor, lambda seconds: self._figures.observe("reactor_lag_seconds", seconds))
        self._operators = PaceTable(PaceLimit())
        self._counts = False
        self._started_at = time.time()
        self._version = _version()
        self._states: Mapping[str, tuple[int, float]] = {}
        self._states_until = 0.0

    def factory(self, listen: ListenTable) -> MonitoringFactory:
        """What serves a metrics listener."""
        from mailserver.metrics.pages import MonitoringFactory, Pages

        self._begin()
        endpoint = listen.endpoint

        def token() -> str | None:
            listeners = self._in_force.configuration.listen
            path = next((one.token_file for one in listeners if one.endpoint == endpoint), listen.token_file)
            return None if path is None else password_of(path)

        return MonitoringFactory(Pages(metrics=self.text, not_ready=self.not_ready, token=token))

    def stop(self) -> None:
        """No figures are taken any more."""
        self._lag.stop()

    def _begin(self) -> None:
        if self._counts:
            return
        self._counts = True
        server, figures = self._server, self._figures
        server.steps.meter = self._measured
        server.queue.figures.watch_commits(self._committed)
        server.resolver.watch = lambda seconds, outcome: figures.observe("dns_seconds", seconds, outcome)
        if server.relay is not None:
            server.relay.connections.attempts_seen.append(self._attempted)
            server.relay.connections.tls_seen.append(self._secured)
        self._lag.start()

    # --- counted as things happen ---

    def _measured(self, id: str, step: str, fields: Mapping[str, Any]) -> None:
        try:
            self._meter.take(id, step, fields)
        except Exception:  # noqa: BLE001  figures are no reason to lose a log line
            self.log.failure("a step could not be counted")

    def _committed(self, messages: int, seconds: float) -> None:
        self._figures.observe("commit_batch_messages", messages)
        self._figures.observe("commit_seconds", seconds)

    def _attempted(self, host: str, outcomes: Sequence[Outcome], is_encrypted: bool) -> None:
        provider = self._provider(host)
        for outcome in outcomes:
            word = "delivered" if isinstance(outcome, Delivered) else "delayed" if isinstance(outcome, Delayed) else "failed"
            self._figures.count("attempts_total", provider, word, "yes" if is_encrypted else "no")

    def _provider(self, host: str) -> str:
        name, _, is_shared = self._operators.of(host)
        return name if is_shared else OTHER

    def _secured(self, session: TLSSession) -> None:
        facts, demand = session.facts, session.demand
        outcome = "success" if facts.version else "failed"
        self._figures.count("tls_handshakes_total", "host", facts.version, facts.group, outcome)
        by = "barred" if isinstance(demand, Barred) else demand.source.value
        self._figures.count("tls_demands_total", by, session.outcome.value)

    # --- when somebody asks ---

    def not_ready(self) -> list[str]:
        """Why mail is not taken now."""
        server, in_force = self._server, self._in_force
        there = {one.endpoint for one in in_force.listeners()}
        silent = [one.endpoint for one in in_force.configuration.listen if one.endpoint not in there]
        return reasons_against(
            ServerFacts(
                has_started=in_force.is_started,
                stops=in_force.is_stopping,
                is_writable=server.queue.writable,
                damage=server.queue.figures.damage,
                has_room=server.queue.room_for(0),
                silent=silent if in_force.is_started else (),
                lag_seconds=self._lag.seconds,
            )
        )

    async def text(self, accept: str) -> tuple[bytes, str]:
        """All figures, and their media type."""
        from mailserver.metrics.exposition import exposed

        server = self._server
        await self._look_at_queue()
        free = await server.pools.of("metrics")(free_bytes_of, server.data)
        gauges = [*self._gauges(free), Gauge("ready", float(not self.not_ready()))]
        components: Mapping[str, Sequence[Series]] = server.register.series()
        return await server.pools.of("metrics")(exposed, self._figures, gauges, components, accept)

    async def _look_at_queue(self) -> None:
        now = self._server.reactor.seconds()
        if now < self._states_until:
            return
        self._states_until = now + STATES_KEPT_SECONDS
        try:
            self._states = await self._server.queue.figures.states()
        except StorageFault:
            self._states = {}  # `ready` says so

    def _gauges(self, free_octets: int) -> Iterator[Gauge]:
        server, now = self._server, time.time()
        yield Gauge("info", 1.0, (self._version,))
        yield Gauge("start_time_seconds", self._started_at)
        by_service: dict[str, int] = {}
        for listener in self._in_force.listeners():
            by_service[listener.service] = by_service.get(listener.service, 0) + listener.connections
        for service, count in by_service.items():
            yield Gauge("connections", count, (service,))
        yield Gauge("queue_messages", server.queue.counts.depth)
        yield Gauge("queue_active_messages", server.queue.figures.active)
        for state, (count, oldest) in self._states.items():
            if state != "any":
                yield Gauge("queue_recipients", count, (state,))
            yield Gauge("queue_oldest_seconds", max(0.0, now - oldest), (state,))
        yield from self._of_relay()
        dns = server.resolver.counts
        yield Gauge("dns_queries_total", dns.queries)
        yield Gauge("dns_cached_total", dns.from_cache)
        yield Gauge("dns_failures_total", dns.failures)
        if server.daily_look is not None and server.daily_look.faults is not None:
            yield Gauge("domain_faults", sum(server.daily_look.faults.values()))
        for step, count in dict(server.steps.counts).items():
            yield Gauge("steps_total", count, (step,))
        yield Gauge("steps_dropped_total", server.steps.dropped)
        described = server.register.described()
        failing = sum(state["circuit"] != "closed" for one in described for state in one["circuits"].values())
        yield Gauge("components_failing", failing)
        yield Gauge("processes_missing", sum(bool(why) for why in server.processes.missing().values()))
        yield Gauge("threads_hanging", sum(one.hanging for one in server.pools.counts().values()))
        yield Gauge("disk_free_bytes", free_octets)
        yield Gauge("disk_reserve_bytes", server.queue.room.minimum_free_bytes)
        if server.certificates is not None:
            for name, expires in server.certificates.ends():
                yield Gauge("certificate_expiry_seconds", expires - now, (name,))
        for name, figures in server.acme.figures().items():
            yield Gauge("certificate_late", float(figures["late"]), (name,))

    def _of_relay(self) -> Iterator[Gauge]:
        relay = self._server.relay
        if relay is None:
            return
        pool = relay.connections.pool
        yield Gauge("relay_connections", pool.connections)
        yield Gauge("relay_connections_opened_total", pool.counts.opened)
        yield Gauge("relay_connections_reused_total", pool.counts.reused)
        yield Gauge("relay_connections_failed_total", pool.counts.failed)


def _version() -> str:
    try:
        return version("mailserver")
    except PackageNotFoundError:  # run from a folder
        return "unknown"
