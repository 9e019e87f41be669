"""The steps that make what only this server has: its system user, keys, certificate, and the first account.

In the server's folders root acts as their owner: what that user puts there leads no further than he could go himself.
"""

from __future__ import annotations

import contextlib
import grp
import hashlib
import os
import pwd
import shlex
import shutil
import time
from collections.abc import Callable, Sequence

from mailserver.accounts.kept_password import keep_password
from mailserver.accounts.table import Account, AccountsFile, NoSuchAccount, account_key, key_of
from mailserver.config.fault import ConfigurationError
from mailserver.processes.identity import as_owner_of
from mailserver.quickstart.ledger import StepRecord
from mailserver.quickstart.steps import Marks, changed_since, clear_drafts, digests_below, removed
from mailserver.quickstart.system_files import WEB_GROUP, account_line, account_lines
from mailserver.tls.issued import later_key, next_key
from mailserver.tls.self_signed import CERTIFICATE, KEY, self_signed_pair
from mailserver.trust.signing_keys import make_keys

__all__ = ["CertificateStep", "FirstAccountStep", "NextKeyStep", "SigningKeysStep", "SystemUserStep"]

Run = Callable[[Sequence[str]], None]  # a program of the host; raises OSError with its words
OWN_ADDRESSES = ("127.0.0.1", "::1")


class SystemUserStep:
    """An account of the host: the one that the server runs as, or, with a `comment`, another without a home."""

    def __init__(self, user: str, folders: Sequence[str], run: Run, comment: str = "") -> None:
        self.name = f"system user {user}"
        self.words = f"the system user {user}"
        self._user = user
        self._comment = comment
        self._folders = folders
        self._run = run

    def is_there(self) -> bool:
        """Whether the host has this user."""
        return self._uid() is not None

    def found(self) -> Marks:
        """Nothing that is of use later."""
        return {}

    def make(self, before: Marks) -> Marks:
        """By systemd-sysusers where it is there, else by useradd."""
        _, _, _, comment, home = shlex.split(account_line())
        if self._comment:
            comment, home = self._comment, "/nonexistent"
        if not self.is_there():
            if shutil.which("systemd-sysusers"):
                ours = [f'u {self._user} - "{comment}" {home}']
                self._run(["systemd-sysusers", "--inline", *(account_lines() if ours[0] == account_line() else ours)])
            elif shutil.which("useradd"):
                shell = "/usr/sbin/nologin"
                words = ["--system", "--user-group", "--no-create-home", "--home-dir", home, "--comment", comment]
                self._run(["useradd", *words, "--shell", shell, self._user])
            else:
                raise FileNotFoundError(2, "neither systemd-sysusers nor useradd is there: make this user by hand", self._user)
        uid = self._uid()
        if uid is None:
            raise FileNotFoundError(2, "the host does not know this user, which was to be made", self._user)
        return {"uid": uid}

    def undo(self, record: StepRecord) -> str:
        """Remove the user, unless something of his is left."""
        uid = self._uid()
        if uid is None:
            return ""
        if record.marks is not None and record.marks["uid"] != uid:
            return f"the user {self._user} stays: it is another one by now"
        left = [one for one in self._folders if os.path.lexists(one)]
        if left:
            return f"the user {self._user} stays: {' and '.join(left)} may be his"
        if not shutil.which("userdel"):
            return f"the user {self._user} stays: there is no userdel"
        self._run(["userdel", self._user])
        with contextlib.suppress(KeyError):
            if not self._comment and not grp.getgrnam(WEB_GROUP).gr_mem and shutil.which("groupdel"):
                self._run(["groupdel", WEB_GROUP])
        return ""

    def _uid(self) -> int | None:
        try:
            return pwd.getpwnam(self._user).pw_uid
        except KeyError:
            return None


