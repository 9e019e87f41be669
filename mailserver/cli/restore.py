"""``mailserver restore``: a backup's queue into a data folder that has none; all of it is held, and told."""

from __future__ import annotations

import argparse
import contextlib
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from os import EX_UNAVAILABLE
from typing import TYPE_CHECKING, Any

from mailserver.cli.asking import data_directory
from mailserver.cli.output import EX_IOERR, Unable, age, as_json, moment, plain, say, table
from mailserver.mail.faults import StorageFault
from mailserver.processes.identity import as_owner_of

if TYPE_CHECKING:
    from mailserver.cli.delivered_since import Held
    from mailserver.mail.answers import Mailbox

__all__ = ["add_to"]

ROWS_MOST = 50
ROADS = "explain.db"


def add_to(commands: Any, common: argparse.ArgumentParser, summary: str) -> None:
    """Declare the command."""
    restore = commands.add_parser("restore", parents=[common], help=summary, description=summary.capitalize() + ".")
    restore.add_argument("directory", metavar="DIR", help="what `mailserver backup` has made")
    restore.add_argument("--roads", metavar="FILE", default="", help="explain.db of the old server: what it has delivered since")
    restore.add_argument("--look", action="store_true", help="change nothing: tell again what is known of the mail that is held")
    restore.set_defaults(run=restore_backup)


def restore_backup(options: argparse.Namespace) -> int:
    """Restore a backup.  Return 1 where the folder is not a backup, or a queue exists already."""
    from mailserver.cli.delivered_since import held_mail, roads_end
    from mailserver.observe.roads import RoadsUnreadable
    from mailserver.queue.admin.backup import NoBackup, read_manifest, restore
    from mailserver.queue.lock import QueueInUse, lock_directory

    data, source = data_directory(options.config), os.path.abspath(options.directory)
    if not os.path.isdir(data):
        raise Unable(f"{data} is not there: make it for the server's user, with mode 0700, as at the installation")
    roads, path_of = os.path.abspath(options.roads) if options.roads else "", _path_of(options.config)
    is_whole = bool(roads) or not options.look  # this server may have run since, and have added to roads of its own
    try:
        with contextlib.ExitStack() as locked, as_owner_of(data):
            if not options.look:  # first of all: a server that runs writes its roads, which may be busy then
                locked.callback(os.close, lock_directory(data))
            roads = roads or _own_roads(data)
            end = roads_end(roads) if roads else None
            found = read_manifest(source) if options.look else restore(source, data)
            if end is not None and end < found.made_at:
                roads, end = "", None  # they end before the backup was made: nothing of it is known from them
            held = list(held_mail(data, path_of, roads, is_whole=is_whole))
    except QueueInUse as error:
        raise Unable("stop the server first: it has the data folder", EX_UNAVAILABLE) from error
    except NoBackup as error:
        raise Unable(str(error)) from error
    except (StorageFault, OSError, RoadsUnreadable) as error:
        raise Unable(str(error), EX_IOERR) from error
    if options.json:
        listed = [asdict(one) for one in held]
        as_json({"data": data, "messages": found.messages, "made_at": found.made_at, "roads_end": end, "held": listed})
        return 0
    ago = age(time.time() - found.made_at)
    if not options.look:
        say(f"{found.messages} messages of {moment(found.made_at)} ({ago} ago) are in the queue, all of them held.")
        if found.reports:
            say(f"So are {found.reports} reports of success, which were owed then.")
    _tell(held, end)
    say("`mailserver queue release …` sends, `mailserver queue drop …` removes; --json lists all, --look tells this again.")
    if not options.look:
        say(f"The accounts file and the configuration are in {plain(source)}; put them back by hand.")
    return 0


def _tell(held: Sequence[Held], end: float | None) -> None:
    from mailserver.cli.delivered_since import Known

    when = "" if end is None else f" by {moment(end)}, where the roads end"
    for known, words in (
        (Known.DELIVERED, "have been delivered since, for sure: to release them would deliver them twice"),
        (Known.UNKNOWN, "may have been delivered since; nothing here knows (--roads FILE, or the Maildirs, could tell)"),
        (Known.WAITING, f"had not been delivered{when}"),
    ):
        some = [one for one in held if one.known is known]
        if not some:
            continue
        say("", f"{len(some)} {words}:")
        rows = [
            (one.id, one.sender or "<>", one.recipient, "the report of success" if one.is_report else one.destination, one.why)
            for one in some[:ROWS_MOST]
        ]
        table(("ID", "SENDER", "RECIPIENT", "DESTINATION", "WHY"), rows)
        if len(some) > ROWS_MOST:
            say(f"and {len(some) - ROWS_MOST} more")
    if held:
        say("")


def _own_roads(data: str) -> str:
    path = os.path.join(data, ROADS)
    return path if os.path.exists(path) else ""


def _path_of(config: str) -> Callable[[Mailbox], str | None]:
    """Where Maildirs lie by the configuration.  What has a fault, or is not in order yet, names none."""
    from mailserver.config import ConfigurationError, load
    from mailserver.delivery.maildir import MaildirOptions
    from mailserver.delivery.names import PathTemplate, TemplateError
    from mailserver.plugins.catalogue import discover

    try:
        configuration = load(config, discover().options_of)
        options = configuration.delivery.options
        if not isinstance(options, MaildirOptions):
            return lambda box: None
        template = PathTemplate(options.path, data_directory=configuration.data)
    except (ConfigurationError, TemplateError):
        return lambda box: None

    def path(box: Mailbox) -> str | None:
        if template.needs_home:
            return None
        try:
            return template.path(user=box.user, domain=box.domain)
        except TemplateError:
            return None

    return path
