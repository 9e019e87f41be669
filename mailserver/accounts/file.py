"""The directory whose accounts stand in a file: ``[accounts] use = "file"``.

Every login, and mail for an unknown account, checks whether the file has changed (by its time and size).  Where it has, they wait
until a thread has read it.  So a new account exists as soon as the command that made it ends, and a removed password is of no use
for the next login.  Mail for known accounts checks once a second and does not wait.  While the file has faults, the accounts that
were read before stay.
"""

from __future__ import annotations

import datetime
import functools
import os
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.internet.defer import Deferred, DeferredLock
from twisted.logger import Logger
from zope.interface import implementer

from mailserver.accounts.entry import certificate_marks
from mailserver.accounts.kept_password import keep_password
from mailserver.accounts.table import Account, AccountsFile
from mailserver.authentication.app_password_uses import AppPasswordUses
from mailserver.authentication.app_passwords import AppPassword
from mailserver.authentication.by_password import account_by_password
from mailserver.authentication.checkers import AccountName
from mailserver.authentication.passwords import needs_update
from mailserver.authentication.sealing import KeyPlace, read_key, unseal
from mailserver.config import ConfigurationError, FilePath, Options
from mailserver.interfaces import (
    Clock,
    IAccountList,
    ICertificateAccounts,
    IComponent,
    IComponentFactory,
    IDirectory,
    IReloading,
    IScramAccounts,
    ISecretAccounts,
    ISenderGrants,
    IUsualScramForm,
    Services,
)
from mailserver.mail.answers import Mailbox
from mailserver.mail.until import still_holds
from mailserver.sasl.scram_keys import ScramForm, decode_scram_keys, form_of, usual_form
from mailserver.sasl.steps import ScramKeys

__all__ = ["FileDirectory", "FileDirectoryFactory", "FileDirectoryOptions"]

LOOK_SECONDS = 1.0
RENEWING_MOST = 1000
FORMS_MOST = 1000  # accounts whose SCRAM keys are looked at for their usual form
Signature = tuple[int, int, int]  # time of change (ns), size, inode


