"""``mailserver import dovecot-passwd``: accounts and their passwords out of Dovecot's passwd-file."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, field
from typing import Any

from mailserver.accounts.entry import Password
from mailserver.accounts.kept_password import keep_password
from mailserver.accounts.table import Account, AccountsFile, account_key
from mailserver.authentication.passwords import PasswordError
from mailserver.cli.accounts import changing, opened
from mailserver.cli.output import EX_IOERR, Unable, as_json, plain, say
from mailserver.cli.rename_journal import RenameJournal
from mailserver.config import Configuration
from mailserver.mail.address import AddressError
from mailserver.moving.dovecot_passwd import PasswdLine, passwd_lines
from mailserver.routing.domains import Domains, LocalDomain

__all__ = ["add_to"]

OCTETS_MOST = 256 << 20


@dataclass(slots=True)
class _Read:
    """What the lines come to: accounts by their normal name, and what was left."""

    accounts: dict[str, Account] = field(default_factory=dict)
    left: list[tuple[int, str, str]] = field(default_factory=list)


def add_to(actions: Any, common: argparse.ArgumentParser) -> None:
    """Declare the action."""
    parser = actions.add_parser(
        "dovecot-passwd", parents=[common], help="accounts and passwords of Dovecot's passwd-file"
    )
    parser.add_argument("file", metavar="FILE", help="the passwd-file; - is standard input")
    parser.add_argument("--domain", default="", help="completes names without a domain")
    parser.add_argument(
        "--scheme", default="CRYPT", help="the scheme of passwords that say none (default: CRYPT, as in Dovecot)"
    )
    parser.add_argument("--any-domain", action="store_true", help="also names in domains that are not ours")
    parser.set_defaults(run=import_passwd)


def import_passwd(options: argparse.Namespace) -> int:
    """Add accounts that are not there, give passwords to those that have none.  Return 1 where a line was left."""
    configuration, accounts = opened(options.config)
    read = _Read()
    for line in passwd_lines(_text(options.file), scheme=options.scheme):
        _take(options, configuration, line, read)
    journal = RenameJournal(configuration.data)
    for address in read.accounts:
        journal.check_free(address)
    added, given = changing(accounts, lambda: _carry_out(accounts, read))
    if options.json:
        left = [{"line": number, "user": user, "why": why} for number, user, why in read.left]
        as_json({"added": added, "passwords": given, "left": left})
    else:
        say(f"{len(added)} accounts added, {len(given)} that were there have their password now.")
        say(*[f"line {number}: {plain(user)}: {plain(why)}" for number, user, why in read.left])
    return 1 if read.left else 0


def _take(options: argparse.Namespace, configuration: Configuration, line: PasswdLine, read: _Read) -> None:
    def leave(why: str) -> None:
        read.left.append((line.number, line.user, why))

    name = line.user if "@" in line.user else f"{line.user}@{options.domain}"
    if "@" not in line.user and not options.domain:
        leave("it has no domain: say --domain")
        return
    try:
        address = account_key(name)
    except AddressError as error:
        leave(f"this is not an address: {error}")
        return
    domain = address.rpartition("@")[2]
    domains = Domains({key: LocalDomain(same_as=table.same_as) for key, table in configuration.domain.items()})
    if not options.any_domain and (domains.key_of(domain) is None or domains.names_of(domain) != domain):
        leave(f"{domain} is none of our domains, or a second name of one (--any-domain)")
        return
    if address in read.accounts:
        leave("it is there twice: the first line counts")
        return
    try:
        words = keep_password(line.clear, address) if line.clear else Password(line.hash or None)
    except PasswordError as error:
        words = Password(None)
        leave(f"{error}: it is added without a password")
    if line.why:
        leave(f"{line.why}: it is added without a password")
    if line.extra:
        leave(f"not carried over: {' '.join(line.extra)}")
    read.accounts[address] = Account(address, words.hash, words.scram, disabled=line.is_disabled)


def _carry_out(accounts: AccountsFile, read: _Read) -> tuple[tuple[str, ...], tuple[str, ...]]:
    added = accounts.add_all(list(read.accounts.values()))
    there = {
        address: Password(one.password, one.scram)
        for address, one in read.accounts.items()
        if address not in added and one.password
    }
    return added, accounts.give_passwords(there) if there else ()


def _text(file: str) -> str:
    try:
        if file == "-":
            return sys.stdin.read(OCTETS_MOST)
        with open(file, encoding="utf-8", errors="surrogateescape") as text:
            return text.read(OCTETS_MOST)
    except OSError as error:
        raise Unable(f"{file}: {error.strerror}", EX_IOERR) from error
