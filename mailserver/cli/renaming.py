"""Renames accounts while the server runs: their mail, their credentials, and all references to them.

At each moment the old name or the new one is complete, and mail on its way arrives.  Where the server does not take the change
up, everything stays as it was:

1. the Maildirs are moved, and a link takes their place (`maildir_move`);
2. what components keep of the users holds for both names (`following`);
3. where the configuration changes, the accounts stand under both names until the server has taken it up;
4. the accounts get their new names;
5. what components keep leaves the old names.

From before 1 to behind 5 the names stand in the `rename_journal`, and nobody else gets one of them.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from os import EX_UNAVAILABLE

from mailserver.accounts.entry import Account
from mailserver.accounts.rename import add_copies, become, remove_copies
from mailserver.accounts.table import AccountsFile, account_key, key_of
from mailserver.authentication.sealing import KeyPlace, Unsealable, read_key, seal, unseal
from mailserver.cli.accounts import changing
from mailserver.cli.asking import ask_server
from mailserver.cli.configuration_change import change_lines, reload_server
from mailserver.cli.following import ask_followers, failures_in
from mailserver.cli.maildir_move import Moves
from mailserver.cli.output import EX_IOERR, Unable, as_json, plain, say
from mailserver.cli.purge import maildir_of
from mailserver.cli.references import named
from mailserver.cli.rename_journal import RenameJournal
from mailserver.config import Configuration, ConfigurationError, Fault
from mailserver.config.draft import Draft, Unchangeable
from mailserver.config.fault_sentences import key_text
from mailserver.control.client import ControlError, NoServer
from mailserver.processes.identity import as_owner_of

__all__ = ["Rename", "add_rename_options", "carry_out", "carry_out_the_end", "was_cut_off_at_its_end"]

LOCK = "rename.lock"
NOT_FOLLOWED = (
    "{why}; all else is renamed.  What they keep stands under the old name still, which nobody else gets: say the same once more"
)

ByAddress = Mapping[str, str]


def add_rename_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options that every rename has."""
    parser.add_argument("--mail-stays", action="store_true", help="move no Maildirs: they are moved, or another program's")


