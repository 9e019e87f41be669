"""Joins the certificates that come by ACME to the server's parts."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.endpoints import serverFromString
from twisted.logger import Logger

from mailserver.acme.service import AcmeService
from mailserver.config import Configuration
from mailserver.config.acme_endpoints import own_endpoints
from mailserver.plugins.pools import Pools
from mailserver.processes.small import SmallProcesses
from mailserver.tls import Certificates, IdentityError
from mailserver.tls.issued import read_issued

if TYPE_CHECKING:  # loaded where certificates come by ACME
    from mailserver.acme.allowance import TimeAllowance
    from mailserver.acme.challenge import ChallengeAnswers
    from mailserver.acme.challenge_server import IChallengeServer
    from mailserver.acme.settings import AcmeSettings
    from mailserver.acme.visit import Visit, Visited

__all__ = ["acme_settings", "make_acme"]

AUTHORITY_PORT = 53
NAMES_SECONDS = 600.0
THREADS = 2  # one more for when the first hangs


class AcmeParts(Protocol):
    """What is needed of the server.  `web` is the hand-over to the web process, whether there is one or not."""

    reactor: Any
    pools: Pools
    processes: SmallProcesses
    certificates: Certificates | None
    state: Any
    resolver: Any

    @property
    def web(self) -> IChallengeServer: ...


def acme_settings(configuration: Configuration) -> AcmeSettings | None:
    """None where certificates do not come by ACME."""
    table = configuration.by_acme
    if table is None:
        return None
    from mailserver.acme.settings import AcmeSettings, AuthoritySettings

    authorities = [AuthoritySettings(table.directory, table.eab_kid, table.eab_key_file)]
    if table.second is not None:
        authorities.append(AuthoritySettings(table.second, table.second_eab_kid, table.second_eab_key_file))
    hostname = configuration.hostname.lower().removesuffix(".")
    contact = str(table.contact) if table.contact is not None else f"postmaster@{configuration.home_domain}"
    return AcmeSettings(
        mail_names=tuple(dict.fromkeys((hostname, *table.names))),
        authorities=tuple(authorities),
        contact=contact,
        profile=table.profile,
        challenge=table.challenge,
        endpoints=own_endpoints(configuration),
        folder=table.folder,
        dns_key=table.dns_key,
        dns_server=table.dns_server,
        ca_file=table.ca_file,
    )


def make_acme(server: AcmeParts, configuration: Callable[[], Configuration]) -> AcmeService:
    """`configuration()` is the one in force.  Nothing of it costs anything where certificates do not come by ACME."""
    joined = _Joined(server, configuration)
    return AcmeService(
        clock=server.reactor,
        visits=joined.visits,
        run_in_thread=server.pools.of("acme", THREADS),
        taken_up=joined.taken_up,
    )


class _Joined:
    log = Logger()

    def __init__(self, server: AcmeParts, configuration: Callable[[], Configuration]) -> None:
        self._server = server
        self._configuration = configuration
        self._web_names: list[str] = []
        self._wanted: list[str] = []
        self._named_at = 0.0
        self._handed_over: bytes = b""

    async def visits(self, allowance: TimeAllowance) -> Sequence[Visit]:
        """See `MakeVisits`."""
        configuration = self._configuration()
        settings = acme_settings(configuration)
        if settings is None:
            self._handed_over = b""  # and to be handed over anew when it is wanted again
            return ()
        from mailserver.acme.visit import Visit

        make = partial(
            Visit,
            settings=settings,
            keys_directory=configuration.keys_path,
            allowance=allowance,
            answers=partial(self._answers, configuration, settings),
            seen=partial(_seen, configuration),
            steady_seconds=self._server.state.seconds,
        )
        found = []
        if any(listen.tls != "none" and listen.takes_mail for listen in configuration.listen):
            host = settings.mail_names[0]
            found.append(make(name="mail", names=settings.mail_names, required=frozenset((host,)), hostname=host))
        if names := await self._names_of_web(configuration, settings):
            found.append(make(name="web", names=names, required=frozenset()))
        return found

    async def _names_of_web(self, configuration: Configuration, settings: AcmeSettings) -> list[str]:
        """Looked for every ten minutes."""
        has_tls = any(one.tls != "none" for one in configuration.web_listeners)
        if not has_tls or configuration.web.certificate is not None:
            return []
        from mailserver.acme.web_names import names_most, names_that_lead_here, wanted_web_names

        hostname, now = settings.mail_names[0], self._server.reactor.seconds()
        domains = [name for name, table in configuration.domain.items() if not name.startswith("*.") and not table.disabled]
        wanted = wanted_web_names(hostname, domains)
        if wanted != self._wanted or not 0 <= now - self._named_at < NAMES_SECONDS:
            addresses, query = configuration.dns.public_addresses, self._server.resolver.query
            known = self._web_names or await self._server.pools.of("certificates")(_names_issued, configuration.keys_path)
            names = await names_that_lead_here(wanted, hostname, addresses, query, frozenset(known))
            self._web_names, self._wanted, self._named_at = names[: names_most(settings.profile)], wanted, now
        return self._web_names

    async def taken_up(self, visited: Visited) -> None:
        """A certificate that is there is shown from now on, to connections that begin."""
        if visited.name == "mail":
            if self._server.certificates is not None:
                await self._server.certificates.look_anew()
        elif visited.identity is not None:
            with_key = await self._server.pools.of("certificates")(_octets, visited.identity.pair.key)
            if with_key != self._handed_over:
                self._handed_over = with_key
                key, begin, chain = with_key.decode("ascii").partition("-----BEGIN CERTIFICATE-----")
                self._server.web.change_certificate(begin + chain, key).addErrback(self._not_handed_over)

    def _not_handed_over(self, failure: Any) -> None:
        """The next process gets it; there is none at this moment."""
        self.log.debug("the certificate of the web names waits for a web process: {why}", why=failure.getErrorMessage())

    def _answers(self, configuration: Configuration, settings: AcmeSettings, allowance: TimeAllowance) -> ChallengeAnswers:
        """In the thread of a try."""
        from mailserver.acme.answers import ByWebListener, FolderAnswers, FromReactor, Remembered

        kept = os.path.join(configuration.keys_path, "acme", "shown.json")
        if settings.challenge == "dns-01":
            from mailserver.acme.zone_answers import ZoneAnswers

            return Remembered(
                ZoneAnswers(settings.dns_key or "", settings.dns_server, partial(_seen, configuration), allowance), kept
            )
        if settings.folder is not None:
            return Remembered(FolderAnswers(settings.folder), kept)
        reactor = self._server.reactor
        if settings.endpoints:
            from mailserver.acme.own_listeners import HTTPListener, TLSListener

            kind = HTTPListener if settings.challenge == "http-01" else TLSListener
            return FromReactor(kind(settings.endpoints, self._listen, reactor), reactor.callFromThread, allowance)
        return FromReactor(ByWebListener(settings.challenge, self._server.web, reactor), reactor.callFromThread, allowance)

    def _listen(self, endpoint: str, factory: Any) -> Awaitable[Any]:
        """Through the root process where there is one: the port is below 1024."""
        root_binds = self._server.processes.endpoint(endpoint)
        made: Awaitable[Any] = (root_binds or serverFromString(self._server.reactor, endpoint)).listen(factory)
        return made


def _seen(configuration: Configuration) -> Any:
    from mailserver.doctor.asking import SeenLive
    from mailserver.doctor.configured import recursive_servers

    return SeenLive(recursive_servers(configuration), port=AUTHORITY_PORT)


def _names_issued(keys_directory: str) -> list[str]:
    """Those of the web listener's certificate: a server that begins while the DNS does not answer knows them."""
    try:
        found = read_issued(keys_directory, "web")
    except (IdentityError, OSError):
        return []
    return [] if found is None else list(found.names)


def _octets(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read(1 << 20)
