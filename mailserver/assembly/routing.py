"""Makes the router of the domains."""

from __future__ import annotations

from collections.abc import Mapping

from mailserver.config import Configuration
from mailserver.interfaces import Clock, IDirectory
from mailserver.plugins.asked_router import AskedRouter
from mailserver.plugins.life import StartError
from mailserver.routing.domains import LocalDomain, RoutingError
from mailserver.routing.patterns import Pattern, PatternError
from mailserver.routing.router import NOBODY, OpensReturnPaths, Router

__all__ = ["NO_ROUTER", "make_router"]

NO_ROUTER = "domains"  # `[router] use`: no component


def make_router(
    configuration: Configuration, directory: IDirectory, *, before: AskedRouter | None = None, clock: Clock | None = None,
    readers: Mapping[str, str] = NOBODY, return_paths: OpensReturnPaths | None = None,
) -> Router:
    """The router of the domains, with a plugin's `before` it.  Raises `StartError` for aliases that go round."""
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
        router = Router(
            directory=directory,
            domains=domains,
            hostname=configuration.hostname,
            before=before,
            readers=readers,
            clock=clock,
            seconds=configuration.limits.router_seconds,
            return_paths=return_paths,
        )
    except (RoutingError, PatternError) as error:
        raise StartError(str(error)) from error
    domain = configuration.forward.domain
    if domain is not None and not router.is_own(domain) and domain.lower() != configuration.hostname.lower():
        raise StartError(f"forward.domain: bounces would not come here: {domain} is neither `hostname` nor among the domains")
    return router
