"""The resolver on real sockets, against a name server that misbehaves as the test wants."""

from __future__ import annotations

from itertools import count

from twisted.internet import reactor
from twisted.internet.defer import gatherResults
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from mailserver.dns import NameServer, Resolver
from mailserver.mail.dns_records import LookupFailed, ServerAddress
from tests.dns.messages import mx, reply
from tests.dns.scripted import ScriptedServer

NAME = "example.org"
PATIENT, HASTY = 20.0, 0.3  # a time-out that must not be needed, and one that is waited for


def exchange():
    return mx(NAME, 10, "mx.example")


def framed(data):
    return len(data).to_bytes(2) + data


class SocketCase(TestCase):
    async def resolver(self, *servers, timeout_seconds=PATIENT, **more):
        addresses = [one if isinstance(one, ServerAddress) else one.address for one in servers]
        found = Resolver(
            reactor=reactor,
            servers=[NameServer(address, trusted=True) for address in addresses],
            timeout_seconds=timeout_seconds,
            **more,
        )
        await found.start()
        self.addCleanup(found.stop)
        return found

    def server(self, by_udp, by_tcp=None):
        found = ScriptedServer(by_udp, by_tcp).start()
        self.addCleanup(found.stop)
        return found

    def steps(self, *scripts):
        """A script that does one thing after the other."""
        number = count()
        return lambda query: scripts[min(next(number), len(scripts) - 1)](query)


class Datagrams(SocketCase):
    async def test_a_question_is_answered_and_the_ad_bit_arrives(self) -> None:
        server = self.server(lambda query: [reply(query, exchange(), ad=True)])
        resolver = await self.resolver(server)
        found = await resolver.query(NAME, "MX")
        self.assertEqual((found.records, found.authenticated), (("10 mx.example",), True))
        self.assertEqual(server.asked[0][2:4], b"\x01\x20")

    async def test_a_lost_packet_is_asked_again(self) -> None:
        server = self.server(self.steps(lambda query: [], lambda query: [reply(query, exchange())]))
        resolver = await self.resolver(server, timeout_seconds=HASTY, attempts=5)
        self.assertEqual(len((await resolver.query(NAME, "MX")).records), 1)
        self.assertEqual(len(server.asked), 2)

    async def test_a_wrong_id_a_wrong_name_and_noise_before_the_answer_do_no_harm(self) -> None:
        def script(query):
            good = reply(query, exchange())
            forged = reply(query, mx(NAME, 0, "forged.example"))
            yield bytes([forged[0] ^ 1]) + forged[1:]
            yield forged.replace(b"\x07example\x03org", b"\x07example\x03net")
            yield b"\xff" * 3000
            yield b"\0"
            yield good
            yield forged

        resolver = await self.resolver(self.server(script))
        self.assertEqual((await resolver.query(NAME, "MX")).records, ("10 mx.example",))

    async def test_a_late_answer_is_no_answer_to_the_next_attempt(self) -> None:
        first = []

        def forgetful(query):
            first.append(query)
            return []

        def late_then_right(query):
            return [reply(first[0], mx(NAME, 0, "late.example")), reply(query, exchange())]

        server = self.server(self.steps(forgetful, late_then_right))
        resolver = await self.resolver(server, timeout_seconds=HASTY, attempts=5)
        self.assertEqual((await resolver.query(NAME, "MX")).records, ("10 mx.example",))

    async def test_servfail_and_silence_are_failures(self) -> None:
        servfail = self.server(lambda query: [reply(query, rcode=2)])
        with self.assertRaisesRegex(LookupFailed, "SERVFAIL"):
            await (await self.resolver(servfail)).query(NAME, "MX")
        silent = self.server(lambda query: [])
        with self.assertRaisesRegex(LookupFailed, "no answer"):
            await (await self.resolver(silent, timeout_seconds=HASTY, attempts=1)).query(NAME, "MX")

    async def test_a_port_where_nobody_listens_costs_no_time(self) -> None:
        gone = ScriptedServer(lambda query: []).start()
        address = gone.address
        await gone.stop()
        server = self.server(lambda query: [reply(query, exchange())])
        resolver = await self.resolver(address, server)
        self.assertEqual(len((await resolver.query(NAME, "MX")).records), 1)

    async def test_many_questions_come_from_several_ports(self) -> None:
        server = self.server(lambda query: [reply(query, rcode=3)])
        resolver = await self.resolver(server)
        found = await gatherResults([resolver.query(f"n{n}.example", "A") for n in range(100)])
        self.assertEqual({one.name_exists for one in found}, {False})
        self.assertGreater(len(server.peers), 1)
        self.assertGreater(len({query[:2] for query in server.asked}), 50)


class Streams(SocketCase):
    async def test_a_huge_answer_comes_by_tcp(self) -> None:
        exchanges = [mx(NAME, n, f"a-rather-long-name-{n}.example") for n in range(950)]
        server = self.server(lambda query: [reply(query, tc=True)], lambda query: [framed(reply(query, *exchanges))])
        resolver = await self.resolver(server)
        self.assertEqual(len((await resolver.query(NAME, "MX")).records), 950)

    async def test_an_answer_in_single_octets_is_put_together(self) -> None:
        server = self.server(
            lambda query: [reply(query, tc=True)],
            lambda query: [bytes([octet]) for octet in framed(reply(query, exchange()))],
        )
        resolver = await self.resolver(server)
        self.assertEqual(len((await resolver.query(NAME, "MX")).records), 1)

    async def test_without_tcp_the_truncated_answer_is_a_failure(self) -> None:
        resolver = await self.resolver(self.server(lambda query: [reply(query, exchange(), tc=True)]), attempts=1)
        with self.assertRaisesRegex(LookupFailed, "no TCP connection"):
            await resolver.query(NAME, "MX")

    async def test_stop_breaks_off_a_connection_that_waits(self) -> None:
        server = self.server(lambda query: [reply(query, tc=True)], lambda query: [b"\xff\xffjust a little"])
        resolver = await self.resolver(server)
        found = resolver.query(NAME, "MX")
        while not server.streams:
            await self.turn()
        await resolver.stop()
        with self.assertRaisesRegex(LookupFailed, "stopped"):
            await found
        while server.streams:
            await self.turn()

    def turn(self):
        return deferLater(reactor, 0.001, lambda: None)
