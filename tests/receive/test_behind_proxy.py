"""A listener behind a proxy: whose rights and whose limits are asked about, and who may say so."""

from __future__ import annotations

import base64
import ipaddress
from typing import Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from mailserver.authentication.authenticator import Authenticator
from mailserver.authentication.lockout.counting import LockoutRules
from mailserver.authentication.lockout.lockout import Lockout
from mailserver.filters.denylist import Denylist, DenylistOptions
from mailserver.mail.networks import LOOPBACK, Networks
from mailserver.receive.judging import BoundFilter
from mailserver.receive.profile import ConnectionLimits
from mailserver.receive.throttle import Admission, Pace
from mailserver.testing.state import MemoryState
from tests.receive.connections import Listener, Wire
from tests.receive.test_encryption import encryption
from tests.receive.test_protocol import MESSAGE, ConnectionCase
from tests.transport.test_proxy_header import V4, version_2

RELAYED = b"MAIL FROM:<a@example.org>\r\nRCPT TO:<x@elsewhere.example>\r\n"
LOCAL, UNKNOWN = version_2(0, 0, b""), b"PROXY UNKNOWN\r\n"
PROXIES = Networks([ipaddress.ip_network("192.0.2.0/24"), ipaddress.ip_network("127.0.0.0/8")])
EHLO = b"EHLO client.example\r\n"


def tcp4(address: str = "203.0.113.9", port: int = 4711) -> bytes:
    """The header that brings a client."""
    return f"PROXY TCP4 {address} 127.0.0.1 {port} 25\r\n".encode()


async def secret_key() -> bytes:
    return b"secret"


class ProxyCase(ConnectionCase):
    def listener(self, **options: Any) -> Listener:
        return super().listener(**{"proxies": LOOPBACK, **options})

    def wire(self, listener: Listener, proxy: str = "127.0.0.1") -> Wire:
        wire = listener.dial(proxy)
        assert wire is not None
        return wire

    def brought(self, listener: Listener, header: bytes, proxy: str = "127.0.0.1") -> Wire:
        """A client that has said EHLO."""
        wire = self.wire(listener, proxy)
        self.assertEqual(wire.hear(header)[:4], "220 ")
        self.assertEqual(wire.hear(EHLO)[:3], "250")
        return wire

    def codes(self, wire: Wire, octets: bytes) -> list[int]:
        return [int(line[:3]) for line in wire.hear(octets).splitlines() if line[3:4] == " "]