@implementer(
    IDirectory,
    IAccountList,
    IComponent,
    IReloading,
    ICredentialsChecker,
    IScramAccounts,
    ISecretAccounts,
    ICertificateAccounts,
    ISenderGrants,
    IUsualScramForm,
)
class FileDirectory:
    """The accounts of the file at `path`.  Nothing is found before `start`.

    `check_password` is `Services.check_password`.  `used(account, one)` is called when an app password was used.  `today()` is
    the date in UTC.  With `key_place` passwords are also kept sealed for CRAM-MD5; it says where their key lies.
    """

    log = Logger()
    credentialInterfaces = (IUsernamePassword,)

    def __init__(
        self,
        *,
        path: str,
        clock: Clock,
        run_in_thread: Callable[..., Awaitable[Any]],
        check_password: Callable[[str, str | None], Awaitable[bool]],
        used: Callable[[str, AppPassword], None] = lambda account, one: None,
        today: Callable[[], datetime.date] = lambda: datetime.datetime.now(datetime.UTC).date(),
        key_place: KeyPlace | None = None,
    ) -> None:
        self.serves_secrets = key_place is not None
        self._file = AccountsFile(path)
        self._clock = clock
        self._run_in_thread = run_in_thread
        self._check_password = check_password
        self._used = used
        self._today = today
        self._key_place = key_place
        self._key = b""
        self._accounts: dict[tuple[str, str], Account] = {}
        self._by_certificate: dict[str, str] = {}
        self._mailboxes: dict[tuple[str, str], Mailbox] = {}
        self._scram_form: ScramForm | None = None  # None: not looked at yet, or no account has keys
        self._signature: Signature | None = None
        self._look_at = 0.0
        self._one_look = DeferredLock()
        self._renewing: set[str] = set()
        self._renewed: dict[str, str] = {}  # by account: the old hash for which a renewal was tried
        self._one_renewal = DeferredLock()
        self._renews = True

    async def start(self) -> None:
        """Read the file.  Raises OSError, or `ConfigurationError` with every fault."""
        try:
            self._signature = _signature(self._file.path)
        except FileNotFoundError as error:
            raise FileNotFoundError(error.errno, "is not there yet: `mailserver user add` makes it", error.filename) from None
        self._take(await self._run_in_thread(self._file.read))
        if self._key_place is not None:
            self._key = await self._run_in_thread(functools.partial(read_key, self._key_place, make=True))
        self._look_at = self._clock.seconds() + LOOK_SECONDS

    async def reload(self) -> None:
        """Read the file again.  Raises as `start`; the accounts stay as they were then."""
        await self.start()

    async def stop(self) -> None:
        """Do nothing: no file is kept open."""

    async def find(self, local_part: str, domain: str) -> Mailbox | None:
        """The account's mailbox, None where the account does not exist."""
        known = self._mailboxes.get((local_part, domain))
        if known is None:
            await self._look()
            return self._mailboxes.get((local_part, domain))
        if not still_holds(self._look_at, self._clock.seconds(), LOOK_SECONDS) and not self._one_look.locked:
            Deferred.fromCoroutine(self._look())
        return known

    async def accounts(self) -> Sequence[str]:
        """All addresses in the file's order."""
        return [account.address for account in self._accounts.values()]

    # --- login ---

    def requestAvatarId(self, credentials: Any) -> Deferred[Any]:
        """`ICredentialsChecker`: the account, by its password or one of its app passwords."""
        return Deferred.fromCoroutine(self._login(credentials))

    async def _login(self, credentials: Any) -> AccountName:
        account = await self._account(credentials.username.decode("utf-8"))
        name = await account_by_password(
            credentials,
            () if account is None else account.app_passwords,
            None if account is None else account.password,
            check_password=self._check_password,
            used=self._used,
            today=self._today(),
        )
        if not name.note:  # by the account's own password
            self._renew(name, credentials.password.decode("utf-8"))
        return name

    async def scram_keys(self, account: str) -> ScramKeys | None:
        """`IScramAccounts`."""
        found = await self._account(account)
        return None if found is None or found.password is None or found.scram is None else decode_scram_keys(found.scram)

    async def usual_scram_form(self) -> ScramForm | None:
        """`IUsualScramForm`."""
        if self._scram_form is None:
            keys = [one.scram for one in self._accounts.values() if one.password and one.scram]
            self._scram_form = usual_form(form_of(decode_scram_keys(text)) for text in keys[:FORMS_MOST])
        return self._scram_form

    async def secret(self, account: str) -> bytes | None:
        """`ISecretAccounts`.  Raises `Unsealable`."""
        found = await self._account(account)
        if found is None or found.password is None or found.secret is None:
            return None
        return unseal(found.secret, account, self._key)

    async def account_of_certificate(self, fingerprint: str, emails: Sequence[str]) -> str | None:
        """`ICertificateAccounts`: by fingerprint, then by the addresses that the accounts name."""
        await self._look()
        for mark in certificate_marks(fingerprint, emails):
            found = self._by_certificate.get(mark)
            if found is not None:
                return found
        return None

    async def granted_senders(self, account: str) -> Sequence[str]:
        """`ISenderGrants`."""
        found = await self._account(account)
        return () if found is None else found.senders

    async def _account(self, name: str) -> Account | None:
        await self._look()
        return self._known(name)

    def _known(self, name: str) -> Account | None:
        local, _, domain = name.rpartition("@")
        return self._accounts.get((local, domain))

    # --- better hashes ---

    def _renew(self, name: str, password: str) -> None:
        """The password was right: hash it anew where its hash is outdated.  One at a time; the login does not wait."""
        account = self._known(name)
        if account is None or account.password is None or not self._renews or len(self._renewing) >= RENEWING_MOST:
            return
        lacks_something = account.scram is None or (self.serves_secrets and account.secret is None)
        if not lacks_something and not needs_update(account.password):
            return
        if name in self._renewing or self._renewed.get(name) == account.password:
            return
        self._renewing.add(name)
        renewed = self._one_renewal.run(self._renew_now, account, account.password, name, password)
        renewed.addBoth(lambda _: self._renewing.discard(name))

    def _renew_now(self, account: Account, was: str, name: str, password: str) -> Deferred[None] | None:
        return Deferred.fromCoroutine(self._write_renewed(account, was, name, password)) if self._renews else None

    async def _write_renewed(self, account: Account, was: str, name: str, password: str) -> None:
        self._renewed[name] = was  # tried once for each hash, even if it fails
        try:
            words = await self._run_in_thread(keep_password, password, name, self._key if self.serves_secrets else None)
            gains = (words.scram and not account.scram) or (words.secret and not account.secret)
            if gains or needs_update(was):
                renew = functools.partial(self._file.renew_password, account.address, words, was=was)
                await self._run_in_thread(renew)
        except TimeoutError:  # another program is changing the file
            del self._renewed[name]
        except OSError as error:  # the server need not be able to write there
            self._renews = False
            self.log.info("better hashes cannot be written into the accounts file: {error}", error=error)
        except (ValueError, LookupError) as error:
            self.log.info("a better hash for {account} could not be written: {error}", account=name, error=error)

    # --- the file ---

    async def _look(self) -> None:
        self._look_at = self._clock.seconds() + LOOK_SECONDS
        await self._one_look.run(lambda: Deferred.fromCoroutine(self._look_now()))

    async def _look_now(self) -> None:
        try:
            signature = _signature(self._file.path)
        except OSError as error:
            if self._signature is not None:
                self.log.error("the accounts file cannot be seen, the accounts stay as they were: {error}", error=error)
            self._signature = None
            return
        if signature != self._signature:
            self._signature = signature
            await self._read_again()

    async def _read_again(self) -> None:
        try:
            self._take(await self._run_in_thread(self._file.read))
        except (OSError, ConfigurationError) as error:
            self.log.error("the accounts file has faults, the accounts stay as they were: {error}", error=error)
        else:
            self.log.info("{count} accounts read", count=len(self._accounts))

    def _take(self, accounts: dict[tuple[str, str], Account]) -> None:
        self._accounts = {key: one.for_logins for key, one in accounts.items()}
        self._scram_form = None
        self._mailboxes = {key: Mailbox(*key) for key in accounts}
        names = {f"{local}@{domain}" for local, domain in accounts}
        self._renewed = {name: hash for name, hash in self._renewed.items() if name in names}
        self._by_certificate = {
            mark.lower(): f"{local}@{domain}" for (local, domain), one in self._accounts.items() for mark in one.certificates
        }


