"""The directory whose accounts stand in a file: ``[accounts] use = "file"``.

A changed file is noticed within a second, by a look at its time and size; it is read in a thread.  While it has faults, what was
read before stays.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from zope.interface import implementer

from mailserver.accounts.table import Account, AccountsFile
from mailserver.config import ConfigurationError, FilePath, Options
from mailserver.interfaces import Clock, IAccountList, IComponent, IComponentFactory, IDirectory, Services
from mailserver.mail.answers import Mailbox

__all__ = ["FileDirectory", "FileDirectoryFactory", "FileDirectoryOptions"]

LOOK_SECONDS = 1.0
Signature = tuple[int, int, int]  # time of change (ns), size, inode


@implementer(IDirectory, IAccountList, IComponent)
class FileDirectory:
    """The accounts of the file at `path`.  Nothing is found before `start`."""

    log = Logger()

    def __init__(self, *, path: str, clock: Clock, run_in_thread: Callable[..., Awaitable[Any]]) -> None:
        self._file = AccountsFile(path)
        self._clock = clock
        self._run_in_thread = run_in_thread
        self._accounts: dict[tuple[str, str], Account] = {}
        self._mailboxes: dict[tuple[str, str], Mailbox] = {}
        self._signature: Signature | None = None
        self._look_at = 0.0
        self._reading = False

    async def start(self) -> None:
        """Read the file.  Raises OSError, or `ConfigurationError` with every fault."""
        self._signature = _signature(self._file.path)
        self._take(await self._run_in_thread(self._file.read))
        self._look_at = self._clock.seconds() + LOOK_SECONDS

    async def stop(self) -> None:
        """Nothing is open."""

    async def find(self, local_part: str, domain: str) -> Mailbox | None:
        """The account's mailbox, from memory."""
        if self._clock.seconds() >= self._look_at:
            self._look()
        return self._mailboxes.get((local_part, domain))

    async def accounts(self) -> Sequence[str]:
        """The addresses in the file's order."""
        return [account.address for account in self._accounts.values()]

    async def password_hash(self, local_part: str, domain: str) -> str | None:
        """The account's hash; None for one that cannot log in, and for one that is not there."""
        account = self._accounts.get((local_part, domain))
        return None if account is None else account.password

    def _look(self) -> None:
        self._look_at = self._clock.seconds() + LOOK_SECONDS
        if self._reading:
            return
        try:
            signature = _signature(self._file.path)
        except OSError as error:
            if self._signature is not None:
                self.log.error("the accounts file cannot be seen, the accounts stay as they were: {error}", error=error)
            self._signature = None
            return
        if signature != self._signature:
            self._signature = signature
            self._reading = True
            Deferred.fromCoroutine(self._read_again())

    async def _read_again(self) -> None:
        try:
            self._take(await self._run_in_thread(self._file.read))
        except (OSError, ConfigurationError) as error:
            self.log.error("the accounts file has faults, the accounts stay as they were: {error}", error=error)
        else:
            self.log.info("{count} accounts read", count=len(self._accounts))
        finally:
            self._reading = False

    def _take(self, accounts: dict[tuple[str, str], Account]) -> None:
        self._accounts = accounts
        self._mailboxes = {key: Mailbox(*key) for key in accounts}


def _signature(path: str) -> Signature:
    found = os.stat(path)
    return found.st_mtime_ns, found.st_size, found.st_ino


class FileDirectoryOptions(Options):
    """Accounts in a file."""

    path: FilePath = "accounts.toml"
    """The file; `mailserver user` writes it."""


@implementer(IComponentFactory)
class FileDirectoryFactory:
    """Makes the directory for ``[accounts] use = "file"``."""

    name = "file"
    summary = "Accounts in a TOML file that `mailserver user` writes"
    provides = IDirectory
    options = FileDirectoryOptions

    def build(self, options: FileDirectoryOptions, services: Services) -> FileDirectory:
        """No errors: the file is read by `start`."""
        path = os.path.join(services.configuration_directory, options.path)
        return FileDirectory(path=path, clock=services.clock, run_in_thread=services.run_in_thread)
