"""App passwords: one for each program, made by us, named, bounded in what it may do and for how long.

They are random, with 100 bits, which nobody can guess.  So a quick salted hash protects them as well as a slow one.  With a slow
hash each login would cost 20 ms for every app password of the account.
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
LETTERS = "abcdefghijkmnpqrstuvwxyz23456789"  # without those that look alike
GROUPS, GROUP = 4, 5
FORM = re.compile(f"[{LETTERS}]{{{GROUPS * GROUP}}}")
SERVICES = {"mx": "smtp", "submission": "smtp"}


@dataclass(frozen=True, slots=True)
class AppPassword:
    """An app password.  `scopes` are of `SCOPES`; `expires` is the first day on which it is invalid, None for never."""

    name: str
    hash: str
    scopes: tuple[str, ...] = SCOPES
    expires: datetime.date | None = None

    def is_good(self, scope: str, today: datetime.date) -> bool:
        """Whether it may be used for this scope on this day."""
        return scope in self.scopes and (self.expires is None or today < self.expires)


def new_app_password() -> str:
    """A new app password: four groups of five letters and digits.  It is shown once."""
    return "-".join("".join(secrets.choice(LETTERS) for _ in range(GROUP)) for _ in range(GROUPS))


def normal_app_password(text: str) -> str | None:
    """The text without the hyphens and blanks that people type or leave out; None where it is malformed."""
    normal = text.replace("-", "").replace(" ", "").lower()
    return normal if FORM.fullmatch(normal) else None


def hash_app_password(text: str) -> str:
    """The hash to keep.  Raises ValueError for a text that `new_app_password` cannot have made."""
    normal = normal_app_password(text)
    if normal is None:
        raise ValueError("not an app password")
    return str(_scheme().hash(normal))


def which(text: str, among: Iterable[AppPassword], service: str, today: datetime.date) -> AppPassword | None:
    """The app password that `text` matches, among those valid `today` (UTC) on a listener for `service`.  Does not block."""
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
    from passlib.hash import ldap_salted_sha256  # imported late: the server can start without it

    return ldap_salted_sha256
