"""A login by password, against what an account has: its app passwords, then its hash."""

from __future__ import annotations

import datetime
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from twisted.cred.error import UnauthorizedLogin

from mailserver.authentication.app_passwords import AppPassword, which
from mailserver.authentication.checkers import AccountName

__all__ = ["account_by_password"]


async def account_by_password(
    credentials: Any,
    app_passwords: Iterable[AppPassword],
    hash: str | None,
    *,
    check_password: Callable[[str, str | None], Awaitable[bool]],
    used: Callable[[str, AppPassword], None],
    today: datetime.date,
) -> AccountName:
    """The account that `credentials` (a `PasswordCredentials`) name.  Raises `UnauthorizedLogin` for a wrong password.

    Where an app password was given the name has a note, and `used` is called with it.  For an unknown account there are no
    `app_passwords` and `hash` is None.
    """
    name, password = credentials.username.decode("utf-8"), credentials.password.decode("utf-8")
    one = which(password, app_passwords, credentials.service, today)
    if one is not None:
        used(name, one)
        return AccountName.noted(name, f"app password {one.name}")
    if not await check_password(password, hash):
        raise UnauthorizedLogin
    return AccountName(name)
