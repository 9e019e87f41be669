"""``mailserver import maildir`` and ``import mbox``: mail of another mail store into an account's Maildir."""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import pwd
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, closing, suppress
from dataclasses import replace
from functools import partial
from typing import Any

from mailserver.cli.output import EX_IOERR, Unable, as_json, plain, say
from mailserver.config import Configuration, load
from mailserver.mail.address import AddressError
from mailserver.mail.answers import Mailbox
from mailserver.moving.careful import named_by_others
from mailserver.moving.mail_item import CannotRead, MailFault, MailItem
from mailserver.moving.maildir_source import MaildirSource
from mailserver.moving.maildir_target import MaildirTarget
from mailserver.moving.mbox_source import MboxSource
from mailserver.processes.identity import acting_as

__all__ = ["add_to", "mail_place"]

SHOWN_MOST = 100
UID_MIN = 1000
KINDS = ("auto", "mboxrd", "mboxo", "mboxcl2")


def add_to(actions: Any, common: argparse.ArgumentParser) -> None:
    """Declare the actions."""
    maildir = actions.add_parser("maildir", parents=[common], help="a Maildir with its folders, flags and dates")
    maildir.add_argument("path", metavar="PATH", help="the Maildir: what holds cur and new")
    maildir.set_defaults(run=import_maildir)
    mbox = actions.add_parser("mbox", parents=[common], help="a file of many messages")
    mbox.add_argument("path", metavar="FILE")
    mbox.add_argument("--format", choices=KINDS, default="auto", help="of the four kinds of mbox (default: found out)")
    mbox.set_defaults(run=import_mbox)
    for parser in (maildir, mbox):
        parser.add_argument("user", metavar="USER", help="the account, such as alice@example.org")
        parser.add_argument(
            "--folder", metavar="FOLDER", default="", help="into this folder, such as Archive.2020, not the inbox"
        )


def import_maildir(options: argparse.Namespace) -> int:
    """Import a Maildir.  Return 1 where something of it could not be read."""
    troubles: list[MailFault] = []
    try:
        source = MaildirSource(options.path, troubles.append)
    except OSError as error:
        raise Unable(f"{options.path}: {error.strerror}", EX_IOERR) from error
    with closing(source):
        _must_be_meant(options.path, source.fileno())
        if not source.is_one:
            raise Unable(f"{options.path} is no Maildir: it has neither cur nor new, nor a folder that has")
        above = _folder(options.folder)
        items = (_below(above, item) for item in source)
        return _imported(options, items, troubles, subscriptions=[] if above else source.subscriptions())


