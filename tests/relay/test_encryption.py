"""Demands on connections, over sockets: certificates of every kind, and machines in the middle of every kind."""

import time

from OpenSSL import SSL
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.protocol import Factory
from twisted.internet.ssl import Certificate, trustRootFromCertificates
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from mailserver.mail.address import Address
from mailserver.mail.answers import Delayed, Delivered, Failed, Remote
from mailserver.mail.content import Content
from mailserver.mail.envelope import Envelope, MailParameters, Peer, Recipient
from mailserver.mail.parcel import Destination
from mailserver.relay.connections import Connections
from mailserver.relay.delivery import ConnectSettings, Relay
from mailserver.relay.hosts import Host, HostBook, Hosts
from mailserver.relay.pool import PoolLimits
from mailserver.relay.security import TLSMode, TLSOutcome
from mailserver.smtp.client.session import ClientLimits
from mailserver.trust.dane import NO_TLSA, TLSAAnswer, TLSAState
from mailserver.trust.mta_sts import STSAnswer, STSMode, STSPolicy
from tests.relay.test_sockets import MESSAGE, ServerSide, Sink
from tests.trust.chains import chain_of, self_signed, tlsa

NAME = "mx.example.org"
OPPORTUNISTIC, REQUIRED, VERIFIED = TLSMode.OPPORTUNISTIC, TLSMode.REQUIRED, TLSMode.VERIFIED
TWO_KINDS = ("ecdsa", "ecdsa")
GOOD = chain_of(TWO_KINDS, (NAME,), now=time.time())
LATE = chain_of(TWO_KINDS, (NAME,), leaf_days=(-90, -1), now=time.time())
ELSEWHERE = chain_of(TWO_KINDS, ("other.example.org",), now=time.time())
STRANGER = [self_signed("rsa", (NAME,), now=time.time())]
# All of their authorities have the same key and name: one root vouches for them.
ROOT = trustRootFromCertificates([Certificate.loadPEM(one[-1].pem) for one in (GOOD, LATE, ELSEWHERE)])


def answer(*records):
    return TLSAAnswer(TLSAState.USABLE, records, NAME, (NAME, "example.org"))


def served(chain):
    """What a server with these certificates needs for `startTLS`."""
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.use_certificate(chain[0].certificate)
    for link in chain[1:]:
        context.add_extra_chain_cert(link.certificate)
    context.use_privatekey(chain[0].key)
    context.set_session_id(b"tests")
    return ServerSide(context)


class Peerlike(Sink):
    """A server, or somebody before it: `factory.replies` are said instead of the usual, by the command's first four letters."""

    hello = b""
    drops = False

    def line(self, line):
        factory, verb = self.factory, line[:4].upper()
        factory.heard.append((self.encrypted, line))
        reply = None if self.in_content else factory.replies.get(verb)
        if reply is not None and not self.encrypted:
            self.transport.write(reply)
        elif verb == b"EHLO" and self.encrypted and factory.takes_requiretls:
            self.transport.write(b"250-sink.example\r\n250-REQUIRETLS\r\n250 8BITMIME\r\n")
        elif verb == b"STAR" and factory.hello_octets_most:
            self.transport.write(b"220 Go ahead\r\n")
            self.drops = True
        else:
            super().line(line)

    def dataReceived(self, data):
        if not self.drops:
            super().dataReceived(data)
            return
        self.hello += data
        size = 5 + int.from_bytes(self.hello[3:5]) if len(self.hello) >= 5 else 99_999
        if size > self.factory.hello_octets_most:
            self.factory.dropped += 1
            self.factory.lost.callback(None)
        elif len(self.hello) >= size:
            self.drops, self.encrypted = False, True
            self.transport.startTLS(self.factory.tls)
            self.transport.protocol.dataReceived(self.hello)


