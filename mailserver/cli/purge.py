"""A removed account's Maildir, removed as well: for good."""

from __future__ import annotations

import os
import shutil
import sys
from typing import TYPE_CHECKING

from mailserver.accounts.table import account_key
from mailserver.cli.output import EX_IOERR, Unable, plain
from mailserver.processes.identity import as_owner_of

if TYPE_CHECKING:
    from mailserver.config import Configuration

__all__ = ["confirmed", "maildir_of", "purge"]


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
    """Ask on the terminal.  Raises `Unable` where the answer is no, or nobody can be asked."""
    if not sys.stdin.isatty():
        raise Unable("there is no terminal to ask on: --yes does it without a question", 2)
    sys.stderr.write(f"Remove {plain(address)} and all mail in {plain(path)} for good? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise Unable("nothing was changed")


def purge(path: str) -> bool:
    """Remove the Maildir; False where there is none.  Links are not followed.  Raises `Unable`.

    It is moved aside first, by a name that no user has: a delivery that is under way finds it whole, or not at all.
    """
    if not os.path.lexists(path):
        return False
    folder, name = os.path.split(path)
    aside = os.path.join(folder, f".removed-{os.getpid()}-{name}"[:255])
    try:
        with as_owner_of(folder):
            if os.path.islink(path) or not os.path.isdir(path):
                raise Unable(f"the account is removed, but not its mail: {plain(path)} is no folder", EX_IOERR)
            os.rename(path, aside)
            shutil.rmtree(aside)
    except OSError as error:
        raise Unable(f"the account is removed, but not all of its mail: {error}", EX_IOERR) from error
    return True
