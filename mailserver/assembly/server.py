"""Makes the parts from the configuration.

A `Server` lives as long as the process: the log, the queue, the deliveries.  A `Policy` is what a reload replaces: who
exists, where recipients go, the filters and the limits.
"""

from __future__ import annotations

import functools
import math
import operator
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.threads import deferToThread
from twisted.logger import Logger

from mailserver.assembly.logins import Logins, offers_logins
from mailserver.assembly.notes import make_notes
from mailserver.authentication.authenticator import Authenticator
from mailserver.authentication.checkers import CheckerError
from mailserver.config import Configuration, ListenTable
from mailserver.config.endpoints import is_proxied
from mailserver.control.server import CommandRefused
from mailserver.dns import NameServer, Resolver
from mailserver.interfaces import (
    IAccountList,
    ICounting,
    IDirectory,
    IObserver,
    IPreparing,
    IPrivilegedComponent,
    ISweeping,
    Services,
)
from mailserver.mail.address import Address, AddressError, normal_local
from mailserver.mail.answers import Mailbox, Route
from mailserver.mail.ids import IdSource
from mailserver.mail.networks import LOOPBACK, Networks
from mailserver.observe import AmbiguousId, LogFile, LogObserver, RoadStore, Steps, UnknownId, read_road
from mailserver.plugins import catalogue as plugins
from mailserver.plugins.generation import Generation
from mailserver.plugins.life import StartError, start_component, stop_component
from mailserver.plugins.threads import Threads
from mailserver.processes.small import SmallProcesses
from mailserver.queue.clock_watch import ClockWatch, boot_seconds
from mailserver.queue.queue import Queue
from mailserver.receive.absence import absence_of
from mailserver.receive.encryption import Encryption
from mailserver.receive.judging import BoundFilter, Judging
from mailserver.receive.profile import ConnectionLimits, Profile
from mailserver.receive.spooling import SpoolBudget
from mailserver.receive.submission.allowance import Allowance, AllowanceLimits
from mailserver.receive.submission.rules import Submission
from mailserver.receive.submission.sender_rights import SenderRights
from mailserver.receive.throttle import Admission, Pace, Patience
from mailserver.receive.tls_rules import TLSRules
from mailserver.routing.domains import LocalDomain, RoutingError
from mailserver.routing.patterns import Pattern, PatternError
from mailserver.routing.router import Router
from mailserver.state_store import StateStore
from mailserver.tls import Certificates, ClientCertificates, Pair, Sources, self_signed_pair

__all__ = ["Policy", "Server", "StartError", "proxies_of"]

NEEDS_RESTART = ("data", "hostname", "keys", "workers", "lockout", "delivery", "relay", "dns", "queue", "drop", "log")
SOCKET_KEYS = ("authentication.socket", "authentication.socket_group")
DAY_SECONDS = 86_400.0
Owner = tuple[int, int]
ROADS = "explain.db"