class EncryptionCase(TestCase):
    timeout = 60

    def setUp(self):
        self.sink = sink = Factory.forProtocol(Peerlike)
        sink.noisy = sink.slow = False
        sink.connections, sink.messages, sink.heard, sink.replies = [], [], [], {}
        sink.behind_220, sink.resuming, sink.takes_requiretls = b"", None, False
        sink.hello_octets_most = sink.dropped = 0
        sink.tls = served(GOOD)
        port = reactor.listenTCP(0, sink, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        self.port = port.getHost().port
        self.addCleanup(self.hang_up)
        self.sessions = []

    def hang_up(self):
        for connection in self.sink.connections:
            connection.transport.abortConnection()
        return gatherResults([connection.gone for connection in self.sink.connections])

    async def relay(self, tls=OPPORTUNISTIC, *, tlsa=NO_TLSA, sts=None, is_authentic=False, clock=reactor, resumes=False):
        async def look_up(_):
            host = Host(NAME, ("127.0.0.1",), self.port, tlsa)
            return Hosts(((host,),), domain="example.org", is_authentic=is_authentic, sts=sts)

        connections = Connections(
            clock=clock, connect_tcp=reactor.connectTCP, run_in_thread=deferToThread, own_name="us.example",
            pool_limits=PoolLimits(messages=1), client_limits=ClientLimits(), trust_root=ROOT, resumes=resumes,
        )  # fmt: skip
        connections.wall_clock = time.time
        connections.tls_seen.append(self.sessions.append)
        book = HostBook(look_up=look_up, seconds=reactor.seconds)
        relay = Relay(book=book, connections=connections, connect_settings=ConnectSettings(tls=tls))
        await relay.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(relay.stop()))
        return relay

    def begin(self, relay, content=MESSAGE, sender="sender@example.net", **parameters):
        recipient = Recipient(Address("user", "example.org"))
        sent_by = Address.parse(sender) if sender else None
        envelope = Envelope("id", Peer("192.0.2.1", 1, "mx"), sent_by, (recipient,), 0.0, MailParameters(**parameters))
        destinations = [Destination(0, recipient, Remote(recipient.address))]
        return Deferred.fromCoroutine(self.first(relay.deliver(envelope, Content.of(content), destinations)))

    async def first(self, answer):
        return (await answer)[0]

    async def deliver(self, relay, *arguments, **more):
        return await self.begin(relay, *arguments, **more)

    def assertHeldBack(self, outcome, enhanced, words):
        """Nothing was said of the message, encrypted or not."""
        self.assertEqual((type(outcome), outcome.reply.enhanced, self.sink.messages), (Delayed, enhanced, []), str(outcome.reply))
        self.assertIn(words, str(outcome.reply))
        self.assertEqual([line for _, line in self.sink.heard if line[:4] in (b"MAIL", b"RCPT", b"HELO")], [])

    def outcomes(self):
        return [one.outcome for one in self.sessions]


class Certificates(EncryptionCase):
    async def test_a_certificate_that_an_authority_vouches_for_is_a_fact(self):
        outcome = await self.deliver(await self.relay(VERIFIED))
        self.assertIsInstance(outcome, Delivered)
        self.assertRegex(outcome.note, r"TLSv1\.3 [A-Z0-9_]+ \w+, WebPKI, message 1")
        self.assertRegex(outcome.note, r"ms, certificate of CN=host from CN=authority 1 until 20\d\d-\d\d-\d\d$")
        [session] = self.sessions
        self.assertEqual((session.outcome, session.host, session.address), (TLSOutcome.SUCCESS, NAME, "127.0.0.1"))
        self.assertEqual((session.domain, session.own_address, session.facts.chain[0]), ("example.org", "127.0.0.1", GOOD[0].der))

    async def test_what_is_wrong_with_a_certificate_is_said_and_its_host_gets_nothing(self):
        for chain, outcome, words in (
            (LATE, TLSOutcome.EXPIRED, "the certificate has expired"),
            (ELSEWHERE, TLSOutcome.NAME_MISMATCH, "the certificate has another name: it is not for mx.example.org"),
            (STRANGER, TLSOutcome.UNTRUSTED, "no authority vouches for the certificate: self-signed"),
        ):
            self.sink.tls = served(chain)
            self.sessions.clear()
            held = await self.deliver(await self.relay(VERIFIED))
            self.assertHeldBack(held, "4.7.5", words)
            self.assertIn("SHA-256", str(held.reply), "the certificate is described")
            self.assertEqual(self.outcomes(), [outcome], words)

    async def test_a_policy_that_is_tested_tells_and_stops_nothing(self):
        policy = STSPolicy("1", STSMode.TESTING, (NAME,), 86400)
        for chain, outcome in (
            (GOOD, TLSOutcome.SUCCESS), (LATE, TLSOutcome.EXPIRED), (ELSEWHERE, TLSOutcome.NAME_MISMATCH),
            (STRANGER, TLSOutcome.UNTRUSTED),
        ):  # fmt: skip
            self.sink.tls = served(chain)
            self.sessions.clear()
            sent = await self.deliver(await self.relay(sts=STSAnswer(policy), resumes=True))
            self.assertIsInstance(sent, Delivered)
            self.assertEqual((self.outcomes(), self.sink.messages[-1][0]), ([outcome], True))

    async def test_mta_sts_is_enforced_with_the_hosts_own_name(self):
        for mx, chain, outcome in (
            (NAME, GOOD, TLSOutcome.SUCCESS), (NAME, ELSEWHERE, TLSOutcome.NAME_MISMATCH),
            ("other.example.org", GOOD, TLSOutcome.NAME_MISMATCH),
        ):  # fmt: skip
            self.sink.tls = served(chain)
            self.sessions.clear()
            sent = await self.deliver(await self.relay(sts=STSAnswer(STSPolicy("1", STSMode.ENFORCE, (mx,), 86400))))
            self.assertEqual(isinstance(sent, Delivered), outcome is TLSOutcome.SUCCESS, (mx, outcome))
            self.assertEqual(self.outcomes(), [outcome] if mx == NAME else [], (mx, outcome))
        self.assertEqual((sent.reply.enhanced, len(self.sink.connections)), ("4.7.5", 2), "a host outside the policy is not connected to")
        self.assertEqual(len(self.sink.messages), 1)


