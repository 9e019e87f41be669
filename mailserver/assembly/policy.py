"""What a reload replaces: who exists, where recipients go, the filters and the limits."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import Logger

from mailserver.assembly.certificates import make_certificates
from mailserver.assembly.filters import bind_filters, show_budgets
from mailserver.assembly.listeners import connection_limits, proxies_of
from mailserver.assembly.logins import offers_logins
from mailserver.assembly.routing import make_router
from mailserver.assembly.server import Server
from mailserver.assembly.submission import make_submission
from mailserver.authentication.authenticator import Authenticator
from mailserver.authentication.checkers import CheckerError
from mailserver.config import Configuration, ListenTable
from mailserver.interfaces import IAccountList, IObserver, IPreparing
from mailserver.mail.address import Address, AddressError, normal_names
from mailserver.mail.answers import Mailbox
from mailserver.mail.networks import Networks
from mailserver.plugins.generation import Generation
from mailserver.plugins.life import StartError, start_component
from mailserver.receive.absence import absence_of
from mailserver.receive.encryption import Encryption
from mailserver.receive.ends import ends_for
from mailserver.receive.judging import Judging
from mailserver.receive.profile import CopyPolicy, Profile
from mailserver.receive.service_extensions import ExtensionClash, ServiceExtensions
from mailserver.receive.tls_rules import TLSRules
from mailserver.tls import ClientCertificates

__all__ = ["Policy"]


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
        self._bound = bind_filters(configuration, self._filters, server.catalogue)
        show_budgets(self._bound, server.register)
        judging = Judging(self._bound, clock=server.reactor, seconds=time.monotonic)
        self.router = make_router(configuration, self._directory)
        self.observers = [server.register.observing(one) for one in self._filters if IObserver.providedBy(one)]
        self.certificates = make_certificates(configuration, server)
        self.authenticator = _authenticator(configuration, server, self._directory)
        self.submission = make_submission(configuration, server, self.router, self.authenticator)
        self._tls_rules = TLSRules(
            required_from=configuration.tls.required_from, required_for=configuration.tls.required_for
        )
        self._configuration = configuration
        self._judging = judging
        self._relay_networks = Networks(configuration.relay.networks)
        self._bare_lf_networks = Networks(configuration.limits.bare_lf_networks)
        self.profiles = {listen.endpoint: self._profile(listen.service, listen) for listen in configuration.listen}
        self.pickup_profile = self._profile("submission", None)

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
            bare_lf_networks=self._bare_lf_networks,
            clock=server.reactor,
            look_up=server.resolver.query,
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
            copy_policy=CopyPolicy(
                reports=configuration.policy.per_recipient != "quarantine",
                holds_quarantine=configuration.policy.quarantine == "hold",
            ),
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
                self._server.register.begin(component)
        if IAccountList.providedBy(self._directory) and IPreparing.providedBy(self._local):
            await self._prepare(self._directory, await self._directory.accounts())
        self._server.serve_with(self.router, self._judging, self.generation)
        self._server.certificates = self.certificates

    async def _prepare(self, directory: Any, accounts: Sequence[str]) -> None:
        found = []
        for text in accounts:
            try:
                name = Address.parse(text, utf8=True)
            except AddressError as error:  # of a database, say, that nobody checks
                self.log.warn("{text} cannot be an account: {error}", text=text, error=error)
            else:
                found.append(await directory.find(*normal_names(name)))
        await self._local.prepare([mailbox for mailbox in found if mailbox is not None])

    async def mailbox(self, account: str) -> Mailbox | None:
        """Of somebody who has logged in; None where he has none, as whom only a checker knows."""
        local, _, domain = account.rpartition("@")
        found: Mailbox | None = await self._directory.find(local, domain)
        return found

    async def stop(self) -> None:
        """Stop them, side by side; a plugin's trouble at its end is nobody else's."""
        parts = [part for part in (*self._filters, self._directory, self.certificates) if not self._server.keeps(part)]
        await DeferredList([Deferred.fromCoroutine(self._server.end(part)) for part in parts])


def _authenticator(configuration: Configuration, server: Server, directory: Any) -> Authenticator | None:
    """Raises `StartError` for a checker that cannot be made."""
    try:
        return server.logins.authenticator(configuration, directory)
    except CheckerError as error:
        raise StartError(f"authentication.checkers: {error}") from error