class Server:
    """The parts that outlive a reload.  Nothing but the log is opened before `start_privileged` and `start`.

    `owner` is the user and the group that the server will have, -1 where they stay.
    """

    log = Logger()
    _accounts: tuple[Any, Any] | None = None  # table and component, where it holds privileges
    _router: Router | None = None  # of the door that has been started last
    certificates: Certificates | None = None  # as above
    _clock_watch: ClockWatch | None = None
    _generation: Generation
    queue: Queue
    _runs = False

    def __init__(self, configuration: Configuration, *, catalogue: plugins.Catalogue, reactor: Any, owner: Owner) -> None:
        limits, data, log = configuration.limits, configuration.data, configuration.log
        self.reactor = reactor
        self._begun_with = configuration
        self.data, self.catalogue, self.ids = data, catalogue, IdSource(time.time)
        self.spool = SpoolBudget(
            one_octets_most=limits.memory_bytes, all_octets_most=limits.memory_bytes_total, run_in_thread=deferToThread
        )
        self.admission = Admission(
            connections=limits.connections,
            connections_per_network=limits.connections_per_network,
            stress_percent=limits.stress_percent,
        )
        self.state = StateStore(path=os.path.join(data, "state.db"), clock=reactor, run_in_thread=deferToThread)
        self._log_file = LogFile(log.path, owner=owner)
        self.steps = _steps(configuration, self._log_file, reactor)
        self.log_observer = LogObserver(self.steps, level=log.level)
        self.resolver = _resolver(configuration, reactor)
        self.processes = SmallProcesses(reactor=reactor)
        note, next_id = self.steps.note, self.ids.next
        self.logins = Logins(configuration, reactor=reactor, state=self.state, note=note, next_id=next_id)
        self.services = Services(
            clock=reactor,
            run_in_thread=deferToThread,
            state=self.state,
            resolver=self.resolver,
            hostname=configuration.hostname,
            configuration_directory=configuration.directory,
            data_directory=data, keys_directory=configuration.keys_path,
            new_threads=functools.partial(Threads, call_from_thread=reactor.callFromThread),
            check_password=self.logins.checks.matches,
            room_for=lambda octets: self.queue.room_for(octets),
            steady_seconds=time.monotonic,
        )  # fmt: skip
        self.local = self.component("delivery", configuration.delivery)
        self.remote = None if configuration.relay.use == "none" else self.component("relay", configuration.relay)
        self._wait_for_router: list[Deferred[None]] = []
        self.queue = Queue(
            data_directory=data,
            clock=reactor,
            local=self.local,
            remote=self.remote,
            note=note,
            run_in_thread=deferToThread,
            call_from_thread=reactor.callFromThread,
            retry_seconds=configuration.queue.retry,
            expire_seconds=configuration.queue.expire,
            warn_seconds=configuration.queue.warn,
            hostname=configuration.hostname,
            route=self._route,
            next_id=self.ids.next,
            minimum_free_bytes=limits.minimum_free_bytes,
            memory_window_octets=limits.memory_bytes_total,
            boot_seconds=boot_seconds,
        )
        self._notes = make_notes(configuration, self, self._route) if configuration.log.notes else None

    def component(self, section: str, table: Any) -> Any:
        """Build what a table's `use` names.  Raises `PluginError`."""
        services = replace(self.services, keep_process=functools.partial(self.processes.keep, section))
        return plugins.build_component(self.catalogue.factory(section, table.use), table.options, services)

    def accounts(self, table: Any) -> Any:
        """The directory.  One that holds privileges is kept over a reload, as nobody can give it others.

        Raises `PluginError`; `StartError` where it would have to get privileges that the server has dropped.
        """
        if self._accounts is not None:
            return self._accounts[1]
        directory = self.component("accounts", table)
        if IPrivilegedComponent.providedBy(directory):
            if self._runs:
                raise StartError("accounts: this change needs a restart: it needs privileges that have been dropped")
            self._accounts = table, directory
        return directory

    def keeps(self, component: Any) -> bool:
        """Whether the component's life is the server's."""
        return self._accounts is not None and self._accounts[1] is component

    def change(self, configuration: Configuration) -> None:
        """Go on with the plain numbers of another configuration, for what comes from now on.  No errors."""
        limits = configuration.limits
        self.spool.one_octets_most = limits.memory_bytes
        self.spool.all_octets_most = limits.memory_bytes_total
        self.admission.change(
            connections=limits.connections,
            connections_per_network=limits.connections_per_network,
            stress_percent=limits.stress_percent,
        )
        self.queue.change_limits(minimum_free_bytes=limits.minimum_free_bytes, memory_window_octets=limits.memory_bytes_total)
        self.logins.change(configuration)

    def needs_restart(self, new: Configuration) -> list[str]:
        """The keys that differ from what the server runs with for good."""
        old = self._begun_with
        keys = [key for key in (*NEEDS_RESTART, *SOCKET_KEYS) if _lasting_part(old, key) != _lasting_part(new, key)]
        return [*keys, "accounts"] if self._accounts is not None and self._accounts[0] != new.accounts else keys

    # --- life ---

    def start_privileged(self) -> None:
        """What needs the privileges that are dropped next.  Raises OSError."""
        for component in self._lasting():
            if IPrivilegedComponent.providedBy(component):
                component.start_privileged()

    async def start(self) -> None:
        """From the disk towards the network: the log, the state, the deliveries, the queue, which recovers."""
        self.steps.start()
        await self.state.start()
        self.logins.start()
        await self.resolver.start()
        for component in self._lasting():
            await start_component(component, self.reactor)
        await self.queue.start()
        self._clock_watch = ClockWatch(reactor=self.reactor, was_set=self.queue.look_at_clocks)
        self._clock_watch.start()
        if self._notes is not None:
            self._notes.start()
        self._runs = True

    async def stop(self, within_seconds: float) -> None:
        """From the network towards the disk."""
        if self._notes is not None:
            self._notes.stop()
        if self._clock_watch is not None:
            self._clock_watch.stop()
        await self.queue.stop(within_seconds)
        for component in self._lasting():
            await stop_component(component, self.reactor)
        await self.resolver.stop()
        await self.processes.stop()
        self.logins.stop()
        await self.state.stop()
        self.steps.stop()
        self._log_file.close()

    async def _route(self, address: Address) -> Sequence[Route]:
        """Where a report to a sender goes: by the router of the door that is open now, or will be in a moment."""
        while self._router is None:
            opened: Deferred[None] = Deferred()
            self._wait_for_router.append(opened)
            await opened
        with self._generation:
            return await self._router.route(address)

    def route_with(self, router: Router, generation: Generation) -> None:
        """A door has been opened."""
        self._router, self._generation = router, generation
        waiting, self._wait_for_router = self._wait_for_router, []
        for opened in waiting:
            opened.callback(None)

    async def sweep(self) -> None:
        """Once a day: remove what cut-off deliveries left behind, and old failures from the queue."""
        try:
            self.queue.tidy()
        except Exception:  # noqa: BLE001  # what follows is swept all the same
            self.log.failure("the queue could not be tidied")
        for component in self._lasting():
            if ISweeping.providedBy(component):
                try:
                    removed = await component.sweep()
                except OSError as error:
                    self.log.error("the sweep of stale files failed: {error}", error=error)
                except Exception:  # noqa: BLE001  # a plugin's
                    self.log.failure("the sweep of stale files failed")
                else:
                    if removed:
                        self.log.info("removed {count} stale files", count=removed)

    def reopen_log(self) -> None:
        """SIGUSR1: go on in a new file, after logrotate has renamed the old one."""
        try:
            self._log_file.reopen()
        except OSError as error:
            self.log.error("the log file cannot be opened again: {error}", error=error)

    def _lasting(self) -> list[Any]:
        accounts = [] if self._accounts is None else [self._accounts[1]]
        return [one for one in (self.local, self.remote, *accounts) if one is not None]

    # --- what the command line may ask ---

    def status(self) -> dict[str, Any]:
        """Figures for `status` on the control socket."""
        figures: dict[str, Any] = {
            "queue": asdict(self.queue.counts),
            "dns": asdict(self.resolver.counts),
            "steps": dict(self.steps.counts),
            "steps_dropped": self.steps.dropped,
            "processes": dict(self.processes.missing()),
        }
        if ICounting.providedBy(self.remote):
            figures["relay"] = dict(self.remote.counts())
        return figures

    def commands(self) -> Mapping[str, Any]:
        """The commands of the control socket that this part answers."""
        own = {"queue.list": self._queue_list, "queue.show": self._queue_show, "explain": self._explain}
        return {**own, **self.logins.commands()}

    async def _queue_list(self, arguments: dict[str, Any]) -> dict[str, Any]:
        after, limit = str(arguments.get("after", "")), int(arguments.get("limit", 1000))
        return {"entries": [asdict(entry) for entry in await self.queue.list(after, limit)], "depth": self.queue.depth}

    async def _queue_show(self, arguments: dict[str, Any]) -> dict[str, Any]:
        entry = await self.queue.show(str(arguments.get("id", "")))
        return {"entry": None if entry is None else asdict(entry)}

    async def _explain(self, arguments: dict[str, Any]) -> dict[str, Any]:
        id = str(arguments.get("id", ""))
        try:
            steps = await deferToThread(self._road, id)
        except (AmbiguousId, UnknownId) as error:
            raise CommandRefused(str(error)) from error
        return {"steps": [asdict(step) for step in steps]}

    def _road(self, id: str) -> Sequence[Any]:
        self.steps.flush()
        return read_road(os.path.join(self.data, ROADS), id)