def _signature(path: str) -> Signature:
    found = os.stat(path)
    return found.st_mtime_ns, found.st_size, found.st_ino


class FileDirectoryOptions(Options):
    """Accounts in a file."""

    path: FilePath = "accounts.toml"
    """The file; `mailserver user` writes it."""
    recoverable: bool = False
    """Keep new passwords in a form that can be read again, too, encrypted with a key in `keys`: CRAM-MD5 needs that."""


@implementer(IComponentFactory)
class FileDirectoryFactory:
    """Makes the directory for ``[accounts] use = "file"``."""

    name = "file"
    summary = "Accounts in a TOML file that `mailserver user` writes"
    api_version = "1.0"
    provides = IDirectory
    options = FileDirectoryOptions

    def build(self, options: FileDirectoryOptions, services: Services) -> FileDirectory:
        """Make the directory.  Raises no errors: `start` reads the file."""
        path = os.path.join(services.configuration_directory, options.path)
        uses = AppPasswordUses(services.state, services.clock.seconds)
        return FileDirectory(
            path=path,
            clock=services.clock,
            run_in_thread=services.run_in_thread,
            check_password=services.check_password,
            used=uses.note,
            key_place=KeyPlace(services.keys_directory, services.data_directory) if options.recoverable else None,
        )
