"""``mailserver user app-password|certificate|sender``: what an account has besides its password."""

from __future__ import annotations

import argparse
import datetime
import os
from collections.abc import Callable
from typing import Any

from mailserver.accounts.entry import APP_PASSWORD_NAME, normal_certificate, normal_sender
from mailserver.accounts.table import Account, AccountsFile, Change, NoSuchAccount, account_key
from mailserver.authentication.app_password_uses import USES_SPACE, AppPasswordUses
from mailserver.authentication.app_passwords import SCOPES, AppPassword, hash_app_password, new_app_password
from mailserver.cli.accounts import changing, done, opened
from mailserver.cli.output import Unable, as_json, moment, plain, say, table
from mailserver.cli.without_server import finished
from mailserver.processes.identity import as_owner_of
from mailserver.queue.clock_watch import boot_seconds
from mailserver.state_store import StoppedState

__all__ = ["add_to"]


def add_to(actions: Any, common: argparse.ArgumentParser) -> None:
    """Declare the actions."""
    app = _group(actions, "app-password", "passwords for single programs: named, bounded, revocable")
    adding = _verb(app, common, "add", add_app_password, "make one; it is shown once")
    adding.add_argument("name", metavar="NAME", help="such as phone")
    adding.add_argument("--scope", action="append", choices=SCOPES, help="what it may be used for; absent: everything")
    adding.add_argument("--expires", metavar="DATE", type=_date, help="the first day on which it is good no more: 2027-01-01")
    _verb(app, common, "list", list_app_passwords, "list them, with their last use")
    _verb(app, common, "remove", remove_app_password, "revoke one").add_argument("name", metavar="NAME")
    certificate = _group(actions, "certificate", "client certificates that stand for an account")
    for name, run, help in (("add", add_certificate, "let one in"), ("remove", remove_certificate, "let it in no more")):
        one = _verb(certificate, common, name, run, help)
        one.add_argument("certificate", help="its SHA-256 fingerprint, or an address in it")
    sender = _group(actions, "sender", "as whom an account may send, besides its own addresses")
    for name, run, help in (("add", add_sender, "let it send as"), ("remove", remove_sender, "not any more")):
        _verb(sender, common, name, run, help).add_argument("sender", help="an address, or @ and a domain")


def _group(actions: Any, name: str, help: str) -> Any:
    return actions.add_parser(name, help=help).add_subparsers(title="actions", metavar="ACTION", required=True)


def _verb(actions: Any, common: argparse.ArgumentParser, name: str, run: Any, help: str) -> Any:
    parser = actions.add_parser(name, parents=[common], help=help)
    parser.add_argument("address", metavar="ADDRESS", help="the account")
    parser.set_defaults(run=run)
    return parser


def add_app_password(options: argparse.Namespace) -> int:
    """Make an app password and print it.  Return 1 where the account is missing or has one of this name."""
    _, accounts = opened(options.config)
    if APP_PASSWORD_NAME.fullmatch(options.name) is None:
        raise Unable("the name of an app password has 1 to 64 characters, none of them a control character", 2)
    if options.expires is not None and options.expires <= datetime.datetime.now(datetime.UTC).date():
        raise Unable(f"it would have expired already: {options.expires} is the first day on which it is good no more", 2)
    word = new_app_password()
    scopes = tuple([scope for scope in SCOPES if scope in (options.scope or SCOPES)])
    one = AppPassword(options.name, hash_app_password(word), scopes, options.expires)
    changing(accounts, lambda: accounts.add_app_password(options.address, one))
    if options.json:
        as_json({"account": options.address, "name": options.name, "app_password": word})
    else:
        say(f"The app password {plain(options.name)} of {plain(options.address)}, which is shown this once:", "", f"  {word}", "")
    return 0


def remove_app_password(options: argparse.Namespace) -> int:
    """Remove an app password.  Return 1 where none has this name."""
    _, accounts = opened(options.config)
    changing(accounts, lambda: accounts.remove_app_password(options.address, options.name))
    return done(options, "revoked", options.name)


def list_app_passwords(options: argparse.Namespace) -> int:
    """Print an account's app passwords.  Return 1 where the account does not exist."""
    configuration, accounts = opened(options.config)
    account = _account(accounts, options.address)
    name = account_key(account.address)
    path = os.path.join(configuration.data, "state.db")
    with as_owner_of(configuration.data), StoppedState.opened(path, steady=boot_seconds) as state:
        uses = AppPasswordUses(None if state is None else state.space(USES_SPACE))
        rows = [(one, finished(uses.last(name, one))) for one in account.app_passwords]
    if options.json:
        as_json([
            {
                "name": one.name,
                "scopes": list(one.scopes),
                "expires": None if one.expires is None else one.expires.isoformat(),
                "last_used": used,
            }
            for one, used in rows
        ])  # fmt: skip
        return 0
    table(
        ("NAME", "FOR", "EXPIRES", "LAST USED"),
        [
            (one.name, ", ".join(one.scopes), str(one.expires or "never"), moment(used) or "never")
            for one, used in rows
        ],
    )
    return 0


def add_certificate(options: argparse.Namespace) -> int:
    """Add a certificate's mark: a fingerprint, or an address in certificates of trusted authorities."""
    return _with(options, normal_certificate, options.certificate, AccountsFile.change_certificates)


def remove_certificate(options: argparse.Namespace) -> int:
    """1 where the account does not have it."""
    return _without(options, normal_certificate, options.certificate, AccountsFile.change_certificates)


def add_sender(options: argparse.Namespace) -> int:
    """Add a sender: an address, or ``@`` and a domain."""
    return _with(options, normal_sender, options.sender, AccountsFile.change_senders)


def remove_sender(options: argparse.Namespace) -> int:
    """1 where the account does not have it."""
    return _without(options, normal_sender, options.sender, AccountsFile.change_senders)


Changing = Callable[[AccountsFile, str, Change], None]


def _with(options: argparse.Namespace, normal: Callable[[str], str], text: str, changing_list: Changing) -> int:
    _, accounts = opened(options.config)
    value = _normal(normal, text)

    def add(old: tuple[str, ...]) -> tuple[str, ...]:
        return old if value in old else (*old, value)

    changing(accounts, lambda: changing_list(accounts, options.address, add))
    return done(options, "added", value)


def _without(options: argparse.Namespace, normal: Callable[[str], str], text: str, changing_list: Changing) -> int:
    _, accounts = opened(options.config)
    value = _normal(normal, text)

    def remove(old: tuple[str, ...]) -> tuple[str, ...]:
        if value not in old:
            raise Unable(f"{options.address} does not have {plain(value)}")
        return tuple([one for one in old if one != value])

    changing(accounts, lambda: changing_list(accounts, options.address, remove))
    return done(options, "removed", value)


def _normal(normal: Callable[[str], str], text: str) -> str:
    try:
        return normal(text)
    except ValueError as error:
        raise Unable(str(error), 2) from error


def _account(accounts: AccountsFile, address: str) -> Account:
    def find() -> Account:
        name = account_key(address)
        for one in accounts.list():
            if account_key(one.address) == name:
                return one
        raise NoSuchAccount(f"there is no account {address}")

    return changing(accounts, find)


def _date(text: str) -> datetime.date:
    try:
        return datetime.date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a date, such as 2027-01-01") from None