def _lasting_part(configuration: Configuration, key: str) -> Any:
    table = operator.attrgetter(key)(configuration)
    return (table.use, table.options) if key == "relay" else table  # who may use the relay is the door's matter


class Policy:
    """The parts that a reload replaces.  Raises `StartError` or `PluginError` where they do not fit together.

    `generation` counts what is under way with them.
    """

    log = Logger()

    def __init__(self, configuration: Configuration, server: Server) -> None:
        self._server = server
        self.generation = Generation()
        self._local = server.local
        self._directory: Any = server.accounts(configuration.accounts)
        self._filters = [server.component("filter", table) for table in configuration.filter]
        judging = Judging(
            [
                BoundFilter(
                    name=table.use,
                    component=component,
                    services=frozenset(table.services),
                    on_error=table.on_error,
                    deadline_seconds=table.deadline or configuration.limits.filter_seconds,
                )
                for table, component in zip(configuration.filter, self._filters, strict=True)
            ],
            clock=server.reactor,
        )
        self.router = make_router(configuration, self._directory)
        self.observers = [one.observe for one in self._filters if IObserver.providedBy(one)]
        self.certificates = _certificates(configuration, server)
        self.authenticator = _authenticator(configuration, server, self._directory)
        self.submission = _submission(configuration, server, self.router, self.authenticator)
        self._tls_rules = TLSRules(
            required_from=configuration.tls.required_from, required_for=configuration.tls.required_for
        )
        self._configuration = configuration
        self._judging = judging
        self._relay_networks = Networks(configuration.relay.networks)
        self._bare_lf_networks = Networks(configuration.limits.bare_lf_networks)
        self.profiles = {listen.endpoint: self._profile(listen.service, listen) for listen in configuration.listen}
        self.dropped = self._profile("submission", None)

    def _profile(self, service: str, listen: ListenTable | None) -> Profile:
        """How a listener behaves; None: the drop folder, which has no connections."""
        configuration, server = self._configuration, self._server
        return Profile(
            service=service,
            hostname=configuration.hostname,
            limits=_limits(configuration, logs_in=service == "submission" and listen is not None and offers_logins(listen)),
            judging=self._judging,
            router=self.router,
            store=server.queue,
            relays=server.remote is not None,
            absence=None if listen is None else absence_of(local=server.local, remote=server.remote),
            relay_networks=self._relay_networks,
            bare_lf_networks=self._bare_lf_networks,
            clock=server.reactor,
            ids=server.ids,
            spool=server.spool,
            note=server.steps.note,
            encryption=None if listen is None else self._encryption(listen),
            tls_required=listen is not None and listen.require_tls,
            authenticator=self.authenticator if listen is not None and offers_logins(listen) else None,
            failures_per_connection=configuration.authentication.failures_per_connection,
            relay_certificates=frozenset(configuration.relay.certificates),
            hides_clients=configuration.privacy.received == "minimal",
            submission=self.submission,
            tls_rules=self._tls_rules,
            proxies=None if listen is None else proxies_of(listen),
            generation=self.generation,
            steady_seconds=time.monotonic,
        )  # fmt: skip

    def _encryption(self, listen: ListenTable) -> Encryption | None:
        certificates = self.certificates
        if listen.tls == "none" or certificates is None:
            return None
        return Encryption(
            implicit=listen.tls == "implicit",
            creator=certificates.creator(ClientCertificates(listen.client_certificate)),
            facts=certificates.facts,
            bindings=certificates.bindings,
            fault=certificates.fault,
            handshake_seconds=self._configuration.limits.tls_handshake_seconds,
        )

    def start_privileged(self) -> None:
        """Read keys that only the identity with which the server was started may read.  Raises `IdentityError`."""
        if self.certificates is not None and self._configuration.tls.certificate is not None:
            self.certificates.load()

    async def start(self) -> None:
        """Start the directory and the filters, make the accounts' mailboxes.  An error stops the start, or the reload."""
        for component in (self.certificates, self._directory, *self._filters):
            if not self._server.keeps(component):
                await start_component(component, self._server.reactor)
        if IAccountList.providedBy(self._directory) and IPreparing.providedBy(self._local):
            await self._prepare(self._directory, await self._directory.accounts())
        self._server.route_with(self.router, self.generation)
        self._server.certificates = self.certificates

    async def _prepare(self, directory: Any, accounts: Sequence[str]) -> None:
        found = []
        for text in accounts:
            try:
                name = Address.parse(text, utf8=True)
            except AddressError as error:  # of a database, say, that nobody checks
                self.log.warn("{text} cannot be an account: {error}", text=text, error=error)
            else:
                found.append(await directory.find(normal_local(name.local), name.domain_key))
        await self._local.prepare([mailbox for mailbox in found if mailbox is not None])

    async def mailbox(self, account: str) -> Mailbox | None:
        """Of somebody who has logged in; None where he has none, as whom only a checker knows."""
        local, _, domain = account.rpartition("@")
        found: Mailbox | None = await self._directory.find(local, domain)
        return found

    async def stop(self) -> None:
        """Stop them, side by side; a plugin's trouble at its end is nobody else's."""
        parts = [part for part in (*self._filters, self._directory, self.certificates) if not self._server.keeps(part)]
        await DeferredList([Deferred.fromCoroutine(stop_component(part, self._server.reactor)) for part in parts])


