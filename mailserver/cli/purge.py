"""Removes a removed account's Maildir for good."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from mailserver.accounts.table import account_key
from mailserver.cli.output import EX_IOERR, Unable, plain
from mailserver.config.ownership import why_not_of
from mailserver.processes.identity import as_owner_of

if TYPE_CHECKING:
    from mailserver.config import Configuration

__all__ = ["as_keeper_of", "confirmed", "maildir_of", "purge"]


def maildir_of(configuration: Configuration, address: str, what: str = "--purge") -> str:
    """For `what`, where the account's mail stands.  Raises `Unable` where this command cannot know, and `AddressError`."""
    from mailserver.delivery.maildir import MaildirOptions
    from mailserver.delivery.names import PathTemplate, TemplateError

    options = configuration.delivery.options
    if not isinstance(options, MaildirOptions):
        use = configuration.delivery.use
        raise Unable(f'{what} knows Maildirs, and [delivery] use = "{use}": nothing was changed')
    local, _, domain = account_key(address).rpartition("@")
    try:
        template = PathTemplate(options.path, data_directory=configuration.data)
        if template.needs_home:
            raise Unable(f"{what} leaves alone mail in the homes of the host's users: nothing was changed")
        return template.path(user=local, domain=domain)
    except TemplateError as error:
        raise Unable(f"[delivery] path: {error}") from error


def confirmed(address: str, path: str) -> None:
    """Ask for confirmation on the terminal.  Raises `Unable` where it is refused, or where there is no terminal."""
    if not sys.stdin.isatty():
        raise Unable("there is no terminal to ask on: --yes does it without a question", 2)
    sys.stderr.write(f"Remove {plain(address)} and all mail in {plain(path)} for good? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise Unable("nothing was changed")


def as_keeper_of(data: str, *folders: str) -> AbstractContextManager[None]:
    """For changes in folders of Maildirs: as the owner of the `data` folder, as whom the server works in them.

    A folder's own owner is not asked: the server's user can put a link to one of root's in its place.  Root stays root where
    the folders are root's alone.
    """
    try:
        if all(not why_not_of(folder) for folder in folders):
            return contextlib.nullcontext()
    except OSError:  # one is not there
        pass
    return as_owner_of(data)


def purge(path: str, data: str) -> bool:
    """Remove the Maildir; False where there is none.  Links are not followed.  Raises `Unable`.  `data`: as for `as_keeper_of`.

    It is moved aside first, by a name that no user has: a delivery that is under way finds it whole, or not at all.
    """
    folder, name = os.path.split(path)
    aside = os.path.join(folder, f".removed-{os.getpid()}-{name}"[:255])
    try:
        with as_keeper_of(data, folder):
            if not os.path.lexists(path):
                return False
            if os.path.islink(path) or not os.path.isdir(path):
                raise Unable(f"the account is removed, but not its mail: {plain(path)} is no folder", EX_IOERR)
            os.rename(path, aside)
            shutil.rmtree(aside)
    except OSError as error:
        raise Unable(f"the account is removed, but not all of its mail: {error}", EX_IOERR) from error
    return True
