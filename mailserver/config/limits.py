"""The table of bounds: how much, how many, how long."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from mailserver.config.options import Options
from mailserver.config.values import COUNT_MOST, Count, Duration, Network, Octets, Size, Time

__all__ = ["LimitsTable"]

KIB, MIB = 1024, 1024 * 1024


class LimitsTable(Options):
    """Bounds. Every one can be raised; none can be switched off by accident."""

    message_bytes: Octets = 50 * MIB
    """The largest message; announced as SIZE (RFC 1870), refused with 552."""
    memory_bytes: Size = MIB
    """A message above this is kept in a file of the spool while it comes in."""
    memory_bytes_total: Size = 16 * MIB
    """All messages that are held in memory while they come in; above it they go to files at once."""
    header_bytes: Octets = 256 * KIB
    """The header section of a message; refused with 552. Of users' own mail never more than 256 KiB are taken."""
    hops: Count = 100
    """Received fields in a message; more mean a loop (RFC 5321 section 6.3)."""
    recipients: Annotated[int, Field(ge=100, le=COUNT_MOST)] = 1000
    """Recipients of one message, at least 100 (RFC 5321 section 4.5.3.1.8); the next ones hear 452, which is no error
    for up to a thousand of them."""
    messages_per_connection: Count = 10_000
    """Messages on one connection; then 421."""
    connections: Count = 1000
    """Connections at once, in all; the next one hears 421."""
    connections_per_network: Count = 50
    """Connections at once from one network: an IPv4 address or an IPv6 /64."""
    greeting_delay_seconds: Duration = 0.0
    """Wait this long before the greeting on `mx` listeners; a peer that talks first is refused. 0: no wait."""
    proxy_header_seconds: Time = 5.0
    """How long a proxy may take for its PROXY header; then the connection is closed."""
    tls_handshake_seconds: Time = 30.0
    """How long a TLS handshake may take; then the connection is closed."""
    command_seconds: Time = 300.0
    """How long a peer may take for the next command (RFC 5321 section 4.5.3.2.7)."""
    data_seconds: Time = 180.0
    """How long a peer may pause in the data (RFC 5321 section 4.5.3.2.5)."""
    message_seconds: Time = 3600.0
    """How long the data of one message may take in all."""
    data_bytes_per_second: Count = 500
    """The slowest that the data may come, on average."""
    soft_errors: Count = 10
    """Errors on a connection after which each reply is slowed down."""
    hard_errors: Count = 20
    """Errors on a connection after which it is closed with 421."""
    junk_commands: Count = 100
    """NOOP, RSET, VRFY, EXPN, HELP and repeated EHLO between two messages; more count as errors."""
    pipelined_bytes: Octets = 64 * KIB
    """Octets of commands that wait while one is being answered; then reading pauses."""
    filter_seconds: Time = 30.0
    """How long a filter may take where its own `deadline` does not say."""
    reactor_seconds: Annotated[Time, Field(ge=0.05)] = 0.5
    """How long a call may hold the reactor, while no other mail goes on, before the log says who does."""
    accounts_seconds: Time = 30.0
    """How long the accounts, or a checker of passwords, may take for one answer; then a recipient is deferred (451) and a login
    hears a temporary failure."""
    router_seconds: Time = 120.0
    """How long it may take to find out where a recipient goes, with all that its alias asks for; then he is deferred."""
    start_seconds: Time = 120.0
    """How long a component may take to start, at the start or at a reload; then the start ends, or the reload is given up."""
    stop_seconds: Time = 20.0
    """How long a component may take to stop; then nobody waits for it."""
    process_memory_bytes: Annotated[Octets, Field(ge=128 * MIB)] = 1024 * MIB
    """Memory (address space) of each process that works for a plugin; what needs more fails, for that call."""
    stress_percent: Annotated[int, Field(ge=1, le=100)] = 80
    """At this share of `connections` the server is under stress: it waits `stress_command_seconds` only."""
    stress_command_seconds: Time = 10.0
    """`command_seconds` under stress."""
    minimum_free_bytes: Size = 64 * MIB
    """Room that must be left on the disk of `data`; below it senders hear 452 before their data."""
    shutdown_seconds: Time = 30.0
    """How long a stopping server lets what is in flight come to its end, and a reload what has begun with the parts that it
    replaces."""
    stray_line_ends: Literal["normalize", "refuse"] = "normalize"
    """A CR or LF outside CRLF in a message: LF becomes a line end and CR a blank, or the message is refused after its data. Only
    CRLF.CRLF ends the data."""
    fetch_networks: tuple[Network, ...] = ()
    """Networks that are not public and that plugins may fetch from, at any port: for tests."""
    bare_lf_networks: tuple[Network, ...] = ()
    """Networks of devices that end their lines with LF alone, in commands too. LF.LF ends their data as long as they have sent no
    CRLF, wait for each answer, and use neither TLS nor a login."""

    @model_validator(mode="after")
    def _fit_together(self) -> LimitsTable:
        if self.soft_errors > self.hard_errors:
            raise ValueError("soft_errors is above hard_errors, so that no reply would ever be slowed down")
        return self
