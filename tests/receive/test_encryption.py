"""A listener with TLS (RFC 3207, RFC 8314): the handshake stands for itself, everything around it is here."""

from __future__ import annotations

from typing import Any

from twisted.internet.error import ConnectionLost
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from mailserver.interfaces import IPeerFilter, ISenderFilter
from mailserver.mail.answers import Finding, Pass, Refuse
from mailserver.mail.envelope import Envelope, Peer, TLSFacts
from mailserver.receive.encryption import Encryption, has_certificate_of
from mailserver.receive.judging import BoundFilter
from mailserver.receive.protocol import ReceiveProtocol
from mailserver.receive.throttle import Admission
from mailserver.sasl.steps import ChannelBindings
from mailserver.smtp.server.states import State
from tests.receive.connections import Listener, Wire

FACTS = TLSFacts("TLSv1.3", "TLS_AES_256_GCM_SHA384", "mx.example.org")
PRINT = "ab" * 32


def encryption(*, implicit: bool = False, facts: TLSFacts = FACTS) -> Encryption:
    return Encryption(
        implicit=implicit,
        creator="creator",
        facts=lambda transport: facts,
        bindings=lambda transport: ChannelBindings(),
        fault=lambda transport, reason: "no shared cipher",
    )


class EncryptionCase(SynchronousTestCase):
    def listener(self, *, implicit: bool = False, facts: TLSFacts = FACTS, **more: Any) -> Listener:
        return Listener(self.mktemp(), encryption=encryption(implicit=implicit, facts=facts), **more)

    def say(self, protocol: ReceiveProtocol, wire: Wire, octets: bytes) -> list[int]:
        wire.clear()
        protocol.dataReceived(octets)
        return wire.codes()

    def secured(self, listener: Listener) -> tuple[ReceiveProtocol, Wire]:
        """A connection after STARTTLS and its handshake."""
        protocol, wire = listener.greeted()
        self.assertEqual(self.say(protocol, wire, b"STARTTLS\r\n"), [220])
        protocol.handshakeCompleted()
        return protocol, wire