class SigningKeysStep:
    """The keys of the domain for DKIM: RSA and Ed25519, those that sign and the next ones."""

    name = "signing keys"

    def __init__(self, keys: str, domain: str) -> None:
        self.words = f"keys for DKIM in {keys}: rsa and ed25519 that sign the mail of {domain}, and the next two"
        self._keys = keys
        self._domain = domain
        self._all = os.path.join(keys, "dkim")
        self._own = os.path.join(self._all, domain)
        self._changes = os.path.join(self._all, "changes")

    def is_there(self) -> bool:
        """Whether the domain has keys."""
        with as_owner_of(self._keys):
            return os.path.exists(os.path.join(self._own, "selectors.json"))

    def found(self) -> Marks:
        """Whether other domains have some."""
        with as_owner_of(self._keys):
            return {"others": os.path.isdir(self._all), "own": os.path.isdir(self._own)}

    def make(self, before: Marks) -> Marks:
        """Make the four."""
        with as_owner_of(self._keys):
            if not before["own"]:
                self._clear()
            if not before["others"]:
                clear_drafts(self._changes)
            with contextlib.suppress(FileExistsError):
                make_keys(self._keys, self._domain, now=time.time())
            return {"files": digests_below(self._keys, self._names(with_changes=not before["others"]))}

    def undo(self, record: StepRecord) -> str:
        """Remove them, unless some were made, retired or removed since."""
        folders = [self._own] if record.before["others"] else [self._own, self._all]
        if not record.before["others"]:
            with as_owner_of(self._keys):
                clear_drafts(self._changes)
        if record.marks is None:
            with as_owner_of(self._keys):
                if not record.before["own"]:
                    self._clear()
                names = [] if record.before["others"] else [os.path.join("dkim", "changes")]
                files = digests_below(self._keys, names)
        else:
            files = record.marks["files"]
            with as_owner_of(self._keys):
                for name in self._names(with_changes=False):
                    if name not in files:
                        return changed_since(os.path.join(self._keys, name))
        return removed(self._keys, files, folders, self._keys)

    def _names(self, *, with_changes: bool) -> list[str]:
        try:
            own = sorted(os.listdir(self._own))
        except FileNotFoundError:
            own = []
        return [os.path.join("dkim", self._domain, name) for name in own] + [os.path.join("dkim", "changes")] * with_changes

    def _clear(self) -> None:
        """What was begun is nobody's: no record of these keys was ever shown."""
        if os.path.isdir(self._own) and not os.path.islink(self._own):
            shutil.rmtree(self._own)


class CertificateStep:
    """A certificate of our own making, until an authority has made one."""

    name = "certificate"

    def __init__(self, data: str, hostname: str) -> None:
        self.words = f"a key and a certificate of our own making for {hostname}, until there is a better one"
        self._data = data
        self._folder = os.path.join(data, "tls")
        self._hostname = hostname

    def is_there(self) -> bool:
        """Both files."""
        with as_owner_of(self._data):
            return all(os.path.exists(os.path.join(self._folder, name)) for name in (CERTIFICATE, KEY))

    def found(self) -> Marks:
        """Whether one of them is."""
        with as_owner_of(self._data):
            return {"files": sorted(digests_below(self._folder, (CERTIFICATE, KEY)))}

    def make(self, before: Marks) -> Marks:
        """Make both."""
        with as_owner_of(self._data):
            self._clear()
            self_signed_pair(self._folder, self._hostname, OWN_ADDRESSES)
            return {"files": digests_below(self._folder, (CERTIFICATE, KEY))}

    def undo(self, record: StepRecord) -> str:
        """Remove both."""
        with as_owner_of(self._data):
            self._clear()
            names = [name for name in (CERTIFICATE, KEY) if name not in record.before["files"]]
            files = digests_below(self._folder, names) if record.marks is None else record.marks["files"]
        return removed(self._folder, files, [self._folder], self._data)

    def _clear(self) -> None:
        for name in (CERTIFICATE, KEY):
            clear_drafts(os.path.join(self._folder, name))