class Dane(EncryptionCase):
    async def test_a_certificate_that_matches_gets_the_mail_whoever_vouches_for_it(self):
        for chain, record, said in (
            (STRANGER, tlsa(STRANGER[0], 3, 1, 1), "DANE 3 1 1"), (LATE, tlsa(LATE[0], 3, 0, 2), "DANE 3 0 2"),
            (GOOD, tlsa(GOOD[1], 2, 0, 1), "DANE 2 0 1"),
        ):  # fmt: skip
            self.sink.tls = served(chain)
            sent = await self.deliver(await self.relay(tlsa=answer(record)))
            self.assertIsInstance(sent, Delivered, said)
            self.assertIn(f", {said} (dane: the host has TLSA records), message 1", sent.note)
        self.assertEqual(self.outcomes(), [TLSOutcome.SUCCESS] * 3)

    async def test_after_a_mismatch_not_a_word_is_said(self):
        record = tlsa(STRANGER[0], 3, 1, 1)
        held = await self.deliver(await self.relay(tlsa=answer(record)))
        self.assertHeldBack(held, "4.7.5", "no TLSA record matches the certificate")
        self.assertEqual([line for encrypted, line in self.sink.heard if encrypted], [])
        self.assertEqual((self.outcomes(), len(self.sink.connections)), ([TLSOutcome.TLSA_INVALID], 1))

    async def test_a_trust_anchors_certificate_has_the_name_and_its_time(self):
        for chain, outcome in ((ELSEWHERE, TLSOutcome.NAME_MISMATCH), (LATE, TLSOutcome.EXPIRED)):
            self.sink.tls = served(chain)
            self.sessions.clear()
            self.assertHeldBack(await self.deliver(await self.relay(tlsa=answer(tlsa(chain[1], 2, 1, 1)))), "4.7.5", "certificate")
            self.assertEqual(self.outcomes(), [outcome])

    async def test_records_of_no_use_make_tls_a_must_and_a_look_up_that_fails_holds_the_mail_back(self):
        self.sink.tls = served(STRANGER)
        self.assertIsInstance(await self.deliver(await self.relay(tlsa=TLSAAnswer(TLSAState.UNUSABLE))), Delivered)
        self.sink.messages.clear()
        self.sink.heard.clear()
        held = await self.deliver(await self.relay(tlsa=TLSAAnswer(TLSAState.FAILED, why="SERVFAIL")))
        self.assertHeldBack(held, "4.7.5", "its TLSA records cannot be had: SERVFAIL")
        self.assertEqual(self.outcomes(), [TLSOutcome.SUCCESS], "the host was not connected to")
        self.sink.tls = None
        held = await self.deliver(await self.relay(tlsa=TLSAAnswer(TLSAState.UNUSABLE)))
        self.assertHeldBack(held, "4.7.4", "STARTTLS is not offered")

    async def test_tls_required_no_sends_in_spite_of_it(self):
        # RFC 8689 section 4.2.2.
        relay = await self.relay(tlsa=answer(tlsa(STRANGER[0], 3, 1, 1)))
        for field, type_ in ((b"TLS-Required: No", Delivered), (b"tls-required:\r\n no ", Delivered), (b"TLS-Required: yes", Delayed),
                             (b"TLS-Required: No\r\nTLS-Required: No", Delayed), (b"X: y\r\n\r\nTLS-Required: No", Delayed)):  # fmt: skip
            relay.forgive()
            self.assertIsInstance(await self.deliver(relay, field + b"\r\n" + MESSAGE), type_, repr(field))


