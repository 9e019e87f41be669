"""What `route --tls` says is what an attempt then does: over real sockets, with a certificate that nobody vouches for."""

import hashlib

from cryptography import x509
from twisted.internet import reactor
from twisted.trial.unittest import SynchronousTestCase

from mailserver.mail.address import Address
from mailserver.mail.answers import Delayed, Delivered
from mailserver.relay.conclusions import HandshakeFacts, TLSSession
from mailserver.relay.explored import explored_session
from mailserver.relay.security import Demand, OverrideKind, TLSMode, TLSOutcome, TLSOverride
from mailserver.relay.tls_history import TLSHistory
from mailserver.relay.wishes import TLSWishes
from mailserver.trust.chain import key_octets
from tests.relay.test_sockets import ServerSide, SocketCase, certificate
from tests.trust.chains import self_signed

ADDRESS = Address("user", "example.org")


class Explored(SocketCase):
    async def attempt(self, **options):
        """What was said before, the attempt's outcome, what is said after it: each of the only host."""
        relay = await self.relay(**options)
        if self.override is not None:
            relay.tls_override = lambda domain: self.override if domain == "sink.example" else None
        before = await relay.explored(ADDRESS)
        outcome = await self.deliver(relay)
        after = await relay.explored(ADDRESS)
        (host,) = before["hosts"]
        self.assertEqual((host["name"], host["addresses"], host["seen"]), ("sink.example", ["127.0.0.1"], []))
        (host,) = after["hosts"]
        (seen,) = host["seen"]
        self.assertEqual(seen["demand"], host["demand"])
        self.assertEqual(before["hosts"][0]["demand"], host["demand"])
        return after, outcome, seen

    def setUp(self):
        super().setUp()
        self.override = None
        self.sink.tls = ServerSide(certificate("sink.example"))

    async def test_what_was_demanded_is_what_had_been_said_and_what_was_seen_stands_beside_it(self):
        found, outcome, seen = await self.attempt()
        self.assertIsInstance(outcome, Delivered)
        self.assertEqual((found["domain"], found["tls"], found["mta_sts"], found["override"]), ("sink.example", "opportunistic", None, None))
        self.assertEqual((seen["demand"]["mode"], seen["outcome"], seen["failure_type"]), ("opportunistic", "success", ""))
        self.assertRegex(seen["version"], r"TLSv1\.[23]")
        (shown,) = seen["certificates"]
        self.assertEqual((shown["names"], shown["subject"]), (["sink.example"], "CN=sink.example"))

    async def test_a_certificate_that_nobody_vouches_for_is_told_where_one_is_demanded(self):
        _, outcome, seen = await self.attempt(tls="verified")
        self.assertIsInstance(outcome, Delayed)
        self.assertEqual((seen["outcome"], seen["failure_type"]), ("untrusted", "certificate-not-trusted"))
        self.assertEqual(seen["certificates"][0]["subject"], "CN=sink.example")

    async def test_a_host_without_tls_is_told_where_it_is_demanded(self):
        self.sink.tls = None
        _, outcome, seen = await self.attempt(tls="required")
        self.assertEqual((type(outcome), seen["outcome"], seen["version"]), (Delayed, "not offered", ""))

    async def test_an_override_trusts_this_certificate_and_no_other(self):
        made = self.sink.tls.context
        pin = hashlib.sha256(shown_by(made)).hexdigest()
        self.override = TLSOverride(OverrideKind.TRUST, reactor.seconds() + 60, pin)
        found, outcome, seen = await self.attempt(tls="verified")
        self.assertIsInstance(outcome, Delivered, outcome)
        self.assertEqual((seen["demand"]["by"], seen["outcome"]), ("override", "success"))
        self.assertIn("DANE 3 0 1 (dane: this certificate is trusted by an override), message 1", outcome.note)
        self.assertEqual((found["override"]["kind"], found["override"]["fingerprint"]), ("trust", pin))
        self.sink.tls = ServerSide(certificate("sink.example"))
        _, outcome, seen = await self.attempt(tls="verified")
        self.assertEqual((type(outcome), seen["outcome"]), (Delayed, "tlsa invalid"))
        self.assertEqual(len(self.sink.messages), 1)

    async def test_an_override_lets_mail_go_in_the_clear_but_never_a_message_with_requiretls(self):
        self.sink.tls = None
        self.override = TLSOverride(OverrideKind.ALLOW, reactor.seconds() + 60)
        _, outcome, seen = await self.attempt(tls="required")
        self.assertEqual((type(outcome), seen["demand"]["allows_clear"]), (Delivered, True))
        relay = await self.relay(tls="required")
        relay.tls_override = lambda domain: self.override
        (host,) = (await relay.explored(ADDRESS, None, TLSWishes(requires_tls=True)))["hosts"]
        self.assertEqual((host["demand"]["by"], host["demand"]["allows_clear"]), ("requiretls", False))

    async def test_an_override_requires_tls(self):
        self.sink.tls = None
        self.override = TLSOverride(OverrideKind.REQUIRE, reactor.seconds() + 60)
        _, outcome, seen = await self.attempt()
        self.assertEqual((type(outcome), seen["demand"]["mode"], self.sink.messages), (Delayed, "required", []))


