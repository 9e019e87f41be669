"""When each app password was last used: a small fact that expires, not a line in the accounts file."""

from __future__ import annotations

import time
from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from mailserver.authentication.app_passwords import AppPassword
from mailserver.interfaces import IStateStore

__all__ = ["USES_SPACE", "AppPasswordUses"]

USES_SPACE = "app-password"  # of the accounts file and of accounts in SQL: what they are lent has this name in the store

KEPT_SECONDS = 400 * 86_400.0
NOTED_SECONDS = 60.0  # a program that logs in for each message is noted once a minute


def key_of(account: str, one: AppPassword) -> str:
    """The key in the state store.  A later app password of the same name has another key."""
    return f"{account}/{one.name}/{one.hash[-12:]}"


class AppPasswordUses:
    """Notes uses in the state of the accounts."""

    log = Logger()

    def __init__(self, state: IStateStore | None, seconds: Callable[[], float] = time.time) -> None:
        self._state = state
        self._seconds = seconds

    def note(self, account: str, one: AppPassword) -> None:
        """Note a use now.  The login neither waits for it nor is refused where it fails."""
        if self._state is not None:
            Deferred.fromCoroutine(self._note(self._state, account, one))

    async def _note(self, state: IStateStore, account: str, one: AppPassword) -> None:
        try:
            before, now = await self.last(account, one), self._seconds()
            if before is None or not 0 <= now - before < NOTED_SECONDS:
                await state.put(key_of(account, one), repr(now).encode("ascii"), KEPT_SECONDS)
        except Exception:  # noqa: BLE001  # whatever a store raises
            self.log.failure("the use of an app password of {account} could not be noted", account=account)

    async def last(self, account: str, one: AppPassword) -> float | None:
        """When it was last used, in seconds since the epoch; None where no use is known."""
        found = None if self._state is None else await self._state.get(key_of(account, one))
        return None if found is None else float(found)
