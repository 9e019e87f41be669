"""What a reload replaces: who exists, where recipients go, the filters and the limits."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.defer import TimeoutError as Late
from twisted.logger import Logger

from mailserver.assembly.certificates import make_certificates
from mailserver.assembly.components import Owned
from mailserver.assembly.filters import bind_filters, show_filters
from mailserver.assembly.listeners import connection_limits, proxies_of
from mailserver.assembly.logins import offers_logins
from mailserver.assembly.outbound import asked_before, report_policies
from mailserver.assembly.route_refusals import route_refusals
from mailserver.assembly.routing import NO_ROUTER, make_router
from mailserver.assembly.server import Server
from mailserver.assembly.set_apart import copy_policy_of
from mailserver.assembly.submission import make_submission
from mailserver.authentication.authenticator import Authenticator
from mailserver.authentication.checkers import CheckerError
from mailserver.config import Configuration, ListenTable
from mailserver.config.filter_order import filter_names
from mailserver.delivery.readers import Reader, readers_by_address
from mailserver.interfaces import IAccountList, IMailReader, IObserver, IPreparing
from mailserver.mail.address import Address, AddressError, normal_names
from mailserver.mail.answers import Mailbox
from mailserver.mail.networks import Networks
from mailserver.mail.route_map import one_of
from mailserver.plugins.asked_directory import AskedDirectory
from mailserver.plugins.asked_router import AskedRouter
from mailserver.plugins.asking import Asking, ComponentFailed
from mailserver.plugins.awaiting import within
from mailserver.plugins.generation import Generation
from mailserver.plugins.life import REASONS, StartError, start_component, stop_component
from mailserver.receive.absence import absence_of
from mailserver.receive.encryption import Encryption
from mailserver.receive.ends import ends_for
from mailserver.receive.judging import Judging
from mailserver.receive.profile import Profile
from mailserver.receive.service_extensions import ExtensionClash, ServiceExtensions
from mailserver.receive.tls_rules import TLSRules
from mailserver.relay.forwards import ForwardRules
from mailserver.tls import ClientCertificates, IdentityError

__all__ = ["Policy"]


class Policy:
    """The parts that a reload replaces.  Raises `StartError` or `PluginError` where they do not fit together.

    `generation` counts what is under way with them.
    """

    log = Logger()

    def __init__(self, configuration: Configuration, server: Server) -> None:
        self._server = server
        self.generation = Generation()
        self._held: list[Owned] = []
        try:
            self._make(configuration)
        except BaseException:
            for owned in self._held:
                server.components.give_back(owned)
            raise

    def _make(self, configuration: Configuration) -> None:
        server, limits = self._server, configuration.limits
        self._start_seconds, self._stop_seconds = float(limits.start_seconds), float(limits.stop_seconds)
        accounts, before = self._accounts(configuration), self._router_before(configuration)
        self._directory = AskedDirectory(
            accounts.component, accounts.asking, limits.accounts_seconds, list_seconds=limits.start_seconds
        )
        names = filter_names([(table.use, table.name) for table in configuration.filter])
        owned = [self._take("filter", table, name) for table, name in zip(configuration.filter, names, strict=True)]
        filters = [one.component for one in owned]
        bound = bind_filters(configuration, filters, server.catalogue)
        self._bound = [replace(one, left=its.asking.left) for one, its in zip(bound, owned, strict=True)]
        self._before = asked_before(configuration, owned, self._bound, remote=server.remote, generation=self.generation)
        self._report_policies = report_policies(owned, self._bound)
        self._readers = {
            one.name: Reader(one.component, one.asking) for one in owned if IMailReader.providedBy(one.component)
        }
        judging = Judging(self._bound, clock=server.reactor, seconds=time.monotonic)
        self.router = make_router(
            configuration, self._directory, before=before, clock=server.reactor, return_paths=server.return_paths,
            readers=readers_by_address([(name, one.component) for name, one in self._readers.items()]),
        )  # fmt: skip
        self.observers = [server.register.observing(one) for one in filters if IObserver.providedBy(one)]
        self.certificates = make_certificates(configuration, server)
        self._asking = Asking("certificates", server.reactor)
        self.authenticator = _authenticator(configuration, server, self._directory)
        self.submission = make_submission(configuration, server, self.router, self.authenticator)
        self._tls_rules = TLSRules(
            required_from=configuration.tls.required_from, required_for=configuration.tls.required_for
        )
        self._configuration = configuration
        self._judging = judging
        self._why_not_sent_on = route_refusals(configuration)
        self._relay_networks = Networks(configuration.relay.networks)
        self._is_second_for = one_of(configuration.relay.domains)
        self._bare_lf_networks = Networks(configuration.limits.bare_lf_networks)
        self.profiles = {
            listen.endpoint: self._profile(listen.service, listen) for listen in configuration.listen if listen.takes_mail
        }
        self.pickup_profile = self._profile("submission", None)

    def _take(self, section: str, table: Any, name: str = "") -> Owned:
        owned = self._server.components.take(section, table, name)
        self._held.append(owned)
        return owned

    def _accounts(self, configuration: Configuration) -> Owned:
        """The directory.  One that holds privileges is kept over a reload, as nobody could give another one its own."""
        owned = self._server.components.privileged("accounts")
        if owned is None:
            return self._take("accounts", configuration.accounts)
        owned.holders += 1
        self._held.append(owned)
        return owned

    def _router_before(self, configuration: Configuration) -> AskedRouter | None:
        """A plugin's router, where the configuration names one."""
        if configuration.router.use == NO_ROUTER:
            return None
        owned = self._take("router", configuration.router)
        return AskedRouter(owned.component, owned.asking, configuration.limits.router_seconds)

    def _profile(self, service: str, listen: ListenTable | None) -> Profile:
        """How a listener behaves; None: the pickup folder, which has no connections."""
        configuration, server, clock, note = self._configuration, self._server, self._server.reactor, self._server.steps.note
        try:
            added = ServiceExtensions(self._bound, service=service, clock=clock, note=note)
        except ExtensionClash as error:
            raise StartError(f"filter: {error}") from error
        return Profile(
            service=service,
            hostname=configuration.hostname,
            limits=connection_limits(
                configuration, logs_in=service == "submission" and listen is not None and offers_logins(listen)
            ),
            judging=self._judging,
            router=self.router,
            store=server.queue,
            relays=server.remote is not None,
            absence=None if listen is None else absence_of(local=server.local, remote=server.remote),
            relay_networks=self._relay_networks,
            is_second_for=self._is_second_for,
            bare_lf_networks=self._bare_lf_networks,
            clock=server.reactor,
            look_up=server.noting_resolver.query,
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
            ends=ends_for(self._bound, service=service, clock=clock, generation=self.generation),
            service_extensions=added if added and listen is not None else None,
            copy_policy=copy_policy_of(configuration),
            is_return_path=self.router.is_return_path,
            why_not_sent_on=self._why_not_sent_on,
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
        """Start what does not run yet, and make the accounts' mailboxes.  An error stops the start, or the reload."""
        server, seconds = self._server, self._start_seconds
        await start_component(self.certificates, self._asking, seconds, (*REASONS, IdentityError))
        await self.start_components()
        if IAccountList.providedBy(self._directory) and IPreparing.providedBy(server.local):
            await self._prepare(seconds)
        forward = self._configuration.forward
        server.return_paths.former = forward.former_secrets or ""
        server.forwards.rules = ForwardRules(forward.srs, forward.domain or "")
        server.report_policies.use(self._report_policies, self.generation)
        server.readers.use(self._readers, self.generation)
        server.serve_with(self.router, self._judging, self.generation)
        server.attempts.use(self._before)  # last: what has waited for it leaves by aliases that the router has to know
        server.certificates = self.certificates
        show_filters(self._bound, server.register)

    async def start_components(self) -> None:
        """Start those that do not run yet, and nothing else."""
        for owned in self._held:
            await self._server.components.start(owned, self._start_seconds)

    @property
    def judging(self) -> Judging:
        """All filters."""
        return self._judging

    def profile_of(self, service: str) -> Profile:
        """How the first listener of this service behaves, or one would that has neither a port nor TLS."""
        for listen in self._configuration.listen:
            if listen.service == service:
                return self.profiles[listen.endpoint]
        return self._profile(service, None)

    async def _prepare(self, seconds: float) -> None:
        """The accounts have to tell who there is.  That the mailboxes are made at once is a comfort: mail makes those missing."""
        accounts = await self._directory.accounts()
        try:
            await within(seconds, Deferred.fromCoroutine(self._make_mailboxes(accounts)), self._server.reactor)
        except Late:
            self.log.error("the mailboxes of the accounts could not be made within {seconds:g} seconds", seconds=seconds)
        except ComponentFailed as error:
            self.log.error("the mailboxes of the accounts could not be made: {error}", error=error)

    async def _make_mailboxes(self, accounts: Sequence[str]) -> None:
        found = []
        for text in accounts:
            try:
                name = Address.parse(text, utf8=True)
            except AddressError as error:  # of a database, say, that nobody checks
                self.log.warn("{text} cannot be an account: {error}", text=text, error=error)
            else:
                found.append(await self._directory.find(*normal_names(name)))
        await self._server.local.prepare([mailbox for mailbox in found if mailbox is not None])

    async def mailbox(self, account: str) -> Mailbox | None:
        """Of somebody who has logged in; None where he has none, as whom only a checker knows."""
        local, _, domain = account.rpartition("@")
        found: Mailbox | None = await self._directory.find(local, domain)
        return found

    async def stop(self) -> None:
        """Let them go, side by side: whom nobody else holds is stopped.  A plugin's trouble at its end is nobody else's."""
        seconds = self._stop_seconds
        held, self._held = self._held, []
        ends = [self._server.components.let_go(owned, seconds) for owned in held]
        ends.append(stop_component(self.certificates, self._asking, seconds))
        await DeferredList([Deferred.fromCoroutine(end) for end in ends])


def _authenticator(configuration: Configuration, server: Server, directory: Any) -> Authenticator | None:
    """Raises `StartError` for a checker that cannot be made."""
    try:
        return server.logins.authenticator(configuration, directory)
    except CheckerError as error:
        raise StartError(f"authentication.checkers: {error}") from error
