"""What components keep of users follows a rename, or goes with a removal: by the server that runs, else in their files."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mailserver.cli.asking import ask_server
from mailserver.cli.filter_records import RecordsInFile
from mailserver.cli.output import EX_IOERR, Unable, plain
from mailserver.config.filter_order import filter_names
from mailserver.control.client import ControlError, NoServer
from mailserver.queue.clock_watch import boot_seconds

if TYPE_CHECKING:
    from mailserver.config import Configuration

__all__ = ["ask_followers", "failures_in", "forget", "tell_what_stays"]

SECONDS = 320.0  # the components' own deadline comes first
OFFLINE_SECONDS = 600.0
WHERE = "the components"


def ask_followers(configuration: Configuration, verb: str, accounts: Mapping[str, str]) -> dict[str, Any]:
    """`followed`, `failed` and `kept`, as the control socket's ``component.follow``.  Never raises for who has failed."""
    if not accounts or not os.path.isdir(configuration.data):
        return {"followed": [], "failed": {}, "kept": {}}
    try:
        return ask_server(configuration.data, "component.follow", {"verb": verb, "accounts": dict(accounts)}, SECONDS)
    except NoServer:
        return _without_server(configuration, verb, accounts)
    except ControlError as error:
        return {"followed": [], "failed": {WHERE: str(error)}, "kept": {}}


def failures_in(answer: Mapping[str, Any]) -> str:
    """Who has not followed, and why; "" where all have."""
    return "; ".join([f"{plain(who)}: {plain(why)}" for who, why in answer["failed"].items()])


def forget(configuration: Configuration, name: str) -> None:
    """All forget what they keep of an address, or of ``@domain``.  Raises `Unable` where one cannot."""
    why = failures_in(ask_followers(configuration, "removed", {name: name}))
    if why:
        raise Unable(f"{why}; {plain(name)} was not removed: what is kept of it would be the next user's", EX_IOERR)


def tell_what_stays(configuration: Configuration, name: str) -> None:
    """Say on standard error who keeps something of an address that was removed, or of ``@domain``."""
    try:
        answer = ask_followers(configuration, "kept", {name: name})
    except Unable as error:
        answer = {"failed": {WHERE: str(error)}, "kept": {}}
    for who, count in answer["kept"].items():
        words = f"{plain(who)} keeps {count} record{'' if count == 1 else 's'} of {plain(name)}"
        print(f"mailserver: {words}, which a new account of that name would have (--purge removes them)", file=sys.stderr)
    if why := failures_in(answer):
        print(f"mailserver: whether something is kept of {plain(name)} is not known: {why}", file=sys.stderr)


def _without_server(configuration: Configuration, verb: str, accounts: Mapping[str, str]) -> dict[str, Any]:
    from mailserver.interfaces import IAccountFollower, IComponent
    from mailserver.processes.identity import as_owner_of

    answer: dict[str, Any] = {"followed": [], "failed": {}, "kept": {}}
    if not configuration.filter:
        return answer
    try:
        with as_owner_of(configuration.data), _stores(configuration) as (services_of, clock):
            for name, build in _builders(configuration):
                who = f"the filter {name}"
                try:
                    component: Any = build(services_of(name))
                    follows: bool = IAccountFollower.providedBy(component)
                    if not follows:
                        continue
                    has_life: bool = IComponent.providedBy(component)
                    try:
                        if has_life:
                            _wait(component.start())
                        found = _asked(who, component, verb, accounts, clock)
                    finally:
                        if has_life:
                            _wait(component.stop())
                except Exception as error:  # noqa: BLE001  # a component's: the others follow all the same
                    answer["failed"][who] = f"{type(error).__name__}: {error}"[:300]
                    continue
                answer["followed"] += found["followed"]
                answer["failed"] |= found["failed"]
                answer["kept"] |= found["kept"]
    except OSError as error:
        raise Unable(f"{error.filename or configuration.data}: {error.strerror or error}", EX_IOERR) from error
    return answer


def _asked(who: str, component: Any, verb: str, accounts: Mapping[str, str], clock: Any) -> dict[str, Any]:
    from mailserver.plugins.account_following import Follower, follow
    from mailserver.plugins.failure_log import FailureLog

    asking = follow([Follower(who, component)], verb, accounts, clock=clock, failures=FailureLog(clock.seconds))
    found: dict[str, Any] = _wait(asking).described()
    return found


def _wait(answer: Any) -> Any:
    from mailserver.cli.without_server import finished

    return finished(answer, OFFLINE_SECONDS)


def _builders(configuration: Configuration) -> Iterator[tuple[str, Any]]:
    """The name of each filter, and what builds it of its services."""
    from mailserver.plugins.catalogue import build_component, discover

    catalogue = discover()
    names = filter_names([(table.use, table.name) for table in configuration.filter])
    for name, table in zip(names, configuration.filter, strict=True):

        def build(services: Any, table: Any = table) -> Any:
            return build_component(catalogue.factory("filter", table.use), table.options, services)

        yield name, build


@contextlib.contextmanager
def _stores(configuration: Configuration) -> Iterator[tuple[Any, Any]]:
    """What makes the services of a filter of this name: its own records and facts as they stand in the files."""
    from twisted.internet.task import Clock

    from mailserver.cli.without_server import in_place, offline_services
    from mailserver.state_store import RecordStore
    from mailserver.state_store.records_file import RECORDS
    from mailserver.state_store.stopped import StoppedState

    clock = Clock()
    clock.advance(time.time())
    path = os.path.join(configuration.data, RECORDS)
    records = RecordStore(path=path, clock=clock, new_threads=in_place)
    _wait(records.start())
    try:
        with StoppedState.opened(os.path.join(configuration.data, "state.db"), steady=boot_seconds) as state:
            lent = offline_services(configuration)

            def services_of(name: str) -> Any:
                facts: Any = _NoFacts() if state is None else state.space(f"@filter/{name}")
                kept: Any = RecordsInFile(records.space(f"filter/{name}"), path)
                return replace(lent, clock=clock, records=kept, state=facts, name=name, room_for=lambda octets: True)

            yield services_of, clock
    finally:
        _wait(records.stop())


class _NoFacts:
    """There is no file of facts: none is kept of anybody, and what a component's start would note is not."""

    async def get(self, key: str) -> None:
        return None

    async def put(self, key: str, value: bytes, lifetime_seconds: float) -> None:
        return None

    async def drop(self, key: str) -> None:
        return None

    async def items(self, first: str = "", before: str | None = None, most: int = 1000) -> list[tuple[str, bytes, float]]:
        return []
