"""``mailserver backup``: the queue of a server that may be running, and what else it keeps."""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import asdict
from typing import Any

from mailserver.cli.output import EX_IOERR, Unable, as_json, plain, say
from mailserver.mail.faults import StorageFault
from mailserver.processes.identity import as_owner_of

__all__ = ["add_to", "make_folder"]


def add_to(commands: Any, common: argparse.ArgumentParser, summary: str) -> None:
    """Declare the command."""
    backup = commands.add_parser("backup", parents=[common], help=summary, description=summary.capitalize() + ".")
    backup.add_argument("directory", metavar="DIR", help="a folder that is new, or empty")
    backup.set_defaults(run=make_backup)


def make_backup(options: argparse.Namespace) -> int:
    """Copy queue, state, accounts and configuration.  Return 1 where files are missing in the queue itself."""
    from mailserver.config import load
    from mailserver.queue.admin.backup import NoBackup, back_up

    configuration = load(options.config)
    target = os.path.abspath(options.directory)
    files = [options.config, *_accounts_file(configuration)]
    try:
        make_folder(target, configuration.data)
        with as_owner_of(configuration.data):
            found = back_up(configuration.data, target, time.time(), files)
    except NoBackup as error:
        raise Unable(str(error)) from error
    except (StorageFault, OSError) as error:
        raise Unable(f"{error}; {plain(target)} is no whole backup", EX_IOERR) from error
    if options.json:
        as_json({"directory": target, **asdict(found)})
        return 1 if found.damaged else 0
    say(f"{found.messages} messages are in {plain(target)}, all of them held.")
    if found.settled_meanwhile:
        say(f"{found.settled_meanwhile} more left the queue while they were copied, and are not.")
    if found.reports:
        say(f"{found.reports} reports of success were owed, and are held, too.")
    if found.damaged:
        say(f"The files of {found.damaged} of them are missing in the queue itself: they are damaged.")
    for name in found.left_out:
        say(f"{name} is damaged, and is not there.")
    say(
        "With them the state, the records, what was learnt, the accounts file and the configuration; not the Maildirs, the keys, "
        "nor what `mailserver explain` knows."
    )
    return 1 if found.damaged else 0


def _accounts_file(configuration: Any) -> list[str]:
    options = configuration.accounts.options
    if configuration.accounts.use != "file" or not isinstance(options, dict):
        return []
    path = os.path.join(configuration.directory, str(options.get("path", "accounts.toml")))
    return [path] if os.path.exists(path) else []


def make_folder(target: str, data: str) -> None:
    """For the server's user alone: what is copied is read, and written, with his rights.

    Folders above it that are not there are made as well, as mkdir makes them.  Raises OSError.
    """
    if not os.path.isdir(target):
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.mkdir(target, 0o700)
    if os.geteuid() == 0:
        owner = os.stat(data)
        descriptor = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if not os.listdir(descriptor):
                os.fchown(descriptor, owner.st_uid, owner.st_gid)
        finally:
            os.close(descriptor)
