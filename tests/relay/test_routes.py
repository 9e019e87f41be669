"""Routes over real sockets: which host, from which address, with whose log-in; and a reload while mail is under way."""

import base64
from pathlib import Path

from OpenSSL import SSL
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.protocol import Factory
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from mailserver.interfaces import RetryTimes, Services
from mailserver.mail.address import Address
from mailserver.mail.answers import Delayed, Delivered, Failed, Remote
from mailserver.mail.content import Content
from mailserver.mail.envelope import Envelope, Peer, Recipient
from mailserver.mail.parcel import Destination
from mailserver.plugins.catalogue import discover
from mailserver.relay.components import ConfiguredRelay, MXOptions
from mailserver.testing import FakeResolver
from tests.config.support import LEAST, parsed
from tests.relay.test_sockets import MESSAGE, ServerSide, Sink, certificate
from tests.tls.authority import Authority

ALICE, BOB, CAROL = (Address(name, "example.net") for name in ("alice", "bob", "carol"))


class RoutedSink(Sink):
    """Notes who connects from where, who logs in as whom, and what the envelopes are; holds the answer to the final dot back."""

    def line(self, line):
        verb, factory = line[:4].upper(), self.factory
        if verb == b"EHLO" and factory.users is not None and self.encrypted:
            self.transport.write(b"250-sink.example\r\n250-AUTH PLAIN\r\n250 PIPELINING\r\n")
        elif verb == b"AUTH":
            self.user = tuple(base64.b64decode(line.split()[2]).decode().split("\0")[1:])
            factory.users.append(self.user)
            self.transport.write(b"235 2.7.0 Ok\r\n")
        elif verb == b"MAIL":
            self.envelope = [line.decode().split("<")[1].split(">")[0]]
            super().line(line)
        elif verb == b"RCPT":
            self.envelope.append(line.decode().split("<")[1].split(">")[0])
            super().line(line)
        elif self.in_content:
            factory.envelopes.append((self.transport.getPeer().host, getattr(self, "user", None), *self.envelope))
            if factory.holds is not None:
                factory.holds.addCallback(lambda _: Sink.line(self, line))
            else:
                super().line(line)
        else:
            super().line(line)


class RoutedCase(TestCase):
    timeout = 60

    def setUp(self):
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.sinks = []
        self.addCleanup(self.hang_up)

    def sink(self, *, users=None, tls=None, interface="127.0.0.1"):
        sink = Factory.forProtocol(RoutedSink)
        sink.noisy, sink.slow, sink.behind_220, sink.holds = False, False, b"", None
        sink.connections, sink.messages, sink.envelopes = [], [], []
        sink.users, sink.tls = users, tls
        listening = reactor.listenTCP(0, sink, interface=interface)
        self.addCleanup(listening.stopListening)
        sink.port = listening.getHost().port
        self.sinks.append(sink)
        return sink

    def hang_up(self):
        connections = [one for sink in self.sinks for one in sink.connections]
        for connection in connections:
            connection.transport.abortConnection()
        return gatherResults([connection.gone for connection in connections])

    def configuration(self, text):
        return parsed(LEAST + text, discover().options_of)

    async def relay(self, text, zones=None):
        services = Services(
            clock=reactor, run_in_thread=deferToThread, state=None, resolver=FakeResolver(zones or {}), hostname="us.example",
            configuration_directory="/", data_directory="/",
        )  # fmt: skip
        made = self.configuration(text)
        options = made.relay.options if made.relay.use != "none" else MXOptions()
        relay = ConfiguredRelay(made.relay.use if made.relay.use != "none" else "mx", options, services)
        self.configure(relay, text)
        await relay.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(relay.stop()))
        return relay

    def turn(self):
        turned = Deferred()
        reactor.callLater(0, turned.callback, None)
        return turned

    def configure(self, relay, text):
        made = self.configuration(text)
        relay.configure(made.relay.use, made.relay.options, made.route)

    async def send(self, relay, sender, *recipients):
        paths = tuple([Recipient(Address.parse(one)) for one in recipients])
        envelope = Envelope("id", Peer("192.0.2.1", 1, "mx"), sender, paths, 0.0)
        destinations = [Destination(n, one, Remote(one.address)) for n, one in enumerate(paths)]
        outcomes = await relay.deliver(envelope, Content.of(MESSAGE), destinations)
        return [outcomes[n] for n in range(len(paths))]

    def assertDelivered(self, outcomes):
        self.assertEqual({type(one) for one in outcomes}, {Delivered}, outcomes)


