"""MTA-STS from end to end over real sockets: policy hosts with certificates of a test CA, mail hosts of every kind, our relay; and
what a TLS report will say of it (RFC 8461, RFC 8460).
"""

from __future__ import annotations

from typing import Any

from OpenSSL import SSL
from twisted.internet import reactor as the_reactor
from twisted.internet.defer import ensureDeferred, gatherResults
from twisted.internet.protocol import Factory
from twisted.internet.threads import deferToThread

from mailserver.mail.address import Address
from mailserver.mail.answers import Delayed, Delivered, Outcome
from mailserver.mail.content import Content
from mailserver.relay import library
from mailserver.relay.connections import Connections
from mailserver.relay.delivery import ConnectSettings, Relay
from mailserver.relay.hosts import HostBook, domain_hosts
from mailserver.relay.pool import PoolLimits
from mailserver.relay.sts_fetching import PolicyFetching
from mailserver.relay.sts_keeper import STSKeeper, with_sts
from mailserver.relay.sts_store import KeptPolicies
from mailserver.relay.tls_results import telling, telling_barred
from mailserver.smtp.client.session import ClientLimits
from mailserver.testing import FakeResolver
from mailserver.testing.state import MemoryState
from mailserver.trust.mta_sts import policy_url
from mailserver.trust.tls_result import TLSResult
from tests.fetching.test_client import FetchCase, answer
from tests.ports import free_port
from tests.relay.test_sockets import MESSAGE, ServerSide, Sink
from tests.tls.authority import Authority

reactor: Any = the_reactor
# What each domain's mail host does, and what becomes of mail to it.
HOSTS = {"good": True, "testing": True, "other-mx": False, "other-name": False, "nobodys": False, "stripped": False, "broken": False}
POLICY = "version: STSv1\nmode: {mode}\nmx: mx.{domain}\nmax_age: 86400\n"


