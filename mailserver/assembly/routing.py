"""Makes the router of the domains."""

from __future__ import annotations

from mailserver.config import Configuration
from mailserver.interfaces import IDirectory
from mailserver.plugins.life import StartError
from mailserver.routing.domains import LocalDomain, RoutingError
from mailserver.routing.patterns import Pattern, PatternError
from mailserver.routing.router import Router

__all__ = ["make_router"]


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
