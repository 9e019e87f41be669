"""Fetches from hosts that strangers have named, with a real server on loopback."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor as the_reactor
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import Certificate, DefaultOpenSSLContextFactory, trustRootFromCertificates
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from mailserver.fetching import Fetching, client
from mailserver.mail.dns_records import Answer
from mailserver.mail.fetched import Fetched, FetchFailed
from mailserver.mail.networks import LOOPBACK, NO_NETWORKS
from mailserver.testing import FakeResolver
from mailserver.transport.bounded import BoundedEndpoint
from tests.tls.authority import Authority

HOST = "mta-sts.stranger.example"
reactor: Any = the_reactor
Script = Callable[["Server"], None]


class Server(Protocol):
    """Reads one request, then does what the test says."""

    factory: Any

    def __init__(self) -> None:
        self.octets = b""

    def dataReceived(self, data: bytes) -> None:
        self.octets += data
        head, end, rest = self.octets.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", head)
        if end and len(rest) >= int(length[1] if length else 0):
            self.factory.requests.append(self.octets)
            self.octets = b""
            self.factory.script(self)

    def connectionMade(self) -> None:
        self.factory.open.add(self)
        self.factory.connections += 1

    def connectionLost(self, reason: Any = None) -> None:
        self.factory.open.discard(self)
        if not self.factory.open and self.factory.emptied is not None:
            self.factory.emptied.callback(None)
            self.factory.emptied = None

    def say(self, octets: bytes) -> None:
        transport: Any = self.transport
        transport.write(octets)


def answer(body: bytes, status: str = "200 OK", *more: str) -> Script:
    def script(server: Server) -> None:
        head = "\r\n".join([f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Content-Type: Text/Plain; charset=utf-8", *more])
        server.say(head.encode() + b"\r\n\r\n" + body)

    return script


class FetchCase(TestCase):
    timeout = 30

    def setUp(self) -> None:
        self.authority = Authority()
        self.folder = os.path.abspath(self.mktemp())
        os.mkdir(self.folder)
        self.resolver = FakeResolver({HOST: {"A": ["127.0.0.1"]}})
        self.trust = trustRootFromCertificates([Certificate.loadPEM(self.authority.pem)])
        self.listen(HOST)

    def listen(self, *names: str, **leaf: Any) -> None:
        pair = self.authority.leaf(*names, **leaf).write(self.folder, f"of {len(os.listdir(self.folder))}")
        self.site: Any = Factory.forProtocol(Server)
        self.site.requests, self.site.open, self.site.emptied = [], set(), None
        self.site.connections, self.site.script = 0, answer(b"version: STSv1\n")
        context = DefaultOpenSSLContextFactory(pair.key, pair.certificate)
        port = reactor.listenSSL(0, self.site, context, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        self.addCleanup(self.closed)
        self.port = port.getHost().port

    async def closed(self) -> None:
        """No connection is left open, whatever became of its fetch."""
        if self.site.open:
            self.site.emptied = Deferred()
            await self.site.emptied

    def fetching(self, **changes: Any) -> Fetching:
        options = {"reactor": reactor, "resolver": self.resolver, "allow": LOOPBACK, "trust_root": self.trust, **changes}
        return Fetching(**options)

    def url(self, path: str = "/.well-known/mta-sts.txt", host: str = HOST) -> str:
        return f"https://{host}:{self.port}{path}"

    async def fetch(self, url: str = "", **changes: Any) -> Fetched:
        return await self.fetching(**changes).lend()(url or self.url())

    async def fails(self, url: str = "", **changes: Any) -> str:
        fault = await self.assertFailure(Deferred.fromCoroutine(self.fetch(url, **changes)), FetchFailed)
        return str(fault)


class Answers(FetchCase):
    async def test_a_page_is_fetched_from_the_host_by_its_name(self) -> None:
        found = await self.fetch()
        self.assertEqual(found, Fetched(self.url(), 200, "text/plain", b"version: STSv1\n"))
        request = self.site.requests[0].decode().split("\r\n")
        self.assertEqual(request[0], "GET /.well-known/mta-sts.txt HTTP/1.1")
        self.assertIn(f"Host: {HOST}:{self.port}", request)
        self.assertNotIn("content-length", self.site.requests[0].decode().lower(), "a question without content")

    async def test_a_report_is_posted(self) -> None:
        self.site.script = answer(b"", "201 Created")
        fetch = self.fetching().lend()
        found = await fetch(self.url("/report"), body=b"{}" * 50_000, content_type="application/tlsrpt+gzip")
        self.assertEqual((found.status, found.body), (201, b""))
        head, _, body = self.site.requests[0].partition(b"\r\n\r\n")
        self.assertIn(b"POST /report HTTP/1.1", head)
        self.assertIn(b"application/tlsrpt+gzip", head)
        self.assertEqual(body, b"{}" * 50_000)
        for more in ({"accept": "a\r\nb: c"}, {"body": b"", "content_type": "ü"}):
            await self.assertFailure(Deferred.fromCoroutine(fetch(self.url(), **more)), ValueError)

    async def test_redirects_and_refusals_are_answers_and_nobody_follows_them(self) -> None:
        for status in ("301 Moved", "307 Temporary Redirect", "404 Not Found", "500 Oh"):
            self.site.script = answer(b"x", status, f"Location: {self.url('/elsewhere')}")
            self.assertEqual((await self.fetch()).status, int(status[:3]))
        self.assertEqual(self.site.connections, 4)

    async def test_chunks_and_an_end_by_closing_are_taken(self) -> None:
        self.site.script = lambda server: server.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
        self.assertEqual((await self.fetch()).body, b"abcde")

        def closes(server: Any) -> None:
            server.say(b"HTTP/1.1 200 OK\r\n\r\nabc")
            server.transport.loseConnection()

        self.site.script = closes
        self.assertEqual((await self.fetch()).body, b"abc")

    async def test_64_kilobytes_are_taken_and_one_octet_more_is_not(self) -> None:
        self.site.script = answer(b"x" * 65_536)
        self.assertEqual(len((await self.fetch()).body), 65_536)
        self.site.script = answer(b"x" * 65_537)
        self.assertIn("more than 65536 octets", await self.fails())

    async def test_what_never_ends_is_cut_off(self) -> None:
        def endless(piece: bytes, head: bytes = b"HTTP/1.1 200 OK\r\n") -> Script:
            def script(server: Any) -> None:
                def more() -> None:
                    if server in self.site.open:
                        server.say(piece * 100)
                        reactor.callLater(0, more)

                server.say(head)
                more()

            return script

        for script in (
            endless(b"x" * 100, b"HTTP/1.1 200 OK\r\n\r\n"),
            endless(b"5\r\nabcde\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
            endless(b"X-Field: and another\r\n"),
            endless(b"HTTP/1.1 103 Early Hints\r\n\r\n", b""),
            endless(b"f" * 100, b"HTTP/1.1 200 OK\r\nX-Long: "),
        ):
            self.site.script = script
            self.assertRegex(await self.fails(), "more than 65536 octets|closed")  # Twisted itself ends too long a line
            await self.closed()

    async def test_an_answer_that_is_cut_or_is_none_or_is_encoded_is_a_failure(self) -> None:
        def cut(octets: bytes) -> Script:
            def script(server: Any) -> None:
                server.say(octets)
                server.transport.loseConnection()

            return script

        for script in (
            cut(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"),
            cut(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab"),
            cut(b"SSH-2.0-OpenSSH\r\n"),
            cut(b""),
            answer(b"\x1f\x8b", "200 OK", "Content-Encoding: gzip"),
        ):
            self.site.script = script
            why = await self.fails()
            self.assertTrue(why.startswith(f"{HOST}: ") and "TLS" not in why, why)

    async def test_a_host_that_drips_has_a_minute_for_all_of_it(self) -> None:
        clock = Clock()
        self.site.script = lambda server: server.say(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nx")
        seen = self.site.__dict__
        fetching = self.fetching()
        real, fetching._reactor = fetching._reactor, Both(reactor, clock)
        self.assertIs(real, reactor)
        found = Deferred.fromCoroutine(fetching.lend()(self.url()))
        while not seen["requests"]:
            await Turn()
        for _ in range(59):
            clock.advance(1)
            self.assertNoResult(found)
            for server in list(self.site.open):
                server.say(b"")
        clock.advance(1)
        self.assertIn("60 seconds", str(await self.assertFailure(found, FetchFailed)))
        await self.closed()

    async def test_whoever_waits_no_longer_leaves_no_connection(self) -> None:
        held: Deferred[None] = Deferred()
        self.site.script = lambda server: held.callback(None)
        found = Deferred.fromCoroutine(self.fetch())
        await held
        found.cancel()
        await self.assertFailure(found, CancelledError)
        await self.closed()


class Bounds(TestCase):
    def test_one_that_was_never_connected_is_needed_no_more_all_the_same(self) -> None:
        endpoint = BoundedEndpoint(None, 10)
        endpoint.cut()
        self.assertFalse(endpoint.is_exceeded)


class Turn(Deferred[None]):
    """The reactor's next turn."""

    def __init__(self) -> None:
        super().__init__()
        reactor.callLater(0.001, self.callback, None)