class NextKeyStep:
    """The keys of the first certificate from an authority and of what follows: the DNS shows a key before it is used."""

    name = "next key"

    def __init__(self, keys: str) -> None:
        self.words = f"the keys of the first certificates by ACME, in {keys}"
        self._keys = keys
        self._names = (os.path.join("acme", "mail.next.pem"), os.path.join("acme", "mail.later.pem"))
        self._issued = os.path.join("acme", "mail.pem")

    def is_there(self) -> bool:
        """Both, or one that is in use."""
        with as_owner_of(self._keys):
            return bool(digests_below(self._keys, (self._issued,))) or len(digests_below(self._keys, self._names)) == 2

    def found(self) -> Marks:
        """Nothing that is of use later."""
        return {}

    def make(self, before: Marks) -> Marks:
        """Make it."""
        with as_owner_of(self._keys):
            self._clear()
            next_key(self._keys, "mail")
            later_key(self._keys, "mail")
            return {"files": digests_below(self._keys, self._names)}

    def undo(self, record: StepRecord) -> str:
        """Remove it, unless there is a certificate by now."""
        with as_owner_of(self._keys):
            self._clear()
            if digests_below(self._keys, (self._issued,)):
                return f"{os.path.join(self._keys, 'acme')} stays: it has a certificate that was issued since"
            files = digests_below(self._keys, self._names) if record.marks is None else record.marks["files"]
        return removed(self._keys, files, [os.path.join(self._keys, "acme")], self._keys)

    def _clear(self) -> None:
        for name in self._names:
            clear_drafts(os.path.join(self._keys, name))


class FirstAccountStep:
    """The first account.  `password` is asked for when it is needed; `is_told` says that a person has seen the account's."""

    name = "account"

    def __init__(self, path: str, data: str, address: str, password: Callable[[], str], *, is_told: bool) -> None:
        self.words = f"the account {address} in {path}"
        self._path = path
        self._data = data
        self._address = address
        self._password = password
        self._is_told = is_told

    def is_there(self) -> bool:
        """Whether the account is, with a password that somebody knows."""
        with as_owner_of(self._data):
            return self._is_told and self._account() is not None

    def found(self) -> Marks:
        """Raises FileExistsError where the account is there, and not by us."""
        with as_owner_of(self._data):
            if self._account() is not None:
                raise FileExistsError(17, f"has the account {self._address} already: say another address", self._path)
            return {"file": os.path.exists(self._path)}

    def make(self, before: Marks) -> Marks:
        """Add it; where a run that was cut off has, give it another password, as nobody has seen the first."""
        words = keep_password(self._password(), account_key(self._address))
        with as_owner_of(self._data):
            clear_drafts(self._path)
            accounts = AccountsFile(self._path, self._data)
            if self._account() is None:
                accounts.add(self._address, words)
            else:
                accounts.set_password(self._address, words)
            return {"entry": _entry_digest(self._account())}

    def undo(self, record: StepRecord) -> str:
        """Remove it, unless it was changed; and the file, where nothing else is in it."""
        with as_owner_of(self._data):
            clear_drafts(self._path)
            account = self._account()
            if account is not None:
                if record.marks is not None and _entry_digest(account) != record.marks["entry"]:
                    return f"the account {self._address} stays: it was changed since (mailserver user remove)"
                with contextlib.suppress(NoSuchAccount):
                    AccountsFile(self._path, self._data).remove(self._address)
            if not record.before["file"] and os.path.exists(self._path) and not self._accounts():
                os.unlink(self._path)
        return ""

    def _account(self) -> Account | None:
        return self._accounts().get(key_of(self._address))

    def _accounts(self) -> dict[tuple[str, str], Account]:
        try:
            return AccountsFile(self._path, self._data).read() if os.path.exists(self._path) else {}
        except ConfigurationError as error:
            raise OSError(5, f"cannot be read: {error}", self._path) from error


def _entry_digest(account: Account | None) -> str:
    return hashlib.sha256(repr(account).encode()).hexdigest()
