"""Accounts in a database: ``[accounts] use = "sql"``.

The tables stand in ``accounts.sql``; where a database has others, its own queries say the same.  A database that cannot be asked
means "nobody can tell": recipients and log-ins are deferred, never refused.
"""

from __future__ import annotations

import datetime
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from pydantic import model_validator
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.internet.defer import Deferred
from zope.interface import implementer

from mailserver.accounts.app_passwords import SCOPES, AppPassword
from mailserver.accounts.by_password import account_by_password
from mailserver.accounts.entry import certificate_marks
from mailserver.accounts.realm import AccountName
from mailserver.accounts.remembered import Remembered
from mailserver.accounts.sql_sources import PostgresSource, Source, SqliteSource
from mailserver.accounts.uses import AppPasswordUses
from mailserver.config import FilePath, Options
from mailserver.interfaces import (
    Clock,
    IAccountList,
    ICertificateAccounts,
    IComponent,
    IComponentFactory,
    IDirectory,
    IScramAccounts,
    ISenderGrants,
    Services,
)
from mailserver.mail.answers import Mailbox
from mailserver.sasl.scram_keys import decode_scram_keys
from mailserver.sasl.steps import ScramKeys

__all__ = ["SqlDirectory", "SqlDirectoryFactory", "SqlDirectoryOptions"]

KNOWN_SECONDS = 10.0


class SqlDirectoryOptions(Options):
    """Accounts in a database.  A query finds what its name says for `:address`, the account's address in lower case."""

    path: FilePath | None = None
    """An SQLite file."""
    dsn: str | None = None
    """Or PostgreSQL, in libpq's words: `postgresql://mail@db.example/accounts`. A password is better kept in a `.pgpass` file."""
    query_account: str = "SELECT password, scram FROM account WHERE address = :address"
    """The hash and the SCRAM keys (RFC 5803); a row of NULLs is an account that cannot log in."""
    query_accounts: str = "SELECT address FROM account ORDER BY address"
    """All addresses. Empty: nobody can say; mailboxes are then made with their first message."""
    query_senders: str = "SELECT sender FROM sender WHERE address = :address"
    """As whom it may send, besides its own addresses. Empty: nobody else."""
    query_certificate: str = "SELECT address FROM certificate WHERE mark = :mark"
    """Whom a client certificate stands for: `:mark` is its fingerprint, or an address in it. Empty: nobody."""
    query_app_passwords: str = "SELECT name, password, scopes, expires FROM app_password WHERE address = :address"
    """Its app passwords. Empty: none."""

    @model_validator(mode="after")
    def _one_place(self) -> SqlDirectoryOptions:
        if (self.path is None) == (self.dsn is None):
            raise ValueError("either path (SQLite) or dsn (PostgreSQL) says where the accounts are")
        return self