class Both:
    """The real reactor with a clock of the test's for what takes a minute."""

    def __init__(self, of: Any, clock: Clock) -> None:
        self._of = of
        self._clock = clock

    def callLater(self, seconds: float, *arguments: Any, **named: Any) -> Any:
        return (self._clock if seconds >= 10 else self._of).callLater(seconds, *arguments, **named)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._of, name)


class Certificates(FetchCase):
    async def test_a_certificate_of_another_name_or_authority_or_time_is_refused(self) -> None:
        await self.fetch()
        self.listen("other.example")
        self.assertIn("TLS", await self.fails())
        self.assertEqual(self.site.requests, [], "nothing was asked")
        self.listen(HOST)
        self.assertIn("TLS", await self.fails(trust_root=trustRootFromCertificates([Certificate.loadPEM(Authority().pem)])))
        self.assertEqual(self.site.requests, [])


class Addresses(FetchCase):
    async def test_none_that_is_not_public_is_connected_to(self) -> None:
        for kind, address in (
            ("A", "127.0.0.1"), ("A", "10.0.0.1"), ("A", "169.254.169.254"), ("A", "100.64.0.1"), ("A", "0.0.0.0"), ("A", "255.255.255.255"),
            ("AAAA", "::1"), ("AAAA", "::"), ("AAAA", "::ffff:127.0.0.1"), ("AAAA", "fe80::1"), ("AAAA", "fd00::1"),
            ("AAAA", "64:ff9b::7f00:1"), ("AAAA", "64:ff9b:1::1"), ("AAAA", "2002:7f00:1::"), ("AAAA", "::127.0.0.1"),
        ):  # fmt: skip
            self.resolver.zones[HOST] = {kind: [address]}
            self.assertIn("not for the public", await self.fails(f"https://{HOST}/", allow=NO_NETWORKS))
        self.assertEqual(self.site.connections, 0)

    async def test_another_port_is_not_asked_for_though_the_address_is_public(self) -> None:
        self.resolver.zones[HOST] = {"A": ["8.8.8.8"]}
        self.assertIn("leads to 8.8.8.8 at port 22, which is not for the public", await self.fails(f"https://{HOST}:22/"))
        self.resolver.zones[HOST] = {"A": ["127.0.0.1"]}
        self.assertIn("leads to 127.0.0.1, which is not for the public", await self.fails(f"https://{HOST}/", allow=NO_NETWORKS))

    async def test_what_the_dns_says_a_moment_later_does_not_count(self) -> None:
        asked: list[str] = []

        class Rebinding(FakeResolver):
            async def query(self, name: str, record_type: str) -> Answer:
                asked.append(record_type)
                return Answer(("127.0.0.1",) if len(asked) <= 2 and record_type == "A" else ())

        await self.fetch(resolver=Rebinding())
        self.assertEqual(sorted(asked), ["A", "AAAA"], "looked up once")

    async def test_the_good_ones_of_several_are_tried_one_after_the_other(self) -> None:
        self.resolver.zones[HOST] = {"A": ["10.9.9.9", "127.0.0.77", "127.0.0.1"]}  # nobody listens at the second
        self.assertEqual((await self.fetch()).status, 200)
        self.resolver.zones[HOST] = {"A": ["127.0.0.77"]}
        self.assertIn("cannot be reached", await self.fails())

    async def test_no_answer_of_the_dns_and_no_address_are_told_apart(self) -> None:
        self.assertIn("no address", await self.fails("https://nowhere.example/"))
        self.resolver.failing.add(HOST)
        self.assertNotIn("no address", await self.fails())


