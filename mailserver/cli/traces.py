"""``mailserver traces``: the roads of messages as traces of OpenTelemetry, to a collector of the operator's.

It is a program beside the server: what it does, and whether it runs, makes no difference to mail.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from os import EX_CONFIG, EX_TEMPFAIL, EX_UNAVAILABLE
from typing import Any

from mailserver.cli.explain import ROADS
from mailserver.cli.output import EX_IOERR, Unable, age, as_json, plain, say

__all__ = ["LEDGER", "add_to"]

LEDGER = "traces.db"
POLL_SECONDS = 2.0
PAUSE_SECONDS, PAUSE_SECONDS_MOST = 1.0, 60.0  # before a collector that is away is tried again
HEADERS_MOST, HEADER_OCTETS_MOST = 32, 16_384


def add_to(commands: Any, common: argparse.ArgumentParser, summary: str) -> None:
    """Declare the command."""
    traces = commands.add_parser("traces", help=summary, description=summary.capitalize() + ".")
    verbs = traces.add_subparsers(title="commands", metavar="VERB", required=True)
    export = verbs.add_parser("export", parents=[common], help="bring what is new to the collector of [traces]")
    export.add_argument("--follow", action="store_true", help="go on, and wait for a collector that is away")
    export.add_argument("--again", action="store_true", help="all that is kept, also what the collector has: with the same ids")
    export.set_defaults(run=_export)
    status = verbs.add_parser("status", parents=[common], help="how far it has come, and how much waits")
    status.set_defaults(run=_status)
    id = verbs.add_parser("id", parents=[common], help="the id of a message's trace")
    id.add_argument("message", metavar="ID", help="the message's whole id")
    id.set_defaults(run=_id, needs_configuration=False)


def _export(options: argparse.Namespace) -> int:
    """Return 0 where all has been taken, 75 where the collector is away: nothing is lost then."""
    from mailserver.config import load
    from mailserver.plugins.catalogue import discover
    from mailserver.processes.identity import as_owner_of

    configuration = load(options.config, discover().options_of)
    table = configuration.traces
    if table.endpoint is None:
        raise Unable("[traces] names no endpoint: say where the collector is", EX_CONFIG)
    headers = {} if table.headers_file is None else headers_of(table.headers_file)
    try:
        from mailserver.traces.otlp import Collector
    except ImportError as error:
        raise Unable(f"this needs the extra otel, pip install 'mailserver[otel]' ({error})", EX_UNAVAILABLE) from error
    ca_file = table.ca_file or ""
    if ca_file and not os.access(ca_file, os.R_OK):
        raise Unable(f"{ca_file}: it cannot be read", EX_IOERR)
    collector = Collector(
        endpoint=table.endpoint, hostname=configuration.hostname, version=_version(), headers=headers, ca_file=ca_file,
        timeout_seconds=table.timeout,
    )  # fmt: skip
    try:
        with as_owner_of(configuration.data):
            return _exported(configuration.data, table.detail, collector, options)
    finally:
        collector.close()


def _exported(data: str, detail: Any, collector: Any, options: argparse.Namespace) -> int:
    import apsw

    from mailserver.observe.roads import RoadsUnreadable
    from mailserver.traces.export import Export
    from mailserver.traces.ledger import Ledger, LedgerInUse

    path = os.path.join(data, LEDGER)
    try:
        ledger = Ledger(path)
    except LedgerInUse as error:
        raise Unable("another mailserver traces export runs", EX_TEMPFAIL) from error
    except (OSError, apsw.Error) as error:
        raise Unable(f"{path}: {getattr(error, 'strerror', None) or error}", EX_IOERR) from error
    try:
        if options.again:
            ledger.forget()
        before = ledger.place.told
        export = Export(path=os.path.join(data, ROADS), ledger=ledger, detail=detail, send=collector.send, say=_warn)
        try:
            away = follow(export.step, say=_warn, sleep=time.sleep) if options.follow else _until_done(export.step)
        except RoadsUnreadable as error:
            raise Unable(str(error), EX_IOERR) from error
        told = ledger.place.told - before
    except apsw.Error as error:
        raise Unable(f"{path}: {error}", EX_IOERR) from error
    finally:
        ledger.close()
    if options.json:
        as_json({"spans": told, "away": away})
    else:
        say(f"{told} spans have been taken")
    if away:
        _warn(f"the collector has not taken the rest, which stays: {away}")
    return EX_TEMPFAIL if away else 0


def _until_done(step: Callable[[], Any]) -> str:
    """Batch after batch until there is nothing new; "", or why the collector has not taken one."""
    from mailserver.traces.export import Away

    while (done := step()) is not None:
        if isinstance(done, Away):
            return done.why
    return ""


def follow(step: Callable[[], Any], *, say: Callable[[str], None], sleep: Callable[[float], None]) -> str:
    """The same without an end.  What keeps it waiting is said when it begins, when it changes and when it is over."""
    from mailserver.observe.roads import RoadsUnreadable
    from mailserver.traces.export import Away

    pause, trouble = PAUSE_SECONDS, ""
    while True:
        try:
            done = step()
            why = done.why if isinstance(done, Away) else ""
        except RoadsUnreadable as error:  # no mail has come yet, or the file is being put aside
            done, why = None, str(error)
        if why and why != trouble:
            say(f"what is new waits: {why}")
        elif trouble and not why:
            say("it goes on")
        trouble = why
        if why:
            sleep(pause)
            pause = min(PAUSE_SECONDS_MOST, 2 * pause)
            continue
        pause = PAUSE_SECONDS
        if done is None:
            sleep(POLL_SECONDS)


def headers_of(path: str) -> dict[str, str]:
    """The headers in a file, one in a line.  Raises `Unable`, whose words repeat none of it."""
    try:
        with open(path, encoding="ascii") as file:
            lines = [line.strip() for line in file.read(HEADER_OCTETS_MOST).splitlines()]
    except (OSError, ValueError) as error:
        raise Unable(f"{path}: {getattr(error, 'strerror', None) or 'it is no plain text'}", EX_IOERR) from error
    found: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        name, colon, value = line.partition(":")
        if not line or line.startswith("#"):
            continue
        is_name = bool(name) and all(character.isalnum() or character in "!#$%&'*+-.^_`|~" for character in name)
        if not colon or not is_name or not value.strip().isprintable() or len(found) == HEADERS_MOST:
            raise Unable(f"{path}: line {number} is no header, Name: value", EX_IOERR)
        found[name.lower()] = value.strip()
    return found


def _status(options: argparse.Namespace) -> int:
    import apsw

    from mailserver.cli.asking import data_directory
    from mailserver.observe.roads import RoadsUnreadable
    from mailserver.processes.identity import as_owner_of
    from mailserver.traces.ledger import place_in
    from mailserver.traces.reading import rows_behind

    data = data_directory(options.config)
    try:
        with as_owner_of(data):
            place = place_in(os.path.join(data, LEDGER))
            rows, oldest = (None, 0.0) if place is None else rows_behind(os.path.join(data, ROADS), place)
    except (RoadsUnreadable, apsw.Error) as error:
        raise Unable(str(error), EX_IOERR) from error
    if place is None or rows is None:
        words = "mailserver traces export runs now; it says itself what keeps it waiting"
        as_json({"exports": True}) if options.json else say(words)
        return 0
    seconds = max(0.0, time.time() - oldest) if rows else 0.0
    if options.json:
        as_json({"exports": False, "spans": place.told, "rows_waiting": rows, "oldest_seconds": round(seconds, 1)})
    else:
        waits = f"{rows} rows of the roads wait, the oldest for {age(seconds)}" if rows else "nothing waits"
        say(plain(f"{place.told} spans have been taken so far; {waits}"))
    return 0


def _id(options: argparse.Namespace) -> int:
    from mailserver.mail.ids import is_id
    from mailserver.traces.spans import trace_id

    message = options.message.strip().upper()
    if not is_id(message):
        raise Unable(f"{plain(options.message)} is no id: it has sixteen letters and digits")
    found = f"{trace_id(message):032x}"
    as_json({"id": message, "trace": found}) if options.json else say(found)
    return 0


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("mailserver")
    except PackageNotFoundError:
        return "unknown"


def _warn(words: str) -> None:
    print(f"mailserver: {plain(words)}", file=sys.stderr, flush=True)
