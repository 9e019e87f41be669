"""The relay logs in with tokens: over sockets, to a host of ours that speaks OAUTHBEARER and XOAUTH2, with a mock of the issuer."""

import base64
import json
import os

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.threads import deferToThread

from mailserver.interfaces import Services
from mailserver.mail.answers import Delayed, Delivered
from mailserver.relay.components import SmarthostFactory, SmarthostOptions
from mailserver.relay.route_maker import token_file
from mailserver.relay.token_answers import IssuedTokens
from mailserver.testing import FakeResolver
from tests.relay.issuer import MockIssuer
from tests.relay.test_sockets import MESSAGE, ServerSide, Sink, SocketCase, certificate

USER = "relay@us.example"


class TokenSink(Sink):
    """Lets in whoever has a token of `factory.good`."""

    login = ""

    def line(self, line):
        verb, factory = line[:4].upper(), self.factory
        if self.login == "await":
            self.login = ""
            self.judge(base64.b64decode(line))
        elif self.login == "regret":
            self.login = ""
            factory.regrets.append(base64.b64decode(line))
            self.transport.write(b"535 5.7.3 Authentication unsuccessful\r\n")
        elif verb == b"EHLO" and self.encrypted:
            self.transport.write(b"250-sink.example\r\n250 AUTH PLAIN " + factory.offers + b"\r\n")
        elif verb == b"AUTH" and not self.in_content:
            _, mechanism, *initial = line.split(b" ")
            factory.mechanisms.append(mechanism)
            if initial:
                self.judge(base64.b64decode(initial[0]))
            else:
                self.login = "await"
                self.transport.write(b"334 \r\n")
        else:
            super().line(line)

    def judge(self, said):
        factory = self.factory
        factory.said.append(said)
        token = said.partition(b"Bearer ")[2].rstrip(b"\x01").decode()
        if token in factory.good:
            self.transport.write(b"235 2.7.0 In\r\n")
        else:
            self.login = "regret"
            no = json.dumps({"status": "invalid_token", "scope": token, "schemes": "bearer"}).encode()
            self.transport.write(b"334 " + base64.b64encode(no) + b"\r\n")


class TokenCase(SocketCase):
    def setUp(self):
        super().setUp()
        self.sink.protocol, self.sink.tls = TokenSink, ServerSide(certificate("sink.example"))
        self.sink.good, self.sink.offers, self.sink.said, self.sink.mechanisms, self.sink.regrets = {"token-1"}, b"XOAUTH2", [], [], []
        self.mock = MockIssuer()
        self.addCleanup(self.mock.stop)
        self.keys = os.path.join(os.path.abspath(self.mktemp()), "keys")

    def options(self, **more):
        return SmarthostOptions(**{
            "host": "sink.example", "port": self.port, "tls": "required", "username": USER, "oauth": self.mock.url, "oauth_client": "id",
            "oauth_scopes": ["mail.send"], "probe": "1ms", **more,
        })

    async def relay(self, **more):
        services = Services(
            clock=reactor, run_in_thread=deferToThread, state=None, resolver=FakeResolver({"sink.example": {"A": ["127.0.0.1"]}}),
            hostname="us.example", configuration_directory="/", data_directory="/", keys_directory=self.keys,
        )
        relay = SmarthostFactory().build(self.options(**more), services)
        await relay.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(relay.stop()))
        return relay

    def keep(self, access, lifetime=3600.0, refresh="refresh-0", ago=0.0):
        token_file(self.options(), self.keys, self.options()).write(IssuedTokens(access, lifetime, reactor.seconds() - ago, refresh))

    async def until(self, relay, kind):
        """The first outcome of this kind."""
        outcome = None
        while not isinstance(outcome, kind):
            pause = Deferred()
            reactor.callLater(0.005, pause.callback, None)
            await pause
            outcome = await self.deliver(relay)
        return outcome