class StartTLS(EncryptionCase):
    def test_it_is_offered_until_it_was_used(self) -> None:
        listener = self.listener()
        protocol, wire = listener.connect()
        wire.clear()
        protocol.dataReceived(b"EHLO a.example\r\n")
        self.assertIn("STARTTLS", wire.said())
        protocol.dataReceived(b"STARTTLS\r\n")
        self.assertEqual(wire.codes(), [220])
        self.assertEqual(wire.creator, "creator")
        protocol.handshakeCompleted()
        protocol.dataReceived(b"EHLO a.example\r\n")
        self.assertNotIn("STARTTLS", wire.said())
        self.assertEqual(self.say(protocol, wire, b"STARTTLS\r\n"), [503])

    def test_what_came_with_it_in_the_clear_is_never_obeyed(self) -> None:
        # RFC 3207 section 5; CVE-2011-0411
        listener = self.listener()
        protocol, wire = listener.greeted()
        said = self.say(protocol, wire, b"STARTTLS\r\nEHLO evil.example\r\nMAIL FROM:<evil@example.net>\r\n")
        self.assertEqual(said, [220])
        protocol.handshakeCompleted()
        self.assertEqual(wire.codes(), [])
        self.assertIs(protocol.session.state, State.STRANGER)

    def test_what_was_said_before_it_is_forgotten(self) -> None:
        # RFC 3207 section 4.2
        protocol, wire = self.secured(self.listener())
        self.assertEqual(protocol.peer.hello, "")
        self.assertEqual(self.say(protocol, wire, b"MAIL FROM:<a@example.net>\r\n"), [503])

    def test_the_facts_stand_in_the_peer_and_on_the_road(self) -> None:
        facts = TLSFacts("TLSv1.2", "ECDHE-RSA-CHACHA20-POLY1305", "", PRINT, False, "expired")
        listener = self.listener(facts=facts)
        protocol, _ = self.secured(listener)
        self.assertEqual(protocol.peer.tls, facts)
        step = listener.step("encrypted")
        self.assertEqual((step["version"], step["cipher"]), ("TLSv1.2", "ECDHE-RSA-CHACHA20-POLY1305"))
        self.assertEqual((step["client_certificate"], step["verified"], step["fault"]), (PRINT, False, "expired"))

    def test_received_says_esmtps_and_has_the_tls_clause(self) -> None:
        # RFC 3848; RFC 8314 section 4.3
        listener = self.listener()
        protocol, wire = self.secured(listener)
        said = self.say(
            protocol,
            wire,
            b"EHLO a.example\r\nMAIL FROM:<a@example.net>\r\nRCPT TO:<alice@example.org>\r\nDATA\r\nSubject: x\r\n\r\n.\r\n",
        )
        self.assertEqual(said, [250, 250, 250, 354, 250])
        [(envelope, content, _)] = listener.store.taken
        self.assertIn(b"with ESMTPS id", content)
        self.assertIn(b"tls TLS_AES_256_GCM_SHA384 (TLSv1.3)", content)
        self.assertEqual(envelope.peer.tls, FACTS)

    def test_a_listener_without_tls_has_no_starttls(self) -> None:
        listener = Listener(self.mktemp())
        protocol, wire = listener.connect()
        protocol.dataReceived(b"EHLO a.example\r\n")
        self.assertNotIn("STARTTLS", wire.said())
        self.assertEqual(self.say(protocol, wire, b"STARTTLS\r\n"), [502])

    def test_a_handshake_that_takes_too_long_ends_the_connection_without_words(self) -> None:
        listener = self.listener()
        protocol, wire = listener.greeted()
        protocol.dataReceived(b"STARTTLS\r\n")
        wire.clear()
        listener.clock.pump([1.0] * 29)
        self.assertFalse(wire.aborted)
        listener.clock.pump([1.0] * 2)
        self.assertTrue(wire.aborted)
        self.assertEqual(wire.said(), "")
        self.assertEqual(listener.step("timeout")["why"], "the TLS handshake takes too long")

    def test_a_handshake_that_fails_is_told_in_the_log(self) -> None:
        listener = self.listener()
        protocol, _ = listener.greeted()
        protocol.dataReceived(b"STARTTLS\r\n")
        protocol.connectionLost(Failure(ConnectionLost()))
        self.assertEqual(listener.step("handshake_failed")["why"], "no shared cipher")

    def test_octets_that_come_through_a_wrapper_end_the_handshake_themselves(self) -> None:
        listener = self.listener()
        protocol, wire = listener.greeted()
        protocol.dataReceived(b"STARTTLS\r\n")
        wire.clear()
        protocol.dataReceived(b"EHLO a.example\r\n")  # a PROXY wrapper knows no handshakeCompleted
        self.assertEqual(wire.codes(), [250])
        self.assertEqual(protocol.peer.tls, FACTS)