@dataclass
class Rename:
    """`accounts` by address (old and new), `change` of the configuration, `words` that must not be named there any more.

    `is_rest`: an earlier try was cut off when all of them stood under both names.
    """

    configuration: Configuration
    file: AccountsFile | None
    accounts: ByAddress
    change: Callable[[Draft], None]
    words: frozenset[str]
    is_rest: bool = False
    domains: ByAddress = field(default_factory=dict)
    """A domain that is renamed, old and new: what is kept of it follows as well."""
    unsealed: list[str] = field(default_factory=list)

    @property
    def names(self) -> ByAddress:
        """What components and the journal hear of: names in the form in which they are compared."""
        if self.domains:  # with all that is in them
            return {f"@{old}": f"@{new}" for old, new in self.domains.items()}
        pairs = {account_key(old): account_key(new) for old, new in self.accounts.items()}
        return {old: new for old, new in pairs.items() if old != new}

    def reseal(self, account: Account, new: str) -> str | None:
        """Seal a readable password anew, since it is sealed for its account's name."""
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

    Raises `Unable` and `ConfigurationError`, after everything was put back.  Where nobody knows whether the server has taken the
    new names up, everything stands under both, and the same command goes on from there.
    """
    with contextlib.nullcontext() if options.dry_run else _alone(rename.configuration.data):
        return _carry_out(options, rename)


def was_cut_off_at_its_end(configuration: Configuration, names: ByAddress) -> bool:
    """Such a rename was cut off, or somebody could not follow, when the accounts had their new names already."""
    return RenameJournal(configuration.data).has(names)


def carry_out_the_end(options: argparse.Namespace, rename: Rename) -> None:
    """What is left to do of a rename when the accounts have their new names.  Raises `Unable`."""
    if not options.dry_run:
        with _alone(rename.configuration.data):
            if rename.domains and (options.reload or _runs(rename.configuration.data)):
                # Nobody knows whether the server has taken the domain's new name up.
                if not options.reload:
                    words = "has changed with it, and the running server has to take that up first: say --reload"
                    raise Unable(f"{options.config} {words}")
                reload_server(options)
            _complete(rename)
    names = rename.names
    if options.json:
        as_json({"accounts": [{"account": old, "renamed": new} for old, new in names.items()], "dry_run": options.dry_run})
    else:
        say(*[f"{plain(old)}: {'would be ' if options.dry_run else ''}{plain(new)}" for old, new in names.items()])


def _carry_out(options: argparse.Namespace, rename: Rename) -> list[str]:
    paths = [] if options.mail_stays else [_paths(rename, old, new) for old, new in rename.accounts.items()]
    changes = _changes(options.config, rename.change)
    lines = change_lines(options, rename.change, dry_run=True) if changes else []
    moves = Moves(rename.configuration.data)
    moves.stay = was_cut_off = _stand_twice(rename)
    # Accounts that have nothing look like copies of each other: then it is the mail that tells.
    rename.is_rest = rename.is_rest or (was_cut_off and bool(paths) and moves.were_made(paths))
    _try_file(rename)
    if (changes or was_cut_off) and not options.reload and not options.dry_run and _runs(rename.configuration.data):
        raise Unable(
            f"{options.config} {'changes' if changes else 'has changed'} with it, and the running server has to take that up "
            "meanwhile: say --reload (--dry-run shows the lines)"
        )
    journal = RenameJournal(rename.configuration.data)
    if not options.dry_run:
        journal.begin(rename.names)
        try:
            for old, new in paths:
                _or_back(moves, lambda old=old, new=new: moves.make(old, new))  # type: ignore[misc]
        except Exception:
            if not was_cut_off:
                journal.end(rename.names)
            raise
        _begin(rename, moves, journal)
        if changes:
            _change_both(options, rename, moves, journal)
        elif was_cut_off and options.reload:
            reload_server(options)
        if rename.file is not None and rename.accounts:
            file = rename.file
            try:
                changing(file, lambda: become(file, rename.accounts, rename.reseal, over_copies=changes or rename.is_rest))
            except (Unable, ConfigurationError) as error:
                if not changes and not was_cut_off:
                    moves.take_back()
                    _take_back(rename, journal, error)
                    raise
                both = "the configuration has changed, and the accounts stand under both names: remove the old ones then"
                raise Unable(f"{error}; {both}", getattr(error, "code", 1)) from error
    why = "" if options.dry_run else _completed(rename)
    _tell(options, rename, lines, paths, moves, why)
    if why:
        raise Unable(NOT_FOLLOWED.format(why=why), EX_IOERR)
    return lines


def _begin(rename: Rename, moves: Moves, journal: RenameJournal) -> None:
    """What is kept of the old names holds for the new ones, too.  Who cannot do that stops the rename."""
    try:
        why = failures_in(ask_followers(rename.configuration, "begin", rename.names))
        if not why:
            return
        raise Unable(f"{why}; what it keeps of the users would not follow, so nothing was changed", EX_IOERR)
    except Exception as error:
        if not moves.stay:
            moves.take_back()
            _take_back(rename, journal, error)
        raise


def _take_back(rename: Rename, journal: RenameJournal, error: Exception) -> None:
    """The new names keep nothing.  Raises `Unable` where somebody cannot do that: the names stay in the journal then."""
    why = failures_in(ask_followers(rename.configuration, "undo", rename.names))
    if why:
        words = f"{error}; and what they keep stands under the new names, too: {why}; say the same once more"
        raise Unable(words, getattr(error, "code", EX_IOERR)) from error
    journal.end(rename.names)


def _completed(rename: Rename) -> str:
    """What is kept of the users is the new names' alone.  Else who could not do that, and why."""
    why = failures_in(ask_followers(rename.configuration, "complete", rename.names))
    if not why:
        RenameJournal(rename.configuration.data).end(rename.names)
    return why


def _complete(rename: Rename) -> None:
    why = _completed(rename)
    if why:
        raise Unable(NOT_FOLLOWED.format(why=why), EX_IOERR)


@contextlib.contextmanager
def _alone(data: str) -> Iterator[None]:
    """Allow one rename at a time.  A second one of the same accounts would undo the moves of this one.  Raises `Unable`."""
    if not os.path.isdir(data):
        yield
        return
    path = os.path.join(data, LOCK)
    try:
        with as_owner_of(data):
            lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise Unable(f"{path}: {error.strerror or error}", EX_IOERR) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise Unable("another rename is going on: wait for its end", EX_UNAVAILABLE) from None
    finally:
        os.close(lock)


