"""Components without a server: what a command lends them, and how it hears their answers."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from mailserver.assembly.routing import NO_ROUTER, make_router
from mailserver.cli.output import Unable
from mailserver.config import Configuration
from mailserver.config.filter_order import filter_names
from mailserver.delivery.readers import readers_by_address
from mailserver.interfaces import IComponent, IResolver, Services
from mailserver.mail.dns_records import LookupFailed
from mailserver.plugins.asked_directory import AskedDirectory
from mailserver.plugins.asked_router import AskedRouter
from mailserver.plugins.asking import Asking
from mailserver.plugins.awaiting import now_or_later
from mailserver.plugins.catalogue import Catalogue, PluginError, build_component
from mailserver.plugins.in_reactor import ReactorCalls
from mailserver.plugins.metrics import Metrics
from mailserver.relay.return_paths import ReturnPaths, SenderTable
from mailserver.routing.router import Router
from mailserver.state_store import RecordStore, StateStore
from mailserver.state_store.read_only import ReadOnlyRecords
from mailserver.state_store.records_file import RECORDS

__all__ = ["NotNow", "finished", "offline_router", "offline_services"]

ANSWER_SECONDS = 20.0
TURN_SECONDS = 0.05


class NotNow(Unable):
    """The answer needs a running reactor."""


@implementer(IResolver)
class NoAnswers:
    """A resolver for components that are only built: where a server would ask the DNS, it cannot tell."""

    async def query(self, name: str, record_type: str) -> Any:
        """Raises `LookupFailed`."""
        raise LookupFailed(f"{name}: {record_type} records are looked up by the running server")


class WallClock(Clock):
    """Where only the time of day is asked for."""

    def seconds(self) -> float:
        """Since the epoch."""
        return time.time()


class KeptSenders:
    """The senders of forwarded mail in the records on the disk, which are opened for each question."""

    def __init__(self, path: str) -> None:
        self._path = path

    async def get(self, key: str) -> bytes | None:
        """Raises `StorageBroken`."""
        records = ReadOnlyRecords(self._path)
        try:
            return await records.space("forward").get(key)
        finally:
            records.close()


class InPlace:
    """Replaces a component's own threads: runs functions at once."""

    def run(self, function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        """Run the function at once; the Deferred has its result."""
        return maybeDeferred(function, *arguments)

    def stop(self) -> None:
        """Do nothing: no threads run."""


def in_place(name: str, most: int) -> InPlace:
    """In the place of threads."""
    return InPlace()


def offline_services(configuration: Configuration) -> Services:
    """Threads are run in place; there is a state that was never opened, and a resolver that cannot tell."""
    return Services(
        clock=Clock(),
        run_in_thread=maybeDeferred,
        state=StateStore(path=os.path.join(configuration.data, "state.db"), clock=Clock(), new_threads=in_place).space("@"),
        records=RecordStore(path=os.path.join(configuration.data, RECORDS), clock=Clock(), new_threads=in_place).space("@"),
        resolver=NoAnswers(),
        hostname=configuration.hostname,
        configuration_directory=configuration.directory,
        data_directory=configuration.data,
        keys_directory=configuration.keys_path,
        new_threads=in_place,
        in_reactor=ReactorCalls(lambda function, *arguments: function(*arguments)),
        metrics=Metrics(),
    )


def offline_router(
    configuration: Configuration, catalogue: Catalogue, services: Services, directory: Any
) -> tuple[Router, list[Any]]:
    """The router as the start would make it, over this directory, and what has to be started before it is asked.

    Raises `StartError` and `PluginError`.
    """
    table, limits, clock = configuration.router, configuration.limits, services.clock
    before, parts = None, [directory]
    if table.use != NO_ROUTER:
        plugin = build_component(catalogue.factory("router", table.use), table.options, services)
        before = AskedRouter(plugin, Asking("router", clock), limits.router_seconds)
        parts.append(plugin)
    asked = AskedDirectory(directory, Asking("accounts", clock), limits.accounts_seconds)
    readers = readers_by_address(_filters(configuration, catalogue, services))
    router = make_router(configuration, asked, before=before, readers=readers, return_paths=_return_paths(configuration))
    return router, [one for one in parts if IComponent.providedBy(one)]


def _return_paths(configuration: Configuration) -> ReturnPaths:
    """Those of forwarded mail, which are only opened: by the keys and the records on the disk."""
    records: Any = KeptSenders(os.path.join(configuration.data, RECORDS))
    paths = ReturnPaths(
        keys_directory=configuration.keys_path, table=SenderTable(records), run_in_thread=maybeDeferred, clock=WallClock()
    )
    paths.former = configuration.forward.former_secrets or ""
    return paths


def _filters(configuration: Configuration, catalogue: Catalogue, services: Services) -> Iterator[tuple[str, Any]]:
    """The filters that can be built, each with its name."""
    names = filter_names([(table.use, table.name) for table in configuration.filter])
    for name, table in zip(names, configuration.filter, strict=True):
        with contextlib.suppress(PluginError):  # told with its own table
            yield name, build_component(catalogue.factory("filter", table.use), table.options, services)


def finished(awaitable: Awaitable[Any], seconds: float = ANSWER_SECONDS) -> Any:
    """The result, waited for where threads of the component's own, or the network, have it.  Raises `NotNow` where none comes."""
    seen: list[Any] = []
    result = now_or_later(awaitable)
    maybeDeferred(lambda: result).addBoth(seen.append)
    if not seen:
        _wait_for(seen, seconds)
    if not seen:
        raise NotNow("the accounts can only be looked at while the server runs")
    if isinstance(seen[0], Failure):
        seen[0].raiseException()
    return seen[0]


def _wait_for(seen: list[Any], seconds: float) -> None:
    """Let threads bring their answers: a command has no reactor that runs, so it is turned here."""
    from twisted.internet import reactor

    turned: Any = reactor
    if turned.running or threading.current_thread() is not threading.main_thread():
        return
    until = time.monotonic() + seconds
    while not seen and time.monotonic() < until:
        turned.iterate(TURN_SECONDS)
