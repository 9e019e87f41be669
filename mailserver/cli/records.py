"""``mailserver records``: the durable records that components keep of people: how many, all of them, and back again."""

from __future__ import annotations

import argparse
import base64
import binascii
import json
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from mailserver.cli.asking import data_directory
from mailserver.cli.output import EX_IOERR, Unable, as_json, plain, say, size, table
from mailserver.mail.faults import StorageFault
from mailserver.processes.identity import as_owner_of

if TYPE_CHECKING:
    import apsw

__all__ = ["add_to", "put_records"]

Record = tuple[str, str, bytes]  # space, key, value
SPACE_OCTETS_MOST = 255


def add_to(commands: Any, common: argparse.ArgumentParser, summary: str) -> None:
    """Declare the command."""
    records = commands.add_parser("records", help=summary)
    actions = records.add_subparsers(title="actions", metavar="ACTION", required=True)
    listing = actions.add_parser("list", parents=[common], help="which components keep records, and how many")
    listing.set_defaults(run=list_records)
    export = actions.add_parser("export", parents=[common], help="print them, one JSON object a line")
    export.add_argument("--space", metavar="SPACE", default="", help="of this component alone, as `list` names it")
    export.set_defaults(run=export_records)
    importing = actions.add_parser("import", parents=[common], help="put exported records back, all of them or none")
    importing.add_argument("file", metavar="FILE", help="what `export` has printed; - is standard input")
    importing.add_argument("--replace", action="store_true", help="also where another value stands under the key")
    importing.set_defaults(run=import_records)


def list_records(options: argparse.Namespace) -> int:
    """Print each space with its size."""
    from mailserver.state_store.records_file import spaces_of

    with opened(options.config) as connection:
        found = [] if connection is None else list(spaces_of(connection))
    if options.json:
        as_json([{"space": space, "records": count, "octets": octets} for space, count, octets in found])
        return 0
    if found:
        table(("SPACE", " RECORDS", " SIZE"), [(space, str(count), size(octets)) for space, count, octets in found])
    else:
        say("No component has kept records.")
    return 0


def export_records(options: argparse.Namespace) -> int:
    """Print the records of one moment.  Return 1 where there are none."""
    found = False
    with opened(options.config) as connection:
        sql = "SELECT space, key, value FROM record WHERE ? IN ('', space) ORDER BY space, key"
        rows: Iterable[Any] = () if connection is None else connection.execute(sql, (options.space,))
        for space, key, value in rows:
            found = True
            say(json.dumps({"space": space, "key": key, "value": base64.b64encode(value).decode("ascii")}))
    if not found:
        print("mailserver: there are no such records", file=sys.stderr)
    return 0 if found else 1


def import_records(options: argparse.Namespace) -> int:
    """Put records back, in one transaction.  Return 1 where another value stands under a key, and nothing was changed."""
    with _lines(options.file) as lines:
        count = put_records(options.config, lines, replace=options.replace)
    if options.json:
        as_json({"records": count})
    else:
        say(f"{count} records are kept.")
    return 0


def put_records(config: str, lines: Iterable[str], *, replace: bool = False) -> int:
    """Put the records of an export's lines into the records, all or none; return how many.  Raises `Unable`."""
    from mailserver.state_store.records_file import record_of, write_record

    records = [_record(line, number) for number, line in enumerate(lines, 1) if line.strip()]
    with opened(config, create=True) as connection:
        if connection is None:
            raise Unable("there is no data folder")
        connection.execute("BEGIN IMMEDIATE")
        with connection:
            for space, key, value in records:
                there = record_of(connection, space, key)
                if there is not None and there != value and not replace:
                    raise Unable(f"{plain(space)} has another value under {plain(key)!r}; nothing was changed (--replace)")
                write_record(connection, space, key, value)
        connection.execute("COMMIT")
    return len(records)


@contextmanager
def opened(config: str, *, create: bool = False) -> Iterator[apsw.Connection | None]:
    """The file, with its owner's rights; a server that runs may use it as well.  None where there is none, unless it is made."""
    import apsw

    from mailserver.state_store.records_file import RECORDS, open_records

    data = data_directory(config)
    path = os.path.join(data, RECORDS)
    try:
        with as_owner_of(data):
            if not create and not os.path.exists(path):
                yield None
                return
            connection = open_records(path)
            try:
                yield connection
            finally:
                connection.close(True)
    except apsw.Error as error:
        raise Unable(f"{path}: {error}", EX_IOERR) from error
    except (StorageFault, OSError) as error:
        raise Unable(str(error), EX_IOERR) from error


@contextmanager
def _lines(path: str) -> Iterator[Iterable[str]]:
    if path == "-":
        yield sys.stdin
        return
    try:
        file = open(path, encoding="utf-8")
    except OSError as error:
        raise Unable(f"{plain(path)}: {error.strerror}", EX_IOERR) from error
    with file:
        try:
            yield file
        except (OSError, UnicodeDecodeError) as error:
            raise Unable(f"{plain(path)}: {error}", EX_IOERR) from error


def _record(line: str, number: int) -> Record:
    """One line of an export.  Raises `Unable`."""
    from mailserver.state_store.facts import checked_key, checked_value

    try:
        found = json.loads(line)
        space, key = checked_key(found["space"]), checked_key(found["key"])
        value = base64.b64decode(found["value"], validate=True)
        if not space or len(space.encode()) > SPACE_OCTETS_MOST:
            raise ValueError(f"a space has 1 to {SPACE_OCTETS_MOST} octets")
        return space, key, checked_value(value)
    except (ValueError, TypeError, KeyError, RecursionError, binascii.Error) as error:
        raise Unable(f"line {number} is no record: {type(error).__name__}: {plain(str(error))}", 2) from error
