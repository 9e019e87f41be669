"""AUTH on a listener (RFC 4954): what the authenticator says becomes a reply, a step of the road and the peer's login."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from mailserver.interfaces import Denial, Denied, LoggedIn
from mailserver.mail.envelope import Peer
from mailserver.receive.login_replies import reply_to
from mailserver.receive.profile import ConnectionLimits
from mailserver.receive.protocol import ReceiveProtocol
from mailserver.receive.throttle import Pace
from mailserver.sasl.steps import Challenge, ChannelBindings
from tests.receive.connections import Listener, Wire
from tests.receive.test_encryption import FACTS, encryption

ALICE = LoggedIn("alice@example.org", "PLAIN", "app password phone")
WRONG = Denied(Denial.CREDENTIALS, "wrong password", "alice@example.org")


class Login:
    def __init__(self, answers: list[Any]) -> None:
        self.answers = answers
        self.heard: list[bytes | None] = []
        self.cancelled = 0

    async def respond(self, data: bytes | None) -> Any:
        self.heard.append(data)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return await answer if isinstance(answer, Deferred) else answer

    def cancel(self) -> None:
        self.cancelled += 1


class Authenticator:
    """Offers PLAIN and LOGIN under TLS; every exchange gets the next of `answers`."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.logins: list[Login] = []
        self.bindings: list[ChannelBindings] = []

    def mechanisms(self, peer: Peer) -> Sequence[str]:
        return ("PLAIN", "LOGIN") if peer.tls is not None else ()

    def begin(self, mechanism: str, peer: Peer, bindings: ChannelBindings) -> Login:
        self.bindings.append(bindings)
        self.logins.append(Login(self.answers))
        return self.logins[-1]

    async def granted_senders(self, account: str) -> Sequence[str]:
        return ()


class LoginCase(SynchronousTestCase):
    def listener(self, *answers: Any, service: str = "submission", **more: Any) -> Listener:
        self.authenticator = Authenticator(*answers)
        return Listener(
            self.mktemp(), service=service, encryption=encryption(), authenticator=self.authenticator, relays=True, **more
        )

    def secured(self, listener: Listener) -> tuple[ReceiveProtocol, Wire]:
        protocol, wire = listener.greeted()
        protocol.dataReceived(b"STARTTLS\r\n")
        protocol.handshakeCompleted()
        protocol.dataReceived(b"EHLO a.example\r\n")
        return protocol, wire

    def say(self, protocol: ReceiveProtocol, wire: Wire, octets: bytes) -> list[int]:
        wire.clear()
        protocol.dataReceived(octets)
        return wire.codes()


class Offer(LoginCase):
    def test_mechanisms_are_offered_under_tls_alone(self) -> None:
        listener = self.listener()
        protocol, wire = listener.connect()
        protocol.dataReceived(b"EHLO a.example\r\n")
        self.assertNotIn("AUTH", wire.said())
        self.assertEqual(self.say(protocol, wire, b"AUTH PLAIN AGEAYg==\r\n"), [538])
        protocol.dataReceived(b"STARTTLS\r\n")
        protocol.handshakeCompleted()
        wire.clear()
        protocol.dataReceived(b"EHLO a.example\r\n")
        self.assertIn("AUTH PLAIN LOGIN\r\n", wire.said())
        self.assertEqual(self.authenticator.logins, [])

    def test_a_stranger_may_send_nothing_through_submission(self) -> None:
        # RFC 6409 section 4.3
        protocol, wire = self.secured(self.listener())
        self.assertEqual(self.say(protocol, wire, b"MAIL FROM:<a@example.net>\r\n"), [530])

    def test_a_listener_without_accounts_offers_nothing(self) -> None:
        listener = Listener(self.mktemp(), service="submission", encryption=encryption())
        protocol, wire = self.secured(listener)
        self.assertNotIn("AUTH", wire.said())
        self.assertEqual(self.say(protocol, wire, b"AUTH PLAIN AGEAYg==\r\n"), [502])


