"""Send a message step by step on Twisted: hosts, what their TLS must be, connect, EHLO, STARTTLS, EHLO, deliver, quit.

    python relay_steps_twisted.py ann@client.example bob@example.org < message
"""

import contextlib
import random
import sys
import time

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol
from twisted.internet.error import ConnectError, ConnectionLost
from twisted.internet.interfaces import IHandshakeListener
from twisted.internet.protocol import Protocol
from twisted.internet.task import react
from zope.interface import implementer

from mailserver.dns import Resolver
from mailserver.mail.address import Address
from mailserver.mail.envelope import Recipient
from mailserver.relay.client_contexts import ClientContexts
from mailserver.relay.conclusions import concluded
from mailserver.relay.hosts import HostBook, Hosts, domain_hosts
from mailserver.relay.security import Barred, TLSMode, demanded
from mailserver.smtp.client import ClientLimits, ClientSession, Request
from mailserver.smtp.client.events import Done, Greeted, Ready, ReadyForTLS, SendContent
from mailserver.smtp.events import Wait
from mailserver.transport.channel_bindings import connection_of


@implementer(IHandshakeListener)
class Conversation(Protocol):
    """One connection: the protocol is the session's, the octets and the time are Twisted's."""

    def __init__(self, reactor, hello_name, limits):
        self.reactor, self.session = reactor, ClientSession(hello_name=hello_name, limits=limits)
        self.octets, self.handshake = Deferred(), Deferred()  # waited for

    def dataReceived(self, data):
        self.session.receive_data(data)
        self.go_on()

    def connectionLost(self, reason):
        self.session.receive_eof()
        self.go_on()
        if not self.handshake.called:
            self.handshake.callback(reason.value)

    def handshakeCompleted(self):
        self.handshake.callback(None)

    def give_up(self):
        self.session.give_up()  # too slow: the outcomes say so
        self.go_on()

    def go_on(self):
        octets, self.octets = self.octets, Deferred()
        octets.callback(None)

    async def event(self):
        """What happens next.  Raises ConnectionLost after the last of it."""
        session = self.session
        while (event := session.next_event()) is Wait.NEED_DATA:
            self.transport.write(session.data_to_send())
            timer = self.reactor.callLater(session.limits.seconds(session.phase), self.give_up)
            await self.octets
            if timer.active():
                timer.cancel()
        self.transport.write(session.data_to_send())
        if event is Wait.CLOSED:
            raise ConnectionLost("the connection is closed")
        return event

    async def ehlo(self):
        """What the host offers."""
        while not isinstance(event := await self.event(), Ready):
            if not isinstance(event, Greeted):
                raise ConnectionLost(str(event))
        return event.offer

    async def starttls(self, securing):
        """What was seen of the host's TLS, None where it has refused; EHLO has to be said anew."""
        self.session.start_tls()
        if not isinstance(await self.event(), ReadyForTLS):
            return None
        self.transport.startTLS(securing)
        error = await self.handshake
        if error is not None:
            return securing.failed(str(error))
        self.session.tls_established()
        return securing.completed(connection_of(self.transport), time.time())

    async def deliver(self, request, content):
        """An outcome for each recipient."""
        self.session.send(request)
        while not isinstance(event := await self.event(), Done):
            if isinstance(event, SendContent):
                self.transport.write(self.session.content(content) + self.session.end_of_content())
        return event.outcomes

    async def quit(self):
        with contextlib.suppress(ConnectionLost):
            if self.session.is_ready:
                self.session.quit()
                while True:
                    await self.event()
        self.transport.loseConnection()


async def exchange(reactor, target, host, demand, request, content, limits):
    """The outcomes of one attempt at one address.  Raises ConnectError or ConnectionLost where the next one is to be tried."""
    endpoint = HostnameEndpoint(reactor, *target, timeout=limits.connect_seconds)
    conversation = await connectProtocol(endpoint, Conversation(reactor, "client.example", limits))
    try:
        offer = await conversation.ehlo()
        if demand.wants_tls and offer.starttls:
            facts = await conversation.starttls(ClientContexts().securing(demand, host.name))
            found = None if facts is None else concluded(demand, facts)
            if found is None and not demand.allows_clear:
                raise ConnectionLost("STARTTLS is refused")
            if found is not None and not found.may_go_on:
                raise ConnectionLost(str(found.refusal))
            if found is not None:
                await conversation.ehlo()
        elif not demand.allows_clear:
            raise ConnectionLost("TLS is demanded and not offered")
        return await conversation.deliver(request, content)
    finally:
        await conversation.quit()


async def send(reactor, book, request, content, *, port=25, limits=None):
    """Try the hosts of the first recipient's domain in their order; an outcome for each recipient."""
    domain = request.recipients[0].address.domain_key
    found = book.find(domain)
    hosts = await found if isinstance(found, Deferred) else found
    if not isinstance(hosts, Hosts):
        return [hosts for _ in request.recipients]  # Delayed or Failed, with the reply that says why
    why = ConnectionLost("no host may be used")
    for host in hosts.in_order(random.Random()):
        demand = demanded(
            tls=TLSMode.OPPORTUNISTIC, domain=domain, host=host, sts=hosts.sts, name_is_sure=hosts.is_authentic
        )
        if isinstance(demand, Barred):
            why = ConnectionLost(demand.why)
            continue
        for address in host.addresses:
            try:
                return await exchange(reactor, (address, port), host, demand, request, content, limits or ClientLimits())
            except (ConnectError, ConnectionLost) as error:
                why = error
    raise why


async def main(reactor, sender, *recipients):  # as `react` calls it
    message = sys.stdin.buffer.read().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    resolver = Resolver(reactor=reactor)
    await resolver.start()
    book = HostBook(look_up=lambda domain: domain_hosts(domain, resolver=resolver), seconds=reactor.seconds)
    request = Request(Address.parse(sender), tuple(Recipient(Address.parse(one)) for one in recipients), len(message))
    for recipient, outcome in zip(recipients, await send(reactor, book, request, message), strict=True):
        sys.stdout.write(f"{recipient} {outcome}\n")
    await resolver.stop()


if __name__ == "__main__":
    react(lambda reactor, *arguments: ensureDeferred(main(reactor, *arguments)), sys.argv[1:])