def shown_by(context):
    """The certificate that a context shows, as DER."""
    from cryptography.hazmat.primitives.serialization import Encoding
    from OpenSSL import SSL

    client, server = SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD), None), SSL.Connection(context, None)
    client.set_connect_state()
    server.set_accept_state()
    for _ in range(4):
        for one, other in ((client, server), (server, client)):
            try:
                one.do_handshake()
            except SSL.WantReadError:
                pass
            try:
                other.bio_write(one.bio_read(65536))
            except SSL.WantReadError:
                pass
    return client.get_peer_certificate(as_cryptography=True).public_bytes(Encoding.DER)


def session(domain, host="mx", address="192.0.2.1", outcome=TLSOutcome.SUCCESS, **facts):
    return TLSSession(domain, Demand(TLSMode.NONE), host, address, "", outcome, "", HandshakeFacts(**facts), 0.0)


class History(SynchronousTestCase):
    def test_the_last_session_of_each_address_is_kept(self):
        history = TLSHistory()
        first, other, last = session("a"), session("a", address="192.0.2.2"), session("a", outcome=TLSOutcome.REFUSED)
        for one in (first, other, last):
            history.add(one)
        self.assertEqual(history.of("a"), (other, last))
        self.assertEqual(history.of("b"), ())

    def test_it_is_bounded_for_a_domain_and_in_all(self):
        history = TLSHistory()
        for number in range(60):
            history.add(session("a", address=str(number)))
        self.assertEqual([one.address for one in history.of("a")], [str(number) for number in range(10, 60)])
        for number in range(2000):
            history.add(session(f"d{number}"))
        self.assertEqual(history.of("a"), ())
        self.assertEqual(len(history.of("d1999")), 1)
        self.assertEqual(sum(len(history.of(f"d{number}")) for number in range(2000)), 2000)

    def test_a_host_with_very_many_certificates_costs_no_more_memory_than_others(self):
        history = TLSHistory()
        history.add(session("a", chain=tuple([bytes([n]) * 5_000 for n in range(20)])))
        ((kept,),) = [history.of("a")]
        self.assertEqual([one[0] for one in kept.facts.chain], [0, 1, 2])
        history.add(session("b", chain=(bytes(90_000),)))
        self.assertEqual(history.of("b")[0].facts.chain, ())

    def test_a_certificate_with_a_key_or_a_version_that_nobody_knows_is_told_too(self):
        good = self_signed()
        odd = good.der.replace(bytes.fromhex("2a8648ce3d0201"), bytes.fromhex("2a8648ce3d027f"))  # id-ecPublicKey
        (shown,) = explored_session(session("a", chain=(odd,)))["certificates"]
        self.assertEqual((shown["subject"], shown["names"]), ("CN=host", ["elsewhere.example"]))
        self.assertEqual(shown["key_sha256"], hashlib.sha256(key_octets(odd)).hexdigest())
        odd = good.der.replace(bytes.fromhex("a003020102"), bytes.fromhex("a003020105"))
        (shown,) = explored_session(session("a", chain=(odd,)))["certificates"]
        self.assertIn("version", shown["fault"])

    def test_a_certificate_that_cannot_be_read_is_told(self):
        (shown,) = explored_session(session("a", chain=(b"nonsense",)))["certificates"]
        self.assertEqual(shown["sha256"], hashlib.sha256(b"nonsense").hexdigest())
        self.assertTrue(shown["fault"])
        self.assertRaises(ValueError, x509.load_der_x509_certificate, b"nonsense")
