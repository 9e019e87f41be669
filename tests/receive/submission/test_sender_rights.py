"""Whom an account may send as."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from mailserver.mail.address import Address
from mailserver.mail.answers import Mailbox, Route
from mailserver.receive.submission.sender_rights import SenderRights
from mailserver.routing.router import LocalDomain, Pattern, Router

ACCOUNTS = {("alice", "example.org"), ("bob", "example.org"), ("jürgen", "example.org"), ("alice", "bücher.example")}
ALIASES = {
    "sales": [Address("alice", ""), Address("bob", "")],
    "outside": [Address("x", "elsewhere.example")],
    "nested": [Address("sales", "")],
}


class Directory:
    is_broken = False

    async def find(self, local_part: str, domain: str) -> Mailbox | None:
        if self.is_broken:
            raise OSError("no directory")
        domain = "bücher.example" if domain == "xn--bcher-kva.example" else domain
        return Mailbox(local_part, domain) if (local_part, domain) in ACCOUNTS else None


class Rights(TestCase):
    timeout = 10

    def setUp(self) -> None:
        self.clock = Clock()
        self.directory = Directory()
        domain = LocalDomain(aliases=ALIASES, catch_all=Address("bob", "example.org"), patterns=[Pattern("{user}.{folder}", "{user}", "{folder}")])
        self.router = Router(
            directory=self.directory, domains={"example.org": domain, "bücher.example": LocalDomain()}, hostname="mail.example.org"
        )
        self.grants: dict[str, Sequence[str]] = {}
        self.asked = 0

    async def route(self, address: Address) -> Sequence[Route]:
        self.asked += 1
        return await self.router.route(address)

    async def granted(self, account: str) -> Sequence[str]:
        return self.grants.get(account, ())

    async def test_who_keeps_and_forwards_shares_no_address_with_those_to_whom_it_goes(self) -> None:
        domain = LocalDomain(aliases={"bob": [Address("bob", "example.org"), Address("alice", "example.org")], "team": [Address("bob", "example.org")]})
        self.router = Router(directory=self.directory, domains={"example.org": domain}, hostname="mail.example.org")
        names = ("bob@example.org", "bob+x@example.org", "team@example.org")
        self.assertEqual(await self.allowed("bob@example.org", *names), list(names))
        self.assertEqual(await self.allowed("alice@example.org", *names), ["team@example.org"])

    def rights(self, *, aliases: bool = True, remembered: int = 10_000) -> SenderRights:
        return SenderRights(
            route=self.route, granted_senders=self.granted, clock=self.clock, aliases=aliases, remembered=remembered
        )

    async def allowed(self, account: str, *addresses: str, aliases: bool = True) -> list[str]:
        rights = self.rights(aliases=aliases)
        return [text for text in addresses if await rights.may_send_as(account, Address.parse(text, utf8=True))]

    async def test_the_own_address_is_own_however_it_is_written(self) -> None:
        own = ["alice@example.org", "ALICE@EXAMPLE.ORG", '"alice"@example.org']
        self.assertEqual(await self.allowed("alice@example.org", *own, "bob@example.org", "alice@elsewhere.example"), own)
        own = ["alice@bücher.example", "alice@xn--bcher-kva.example"]
        self.assertEqual(await self.allowed("alice@bücher.example", *own, "alice@example.org"), own)
        own = ["jürgen@example.org", "JÜRGEN@example.org", "ju\u0308rgen@example.org"]
        self.assertEqual(await self.allowed("jürgen@example.org", *own), own)

    async def test_subaddresses_and_patterns_are_own(self) -> None:
        own = ["alice+x@example.org", "Alice+a+b@example.org", "alice.lists@example.org"]
        others = ["bob+alice@example.org", "bob.alice@example.org", "alice+x@elsewhere.example"]
        self.assertEqual(await self.allowed("alice@example.org", *own, *others, aliases=False), own)

    async def test_aliases_that_lead_to_the_account_are_own_unless_switched_off(self) -> None:
        aliases = ["sales@example.org", "nested@example.org", "sales+x@example.org"]
        self.assertEqual(await self.allowed("alice@example.org", *aliases, "outside@example.org"), aliases)
        self.assertEqual(await self.allowed("jürgen@example.org", *aliases), [])
        self.assertEqual(await self.allowed("alice@example.org", *aliases, aliases=False), [])

    async def test_the_catch_all_user_owns_names_that_nobody_has(self) -> None:
        names = ["anything@example.org", "postmaster@example.org"]
        self.assertEqual(await self.allowed("bob@example.org", *names), ["anything@example.org"])
        self.assertEqual(await self.allowed("alice@example.org", "anything@example.org"), [])
        self.assertEqual(await self.allowed("bob@example.org", "anything@example.org", aliases=False), [])

    async def test_grants_are_addresses_and_domains(self) -> None:
        self.grants["alice@example.org"] = ["Boss@Bank.example", "@club.example", "@bücher.example", "nonsense", "@"]
        granted = ["boss@bank.example", "anyone@CLUB.example", "x@xn--bcher-kva.example"]
        refused = ["x@bank.example", "x@sub.club.example", "bob@example.org", "club.example@x.example"]
        self.assertEqual(await self.allowed("alice@example.org", *granted, *refused, aliases=False), granted)

    async def test_a_name_that_is_only_an_alias_owns_nothing_of_its_members(self) -> None:
        self.assertEqual(await self.allowed("sales@example.org", "alice@example.org", "bob@example.org"), [])
        self.assertEqual(await self.allowed("alice", "alice@example.org"), [], "not an address")
        self.assertEqual(await self.allowed("x@elsewhere.example", "outside@example.org"), [])

    async def test_an_impossible_domain_is_nobodys(self) -> None:
        self.assertFalse(await self.rights().may_send_as("alice@example.org", Address("alice", "\ufffd")))

    async def test_an_answer_is_remembered_for_seconds(self) -> None:
        rights, sales = self.rights(), Address("sales", "example.org")
        self.assertTrue(await rights.may_send_as("alice@example.org", sales))
        asked = self.asked
        self.assertTrue(await rights.may_send_as("alice@example.org", Address("SALES", "example.org")))
        self.assertFalse(await rights.may_send_as("jürgen@example.org", sales), "each account for itself")
        self.assertEqual(self.asked, asked + 2)
        self.clock.advance(10)
        self.assertTrue(await rights.may_send_as("alice@example.org", sales))
        self.assertEqual(self.asked, asked + 4)

    async def test_memory_is_bounded(self) -> None:
        rights = self.rights(remembered=5)
        for n in range(50):
            await rights.may_send_as("alice@example.org", Address(f"user{n}", "example.org"))
        self.assertEqual(len(rights._answers), 5)

    async def test_what_cannot_be_told_is_an_error_and_not_remembered(self) -> None:
        rights = self.rights()
        self.directory.is_broken = True
        for _ in range(2):
            with self.assertRaises(OSError):
                await rights.may_send_as("alice@example.org", Address("sales", "example.org"))
        self.directory.is_broken = False
        self.assertTrue(await rights.may_send_as("alice@example.org", Address("sales", "example.org")))