class Ways(RoutedCase):
    async def test_each_recipient_goes_its_way_and_those_of_one_way_share_a_transaction(self):
        usual, partner, inner = self.sink(), self.sink(), self.sink(interface="127.0.0.3")
        relay = await self.relay(
            f'[relay]\nuse = "smarthost"\nhost = "127.0.0.1"\nport = {usual.port}\n'
            f'[[route]]\ndomain = "partner.example"\nhost = "127.0.0.1"\nport = {partner.port}\nsource_ipv4 = "127.0.0.2"\n'
            f'[[route]]\ndomain = [".inner.example"]\nname = "inner"\nuse = "mx"\nport = {inner.port}\n'
            '[[route]]\ndomain = "closed.example"\nuse = "none"\nreason = "Not from here"\n',
            {"a.inner.example": {"MX": ["10 mx.inner.example"]}, "mx.inner.example": {"A": ["127.0.0.3"]}},
        )
        recipients = ("x@one.example", "a@partner.example", "y@two.example", "b@partner.example", "c@a.inner.example")
        outcomes = await self.send(relay, ALICE, *recipients, "d@closed.example")
        self.assertDelivered(outcomes[:5])
        self.assertEqual(
            (type(outcomes[5]), str(outcomes[5].reply), outcomes[5].note),
            (Failed, "550 5.7.1 Not from here", "route closed.example"),
        )
        self.assertEqual(usual.envelopes, [("127.0.0.1", None, str(ALICE), "x@one.example", "y@two.example")])
        self.assertEqual(partner.envelopes, [("127.0.0.2", None, str(ALICE), "a@partner.example", "b@partner.example")])
        self.assertEqual(inner.envelopes, [("127.0.0.1", None, str(ALICE), "c@a.inner.example")])
        self.assertIn(", route partner.example, in the clear", outcomes[1].note)
        self.assertIn(", route inner, ", outcomes[4].note)
        self.assertNotIn("route", outcomes[0].note)

    async def test_without_a_relay_the_routes_are_all_there_is(self):
        partner = self.sink()
        relay = await self.relay(
            f'[relay]\nuse = "none"\n[[route]]\ndomain = "partner.example"\nhost = "127.0.0.1"\nport = {partner.port}\n'
        )
        yes, no = await self.send(relay, ALICE, "a@partner.example", "x@one.example")
        self.assertDelivered([yes])
        self.assertEqual((type(no), str(no.reply)), (Delayed, "451 4.3.5 There is no relay for this recipient"))

    async def test_each_senders_mail_goes_by_his_own_smarthost_with_his_own_log_in(self):
        one = self.sink(users=[], tls=ServerSide(certificate("one.example")))
        two = self.sink(users=[], tls=ServerSide(certificate("two.example")))
        for name in ("alice", "bob", "carol"):
            (self.folder / name).write_text(f"{name}'s secret\n")
        route = (
            '[[route]]\nsender = "{0}@example.net"\nhost = "127.0.0.1"\nport = {1}\ntls = "required"\n'
            'username = "{0}"\npassword_file = "{2}/{0}"\n'
        )
        relay = await self.relay(
            '[relay]\nuse = "none"\n'
            + "".join(
                route.format(name, sink.port, self.folder) for name, sink in (("alice", one), ("bob", two), ("carol", one))
            )
        )
        for _ in range(2):
            for sender in (ALICE, BOB, CAROL):
                self.assertDelivered(await self.send(relay, sender, "x@one.example"))
        alice, bob, carol = ((name, f"{name}'s secret") for name in ("alice", "bob", "carol"))
        self.assertEqual((one.users, two.users), ([alice, carol], [bob]))  # one log-in each: the second message used it again
        self.assertEqual(
            [(envelope[1], envelope[2]) for envelope in one.envelopes],
            [(alice, str(ALICE)), (carol, str(CAROL))] * 2,
        )
        self.assertEqual([(envelope[1], envelope[2]) for envelope in two.envelopes], [(bob, str(BOB))] * 2)
        (unknown,) = await self.send(relay, Address("mallory", "example.net"), "x@one.example")
        self.assertIsInstance(unknown, Delayed)

    async def test_the_same_host_with_another_source_address_is_another_connection(self):
        sink = self.sink()
        relay = await self.relay(
            f'[relay]\nuse = "smarthost"\nhost = "127.0.0.1"\nport = {sink.port}\n'
            '[[route]]\nsender = "alice@example.net"\nsource_ipv4 = "127.0.0.2"\n'
            '[[route]]\nsender = "<>"\nsource_ipv4 = "127.0.0.3"\n'
        )
        for sender in (ALICE, BOB, None, ALICE):
            self.assertDelivered(await self.send(relay, sender, "x@one.example"))
        self.assertEqual([one[0] for one in sink.envelopes], ["127.0.0.2", "127.0.0.1", "127.0.0.3", "127.0.0.2"])
        self.assertEqual(len(sink.connections), 3)

    async def test_hosts_that_a_filter_names_are_for_routes_without_a_host(self):
        usual, own, named = self.sink(), self.sink(), self.sink()
        from mailserver.interfaces import Candidate

        relay = await self.relay(
            f'[relay]\nuse = "mx"\nport = {usual.port}\n'
            f'[[route]]\ndomain = "own.example"\nhost = "127.0.0.1"\nport = {own.port}\n'
        )
        paths = tuple([Recipient(Address.parse(one)) for one in ("x@own.example", "x@other.example")])
        envelope = Envelope("id", Peer("192.0.2.1", 1, "mx"), ALICE, paths, 0.0)
        destinations = [Destination(n, one, Remote(one.address)) for n, one in enumerate(paths)]
        hosts = [Candidate("named.example", ("127.0.0.1",), named.port, 0)]
        outcomes = await relay.deliver_to(hosts, envelope, Content.of(MESSAGE), destinations)
        self.assertDelivered(outcomes.values())
        self.assertEqual((own.envelopes[0][3], named.envelopes[0][3]), ("x@own.example", "x@other.example"))


