"""What the command line may ask about lockouts: the same of a running server and of a file without one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from mailserver.authentication.lockout.entries import LockoutEntry, LockoutSelection
from mailserver.authentication.lockout.lockout import Lockout, account_name

__all__ = ["LockoutCommands"]

ENTRIES_MOST = 10_000  # in one answer


class LockoutCommands:
    """``lockouts.list`` and ``lockouts.clear``.  Each takes a JSON object and returns one."""

    def __init__(self, lockout: Lockout) -> None:
        self._lockout = lockout

    def commands(self) -> Mapping[str, Any]:
        """Name and function."""
        return {"lockouts.list": self.list, "lockouts.clear": self.clear}

    async def list(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """`account`, `network` ("" for any), `all` (also what is only counted): the `entries`, and how many `more` there are."""
        found = await self._lockout.entries(selection_of(arguments), locked_only=not arguments.get("all"))
        return answer(sorted(found, key=lambda entry: (-entry.locked_until, -entry.failures)))

    async def clear(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """`account`, `network` ("" for any), `by` (who asks): what is forgotten now, in the same form."""
        return answer(await self._lockout.clear(selection_of(arguments), by=str(arguments.get("by", ""))))


def selection_of(arguments: Mapping[str, Any]) -> LockoutSelection:
    """What is meant, an account however it is written."""
    account = str(arguments.get("account") or "")
    return LockoutSelection(account_name(account) if account else "", str(arguments.get("network") or ""))


def answer(entries: list[LockoutEntry]) -> dict[str, Any]:
    """For the control socket."""
    return {"entries": [asdict(entry) for entry in entries[:ENTRIES_MOST]], "more": max(0, len(entries) - ENTRIES_MOST)}
