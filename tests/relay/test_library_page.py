"""docs/relay-library.md and the programs in it: they are the same, and they work, on Twisted and on plain asyncio."""

import asyncio
import dataclasses
import doctest
import importlib
import re
import time

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError, ConnectionLost
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from mailserver.mail.address import Address
from mailserver.mail.answers import Delayed, Delivered, Failed
from mailserver.mail.dns_records import TLSA
from mailserver.mail.envelope import Recipient
from mailserver.relay.hosts import HostBook, Unroutable, domain_hosts
from mailserver.smtp.client import Request
from mailserver.testing import FakeResolver
from mailserver.trust.dane import TLSAAnswer, TLSAState
from tests.dnssec import Signing, Zone, shared
from tests.documents import DOCS, example_as_shown, load_example, page_text
from tests.relay.test_explored import shown_by
from tests.relay.test_sockets import MESSAGE, ServerSide, SocketCase, certificate

PAGE = page_text("relay-library.md")
ZONES = {
    "example.org": {"MX": ["10 away.example", "20 sink.example"]},
    "away.example": {"A": ["127.0.0.9"]},
    "sink.example": {"A": ["127.0.0.1"]},
    "null.example": {"MX": ["0 ."]},
}


def request(domain="example.org"):
    recipients = tuple([Recipient(Address(name, domain)) for name in ("bob", "carol")])
    return Request(Address("ann", "client.example"), recipients, len(MESSAGE))


class Page(SocketCase):
    def test_it_shows_the_examples_as_they_are(self):
        for name in ("relay_steps_asyncio", "relay_steps_twisted"):
            self.assertIn(example_as_shown(name), PAGE)

    def test_every_name_of_ours_exists(self):
        names = re.findall(r"`(mailserver(?:\.\w+)+)`", PAGE)
        self.assertGreater(len(names), 12)
        for name in names:
            module, _, rest = name.rpartition(".")
            try:
                importlib.import_module(name)
            except ImportError:
                self.assertTrue(hasattr(importlib.import_module(module), rest), name)


    def test_what_it_types_is_what_happens(self):
        result = doctest.testfile(str(DOCS / "relay-library.md"), module_relative=False, encoding="utf-8")
        self.assertEqual((result.failed, result.attempted), (0, 9))


class StepsCase(SocketCase):
    def setUp(self):
        super().setUp()
        self.tlsa = None

    def book(self):
        """Hosts as the DNS has them; of the sink perhaps with TLSA records, as a DNS that is secure would have them."""
        resolver = FakeResolver(ZONES)

        async def look_up(domain):
            hosts = await domain_hosts(domain, resolver=resolver)
            if self.tlsa is None:
                return hosts
            return dataclasses.replace(
                hosts,
                groups=tuple([tuple([dataclasses.replace(one, tlsa=self.tlsa) for one in group]) for group in hosts.groups]),
            )

        return HostBook(look_up=look_up, seconds=time.monotonic)

    def pin(self, made):
        record = TLSA(3, 0, 0, shown_by(made))
        self.tlsa = TLSAAnswer(TLSAState.USABLE, (record,), "sink.example", ("sink.example",))

    async def in_the_clear_and_in_tls(self):
        self.assertEqual([type(one) for one in await self.steps(request())], [Delivered, Delivered])
        self.sink.tls = ServerSide(certificate("sink.example"))
        self.assertEqual([type(one) for one in await self.steps(request())], [Delivered, Delivered])
        self.assertEqual(self.sink.messages, [(False, MESSAGE), (True, MESSAGE)])

    async def what_takes_no_mail(self):
        self.assertEqual([type(one) for one in await self.steps(request("null.example"))], [Failed, Failed])

    async def dane(self, *errors):
        self.pin(certificate("sink.example"))
        self.sink.tls = None
        await self.assertFailure(self.steps(request()), *errors)
        self.sink.tls = ServerSide(certificate("sink.example"))  # another key
        await self.assertFailure(self.steps(request()), *errors)
        self.assertEqual(self.sink.messages, [])
        self.pin(self.sink.tls.context)
        self.assertEqual([type(one) for one in await self.steps(request())], [Delivered, Delivered])
        self.assertEqual(self.sink.messages, [(True, MESSAGE)])


class OnAsyncio(StepsCase):
    def steps(self, wanted):
        example, book = load_example("relay_steps_asyncio"), self.book()
        return deferToThread(lambda: asyncio.run(example.send(book, wanted, MESSAGE, port=self.port)))

    async def test_a_message_goes_to_the_next_host_in_the_clear_and_in_tls(self):
        await self.in_the_clear_and_in_tls()

    async def test_a_domain_that_takes_no_mail_is_told(self):
        await self.what_takes_no_mail()

    async def test_with_dane_the_certificate_has_to_match(self):
        await self.dane(OSError)


class OnTwisted(StepsCase):
    def steps(self, wanted):
        example = load_example("relay_steps_twisted")
        return Deferred.fromCoroutine(example.send(reactor, self.book(), wanted, MESSAGE, port=self.port))

    async def test_a_message_goes_to_the_next_host_in_the_clear_and_in_tls(self):
        await self.in_the_clear_and_in_tls()

    async def test_a_domain_that_takes_no_mail_is_told(self):
        await self.what_takes_no_mail()

    async def test_with_dane_the_certificate_has_to_match(self):
        await self.dane(ConnectError, ConnectionLost)


def zones():
    return {
        "secure.example": Zone(["@ MX 10 Mx", "mx A 192.0.2.2", f"_25._tcp.mx TLSA 3 1 1 {'0F' * 32}"]),
        "plain.example": Zone(["@ MX 10 mx", "mx A 192.0.2.3"], signing=Signing.NONE),
        "bogus.example": Zone(["@ MX 10 mx", "mx A 192.0.2.4"], signing=Signing.BOGUS),
    }


class DNSPython(TestCase):
    """The resolver of the asyncio example, asked beside a validating server."""

    async def hosts(self, domain, **options):
        world, example = shared(zones), load_example("relay_steps_asyncio")

        async def found():
            resolver = example.Resolver(**options)
            address, _, port = world.address.rpartition(":")
            resolver.servers.nameservers, resolver.servers.port = [address], int(port)
            try:
                hosts = domain_hosts(domain, resolver=resolver)
                return await Deferred.fromCoroutine(hosts).asFuture(asyncio.get_running_loop())
            except Unroutable as error:
                return error.outcome

        return await deferToThread(lambda: asyncio.run(found()))

    async def test_its_answers_are_those_of_the_servers_own_resolver(self):
        hosts = await self.hosts("secure.example", believes=True)
        ((host,),) = hosts.groups
        self.assertEqual((host.name, host.addresses, hosts.is_authentic), ("mx.secure.example", ("192.0.2.2",), True))
        self.assertEqual((host.tlsa.state, host.tlsa.records), (TLSAState.USABLE, (TLSA(3, 1, 1, b"\x0f" * 32),)))
        hosts = await self.hosts("secure.example")
        self.assertEqual((hosts.is_authentic, hosts.groups[0][0].tlsa.state), (False, TLSAState.NONE))
        hosts = await self.hosts("plain.example", believes=True)
        self.assertEqual((hosts.is_authentic, hosts.groups[0][0].tlsa.state), (False, TLSAState.NONE))

    async def test_what_does_not_exist_fails_and_what_cannot_be_told_waits(self):
        self.assertIsInstance(await self.hosts("none.secure.example", believes=True), Failed)
        self.assertIsInstance(await self.hosts("bogus.example", believes=True), Delayed)