def _stand_twice(rename: Rename) -> bool:
    """An earlier try was cut off when accounts stood under both names; whether the server has taken that up is not known."""
    file = rename.file
    if file is None or not rename.accounts:
        return False
    found = changing(file, file.read)
    keys = [(key_of(old), key_of(new)) for old, new in rename.accounts.items()]
    return any(old != new and old in found and new in found for old, new in keys)


def _paths(rename: Rename, old: str, new: str) -> tuple[str, str]:
    return maildir_of(rename.configuration, old, "moving"), maildir_of(rename.configuration, new, "moving")


def _changes(config: str, change: Callable[[Draft], None]) -> bool:
    """Whether anything changes.  A user who may not write the file may still rename what it does not mention."""
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
    """Try the change to the accounts file without writing, so that its errors come first."""
    if rename.file is not None and rename.accounts:
        file = rename.file
        changing(file, lambda: become(file, rename.accounts, rename.reseal, over_copies=rename.is_rest, dry_run=True))


def _change_both(options: argparse.Namespace, rename: Rename, moves: Moves, journal: RenameJournal) -> None:
    """The accounts under both names, then the configuration, taken up by the server.

    Undone where one of the steps fails, but for a server that does not say whether it has taken the configuration up: if it has,
    it knows the new names alone.
    """
    texts = [_text(options.config)]
    try:
        _or_back(moves, lambda: _copies(rename))
    except Exception as error:
        if not moves.stay:
            _take_back(rename, journal, error)
        raise
    try:
        change_lines(options, lambda draft: _remember(draft, rename.change, texts))
        if options.reload:
            reload_server(options)
    except Exception as error:
        if isinstance(error, Unable) and error.code == EX_UNAVAILABLE:
            raise Unable(f"{error}; all stands under both names: say the same once more", error.code) from error
        _put_back(options, rename, texts)
        moves.take_back()
        if not moves.stay:
            _take_back(rename, journal, error)
        if isinstance(error, Unable):
            raise Unable(f"{error}; it was put back, nothing is changed", error.code) from error
        raise


def _copies(rename: Rename) -> None:
    file = rename.file
    if file is not None and rename.accounts:
        changing(file, lambda: add_copies(file, rename.accounts, rename.reseal, over_copies=rename.is_rest))


def _remember(draft: Draft, change: Callable[[Draft], None], texts: list[str]) -> None:
    change(draft)
    texts[1:] = [draft.text]


def _put_back(options: argparse.Namespace, rename: Rename, texts: list[str]) -> None:
    """The text as it was, where it was changed and nobody else has changed it since; then no copies.  Raises `Unable`."""

    def back(draft: Draft) -> None:
        if draft.text not in texts:
            raise Unable(
                f"{options.config} was changed by somebody else meanwhile: take back there what names the new addresses, and "
                "remove their accounts"
            )
        draft.become(texts[0])

    change_lines(options, back)
    file = rename.file
    if file is not None and rename.accounts:
        changing(file, lambda: remove_copies(file, rename.accounts))


def _or_back(moves: Moves, step: Callable[[], None]) -> None:
    try:
        step()
    except Exception:
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
    options: argparse.Namespace, rename: Rename, lines: list[str], paths: list[tuple[str, str]], moves: Moves, why: str
) -> None:
    left = [] if options.dry_run else [key_text(path) for path in named(tomllib.loads(_text(options.config)), rename.words)]
    if options.json:
        renamed = [{"account": old, "renamed": new} for old, new in rename.accounts.items()]
        as_json({"accounts": renamed, "changed": lines, "links": list(moves.links), "left": left, "dry_run": options.dry_run,
                 **({"not_followed": why} if why else {})})  # fmt: skip
        return
    say(*map(plain, lines))
    for old, new in rename.accounts.items():
        say(f"{plain(old)}: {'would be ' if options.dry_run else ''}{plain(new)}")
    if options.dry_run:
        say(*[f"{plain(old)} -> {plain(new)}" for old, new in paths if old != new])
        return
    for path in moves.links:
        say(
            f"{plain(path)} is a link now, for mail on its way by the old name: leave it some days,"
            " and while filters hold mail for that name (mailserver queue list); then remove it."
        )
    for account in rename.unsealed:
        say(f"{plain(account)}: no CRAM-MD5 until the next login by PLAIN: the readable password could not be opened.")
    for place in left:
        say(f"{plain(options.config)} still names it: {plain(place)}")
