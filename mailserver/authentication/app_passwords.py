"""App passwords: one for each program, made by us, named, bounded in what it may do and for how long.

They are random, 100 bits, so a quick salted hash keeps them as well as a slow one would: nobody can try 2^100.  A slow one
would only make each login cost as many times 20 ms as the account has programs.
"""

from __future__ import annotations

import datetime
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

__all__ = ["SCOPES", "AppPassword", "hash_app_password", "new_app_password", "normal_app_password", "scope_of", "which"]

SCOPES = ("smtp", "imap", "pop3")
LETTERS = "abcdefghijkmnpqrstuvwxyz23456789"  # none that look alike
GROUPS, GROUP = 4, 5
FORM = re.compile(f"[{LETTERS}]{{{GROUPS * GROUP}}}")
SERVICES = {"mx": "smtp", "submission": "smtp"}


@dataclass(frozen=True, slots=True)
class AppPassword:
    """`scopes` are of `SCOPES`; `expires` is the first day on which it is good no more, None for never."""

    name: str
    hash: str
    scopes: tuple[str, ...] = SCOPES
    expires: datetime.date | None = None

    def is_good(self, scope: str, today: datetime.date) -> bool:
        """It may be used for this now."""
        return scope in self.scopes and (self.expires is None or today < self.expires)


def new_app_password() -> str:
    """Four groups of five letters and digits; shown once."""
    return "-".join("".join(secrets.choice(LETTERS) for _ in range(GROUP)) for _ in range(GROUPS))


def normal_app_password(text: str) -> str | None:
    """Without the hyphens and blanks that people type or leave out; None for what cannot be one."""
    normal = text.replace("-", "").replace(" ", "").lower()
    return normal if FORM.fullmatch(normal) else None


def hash_app_password(text: str) -> str:
    """What is kept.  Raises ValueError for what was not made by `new_app_password`."""
    normal = normal_app_password(text)
    if normal is None:
        raise ValueError("not an app password")
    return str(_scheme().hash(normal))


def which(text: str, among: Iterable[AppPassword], service: str, today: datetime.date) -> AppPassword | None:
    """The one that `text` is, of those that are good `today` (UTC) on a listener for `service`.  Quick."""
    normal = normal_app_password(text)
    if normal is None:
        return None
    scope = scope_of(service)
    for one in among:
        if one.is_good(scope, today) and _scheme().identify(one.hash) and _scheme().verify(normal, one.hash):
            return one
    return None


def scope_of(service: str) -> str:
    """The scope of a listener's service."""
    return SERVICES.get(service, service)


def _scheme() -> Any:
    from passlib.hash import ldap_salted_sha256  # the server starts without it

    return ldap_salted_sha256