class Peers(FetchCase):
    """A policy host for all domains, and a mail host for each."""

    def setUp(self) -> None:
        super().setUp()
        self.listen(*[f"mta-sts.{label}.example" for label in HOSTS])
        self.policies_gone = False
        self.site.script = self.give_policy
        self.smtp_port = free_port()
        self.sinks: dict[str, Any] = {}
        zones: dict[str, Any] = {}
        for number, label in enumerate(HOSTS, 1):
            domain, address = f"{label}.example", f"127.0.78.{number}"
            mx = "mx.elsewhere.example" if label == "other-mx" else f"mx.{domain}"
            zones[domain] = {"MX": [f"10 {mx}"]}
            zones[mx] = {"A": [address]}
            zones[f"mta-sts.{domain}"] = {"A": ["127.0.0.1"]}
            zones[f"_mta-sts.{domain}"] = {"TXT": ["v=STSv1; id=a1"]}
            self.sinks[label] = sink = Factory.forProtocol(Sink)
            sink.noisy = False
            sink.connections, sink.messages, sink.slow, sink.behind_220, sink.resuming = [], [], False, b"", None
            sink.tls = {"stripped": None, "broken": "garbage"}.get(label, self.server_side(label, mx))
            self.addCleanup(reactor.listenTCP(self.smtp_port, sink, interface=address).stopListening)
        self.addCleanup(self.hang_up)
        self.resolver = FakeResolver(zones)
        self.results: list[TLSResult] = []

    def server_side(self, label: str, mx: str) -> ServerSide:
        authority = Authority() if label in ("nobodys", "testing") else self.authority
        leaf = authority.leaf("mx.other.example" if label == "other-name" else mx)
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.use_certificate(leaf.certificate)
        context.use_privatekey(leaf.key)
        return ServerSide(context)

    def give_policy(self, server: Any) -> None:
        domain = server.factory.requests[-1].decode().partition("Host: mta-sts.")[2].partition(":")[0]
        mode = "testing" if domain.startswith("testing") else "enforce"
        text = POLICY.format(mode=mode, domain=domain).encode()
        answer(b"", "404 Not Found")(server) if self.policies_gone else answer(text)(server)

    def hang_up(self) -> Any:
        connections = [one for sink in self.sinks.values() for one in sink.connections]
        for one in connections:
            one.transport.abortConnection()
        return gatherResults([one.gone for one in connections])

    async def relay(self) -> Relay:
        clock = reactor
        state = getattr(self, "state", None) or MemoryState(clock)
        self.state = state
        keeper = STSKeeper(
            resolver=self.resolver,
            fetching=PolicyFetching(
                self.fetching().lend(), url=lambda domain: policy_url(domain).replace(".example/", f".example:{self.port}/")
            ),
            kept=KeptPolicies(state, clock),
            clock=clock,
            seconds=clock.seconds,
        )
        connections = Connections(
            clock=clock, connect_tcp=reactor.connectTCP, run_in_thread=deferToThread, own_name="us.example",
            pool_limits=PoolLimits(), client_limits=ClientLimits(), trust_root=self.trust,
        )  # fmt: skip
        connections.tls_seen.append(telling(self.results.append))
        look_up = with_sts(lambda domain: domain_hosts(domain, resolver=self.resolver), keeper)
        relay = Relay(
            book=HostBook(look_up=look_up, seconds=clock.seconds),
            connections=connections,
            connect_settings=ConnectSettings(port=self.smtp_port),
            sts=keeper,
        )
        relay.barred_seen = telling_barred(self.results.append)
        await relay.start()
        self.addCleanup(lambda: ensureDeferred(relay.stop()))
        return relay

    async def sent(self, relay: Relay, label: str, message: bytes = MESSAGE) -> Outcome:
        [outcome] = await library.send(
            relay, Address("sender", "example.net"), [Address("user", f"{label}.example")], Content.of(message)
        )
        return outcome

    async def test_mail_goes_only_where_the_policy_lets_it_and_reports_say_why_not(self) -> None:
        relay = await self.relay()
        for label, is_sent in HOSTS.items():
            outcome = await self.sent(relay, label)
            self.assertIs(type(outcome), Delivered if is_sent else Delayed, f"{label}: {outcome}")
            encrypted = [is_encrypted for is_encrypted, _ in self.sinks[label].messages]
            self.assertEqual(encrypted, [True] if is_sent else [], label)
        self.assertEqual(self.sinks["other-mx"].connections, [], "nobody connects to a host that the policy does not name")
        told = {one.domain.partition(".")[0]: one for one in self.results}
        self.assertEqual({label: one.failure for label, one in told.items()}, {
            "good": "", "testing": "certificate-not-trusted", "other-mx": "certificate-host-mismatch",
            "other-name": "certificate-host-mismatch", "nobodys": "certificate-not-trusted",
            "stripped": "starttls-not-supported", "broken": "validation-failure",
        })  # fmt: skip
        self.assertEqual({one.policy.kind for one in self.results}, {"sts"})
        self.assertEqual((told["good"].policy.mx_patterns, told["good"].address), (("mx.good.example",), "127.0.78.1"))
        self.assertIn("mode: testing", told["testing"].policy.strings)

    async def test_a_policy_holds_over_a_restart_when_the_record_and_the_policy_host_have_gone(self) -> None:
        first = await self.relay()
        for label in ("good", "stripped"):
            await self.sent(first, label)
            del self.resolver.zones[f"_mta-sts.{label}.example"]
        self.policies_gone = True
        second = await self.relay()
        self.assertIs(type(await self.sent(second, "good")), Delivered)
        self.assertIs(type(await self.sent(second, "stripped")), Delayed)
        self.assertEqual(self.sinks["stripped"].messages, [])

    async def test_at_first_contact_a_policy_that_cannot_be_had_stops_no_mail_and_is_reported(self) -> None:
        self.policies_gone = True
        relay = await self.relay()
        self.assertIs(type(await self.sent(relay, "good")), Delivered)
        self.assertEqual([(one.failure, one.policy.kind) for one in self.results], [("sts-policy-fetch-error", "sts")])

    async def test_a_report_goes_out_whatever_is_wrong_there_and_is_in_no_report(self) -> None:
        relay = await self.relay()
        message = b"TLS-Required: No\r\n" + MESSAGE
        for label in ("nobodys", "stripped", "other-mx"):
            self.assertIs(type(await self.sent(relay, label, message)), Delivered, label)
        self.assertEqual(self.results, [])
