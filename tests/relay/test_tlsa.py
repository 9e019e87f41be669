"""TLSA records are looked up where the DNS is secure, and nowhere else."""

from __future__ import annotations

from twisted.internet import reactor
from twisted.internet.defer import ensureDeferred
from twisted.trial.unittest import SynchronousTestCase, TestCase

from mailserver.dns import NameServer, Resolver
from mailserver.mail.answers import Delayed
from mailserver.mail.dns_records import TLSA, Answer, LookupFailed, ServerAddress
from mailserver.relay.hosts import Host, HostBook, Hosts, Unroutable, domain_hosts, named_hosts
from mailserver.testing import FakeResolver
from mailserver.trust.dane import TLSAState
from tests.dnssec import SignedWorld, Signing, Zone, shared
from tests.trust.chains import chain_of, self_signed, tlsa

KEY = "0f" * 32
RECORD = TLSA(3, 1, 1, bytes.fromhex(KEY))
DANE = f"TLSA 3 1 1 {KEY}"


def records(text: str) -> list[str]:
    return text.strip().split("; ")


def zones() -> dict[str, Zone]:
    anchor = tlsa(chain_of()[2], 2, 0, 1).data.hex()
    good = f"@ MX 10 mx; @ MX 20 mx2; mx A 127.0.0.2; _25._tcp.mx {DANE}; mx2 A 127.0.0.3; _587._tcp.mx2 {DANE}"
    alias = (
        "@ MX 10 one; one CNAME mx.good.example.; @ MX 20 two; two CNAME bare.alias.example.; bare A 127.0.0.5; "
        f"_25._tcp.two {DANE}; @ MX 30 three; three CNAME mx.plain.example.; _25._tcp.three {DANE}; next CNAME good.example."
    )
    kinds = (
        f"@ MX 10 unusable; unusable A 127.0.0.6; _25._tcp.unusable TLSA 1 1 1 {KEY}; "
        f"@ MX 20 mixed; mixed A 127.0.0.7; _25._tcp.mixed TLSA 0 0 1 {KEY}; _25._tcp.mixed TLSA 2 0 1 {anchor}; "
        f"_25._tcp.mixed TLSA 3 1 7 {KEY[:20]}; @ MX 30 named; named A 127.0.0.8; _25._tcp.named CNAME records; records {DANE}"
    )
    bad = (
        f"@ MX 10 forged; forged A 127.0.0.9; _25._tcp.forged {DANE}; @ MX 20 lame; lame A 127.0.0.10; "
        "@ MX 30 mx.good.example.; @ MX 40 cut; cut A 127.0.0.11"
    )
    plain = f"@ MX 10 mx; mx A 127.0.0.12; _25._tcp.mx {DANE}; @ MX 20 lame; lame A 127.0.0.13"
    many = [f"_25._tcp.mx TLSA 3 1 1 {n:064x}" for n in range(30)]
    return {
        "good.example": Zone(records(good)),
        "alias.example": Zone(records(alias)),
        "kinds.example": Zone(records(kinds)),
        "bad.example": Zone(records(bad), forged=["_25._tcp.forged"]),
        "_tcp.lame.bad.example": Zone(signing=Signing.LAME),
        "_tcp.cut.bad.example": Zone([f"_25 {DANE}"], signing=Signing.NONE),
        "plain.example": Zone(records(plain), signing=Signing.NONE),
        "_tcp.lame.plain.example": Zone(signing=Signing.LAME),
        "borrowed.example": Zone(["@ MX 10 mx.good.example."], signing=Signing.NONE),
        "bogus.example": Zone(["@ MX 10 mx.good.example."], signing=Signing.BOGUS),
        "implicit.example": Zone(["@ A 127.0.0.14", f"_25._tcp {DANE}"]),
        "big.example": Zone(["@ MX 10 mx", "mx A 127.0.0.15", f"_25._tcp.mx TLSA 3 0 0 {self_signed('rsa').der.hex()}", *many]),
    }


