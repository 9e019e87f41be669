"""The relay for other programs: a few lines to send mail over the pool.

    relay = mx_relay(reactor=reactor, hostname="app.example.org", resolver=resolver)
    await relay.start()
    (outcome,) = await send(relay, sender, [recipient], Content.of(message))
    await relay.stop()

The caller hands in `reactor`, `resolver` and the limits, so that a test can use its own.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from twisted.internet.threads import deferToThread

from mailserver.interfaces import IResolver
from mailserver.mail.address import Address
from mailserver.mail.answers import Outcome, Remote
from mailserver.mail.content import Content
from mailserver.mail.envelope import Envelope, MailParameters, Peer, Recipient
from mailserver.mail.ids import IdSource
from mailserver.mail.parcel import Destination
from mailserver.relay.connections import Connections
from mailserver.relay.delivery import ConnectSettings, Relay
from mailserver.relay.hosts import HostBook, Hosts, domain_hosts, named_hosts
from mailserver.relay.pool import PoolLimits
from mailserver.smtp.client.session import ClientLimits

__all__ = ["mx_relay", "send", "smarthost_relay"]

OURSELVES = Peer("127.0.0.1", 0, "submission")


def mx_relay(
    *,
    reactor: Any,
    hostname: str,
    resolver: IResolver,
    connect_settings: ConnectSettings | None = None,
    pool_limits: PoolLimits | None = None,
    client_limits: ClientLimits | None = None,
) -> Relay:
    """A relay that finds each domain's mail exchangers.  `hostname` is our own name in EHLO."""
    own_names = frozenset({hostname.lower()})
    settings = connect_settings or ConnectSettings()

    def look_up(domain: str) -> Awaitable[Hosts]:
        return domain_hosts(domain, resolver=resolver, own_names=own_names, port=settings.port)

    return _relay(reactor, hostname, look_up, True, settings, pool_limits, client_limits)


def smarthost_relay(
    *,
    reactor: Any,
    hostname: str,
    host: str,
    resolver: IResolver | None = None,
    connect_settings: ConnectSettings | None = None,
    pool_limits: PoolLimits | None = None,
    client_limits: ClientLimits | None = None,
) -> Relay:
    """A relay that hands everything to `host`: a numeric address, or a name (which needs a `resolver`)."""

    settings = connect_settings or ConnectSettings()

    def look_up(_: str) -> Awaitable[Hosts]:
        return named_hosts(host, resolver=resolver, port=settings.port)

    return _relay(reactor, hostname, look_up, False, settings, pool_limits, client_limits)


async def send(
    relay: Relay,
    sender: Address | None,
    recipients: Sequence[Address],
    content: Content,
    parameters: MailParameters | None = None,
) -> list[Outcome]:
    """Send a message once; return an outcome for each recipient, in their order.  Lines of `content` end with CRLF."""
    paths = tuple(map(Recipient, recipients))
    id = IdSource(time.time).next()
    envelope = Envelope(id, OURSELVES, sender, paths, time.time(), parameters or MailParameters())
    destinations = [Destination(index, path, Remote(path.address)) for index, path in enumerate(paths)]
    outcomes = await relay.deliver(envelope, content, destinations)
    return [outcomes[index] for index in range(len(destinations))]


def _relay(
    reactor: Any,
    hostname: str,
    look_up: Callable[[str], Awaitable[Hosts]],
    by_domain: bool,
    connect_settings: ConnectSettings,
    pool_limits: PoolLimits | None,
    client_limits: ClientLimits | None,
) -> Relay:
    connections = Connections(
        clock=reactor,
        connect_tcp=reactor.connectTCP,
        run_in_thread=deferToThread,
        own_name=hostname,
        pool_limits=pool_limits or PoolLimits(),
        client_limits=client_limits or ClientLimits(),
        avoids_itself=by_domain,
    )
    book = HostBook(look_up=look_up, seconds=reactor.seconds)
    return Relay(book=book, connections=connections, connect_settings=connect_settings, by_domain=by_domain)
