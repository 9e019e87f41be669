"""The template of a checker of passwords."""

__all__ = ["PACKAGE", "PAGE", "PLUGIN_MODULE", "SAYS", "SETTINGS", "TABLE", "TEST"]

PAGE = "checker.md"
SAYS = "A checker of passwords, one of Twisted's (strcred), that asks a text file."

TABLE = """\
[authentication]
checkers = ["@name@:/etc/mail-passwords"]
"""

SETTINGS = """
[[tool.mypy.overrides]]
module = ["passlib.*"]  # it has no types
ignore_missing_imports = true
"""

PLUGIN_MODULE = '''\
"""Twisted finds the checker here: `twistd --help-auth-type @name@`."""

from mailserver_@module@ import factory

__all__ = ["factory"]
'''

PACKAGE = '''\
"""The checker @name@: passwords in a text file, `address:hash` in each line, as `mailserver` or passlib hashes them."""

from __future__ import annotations

import hmac

from passlib.context import CryptContext
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.strcred import ICheckerFactory
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.plugin import IPlugin
from zope.interface import implementer

from mailserver.api import CannotTell

__all__ = ["@class@", "factory"]

HASHES = CryptContext(["argon2", "bcrypt", "sha512_crypt"])
HELP = """\\
A text file with lines such as

    alice@example.org:$argon2id$v=19$m=65536,t=3,p=4$...

The argument is the file's path.
"""


@implementer(ICredentialsChecker)
class @class@:
    """Says whose password it is."""

    credentialInterfaces = (IUsernamePassword,)

    def __init__(self, path: str) -> None:
        self._path = path

    def requestAvatarId(self, credentials: IUsernamePassword) -> Deferred[bytes | tuple[()]]:
        """The account's address.  `UnauthorizedLogin` is no, `CannotTell` (or any other error) "ask later"."""
        return Deferred.fromCoroutine(self._ask(credentials))

    async def _ask(self, credentials: IUsernamePassword) -> bytes | tuple[()]:
        """Hashes are slow on purpose, so they are compared in a thread."""
        name: bytes = credentials.username
        hash = await deferToThread(self._hash_of, name.decode("utf-8", "replace"))
        if hash is None or not await deferToThread(HASHES.verify, credentials.password, hash):
            raise UnauthorizedLogin("no such name, or another password")
        return name

    def _hash_of(self, name: str) -> str | None:
        try:
            with open(self._path, encoding="utf-8") as file:
                lines = [line.strip().partition(":") for line in file]
        except OSError as error:
            raise CannotTell(str(error)) from error
        return next((hash for account, _, hash in lines if hmac.compare_digest(account.encode(), name.encode())), None)


@implementer(ICheckerFactory, IPlugin)
class @class@Factory:
    """Makes the checker for ``@name@:PATH``."""

    authType = "@name@"
    authHelp = HELP
    argStringFormat = "The file's path"
    credentialInterfaces = (IUsernamePassword,)

    def generateChecker(self, argstring: str) -> @class@:
        """Return the checker."""
        return @class@(argstring)


factory = @class@Factory()
'''

TEST = '''\
"""Tests of the checker @name@."""

import os

from passlib.hash import sha512_crypt
from twisted.cred.credentials import UsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.strcred import makeChecker

from mailserver.api import CannotTell
from mailserver.testing import ComponentCase

from mailserver_@module@ import factory


class @class@Test(ComponentCase):
    def make(self):
        path = os.path.abspath(self.mktemp())
        with open(path, "w", encoding="utf-8") as file:
            file.write("alice@example.org:" + sha512_crypt.using(rounds=1000).hash("secret") + "\\n")
        return factory.generateChecker(path)

    async def test_the_right_password_lets_in_and_no_other_does(self):
        checker = self.make()
        self.assertEqual(
            await checker.requestAvatarId(UsernamePassword(b"alice@example.org", b"secret")), b"alice@example.org"
        )
        for name, password in ((b"alice@example.org", b"Secret"), (b"alice@example.org", b""), (b"bob", b"secret"), (b"", b"")):
            with self.assertRaises(UnauthorizedLogin):
                await checker.requestAvatarId(UsernamePassword(name, password))

    async def test_a_file_that_is_gone_is_neither_yes_nor_no(self):
        checker = factory.generateChecker("/nowhere/at/all")
        with self.assertRaises(CannotTell):
            await checker.requestAvatarId(UsernamePassword(b"alice@example.org", b"secret"))

    def test_twisted_finds_it_by_its_name(self):
        self.assertEqual(type(makeChecker("@name@:/etc/x")).__name__, "@class@")
'''
