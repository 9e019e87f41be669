"""Accounts get other names, under a server that runs: their mail, what they log in with, and whatever names them.

At each moment the old name or the new one is whole, mail that is on its way arrives, and a server that does not take the change
up leaves everything as it was:

1. the Maildirs are moved, a link in their place (`moving`);
2. where the configuration changes, the accounts stand under both names until the server has taken it up;
3. the accounts get their new names.
"""

from __future__ import annotations

import argparse
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from mailserver.accounts.entry import Account
from mailserver.accounts.rename import add_copies, become, remove_copies
from mailserver.accounts.table import AccountsFile, account_key
from mailserver.authentication.sealing import KeyPlace, Unsealable, read_key, seal, unseal
from mailserver.cli.accounts import changing
from mailserver.cli.asking import ask_server
from mailserver.cli.changing import change_lines, reload_server
from mailserver.cli.moving import Moves
from mailserver.cli.output import Unable, as_json, plain, say
from mailserver.cli.purge import maildir_of
from mailserver.cli.references import named
from mailserver.config import Configuration, ConfigurationError, Fault
from mailserver.config.draft import Draft, Unchangeable
from mailserver.config.faults import key_text
from mailserver.control.client import ControlError, NoServer
from mailserver.processes.identity import as_owner_of

__all__ = ["Rename", "add_rename_options", "carry_out"]

ByAddress = Mapping[str, str]


def add_rename_options(parser: argparse.ArgumentParser) -> None:
    """Declare what each rename takes."""
    parser.add_argument("--mail-stays", action="store_true", help="move no Maildirs: they are moved, or another program's")


@dataclass
class Rename:
    """`accounts` by address (old and new), `change` of the configuration, `words` that must not be named there any more."""

    configuration: Configuration
    file: AccountsFile | None
    accounts: ByAddress
    change: Callable[[Draft], None]
    words: frozenset[str]
    unsealed: list[str] = field(default_factory=list)

    def reseal(self, account: Account, new: str) -> str | None:
        """The readable password is sealed for its account by name."""
        place = KeyPlace(self.configuration.keys_path, self.configuration.data)
        try:
            with as_owner_of(self.configuration.data):
                key = read_key(place, make=False)
            secret = unseal(account.secret or "", account_key(account.address), key).decode("utf-8")
        except (OSError, Unsealable):
            if account.address not in self.unsealed:
                self.unsealed.append(account.address)
            return None
        return seal(secret, account_key(new), key)


def carry_out(options: argparse.Namespace, rename: Rename) -> list[str]:
    """Do it, and say what was done; return the lines that have changed in the configuration.

    Raises `Unable` and `ConfigurationError`, after everything was put back.
    """
    paths = [] if options.mail_stays else [_paths(rename, old, new) for old, new in rename.accounts.items()]
    changes = _changes(options.config, rename.change)
    lines = change_lines(options, rename.change, dry_run=True) if changes else []
    if changes and not options.reload and not options.dry_run and _runs(rename.configuration.data):
        raise Unable(
            f"{options.config} changes with it, and the running server has to take that up meanwhile: say --reload "
            "(--dry-run shows the lines)"
        )
    _try_file(rename)
    moves = Moves()
    if not options.dry_run:
        for old, new in paths:
            _or_back(moves, lambda old=old, new=new: moves.make(old, new))  # type: ignore[misc]
        if changes:
            _or_back(moves, lambda: _change_both(options, rename))
        if rename.file is not None and rename.accounts:
            file = rename.file
            try:
                changing(file, lambda: become(file, rename.accounts, rename.reseal, over_copies=bool(changes)))
            except (Unable, ConfigurationError) as error:
                if not changes:
                    moves.take_back()
                    raise
                both = "the configuration has changed, and the accounts stand under both names: remove the old ones then"
                raise Unable(f"{error}; {both}", getattr(error, "code", 1)) from error
    _tell(options, rename, lines, paths, moves)
    return lines


def _paths(rename: Rename, old: str, new: str) -> tuple[str, str]:
    return maildir_of(rename.configuration, old, "moving"), maildir_of(rename.configuration, new, "moving")


def _changes(config: str, change: Callable[[Draft], None]) -> bool:
    """Whether there is anything to change: who may not write the file may still rename what it does not name."""
    draft = Draft(_text(config))
    before = draft.text
    try:
        change(draft)
    except Unchangeable:
        why = "names what shall be renamed in a form that commands cannot change: edit it by hand"
        raise ConfigurationError([Fault(config, 1, "", why)]) from None
    return draft.text != before


def _text(config: str) -> str:
    with open(config, encoding="utf-8-sig", newline="") as file:
        return file.read()


def _try_file(rename: Rename) -> None:
    """All that the accounts file could have against it."""
    if rename.file is not None and rename.accounts:
        file = rename.file
        changing(file, lambda: become(file, rename.accounts, rename.reseal, dry_run=True))


def _change_both(options: argparse.Namespace, rename: Rename) -> None:
    """The accounts under both names, then the configuration, taken up by the server.  Undone where one of the steps fails."""
    file = rename.file
    before = _text(options.config)
    if file is not None and rename.accounts:
        changing(file, lambda: add_copies(file, rename.accounts, rename.reseal))
    changed = False
    try:
        change_lines(options, rename.change)
        changed = True
        if options.reload:
            reload_server(options)
    except (Unable, ConfigurationError) as error:
        if changed:
            change_lines(options, lambda draft: draft.become(before))
        if file is not None and rename.accounts:
            changing(file, lambda: remove_copies(file, rename.accounts))
        if isinstance(error, Unable):
            raise Unable(f"{error}; it was put back, nothing is changed", error.code) from error
        raise


def _or_back(moves: Moves, step: Callable[[], None]) -> None:
    try:
        step()
    except BaseException:
        moves.take_back()
        raise


def _runs(data: str) -> bool:
    try:
        ask_server(data, "status", {})
    except NoServer:
        return False
    except ControlError:
        pass
    return True


def _tell(
    options: argparse.Namespace, rename: Rename, lines: list[str], paths: list[tuple[str, str]], moves: Moves
) -> None:
    left = [] if options.dry_run else [key_text(path) for path in named(tomllib.loads(_text(options.config)), rename.words)]
    if options.json:
        renamed = [{"account": old, "renamed": new} for old, new in rename.accounts.items()]
        as_json({"accounts": renamed, "changed": lines, "links": list(moves.links), "left": left, "dry_run": options.dry_run})
        return
    say(*map(plain, lines))
    for old, new in rename.accounts.items():
        say(f"{plain(old)}: {'would be ' if options.dry_run else ''}{plain(new)}")
    if options.dry_run:
        say(*[f"{plain(old)} -> {plain(new)}" for old, new in paths if old != new])
        return
    for path in moves.links:
        say(f"{plain(path)} is a link now, for mail on its way by the old name: leave it some days, then remove it.")
    for account in rename.unsealed:
        say(f"{plain(account)}: no CRAM-MD5 until the next log-in by PLAIN: the readable password could not be opened.")
    for place in left:
        say(f"{plain(options.config)} still names it: {plain(place)}")
