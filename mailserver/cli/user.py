"""``mailserver user``: accounts in the accounts file.  The running server sees a change within a second."""

from __future__ import annotations

import argparse
import getpass
import os
import sys
from typing import Any

from mailserver.accounts.kept_password import keep_password
from mailserver.accounts.table import Account, AccountsFile, NoSuchAccount, Password, account_key, key_of
from mailserver.authentication.passwords import PasswordError
from mailserver.authentication.sealing import KeyPlace, make_folder, read_key
from mailserver.cli import access, user_locks
from mailserver.cli.accounts import changing, done, opened
from mailserver.cli.configuration_change import add_change_options
from mailserver.cli.following import forget, tell_what_stays
from mailserver.cli.maildir_move import leads_to_another
from mailserver.cli.output import EX_IOERR, Unable, as_json, say, table
from mailserver.cli.purge import confirmed, maildir_of, purge
from mailserver.cli.references import Renaming, lead, take_alias
from mailserver.cli.rename_journal import RenameJournal
from mailserver.cli.renaming import Rename, add_rename_options, carry_out, carry_out_the_end, was_cut_off_at_its_end
from mailserver.config import Configuration, load
from mailserver.config.draft import Draft
from mailserver.mail.address import AddressError
from mailserver.plugins.catalogue import discover
from mailserver.processes.identity import as_owner_of
from mailserver.routing.domains import Domains, LocalDomain

__all__ = ["add_to"]

PASSWORD_LINE_CHARACTERS = 4096


def add_to(commands: Any, common: argparse.ArgumentParser, summary: str) -> None:
    """Declare the command."""
    user = commands.add_parser("user", help=summary)
    actions = user.add_subparsers(title="actions", metavar="ACTION", required=True)
    adding = _action(actions, common, "add", add_account, "add an account; asks for its password")
    adding.add_argument("--no-password", action="store_true", help="receives mail, cannot log in")
    _action(actions, common, "password", change_password, "give an account another password")
    _action(actions, common, "hash", print_hash, "print what is kept of a password, for accounts in a database")
    for action in actions.choices.values():
        action.add_argument(
            "--password-stdin", action="store_true", help="read the password from standard input, one line"
        )
    removing = _action(actions, common, "remove", remove_account, "remove an account; its mail stays where it is")
    removing.add_argument("--purge", action="store_true", help="remove its Maildir as well, for good; asks on a terminal")
    removing.add_argument("--yes", action="store_true", help="do not ask")
    renaming = _action(actions, common, "rename", rename_account, "another name, with its mail and all that names it")
    renaming.add_argument("new", metavar="NEW", help="such as alice.smith@example.org")
    renaming.add_argument("--alias", action="store_true", help="let the old name lead to the new one")
    add_rename_options(renaming)
    add_change_options(renaming)
    for parser in (adding, renaming):
        parser.add_argument("--any-domain", action="store_true", help="also for a domain that is not ours: logs in, gets no mail")
    _action(actions, common, "disable", disable_account, "let nobody log in as an account; its mail comes as before")
    _action(actions, common, "enable", enable_account, "let them log in again, with what they had")
    user_locks.add_to(actions, common)
    access.add_to(actions, common)
    listing = actions.add_parser("list", parents=[common], help="list all accounts")
    listing.set_defaults(run=list_accounts)


def _action(actions: Any, common: argparse.ArgumentParser, name: str, run: Any, help: str) -> Any:
    parser = actions.add_parser(name, parents=[common], help=help)
    parser.add_argument("address", metavar="ADDRESS", help="such as alice@example.org")
    parser.set_defaults(run=run)
    return parser


def add_account(options: argparse.Namespace) -> int:
    """Add an account.  Return 1 where it exists already."""
    configuration, accounts = opened(options.config)
    if options.no_password and options.password_stdin:
        raise Unable("--no-password and --password-stdin exclude each other", 2)
    _may_be_added(options, configuration, options.address)
    RenameJournal(configuration.data).check_free(options.address)
    _has_no_mail_of_others(configuration, accounts, options.address)
    password = None if options.no_password else _words(options, configuration, configuration.accounts.options.recoverable)
    changing(accounts, lambda: accounts.add(options.address, password))
    return done(options, "added")


