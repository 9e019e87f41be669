"""The template of a directory."""

__all__ = ["PACKAGE", "SAYS", "TABLE", "TEST"]

SAYS = "A directory of the accounts that stand in a text file, one address in each line."

TABLE = """\
[accounts]
use = "@name@"
path = "accounts.txt"
"""

PACKAGE = '''\
"""The directory @name@: the accounts of a text file, one address in each line."""

from __future__ import annotations

from collections.abc import Sequence

from zope.interface import implementer

from mailserver.api import (
    Address,
    AddressError,
    CannotTell,
    FilePath,
    IAccountList,
    IComponent,
    IComponentFactory,
    IDirectory,
    IReloading,
    Mailbox,
    Options,
    RunInThread,
    Services,
    normal_names,
)

__all__ = ["@class@", "@class@Options", "factory"]


class @class@Options(Options):
    """What the configuration may say."""

    path: FilePath
    """The file."""


@implementer(IDirectory, IAccountList, IComponent, IReloading)
class @class@:
    """Reads the file when the server starts, and again after each reload (SIGHUP)."""

    def __init__(self, options: @class@Options, run_in_thread: RunInThread) -> None:
        self._path = options.path
        self._run_in_thread = run_in_thread
        self._accounts: dict[tuple[str, str], str] | None = None

    async def start(self) -> None:
        """Read the file; an error stops the start, and the words say what is wrong."""
        self._accounts = await self._run_in_thread(read_accounts, self._path)

    async def reload(self) -> None:
        """Read it again at each reload; after an error the accounts stay as they were."""
        await self.start()

    async def stop(self) -> None:
        """Nothing is open."""

    async def find(self, local_part: str, domain: str) -> Mailbox | None:
        """Nobody is found by a name that could lead out of a folder: no such line is taken from the file."""
        return Mailbox(local_part, domain) if (local_part, domain) in self._known() else None

    async def accounts(self) -> Sequence[str]:
        """In the file's order."""
        return list(self._known().values())

    def _known(self) -> dict[tuple[str, str], str]:
        if self._accounts is None:
            raise CannotTell(f"{self._path} has not been read")
        return self._accounts


def read_accounts(path: str) -> dict[tuple[str, str], str]:
    """The lines of the file.  Raises OSError, and ValueError for a line that is no address, with its number."""
    found = {}
    with open(path, encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            text = line.strip()
            if not text or text.startswith("#"):
                continue
            try:
                address = Address.parse(text, utf8=True)
            except AddressError as error:
                raise ValueError(f"{path}:{number}: {error}") from None
            local, domain = normal_names(address)
            if local in (".", "..") or "/" in local:
                raise ValueError(f"{path}:{number}: {text} cannot be a folder's name")
            found[local, domain] = text
    return found


@implementer(IComponentFactory)
class @class@Factory:
    """Makes the directory for ``[accounts] use = "@name@"``."""

    name = "@name@"
    summary = "Accounts in a text file, one address in each line."
    api_version = "1.0"
    provides = IDirectory
    options = @class@Options

    def build(self, options: @class@Options, services: Services) -> @class@:
        """Return the directory."""
        return @class@(options, services.run_in_thread)


factory = @class@Factory()
'''

TEST = '''\
"""Tests of the directory @name@."""

import os

from mailserver.testing import ComponentCase, DirectoryContract

from mailserver_@module@ import factory


class @class@Test(DirectoryContract, ComponentCase):
    account = "alice@example.org"
    text = "# who is here\\n\\nalice@example.org\\nBob@example.org\\n"

    def make(self):
        path = os.path.abspath(self.mktemp())
        with open(path, "w", encoding="utf-8") as file:
            file.write(self.text)
        return self.build(factory, path=path)

    async def test_upper_and_lower_case_are_one_name(self):
        component = await self.started()
        self.assertIsNotNone(await component.find("bob", "example.org"))
        self.assertEqual(await component.accounts(), ["alice@example.org", "Bob@example.org"])

    async def test_a_line_that_is_no_address_stops_the_start_with_its_number(self):
        self.text = "alice@example.org\\nbob\\n"
        with self.assertRaisesRegex(ValueError, ":2: "):
            await self.started()
        self.text = '"../bob"@example.org\\n'
        with self.assertRaisesRegex(ValueError, ":1: .* folder's name"):
            await self.started()
'''