class Success(TokenCase):
    async def test_a_message_is_sent_with_each_mechanism(self):
        self.keep("token-1")
        relay = await self.relay()
        self.assertIsInstance(await self.deliver(relay), Delivered)
        self.assertEqual(self.sink.messages, [(True, MESSAGE)])
        self.assertEqual(self.sink.said, [f"user={USER}\x01auth=Bearer token-1\x01\x01".encode()])
        self.sink.offers = b"XOAUTH2 OAUTHBEARER"
        self.assertIsInstance(await self.deliver(await self.relay()), Delivered)
        place = f"host=sink.example\x01port={self.port}\x01"
        self.assertEqual(self.sink.said[1], f"n,a={USER},\x01{place}auth=Bearer token-1\x01\x01".encode())
        self.assertIsInstance(await self.deliver(await self.relay(mechanisms=["XOAUTH2"])), Delivered)
        self.assertEqual(self.sink.mechanisms, [b"XOAUTH2", b"OAUTHBEARER", b"XOAUTH2"])
        self.assertEqual(self.mock.asked, [])

    async def test_a_long_token_follows_the_334(self):
        token = "x" * 3000
        self.sink.good = {token}
        self.keep(token)
        self.assertIsInstance(await self.deliver(await self.relay()), Delivered)

    async def test_messages_that_come_at_once_wait_for_one_question(self):
        self.keep("token-0", ago=7200)
        relay = await self.relay(messages_per_connection=1)
        outcomes = await gatherResults([Deferred.fromCoroutine(self.deliver(relay)) for _ in range(8)])
        self.assertEqual({type(one) for one in outcomes}, {Delivered})
        self.assertEqual(len(self.mock.asked), 1)
        self.assertEqual(self.sink.good, {"token-1"})
        self.assertEqual(len(self.sink.said), 8)

    async def test_a_client_that_asks_for_itself_needs_nobody(self):
        path = self.mktemp()
        with open(path, "w") as file:
            file.write("s3cret\n")
        relay = await self.relay(oauth_flow="client", oauth_secret_file=os.path.abspath(path))
        self.assertIsInstance(await self.deliver(relay), Delivered)
        self.assertEqual(self.mock.asked[0]["grant_type"], "client_credentials")


class Failure(TokenCase):
    def assertDeferred(self, outcome, *words):
        self.assertIsInstance(outcome, Delayed)
        for one in words:
            self.assertIn(one, str(outcome.reply))
        self.assertNotIn("token-", str(outcome))
        self.assertNotIn("refresh-", str(outcome))

    async def test_the_hosts_reason_is_told_without_the_token(self):
        self.sink.good = set()
        self.keep("token-9")
        relay = await self.relay()
        outcome = await self.deliver(relay)
        self.assertDeferred(outcome, "451 4.7.0 The host does not let us log in: 535 5.7.3", "(status invalid_token, scope …)")
        self.assertEqual(self.sink.regrets, [b""])
        self.assertIn("does not let us in", relay.doubts()[0])
        self.assertNotIn("token-9", relay.doubts()[0])

    async def test_a_token_that_was_revoked_is_replaced_and_the_mail_goes(self):
        self.keep("token-0", ago=1000)
        relay = await self.relay()
        self.assertDeferred(await self.deliver(relay), "535")
        await self.until(relay, Delivered)
        self.assertEqual((len(self.mock.asked), relay.doubts()), (1, ()))

    async def test_where_the_issuer_refuses_mail_waits_and_one_question_is_asked(self):
        self.keep("token-0", ago=7200, refresh="revoked")
        relay = await self.relay()
        for _ in range(5):
            self.assertDeferred(await self.deliver(relay))
        outcome = await self.until(relay, Delayed)
        self.assertDeferred(outcome, "There is no token to log in with: the issuer refuses: invalid_grant: … is not good")
        self.assertEqual((len(self.mock.asked), self.sink.said), (1, []))
        self.assertIn("does not work, and mail for other hosts waits", relay.doubts()[0])
        self.keep("token-1")  # somebody logs in
        await self.until(relay, Delivered)
        self.assertEqual(relay.doubts(), ())

    async def test_without_any_token_mail_waits(self):
        self.assertDeferred(await self.deliver(await self.relay()), "`mailserver smarthost login`")

    async def test_a_host_that_hangs_up_while_the_token_is_awaited_does_no_harm(self):
        self.keep("token-0", ago=7200)
        self.mock.before_answer = self.hang_up_all
        relay = await self.relay(messages_per_connection=1)
        outcome = await self.deliver(relay)
        self.assertIsInstance(outcome, Delayed | Delivered)
        self.mock.before_answer = lambda: None
        await self.until(relay, Delivered)

    def hang_up_all(self):
        for connection in self.sink.connections:
            connection.transport.abortConnection()

    async def test_a_host_that_offers_neither_hears_no_token(self):
        self.sink.offers = b"LOGIN"
        self.keep("token-1")
        self.assertDeferred(await self.deliver(await self.relay()), "4.7.0 The host offers no way to log in that we know")
        self.assertEqual(self.sink.said, [])