def _steps(configuration: Configuration, log_file: LogFile, reactor: Any) -> Steps:
    log = configuration.log
    return Steps(
        write=log_file.write,
        roads=RoadStore(os.path.join(configuration.data, ROADS), retention_seconds=log.retention_days * DAY_SECONDS),
        form=log.format,
        log_steps=log.level in ("debug", "info"),
        log_passes=log.level == "debug",
        addresses=log.addresses,
        mail_folders=_mail_folders(configuration),
        only_counted=frozenset({"settled"}),  # it follows from `delivered` within a second
        call_in_reactor=reactor.callFromThread,
    )


def _mail_folders(configuration: Configuration) -> list[str]:
    """The folders below which paths name users: where the deliveries' templates put their first user, and the data's own."""
    folders = [os.path.join(configuration.data, "mail")]
    for table in (configuration.delivery, configuration.relay):
        path = getattr(table.options, "path", None)
        if isinstance(path, str):
            fixed = path.replace("{data}", configuration.data.rstrip("/")).partition("{")[0]
            folders.append(os.path.dirname(fixed))
    return [folder for folder in folders if len(folder) > 1]


def make_router(configuration: Configuration, directory: IDirectory) -> Router:
    """The router of the domains.  Raises `StartError` for aliases that go round."""
    try:
        domains = {
            name: LocalDomain(
                same_as=table.same_as,
                catch_all=table.catch_all,
                subaddress=table.subaddress,
                postmaster=table.postmaster,
                aliases=table.aliases,
                disabled=table.disabled, disabled_aliases=table.disabled_aliases,
                patterns=tuple([Pattern(rule=one.match, user=one.user, folder=one.folder) for one in table.pattern]),
            )
            for name, table in configuration.domain.items()
        }
        return Router(directory=directory, domains=domains, hostname=configuration.hostname)
    except (RoutingError, PatternError) as error:
        raise StartError(str(error)) from error


