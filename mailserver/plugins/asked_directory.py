"""A directory as the core asks it: each question within its time, each answer looked at.

It provides what the directory provides, and stands wherever a directory is wanted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred, succeed
from zope.interface import directlyProvides, implementer

from mailserver.interfaces import (
    IAccountList,
    ICertificateAccounts,
    IDirectory,
    IHostAccounts,
    IScramAccounts,
    ISecretAccounts,
    ISenderGrants,
    IUsualScramForm,
)
from mailserver.mail.answers import Mailbox
from mailserver.plugins.asking import Asking
from mailserver.plugins.awaiting import PLAIN
from mailserver.plugins.sound_routes import kind_of, mailbox_of, sequence_of, text_of
from mailserver.sasl.scram_keys import ITERATIONS_MOST, KEY_OCTETS, ScramForm
from mailserver.sasl.steps import ScramKeys

__all__ = ["AskedChecker", "AskedDirectory"]

KINDS = (
    IAccountList,
    ICertificateAccounts,
    ICredentialsChecker,
    IDirectory,
    IHostAccounts,
    IScramAccounts,
    ISecretAccounts,
    ISenderGrants,
    IUsualScramForm,
)
ACCOUNTS_MOST = 10_000_000
GRANTS_MOST = 100_000
SALT_OCTETS_MOST = 64  # as many as a false salt may have


@implementer(ICredentialsChecker)
class AskedChecker:
    """A checker of `twisted.cred` that is asked within `seconds`."""

    def __init__(self, checker: Any, asking: Asking, seconds: float) -> None:
        self._checker = checker
        self._asking = asking
        self._seconds = seconds
        self.credentialInterfaces = asking.call("credentialInterfaces", tuple, lambda: checker.credentialInterfaces)

    def requestAvatarId(self, credentials: Any) -> Deferred[Any]:
        """The account.  Fails with `UnauthorizedLogin`, or `CannotTell`."""
        return Deferred.fromCoroutine(self._ask(credentials))

    async def _ask(self, credentials: Any) -> str | bytes:
        ask = self._asking.ask
        answer = ask("requestAvatarId", self._seconds, _avatar, self._begin, credentials, passes=(UnauthorizedLogin,))
        return await answer if isinstance(answer, Deferred) else answer

    def _begin(self, credentials: Any) -> Any:
        """A checker may answer at once, as `ICredentialsChecker` has it."""
        answer = self._checker.requestAvatarId(credentials)
        return succeed(answer) if isinstance(answer, str | bytes) else answer


@implementer(IDirectory)
class AskedDirectory:
    """Raises `CannotTell` in place of whatever the directory does wrong.

    Each question has `seconds`, but for the list of all accounts, which has `list_seconds`.
    """

    credentialInterfaces: Any = ()

    def __init__(self, directory: Any, asking: Asking, seconds: float, *, list_seconds: float = 120.0) -> None:
        self._directory = directory
        self._asking = asking
        self._seconds = seconds
        self._list_seconds = list_seconds
        provided = [kind for kind in KINDS if kind.providedBy(directory)]
        directlyProvides(self, *provided)  # and IDirectory in any case
        if ICredentialsChecker in provided:
            checker = AskedChecker(directory, asking, seconds)
            self.credentialInterfaces, self.requestAvatarId = checker.credentialInterfaces, checker.requestAvatarId

    async def _ask(self, method: str, read: Callable[[Any], Any], *arguments: Any) -> Any:
        answer = self._asking.ask(method, self._seconds, read, getattr(self._directory, method), *arguments)
        return await answer if isinstance(answer, Deferred) else answer

    async def find(self, local_part: str, domain: str) -> Mailbox | None:
        """As `IDirectory`."""
        answer = self._asking.ask("find", self._seconds, mailbox_of, self._directory.find, local_part, domain)
        if type(answer) in PLAIN or not isinstance(answer, Deferred):
            return answer  # type: ignore[return-value]  # none that waits is of a plain class
        return await answer

    async def accounts(self) -> Sequence[str]:
        """As `IAccountList`."""
        answer = self._asking.ask("accounts", self._list_seconds, _accounts, self._directory.accounts)
        return await answer if isinstance(answer, Deferred) else answer

    async def scram_keys(self, account: str) -> ScramKeys | None:
        """As `IScramAccounts`."""
        return cast("ScramKeys | None", await self._ask("scram_keys", _scram_keys, account))

    async def usual_scram_form(self) -> ScramForm | None:
        """As `IUsualScramForm`."""
        return cast("ScramForm | None", await self._ask("usual_scram_form", _scram_form))

    @property
    def serves_secrets(self) -> bool:
        """As `ISecretAccounts`."""
        return self._asking.call("serves_secrets", _yes_or_no, lambda: self._directory.serves_secrets)

    async def secret(self, account: str) -> bytes | None:
        """As `ISecretAccounts`."""
        return cast("bytes | None", await self._ask("secret", _secret, account))

    async def account_of_certificate(self, fingerprint: str, emails: Sequence[str]) -> str | None:
        """As `ICertificateAccounts`."""
        return cast("str | None", await self._ask("account_of_certificate", _account, fingerprint, emails))

    async def granted_senders(self, account: str) -> Sequence[str]:
        """As `ISenderGrants`."""
        return cast("Sequence[str]", await self._ask("granted_senders", _grants, account))


def _avatar(answer: object) -> str | bytes:
    """A name.  Anything else would be taken for one by its words alone."""
    if not isinstance(answer, str | bytes) or not answer:
        raise TypeError(f"the answer is {kind_of(answer)}, not the name of an account")
    if isinstance(answer, str):
        text_of(answer, "the account")
    else:
        answer.decode()
    return answer


def _accounts(answer: object) -> Sequence[str]:
    return [text_of(one, "an account") for one in sequence_of(answer, ACCOUNTS_MOST)]


def _grants(answer: object) -> Sequence[str]:
    return [text_of(one, "an address") for one in sequence_of(answer, GRANTS_MOST)]


def _account(answer: object) -> str | None:
    if answer is None:
        return None
    account = text_of(answer, "the account")
    if not account:
        raise ValueError("the account has no name")
    return account


def _secret(answer: object) -> bytes | None:
    if answer is None or isinstance(answer, bytes):
        return None if answer is None else bytes(answer)
    raise TypeError(f"the answer is {kind_of(answer)}, not octets")


def _yes_or_no(answer: object) -> bool:
    if answer is True or answer is False:
        return answer
    raise TypeError(f"the answer is {kind_of(answer)}, neither True nor False")


def _scram_keys(answer: object) -> ScramKeys | None:
    if answer is None:
        return None
    if not isinstance(answer, ScramKeys):
        raise TypeError(f"the answer is {kind_of(answer)}, not a password's keys")
    octets = cast("tuple[object, ...]", (answer.salt, answer.stored_key, answer.server_key))
    if not all(one.__class__ is bytes for one in octets) or not answer.salt:
        raise TypeError("the keys are not octets")
    if len(answer.stored_key) != KEY_OCTETS or len(answer.server_key) != KEY_OCTETS:
        raise ValueError(f"a key has not {KEY_OCTETS} octets")
    _count(answer.iterations, ITERATIONS_MOST)
    _yes_or_no(answer.is_false)
    return ScramKeys(answer.iterations, answer.salt, answer.stored_key, answer.server_key, answer.is_false)


def _scram_form(answer: object) -> ScramForm | None:
    if answer is None:
        return None
    if not isinstance(answer, ScramForm):
        raise TypeError(f"the answer is {kind_of(answer)}, not the form of keys")
    return ScramForm(_count(answer.iterations, ITERATIONS_MOST), _count(answer.salt_octets, SALT_OCTETS_MOST))


def _count(number: object, most: int) -> int:
    if type(number) is not int or not 1 <= number <= most:
        raise ValueError(f"a count is no whole number from 1 to {most}")
    return number