class Lookups(TestCase):
    def setUp(self) -> None:
        self.world: SignedWorld = shared(zones)

    async def resolver(self, *, address: str = "", trusted: bool = True) -> Resolver:
        server = NameServer(ServerAddress.parse(address or self.world.address), trusted=trusted)
        resolver = Resolver(reactor=reactor, servers=[server], timeout_seconds=10.0)
        await resolver.start()
        self.addCleanup(resolver.stop)
        return resolver

    async def hosts(self, domain: str) -> dict[str, Host]:
        found = await domain_hosts(domain, resolver=await self.resolver())
        self.found = found
        return {host.name: host for group in found.groups for host in group}

    async def test_a_secure_host_has_its_records_and_securely_none(self) -> None:
        hosts = await self.hosts("good.example")
        found = hosts["mx.good.example"].tlsa
        self.assertEqual((found.state, found.records), (TLSAState.USABLE, (RECORD,)))
        self.assertEqual((found.base_name, found.names), ("mx.good.example", ("mx.good.example", "good.example")))
        self.assertEqual(hosts["mx2.good.example"].tlsa.state, TLSAState.NONE)
        self.assertEqual((self.found.domain, self.found.is_authentic), ("good.example", True))

    async def test_a_cname_is_followed_first_and_then_its_own_name_asked_for(self) -> None:
        hosts = await self.hosts("alias.example")
        for name, base in (
            ("one.alias.example", "mx.good.example"),
            ("two.alias.example", "two.alias.example"),
            ("three.alias.example", "three.alias.example"),  # it leads to a zone that is not signed
        ):
            found = hosts[name].tlsa
            self.assertEqual((found.state, found.base_name), (TLSAState.USABLE, base), name)
            self.assertEqual(found.names, (base, "alias.example"))

    async def test_a_domain_that_is_a_cname_is_known_by_both_names(self) -> None:
        hosts = await self.hosts("next.alias.example")
        self.assertEqual(hosts["mx.good.example"].tlsa.names, ("mx.good.example", "next.alias.example", "good.example"))

    async def test_records_that_smtp_does_not_know_are_told_from_none(self) -> None:
        hosts = await self.hosts("kinds.example")
        found = hosts["unusable.kinds.example"].tlsa
        self.assertEqual((found.state, found.records), (TLSAState.UNUSABLE, ()))
        self.assertIn("TLSA 1 1 1 0f0f", found.why)
        mixed = hosts["mixed.kinds.example"].tlsa
        self.assertEqual((mixed.state, [one.usage for one in mixed.records]), (TLSAState.USABLE, [2]))
        self.assertEqual(hosts["named.kinds.example"].tlsa.base_name, "named.kinds.example")

    async def test_a_look_up_that_fails_in_a_signed_zone_bars_this_host_and_no_other(self) -> None:
        hosts = await self.hosts("bad.example")
        for name in ("forged.bad.example", "lame.bad.example"):
            found = hosts[name].tlsa
            self.assertEqual((found.state, found.base_name), (TLSAState.FAILED, name))
            self.assertIn(f"_25._tcp.{name} TLSA", found.why)
        self.assertEqual(hosts["mx.good.example"].tlsa.state, TLSAState.USABLE)
        self.assertEqual(hosts["cut.bad.example"].tlsa.state, TLSAState.NONE, "a zone below that is not signed")
        self.assertLessEqual(self.found.ttl_seconds, 30, "it is asked again before the queue tries again")

    async def test_in_a_zone_that_is_not_signed_no_record_counts_and_none_is_asked_for(self) -> None:
        resolver = await self.resolver()
        for domain in ("plain.example", "borrowed.example"):
            found = await domain_hosts(domain, resolver=resolver)
            states = {host.tlsa.state for group in found.groups for host in group}
            self.assertEqual((found.is_authentic, states), (False, {TLSAState.NONE}))
            self.assertIn("MX answer is not secure", found.groups[0][0].tlsa.why)
        self.assertNotIn("TLSA", {kind for _, kind in resolver._cache._entries})

    async def test_a_forged_mx_answer_is_a_matter_of_later(self) -> None:
        error = await self.assertFailure(ensureDeferred(self.hosts("bogus.example")), Unroutable)
        self.assertIsInstance(error.outcome, Delayed)
        self.assertIn("SERVFAIL (DNS", error.outcome.note)

    async def test_without_mx_records_the_domain_itself_is_the_host(self) -> None:
        found = (await self.hosts("implicit.example"))["implicit.example"].tlsa
        self.assertEqual((found.state, found.names), (TLSAState.USABLE, ("implicit.example",)))

    async def test_many_records_come_by_tcp(self) -> None:
        self.assertEqual(len((await self.hosts("big.example"))["mx.big.example"].tlsa.records), 31)

    async def test_a_smarthost_has_records_at_its_own_port(self) -> None:
        resolver = await self.resolver()
        for name, port, state in (
            ("mx2.good.example", 587, TLSAState.USABLE),
            ("mx2.good.example", 25, TLSAState.NONE),
            ("mx.plain.example", 25, TLSAState.NONE),
        ):
            found = await named_hosts(name, resolver=resolver, port=port)
            self.assertEqual((found.groups[0][0].tlsa.state, found.is_authentic), (state, True), name)
        found = await named_hosts("one.alias.example", resolver=resolver)
        self.assertEqual(found.groups[0][0].tlsa.names, ("mx.good.example", "one.alias.example"))
        found = await named_hosts("good.example", resolver=resolver, look_up_mx=True)
        self.assertEqual(found.groups[0][0].tlsa.names, ("mx.good.example", "good.example"))

    async def test_a_resolver_that_is_not_believed_costs_no_question(self) -> None:
        for more in ({"trusted": False}, {"address": self.world.not_validating()}):
            resolver = await self.resolver(**more)  # type: ignore[arg-type]
            found = await domain_hosts("good.example", resolver=resolver)
            self.assertEqual((found.is_authentic, found.groups[0][0].tlsa.state), (False, TLSAState.NONE))
            self.assertEqual(resolver.counts.queries, 5, "MX, and A and AAAA of two hosts")