def _may_be_added(options: argparse.Namespace, configuration: Configuration, address: str) -> None:
    """Check that the account is in one of our domains.  Raises `Unable`."""
    domain = _domain_of(address)
    domains = Domains({name: LocalDomain(same_as=table.same_as) for name, table in configuration.domain.items()})
    other = domains.names_of(domain)
    if not options.any_domain and other != domain:
        raise Unable(
            f"{domain} is the same as {other}: add the account there, or say --any-domain for one that only logs in"
        )
    if not options.any_domain and domains.key_of(domain) is None:
        raise Unable(
            f'there is no [domain."{domain}"] in {options.config}, so no mail would come for this account: add it there, '
            "or say --any-domain for one that only logs in"
        )


def _has_no_mail_of_others(configuration: Configuration, accounts: AccountsFile, address: str) -> None:
    """A link that a rename has left would bring the new account's mail to the renamed one.  Raises `Unable`."""
    try:
        path = maildir_of(configuration, address)
    except (Unable, AddressError):
        return
    with as_owner_of(configuration.data):
        if not os.path.lexists(path):
            return
    others = [maildir_of(configuration, one.address) for one in changing(accounts, accounts.list)]
    with as_owner_of(configuration.data):
        other, leads_nowhere = leads_to_another(path, others), not os.path.exists(path)
        is_link = os.path.islink(path)
    if other or leads_nowhere:
        where = "that leads nowhere" if leads_nowhere else f"to the mail of another account ({other})"
        why = f"{path} is a link {where}" if is_link else f"{other}, another account's, is a link to {path}"
        raise Unable(f"{why}: remove the link first")


def _domain_of(address: str) -> str:
    try:
        return account_key(address).rpartition("@")[2]
    except AddressError as error:
        raise Unable(f"this is not an address: {error}", 2) from error


def change_password(options: argparse.Namespace) -> int:
    """Set an account's password.  Return 1 where the account does not exist."""
    configuration, accounts = opened(options.config)
    password = _words(options, configuration, configuration.accounts.options.recoverable)
    changing(accounts, lambda: accounts.set_password(options.address, password))
    return done(options, "changed")


def print_hash(options: argparse.Namespace) -> int:
    """Print the hash and the SCRAM keys; nothing is changed."""
    configuration = load(options.config, discover().options_of)
    words = _words(options, configuration, recoverable=False)
    if options.json:
        as_json({"password": words.hash, "scram": words.scram})
    else:
        say(f"password: {words.hash}", *([f"scram:    {words.scram}"] if words.scram else []))
    return 0


def remove_account(options: argparse.Namespace) -> int:
    """Remove an account.  Return 1 where it does not exist."""
    configuration, accounts = opened(options.config)
    if not options.purge:
        changing(accounts, lambda: accounts.remove(options.address))
        code = done(options, "removed")
        tell_what_stays(configuration, account_key(options.address))
        return code
    path = changing(accounts, lambda: maildir_of(configuration, options.address))
    if not options.yes:
        confirmed(options.address, path)
    changing(accounts, lambda: _is_there(accounts, options.address))
    forget(configuration, account_key(options.address))
    changing(accounts, lambda: accounts.remove(options.address))
    return done(options, "removed, with its mail" if purge(path, configuration.data) else "removed; it had no mail")


def _is_there(accounts: AccountsFile, address: str) -> None:
    if key_of(address) not in accounts.read():
        raise NoSuchAccount(f"there is no account {address}")


def disable_account(options: argparse.Namespace) -> int:
    """Disable an account.  Return 1 where it does not exist, or is disabled already."""
    return _set_disabled(options, True, "disabled")


def enable_account(options: argparse.Namespace) -> int:
    """Enable an account.  Return 1 where it does not exist, or is not disabled."""
    return _set_disabled(options, False, "enabled")


def _set_disabled(options: argparse.Namespace, disabled: bool, word: str) -> int:
    _, accounts = opened(options.config)
    if not changing(accounts, lambda: accounts.set_disabled(options.address, disabled)):
        raise Unable(f"{options.address} is {word} already")
    return done(options, word)


