"""The component for the host's own users: ``[accounts] use = "system"``.

Users in the system's user table get mail, except for root and users below `uid_min`.  With `pam` they can log in, too.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Annotated

from pydantic import StringConstraints, model_validator
from zope.interface import implementer

from mailserver.accounts.system_users import SystemDirectory
from mailserver.config import Count, DomainName, Options
from mailserver.interfaces import IComponentFactory, IDirectory, Services

__all__ = ["SystemDirectoryFactory", "SystemDirectoryOptions"]


class SystemDirectoryOptions(Options):
    """The host's own users."""

    domains: tuple[DomainName, ...] = ()
    """The domains in which they have mail; absent: every domain of the server."""
    uid_min: Count = 1000
    """Users below this number get no mail."""
    uid_max: int = 59999
    """Users above it neither: services and `nobody`."""
    login_shell: bool = False
    """Leave out users whose shell is `nologin` or `false`."""
    pam: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.\-]{1,64}$")] | None = None
    """The PAM service that knows their passwords: `mailserver`, for etc/pam.d/mailserver. Absent: they cannot log in."""

    @model_validator(mode="after")
    def _knows_whose(self) -> SystemDirectoryOptions:
        if self.pam is not None and not self.domains:
            raise ValueError("with pam, domains says of which addresses they are the users")
        return self


@implementer(IComponentFactory)
class SystemDirectoryFactory:
    """Makes the directory for ``[accounts] use = "system"``."""

    name = "system"
    summary = "The users of the host; with [delivery] path = \"{home}/Maildir\""
    api_version = "1.0"
    provides = IDirectory
    options = SystemDirectoryOptions

    def build(self, options: SystemDirectoryOptions, services: Services) -> SystemDirectory:
        """Make the directory.  Raises no errors."""
        kind: Callable[..., SystemDirectory] = SystemDirectory
        if options.pam is not None:
            from twisted.internet import reactor

            from mailserver.accounts.system_logins import SystemLogins
            from mailserver.plugins.threads import Threads
            from mailserver.processes.small import keep_here

            kind = functools.partial(
                SystemLogins,
                service=options.pam,
                reactor=reactor,
                hand_over=Threads("PAM", 4, call_from_thread=reactor.callFromThread).run,  # type: ignore[attr-defined]
                keep=services.keep_process or keep_here,
            )
        return kind(
            clock=services.clock,
            run_in_thread=services.run_in_thread,
            hostname=services.hostname,
            domains=options.domains,
            uid_min=options.uid_min,
            uid_max=options.uid_max,
            login_shell=options.login_shell,
        )
