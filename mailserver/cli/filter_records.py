"""Commands of a filter that keeps records: by the server that runs, else in the records themselves."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from mailserver.cli.asking import ask_server
from mailserver.cli.output import EX_IOERR, Unable, as_json, plain, say
from mailserver.config.filter_order import filter_names
from mailserver.control.client import NoServer
from mailserver.mail.faults import StorageFault

if TYPE_CHECKING:
    from mailserver.config import Configuration

__all__ = ["RecordsInFile", "in_records", "names_of", "option_of", "run", "tell"]

SECONDS = 35.0

Act = Callable[[Any, Any], Awaitable[Any]]
"""Of the filter's records and a clock."""


def run(
    configuration: Configuration, use: str, name: str, command: str, given: Mapping[str, Any],
    offline: Callable[[Configuration, str], Callable[[Any, Any], Any]],
) -> Any:
    """The answer of a filter's command.  `name` is the table's, "" for the first with this `use`.

    `offline(configuration, name)` returns what makes the filter's commands of its records and a clock.  Raises `Unable`.
    """  # fmt: skip
    names = names_of(configuration, use)
    name = name or (names[0] if names else "")
    if name not in names:
        words = f"no filter {plain(name)!r} with" if name else "no table  [[filter]]  with"
        raise Unable(f'the configuration has {words}  use = "{use}"')
    question = {"name": name, "command": command, "arguments": dict(given)}
    try:
        return ask_server(configuration.data, "component.run", question, SECONDS)["answer"]
    except NoServer:
        commands = offline(configuration, name)
        space = f"filter/{name}"
        return in_records(configuration, space, lambda records, clock: _called(commands(records, clock), command, given))


def tell(options: argparse.Namespace, answer: Any) -> int:
    """Print what was done."""
    if options.json:
        as_json({"done": answer})
    else:
        say(plain(answer))
    return 0


def names_of(configuration: Configuration, use: str) -> list[str]:
    """What the filters with this `use` are called."""
    names = filter_names([(one.use, one.name) for one in configuration.filter])
    return [name for name, one in zip(names, configuration.filter, strict=True) if one.use == use]


def option_of(configuration: Configuration, name: str, option: str, otherwise: Any) -> Any:
    """An option of the filter's table."""
    names = filter_names([(one.use, one.name) for one in configuration.filter])
    options = configuration.filter[names.index(name)].options or {}
    return options.get(option, otherwise) if isinstance(options, Mapping) else getattr(options, option)


def in_records(configuration: Configuration, space: str, act: Act) -> Any:
    """What `act` returns, of the records of this space as they stand in the file.  Raises `Unable`."""
    from twisted.internet.task import Clock

    from mailserver.cli.without_server import finished, in_place
    from mailserver.interfaces import CannotDo
    from mailserver.processes.identity import as_owner_of
    from mailserver.state_store import RecordStore
    from mailserver.state_store.records_file import RECORDS

    clock = Clock()
    clock.advance(time.time())
    path = os.path.join(configuration.data, RECORDS)
    try:
        with as_owner_of(configuration.data):
            store = RecordStore(path=path, clock=clock, new_threads=in_place)
            finished(store.start())
            try:
                return finished(act(RecordsInFile(store.space(space), path), clock))
            finally:
                finished(store.stop())
    except CannotDo as error:
        raise Unable(str(error)) from error
    except (StorageFault, OSError) as error:
        raise Unable(str(error), EX_IOERR) from error


class RecordsInFile:
    """An `IRecords`.  Who only looks makes no file."""

    def __init__(self, records: Any, path: str) -> None:
        self._records = records
        self._path = path

    async def get(self, key: str) -> bytes | None:
        found: bytes | None = await self._records.get(key) if os.path.exists(self._path) else None
        return found

    async def items(self, *wanted: Any, **named: Any) -> Any:
        return await self._records.items(*wanted, **named) if os.path.exists(self._path) else []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._records, name)


async def _called(made: Awaitable[Any], command: str, given: Mapping[str, Any]) -> Any:
    offered = await made
    return await next(one.run for one in offered if one.name == command)(**given)