class Header(ProxyCase):
    def test_nothing_is_said_or_judged_before_it_is_whole(self) -> None:
        class Seen(Denylist):
            async def judge_peer(self, peer: Any) -> Any:
                peers.append(peer.address)
                return await super().judge_peer(peer)

        peers: list[str] = []
        listener = self.listener(filters=[BoundFilter("seen", Seen(DenylistOptions()))])
        wire = self.wire(listener)
        for octet in tcp4():
            self.assertEqual((wire.value(), peers), (b"", []))
            wire.protocol.dataReceived(bytes([octet]))
        self.assertEqual(wire.said()[:4], "220 ")
        self.assertEqual(peers, ["203.0.113.9"])

    def test_what_comes_with_it_in_one_piece_is_the_clients(self) -> None:
        for header in (tcp4(), version_2(1, 0x11, V4), LOCAL, UNKNOWN):
            wire = self.wire(self.listener())
            self.assertEqual(self.codes(wire, header + EHLO + MESSAGE + b"QUIT\r\n"), [220, 250, 250, 250, 354, 250, 221])

    def test_a_greeting_delay_begins_behind_it(self) -> None:
        listener = self.listener(limits=ConnectionLimits(greeting_delay_seconds=5))
        wire = self.wire(listener)
        listener.clock.advance(4)
        wire.protocol.dataReceived(tcp4())
        listener.clock.advance(4)
        self.assertEqual(wire.said(), "")
        listener.clock.advance(1)
        self.assertEqual(wire.said()[:4], "220 ")

    def test_without_one_in_time_the_connection_is_closed_without_a_word(self) -> None:
        for start in (b"", b"PRO", tcp4()[:-1], LOCAL[:-1]):
            listener = self.listener(limits=ConnectionLimits(proxy_header_seconds=5))
            wire = self.wire(listener)
            wire.protocol.dataReceived(start)
            listener.clock.pump([1] * 4)
            self.assertFalse(wire.aborted)
            listener.clock.advance(1)
            self.assertTrue(wire.aborted)
            self.assertEqual(listener.step("timeout")["peer"], "proxy:127.0.0.1")
            wire.protocol.dataReceived(tcp4())  # too late
            wire.protocol.connectionLost(Failure(ConnectionDone()))
            self.assertEqual((wire.value(), listener.admission.connections, listener.factory.connections), (b"", 0, 0))

    def test_one_that_is_faulty_or_missing_is_answered_by_closing(self) -> None:
        for start in (EHLO, tcp4("999.0.2.7"), b"PROXY " + b"x" * 500, version_2(1, 0x11, b"xx")):
            listener = self.listener()
            wire = self.wire(listener)
            self.assertEqual(wire.hear(start + EHLO + MESSAGE), "")
            self.assertTrue(wire.aborted)
            self.assertIn("PROXY header", listener.step("rejected")["why"])

    def test_a_health_check_that_only_connects_leaves_no_trace(self) -> None:
        listener = self.listener()
        wire = self.wire(listener)
        wire.protocol.connectionLost(Failure(ConnectionDone()))
        self.assertEqual((listener.steps, listener.admission.connections, listener.factory.connections), ([], 0, 0))

    def test_on_a_plain_listener_it_is_an_unknown_command(self) -> None:
        wire = self.wire(self.listener(proxies=None))
        self.assertEqual(self.codes(wire, tcp4()), [500])

    def test_connections_without_one_count_among_all_connections(self) -> None:
        listener = self.listener(admission=Admission(connections=2, connections_per_network=1))
        waiting = [self.wire(listener) for _ in range(2)]
        third = self.wire(listener)
        self.assertTrue(third.aborted)
        self.assertEqual(third.hear(tcp4()), "")
        self.assertEqual(waiting[0].hear(tcp4())[:3], "220", "its place is the client's now")
        self.assertEqual(listener.admission.connections, 2)
        for wire in (*waiting, third):
            wire.protocol.connectionLost(Failure(ConnectionDone()))
        self.assertEqual((listener.admission.connections, listener.admission.networks), (0, 0))

    def test_a_stopping_server_waits_for_none(self) -> None:
        listener = self.listener()
        wire, client = self.wire(listener), self.brought(listener, tcp4())
        gone = listener.factory.shut_down()
        self.assertTrue(wire.aborted)
        self.assertEqual(client.codes(), [421])
        self.assertEqual(wire.hear(tcp4()), "")
        for one in (wire, client):
            self.assertNoResult(gone)
            one.protocol.connectionLost(Failure(ConnectionDone()))
        self.successResultOf(gone)


class Proxies(ProxyCase):
    def test_only_theirs_is_believed_and_everybody_else_is_closed_and_told_once(self) -> None:
        listener = self.listener(proxies=PROXIES)
        warned: list[str] = []
        self.patch(listener.factory, "_tell_of_stranger", self.telling(listener, warned))
        for _ in range(3):
            for stranger in ("203.0.113.9", "2001:db8::1", "2001:db8::2"):
                self.assertIsNone(listener.dial(stranger))
        for proxy in ("192.0.2.200", "127.0.0.1", "::ffff:192.0.2.200"):
            self.brought(listener, tcp4(), proxy)
        self.assertEqual(warned, ["203.0.113.9", "2001:db8::1"])
        self.assertEqual(listener.admission.connections, 3)

    def telling(self, listener: Listener, warned: list[str]) -> Any:
        from mailserver.receive import factory

        class Log:
            def warn(self, text: str, **fields: Any) -> None:
                warned.append(fields["address"] + fields["last"])

        tell = listener.factory._tell_of_stranger

        def told(address: str) -> None:
            self.patch(factory, "log", Log())
            tell(address)

        return told

    def test_a_thousand_strangers_do_not_fill_the_log(self) -> None:
        listener = self.listener()
        warned: list[str] = []
        self.patch(listener.factory, "_tell_of_stranger", self.telling(listener, warned))
        for n in range(1000):
            listener.dial(f"203.0.{n // 250}.{n % 250}")
        self.assertEqual(len(warned), 100)
        self.assertEqual([one for one in warned if "," in one], [f"{warned[-1].partition(',')[0]}, of no others any more"])

    def test_on_a_unix_socket_whoever_may_connect_is_believed(self) -> None:
        listener = self.listener(relays=True)
        self.assertEqual(self.codes(self.brought(listener, tcp4("192.0.2.7"), "unix"), RELAYED), [250, 250])
        self.assertEqual(self.codes(self.brought(listener, tcp4(), "unix"), RELAYED), [250, 550])

    def test_a_reload_changes_them_for_new_connections(self) -> None:
        listener = self.listener()
        self.assertIsNone(listener.dial("192.0.2.200"))
        listener.factory.profile = self.listener(proxies=PROXIES).profile
        self.assertIsNotNone(listener.dial("192.0.2.200"))


