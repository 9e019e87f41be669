"""What lives as long as the process: the log, the state, the deliveries, the queue.  `policy` is what a reload replaces."""

from __future__ import annotations

import functools
import operator
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from mailserver.assembly.acme import make_acme
from mailserver.assembly.components import Components, Owned
from mailserver.assembly.daily_look import looks_daily, make_daily_look
from mailserver.assembly.host_names import HostNames
from mailserver.assembly.logins import Logins
from mailserver.assembly.notes import make_notes
from mailserver.assembly.resolver import make_resolver
from mailserver.assembly.sending import OwnMail
from mailserver.assembly.set_apart import holding_of
from mailserver.assembly.steps import ROADS, make_steps
from mailserver.assembly.tls_results import TLSResults
from mailserver.assembly.web import WebHandOver
from mailserver.authentication.app_password_uses import USES_SPACE
from mailserver.config import Configuration
from mailserver.delivery.readers import WithReaders
from mailserver.dns.noted import NotingResolver
from mailserver.fetching import Fetching
from mailserver.interfaces import IDelivery, ReportDraft, Services
from mailserver.mail.address import Address
from mailserver.mail.answers import Route, Verdict
from mailserver.mail.content import Content
from mailserver.mail.envelope import Envelope, Recipient
from mailserver.mail.ids import IdSource
from mailserver.mail.networks import Networks
from mailserver.mail.outbound_answers import ReportVerdict
from mailserver.mail.set_apart import held_by, released_of
from mailserver.observe import LogFile, LogObserver
from mailserver.plugins import catalogue as plugins
from mailserver.plugins.asked_delivery import AskedDelivery
from mailserver.plugins.generation import Generation
from mailserver.plugins.pools import Pools
from mailserver.plugins.register import Register
from mailserver.plugins.watchdog import Watchdog
from mailserver.postmaster.notes import Notes, Problem
from mailserver.processes.jobs import JobProcesses
from mailserver.processes.small import SmallProcesses
from mailserver.processes.version import version
from mailserver.queue.admin.account_mail import AccountMail
from mailserver.queue.admin.changes import Verb
from mailserver.queue.admin.orders import Order
from mailserver.queue.admin.quarantine import FilterHolds
from mailserver.queue.admin.selection import Selection
from mailserver.queue.clock_watch import ClockWatch, boot_seconds
from mailserver.queue.limits import QueueLimits
from mailserver.queue.queue import Queue
from mailserver.queue.report_policies import ReportPolicies
from mailserver.receive.editing import signed
from mailserver.receive.judging import Judging, note_answers
from mailserver.receive.spooling import SpoolBudget
from mailserver.receive.throttle import Admission
from mailserver.relay.attempts import Attempts
from mailserver.relay.components import ConfiguredRelay, MXOptions
from mailserver.relay.forwards import Forwards
from mailserver.relay.heard_meanings import HeardMeaning
from mailserver.relay.return_paths import ReturnPaths, SenderTable
from mailserver.relay.tls_overrides import SPACE, TLSOverrides
from mailserver.routing.router import Router
from mailserver.state_store import RecordStore, StateStore
from mailserver.state_store.own_time import boot_id
from mailserver.state_store.records_file import RECORDS
from mailserver.tls import Certificates
from mailserver.transport.recording import Recordings

__all__ = ["Server"]

NEEDS_RESTART = ("data", "hostname", "keys", "workers", "lockout", "delivery", "relay", "dns", "queue", "pickup", "log")
SOCKET_KEYS = ("authentication.socket", "authentication.socket_group", "web.socket", "web.socket_group", "web.user")
KEEP_USES = {("accounts", "file"), ("accounts", "sql")}  # as they did before components had spaces of their own
Owner = tuple[int, int]