def _submission(
    configuration: Configuration, server: Server, router: Router, authenticator: Authenticator | None
) -> Submission:
    table = configuration.submission
    rights = None
    if table.senders == "own" and authenticator is not None:
        rights = SenderRights(
            route=router.route,
            granted_senders=authenticator.granted_senders,
            clock=server.reactor,
            aliases=table.aliases,
        )
    return Submission(
        hostname=configuration.hostname,
        clock=server.reactor,
        rights=rights,
        allowance=Allowance(
            clock=server.reactor,
            state=server.state,
            limits=AllowanceLimits(
                messages_per_hour=table.messages_per_hour,
                messages_per_day=table.messages_per_day,
                recipients_per_hour=table.recipients_per_hour,
                recipients_per_day=table.recipients_per_day,
                new_recipients_per_hour=table.new_recipients_per_hour,
                new_recipients_per_day=table.new_recipients_per_day,
            ),
        ),
        header_from=table.header_from,
        complete=table.complete,
        run_in_thread=deferToThread,
    )


def _authenticator(configuration: Configuration, server: Server, directory: Any) -> Authenticator | None:
    """Raises `StartError` for a checker that cannot be made."""
    try:
        return server.logins.authenticator(configuration, directory)
    except CheckerError as error:
        raise StartError(f"authentication.checkers: {error}") from error


