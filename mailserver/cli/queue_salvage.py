"""``mailserver queue salvage``: out of a damaged queue what can still be read."""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict
from os import EX_UNAVAILABLE
from typing import Any

from mailserver.cli.asking import data_directory
from mailserver.cli.output import EX_IOERR, Unable, as_json, plain, say
from mailserver.mail.faults import StorageFault
from mailserver.processes.identity import as_owner_of

__all__ = ["add_salvage"]

SUMMARY = "write what can still be read of a damaged queue into a new one (server stopped)"
LISTED = 50


def add_salvage(actions: Any, common: argparse.ArgumentParser) -> None:
    """Declare the command."""
    parser = actions.add_parser("salvage", parents=[common], help=SUMMARY, description=SUMMARY.capitalize() + ".")
    parser.set_defaults(run=salvage_queue)


def salvage_queue(options: argparse.Namespace) -> int:
    """Salvage the queue.  Return 1 where something is lost."""
    from mailserver.queue.admin.salvage import salvage
    from mailserver.queue.lock import QueueInUse

    data = data_directory(options.config)
    try:
        with as_owner_of(data):
            found = salvage(data, time.time())
    except QueueInUse as error:
        raise Unable("stop the server first: it has the queue", EX_UNAVAILABLE) from error
    except (StorageFault, OSError) as error:
        raise Unable(str(error), EX_IOERR) from error
    if options.json:
        as_json(asdict(found))
        return 1 if found.lost or found.gaps else 0
    say(f"{found.kept} messages are in the new queue; the damaged file is {plain(found.place)}.")
    for id in found.lost[:LISTED]:
        say(f"{id}  could not be read (the last four characters of its id are not known)")
    if len(found.lost) > LISTED:
        say(f"… and {len(found.lost) - LISTED} more")
    if found.gaps:
        say(f"{found.gaps} places of the file could not be read: nobody knows how many messages stood there.")
    if found.repeated:
        say(f"{len(found.repeated)} messages have lost what is known of their deliveries and go to all their recipients.")
    if found.files:
        say(f"{found.files} files of the spool belong to none of the messages; they are in {plain(found.files_at)}.")
    return 1 if found.lost or found.gaps else 0
