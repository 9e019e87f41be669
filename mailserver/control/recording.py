"""What the command line may ask about recordings of dialogues."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any

from mailserver.control.client import CommandRefused
from mailserver.transport.recording import NoRoomToRecord, Recordings

__all__ = ["RecordingCommands"]

WAIT_SECONDS = 1.0  # for something to be recorded: as long as who interrupts the command has to wait
WIDEST = {4: 24, 6: 64}  # a peer, not the world


class RecordingCommands:
    """``record.start``, ``record.fetch`` and ``record.stop``.  Each takes a JSON object and returns one."""

    def __init__(self, recordings: Recordings) -> None:
        self._recordings = recordings

    def commands(self) -> Mapping[str, Any]:
        """Name and function."""
        return {"record.start": self.start, "record.fetch": self.fetch, "record.stop": self.stop}

    async def start(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """`peer` (an address or a network), `seconds`, `octets`, `by`: the number of the `recording`."""
        try:
            network = _network(str(arguments.get("peer", "")))
            number = self._recordings.start(
                network,
                seconds=float(arguments.get("seconds", 0)),
                octets=int(arguments.get("octets", 0)),
                by=str(arguments.get("by", "")),
            )
        except (TypeError, ValueError, OverflowError, NoRoomToRecord) as error:
            raise CommandRefused(str(error)) from error
        return {"recording": number}

    async def fetch(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """`recording`: what has come since the last time; `ended`: why nothing more comes, or "".

        Each has `time`, `connection`, `kind`, `octets` in base64 and `words`.
        """
        try:
            found, ended = await self._recordings.fetch(_number(arguments), seconds=WAIT_SECONDS)
        except KeyError as error:
            raise CommandRefused("there is no such recording any more") from error
        told = [
            {
                "time": one.time,
                "connection": one.connection,
                "kind": one.kind,
                "octets": b64encode(one.octets).decode("ascii"),
                "words": one.words,
            }
            for one in found
        ]
        return {"recorded": told, "ended": ended}

    async def stop(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """`recording`: end it; what waits may still be fetched."""
        self._recordings.stop(_number(arguments))
        return {}


def _number(arguments: Mapping[str, Any]) -> int:
    number = arguments.get("recording")
    if not isinstance(number, int):
        raise CommandRefused("which recording?")
    return number


def _network(text: str) -> IPv4Network | IPv6Network:
    network = ip_network(text, strict=False)
    if network.prefixlen < WIDEST[network.version]:
        raise ValueError(f"{network} is wider than a /{WIDEST[network.version]}: one peer is recorded, not many")
    return network
