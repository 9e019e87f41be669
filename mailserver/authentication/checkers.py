"""Portal, realm and checkers of `twisted.cred`: who can tell whether a password is right.

The accounts are asked first, then the checkers that `authentication.checkers` describes in strcred's syntax.  The first that
accepts the password wins.  One that cannot tell (an error) stops the search, since the next might let a stranger in.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Sequence
from typing import Any

from twisted.cred import strcred
from twisted.cred.checkers import ICredentialsChecker, InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.portal import IRealm, Portal
from twisted.internet.defer import Deferred, maybeDeferred
from zope.interface import Attribute, Interface, implementer

__all__ = ["AccountName", "CheckerError", "IMailAccount", "PasswordCredentials", "make_checker", "make_portal"]


class CheckerError(ValueError):
    """The description of a checker is invalid; the message says why."""


class IMailAccount(Interface):
    """An account that has logged in (the avatar)."""

    address = Attribute("The account's address, as text.")
    note = Attribute("How it logged in, for the log, such as the name of an app password.")


class AccountName(str):
    """An avatar id: the account's address, with a note for the log."""

    note = ""

    @classmethod
    def noted(cls, address: str, note: str) -> AccountName:
        """An avatar id with a note."""
        name = cls(address)
        name.note = note
        return name


@implementer(IUsernamePassword)
class PasswordCredentials:
    """A user name and a password.

    `username` is the account's address; both are in UTF-8.  `service` is the listener's, `client` the client's numeric address.
    """

    def __init__(self, username: str, password: str, service: str, client: str = "") -> None:
        self.username = username.encode("utf-8")
        self.password = password.encode("utf-8")
        self.service = service
        self.client = client

    def checkPassword(self, password: bytes) -> bool:
        """For checkers that know the password itself."""
        return hmac.compare_digest(self.password, password)


@implementer(IMailAccount)
class MailAccount:
    """The avatar: an account that has logged in."""

    def __init__(self, address: str, note: str) -> None:
        self.address = address
        self.note = note


@implementer(IRealm)
class MailRealm:
    """Makes the avatar for the account that the checkers have found."""

    def requestAvatar(self, avatarId: Any, mind: Any, *interfaces: Any) -> tuple[Any, Any, Any]:
        """See `IRealm`.  Raises NotImplementedError for an unknown interface."""
        if IMailAccount not in interfaces:
            raise NotImplementedError("the only avatar is IMailAccount")
        text = avatarId.decode("utf-8") if isinstance(avatarId, bytes) else str(avatarId)
        return IMailAccount, MailAccount(text, getattr(avatarId, "note", "")), lambda: None


@implementer(ICredentialsChecker)
class Checkers:
    """Several checkers, asked one after the other."""

    credentialInterfaces = (IUsernamePassword,)

    def __init__(self, checkers: Sequence[Any]) -> None:
        self._checkers = tuple(checkers)

    def requestAvatarId(self, credentials: Any) -> Deferred[Any]:
        """The avatar id.  Fails with `UnauthorizedLogin` where all refuse; any other error means that one cannot tell."""
        return Deferred.fromCoroutine(self._ask(credentials))

    async def _ask(self, credentials: Any) -> Any:
        cannot_tell: Exception | None = None
        for checker in self._checkers:
            try:
                return await maybeDeferred(checker.requestAvatarId, credentials)
            except UnauthorizedLogin:
                continue
            except Exception as error:  # noqa: BLE001  # one that is down leaves the others' users their passwords
                cannot_tell = cannot_tell or error
        raise cannot_tell or UnauthorizedLogin


@implementer(ICredentialsChecker)
class Described:
    """A checker made by strcred.  It may know users by their address or, in `domain`, by their local part."""

    credentialInterfaces = (IUsernamePassword,)

    def __init__(self, checker: Any, domain: str) -> None:
        self._checker = checker
        self._domain = domain

    def requestAvatarId(self, credentials: Any) -> Deferred[Any]:
        """The account's address, in whichever form the checker knows it."""
        return Deferred.fromCoroutine(self._ask(credentials))

    async def _ask(self, credentials: Any) -> str:
        address = credentials.username.decode("utf-8")
        local, _, domain = address.rpartition("@")
        if not local:
            raise UnauthorizedLogin  # an empty name is nobody's, but some stores have an entry for it
        names = [address, local] if domain == self._domain else [address]
        for name in names:
            asked = PasswordCredentials(name, credentials.password.decode("utf-8"), credentials.service, credentials.client)
            try:
                found = await maybeDeferred(self._checker.requestAvatarId, asked)
            except UnauthorizedLogin:
                continue
            if isinstance(found, bytes | str) and found:  # an anonymous checker gives b"" to everybody
                return str(address)
        raise UnauthorizedLogin


def make_checker(description: str, domain: str, asked: Callable[[Any], Any] = lambda checker: checker) -> Described:
    """Make a checker from strcred's description, such as ``file:/etc/passwords``.  Raises `CheckerError`.

    `asked` makes of it what is to be asked in its place (`mailserver.plugins.asked_directory.AskedChecker`).
    """
    try:
        checker: Any = strcred.makeChecker(description)
    except strcred.InvalidAuthType:
        raise CheckerError(f"{description!r}: strcred knows no checker of this kind") from None
    except Exception as error:
        raise CheckerError(f"{description!r}: {error}") from error
    if IUsernamePassword not in checker.credentialInterfaces:
        raise CheckerError(f"{description!r} cannot check passwords")
    if isinstance(checker, InMemoryUsernamePasswordDatabaseDontUse):  # strcred gives it text, but it is asked with octets
        checker.users = {_octets(name): _octets(password) for name, password in checker.users.items()}
    return Described(asked(checker), domain)


def _octets(text: str | bytes) -> bytes:
    return text.encode("utf-8") if isinstance(text, str) else text


def make_portal(checkers: Sequence[Any]) -> Portal:
    """The portal that checks passwords with these checkers, in this order."""
    return Portal(MailRealm(), [Checkers(checkers)])