class Exchange(LoginCase):
    def test_success_makes_the_peer_somebody_who_may_relay(self) -> None:
        listener = self.listener(ALICE)
        protocol, wire = self.secured(listener)
        self.assertEqual(self.say(protocol, wire, b"AUTH PLAIN AGEAYg==\r\n"), [235])
        self.assertEqual(protocol.peer.login, "alice@example.org")
        self.assertEqual(
            self.say(protocol, wire, b"MAIL FROM:<alice@example.org>\r\nRCPT TO:<b@elsewhere.example>\r\n"), [250, 250]
        )
        step = listener.step("login")
        self.assertEqual((step["account"], step["method"]), ("alice@example.org", "PLAIN"))

    def test_received_says_esmtpsa_and_may_hide_the_client(self) -> None:
        # RFC 3848
        listener = self.listener(ALICE, hides_clients=True)
        protocol, wire = self.secured(listener)
        self.say(protocol, wire, b"AUTH PLAIN AGEAYg==\r\nMAIL FROM:<alice@example.org>\r\nRCPT TO:<bob@example.org>\r\n")
        self.assertEqual(self.say(protocol, wire, b"DATA\r\nSubject: x\r\n\r\n.\r\n"), [354, 250])
        [(_, content, _)] = listener.store.taken
        self.assertIn(b"with ESMTPSA id", content)
        self.assertNotIn(b"203.0.113.9", content)
        self.assertNotIn(b"a.example", content)

    def test_a_challenge_is_base64_and_its_response_comes_decoded(self) -> None:
        listener = self.listener(Challenge(b"Username:"), Challenge(b"Password:"), ALICE)
        protocol, wire = self.secured(listener)
        wire.clear()
        protocol.dataReceived(b"AUTH LOGIN\r\n")
        self.assertEqual(wire.said(), "334 VXNlcm5hbWU6\r\n")
        self.assertEqual(self.say(protocol, wire, base64.b64encode(b"alice") + b"\r\n"), [334])
        self.assertEqual(self.say(protocol, wire, base64.b64encode(b"secret") + b"\r\n"), [235])
        self.assertEqual(self.authenticator.logins[0].heard, [None, b"alice", b"secret"])

    def test_a_star_cancels_and_is_told_to_the_exchange(self) -> None:
        protocol, wire = self.secured(self.listener(Challenge(b"Username:")))
        self.assertEqual(self.say(protocol, wire, b"AUTH LOGIN\r\n*\r\nNOOP\r\n"), [334, 501, 250])
        self.assertEqual(self.authenticator.logins[0].cancelled, 1)

    def test_pipelined_commands_wait_for_the_answer(self) -> None:
        later: Deferred[Any] = Deferred()
        protocol, wire = self.secured(self.listener(later))
        self.assertEqual(self.say(protocol, wire, b"AUTH PLAIN AGEAYg==\r\nNOOP\r\n"), [])
        later.callback(ALICE)
        self.assertEqual(wire.codes(), [235, 250])

    def test_a_peer_that_leaves_amid_an_exchange_cancels_it(self) -> None:
        protocol, _ = self.secured(self.listener(Challenge(b"")))
        protocol.dataReceived(b"AUTH LOGIN\r\n")
        protocol.connectionLost(Failure(ConnectionLost()))
        self.assertEqual(self.authenticator.logins[0].cancelled, 1)

    def test_twice_is_503(self) -> None:
        # RFC 4954 section 4
        protocol, wire = self.secured(self.listener(ALICE))
        self.assertEqual(self.say(protocol, wire, b"AUTH PLAIN AGEAYg==\r\nAUTH PLAIN AGEAYg==\r\n"), [235, 503])

    def test_in_a_transaction_it_is_503(self) -> None:
        # RFC 4954 section 4
        protocol, wire = self.secured(self.listener(service="mx"))
        self.assertEqual(self.say(protocol, wire, b"MAIL FROM:<a@example.net>\r\nAUTH PLAIN AGEAYg==\r\n"), [250, 503])

    def test_accounts_that_cannot_be_asked_are_454(self) -> None:
        for trouble in (RuntimeError("no database"), Denied(Denial.UNAVAILABLE, "no database")):
            protocol, wire = self.secured(self.listener(trouble))
            self.assertEqual(self.say(protocol, wire, b"AUTH PLAIN AGEAYg==\r\n"), [454])
            self.assertEqual(protocol.peer.login, "")
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_every_denial_has_its_code(self) -> None:
        codes = {denial: str(reply_to(Denied(denial, "")))[:9].rstrip() for denial in Denial}
        self.assertEqual(
            codes,
            {
                Denial.CREDENTIALS: "535 5.7.8",
                Denial.MALFORMED: "501 5.5.2",
                Denial.WEAK: "534 5.7.9",
                Denial.UNAVAILABLE: "454 4.7.0",
                Denial.SLOW_DOWN: "454 4.7.0",
            },
        )