class Rights(ProxyCase):
    """192.0.2.0/24 may relay."""

    def test_the_client_relays_by_its_own_address_and_never_by_the_proxys(self) -> None:
        listener = self.listener(relays=True, proxies=PROXIES)
        for client, code in (("192.0.2.7", 250), ("203.0.113.9", 550)):
            self.assertEqual(self.codes(self.brought(listener, tcp4(client), "192.0.2.200"), RELAYED), [250, code])

    def test_whom_the_proxy_does_not_name_has_no_right_and_local_mail_is_taken(self) -> None:
        listener = self.listener(relays=True, proxies=PROXIES)
        for header in (LOCAL, UNKNOWN):
            wire = self.brought(listener, header, "192.0.2.200")
            self.assertEqual(self.codes(wire, RELAYED + b"RSET\r\n" + MESSAGE), [250, 550, 250, 250, 250, 354, 250])
        self.assertEqual(len(listener.store.taken), 2)

    def test_nor_may_it_submit(self) -> None:
        listener = self.listener(service="submission", relays=True, proxies=PROXIES)
        self.assertEqual(self.codes(self.brought(listener, LOCAL, "192.0.2.200"), b"MAIL FROM:<a@example.org>\r\n"), [530])

    def test_connections_are_counted_for_the_clients_network_and_for_each_proxy_where_there_is_none(self) -> None:
        admission = Admission(connections=100, connections_per_network=2)
        listener = self.listener(admission=admission, proxies=PROXIES)
        for header, proxy in (
            (tcp4("203.0.113.9"), "127.0.0.1"),
            (tcp4("203.0.113.10"), "127.0.0.1"),
            (LOCAL, "127.0.0.1"),
            (UNKNOWN, "192.0.2.200"),
            (LOCAL, "unix"),
        ):
            for expected in ("220", "220", "421"):
                self.assertEqual(self.wire(listener, proxy).hear(header)[:3], expected, (header, proxy))
        self.assertEqual(admission.networks, 5)

    def test_filters_see_the_client_and_none_where_none_is_named(self) -> None:
        options = DenylistOptions(networks=("203.0.113.0/24", "127.0.0.0/8"))
        listener = self.listener(filters=[BoundFilter("denylist", Denylist(options))])
        self.assertEqual(self.wire(listener).hear(tcp4())[:3], "554")
        self.assertEqual(self.wire(listener).hear(tcp4("198.51.100.9"))[:3], "220")
        self.assertEqual(self.wire(listener).hear(LOCAL)[:3], "220")

    def test_received_names_the_client_or_the_proxy_as_such(self) -> None:
        listener = self.listener()
        six = b"PROXY TCP6 2001:db8::7 ::1 4711 25\r\n"
        for header, proxy, shown in (
            (tcp4(), "127.0.0.1", b"from client.example ([203.0.113.9])\r\n"),
            (six, "127.0.0.1", b"from client.example ([IPv6:2001:db8::7])\r\n"),
            (LOCAL, "127.0.0.1", b"from client.example (proxy [127.0.0.1])\r\n"),
            (UNKNOWN, "::1", b"from client.example (proxy [IPv6:::1])\r\n"),
            (UNKNOWN, "unix", b"from client.example (proxy local socket)\r\n"),
        ):
            self.assertEqual(self.codes(self.brought(listener, header, proxy), MESSAGE)[-1], 250)
            self.assertIn(b"Received: " + shown, listener.store.taken[-1][1])

    def test_the_log_names_both(self) -> None:
        listener = self.listener()
        for header, proxy, peer, port in (
            (tcp4(), "127.0.0.1", "203.0.113.9", 4711),
            (LOCAL, "::1", "proxy:::1", 0),
        ):
            self.codes(self.brought(listener, header, proxy), MESSAGE)
            step = listener.step("connected")
            self.assertEqual((step["peer"], step["port"], step["via"]), (peer, port, proxy))
            self.assertEqual(listener.step("accepted")["peer"], peer)


