"""Send a message step by step on asyncio: hosts, what their TLS must be, connect, EHLO, STARTTLS, EHLO, deliver, quit.

    python relay_steps_asyncio.py ann@client.example bob@example.org < message

Needs dnspython for the DNS.  No reactor runs.
"""

import asyncio
import contextlib
import random
import ssl
import sys
import time

import dns.asyncresolver
import dns.flags
import dns.resolver
from twisted.internet.defer import Deferred

from mailserver.mail.address import Address
from mailserver.mail.dns_records import Answer, LookupFailed
from mailserver.mail.envelope import Recipient
from mailserver.relay.hosts import HostBook, Hosts, domain_hosts
from mailserver.relay.security import Barred, TLSMode, demanded
from mailserver.smtp.client import ClientLimits, ClientSession, Request
from mailserver.smtp.client.events import Done, Greeted, Ready, ReadyForTLS, SendContent
from mailserver.smtp.events import Wait
from mailserver.trust import dane


class Resolver:
    """An `IResolver` over dnspython.  Its AD bit counts where the resolver behind it is one of yours that validates."""

    def __init__(self, *, believes: bool = False) -> None:
        self.believes, self.servers = believes, dns.asyncresolver.Resolver()
        self.servers.use_edns(0, dns.flags.DO)

    def query(self, name, record_type):
        return Deferred.fromFuture(asyncio.ensure_future(self.ask(name, record_type)))

    async def ask(self, name, record_type):
        try:
            found = await self.servers.resolve(name, record_type, raise_on_no_answer=False, search=False)
        except dns.resolver.NXDOMAIN:
            return Answer((), name_exists=False)
        except Exception as error:
            raise LookupFailed(f"{name}: {error}") from error
        is_secure = self.believes and bool(found.response.flags & dns.flags.AD)
        alias = str(found.canonical_name).rstrip(".")
        return Answer(
            tuple(record.to_text().removesuffix(".").lower() for record in found.rrset or ()),
            int(found.rrset.ttl) if found.rrset else 0,
            is_secure,
            canonical_name=alias if alias != name else "",
        )


class Conversation:
    """One connection: the protocol is the session's, the octets and the time are asyncio's."""

    def __init__(self, reader, writer, session):
        self.reader, self.writer, self.session = reader, writer, session

    @classmethod
    async def connect(cls, address, port, hello_name, limits):
        async with asyncio.timeout(limits.connect_seconds):
            reader, writer = await asyncio.open_connection(address, port)
        return cls(reader, writer, ClientSession(hello_name=hello_name, limits=limits))

    async def event(self):
        """What happens next.  Raises ConnectionError after the last of it."""
        session = self.session
        while (event := session.next_event()) is Wait.NEED_DATA:
            self.writer.write(session.data_to_send())
            try:
                async with asyncio.timeout(session.limits.seconds(session.phase)):
                    octets = await self.reader.read(65536)
            except (TimeoutError, OSError):
                session.give_up()  # too slow, or gone: the outcomes say so
                continue
            session.receive_data(octets) if octets else session.receive_eof()
        self.writer.write(session.data_to_send())
        if event is Wait.CLOSED:
            raise ConnectionError("the connection is closed")
        return event

    async def ehlo(self):
        """What the host offers."""
        while not isinstance(event := await self.event(), Ready):
            if not isinstance(event, Greeted):
                raise ConnectionError(str(event))
        return event.offer

    async def starttls(self, context, name):
        """Whether the connection is encrypted now; EHLO has to be said anew."""
        self.session.start_tls()
        if not isinstance(await self.event(), ReadyForTLS):
            return False
        await self.writer.start_tls(context, server_hostname=name)
        self.session.tls_established()
        return True

    def chain(self):
        """The host's certificates as DER, its own first; before Python 3.13 that one alone."""
        shown = self.writer.get_extra_info("ssl_object")
        if hasattr(shown, "get_unverified_chain"):
            return shown.get_unverified_chain()
        return [shown.getpeercert(binary_form=True)]

    async def deliver(self, request, content):
        """An outcome for each recipient."""
        self.session.send(request)
        while not isinstance(event := await self.event(), Done):
            if isinstance(event, SendContent):
                self.writer.write(self.session.content(content) + self.session.end_of_content())
        return event.outcomes

    async def quit(self):
        with contextlib.suppress(ConnectionError, OSError):
            if self.session.is_ready:
                self.session.quit()
                while True:
                    await self.event()
        self.writer.transport.abort()  # all is said
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


async def exchange(target, host, demand, request, content, limits):
    """The outcomes of one attempt at one address.  Raises OSError where the next one is to be tried."""
    conversation = await Conversation.connect(*target, "client.example", limits)
    try:
        offer = await conversation.ehlo()
        if demand.wants_tls and offer.starttls:
            context = ssl.create_default_context()
            if demand.mode is not TLSMode.VERIFIED:  # whatever the certificate; with DANE it is looked at below
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            if not await conversation.starttls(context, demand.name or host.name) and not demand.allows_clear:
                raise ConnectionError("STARTTLS is refused")
            if demand.tlsa is not None:
                found = dane.match(demand.tlsa, conversation.chain(), time.time())
                if isinstance(found, dane.DaneMismatch):
                    raise ConnectionError(found.why)
            await conversation.ehlo()
        elif not demand.allows_clear:
            raise ConnectionError("TLS is demanded and not offered")
        return await conversation.deliver(request, content)
    finally:
        await conversation.quit()


async def send(book, request, content, *, port=25, limits=None):
    """Try the hosts of the first recipient's domain in their order; an outcome for each recipient."""
    domain = request.recipients[0].address.domain_key
    found = book.find(domain)
    hosts = await found.asFuture(asyncio.get_running_loop()) if isinstance(found, Deferred) else found
    if not isinstance(hosts, Hosts):
        return [hosts for _ in request.recipients]  # Delayed or Failed, with the reply that says why
    why = ConnectionError("no host may be used")
    for host in hosts.in_order(random.Random()):
        demand = demanded(
            tls=TLSMode.OPPORTUNISTIC, domain=domain, host=host, sts=hosts.sts, name_is_sure=hosts.is_authentic
        )
        if isinstance(demand, Barred):
            why = ConnectionError(demand.why)
            continue
        for address in host.addresses:
            try:
                return await exchange((address, port), host, demand, request, content, limits or ClientLimits())
            except OSError as error:  # asyncio's time-outs are OSErrors, too
                why = error
    raise why


async def main(sender, *recipients):
    message = sys.stdin.buffer.read().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    resolver = Resolver()
    book = HostBook(look_up=lambda domain: domain_hosts(domain, resolver=resolver), seconds=time.monotonic)
    request = Request(Address.parse(sender), tuple(Recipient(Address.parse(one)) for one in recipients), len(message))
    for recipient, outcome in zip(recipients, await send(book, request, message), strict=True):
        sys.stdout.write(f"{recipient} {outcome}\n")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
