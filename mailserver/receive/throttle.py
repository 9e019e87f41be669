"""Limits on what a peer may use: connections, errors, time.

Everything here is a decision about numbers that are handed in, the time included; the protocol keeps the timers.  A listener's
connections share one `Patience` and one `Pace`, so that an idle connection keeps nothing here; a `Progress` lives as long
as a message's data come in.

Stress is one switch: where connections run out, times shorten and patience ends sooner.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass

from mailserver.mail.networks import network_of
from mailserver.mail.reply import Reply
from mailserver.smtp import replies

__all__ = ["Admission", "Pace", "Patience", "Progress", "Slowness"]


class Admission:
    """Counts connections, in all and for each network.

    A network is an IPv4 address, or the first 64 bits of an IPv6 address, which is what one customer gets.  Unix sockets are
    not counted by network.  The table holds only networks that are connected now.
    """

    __slots__ = ("_networks", "_per_network", "_stress_from", "_total", "connections")

    def __init__(self, *, connections: int, connections_per_network: int, stress_percent: int = 80) -> None:
        self.connections = 0
        self._networks: dict[bytes, int] = {}
        self.change(connections=connections, connections_per_network=connections_per_network, stress_percent=stress_percent)

    def change(self, *, connections: int, connections_per_network: int, stress_percent: int) -> None:
        """Other bounds; who is in stays."""
        self._total = connections
        self._per_network = connections_per_network
        self._stress_from = max(1, connections * stress_percent // 100)

    def admit(self, address: str) -> Reply | None:
        """Let a connection in and return None, or return the 421 to greet it with.  `release` each that was let in."""
        if self.connections >= self._total:
            return replies.TOO_MANY_CONNECTIONS
        network = network_of(address)
        if network:
            count = self._networks.get(network, 0)
            if count >= self._per_network:
                return replies.TOO_MANY_CONNECTIONS_FROM_NETWORK
            self._networks[network] = count + 1
        self.connections += 1
        return None

    def release(self, address: str) -> None:
        """A connection that was let in is gone.  Raises ValueError where none was."""
        network = network_of(address)
        count = self._networks.get(network, 0) if network else 1
        if self.connections < 1 or count < 1:
            raise ValueError(f"no connection of {address} was admitted")
        self.connections -= 1
        if network and count > 1:
            self._networks[network] = count - 1
        elif network:
            del self._networks[network]

    @property
    def stress(self) -> bool:
        """Connections run out."""
        return self.connections >= self._stress_from

    @property
    def networks(self) -> int:
        """How many networks are connected."""
        return len(self._networks)


@dataclass(frozen=True, slots=True)
class Patience:
    """How many errors and idle commands a connection may make.

    The protocol counts both, and starts anew after each accepted message.
    Errors are refused or unknown commands and refused recipients.  Junk commands are those that do no work: NOOP, RSET, VRFY,
    EXPN, HELP and repeated EHLO; beyond their limit each counts as an error.
    """

    soft_errors: int = 10
    hard_errors: int = 20
    junk_commands: int = 100
    stress_hard_errors: int = 1
    stress_junk_commands: int = 1
    error_delay_seconds: float = 1.0

    def errors_of_junk(self, junk: int, *, stress: bool = False) -> int:
        """What the last of `junk` junk commands adds to the errors: 0 or 1."""
        return 1 if junk > (self.stress_junk_commands if stress else self.junk_commands) else 0

    def delay_seconds(self, errors: int) -> float:
        """How long the next reply is held back."""
        return self.error_delay_seconds if errors > self.soft_errors else 0.0

    def is_over(self, errors: int, *, stress: bool = False) -> bool:
        """Say 421 and close."""
        return errors >= (self.stress_hard_errors if stress else self.hard_errors)


class Slowness(enum.Enum):
    """Why a message's data are given up."""

    STALLED = "nothing came for too long"
    TOO_SLOW = "the data come too slowly"
    TOO_LONG = "the message takes too long"


@dataclass(frozen=True, slots=True)
class Pace:
    """How much time a peer has (RFC 5321 section 4.5.3.2).

    `command_seconds` between commands (section 4.5.3.2.7: at least 5 minutes), `login_seconds` from the connection to the login
    of a peer that may do nothing without one, `data_seconds` between pieces of the data (section
    4.5.3.2.5: 3 minutes), `message_seconds` for the whole of the data.  In each window of `window_seconds` at least
    `data_octets_per_second` on average must come, which is what ends a sender that trickles octet by octet; the first window
    is the grace that a person typing has.
    """

    command_seconds: float = 300.0
    stress_command_seconds: float = 10.0
    login_seconds: float = math.inf
    data_seconds: float = 180.0
    message_seconds: float = 3600.0
    data_octets_per_second: int = 500
    window_seconds: float = 120.0
    stress_window_seconds: float = 10.0

    def command_deadline(self, since: float, *, stress: bool = False) -> float:
        """When to give up a peer that has owed us a command, or has not read our replies, since then."""
        return since + (self.stress_command_seconds if stress else self.command_seconds)


class Progress:
    """One message's data coming in.  Times are seconds of one monotonic clock."""

    __slots__ = ("_last", "_pace", "_window_octets", "_window_started", "started")

    def __init__(self, pace: Pace, now: float) -> None:
        self._pace = pace
        self._last = self._window_started = self.started = now
        self._window_octets = 0

    def received(self, octets: int, now: float) -> None:
        """Some of the data have come."""
        self._last = now
        self._window_octets += octets

    def excuse(self, seconds: float) -> None:
        """Time in which we did not read is not the peer's fault."""
        self.started += seconds
        self._last += seconds
        self._window_started += seconds

    def slowness(self, now: float, *, stress: bool = False) -> Slowness | None:
        """Why to give up now, or None.  Begins the next window where one has ended well."""
        pace = self._pace
        if now >= self.started + pace.message_seconds:
            return Slowness.TOO_LONG
        if now >= self._last + pace.data_seconds:
            return Slowness.STALLED
        elapsed = now - self._window_started
        if elapsed >= (pace.stress_window_seconds if stress else pace.window_seconds):
            if self._window_octets < pace.data_octets_per_second * elapsed:
                return Slowness.TOO_SLOW
            self._window_started = now
            self._window_octets = 0
        return None
