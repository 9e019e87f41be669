"""The commands about the server as a whole: status, reload, a message's road, a look into the pickup folder."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from mailserver.control.parts import ListenerFigures, RunningServer
from mailserver.control.server import CommandRefused
from mailserver.observe import AmbiguousId, UnknownId, read_road
from mailserver.plugins.threads import ThreadCounts

__all__ = ["StatusCommands"]


class StatusCommands:
    """``status``, ``reload``, ``explain``, ``domains`` and ``pickup.look``.

    `hostname` gives the one in force and `listeners` those that listen now.  `reload` raises `CommandRefused`, and
    `look_for_files` makes the pickup look into its folder at once.
    """

    def __init__(
        self,
        server: RunningServer,
        *,
        hostname: Callable[[], str],
        listeners: Callable[[], Sequence[ListenerFigures]],
        reload: Callable[[], Awaitable[dict[str, Any]]],
        look_for_files: Callable[[], None],
    ) -> None:
        self._server = server
        self._hostname = hostname
        self.listeners = listeners
        self._reload = reload
        self._look_for_files = look_for_files

    def commands(self) -> Mapping[str, Any]:
        """Name and function."""
        return {
            "status": self.status,
            "reload": self.reload,
            "explain": self.explain,
            "domains": self.domains,
            "pickup.look": self.look_for_files,
            "drop.look": self.look_for_files,  # as a sendmail of the former version asks, which an upgrade may leave in use
        }

    async def status(self, _: dict[str, Any]) -> dict[str, Any]:
        """The figures, which a server that is starting has, too."""
        server = self._server
        described = server.register.described()
        figures: dict[str, Any] = {
            "hostname": self._hostname(),
            "pid": os.getpid(),
            "connections": server.admission.connections,
            "listeners": [asdict(one) for one in self.listeners()],
            "queue": asdict(server.queue.counts),
            "dns": asdict(server.resolver.counts),
            "dnssec": server.resolver.beliefs,
            "steps": dict(server.steps.counts),
            "steps_dropped": server.steps.dropped,
            "processes": dict(server.processes.missing()),
            "threads": _thread_figures(server.pools.counts()),
            "components": _troubles(described, server.register.left_behind(), server.logins.hanging()),
        }
        relays = [one["counts"] for one in described if one["kind"] == "relay" and "counts" in one]
        if relays:
            figures["relay"] = relays[0]
        if server.relay is not None and server.relay.own_ipv6 is not None and (facts := server.relay.own_ipv6.facts):
            figures["ipv6"] = dict(facts)
        signing = [one["counts"] for one in described if "records_missing" in one.get("counts", ())]
        if signing:
            figures["dkim"] = signing[0]
        if server.daily_look is not None and (domains := server.daily_look.figures()):
            figures["domains"] = domains
        if certificates := server.acme.figures():
            figures["certificates"] = certificates
        if newer := self._newer_code():
            figures["newer_code"] = newer
        return figures

    def _newer_code(self) -> dict[str, str]:
        """By what people know it as: files whose code on the disk is not what runs."""
        return {what: ", ".join(files) for what, files in self._server.components.code.changed().items()}

    async def domains(self, _: dict[str, Any]) -> dict[str, Any]:
        """The last of the daily looks at the DNS, and the clean days (`DailyLook.report`); `daily`: whether there are any."""
        look = self._server.daily_look
        return {"daily": False} if look is None else {"daily": True, **await look.report()}

    async def reload(self, _: dict[str, Any]) -> dict[str, Any]:
        """`reloaded`, the `faults` of single listeners, and the keys that a restart is needed for (`needs_restart`)."""
        return await self._reload()

    async def explain(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """`id`, or the beginning of one: the `steps` of its road."""
        id = str(arguments.get("id", ""))
        try:
            steps = await self._server.pools.of("command line")(self._road, id)
        except (AmbiguousId, UnknownId) as error:
            raise CommandRefused(str(error)) from error
        return {"steps": [asdict(step) for step in steps]}

    def _road(self, id: str) -> Sequence[Any]:
        self._server.steps.flush()
        return read_road(self._server.roads_path, id)

    async def look_for_files(self, _: dict[str, Any]) -> dict[str, Any]:
        """A local program has written one, and does not want to wait for the next look."""
        self._look_for_files()
        return {}


def _thread_figures(pools: Mapping[str, ThreadCounts]) -> dict[str, int]:
    """Of the server's own pools, in sums; those that hang by kind."""
    sums = {name: sum(getattr(one, name) for one in pools.values()) for name in ("running", "waiting", "hanging")}
    return sums | {f"hanging.{kind}": one.hanging for kind, one in pools.items() if one.hanging}


def _troubles(
    components: Sequence[Mapping[str, Any]], left_behind: Mapping[str, int], checkers_hanging: Mapping[str, int]
) -> dict[str, int]:
    """What an eye should be on, in sums: `mailserver plugins` has it for each component."""
    return {
        "running": len(components),
        "circuits_open": sum(state["circuit"] != "closed" for one in components for state in one["circuits"].values()),
        "threads_hanging": sum(one["threads"]["hanging"] for one in components) + sum(left_behind.values()),
        "calls_hanging": sum(one["calls_hanging"] for one in components) + sum(checkers_hanging.values()),
        "steps_lost": sum(one["observer"]["lost"] for one in components if "observer" in one),
        "periodic_failures": sum(one["periodic"]["failures"] for one in components if "periodic" in one),
        "reactor_blocks": sum(one["blocks"]["count"] for one in components),
    }
