"""The signed DNS of the tests is what it says."""

from __future__ import annotations

from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from mailserver.dns import NameServer, Resolver
from mailserver.mail.dns_records import MX, LookupFailed, ServerAddress
from tests.dnssec import Signing, Zone, shared

TLSA = "_25._tcp.mx TLSA 3 1 1 " + "0f" * 32
MAIL = ["@ MX 10 mx", "mx A 127.0.0.2", TLSA]


def zones() -> dict[str, Zone]:
    return {
        "secure.example": Zone([*MAIL, "alias CNAME mx", "away CNAME mx.plain.example.", "forged A 127.0.0.2"], forged=["forged"]),
        "plain.example": Zone(MAIL, signing=Signing.NONE),
        "bogus.example": Zone(MAIL, signing=Signing.BOGUS),
        "stripped.example": Zone(MAIL, signing=Signing.MISSING),
        "half.example": Zone(["@ MX 10 mx", "mx A 127.0.0.2"], signing=Signing.NONE),
        "_tcp.mx.half.example": Zone(signing=Signing.LAME),
    }


class World(TestCase):
    def setUp(self) -> None:
        self.world = shared(zones)

    async def resolver(self, address: str) -> Resolver:
        server = NameServer(ServerAddress.parse(address), trusted=True)
        resolver = Resolver(reactor=reactor, servers=[server], timeout_seconds=10.0)
        await resolver.start()
        self.addCleanup(resolver.stop)
        return resolver

    async def test_what_is_signed_is_authenticated_and_what_is_not_is_not(self) -> None:
        query = (await self.resolver(self.world.address)).query
        for name, kind, secure in (
            ("secure.example", "MX", True),
            ("mx.secure.example", "A", True),
            ("_25._tcp.mx.secure.example", "TLSA", True),
            ("alias.secure.example", "A", True),
            ("mx.secure.example", "AAAA", True),  # securely none
            ("nobody.secure.example", "A", True),
            ("away.secure.example", "A", False),
            ("away.secure.example", "CNAME", True),
            ("plain.example", "MX", False),
            ("_25._tcp.mx.plain.example", "TLSA", False),
        ):
            self.assertEqual((await query(name, kind)).authenticated, secure, (name, kind))
        self.assertEqual((await query("secure.example", "MX")).exchanges, (MX(10, "mx.secure.example"),))

    async def test_what_is_forged_fails_unless_nobody_validates(self) -> None:
        names = "mx.bogus.example", "mx.stripped.example", "forged.secure.example"
        query = (await self.resolver(self.world.address)).query
        for name in names:
            error = await self.assertFailure(query(name, "A"), LookupFailed)
            self.assertIn("SERVFAIL", str(error))
        query = (await self.resolver(self.world.not_validating())).query
        for name in names:
            found = await query(name, "A")
            self.assertEqual((found.records, found.authenticated), (("127.0.0.2",), False))

    async def test_what_nobody_serves_fails_beside_what_is_served(self) -> None:
        query = (await self.resolver(self.world.address)).query
        self.assertEqual((await query("mx.half.example", "A")).records, ("127.0.0.2",))
        await self.assertFailure(query("_25._tcp.mx.half.example", "TLSA"), LookupFailed)