class Certificates(RoutedCase):
    """The sink asks for a certificate, and notes whose it was shown."""

    def asking(self):
        context = certificate("one.example")
        shown = []

        def look(connection, found, error, depth, good):
            shown.append(found.to_cryptography().subject.rfc4514_string().removeprefix("CN="))
            return True

        context.set_verify(SSL.VERIFY_PEER, look)
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        return self.sink(tls=ServerSide(context)), shown

    def write(self, name, subject):
        return Authority().leaf(subject).write(str(self.folder), name)

    def showing(self, name):
        return f'client_certificate = "{self.folder}/{name}.pem"\nclient_key = "{self.folder}/{name}.key"\n'

    def smarthost(self, sink, more=""):
        return f'[relay]\nuse = "smarthost"\nhost = "127.0.0.1"\nport = {sink.port}\ntls = "required"\nprobe = "1ms"\n{more}'

    async def test_each_route_shows_its_own_and_the_others_none(self):
        sink, shown = self.asking()
        for name in ("alice", "bob"):
            self.write(name, f"{name}.example")
        routes = [f'[[route]]\nsender = "{name}@example.net"\n{self.showing(name)}' for name in ("alice", "bob")]
        relay = await self.relay(self.smarthost(sink) + "".join(routes))
        for sender, seen in ((ALICE, {"alice.example"}), (BOB, {"bob.example"}), (CAROL, set()), (ALICE, set())):
            shown.clear()
            self.assertDelivered(await self.send(relay, sender, "x@one.example"))
            self.assertEqual(set(shown), seen, sender)
        self.assertEqual(len(sink.connections), 3)

    async def test_a_reload_takes_up_what_has_changed_and_nothing_faulty(self):
        sink, shown = self.asking()
        text = self.smarthost(sink, self.showing("us"))
        self.write("us", "first.example")
        relay = await self.relay(text)
        self.assertDelivered(await self.send(relay, ALICE, "x@one.example"))
        (self.folder / "us.pem").write_text("no certificate at all")
        self.configure(relay, text)
        self.assertDelivered(await self.send(relay, ALICE, "x@one.example"))
        self.assertEqual((set(shown), len(sink.connections)), ({"first.example"}, 1))
        self.write("us", "second.example")
        self.configure(relay, text)
        self.assertDelivered(await self.send(relay, ALICE, "x@one.example"))
        self.assertEqual((set(shown), len(sink.connections)), ({"first.example", "second.example"}, 2))

    async def test_one_that_cannot_be_read_keeps_mail_waiting_and_is_never_left_out(self):
        sink, _ = self.asking()
        self.write("us", "us.example")
        key = self.folder / "us.key"
        right = key.read_bytes()
        self.write("us", "other.example")
        key.write_bytes(right)
        relay = await self.relay(self.smarthost(sink, self.showing("us")))
        (outcome,) = await self.send(relay, ALICE, "x@one.example")
        self.assertEqual(str(outcome.reply), "451 4.3.5 The client certificate for the host cannot be read")
        self.assertEqual(sink.connections, [])
        self.write("us", "us.example")
        while not isinstance(outcome, Delivered):  # until the next probe of the host is due
            await self.turn()
            (outcome,) = await self.send(relay, ALICE, "x@one.example")


