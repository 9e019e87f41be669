"""``mailserver restore``: a backup's queue into a data folder that has none; all of it is held."""

from __future__ import annotations

import argparse
import os
import time
from typing import Any

from mailserver.cli.asking import data_directory
from mailserver.cli.output import EX_IOERR, Unable, age, as_json, moment, plain, say
from mailserver.identity import as_owner_of
from mailserver.mail.faults import StorageFault

__all__ = ["add_to"]

EX_UNAVAILABLE = 69


def add_to(commands: Any, common: argparse.ArgumentParser, summary: str) -> None:
    """Declare the command."""
    restore = commands.add_parser("restore", parents=[common], help=summary, description=summary.capitalize() + ".")
    restore.add_argument("directory", metavar="DIR", help="what `mailserver backup` has made")
    restore.set_defaults(run=restore_backup)


def restore_backup(options: argparse.Namespace) -> int:
    """1 where it is no backup, or there is a queue already."""
    from mailserver.queue.backup import NoBackup, restore
    from mailserver.queue.lock import QueueInUse, lock_directory

    data, source = data_directory(options.config), os.path.abspath(options.directory)
    if not os.path.isdir(data):
        raise Unable(f"{data} is not there: make it for the server's user, with mode 0700, as at the installation")
    try:
        with as_owner_of(data):
            lock = lock_directory(data)
            try:
                found = restore(source, data)
            finally:
                os.close(lock)
    except QueueInUse as error:
        raise Unable("stop the server first: it has the data folder", EX_UNAVAILABLE) from error
    except NoBackup as error:
        raise Unable(str(error)) from error
    except (StorageFault, OSError) as error:
        raise Unable(str(error), EX_IOERR) from error
    if options.json:
        as_json({"data": data, "messages": found.messages, "made_at": found.made_at})
        return 0
    ago = age(time.time() - found.made_at)
    say(
        f"{found.messages} messages of {moment(found.made_at)} ({ago} ago) are in the queue, all of them held.",
        "Each may have been delivered since: compare with what the old server tells (`mailserver explain`), then",
        "`mailserver queue list --state held`, `mailserver queue release …`, `mailserver queue drop …`.",
        f"The accounts file and the configuration are in {plain(source)}; put them back by hand.",
    )
    return 0
