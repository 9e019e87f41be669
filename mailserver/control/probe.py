"""The command that asks another host about an address, up to RCPT."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.internet.defer import TimeoutError as Late

from mailserver.control.parts import RunningServer
from mailserver.control.route import parsed_address, parsed_sender
from mailserver.control.server import CommandRefused
from mailserver.mail.address import AddressError
from mailserver.mail.answers import Failed
from mailserver.plugins.awaiting import later, within

__all__ = ["ProbeCommands"]

SECONDS, SECONDS_MOST = 60.0, 300.0


class ProbeCommands:
    """``probe``."""

    def __init__(self, server: RunningServer) -> None:
        self._server = server

    def commands(self) -> Mapping[str, Any]:
        """Name and function."""
        return {"probe": self.probe}

    async def probe(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """`address`, `sender` ("<>" or "" for the null one), `seconds` for all of it."""
        relay, address = self._server.relay, parsed_address(str(arguments.get("address", "")))
        if relay is None:
            raise CommandRefused("there is no relay of ours that could ask")
        sender = parsed_sender(str(arguments.get("sender") or "<>"))
        seconds = min(float(arguments.get("seconds") or SECONDS), SECONDS_MOST)
        try:
            found = await within(seconds, later(relay.probe(address, sender)), self._server.reactor)
        except AddressError as error:
            raise CommandRefused(f"{address}: {error}") from error
        except Late:
            return {"address": str(address), "verdict": "unreachable", "fault": f"no answer within {seconds:g} seconds"}
        if not isinstance(found, dict):
            verdict = "refused" if isinstance(found, Failed) else "deferred"
            return {"address": str(address), "verdict": verdict, "fault": f"{found.reply} ({found.note})"}
        attempts = found["attempts"]
        verdict = attempts[-1]["verdict"] if attempts else "unreachable"
        return {"address": str(address), "sender": "" if sender is None else str(sender), "verdict": verdict, **found}