class Reload(RoutedCase):
    async def test_what_is_under_way_ends_as_it_began_and_the_next_message_goes_the_new_way(self):
        old, new = self.sink(), self.sink()
        text = '[relay]\nuse = "none"\n[[route]]\ndomain = "partner.example"\nhost = "127.0.0.1"\nport = {0}\n'
        relay = await self.relay(text.format(old.port))
        old.holds = Deferred()
        begun = Deferred.fromCoroutine(self.send(relay, ALICE, "a@partner.example"))
        while not old.envelopes:
            await self.turn()
        self.configure(relay, text.format(new.port))
        self.assertDelivered(await self.send(relay, ALICE, "b@partner.example"))
        self.assertFalse(begun.called)
        old.holds.callback(None)
        self.assertDelivered(await begun)
        self.assertEqual((old.envelopes[0][3], new.envelopes[0][3]), ("a@partner.example", "b@partner.example"))

    async def test_a_route_that_has_not_changed_keeps_its_connection_and_a_log_in_that_has_gets_another(self):
        sink = self.sink(users=[], tls=ServerSide(certificate("one.example")))
        for name in ("old", "new"):
            (self.folder / name).write_text(f"{name}\n")
        text = (
            f'[relay]\nuse = "smarthost"\nhost = "127.0.0.1"\nport = {sink.port}\ntls = "required"\nusername = "us"\n'
            f'password_file = "{self.folder}/{{0}}"\nconnections = {{1}}\nrecipients = {{1}}\n'
        )
        relay = await self.relay(text.format("old", 7))
        for password, number in (("old", 7), ("old", 3), ("new", 3)):
            self.configure(relay, text.format(password, number))
            self.assertDelivered(await self.send(relay, ALICE, "x@one.example"))
            self.assertEqual(relay.connections.pool.limits.in_all, number)
        self.assertEqual(sink.users, [("us", "old"), ("us", "new")])

    async def test_times_are_those_of_the_present_route(self):
        text = '[relay]\nuse = "mx"\n[[route]]\ndomain = "slow.example"\nretry = ["10m", "1h"]\nexpire = "{0}"\n'
        relay = await self.relay(text.format("1d"))
        self.assertEqual(relay.retry_times(ALICE, Address("x", "slow.example")), RetryTimes((600.0, 3600.0), None, 86_400.0))
        self.assertIsNone(relay.retry_times(ALICE, Address("x", "other.example")))
        self.configure(relay, text.format("2d"))
        self.assertEqual(list(relay.longest_retry_times), [RetryTimes((600.0, 3600.0), None, 172_800.0)])
