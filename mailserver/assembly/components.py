"""The components that the configuration names: each is built once, and lives as long as anybody holds it.

A configuration holds its components (`take`), and lets them go when it has been replaced and nothing that began with it is under
way any more.  A reload that finds the same table, by name, `use` and options, holds the same component beside the old
configuration: it keeps its ports and its state, and hears that there was a reload (`IReloading`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import Logger

from mailserver.interfaces import Clock, IPrivilegedComponent, IReloading, ISweeping, Services
from mailserver.plugins.asking import Asking, anything
from mailserver.plugins.catalogue import Catalogue
from mailserver.plugins.code_on_disk import CodeOnDisk
from mailserver.plugins.life import REASONS, StartError, start_component, stop_component
from mailserver.plugins.register import Register

__all__ = ["Components", "Owned"]

SWEEP_SECONDS = 6 * 3600.0


@dataclass(eq=False, slots=True)
class Owned:
    """A component and whose it is.  `section` and `name` are its table's; `asking` is how it is asked."""

    section: str
    name: str
    use: str
    options: Any
    factory: Any
    component: Any
    asking: Asking
    holders: int = 0
    has_begun: bool = False  # its start has been called
    has_failed: bool = False  # its start has not ended well

    def is_for(self, section: str, name: str, use: str, options: Any, factory: Any) -> bool:
        """Whether the table says what it said when this was built."""
        if self.has_failed or (self.section, self.name, self.use) != (section, name, use) or self.factory is not factory:
            return False
        try:
            return type(self.options) is type(options) and bool(self.options == options)
        except Exception:  # noqa: BLE001  options of a plugin's own types
            return False


class Components:
    """All that are held.

    `services` makes, of section, name and use, what a component is lent beside what the register lends it.  `flush` writes
    down the steps that have been noted.  `have_privileges`: the server has not given up yet what it was started with.
    """

    log = Logger()

    def __init__(
        self,
        *,
        catalogue: Catalogue,
        clock: Clock,
        register: Register,
        services: Callable[[str, str, str], Services],
        flush: Callable[[], Awaitable[Any]],
    ) -> None:
        self.code = CodeOnDisk()
        self.code.remember("the server", [self])
        self.have_privileges = True
        self._catalogue = catalogue
        self._clock = clock
        self._register = register
        self._services = services
        self._flush = flush
        self._all: list[Owned] = []

    def take(self, section: str, table: Any, name: str = "") -> Owned:
        """Hold what a table's `use` names.  Raises `PluginError`; `StartError` where it would need privileges that are gone."""
        factory = self._catalogue.factory(section, table.use)
        name = name or table.name or table.use
        for owned in self._all:
            if owned.is_for(section, name, table.use, table.options, factory):
                owned.holders += 1
                return owned
        lent, services = self._register.lend(section, name, self._services(section, name, table.use))
        component = self._catalogue.build(section, table.use, table.options, services)
        if IPrivilegedComponent.providedBy(component) and not self.have_privileges:
            raise StartError(f"{section}: {name}: this change needs a restart: it needs privileges that have been dropped")
        self._register.built(lent, component, table.use)
        asking = Asking(section if section == name else f"{section} {name}", self._clock, lent.left)
        owned = Owned(section, name, table.use, table.options, factory, component, asking, holders=1)
        self._all.append(owned)
        self.code.remember(asking.name, (factory, component))
        return owned

    def privileged(self, section: str) -> Owned | None:
        """What holds privileges that nobody could give to another one: it stays, whatever its table says now."""
        for owned in self._all:
            if owned.section == section and IPrivilegedComponent.providedBy(owned.component) and not owned.has_failed:
                return None if self.have_privileges else owned
        return None

    def give_back(self, owned: Owned) -> None:
        """What was taken is not wanted after all; it was not started."""
        owned.holders -= 1
        if not owned.holders and not owned.has_begun:
            self._all.remove(owned)

    def start_privileged(self) -> None:
        """What needs the privileges that are dropped next.  Raises OSError."""
        for owned in self._all:
            if IPrivilegedComponent.providedBy(owned.component):
                owned.asking.call("start_privileged", anything, owned.component.start_privileged)

    async def start(self, owned: Owned, seconds: float) -> None:
        """Start it; what runs already hears of the reload.  Raises as `start_component`."""
        if not owned.has_begun:
            owned.has_begun = owned.has_failed = True
            await start_component(owned.component, owned.asking, seconds)
            owned.has_failed = False
            self._register.begin(owned.component)
            self.code.look()
        elif IReloading.providedBy(owned.component):
            answer = owned.asking.ask("reload", seconds, anything, owned.component.reload, passes=REASONS, is_bounded=False)
            if isinstance(answer, Deferred):
                await answer

    async def let_go(self, owned: Owned, seconds: float) -> None:
        """Who held it needs it no more.  The last one stops it.  No errors: they are in the log."""
        owned.holders -= 1
        if owned.holders:
            return
        self._all.remove(owned)
        await self._register.end(owned.component, lambda: self._stopped(owned, seconds), self._flush)

    async def _stopped(self, owned: Owned, seconds: float) -> None:
        if owned.has_begun:
            await stop_component(owned.component, owned.asking, seconds)
        owned.asking.end()

    async def sweep(self) -> None:
        """Each that leaves something behind, side by side: none waits for another."""
        sweeps = [self._swept(one) for one in self._all if ISweeping.providedBy(one.component)]
        await DeferredList([Deferred.fromCoroutine(one) for one in sweeps])

    async def _swept(self, owned: Owned) -> None:
        try:
            answer = owned.asking.ask("sweep", SWEEP_SECONDS, _number, owned.component.sweep, is_bounded=False)
            removed = await answer if isinstance(answer, Deferred) else answer
        except OSError as error:
            self.log.error("the sweep of stale files failed: {error}", error=error)
        else:
            if removed:
                self.log.info("{name}: removed {count} stale files", name=owned.asking.name, count=removed)

    def __iter__(self) -> Iterator[Owned]:
        return iter(tuple(self._all))


def _number(answer: object) -> int:
    if type(answer) is not int:
        raise TypeError(f"the answer is a {type(answer).__name__}, not a number")
    return answer