@implementer(ICredentialsChecker)
class Nobody:
    """No password is right."""

    credentialInterfaces = (IUsernamePassword,)

    def requestAvatarId(self, credentials: Any) -> Deferred[Any]:
        return fail(UnauthorizedLogin())


class Logins(ProxyCase):
    def authenticated(self, **options: Any) -> Listener:
        self.clock = Clock()
        lockout = Lockout(
            clock=self.clock,
            spaces=MemoryState(self.clock).space,
            rules=LockoutRules(account_failures=2, network_failures=100),
            allow=Networks([ipaddress.ip_network("127.0.0.0/8")]),
        )
        authenticator = Authenticator(
            accounts=Nobody(),
            checkers=(),
            lockout=lockout,
            clock=self.clock,
            login_domain="example.org",
            hostname="mx.example.org",
            secret=secret_key,
            loopback_in_clear=True,
        )
        return self.listener(service="submission", authenticator=authenticator, **options)

    def attempts(self, listener: Listener, header: bytes, count: int) -> list[str]:
        """The codes of so many wrong passwords, each on a connection of its own, over STARTTLS."""
        codes = []
        for n in range(count):
            wire = self.brought(listener, header)
            self.assertEqual(self.codes(wire, b"STARTTLS\r\n"), [220])
            self.assertEqual(wire.creator, "creator")
            wire.protocol.handshakeCompleted()
            self.assertIn("AUTH PLAIN", wire.hear(EHLO))
            wire.clear()
            wire.protocol.dataReceived(b"AUTH PLAIN " + base64.b64encode(b"\0alice\0wrong %d" % n) + b"\r\n")
            self.clock.pump([10] * 10)
            codes.append(wire.said()[:3])
        return codes

    def test_guesses_lock_the_client_out_and_nobody_else_and_not_the_proxy(self) -> None:
        listener = self.authenticated(encryption=encryption())
        self.assertEqual(self.attempts(listener, tcp4(), 3), ["535", "535", "454"])
        self.assertEqual(self.attempts(listener, tcp4("198.51.100.9"), 1), ["535"])

    def test_whom_the_proxy_does_not_name_is_locked_out_as_one(self) -> None:
        listener = self.authenticated(encryption=encryption())
        self.assertEqual(self.attempts(listener, LOCAL, 2) + self.attempts(listener, UNKNOWN, 1), ["535", "535", "454"])

    def test_the_proxys_own_address_opens_nothing_to_loopback_alone(self) -> None:
        listener = self.authenticated()
        for header in (tcp4(), LOCAL):
            wire = self.wire(listener)
            wire.hear(header)
            self.assertNotIn("AUTH", wire.hear(EHLO))
        wire = self.wire(listener)
        wire.hear(tcp4("127.0.0.1"))
        self.assertIn("AUTH", wire.hear(EHLO), "a client of this host, brought by its proxy")

    def test_time_to_log_in_begins_with_the_header(self) -> None:
        listener = self.listener(
            service="submission", limits=ConnectionLimits(proxy_header_seconds=50, pace=Pace(login_seconds=60, command_seconds=300))
        )
        wire = self.wire(listener)
        listener.clock.pump([1] * 40)
        wire.hear(tcp4() + EHLO)
        listener.clock.pump([1] * 59)
        self.assertEqual(wire.said(), "")
        listener.clock.pump([1] * 2)
        self.assertEqual(wire.codes(), [421])


class Encrypted(ProxyCase):
    def test_implicit_tls_lies_behind_the_header(self) -> None:
        listener = self.listener(encryption=encryption(implicit=True))
        made: list[Any] = []
        self.patch(listener.factory, "connection_of", lambda peer, via: made.append((peer, via)) or Sink())
        wire = self.wire(listener)
        wire.protocol.dataReceived(tcp4() + b"\x16\x03\x01")
        [(peer, via)] = made
        self.assertEqual((peer.address, via), ("203.0.113.9", "127.0.0.1"))
        self.assertEqual(wire.protocol.heard, [b"\x16\x03\x01"])


class Sink:
    """Remembers what it hears."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []

    def makeConnection(self, transport: Any) -> None:
        self.transport = transport

    def dataReceived(self, octets: bytes) -> None:
        self.heard.append(octets)
