"""Accounts in a database: ``[accounts] use = "sql"``.

``accounts.sql`` has the tables.  A database with other tables needs its own queries.  Where the database cannot be asked,
recipients and logins are deferred, never refused.
"""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

from pydantic import model_validator
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.internet.defer import Deferred, TimeoutError
from twisted.logger import Logger
from zope.interface import implementer

from mailserver.accounts.cached_directory import KnownAccounts
from mailserver.accounts.entry import certificate_marks
from mailserver.accounts.sql_sources import (
    STATEMENT_SECONDS,
    AccountSource,
    DatabaseBusy,
    FoundAccount,
    PostgresSource,
    SqliteSource,
)
from mailserver.authentication.app_password_uses import AppPasswordUses
from mailserver.authentication.app_passwords import SCOPES, AppPassword
from mailserver.authentication.by_password import account_by_password
from mailserver.authentication.checkers import AccountName
from mailserver.config import FilePath, Options
from mailserver.interfaces import (
    CannotTell,
    Clock,
    ComponentThreads,
    IAccountList,
    ICertificateAccounts,
    IComponent,
    IComponentFactory,
    IDirectory,
    IReloading,
    IScramAccounts,
    ISenderGrants,
    IUsualScramForm,
    Services,
)
from mailserver.mail.answers import Mailbox
from mailserver.plugins.threads import AllHang
from mailserver.sasl.scram_keys import ScramForm, decode_scram_keys, form_of, usual_form
from mailserver.sasl.steps import ScramKeys

__all__ = ["SqlDirectory", "SqlDirectoryFactory", "SqlDirectoryOptions"]

