"""Mail into a mail store beside this server, by LMTP (RFC 2033): Dovecot's, Cyrus's, another server of our own.

The relay's connections do all the work.  LMTP adds three things: a reply for each recipient after the content, a Unix socket in
place of a port, and the form of address by which the store knows its mailboxes.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from zope.interface import implementer

from mailserver.config import Count, Duration, Options, SocketPath
from mailserver.config.next_hop import next_host_name
from mailserver.interfaces import IComponent, IComponentFactory, IConcurrentDelivery, IForgiving, Services
from mailserver.mail.address import Address
from mailserver.mail.answers import Local, Outcome, Remote
from mailserver.mail.content import Content
from mailserver.mail.envelope import Envelope
from mailserver.mail.parcel import Destination
from mailserver.mail.tags import for_final_delivery
from mailserver.plugins.awaiting import all_of
from mailserver.relay.components import pool_limits
from mailserver.relay.connections import Connections
from mailserver.relay.conversion_forms import EightBit
from mailserver.relay.delivery import ConnectSettings, Relay
from mailserver.relay.hosts import Host, HostBook, Hosts, named_hosts
from mailserver.relay.security import TLSMode
from mailserver.smtp.client.session import ClientLimits

__all__ = ["AddressTemplate", "LMTPDelivery", "LMTPFactory", "LMTPOptions"]

PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
PLACEHOLDERS = ("user", "domain", "local_part", "folder", "+folder")
WHOLE_ADDRESSES = ("{recipient}", "{original_recipient}")
CALLS_PER_CONNECTION = 4  # messages that wait for each connection: enough that no connection is idle
PROBE_SECONDS_MOST = 60.0  # a store that was restarted soon gets mail again
GRACE_SECONDS = 10.0  # the pool says QUIT first


class AddressTemplate:
    """The template for the address in RCPT.  Raises ValueError for an invalid template."""

    def __init__(self, text: str) -> None:
        self._whole = text if text in WHOLE_ADDRESSES else ""
        self.names_folder = "{folder}" in text or "{+folder}" in text
        self._local, _, self._domain = text.rpartition("@") if "@" in text else (text, "", "")
        if self._whole:
            return
        for name in PLACEHOLDER.findall(text):
            if name not in PLACEHOLDERS:
                known = ", ".join([*WHOLE_ADDRESSES, *(f"{{{known}}}" for known in PLACEHOLDERS)])
                raise ValueError(f"{{{name}}} is none of {known}, of which the first two stand alone")
        if not PLACEHOLDER.search(self._local) or "{folder}" in self._domain or "{+folder}" in self._domain:
            raise ValueError('the part before "@" must say whose mail it is: "{user}", "{user}@{domain}"')

    def addressed(self, destination: Destination) -> Destination:
        """The destination with the address for the store."""
        route = destination.route
        if self._whole == "{recipient}":
            return destination
        if self._whole:
            return replace(destination, route=Remote(destination.recipient.address))
        values = _values(route)
        local, domain = (PLACEHOLDER.sub(lambda found: values[found[1]], part) for part in (self._local, self._domain))
        return replace(destination, route=Remote(Address(local, domain)))


def _values(route: Local | Remote) -> dict[str, str]:
    """The values of the template's placeholders.  Where the mailbox is on another host they are the parts of its address."""
    address = route.address
    if isinstance(route, Remote):
        return {"user": address.local, "domain": address.domain, "local_part": address.local, "folder": "", "+folder": ""}
    box = route.mailbox
    folder = ".".join(box.place)
    return {
        "user": box.user,
        "domain": box.domain,
        "local_part": address.local,
        "folder": folder,
        "+folder": f"+{folder}" if folder else "",
    }


@implementer(IConcurrentDelivery, IComponent, IForgiving)
class LMTPDelivery:
    """A relay to one mail store.  `recipient` makes the address that the store is told."""

    stores = True
    log = Logger()

    def __init__(self, *, relay: Relay, recipient: AddressTemplate) -> None:
        self.relay = relay
        self.calls_at_once = relay.calls_at_once
        self.deadline_seconds = relay.deadline_seconds
        self._addressed = recipient.addressed
        self.knows_folders = recipient.names_folder

    def __repr__(self) -> str:
        return f"<LMTPDelivery: {self.relay!r}>"

    async def start(self) -> None:
        """Begin.  No connection is opened before there is mail."""
        await self.relay.start()

    async def stop(self) -> None:
        """Stop.  Running transactions have a few seconds to end."""
        await self.relay.stop()

    def deliver(
        self, envelope: Envelope, content: Content, destinations: Sequence[Destination]
    ) -> Awaitable[Mapping[int, Outcome]]:
        """Send to all recipients in one transaction, each with its own reply.  Those who share a mailbox are sent once.

        A Return-Path that came with the message is left out, since the store writes its own.  Those whose copies have other tags
        than the others' get them in a transaction of their own.
        """
        content = for_final_delivery(content)
        told: dict[Hashable, Local | Remote] = {}
        lines_at: dict[Hashable, bytes] = {}
        by_lines: dict[bytes, list[Destination]] = {}
        for one in destinations:
            addressed = replace(one, route=told.setdefault(one.place, self._addressed(one).route))
            by_lines.setdefault(lines_at.setdefault(one.place, one.lines), []).append(addressed)
        if len(by_lines) == 1:
            ((lines, same),) = by_lines.items()
            return self.relay.deliver(envelope, content.with_prefix(lines) if lines else content, same)
        return self._deliver_each(envelope, content, by_lines)

    async def _deliver_each(
        self, envelope: Envelope, content: Content, by_lines: Mapping[bytes, Sequence[Destination]]
    ) -> Mapping[int, Outcome]:
        """Side by side; what becomes of one is not the others' matter: who has no outcome is tried again."""

        async def deliver(lines: bytes, same: Sequence[Destination]) -> Mapping[int, Outcome]:
            try:
                return await self.relay.deliver(envelope, content.with_prefix(lines), same)
            except CancelledError:
                raise
            except Exception:  # noqa: BLE001  whatever it is
                self.log.failure("{id}: a copy with tags could not be sent to the store", id=envelope.id)
                return {}

        answers = await all_of([Deferred.fromCoroutine(deliver(*one)) for one in by_lines.items()])
        return {index: outcome for answer in answers for index, outcome in answer.items()}

    def forgive(self) -> None:
        """Connect to the store again, however often it was out of reach."""
        self.relay.forgive()

    async def flush(self) -> None:
        """Do nothing: the store keeps durably what it has answered 250 for."""


