"""Whose name has become which: users with their details, and domains with all that is in them.  Pure."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["FollowedNames"]


class FollowedNames:
    """`accounts`: new names by old ones, each an address or ``@domain``, in the form in which they are compared.

    `separator` divides a user's name from a detail ("" nothing does): what is of `alice+shop@example.org` is alice's.
    """

    def __init__(self, accounts: Mapping[str, str], separator: str) -> None:
        self._accounts = dict(accounts)
        self._separator = separator

    def after(self, name: str) -> str | None:
        """What this one is called now; None where it is none of them."""
        if name in self._accounts:
            return self._accounts[name]
        local, at, domain = name.rpartition("@")
        if not at or not local:
            return None
        base, found, detail = local.partition(self._separator) if self._separator else (local, "", "")
        owner = self._accounts.get(f"{base}@{domain}") if found and base else None
        if owner is not None:
            new, _, new_domain = owner.rpartition("@")
            return f"{new}{found}{detail}@{new_domain}"
        other = self._accounts.get(f"@{domain}")
        return None if other is None else f"{local}{other}"

    def locals_after(self, local: str) -> str | None:
        """The same for a name that stands without its domain, where Maildirs have none in their paths."""
        for old, new in self._accounts.items():
            if old.rpartition("@")[0] == local and local:
                return new.rpartition("@")[0]
        return None

    def has(self, name: str) -> bool:
        """It is one of the old names, or a detail of one, or in one of the domains."""
        return self.after(name) is not None