class Failures(LoginCase):
    def test_a_failure_is_told_in_the_log_and_not_to_the_client(self) -> None:
        listener = self.listener(WRONG)
        protocol, wire = self.secured(listener)
        wire.clear()
        protocol.dataReceived(b"AUTH PLAIN AGEAYg==\r\n")
        self.assertEqual(wire.said(), "535 5.7.8 Authentication credentials invalid\r\n")
        step = listener.step("login_failed")
        self.assertEqual((step["peer"], step["username"], step["why"]), ("203.0.113.9", "alice@example.org", "wrong password"))

    def test_the_third_failure_ends_the_connection(self) -> None:
        listener = self.listener(WRONG, WRONG, WRONG, ALICE)
        protocol, wire = self.secured(listener)
        guesses = b"AUTH PLAIN AGEAYg==\r\n" * 4
        self.assertEqual(self.say(protocol, wire, guesses), [535, 535, 535, 421])
        self.assertTrue(wire.disconnecting)
        self.assertEqual(len(self.authenticator.logins), 3)

    def test_a_client_that_does_not_log_in_is_not_waited_for(self) -> None:
        limits = ConnectionLimits(pace=Pace(login_seconds=60.0))
        listener = self.listener(ALICE, limits=limits)
        idle, idle_wire = self.secured(listener)
        busy, busy_wire = self.secured(listener)
        busy.dataReceived(b"AUTH PLAIN AGEAYg==\r\n")
        for wire in (idle_wire, busy_wire):
            wire.clear()
        for _ in range(61):
            listener.clock.advance(1.0)
            idle.dataReceived(b"")
        self.assertEqual((idle_wire.codes(), busy_wire.codes()), ([421], []))
        self.assertEqual(listener.step("timeout")["why"], "no login for too long")

    def test_who_may_relay_by_its_address_need_not_log_in(self) -> None:
        listener = self.listener(limits=ConnectionLimits(pace=Pace(login_seconds=60.0)))
        _, wire = listener.greeted("192.0.2.7")
        listener.clock.pump([1.0] * 61)
        self.assertEqual(wire.codes(), [])


class Bindings(LoginCase):
    def test_the_exchange_gets_the_bindings_of_its_connection(self) -> None:
        self.authenticator = Authenticator(ALICE)
        with_bindings = encryption()
        object.__setattr__(with_bindings, "bindings", lambda transport: ChannelBindings({"tls-exporter": b"x" * 32}))
        listener = Listener(self.mktemp(), encryption=with_bindings, authenticator=self.authenticator)
        protocol, _ = self.secured(listener)
        protocol.dataReceived(b"AUTH PLAIN AGEAYg==\r\n")
        self.assertEqual(self.authenticator.bindings, [ChannelBindings({"tls-exporter": b"x" * 32})])
        self.assertEqual(protocol.peer.tls, FACTS)