class Turns(FetchCase):
    async def test_a_component_has_ten_at_once_and_all_have_twenty(self) -> None:
        waiting: list[Server] = []
        self.site.script = waiting.append
        fetching = self.fetching()
        fetches = [[Deferred.fromCoroutine(fetch(self.url())) for _ in range(12)] for fetch in [fetching.lend() for _ in range(3)]]
        while len(waiting) < 20:
            await Turn()
        self.assertEqual(self.site.connections, 20)
        self.site.script = answer(b"now")
        for server in waiting:
            answer(b"held")(server)
        bodies = [one.body for one in await gatherResults([one for some in fetches for one in some])]
        self.assertEqual((bodies.count(b"held"), bodies.count(b"now")), (20, 16))

    async def test_those_who_wait_are_bounded(self) -> None:
        self.patch(client, "WAITING_MOST", 3)
        self.site.script = lambda server: None
        fetch = self.fetching().lend()
        fetches = [Deferred.fromCoroutine(fetch(self.url())) for _ in range(13)]
        fault = await self.assertFailure(Deferred.fromCoroutine(fetch(self.url())), FetchFailed)
        self.assertIn("wait already", str(fault))
        for one in fetches:
            one.cancel()
            await self.assertFailure(one, CancelledError)


class AllowedNetworks(FetchCase):
    async def test_a_reload_changes_them(self) -> None:
        fetching = self.fetching(allow=NO_NETWORKS)
        fetch = fetching.lend()
        await self.assertFailure(Deferred.fromCoroutine(fetch(self.url())), FetchFailed)
        fetching.allow = LOOPBACK
        self.assertEqual((await fetch(self.url())).status, 200)