@implementer(
    IDirectory,
    IAccountList,
    IComponent,
    ICredentialsChecker,
    IScramAccounts,
    ICertificateAccounts,
    ISenderGrants,
)
class SqlDirectory:
    """Asks `source` in threads.  Whether an account exists is remembered for ten seconds."""

    credentialInterfaces = (IUsernamePassword,)

    def __init__(
        self,
        *,
        source: Source,
        options: SqlDirectoryOptions,
        clock: Clock,
        run_in_thread: Callable[..., Awaitable[Any]],
        check_password: Callable[[str, str | None], Awaitable[bool]],
        used: Callable[[str, AppPassword], None] = lambda account, one: None,
        today: Callable[[], datetime.date] = lambda: datetime.datetime.now(datetime.UTC).date(),
    ) -> None:
        self._source = source
        self._options = options
        self._run_in_thread = run_in_thread
        self._check_password = check_password
        self._used = used
        self._today = today
        self._known = Remembered(clock, KNOWN_SECONDS)

    async def start(self) -> None:
        """Ask each query once, so that a wrong one or a database that is not there stops the start.  Raises `DatabaseTrouble`."""
        options, nobody = self._options, "nobody@invalid.invalid"
        for query in (options.query_account, options.query_senders, options.query_app_passwords):
            await self._rows(query, address=nobody)
        await self._rows(options.query_certificate, mark=nobody)

    async def stop(self) -> None:
        """Close the connections."""
        await self._run_in_thread(self._source.close)

    # --- who exists ---

    async def find(self, local_part: str, domain: str) -> Mailbox | None:
        """The account's mailbox.  `DatabaseTrouble` passes: nobody can tell then."""
        exists = await self._known.exists(f"{local_part}@{domain}", self._exists)
        return Mailbox(local_part, domain) if exists else None

    async def _exists(self, address: str) -> bool:
        return await self._account(address) is not None

    async def accounts(self) -> Sequence[str]:
        """All addresses; none where no query says them."""
        addresses = [str(address) for (address,) in await self._rows(self._options.query_accounts)]
        for address in addresses:
            self._known.note(address.lower())
        return addresses

    # --- logging in ---

    def requestAvatarId(self, credentials: Any) -> Deferred[Any]:
        """`ICredentialsChecker`: the account, by its password or one of its app passwords."""
        return Deferred.fromCoroutine(self._log_in(credentials))

    async def _log_in(self, credentials: Any) -> AccountName:
        address = credentials.username.decode("utf-8")
        found = await self._account(address)
        rows = [] if found is None else await self._rows(self._options.query_app_passwords, address=address)
        return await account_by_password(
            credentials,
            map(app_password_of, rows),
            None if found is None else found[0],
            check_password=self._check_password,
            used=self._used,
            today=self._today(),
        )

    async def scram_keys(self, account: str) -> ScramKeys | None:
        """`IScramAccounts`."""
        found = await self._account(account)
        return None if found is None or not found[0] or not found[1] else decode_scram_keys(found[1])

    async def account_of_certificate(self, fingerprint: str, emails: Sequence[str]) -> str | None:
        """`ICertificateAccounts`."""
        for mark in certificate_marks(fingerprint, emails):
            for (address,) in await self._rows(self._options.query_certificate, mark=mark):
                return str(address)
        return None

    async def granted_senders(self, account: str) -> Sequence[str]:
        """`ISenderGrants`."""
        return [str(sender) for (sender,) in await self._rows(self._options.query_senders, address=account)]

    # --- asking ---

    async def _account(self, address: str) -> tuple[str | None, str | None] | None:
        """Its hash and its SCRAM keys, None where it is not there."""
        for row in await self._rows(self._options.query_account, address=address):
            hash, scram = (*row, None)[:2]
            return (None if hash is None else str(hash)), (None if scram is None else str(scram))
        return None

    async def _rows(self, query: str, **parameters: str) -> list[tuple[Any, ...]]:
        return await self._run_in_thread(self._source.rows, query, parameters) if query else []


def app_password_of(row: Sequence[Any]) -> AppPassword:
    """A row of `query_app_passwords`; scopes and the day of expiry may be missing."""
    name, hash, scopes, expires = (*row, None, None)[:4]
    day = expires if expires is None or isinstance(expires, datetime.date) else datetime.date.fromisoformat(str(expires))
    return AppPassword(str(name), str(hash), SCOPES if scopes is None else tuple(str(scopes).split()), day)


@implementer(IComponentFactory)
class SqlDirectoryFactory:
    """Makes the directory for ``[accounts] use = "sql"``."""

    name = "sql"
    summary = "Accounts in an SQLite file or in PostgreSQL"
    provides = IDirectory
    options = SqlDirectoryOptions

    def build(self, options: SqlDirectoryOptions, services: Services) -> SqlDirectory:
        """No errors: the database is asked by `start`."""
        source: Source = SqliteSource(options.path) if options.path is not None else PostgresSource(str(options.dsn))
        uses = AppPasswordUses(services.state, services.clock.seconds)
        return SqlDirectory(
            source=source,
            options=options,
            clock=services.clock,
            run_in_thread=services.run_in_thread,
            check_password=services.check_password,
            used=uses.note,
        )
