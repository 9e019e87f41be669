"""What a listener's table says: who its proxies are, and the bounds on a connection."""

from __future__ import annotations

import math

from mailserver.config import Configuration, ListenTable
from mailserver.config.endpoints import is_proxied
from mailserver.mail.networks import LOOPBACK, Networks
from mailserver.receive.profile import ConnectionLimits
from mailserver.receive.throttle import Pace, Patience

__all__ = ["connection_limits", "proxies_of"]


def proxies_of(listen: ListenTable) -> Networks | None:
    """Whose PROXY headers are believed; None where none is awaited."""
    if not is_proxied(listen.endpoint):
        return None
    return LOOPBACK if listen.proxies is None else Networks(listen.proxies)


def connection_limits(configuration: Configuration, *, logs_in: bool) -> ConnectionLimits:
    limits = configuration.limits
    return ConnectionLimits(
        message_octets=limits.message_bytes,
        header_octets=limits.header_bytes,
        stray_line_ends=limits.stray_line_ends,
        recipients=limits.recipients,
        messages_per_connection=limits.messages_per_connection,
        hops=limits.hops,
        greeting_delay_seconds=limits.greeting_delay_seconds,
        pipelined_octets=limits.pipelined_bytes,
        proxy_header_seconds=limits.proxy_header_seconds,
        patience=Patience(
            soft_errors=limits.soft_errors, hard_errors=limits.hard_errors, junk_commands=limits.junk_commands
        ),
        pace=Pace(
            command_seconds=limits.command_seconds,
            stress_command_seconds=limits.stress_command_seconds,
            login_seconds=configuration.authentication.login_seconds if logs_in else math.inf,
            data_seconds=limits.data_seconds,
            message_seconds=limits.message_seconds,
            data_octets_per_second=limits.data_bytes_per_second,
        ),
    )