class Server:
    """The parts that outlive a reload.  Nothing but the log is opened before `start_privileged` and `start`.

    `owner` is the user and the group that the server will have, -1 where they stay.
    """

    log = Logger()
    _has_policy = False  # one has been started
    _router: Router  # of the one that has been started last; as the next two
    _judging: Judging
    certificates: Certificates | None = None
    web: WebHandOver
    _clock_watch: ClockWatch | None = None
    _version = ""
    _generation: Generation
    queue: Queue

    def __init__(self, configuration: Configuration, *, catalogue: plugins.Catalogue, reactor: Any, owner: Owner) -> None:
        limits, data, log = configuration.limits, configuration.data, configuration.log
        self.reactor = reactor
        self._begun_with = configuration
        self._stop_seconds = float(limits.stop_seconds)
        self.data, self.catalogue, self.ids = data, catalogue, IdSource(time.time)
        self.pools = Pools(reactor.callFromThread)
        self.register = self._make_register()
        self.host_names = HostNames(reactor)
        self.watchdog = Watchdog(
            seconds=limits.reactor_seconds, call_from_thread=reactor.callFromThread, register=self.register
        )
        self.spool = SpoolBudget(
            one_octets_most=limits.memory_bytes,
            all_octets_most=limits.memory_bytes_total,
            run_in_thread=self.pools.of("spool"),
        )
        self.admission = Admission(
            connections=limits.connections,
            connections_per_network=limits.connections_per_network,
            stress_percent=limits.stress_percent,
        )
        self.recordings, self.tls_results = Recordings(reactor), TLSResults()
        self.state = StateStore(
            path=os.path.join(data, "state.db"), clock=reactor, new_threads=self.pools.new, steady=boot_seconds, boot=boot_id()
        )
        self.records = RecordStore(
            path=os.path.join(data, RECORDS), clock=reactor, new_threads=self.pools.new, room_for=lambda n: self.queue.room_for(n)
        )
        self.tls_overrides = TLSOverrides(self.records.space(SPACE), reactor)
        self.roads_path = os.path.join(data, ROADS)
        self._log_file = LogFile(log.path, owner=owner)
        self.steps = make_steps(configuration, self._log_file)
        self.log_observer = LogObserver(self.steps, level=log.level)
        self.resolver = resolver = make_resolver(configuration, reactor, examines=True)
        # With addresses that are not kept whole, the names that are asked for are not kept at all.
        notes = configuration.log.addresses == "full"
        self.noting_resolver = NotingResolver(resolver, note=self.steps.note, seconds=time.time) if notes else resolver
        self.fetching = Fetching(reactor=reactor, resolver=resolver, allow=Networks(limits.fetch_networks))
        self.processes, self._own_mail = SmallProcesses(reactor=reactor), self._make_own_mail(configuration)
        note = self.steps.note
        self.logins = Logins(configuration, reactor=reactor, state=self.state, note=note, next_id=self.ids.next)
        self.services = self._make_services(configuration)
        self.components = Components(
            catalogue=catalogue,
            clock=reactor,
            register=self.register,
            services=self._services_for,
            flush=lambda: self.pools.of("log")(self.steps.flush),
        )
        self._lasting: list[Owned] = []
        self.local = self._delivery("delivery", configuration.delivery)
        self.readers = WithReaders(self.local, clock=self.reactor, again=self._try_again)
        self.relay: ConfiguredRelay | None = None
        self.remote = self._make_relay(configuration)
        self._wait_for_policy: list[Deferred[None]] = []
        self.queue = self._make_queue(configuration)
        self._in_force = configuration
        self.daily_look = make_daily_look(self, lambda: self._in_force) if looks_daily(configuration) else None
        self.acme = make_acme(self, lambda: self._in_force)
        self._notes = self._make_notes() if configuration.log.notes else None

    def _make_notes(self) -> Notes:
        return make_notes(self._begun_with, self, self._route, self._sign_again, self._news)

    def _news(self) -> list[Problem]:
        """What else postmaster should know."""
        return [*(self.daily_look.problems() if self.daily_look is not None else ()), *self.acme.problems()]

    @property
    def begun_with(self) -> Configuration:
        """The configuration at the start."""
        return self._begun_with

    @property
    def program_version(self) -> bytes:
        """That of the program that runs, after the start."""
        return self._version.encode("ascii")

    def _make_register(self) -> Register:
        reactor, self._process_memory_octets = self.reactor, self._begun_with.limits.process_memory_bytes

        def new_processes(name: str) -> JobProcesses:
            """A component's, none of which is begun yet."""
            return JobProcesses(
                name, reactor=reactor, version=lambda: self._version, memory_octets=lambda: self._process_memory_octets
            )

        return Register(
            clock=reactor,
            call_from_thread=reactor.callFromThread,
            steady_seconds=time.monotonic,
            new_processes=new_processes,
        )

    def _make_queue(self, configuration: Configuration) -> Queue:
        limits, note = configuration.limits, self.steps.note
        self.return_paths = ReturnPaths(
            keys_directory=configuration.keys_path,
            table=SenderTable(self.records.space("forward")),
            run_in_thread=self.pools.of("keys", 1),
            clock=self.reactor,
        )
        self.forwards = Forwards(
            paths=self.return_paths, hostname=configuration.hostname, is_own=self._is_own_domain, note=note
        )
        self.attempts = Attempts(
            clock=self.reactor, seconds=time.monotonic, note=note, sign=self._sign_again, forwards=self.forwards
        )
        self.report_policies = ReportPolicies(seconds=time.monotonic, note=note)
        return Queue(
            data_directory=self.data,
            clock=self.reactor,
            local=cast(IDelivery, self.readers),
            remote=self.remote,
            note=note,
            run_in_thread=self.pools.of("queue"),
            call_from_thread=self.reactor.callFromThread,
            limits=QueueLimits(
                retry_seconds=configuration.queue.retry,
                expire_seconds=configuration.queue.expire,
                warn_seconds=configuration.queue.warn,
                minimum_free_bytes=limits.minimum_free_bytes,
                memory_window_octets=limits.memory_bytes_total,
            ),
            hostname=configuration.hostname,
            route=self._route,
            next_id=self.ids.next,
            boot_seconds=boot_seconds,
            judge=self._judge,
            holding=holding_of(configuration),
            calls_delivery=self.attempts,
            judge_report=self._judge_report,
            sign_report=self._sign_again,
        )

    def _make_services(self, configuration: Configuration) -> Services:
        return Services(
            clock=self.reactor,
            run_in_thread=self.pools.of("plugins"),  # each component has its own instead
            state=self.state.space("@"),  # the same
            resolver=self.resolver,
            hostname=configuration.hostname,
            configuration_directory=configuration.directory, data_directory=self.data, keys_directory=configuration.keys_path,
            check_password=self.logins.checks.matches,
            room_for=lambda octets: self.queue.room_for(octets),
            steady_seconds=time.monotonic,
            recordings=self.recordings, tls_results=self.tls_results,
            is_own_domain=self._is_own_domain,
        )  # fmt: skip

    def _make_own_mail(self, configuration: Configuration) -> OwnMail:
        """Before there is a queue."""
        return OwnMail(
            hostname=configuration.hostname,
            clock=self.reactor,
            route=self._route,
            relays=configuration.relays,
            sign=self._sign_again,
            commit=lambda *message: self.queue.commit(*message),
            has_room=lambda octets: self.queue.writable and self.queue.room_for(octets),
            next_id=self.ids.next,
            note=self.steps.note,
            run_in_thread=self.pools.of("queue"),
        )

    def _services_for(self, section: str, name: str, use: str) -> Services:
        """What a component is lent beside what is its own."""
        return replace(
            self.services,
            state=self.state.space(space_of(section, name, use)),
            resolver=self.noting_resolver if section == "filter" else self.resolver,
            records=self.records.space(f"{section}/{name}"),
            fetch=self.fetching.lend(),
            send=self._own_mail.lend(name),
            keep_process=functools.partial(self.processes.keep, section),
            quarantine=FilterHolds(name if section == "filter" else "", orders=lambda: self.queue.verbs),
            waiting_mail=AccountMail(name if section == "filter" else f"{section} {name}", orders=lambda: self.queue.verbs),
        )

    def _delivery(self, section: str, table: Any) -> Any:
        """One that lives as long as the server.  Raises `PluginError`."""
        owned = self.components.take(section, table)
        self._lasting.append(owned)
        return AskedDelivery(
            owned.component, owned.asking, prepare_seconds=float(self._begun_with.limits.start_seconds)
        )

    def _make_relay(self, configuration: Configuration) -> Any:
        """None where no mail goes to other hosts.  Raises `PluginError`."""
        table = configuration.relay
        if table.use == "none":
            if not configuration.route:
                return None
            table = table.model_copy(update={"use": "mx", "options": MXOptions()})
        delivery = self._delivery("relay", table)
        component = self._lasting[-1].component
        if isinstance(component, ConfiguredRelay):
            self.relay = component
            component.tls_override = self.tls_overrides.find
            component.configure(configuration.relay.use, configuration.relay.options, configuration.route)
        return delivery

    def relay_doubts(self) -> list[str]:
        """What a postmaster should know of the relay's log-ins."""
        return [] if self.relay is None else list(self.relay.doubts())

    def meanings_heard(self) -> Sequence[HeardMeaning]:
        """What large operators have said since the last look that a postmaster should know."""
        return () if self.relay is None else self.relay.connections.meanings.taken()

    def change(self, configuration: Configuration) -> None:
        """Go on with the plain numbers of another configuration, for what comes from now on.  No errors."""
        if configuration.by_acme != self._in_force.by_acme:
            self.acme.look_soon()
        limits, self._in_force = configuration.limits, configuration
        self.fetching.allow = Networks(limits.fetch_networks)
        self.spool.one_octets_most = limits.memory_bytes
        self.spool.all_octets_most = limits.memory_bytes_total
        self.admission.change(
            connections=limits.connections,
            connections_per_network=limits.connections_per_network,
            stress_percent=limits.stress_percent,
        )
        self.queue.change_limits(minimum_free_bytes=limits.minimum_free_bytes, memory_window_octets=limits.memory_bytes_total)
        self.queue.holding.policy = holding_of(configuration)
        self.logins.change(configuration)
        relay = configuration.relay
        if self.relay is not None and relay.use == self._begun_with.relay.use:
            self.relay.configure(relay.use, relay.options, configuration.route)
        self.watchdog.seconds = limits.reactor_seconds
        self._process_memory_octets = limits.process_memory_bytes
        self._stop_seconds = float(limits.stop_seconds)

    def needs_restart(self, new: Configuration) -> list[str]:
        """The keys that differ from what the server runs with for good.

        Accounts that hold privileges are among it: nobody could give others theirs.
        """
        old = self._begun_with
        keys = [key for key in (*NEEDS_RESTART, *SOCKET_KEYS) if self._lasting_part(old, key) != self._lasting_part(new, key)]
        if old.route != new.route and (self.relay is None or "relay" in keys):
            keys.append("route")
        return [*keys, "accounts"] if self.components.privileged("accounts") and old.accounts != new.accounts else keys

    def _lasting_part(self, configuration: Configuration, key: str) -> Any:
        table = operator.attrgetter(key)(configuration)
        if key != "relay":  # who may use the relay is the policy's matter, and ours changes its options as it runs
            return table
        return (table.use, table.name) if self.relay is not None else (table.use, table.name, table.options)

    # --- life ---

    async def start(self) -> None:
        """From the disk towards the network: the log, the state, the deliveries, the queue, which recovers."""
        self.steps.start()
        self._version = (await self.pools.of("version")(version)).decode("ascii")
        self.watchdog.start()
        self.host_names.start()
        await self.state.start()
        await self.records.start()
        await self.tls_overrides.start()
        self.logins.start()
        await self.resolver.start()
        for owned in self._lasting:
            await self.components.start(owned, float(self._begun_with.limits.start_seconds))
        await self.queue.start()
        self._clock_watch = ClockWatch(reactor=self.reactor, was_set=self.queue.look_at_clocks)
        self._clock_watch.start()
        if self._notes is not None:
            self._notes.start()
        if self.daily_look is not None:
            self.daily_look.start()
        self.acme.start()

    async def stop(self, within_seconds: float) -> None:
        """From the network towards the disk."""
        if self._notes is not None:
            self._notes.stop()
        if self.daily_look is not None:
            self.daily_look.stop()
        self.acme.stop()
        if self._clock_watch is not None:
            self._clock_watch.stop()
        self.recordings.shut_down()
        await self.queue.stop(within_seconds)
        for owned in self._lasting:
            await self.components.let_go(owned, self._stop_seconds)
        await self.resolver.stop()
        await self.processes.stop()
        self.logins.stop()
        self.tls_overrides.stop()
        await self.records.stop()
        await self.state.stop()
        self.watchdog.stop()
        self.host_names.stop()
        self.register.stop()
        self.pools.stop()
        self.steps.stop()
        self._log_file.close()

    async def _try_again(self, id: str) -> None:
        """A message of the queue, which has been read meanwhile."""
        await self.queue.verbs.carry_out(Order(Verb.RETRY, Selection(id), "its reader"), after=0, dry_run=False)

    def domain_table(self, domain: str) -> str:
        """Which `[domain]` table holds for a domain; "" where its mail is not delivered here, or that is not known yet."""
        return self._router.table_of(domain) if self._has_policy else ""

    def _is_own_domain(self, domain: str) -> bool:
        return self._has_policy and self._router.is_own(domain)

    async def _route(self, address: Address) -> Sequence[Route]:
        """Where a report to a sender goes: by the router of the policy in force."""
        await self._policy_started()
        with self._generation:
            return await self._router.route(address)

    async def _judge(self, envelope: Envelope, content: Content, recipient: Recipient) -> Verdict:
        """What the filters of the policy in force say of one recipient's copy, some time after its data.

        Those that have held it, and have been overruled, are not asked.  Who holds it now stands among the verdict's findings.
        """
        await self._policy_started()
        with self._generation:
            judgement = self._judging.content_for(envelope, content, recipient, released_of(envelope.findings))
            if isinstance(judgement, Deferred):
                judgement = await judgement
        note_answers(self.steps.note, envelope.id, judgement, str(recipient.address))
        found = (*map(held_by, judgement.holders), *judgement.findings)
        return replace(judgement.verdict, findings=found) if found else judgement.verdict

    async def _judge_report(self, draft: ReportDraft) -> ReportVerdict | None:
        """What those of the policy in force say of a report."""
        await self._policy_started()
        return await self.report_policies.judge(draft)

    async def _sign_again(self, envelope: Envelope, content: Content) -> Content | None:
        """Our own reports, and what was changed for one destination, are signed by those who sign the mail of users."""
        await self._policy_started()
        with self._generation:
            content_or_none, judgement = await signed(self._judging, envelope, content)
        note_answers(self.steps.note, envelope.id, judgement)
        return content_or_none

    async def signed(self, envelope: Envelope, content: Content) -> Content | None:
        """As our own reports are signed; None where one cannot sign now."""
        return await self._sign_again(envelope, content)

    async def _policy_started(self) -> None:
        """At the start it comes in a moment."""
        while not self._has_policy:
            started: Deferred[None] = Deferred()
            self._wait_for_policy.append(started)
            await started

    def serve_with(self, router: Router, judging: Judging, generation: Generation) -> None:
        """A policy has been started; it is the one in force from now on."""
        self._router, self._judging, self._generation = router, judging, generation
        self._has_policy = True
        waiting, self._wait_for_policy = self._wait_for_policy, []
        for started in waiting:
            started.callback(None)

    async def sweep(self) -> None:
        """Once a day: remove what cut-off deliveries left behind, and old failures from the queue."""
        try:
            self.queue.tidy()
        except Exception:  # noqa: BLE001  # what follows is swept all the same
            self.log.failure("the queue could not be tidied")
        await self.components.sweep()

    def reopen_log(self) -> None:
        """SIGUSR1: go on in a new file, after logrotate has renamed the old one."""
        try:
            self._log_file.reopen()
        except OSError as error:
            self.log.error("the log file cannot be opened again: {error}", error=error)


def space_of(section: str, name: str, use: str) -> str:
    """The name of a component's space in the state store, the same over reloads, restarts and releases."""
    return USES_SPACE if (section, use) in KEEP_USES else f"@{section}/{name}"




