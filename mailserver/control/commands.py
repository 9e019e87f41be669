"""All commands of the control socket, subject by subject."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mailserver.control.certificates import CertificateCommands
from mailserver.control.components import ComponentCommands
from mailserver.control.lockouts import LockoutCommands
from mailserver.control.parts import PolicyParts, RunningServer
from mailserver.control.probe import ProbeCommands
from mailserver.control.queue import QueueCommands
from mailserver.control.recording import RecordingCommands
from mailserver.control.route import RouteCommands
from mailserver.control.selftest import SelftestCommands
from mailserver.control.server import Command, NotStarted
from mailserver.control.status import StatusCommands
from mailserver.control.tls import TLSCommands

__all__ = ["all_commands"]

BEFORE_THE_START = frozenset({"status"})


def all_commands(
    server: RunningServer,
    policy: Callable[[], PolicyParts],
    status: StatusCommands,
    *,
    has_started: Callable[[], bool],
) -> Mapping[str, Command]:
    """By name.  Until the server has started, all but `status` raise `NotStarted`."""
    found: dict[str, Command] = {}
    for subject in (
        status,
        QueueCommands(server, policy),
        RouteCommands(server, policy),
        TLSCommands(server),
        CertificateCommands(server),
        ProbeCommands(server),
        LockoutCommands(server.logins.lockout),
        ComponentCommands(server, server.reactor),
        RecordingCommands(server.recordings),
        SelftestCommands(server, policy, status.listeners),
    ):
        found |= subject.commands()
    return {name: one if name in BEFORE_THE_START else _when_started(one, has_started) for name, one in found.items()}


def _when_started(command: Command, has_started: Callable[[], bool]) -> Command:
    async def answer(arguments: dict[str, Any]) -> dict[str, Any]:
        if not has_started():
            raise NotStarted("the server is starting: ask again in a moment")
        return await command(arguments)

    return answer
