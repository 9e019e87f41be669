"""Whom the resolver believes, and when it finds out."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.internet.protocol import DatagramProtocol
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase

from mailserver.dns import NameServer, ProbeNames, Resolver, Trust
from mailserver.dns.beliefs import Beliefs
from mailserver.dns.validation import ProbeAnswer, ProbeQuestion
from mailserver.mail.dns_records import LookupFailed, ServerAddress
from tests.dns.liar import Liar
from tests.dnssec import SignedWorld, Zone, shared
from tests.ports import own_loopback
from tests.requires import require_root

NAMES = ProbeNames(("s",), ("u",), ("b",))
HERE = NameServer(ServerAddress("127.0.0.1"), trusted=True)
OTHER = NameServer(ServerAddress("127.0.0.2"), trusted=True)
FAR = NameServer(ServerAddress("192.0.2.1"))
GOOD = {"s": ProbeAnswer(True), "u": ProbeAnswer(), "b": ProbeAnswer(failure="SERVFAIL", is_servfail=True), "b!": ProbeAnswer()}
PASSES = {"s": ProbeAnswer(), "u": ProbeAnswer(), "b": ProbeAnswer()}
LIES = {"s": ProbeAnswer(True), "u": ProbeAnswer(True)}
DEAD = {"s": ProbeAnswer(failure="silence")}


class Examinations(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.worlds: dict[NameServer, dict[str, ProbeAnswer]] = {HERE: GOOD, OTHER: GOOD}
        self.asked: list[tuple[NameServer, str]] = []
        self.slow: list[tuple[Deferred[ProbeAnswer], ProbeAnswer]] | None = None
        self.told: list[str] = []
        self.beliefs = self.made()

    def made(self, trust: Trust = Trust.AUTO) -> Beliefs:
        return Beliefs(
            clock=self.clock, seconds=self.clock.seconds, ask=self.ask, names=NAMES, trust=trust,
            changed=lambda: self.told.append("changed"), settled=lambda: self.told.append("settled"),
        )  # fmt: skip

    def ask(self, server: NameServer, question: ProbeQuestion) -> Deferred[ProbeAnswer]:
        name = question.name + ("!" if question.checking_disabled else "")
        self.asked.append((server, name))
        answer = self.worlds[server][name]
        if self.slow is None:
            return succeed(answer)
        waiting: Deferred[ProbeAnswer] = Deferred()
        self.slow.append((waiting, answer))
        return waiting

    def answer_all(self) -> None:
        while self.slow:
            waiting, answer = self.slow.pop(0)
            if not waiting.called:
                waiting.callback(answer)

    def test_a_server_that_may_be_believed_and_validates_is(self) -> None:
        self.beliefs.start([HERE, FAR])
        self.assertEqual([self.beliefs.believes(one) for one in (HERE, FAR)], [True, False])
        self.assertEqual({server for server, _ in self.asked}, {HERE}, "nobody asks whom he would not believe")
        self.assertEqual(
            self.beliefs.described(),
            {
                "127.0.0.1": "believed: validates (s is authenticated, b is refused as bogus)",
                "192.0.2.1": "not believed: it is not on this host",
            },
        )

    def test_one_that_does_not_validate_or_lies_is_not(self) -> None:
        self.worlds = {HERE: PASSES, OTHER: LIES}
        self.beliefs.start([HERE, OTHER])
        self.assertEqual([self.beliefs.believes(one) for one in (HERE, OTHER)], [False, False])
        self.assertEqual(self.told, [])
        self.assertIn("calls everything authenticated", self.beliefs.described()["127.0.0.2"])

    def test_always_and_never_ask_nobody(self) -> None:
        for trust, believed in ((Trust.ALWAYS, True), (Trust.NEVER, False)):
            beliefs = self.made(trust)
            beliefs.start([HERE, FAR])
            self.assertEqual([beliefs.believes(one) for one in (HERE, FAR)], [believed, believed])
            self.assertEqual((self.asked, beliefs.is_finding_out), ([], False))
            self.assertIn("as configured", beliefs.described()["192.0.2.1"])

    def test_questions_wait_until_it_is_known_and_at_most_five_seconds(self) -> None:
        self.slow = []
        self.beliefs.start([HERE, OTHER])
        self.assertTrue(self.beliefs.is_finding_out)
        self.answer_all()
        self.assertEqual((self.beliefs.is_finding_out, self.told), (False, ["changed", "changed", "settled"]))
        near = NameServer(FAR.address, trusted=True)
        self.worlds[near] = GOOD
        self.beliefs.use([HERE, near])
        self.assertTrue(self.beliefs.is_finding_out)
        self.clock.advance(5)
        self.assertEqual((self.beliefs.is_finding_out, self.told[3:]), (False, ["settled"]))

    def test_where_nothing_could_be_told_the_next_question_asks_first(self) -> None:
        self.worlds[HERE] = DEAD
        self.beliefs.start([HERE])
        self.assertIn("silence", self.beliefs.described()["127.0.0.1"])
        self.worlds[HERE], self.slow = GOOD, []
        self.beliefs.look()
        self.assertEqual((self.slow, self.beliefs.is_finding_out), ([], False), "it was asked a moment ago")
        self.clock.advance(10)
        self.beliefs.look()
        self.assertTrue(self.beliefs.is_finding_out)
        self.beliefs.look()
        self.assertEqual(len(self.slow), 1)
        self.answer_all()
        self.assertEqual((self.beliefs.believes(HERE), self.beliefs.is_finding_out), (True, False))

    def test_a_slow_examination_lets_questions_wait_once(self) -> None:
        self.slow = []
        self.beliefs.start([HERE])
        self.clock.advance(5)
        self.clock.advance(20)
        self.beliefs.look()
        self.assertFalse(self.beliefs.is_finding_out)

    def test_it_is_found_out_anew_once_an_hour_and_what_changes_is_told(self) -> None:
        self.beliefs.start([HERE])
        self.worlds[HERE] = PASSES
        self.clock.advance(3599)
        self.assertTrue(self.beliefs.believes(HERE))
        self.clock.advance(1)
        self.assertEqual((self.beliefs.believes(HERE), self.told), (False, ["changed", "changed"]))
        self.worlds[HERE] = GOOD
        self.clock.advance(600)
        self.assertTrue(self.beliefs.believes(HERE))
        self.assertFalse(self.beliefs.is_finding_out, "nobody waits for that")

    def test_what_is_known_stays_while_nobody_can_be_asked(self) -> None:
        self.beliefs.start([HERE])
        self.worlds[HERE] = DEAD
        self.clock.advance(3600)
        self.assertTrue(self.beliefs.believes(HERE))
        self.worlds[HERE] = LIES
        self.clock.advance(60)
        self.assertFalse(self.beliefs.believes(HERE))

    def test_one_that_was_silent_and_answers_again_is_examined(self) -> None:
        self.beliefs.start([HERE])
        self.worlds[HERE] = PASSES
        self.beliefs.heard_again(FAR)
        self.beliefs.heard_again(HERE)
        self.assertFalse(self.beliefs.believes(HERE))

    def test_an_examination_that_breaks_shows_nothing_and_the_next_is_made(self) -> None:
        self.worlds = {HERE: {}, OTHER: GOOD}
        self.beliefs.start([HERE, OTHER])
        self.assertEqual([self.beliefs.believes(one) for one in (HERE, OTHER)], [False, True])
        self.worlds[HERE] = GOOD
        self.clock.advance(60)
        self.assertTrue(self.beliefs.believes(HERE))

    def test_a_server_that_is_used_no_more_is_asked_no_more_nor_after_the_end(self) -> None:
        self.slow = []
        self.beliefs.start([HERE, OTHER])
        self.beliefs.use([OTHER])
        self.answer_all()
        self.assertEqual([self.beliefs.believes(one) for one in (HERE, OTHER)], [False, True])
        self.beliefs.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertFalse(self.beliefs.believes(OTHER))
        self.beliefs.use([HERE])
        self.assertEqual(self.clock.getDelayedCalls(), [])


def zones() -> dict[str, Zone]:
    return {"secure.example": Zone(["@ MX 10 mx", "mx A 127.0.0.2"])}


class RealServers(TestCase):
    NAMES = ProbeNames(("signed.probe",), ("unsigned.probe",), ("bogus.probe",))

    def setUp(self) -> None:
        self.world: SignedWorld = shared(zones)

    async def resolver(self, *addresses: str, trusted: bool = True, **more: Any) -> Resolver:
        servers = [NameServer(ServerAddress.parse(one), trusted=trusted) for one in addresses]
        resolver = Resolver(reactor=reactor, servers=servers, timeout_seconds=10.0, probe_names=self.NAMES, **more)
        self.addCleanup(resolver.stop)
        await resolver.start()
        return resolver

    async def is_secure(self, resolver: Resolver) -> bool:
        return (await resolver.query("secure.example", "MX")).authenticated

    async def test_the_very_first_question_waits_until_it_is_known_that_unbound_validates(self) -> None:
        resolver = await self.resolver(self.world.address)
        self.assertTrue(await self.is_secure(resolver))
        (said,) = resolver.beliefs.values()
        self.assertEqual(said, "believed: validates (signed.probe is authenticated, bogus.probe is refused as bogus)")

    async def test_where_resolv_conf_names_another_it_is_examined_before_anything_else_is_asked(self) -> None:
        path, now = self.mktemp(), [0.0]
        host = own_loopback(2)
        require_root("port 53")
        world = SignedWorld(zones(), f"{host}@53")
        self.addCleanup(world.stop)
        world.start()
        with open(path, "w") as file:
            file.write(f"nameserver {own_loopback(3)}\n")
        resolver = Resolver(
            reactor=reactor, resolv_conf=path, probe_names=self.NAMES, seconds=lambda: reactor.seconds() + now[0]
        )
        self.addCleanup(resolver.stop)
        await resolver.start()
        await self.assertFailure(resolver.query("secure.example", "A"), LookupFailed)
        with open(path, "w") as file:
            file.write(f"nameserver {host}\n# another length\n")
        now[0] = 31.0
        self.assertTrue(await self.is_secure(resolver))
        self.assertEqual(list(resolver.beliefs), [host])

    async def test_one_that_does_not_validate_is_not_believed(self) -> None:
        resolver = await self.resolver(self.world.not_validating())
        self.assertFalse(await self.is_secure(resolver))
        self.assertIn("does not validate", str(resolver.beliefs))

    async def test_one_that_lies_about_the_bit_is_not_believed(self) -> None:
        for upstream, said in (
            (self.world.address, "unsigned.probe is not signed, and came with the AD bit"),
            (self.world.not_validating(), "unsigned.probe is not signed, and came with the AD bit"),
        ):
            port = reactor.listenUDP(0, Liar(upstream), interface="127.0.0.1")
            self.addCleanup(port.stopListening)
            resolver = await self.resolver(f"127.0.0.1:{port.getHost().port}")
            self.assertFalse(await self.is_secure(resolver))
            self.assertIn(said, str(resolver.beliefs))

    async def test_over_the_network_or_by_order_nobody_is_believed_and_always_is_always(self) -> None:
        self.assertFalse(await self.is_secure(await self.resolver(self.world.address, trusted=False)))
        self.assertFalse(await self.is_secure(await self.resolver(self.world.address, trust=Trust.NEVER)))
        self.assertTrue(await self.is_secure(await self.resolver(self.world.address, trusted=False, trust=Trust.ALWAYS)))

    async def test_the_servfail_of_one_that_validates_is_final_and_of_another_is_not(self) -> None:
        strict = await self.resolver(self.world.address, self.world.not_validating())
        error = await self.assertFailure(strict.query("bogus.probe", "A"), LookupFailed)
        self.assertEqual(error.rcode, 2)
        self.assertIn("SERVFAIL (DNS", str(error))
        lax = await self.resolver(self.world.address, self.world.not_validating(), trust=Trust.NEVER)
        self.assertEqual((await lax.query("bogus.probe", "A")).records, ("192.0.2.1",))

    async def test_it_can_be_stopped_in_the_middle_of_an_examination(self) -> None:
        silent = reactor.listenUDP(0, DatagramProtocol(), interface="127.0.0.1")
        self.addCleanup(silent.stopListening)
        resolver = await self.resolver(f"127.0.0.1:{silent.getHost().port}")
        waiting = [self.assertFailure(resolver.query(name, "A"), LookupFailed) for name in ("a.example", "b.example")]
        await resolver.stop()
        await gatherResults(waiting)
        await resolver.start()
        self.assertTrue(resolver.beliefs)