class Failing(FakeResolver):
    """Fails for one type of record."""

    def __init__(self, zones: dict[str, dict[str, list[str]]], kind: str, *, insecure: str = "") -> None:
        super().__init__(zones, authenticated=True)
        self.kind, self.insecure = kind, insecure

    async def query(self, name: str, record_type: str) -> Answer:  # type: ignore[override]
        if record_type == self.kind:
            raise LookupFailed(f"{record_type} of {name}")
        found = await super().query(name, record_type)
        if name == self.insecure and record_type != "CNAME":
            found = Answer(found.records, found.ttl_seconds, False, found.name_exists, found.canonical_name)
        return found


class Faults(SynchronousTestCase):
    def test_a_cname_into_a_zone_that_is_not_signed_which_cannot_be_looked_at_bars_the_host(self) -> None:
        zones = {"d.example": {"MX": ["10 a.d.example"]}, "a.d.example": {"CNAME": ["b.example"]}, "b.example": {"A": ["192.0.2.1"]}}
        resolver = Failing(zones, "CNAME", insecure="a.d.example")
        (group,) = self.successResultOf(domain_hosts("d.example", resolver=resolver)).groups
        self.assertEqual(group[0].tlsa.state, TLSAState.FAILED)

    def test_a_failure_is_remembered_for_a_shorter_time(self) -> None:
        now = [0.0]
        resolver = Failing({"d.example": {"MX": ["10 m.example"]}, "m.example": {"A": ["192.0.2.1"]}}, "TLSA")
        book = HostBook(look_up=lambda domain: domain_hosts(domain, resolver=resolver), seconds=lambda: now[0])
        find = lambda: self.successResultOf(book.find("d.example")) if not isinstance(found := book.find("d.example"), Hosts) else found  # noqa: E731
        self.assertEqual(find().groups[0][0].tlsa.state, TLSAState.FAILED)
        resolver.kind = ""
        now[0] = 31.0
        self.assertEqual(find().groups[0][0].tlsa.state, TLSAState.NONE)