def _template(text: str) -> str:
    AddressTemplate(text)
    return text


Seconds = Annotated[Duration, Field(gt=0)]


class LMTPOptions(Options):
    """Mail into a mail store that speaks LMTP."""

    host: Annotated[str, AfterValidator(next_host_name)] | None = None
    """The store's host: a name or an address. Either this or `socket`."""
    port: int = Field(default=24, ge=1, le=65535)
    """Its port."""
    socket: SocketPath | None = None
    """The store's Unix socket, such as `/run/dovecot/lmtp`."""
    recipient: Annotated[str, AfterValidator(_template)] = "{recipient}"
    """The address that the store is told: `{recipient}` (the final address, after aliases), `{original_recipient}`, or a text
    such as `{user}@{domain}`, `{user}`, `{user}{+folder}@{domain}`; `{+folder}` is `+` and the folder, or nothing."""
    tls: Literal["none", "opportunistic", "required", "verified"] = "opportunistic"
    """STARTTLS, with `host`; as for a relay."""
    recipients: Count = 100
    """Recipients in one transaction; a message with more goes in several."""
    connections: Annotated[Count, Field(le=1000)] = 10
    """Connections at once."""
    messages_per_connection: Count = 1000
    """Messages on one connection; then a new one is opened."""
    connection_age: Seconds = 300.0
    """How long a connection is used."""
    connection_idle: Seconds = 15.0
    """How long a connection is kept open without a message."""
    connect_timeout: Seconds = 10.0
    """How long to wait for a connection."""
    timeout: Seconds = 300.0
    """How long to wait for an answer, and for the store to take more of a message."""
    probe: Seconds = 5.0
    """A store that cannot be reached is tried again after this time, then after twice as long, and so on up to a minute;
    meanwhile its mail waits in the queue."""

    @model_validator(mode="after")
    def _one_place(self) -> LMTPOptions:
        if (self.host is None) == (self.socket is None):
            raise ValueError('needs one of "host" and "socket"')
        return self


def _places(options: LMTPOptions, services: Services) -> Callable[[str], Awaitable[Hosts]]:
    """The function that finds the store's addresses."""

    async def look_up(_: str) -> Hosts:
        if options.socket is not None:
            return Hosts(((Host("unix", (options.socket,)),),))
        if options.host == "localhost":
            return Hosts(((Host("localhost", ("127.0.0.1", "::1")),),))
        return await named_hosts(str(options.host), resolver=services.resolver, port=options.port)

    return look_up


def _limits(options: LMTPOptions) -> ClientLimits:
    timeout = options.timeout
    return ClientLimits(
        connect_seconds=options.connect_timeout,
        greeting_seconds=timeout,
        hello_seconds=timeout,
        mail_seconds=timeout,
        rcpt_seconds=timeout,
        data_seconds=timeout,
        content_seconds=timeout,
        end_seconds=timeout,
        idle_seconds=options.connection_idle + GRACE_SECONDS,
    )


@implementer(IComponentFactory)
class LMTPFactory:
    """Makes the delivery for ``[delivery] use = "lmtp"``."""

    name = "lmtp"
    summary = "Hands mail to a mail store, such as Dovecot's, by LMTP"
    api_version = "1.0"
    provides = IConcurrentDelivery
    options = LMTPOptions

    def build(self, options: LMTPOptions, services: Services) -> LMTPDelivery:
        """Make the delivery.  Raises no errors, since the options were checked."""
        from twisted.internet import reactor

        network: Any = reactor

        def connect_unix(path: str, port: int, factory: Any, timeout: float, bindAddress: Any) -> Any:
            return network.connectUNIX(path, factory, timeout=timeout)

        connections = Connections(
            clock=services.clock,
            connect_tcp=network.connectTCP if options.socket is None else connect_unix,
            run_in_thread=services.run_in_thread,
            own_name=services.hostname,
            pool_limits=pool_limits(
                options,
                per_destination=options.connections,
                probe_seconds_most=max(PROBE_SECONDS_MOST, options.probe),
            ),
            client_limits=_limits(options),
            lmtp=True,
            eight_bit=EightBit.RAW,
            directory=services.data_directory,
            room_for=services.room_for,
            seconds=services.steady_seconds,
        )
        tls = TLSMode(options.tls) if options.socket is None else TLSMode.NONE
        relay = Relay(
            book=HostBook(look_up=_places(options, services), seconds=services.steady_seconds),
            connections=connections,
            connect_settings=ConnectSettings(port=0 if options.socket is not None else options.port, tls=tls),
            by_domain=False,
            recipients_most=options.recipients,
            calls_at_once=options.connections * CALLS_PER_CONNECTION,
        )
        return LMTPDelivery(relay=relay, recipient=AddressTemplate(options.recipient))
