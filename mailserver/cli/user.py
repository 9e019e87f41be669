"""``mailserver user``: accounts in the accounts file.  The running server sees a change within a second."""

from __future__ import annotations

import argparse
import getpass
import sys
from typing import Any

from mailserver.accounts.file import FileDirectoryOptions
from mailserver.accounts.passwords import PasswordError, hash_password
from mailserver.accounts.table import AccountExists, AccountsFile, NoSuchAccount
from mailserver.cli.output import EX_IOERR, Unable, as_json, plain, say, table
from mailserver.config import Configuration, load
from mailserver.mail.address import AddressError
from mailserver.plugins import discover

__all__ = ["add_to"]

PASSWORD_LINE_CHARACTERS = 4096


def add_to(commands: Any, common: argparse.ArgumentParser, summary: str) -> None:
    """Declare the command."""
    user = commands.add_parser("user", help=summary)
    actions = user.add_subparsers(title="actions", metavar="ACTION", required=True)
    adding = _action(actions, common, "add", add_account, "add an account; asks for its password")
    adding.add_argument("--no-password", action="store_true", help="receives mail, cannot log in")
    _action(actions, common, "password", change_password, "give an account another password")
    for action in actions.choices.values():
        action.add_argument(
            "--password-stdin", action="store_true", help="read the password from standard input, one line"
        )
    _action(actions, common, "remove", remove_account, "remove an account; its mail stays where it is")
    listing = actions.add_parser("list", parents=[common], help="list all accounts")
    listing.set_defaults(run=list_accounts)


def _action(actions: Any, common: argparse.ArgumentParser, name: str, run: Any, help: str) -> Any:
    parser = actions.add_parser(name, parents=[common], help=help)
    parser.add_argument("address", metavar="ADDRESS", help="such as alice@example.org")
    parser.set_defaults(run=run)
    return parser


def add_account(options: argparse.Namespace) -> int:
    """1 where it exists already."""
    configuration, accounts = _opened(options.config)
    if options.no_password and options.password_stdin:
        raise Unable("--no-password and --password-stdin exclude each other", 2)
    password = None if options.no_password else _hash(_password(options))
    _changing(accounts.path, lambda: accounts.add(options.address, password))
    _done(options, "added")
    domain = options.address.rpartition("@")[2].lower()
    if domain not in configuration.domain:
        print(f'mailserver: there is no [domain."{domain}"] yet, so no mail comes for this account', file=sys.stderr)
    return 0


def change_password(options: argparse.Namespace) -> int:
    """1 where there is no such account."""
    _, accounts = _opened(options.config)
    password = _hash(_password(options))
    _changing(accounts.path, lambda: accounts.set_password(options.address, password))
    return _done(options, "changed")


def remove_account(options: argparse.Namespace) -> int:
    """1 where there is no such account."""
    _, accounts = _opened(options.config)
    _changing(accounts.path, lambda: accounts.remove(options.address))
    return _done(options, "removed")


def list_accounts(options: argparse.Namespace) -> int:
    """Print every account."""
    _, accounts = _opened(options.config)
    found = _changing(accounts.path, accounts.list)
    if options.json:
        as_json([{"address": account.address, "password": account.password is not None} for account in found])
        return 0
    if found:
        table(("ADDRESS", "LOG-IN"), [(account.address, "yes" if account.password else "no") for account in found])
    say(f"{len(found)} account{'' if len(found) == 1 else 's'}.")
    return 0


def _done(options: argparse.Namespace, what: str) -> int:
    if options.json:
        as_json({what: options.address})
    else:
        say(f"{plain(options.address)}: {what}")
    return 0


def _opened(config: str) -> tuple[Configuration, AccountsFile]:
    configuration = load(config, discover().options_of)
    if not isinstance(configuration.accounts.options, FileDirectoryOptions):
        use = configuration.accounts.use
        raise Unable(f'the accounts are not in a file ([accounts] use = "{use}"), so this command cannot change them')
    return configuration, AccountsFile(configuration.accounts.options.path)


def _changing(path: str, change: Any) -> Any:
    """Do it, with the file's faults in words for people."""
    try:
        return change()
    except (AccountExists, NoSuchAccount) as error:
        raise Unable(str(error)) from error
    except AddressError as error:
        raise Unable(f"this is not an address: {error}", 2) from error
    except FileNotFoundError as error:
        raise Unable(f"{path} is not there: `mailserver user add` makes it", 1) from error
    except OSError as error:
        raise Unable(f"{path}: {error.strerror or error}", EX_IOERR) from error


def _password(options: argparse.Namespace) -> str:
    """From standard input, or typed twice.  Never an argument: those are seen by every user of the host."""
    if options.password_stdin:
        line = sys.stdin.readline(PASSWORD_LINE_CHARACTERS)
        return line.rstrip("\r\n")
    if not sys.stdin.isatty():
        raise Unable("there is no terminal to ask for the password: use --password-stdin", 2)
    first = getpass.getpass("Password: ")
    if getpass.getpass("Again: ") != first:
        raise Unable("the two are not the same")
    return first


def _hash(password: str) -> str:
    try:
        return hash_password(password)
    except PasswordError as error:
        raise Unable(str(error)) from error