class InTheMiddle(EncryptionCase):
    DEMANDS = ({"tls": REQUIRED}, {"tls": VERIFIED}, {"tlsa": answer(tlsa(GOOD[0], 3, 1, 1))},
               {"sts": STSAnswer(STSPolicy("1", STSMode.ENFORCE, (NAME,), 86400))})  # fmt: skip

    async def attacked(self, enhanced, words, outcome=TLSOutcome.NOT_OFFERED, connections=1):
        """No demand is weakened by what stands in the middle."""
        for demand in self.DEMANDS:
            self.sessions.clear()
            self.sink.connections.clear()
            self.assertHeldBack(await self.deliver(await self.relay(**demand)), enhanced, words)
            self.assertEqual(self.outcomes(), [outcome] * connections, demand)

    async def test_who_strips_starttls_gets_nothing(self):
        self.sink.replies[b"EHLO"] = b"250-sink.example\r\n250 8BITMIME\r\n"
        await self.attacked("4.7.4", "STARTTLS is not offered")

    async def test_who_refuses_ehlo_gets_nothing_and_hears_no_helo(self):
        for code in (b"550", b"502", b"554", b"500"):
            self.sink.replies[b"EHLO"] = code + b" 5.5.1 What?\r\n"
            await self.attacked("4.7.4", "the host refuses EHLO")

    async def test_who_refuses_starttls_gets_nothing(self):
        for reply in (b"454 4.7.0 Not now\r\n", b"502 5.5.1 What?\r\n"):
            self.sink.replies[b"STAR"] = reply
            await self.attacked("4.7.4", "STARTTLS is refused", TLSOutcome.REFUSED)

    async def test_who_injects_behind_220_gets_nothing(self):
        self.sink.behind_220 = b"250 2.0.0 Trust me\r\n"
        await self.attacked("4.7.5", "octets in the clear behind the 220", TLSOutcome.HANDSHAKE_FAILED)

    async def test_who_breaks_the_handshake_hears_a_smaller_hello_and_gets_nothing(self):
        self.sink.tls = "garbage"
        await self.attacked("4.7.5", "TLS could not be established", TLSOutcome.HANDSHAKE_FAILED, connections=2)

    async def test_without_a_demand_all_of_them_only_cost_the_encryption(self):
        for replies in ({b"EHLO": b"250 sink.example\r\n"}, {b"EHLO": b"550 What?\r\n"}, {b"STAR": b"454 Not now\r\n"}):
            self.sink.replies = replies
            self.assertIsInstance(await self.deliver(await self.relay()), Delivered)
        self.assertEqual([encrypted for encrypted, _ in self.sink.messages], [False] * 3)
        self.assertEqual(self.outcomes(), [TLSOutcome.NOT_OFFERED, TLSOutcome.NOT_OFFERED, TLSOutcome.REFUSED])


class LargeHellos(EncryptionCase):
    async def sent(self, **demand):
        """Deliver while hellos above 1,400 octets are lost; each loss costs a minute of waiting, on a clock of our own."""
        self.sink.hello_octets_most = 1400
        self.sink.dropped, self.sink.lost = 0, Deferred()
        clock = Clock()
        waiting = self.begin(await self.relay(clock=clock, **demand))
        await self.sink.lost
        for _ in range(62):
            clock.advance(1)
        return await waiting

    async def test_one_more_try_is_made_with_a_smaller_one_and_the_same_demands(self):
        for demand in ({}, *InTheMiddle.DEMANDS):
            self.sessions.clear()
            outcome = await self.sent(**demand)
            self.assertIsInstance(outcome, Delivered, outcome)
            self.assertIn("TLSv1.2", outcome.note)
            self.assertEqual((self.sink.dropped, self.sink.messages[-1][0]), (1, True))
            self.assertEqual(self.outcomes(), [TLSOutcome.HANDSHAKE_FAILED, TLSOutcome.SUCCESS])

    async def test_the_smaller_one_weakens_no_demand(self):
        self.sink.tls = served(STRANGER)
        for demand in InTheMiddle.DEMANDS[1:]:
            self.assertHeldBack(await self.sent(**demand), "4.7.5", "certificate")


