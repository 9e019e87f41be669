"""Nobody is found who does not exist, whatever the name; nobody gets in without the right password."""

# mypy: disallow-untyped-calls=False
# (trial's assertions have no annotations)

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import UsernamePassword
from twisted.cred.error import UnauthorizedLogin

from mailserver.interfaces import CannotTell, IAccountList, IComponent, IScramAccounts
from mailserver.mail.address import Address, normal_names
from mailserver.mail.answers import Mailbox
from mailserver.testing.contracts.messages import HOSTILE_NAMES

if TYPE_CHECKING:
    from mailserver.testing.case import ComponentCase as Case
else:
    Case = object

__all__ = ["DirectoryContract"]

ITERATIONS_LEAST = 4096  # RFC 7677 section 4


class DirectoryContract(Case):
    """For a directory, and for a checker of passwords beside it.  Beside `ComponentCase`; only `make` has to be written.

    `account` and `password` are somebody's whom `make` knows; `password` None: passwords are not this component's.
    """

    account = "alice@example.org"
    password: str | None = None

    def make(self) -> Any:
        """The component, fresh, with the account `account`."""
        raise NotImplementedError("a contract's test case says what it tests: def make(self)")

    def break_down(self, component: Any) -> bool:
        """Take away what the component asks (its file, its database).  False where nothing can be taken away."""
        return False

    async def started(self) -> Any:
        """The component, started as the server does it, and stopped at the test's end."""
        component = self.make()
        if IComponent.providedBy(component):
            await component.start()
            self.addCleanup(component.stop)
        return component

    async def test_whoever_exists_has_a_mailbox_that_names_him(self) -> None:
        """And each part of it can be a folder's name."""
        component = await self.started()
        mailbox = await component.find(*self._names())
        self.assertIsInstance(mailbox, Mailbox)
        for part in (mailbox.user, mailbox.domain, *mailbox.folder):
            self.assertFalse(part in (".", "..") or set(part) & set("/\0"), f"{part!r} leads elsewhere")
        self.assertEqual(mailbox, await component.find(*self._names()), "twice the same question, two answers")

    async def test_nobody_is_found_who_does_not_exist(self) -> None:
        """Neither another name in this domain, nor this name in another one."""
        component = await self.started()
        local, domain = self._names()
        for name in (f"{local}x", local[:-1], f"{local}.", f"{local}+tag", f"{local}@{domain}"):
            if name != local:
                self.assertIsNone(await component.find(name, domain), name)
        for other in (f"x{domain}", f"x.{domain}", f"{domain}.", "[192.0.2.1]", ""):
            self.assertIsNone(await component.find(local, other), other)

    async def test_a_name_that_means_something_to_a_file_system_or_a_database_is_nobodys(self) -> None:
        """It is looked up as it is, or not at all."""
        component = await self.started()
        for name in HOSTILE_NAMES:
            if name != self._names()[0]:
                self.assertIsNone(await component.find(name, self._names()[1]), repr(name))

    async def test_whoever_is_listed_is_found(self) -> None:
        """`accounts` and `find` agree."""
        component = await self.started()
        if IAccountList.providedBy(component):
            listing: Any = component
            listed = await listing.accounts()
            self.assertIn(self.account, listed)
            for text in listed:
                self.assertIsNotNone(await listing.find(*normal_names(Address.parse(text, utf8=True))), text)

    async def test_what_cannot_be_asked_is_neither_yes_nor_no(self) -> None:
        """`CannotTell`, or another error: the recipient is deferred."""
        component = await self.started()
        if self.break_down(component):
            try:
                found = await component.find(*self._names())
            except CannotTell:
                return
            except Exception as error:  # noqa: BLE001  # counts as the same
                self.assertIsInstance(error, Exception)
                return
            self.assertIsNotNone(found, "whoever existed a moment ago does not exist any more: mail for him is refused")

    async def test_the_right_password_lets_in_and_no_other_does(self) -> None:
        """An unknown name fares as a wrong password."""
        component = await self.started()
        if self.password is None or not ICredentialsChecker.providedBy(component):
            return
        avatar = await component.requestAvatarId(UsernamePassword(self.account.encode(), self.password.encode()))
        self.assertEqual(avatar.decode() if isinstance(avatar, bytes) else str(avatar), self.account)
        for name, password in (
            (self.account, self.password + "x"),
            (self.account, ""),
            (self.account, self.password.swapcase() + "\0"),
            ("nobody@example.org", self.password),
            ("", self.password),
            ("*", self.password),
        ):
            with self.assertRaises(UnauthorizedLogin):
                await component.requestAvatarId(UsernamePassword(name.encode(), password.encode()))

    async def test_scram_keys_are_the_accounts_own_and_nobody_elses(self) -> None:
        """Enough rounds, and none for a name that does not exist."""
        component = await self.started()
        if IScramAccounts.providedBy(component):
            keys = await component.scram_keys(self.account)
            if keys is not None:
                self.assertGreaterEqual(keys.iterations, ITERATIONS_LEAST)
                self.assertGreaterEqual(len(keys.salt), 8)
            self.assertIsNone(await component.scram_keys("nobody-at-all@example.org"))

    def _names(self) -> tuple[str, str]:
        return normal_names(Address.parse(self.account, utf8=True))