def _certificates(configuration: Configuration, server: Server) -> Certificates | None:
    """The certificates of the listeners, None where no listener has TLS."""
    if all(listen.tls == "none" for listen in configuration.listen):
        return None
    tls, own = configuration.tls, os.path.join(server.data, "tls")

    def sources() -> Sources:
        if tls.certificate is not None and tls.key is not None:
            pair = Pair(tls.certificate, tls.key)
        else:
            pair = self_signed_pair(own, configuration.hostname, ["127.0.0.1", "::1"])
        return Sources(
            pair,
            {name: Pair(one.certificate, one.key) for name, one in tls.name.items()},
            authorities=tls.client_authorities,
            revocations=tls.client_revocations,
            minimum_version=tls.minimum_version,
            ciphers=tls.ciphers,
        )

    return Certificates(sources=sources, clock=server.reactor, run_in_thread=deferToThread)


def proxies_of(listen: ListenTable) -> Networks | None:
    """Whose PROXY headers are believed; None where none is awaited."""
    if not is_proxied(listen.endpoint):
        return None
    return LOOPBACK if listen.proxies is None else Networks(listen.proxies)


def _resolver(configuration: Configuration, reactor: Any) -> Resolver:
    dns = configuration.dns
    return Resolver(
        reactor=reactor, seconds=time.monotonic,
        servers=[NameServer(one, trusted=dns.validating or one.is_loopback) for one in dns.servers],
        timeout_seconds=dns.timeout,
        attempts=dns.attempts,
        question_seconds=dns.give_up,
        cache_entries=dns.cache_entries,
        random_case=dns.random_case,
    )  # fmt: skip


def _limits(configuration: Configuration, *, logs_in: bool) -> ConnectionLimits:
    limits = configuration.limits
    return ConnectionLimits(
        message_octets=limits.message_bytes,
        header_octets=limits.header_bytes,
        stray_line_ends=limits.stray_line_ends,
        recipients=limits.recipients,
        messages_per_connection=limits.messages_per_connection,
        hops=limits.hops,
        greeting_delay_seconds=limits.greeting_delay_seconds,
        pipelined_octets=limits.pipelined_bytes,
        proxy_header_seconds=limits.proxy_header_seconds,
        patience=Patience(
            soft_errors=limits.soft_errors, hard_errors=limits.hard_errors, junk_commands=limits.junk_commands
        ),
        pace=Pace(
            command_seconds=limits.command_seconds,
            stress_command_seconds=limits.stress_command_seconds,
            login_seconds=configuration.authentication.login_seconds if logs_in else math.inf,
            data_seconds=limits.data_seconds,
            message_seconds=limits.message_seconds,
            data_octets_per_second=limits.data_bytes_per_second,
        ),
    )