class Resumption(EncryptionCase):
    async def twice(self, **more):
        """Two messages on two connections: whether the second session was the first one, resumed."""
        resumed = []
        relay = await self.relay(resumes=True, **more)
        opened = relay.connections.opened

        def look(connection):
            handle = connection.transport.protocol._tlsConnection if hasattr(connection.transport, "protocol") else None
            handle = handle or connection.transport.getHandle()
            resumed.append(bool(SSL._lib.SSL_session_reused(handle._ssl)))
            opened(connection)

        relay.connections.opened = look
        for _ in range(2):
            outcome = await self.deliver(relay)
            self.assertIsInstance(outcome, Delivered)
        return resumed, outcome.note

    async def test_a_session_is_resumed_under_the_same_demand_and_is_what_it_was(self):
        record = answer(tlsa(GOOD[0], 3, 1, 1))
        for more, said in (({}, ""), ({"tls": VERIFIED}, ", WebPKI"), ({"tlsa": record}, r", DANE 3 1 1 \(dane: the host has TLSA records\)")):
            resumed, note = await self.twice(**more)
            self.assertEqual(resumed, [False, True], more)
            self.assertRegex(note, rf"TLSv1\.3 \w+ \w+{said}, message 1")

    async def test_it_can_be_switched_off(self):
        relay = await self.relay()
        for _ in range(2):
            await self.deliver(relay)
        self.assertEqual(relay.connections.contexts._sessions, {})

    async def test_another_demand_knows_nothing_of_it(self):
        relay = await self.relay(resumes=True)
        self.assertIsInstance(await self.deliver(relay), Delivered)
        [kept] = relay.connections.contexts._sessions
        self.assertEqual(kept.policy, "opportunistic")
        strict = await self.relay(VERIFIED, resumes=True)
        strict.connections.contexts._sessions = relay.connections.contexts._sessions
        self.sink.tls = served(STRANGER)
        self.assertIsInstance(await self.deliver(strict), Delayed)


class RequireTLS(EncryptionCase):
    async def sent(self, takes=True, sender="sender@example.net", **more):
        self.sink.takes_requiretls = takes
        return await self.deliver(await self.relay(**more), sender=sender, requiretls=True)

    async def test_a_host_that_is_who_it_says_and_takes_it_gets_it(self):
        for more in (
            {"is_authentic": True}, {"sts": STSAnswer(STSPolicy("1", STSMode.ENFORCE, (NAME,), 86400))},
            {"tlsa": answer(tlsa(GOOD[0], 3, 1, 1))},
        ):  # fmt: skip
            self.assertIsInstance(await self.sent(**more), Delivered, more)
        mails = [line for _, line in self.sink.heard if line.startswith(b"MAIL")]
        self.assertEqual([line.endswith(b" REQUIRETLS") for line in mails], [True] * 3)
        self.assertEqual([encrypted for encrypted, _ in self.sink.messages], [True] * 3)

    async def test_else_it_goes_back_with_the_codes_of_the_rfc(self):
        # Section 4.2.1.
        for more, enhanced in (
            ({"takes": False, "is_authentic": True}, "5.7.30"),
            ({}, "5.7.10"),  # nobody vouches for the name
            ({"tlsa": answer(tlsa(STRANGER[0], 3, 1, 1))}, "5.7.10"),
        ):
            outcome = await self.sent(**more)
            self.assertEqual((type(outcome), outcome.reply.code, outcome.reply.enhanced), (Failed, 550, enhanced), more)
        self.sink.tls = None
        outcome = await self.sent(is_authentic=True)
        self.assertEqual((type(outcome), outcome.reply.enhanced, self.sink.messages), (Failed, "5.7.10", []))

    async def test_what_may_work_later_is_tried_later(self):
        outcome = await self.sent(tlsa=TLSAAnswer(TLSAState.FAILED, why="SERVFAIL"))
        self.assertEqual((type(outcome), outcome.reply.enhanced), (Delayed, "4.7.5"))
        self.sink.tls = "garbage"
        self.assertIsInstance(await self.sent(is_authentic=True), Delayed)
        self.assertEqual(self.sink.messages, [])

    async def test_a_report_says_it_where_it_can_and_is_not_lost_where_it_cannot(self):
        # Section 5.
        self.assertIsInstance(await self.sent(sender=""), Delivered)
        self.assertIsInstance(await self.sent(sender="", takes=False), Delivered)
        mails = [line for _, line in self.sink.heard if line.startswith(b"MAIL")]
        self.assertEqual([b"REQUIRETLS" in line for line in mails], [True, False])
