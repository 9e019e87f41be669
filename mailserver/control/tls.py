"""The commands about the TLS of other hosts: what is known of it, and what an administrator says of a domain for a time."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from dataclasses import asdict
from typing import Any

from twisted.internet.defer import TimeoutError as Late

from mailserver.control.parts import RunningServer
from mailserver.control.route import parsed_address, parsed_sender
from mailserver.control.server import CommandRefused
from mailserver.interfaces import CannotDo
from mailserver.mail.address import AddressError
from mailserver.mail.faults import StorageFault
from mailserver.plugins.awaiting import later, within
from mailserver.relay.tls_overrides import KeptOverride, TLSOverrides
from mailserver.relay.wishes import TLSWishes

__all__ = ["TLSCommands", "add_override", "listed_overrides", "remove_override"]

HOSTS_SECONDS = 50.0  # a person waits


class TLSCommands:
    """``route.tls`` and ``tls-override.add``, ``.remove``, ``.list``."""

    def __init__(self, server: RunningServer) -> None:
        self._server = server

    def commands(self) -> Mapping[str, Any]:
        """Name and function."""
        return {
            "route.tls": self.explored,
            "tls-override.add": self.add,
            "tls-override.remove": self.remove,
            "tls-override.list": self.list,
        }

    async def explored(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """What is known of the TLS of its hosts.

        `address`, `sender` ("" for nobody in particular, "<>" for the null one), `require_tls`: for a REQUIRETLS message.
        """
        relay, address = self._server.relay, parsed_address(str(arguments.get("address", "")))
        if relay is None:
            raise CommandRefused("there is no relay of ours whose TLS could be told")
        sent_by = parsed_sender(str(arguments.get("sender", "")))
        wishes = TLSWishes(requires_tls=bool(arguments.get("require_tls")))
        try:
            found = await within(HOSTS_SECONDS, later(relay.explored(address, sent_by, wishes)), self._server.reactor)
        except AddressError as error:
            raise CommandRefused(f"{address}: {error}") from error
        except Late as error:
            raise CommandRefused(f"{address}: the DNS does not answer in time") from error
        if not isinstance(found, dict):
            return {"address": str(address), "fault": f"{found.reply} ({found.note})"}
        return {"address": str(address), **found}

    async def add(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """`domain`, `kind`, `seconds`, `fingerprint`, `why`, `by`: the override that holds from now on."""
        kept = await _done(add_override(self._server.tls_overrides, arguments))
        self._tell("tls_override", kept, str(arguments.get("by", "")))
        return kept

    async def remove(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """`domain`, `by`: the override that was there."""
        kept = await _done(remove_override(self._server.tls_overrides, arguments))
        self._tell("tls_override_ended", kept, str(arguments.get("by", "")))
        return kept

    async def list(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """All that are kept, those that are over for a while, too."""
        return await _done(listed_overrides(self._server.tls_overrides))

    def _tell(self, step: str, kept: Mapping[str, Any], by: str) -> None:
        """The line for whoever audits."""
        server = self._server
        server.steps.note(
            server.ids.next(), step, domain=kept["domain"], kind=kept["kind"], until=kept["until"],
            fingerprint=kept["fingerprint"], why=kept["why"], by=by,
        )  # fmt: skip


async def add_override(overrides: TLSOverrides, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Raises `CannotDo` and `StorageFault`, as the next two do."""
    seconds = arguments.get("seconds")
    if not isinstance(seconds, int | float):
        raise CannotDo("for how long?")
    texts = {name: str(arguments.get(name, "")) for name in ("domain", "kind", "fingerprint", "why", "by")}
    return asdict(await overrides.add(seconds=float(seconds), **texts))


async def remove_override(overrides: TLSOverrides, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The one that was there."""
    kept: KeptOverride = await overrides.remove(str(arguments.get("domain", "")))
    return asdict(kept)


async def listed_overrides(overrides: TLSOverrides) -> dict[str, Any]:
    """`overrides`, by domain."""
    return {"overrides": [asdict(one) for one in await overrides.listed()]}


async def _done(what: Awaitable[dict[str, Any]]) -> dict[str, Any]:
    try:
        return await what
    except (CannotDo, StorageFault) as error:
        raise CommandRefused(str(error)) from error