KNOWN_SECONDS = 10.0
QUESTION_SECONDS = 5.0  # in all: to wait for a thread, for a connection and for the answer
FORMS_AT_START = 20  # accounts whose SCRAM keys are looked at
FORMS_MOST = 1000
CAPITALS_MOST = 20
TOLD_MOST = 1000


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
    IReloading,
    ICredentialsChecker,
    IScramAccounts,
    IUsualScramForm,
    ICertificateAccounts,
    ISenderGrants,
)
class SqlDirectory:
    """Asks `source` in threads of its own, `threads`.  Whether an account exists is remembered for ten seconds.

    Each question has a time-out of some seconds.  While the database is silent only one question at a time waits for it; all
    others fail at once.  An invalid row is skipped, and logged once.
    """

    log = Logger()
    credentialInterfaces = (IUsernamePassword,)

    def __init__(
        self,
        *,
        source: AccountSource,
        options: SqlDirectoryOptions,
        clock: Clock,
        threads: ComponentThreads,
        check_password: Callable[[str, str | None], Awaitable[bool]],
        used: Callable[[str, AppPassword], None] = lambda account, one: None,
        today: Callable[[], datetime.date] = lambda: datetime.datetime.now(datetime.UTC).date(),
    ) -> None:
        self._source = source
        self._options = options
        self._clock = clock
        self._threads = threads
        self._check_password = check_password
        self._used = used
        self._today = today
        self._known = KnownAccounts(clock, KNOWN_SECONDS)
        self._silence = Silence()
        self._forms: dict[str, ScramForm] = {}
        self._told: set[str] = set()

    async def start(self) -> None:
        """Run each query once, so that a wrong one or an unreachable database stops the start.  Raises `CannotTell`."""
        options, nobody = self._options, "nobody@invalid.invalid"
        await self._look("query_account", 1, 2, address=nobody)
        await self._look("query_senders", 1, 1, address=nobody)
        await self._look("query_app_passwords", 2, 4, address=nobody)
        await self._look("query_certificate", 1, 1, mark=nobody)
        addresses = [row[0] for row in await self._look("query_accounts", 1, 1) if isinstance(row[0], str)]
        for address in addresses[:: len(addresses) // FORMS_AT_START + 1] if options.query_account else ():
            await self.scram_keys(address)
        await self._tell_of_capitals([address for address in addresses if address != address.lower()][:CAPITALS_MOST])

    async def _look(self, name: str, fewest: int, most: int, **parameters: str) -> Sequence[tuple[Any, ...]]:
        query: str = getattr(self._options, name)
        found = await self._ask(query, parameters) if query else FoundAccount(fewest, [])
        if not fewest <= found.columns <= most:
            wanted = str(most) if fewest == most else f"{fewest} to {most}"
            raise CannotTell(f"{name} finds {found.columns} columns, and {wanted} are wanted")
        return found.rows

    async def _tell_of_capitals(self, addresses: Sequence[str]) -> None:
        lost = [address for address in addresses if await self._account(address.lower()) is None]
        if lost:
            self.log.warn(
                "accounts with capitals, which query_account does not find in lower case, as everybody is looked up: {addresses}",
                addresses=", ".join(lost),
            )

    async def reload(self) -> None:
        """Forget who exists, and look at everything as at the start.  Raises `CannotTell`."""
        self._known.forget()
        await self.start()

    async def stop(self) -> None:
        """Close the connections."""
        self._source.cut(0.0)
        try:
            await self._within(self._source.close)
        finally:
            self._threads.stop()

    # --- who exists ---

    async def find(self, local_part: str, domain: str) -> Mailbox | None:
        """The account's mailbox, None where the account does not exist.  Raises `CannotTell`."""
        exists = await self._known.exists(f"{local_part}@{domain}", self._exists)
        return Mailbox(local_part, domain) if exists else None

    async def _exists(self, address: str) -> bool:
        return await self._account(address) is not None

    async def accounts(self) -> Sequence[str]:
        """All addresses; none where no query lists them."""
        addresses = await self._texts(self._options.query_accounts)
        for address in addresses:
            if address == address.lower():
                self._known.note(address)
        return addresses

    # --- login ---

    def requestAvatarId(self, credentials: Any) -> Deferred[Any]:
        """`ICredentialsChecker`: the account, by its password or one of its app passwords."""
        return Deferred.fromCoroutine(self._login(credentials))

    async def _login(self, credentials: Any) -> AccountName:
        address = credentials.username.decode("utf-8")
        found = await self._account(address)
        rows = [] if found is None else await self._rows(self._options.query_app_passwords, address=address)
        return await account_by_password(
            credentials,
            [one for one in (self._usable(address, "app password", app_password_of, row) for row in rows) if one is not None],
            None if found is None else found[0],
            check_password=self._check_password,
            used=self._used,
            today=self._today(),
        )

    async def scram_keys(self, account: str) -> ScramKeys | None:
        """`IScramAccounts`."""
        found = await self._account(account)
        if found is None or not found[0] or not found[1]:
            return None
        keys: ScramKeys | None = self._usable(account, "SCRAM keys", decode_scram_keys, found[1])
        if keys is not None and (account in self._forms or len(self._forms) < FORMS_MOST):
            self._forms[account] = form_of(keys)
        return keys

    async def usual_scram_form(self) -> ScramForm | None:
        """`IUsualScramForm`: of the accounts that were looked at."""
        return usual_form(self._forms.values())

    async def account_of_certificate(self, fingerprint: str, emails: Sequence[str]) -> str | None:
        """`ICertificateAccounts`."""
        for mark in certificate_marks(fingerprint, emails):
            for address in await self._texts(self._options.query_certificate, mark=mark):
                return address
        return None

    async def granted_senders(self, account: str) -> Sequence[str]:
        """`ISenderGrants`."""
        return await self._texts(self._options.query_senders, address=account)

    # --- asking ---

    async def _account(self, address: str) -> tuple[str | None, str | None] | None:
        """The account's hash and SCRAM keys (each may be None); None where the account does not exist."""
        for row in await self._rows(self._options.query_account, address=address):
            hash, scram = (*row, None)[:2]
            return text_or_none(hash), text_or_none(scram)
        return None

    async def _texts(self, query: str, **parameters: str) -> list[str]:
        """The texts of the first column."""
        return [row[0] for row in await self._rows(query, **parameters) if row and isinstance(row[0], str)]

    def _usable(self, account: str, what: str, read: Callable[[Any], Any], row: Any) -> Any:
        try:
            return read(row)
        except (ValueError, TypeError) as error:
            if f"{what} {account}" not in self._told and len(self._told) < TOLD_MOST:
                self._told.add(f"{what} {account}")
                self.log.warn("{what} of {account} passed over: {error}", what=what, account=account, error=error)
            return None

    async def _rows(self, query: str, **parameters: str) -> list[tuple[Any, ...]]:
        return (await self._ask(query, parameters)).rows if query else []

    async def _ask(self, query: str, parameters: dict[str, str]) -> FoundAccount:
        with self._silence.asking():
            found: FoundAccount = await self._within(self._source.ask, query, parameters)
            return found

    async def _within(self, function: Callable[..., Any], *arguments: Any) -> Any:
        asked = self._threads.run(function, *arguments)
        asked.addTimeout(QUESTION_SECONDS, self._clock)  # type: ignore[arg-type]
        try:
            return await asked
        except TimeoutError:
            self._source.cut(STATEMENT_SECONDS)
            raise DatabaseBusy(f"the database has not answered within {QUESTION_SECONDS:g} seconds") from None
        except AllHang as error:
            self._source.cut(STATEMENT_SECONDS)
            raise DatabaseBusy(f"the database keeps silent: {error}") from error


class Silence:
    """Whether the database was silent when it was asked last.  Then one question at a time may wait for it."""

    def __init__(self) -> None:
        self._is_silent = False
        self._questions = 0  # questions under way

    @contextlib.contextmanager
    def asking(self) -> Iterator[None]:
        """Wrap a question.  Raises `DatabaseBusy` at once where another one already waits for the end of the silence."""
        if self._is_silent and self._questions:
            raise DatabaseBusy("the database has not answered the last question; another one waits for it")
        self._questions += 1
        try:
            yield
            self._is_silent = False
        except DatabaseBusy:
            self._is_silent = True
            raise
        except CannotTell:
            self._is_silent = False
            raise
        finally:
            self._questions -= 1


def text_or_none(value: Any) -> str | None:
    """A value of the database as text.  Some databases keep text as octets."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else None if value is None else str(value)


def app_password_of(row: Sequence[Any]) -> AppPassword:
    """The app password in a row of `query_app_passwords`.  Scopes and the day of expiry may be missing.

    Raises ValueError or TypeError.
    """
    name, hash, scopes, expires = (*row, None, None)[:4]
    if not isinstance(name, str) or not isinstance(hash, str):
        raise TypeError("its name or its hash is no text")
    words = scopes.split() if isinstance(scopes, str) else scopes
    return AppPassword(name, hash, SCOPES if words is None else tuple([str(word) for word in words]), day_of(expires))


def day_of(value: Any) -> datetime.date | None:
    """The day of a date or a time, or of either as text.  A time without a zone is UTC.  Raises ValueError or TypeError."""
    if isinstance(value, str):
        value = datetime.datetime.fromisoformat(value)
    if isinstance(value, datetime.datetime):
        return (value if value.tzinfo is None else value.astimezone(datetime.UTC)).date()
    if value is None or isinstance(value, datetime.date):
        return value
    raise TypeError(f"{type(value).__name__} is no day of expiry")


@implementer(IComponentFactory)
class SqlDirectoryFactory:
    """Makes the directory for ``[accounts] use = "sql"``."""

    name = "sql"
    summary = "Accounts in an SQLite file or in PostgreSQL"
    api_version = "1.0"
    provides = IDirectory
    options = SqlDirectoryOptions

    def build(self, options: SqlDirectoryOptions, services: Services) -> SqlDirectory:
        """Make the directory.  Raises no errors: `start` asks the database."""
        source: AccountSource = SqliteSource(options.path) if options.path is not None else PostgresSource(str(options.dsn))
        uses = AppPasswordUses(services.state, services.clock.seconds)
        return SqlDirectory(
            source=source,
            options=options,
            clock=services.clock,
            threads=services.new_threads("accounts", source.connections),
            check_password=services.check_password,
            used=uses.note,
        )