def import_mbox(options: argparse.Namespace) -> int:
    """Import an mbox file.  Return 1 where something of it could not be read."""
    troubles: list[MailFault] = []
    try:
        source = MboxSource(options.path, troubles.append, folder=_folder(options.folder), kind=options.format)
    except OSError as error:
        raise Unable(f"{options.path}: {error.strerror}", EX_IOERR) from error
    with closing(source):
        _must_be_meant(options.path, source.fileno())
        try:
            fcntl.lockf(source, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:
            raise Unable(f"{options.path}: another program is writing to it", EX_IOERR) from error
        return _imported(options, source, troubles)


def mail_place(
    configuration: Configuration, address: str
) -> tuple[str, Mailbox, Callable[[], AbstractContextManager[None]]]:
    """Where the account's mail stands, and in whose name it is written.  Raises `Unable`, and `AddressError`."""
    from mailserver.accounts.table import account_key
    from mailserver.cli.purge import as_keeper_of
    from mailserver.delivery.maildir import MaildirOptions
    from mailserver.delivery.names import PathTemplate, TemplateError

    options = configuration.delivery.options
    if not isinstance(options, MaildirOptions):
        use = configuration.delivery.use
        raise Unable(
            f'[delivery] use = "{use}": the mail is in another store, whose own import takes it (doveadm import)'
        )
    local, _, domain = account_key(address).rpartition("@")
    try:
        template = PathTemplate(options.path, data_directory=configuration.data)
        if not template.needs_home:
            path = template.path(user=local, domain=domain)
            return path, Mailbox(local, domain), partial(as_keeper_of, configuration.data, os.path.dirname(path))
        user = pwd.getpwnam(local)
        if user.pw_uid < UID_MIN:
            raise Unable(f"{local} is a user of the system")
        return (
            template.path(user=local, domain=domain, home=user.pw_dir),
            Mailbox(local, domain),
            partial(acting_as, user.pw_uid),
        )
    except KeyError as error:
        raise Unable(f"there is no user {local}") from error
    except TemplateError as error:
        raise Unable(f"[delivery] path: {error}") from error


def _imported(
    options: argparse.Namespace,
    items: Iterable[MailItem],
    troubles: list[MailFault],
    *,
    subscriptions: Iterable[str] = (),
) -> int:
    from mailserver.plugins.catalogue import discover

    configuration = load(options.config, discover().options_of)
    try:
        _must_exist(options, configuration)
        path, mailbox, acting = mail_place(configuration, options.user)
    except AddressError as error:
        raise Unable(f"this is not an address: {error}", 2) from error
    done = there = 0
    try:
        with closing(MaildirTarget(path, mailbox, configuration.hostname, acting, troubles.append)) as target:
            for item in items:
                try:
                    is_new = target.put(item)
                except CannotRead as error:
                    troubles.append(MailFault(item.where, str(error)))
                    continue
                done, there = done + is_new, there + (not is_new)
            target.finish()
            if listed := list(subscriptions):
                target.subscribe(listed)
            folders = len(target.folders)
            with acting(), suppress(FileNotFoundError):
                os.unlink(os.path.join(path, "maildirsize"))  # who keeps a quota there counts anew
    except CannotRead as error:
        raise Unable(str(error), EX_IOERR) from error
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise Unable(
            f"{where}{error.strerror}; the same command, given again, goes on where it stopped", EX_IOERR
        ) from error
    _tell(options, done, there, folders, troubles)
    return 1 if troubles else 0


def _tell(options: argparse.Namespace, done: int, there: int, folders: int, troubles: list[MailFault]) -> None:
    if options.json:
        told = [{"where": one.where, "why": one.why} for one in troubles]
        as_json({"user": options.user, "imported": done, "were_there": there, "folders": folders, "troubles": told})
        return
    say(f"{plain(options.user)}: {done} messages imported into {folders} folders, {there} had been imported before.")
    say(*[f"{plain(one.where)}: {plain(one.why)}" for one in troubles[:SHOWN_MOST]])
    if len(troubles) > SHOWN_MOST:
        say(f"and {len(troubles) - SHOWN_MOST} more")


def _must_be_meant(path: str, descriptor: int) -> None:
    if why := named_by_others(path, descriptor):
        raise Unable(why)


def _must_exist(options: argparse.Namespace, configuration: Configuration) -> None:
    """The account is one.  Where accounts are not in a file nobody is asked."""
    from mailserver.accounts.file import FileDirectoryOptions
    from mailserver.accounts.table import AccountsFile, key_of
    from mailserver.cli.accounts import reading

    accounts = configuration.accounts.options
    if not isinstance(accounts, FileDirectoryOptions):
        return
    with reading(configuration):
        found = AccountsFile(accounts.path, configuration.data).list()
    if key_of(options.user) not in {key_of(one.address) for one in found}:
        raise Unable(f"there is no account {options.user}: mailserver user add makes it")


def _folder(text: str) -> tuple[str, ...]:
    parts = tuple(text.split(".")) if text else ()
    if not all(parts) or any("/" in part for part in parts):
        raise Unable(f"{text!r} is no folder: such as Archive.2020", 2)
    return parts


def _below(above: tuple[str, ...], item: MailItem) -> MailItem:
    """The message below this folder; there it is another one than without."""
    if not above:
        return item
    key = hashlib.sha256("\0".join((item.key, *above)).encode("utf-8", "surrogateescape")).hexdigest()[: len(item.key)]
    return replace(item, key=key, folder=(*above, *item.folder))
