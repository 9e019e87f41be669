"""The host's own users as a directory.

The user table may be on another host (NSS).  So look-ups run in a thread, and their answers are kept for a minute.
"""

from __future__ import annotations

import pwd
import re
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from zope.interface import implementer

from mailserver.accounts.cached_directory import KnownAccounts
from mailserver.interfaces import Clock, IAccountList, IDirectory, IHostAccounts
from mailserver.mail.answers import Mailbox

__all__ = ["SystemDirectory", "UserTable"]

USER = re.compile(r"[a-z0-9_][a-z0-9_.\-]{0,63}")
KNOWN_SECONDS = 60.0
NO_LOGIN = ("/nologin", "/false", "/sync")


@dataclass(frozen=True, slots=True)
class UserTable:
    """The system's look-ups.  Tests replace them."""

    by_name: Callable[[str], pwd.struct_passwd] = pwd.getpwnam
    all: Callable[[], Sequence[pwd.struct_passwd]] = pwd.getpwall


@implementer(IDirectory, IAccountList, IHostAccounts)
class SystemDirectory:
    """Users of the host, in each of `domains` (in every domain of the server where `domains` is empty).

    `uid_min` and `uid_max` bound the user numbers.  `login_shell` requires a shell that lets its user log in.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        run_in_thread: Callable[..., Awaitable[Any]],
        hostname: str,
        domains: Collection[str] = (),
        uid_min: int = 1000,
        uid_max: int = 59999,
        login_shell: bool = False,
        users: UserTable = UserTable(),  # immutable
    ) -> None:
        self._clock = clock
        self._run_in_thread = run_in_thread
        self._hostname = hostname
        self._domains = frozenset(domains)
        self._uids = range(max(uid_min, 1), uid_max + 1)
        self._login_shell = login_shell
        self._users = users
        self._known = KnownAccounts(clock, KNOWN_SECONDS)

    async def find(self, local_part: str, domain: str) -> Mailbox | None:
        """The user's mailbox, None where no such user exists.  Errors of the look-up pass."""
        if (self._domains and domain not in self._domains) or USER.fullmatch(local_part) is None:
            return None
        exists = await self._known.exists(local_part, lambda name: self._run_in_thread(self._exists, name))
        return Mailbox(local_part, domain, (), True) if exists else None

    async def accounts(self) -> Sequence[str]:
        """The users that the system lists (a directory service may list none), as addresses of the first domain."""
        domain = min(self._domains, default=self._hostname)
        users = await self._run_in_thread(self._users.all)
        return [f"{user.pw_name}@{domain}" for user in users if self._gets_mail(user) and USER.fullmatch(user.pw_name)]

    def _exists(self, name: str) -> bool:
        """Whether the user exists and may get mail.  Blocks."""
        try:
            user = self._users.by_name(name)
        except KeyError:
            return False
        return user.pw_name == name and self._gets_mail(user)

    def _gets_mail(self, user: pwd.struct_passwd) -> bool:
        return user.pw_uid in self._uids and not (self._login_shell and user.pw_shell.endswith(NO_LOGIN))