class Implicit(EncryptionCase):
    def test_no_bare_lf_ends_the_data_of_a_device_that_speaks_tls_from_the_start(self) -> None:
        device = "198.51.100.7"  # in bare_lf_networks
        for implicit in (False, True):
            protocol, _ = self.listener(implicit=implicit).connect(device)
            self.assertIs(protocol.session.lf_ends_data, not implicit)

    def test_nothing_is_said_before_the_handshake(self) -> None:
        listener = self.listener(implicit=True)
        protocol, wire = listener.connect()
        self.assertEqual(wire.said(), "")
        protocol.handshakeCompleted()
        self.assertEqual(wire.codes(), [220])
        protocol.dataReceived(b"EHLO a.example\r\n")
        self.assertNotIn("STARTTLS", wire.said())

    def test_filters_judge_a_peer_whose_encryption_is_known(self) -> None:
        seen: list[TLSFacts | None] = []

        @implementer(IPeerFilter)
        class Look:
            async def judge_peer(self, peer: Peer) -> Pass | Refuse:
                seen.append(peer.tls)
                return Refuse("unwanted")

        bound = BoundFilter("look", Look(), None, "defer", 5.0)
        listener = self.listener(implicit=True, filters=[bound])
        protocol, wire = listener.connect()
        protocol.handshakeCompleted()
        self.assertEqual(seen, [FACTS])
        self.assertEqual(wire.codes(), [554])

    def test_what_was_found_of_a_name_that_was_given_in_the_clear_is_forgotten_and_what_was_found_at_connect_is_not(self) -> None:
        # RFC 3207 section 4.2
        seen: list[list[str]] = []

        @implementer(IPeerFilter, ISenderFilter)
        class Look:
            async def judge_peer(self, peer: Peer) -> Pass:
                return Pass(findings=(Finding(peer.hello or "connect", 1.0),))

            async def judge_sender(self, envelope: Envelope) -> Pass:
                seen.append([one.name for one in envelope.findings])
                return Pass()

        protocol, _ = self.secured(self.listener(filters=[BoundFilter("look", Look())]))
        protocol.dataReceived(b"EHLO other.example\r\nMAIL FROM:<a@example.net>\r\n")
        self.assertEqual(seen, [["connect", "other.example"]])

    def test_a_connection_too_many_costs_no_handshake(self) -> None:
        listener = self.listener(implicit=True, admission=Admission(connections=1, connections_per_network=9))
        listener.connect()
        protocol, wire = listener.connect()
        self.assertTrue(wire.aborted)
        protocol.handshakeCompleted()
        self.assertEqual(wire.said(), "")

    def test_the_server_stops_amid_a_handshake(self) -> None:
        listener = self.listener(implicit=True)
        protocol, wire = listener.connect()
        gone = listener.factory.shut_down()
        protocol.connectionLost(Failure(ConnectionLost()))
        self.successResultOf(gone)
        self.assertEqual(wire.said(), "")


class Required(EncryptionCase):
    def test_mail_before_tls_is_530_and_after_it_is_taken(self) -> None:
        # RFC 3207 section 4
        listener = self.listener(tls_required=True)
        protocol, wire = listener.greeted()
        self.assertEqual(self.say(protocol, wire, b"MAIL FROM:<a@example.net>\r\n"), [530])
        protocol, wire = self.secured(listener)
        self.assertEqual(self.say(protocol, wire, b"EHLO a.example\r\nMAIL FROM:<a@example.net>\r\n"), [250, 250])


class Certificates(EncryptionCase):
    def relay(self, facts: TLSFacts) -> list[int]:
        listener = self.listener(facts=facts, relays=True, relay_certificates=frozenset({PRINT}))
        protocol, wire = self.secured(listener)
        return self.say(protocol, wire, b"EHLO a.example\r\nMAIL FROM:<a@example.net>\r\nRCPT TO:<b@elsewhere.example>\r\n")

    def test_a_known_fingerprint_may_relay_whoever_signed_it(self) -> None:
        self.assertEqual(self.relay(TLSFacts("TLSv1.3", "x", "", PRINT, False, "self-signed")), [250, 250, 250])

    def test_an_unknown_one_may_not(self) -> None:
        self.assertEqual(self.relay(TLSFacts("TLSv1.3", "x", "", "cd" * 32, True)), [250, 250, 550])

    def test_an_expired_or_revoked_one_may_not(self) -> None:
        for fault in ("expired", "revoked"):
            self.assertEqual(self.relay(TLSFacts("TLSv1.3", "x", "", PRINT, False, fault)), [250, 250, 550])

    def test_no_certificate_is_no_fingerprint(self) -> None:
        peer = Peer("192.0.2.1", 1, "mx", tls=TLSFacts("TLSv1.3", "x"))
        self.assertFalse(has_certificate_of(peer, frozenset()))
