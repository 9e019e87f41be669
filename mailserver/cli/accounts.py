"""The accounts file as the commands of `mailserver user` see it."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TypeVar

from mailserver.accounts.file import FileDirectoryOptions
from mailserver.accounts.table import AccountExists, AccountsFile, NoSuchAccount
from mailserver.cli.output import EX_IOERR, Unable, as_json, plain, say
from mailserver.config import Configuration, load
from mailserver.mail.address import AddressError
from mailserver.plugins.catalogue import discover
from mailserver.processes.identity import as_owner_of

__all__ = ["changing", "done", "opened", "reading"]

T = TypeVar("T")

WHERE = {
    "sql": "in the database, which the queries of [accounts] ask",
    "ldap": "in the directory",
    "system": "with the host's own commands (useradd, usermod --login, usermod --lock --expiredate 1)",
}


def opened(config: str) -> tuple[Configuration, AccountsFile]:
    """The configuration, and the file that it names.  Raises `Unable` where the accounts are in no file."""
    configuration = load(config, discover().options_of)
    if not isinstance(configuration.accounts.options, FileDirectoryOptions):
        use = configuration.accounts.use
        where = WHERE.get(use, "where they stand")
        why = f'the accounts are not in a file ([accounts] use = "{use}")'
        raise Unable(f"{why}, so this command cannot change or list them: do it {where}")
    return configuration, AccountsFile(configuration.accounts.options.path, configuration.data)


def changing(accounts: AccountsFile, change: Callable[[], T]) -> T:
    """Run `change` and turn its errors into `Unable`, in words for people.  In the data folder root acts as its owner."""
    path = accounts.path
    try:
        with as_owner_of(accounts.data) if _is_below(path, accounts.data) else contextlib.nullcontext():
            return change()
    except (AccountExists, NoSuchAccount) as error:
        raise Unable(str(error)) from error
    except AddressError as error:
        raise Unable(f"this is not an address: {error}", 2) from error
    except FileNotFoundError as error:
        raise Unable(f"{path} is not there: `mailserver user add` makes it", 1) from error
    except OSError as error:
        raise Unable(f"{path}: {error.strerror or error}", EX_IOERR) from error


def reading(configuration: Configuration) -> AbstractContextManager[None]:
    """A context for reading the accounts file.  In the data folder root acts as the folder's owner."""
    options = configuration.accounts.options
    if isinstance(options, FileDirectoryOptions) and _is_below(options.path, configuration.data):
        return as_owner_of(configuration.data)
    return contextlib.nullcontext()


def _is_below(path: str, folder: str) -> bool:
    return os.path.commonpath([os.path.abspath(path), os.path.abspath(folder)]) == os.path.abspath(folder)


def done(options: argparse.Namespace, what: str, value: str = "") -> int:
    """Print what was done to the account, or to this `value` of it."""
    if options.json:
        as_json({"account": options.address, what: value} if value else {what: options.address})
    else:
        say(f"{plain(options.address)}: {plain(value)} {what}" if value else f"{plain(options.address)}: {what}")
    return 0