def rename_account(options: argparse.Namespace) -> int:
    """Rename an account.  Return 1 where it does not exist, or the new name is taken."""
    configuration, accounts = opened(options.config)
    old, new = changing(accounts, lambda: (account_key(options.address), account_key(options.new)))
    _may_be_added(options, configuration, new)
    account = changing(accounts, lambda: accounts.read().get(key_of(old)))
    if account is None:
        if was_cut_off_at_its_end(configuration, {old: new}):
            carry_out_the_end(options, Rename(configuration, accounts, {old: new}, lambda draft: None, frozenset()))
            return 0
        raise Unable(f"there is no account {options.address}")
    followed = {old: new} if old != new else {}

    def change(draft: Draft) -> None:
        if followed:
            take_alias(draft, old, new)
            Renaming(draft, followed).follow()
            if options.alias:
                lead(draft, old, new)

    words = frozenset() if options.alias else frozenset({old} - {new})
    carry_out(options, Rename(configuration, accounts, {account.address: new}, change, words))
    return 0


def list_accounts(options: argparse.Namespace) -> int:
    """Print every account."""
    configuration, accounts = opened(options.config)
    found = changing(accounts, accounts.list)
    stopped, why_not = user_locks.states_of(configuration)
    if why_not:
        print(f"mailserver: {why_not}", file=sys.stderr)
    if options.json:
        as_json([{**_as_json(account), "stopped": stopped.get(account_key(account.address), "")} for account in found])
        return 0
    if found:
        headers = ("ADDRESS", "STATE", "PASSWORD", "SCRAM", "APP PASSWORDS", "CERTIFICATES", "SENDS AS")
        table(headers, [_row(account, account_key(account.address) in stopped) for account in found])
    say(f"{len(found)} account{'' if len(found) == 1 else 's'}.")
    return 0


def _as_json(account: Account) -> dict[str, Any]:
    return {
        "address": account.address,
        "disabled": account.disabled,
        "password": account.password is not None,
        "scram": account.scram is not None,
        "cram_md5": account.secret is not None,
        "app_passwords": [one.name for one in account.app_passwords],
        "certificates": list(account.certificates),
        "senders": list(account.senders),
    }


def _row(account: Account, is_stopped: bool) -> tuple[str, ...]:
    states = [*(["disabled"] if account.disabled else []), *(["stopped"] if is_stopped else [])]
    return (
        account.address,
        ", ".join(states),
        "yes" if account.password else "no",
        "yes" if account.password and account.scram else "no",
        ", ".join(one.name for one in account.app_passwords),
        str(len(account.certificates) or ""),
        ", ".join(account.senders),
    )


def _password(options: argparse.Namespace) -> str:
    """The password, from standard input or typed twice.  Never from an argument, which every user of the host can see."""
    if options.password_stdin:
        line = sys.stdin.readline(PASSWORD_LINE_CHARACTERS)
        return line.rstrip("\r\n")
    if not sys.stdin.isatty():
        raise Unable("there is no terminal to ask for the password: use --password-stdin", 2)
    first = getpass.getpass("Password: ")
    if getpass.getpass("Again: ") != first:
        raise Unable("the two are not the same")
    return first


def _words(options: argparse.Namespace, configuration: Configuration, recoverable: bool) -> Password:
    """All that is kept of the password that is given."""
    password = _password(options)
    try:
        name = account_key(options.address)
        if recoverable and not os.path.isdir(configuration.data):
            print("mailserver: not kept for CRAM-MD5 yet: the server has to make its data folder first", file=sys.stderr)
            recoverable = False
        place = KeyPlace(configuration.keys_path, configuration.data)
        if recoverable and os.geteuid() == 0:
            owner = os.stat(configuration.data)
            make_folder(place, owner.st_uid, owner.st_gid)
        with as_owner_of(configuration.data):
            key = read_key(place, make=True) if recoverable else None
        return keep_password(password, name, key)
    except AddressError as error:
        raise Unable(f"this is not an address: {error}", 2) from error
    except PasswordError as error:
        raise Unable(str(error)) from error
    except OSError as error:
        raise Unable(f"{error.filename or configuration.data}: {error.strerror or error}", EX_IOERR) from error
