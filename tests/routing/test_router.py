"""Where recipients go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import directlyProvides, implementer
from zope.interface.verify import verifyObject

from mailserver.interfaces import CannotTell, IAccountList, IDirectory, IHostAccounts, IRouter
from mailserver.mail.address import Address
from mailserver.mail.answers import Local, Mailbox, Refused, Remote, Route
from mailserver.plugins.awaiting import now_or_later
from mailserver.routing.domains import SEPARATORS_TRIED
from mailserver.routing.router import LocalDomain, Pattern, Router, RoutingError

ACCOUNTS = ("alice@example.org", "bob@example.org", "first-last@example.org", "jürgen@example.org", "carol@other.example")


@implementer(IDirectory, IAccountList)
class Accounts:
    """A directory in memory that counts what it is asked."""

    def __init__(self, *names: str) -> None:
        self.names = names
        self.asked: list[str] = []
        self.mailboxes = {name: Mailbox(*name.rsplit("@", 1)) for name in names}

    async def find(self, local_part: str, domain: str) -> Mailbox | None:
        self.asked.append(f"{local_part}@{domain}")
        return self.mailboxes.get(f"{local_part}@{domain}")

    async def accounts(self) -> Sequence[str]:
        return self.names


def addresses(*texts: str) -> tuple[Address, ...]:
    return tuple(Address.parse(text, utf8=True) for text in texts)


def where(routes: Sequence[Route]) -> list[str]:
    """``alice``, ``alice/folder``, ``alice/folder?`` (if it exists), ``-> address``, ``no``."""
    found = []
    for route in routes:
        if isinstance(route, Local):
            box = route.mailbox
            folder = "".join([f"/{part}" for part in box.folder]) + ("?" if box.folder_must_exist else "")
            found.append(f"{box.user}@{box.domain}{folder}".replace("@example.org", ""))
        elif isinstance(route, Remote):
            found.append(f"-> {route.address}")
        else:
            found.append(f"no {route.reply.code} {route.reply.enhanced}")
    return found


class RouterCase(SynchronousTestCase):
    def router(
        self, domain: LocalDomain | None = None, *, accounts: Sequence[str] = ACCOUNTS, also: Mapping[str, LocalDomain] | None = None, **named: Any
    ) -> Router:
        self.directory = Accounts(*accounts)
        domains = {"example.org": domain or LocalDomain(), "other.example": LocalDomain(), **(also or {})}
        return Router(directory=self.directory, domains=domains, hostname="mx.example.org", **named)

    def faults(self, router: Router) -> list[str]:
        return self.successResultOf(Deferred.fromCoroutine(router.faults()))

    def route(self, router: Router, address: str | Address) -> list[str]:
        parsed = address if isinstance(address, Address) else Address.parse(address, utf8=True)
        routes = now_or_later(router.route(parsed))
        assert not isinstance(routes, Deferred), "a directory in memory costs no reactor turn"
        self.assertGreater(len(routes), 0)
        return where(routes)


class Names(RouterCase):
    def test_it_is_a_router(self) -> None:
        verifyObject(IRouter, self.router())

    def test_an_account_gets_its_mail_with_one_look_up(self) -> None:
        router = self.router()
        self.assertEqual(self.route(router, "alice@example.org"), ["alice"])
        self.assertEqual(self.directory.asked, ["alice@example.org"])

    def test_rfc_5321_2_4_case_makes_no_difference_here(self) -> None:
        self.assertEqual(self.route(self.router(), "Alice@EXAMPLE.org"), ["alice"])

    def test_rfc_6531_international_names_have_one_form(self) -> None:
        for text in ("JÜRGEN@example.org", "ju\u0308rgen@example.org"):
            self.assertEqual(self.route(self.router(), text), ["jürgen"])

    def test_an_unknown_name_is_refused_with_550_5_1_1(self) -> None:
        self.assertEqual(self.route(self.router(), "nobody@example.org"), ["no 550 5.1.1"])

    def test_another_domain_is_remote_with_the_address_as_it_came(self) -> None:
        routes = now_or_later(self.router().route(address := Address("X", "Far.Example")))
        self.assertEqual(routes, (Remote(address),))

    def test_an_account_of_a_domain_that_is_not_ours_gets_no_mail_here(self) -> None:
        router = self.router(accounts=(*ACCOUNTS, "bob@far.example"))
        self.assertEqual(self.route(router, "bob@far.example"), ["-> bob@far.example"])
        self.assertEqual(self.directory.asked, [])

    def test_what_leads_to_other_hosts_is_told_where_nothing_is_sent_there(self) -> None:
        router = self.router(LocalDomain(aliases={"all": addresses("alice@example.org", "bob@far.example")}))
        self.assertEqual(self.faults(router), [])
        [fault] = self.successResultOf(Deferred.fromCoroutine(router.faults(relays=False)))
        self.assertEqual(
            fault, 'alias all@example.org: bob@far.example is another host\'s, and nothing is sent there ([relay] use = "none")'
        )

    def test_a_percent_sign_and_a_bang_never_lead_elsewhere(self) -> None:
        for text in ("bob%far.example@example.org", "far.example!bob@example.org", '"bob@far.example"@example.org'):
            self.assertEqual(self.route(self.router(), text), ["no 550 5.1.1"])

    def test_a_directory_that_cannot_tell_is_an_error_and_no_refusal(self) -> None:
        router = self.router()

        async def broken(local_part: str, domain: str) -> None:
            raise OSError("no connection")

        self.patch(self.directory, "find", broken)
        with self.assertRaises(OSError):
            now_or_later(router.route(Address("alice", "example.org")))

    def test_where_the_accounts_are_the_hosts_users_each_domain_names_its_postmaster(self) -> None:
        said = "would go to whichever user of the host comes first"
        router = self.router()
        self.assertEqual([fault for fault in self.faults(router) if said in fault], [])
        directlyProvides(self.directory, IDirectory, IAccountList, IHostAccounts)
        found = [fault for fault in self.faults(router) if said in fault]
        self.assertEqual(len(found), 2)
        self.assertIn('domain "example.org": no `postmaster` is set', found[0])
        alice = Address("alice", "example.org")
        named = self.router(LocalDomain(postmaster=alice), also={"other.example": LocalDomain(aliases={"postmaster": (alice,)})})
        directlyProvides(self.directory, IDirectory, IAccountList, IHostAccounts)
        self.assertEqual([fault for fault in self.faults(named) if said in fault], [])


class Aliases(RouterCase):
    def aliases(self, **named: Any) -> LocalDomain:
        return LocalDomain(aliases={name: addresses(*members) for name, members in named.items()})

    def test_many_members_here_and_elsewhere_each_once(self) -> None:
        domain = self.aliases(
            sales=["alice@example.org", "bob@example.org", "x@far.example"], all=["sales@example.org", "alice@example.org", "x@far.example"]
        )
        self.assertEqual(self.route(self.router(domain), "all@example.org"), ["alice", "-> x@far.example", "bob"])

    def test_the_final_address_is_the_members(self) -> None:
        routes = now_or_later(self.router(self.aliases(sales=["bob@example.org"])).route(Address("sales", "example.org")))
        self.assertEqual(routes, (Local(Address("bob", "example.org"), Mailbox("bob", "example.org")),))

    def test_an_account_comes_before_an_alias_of_its_name(self) -> None:
        self.assertEqual(self.route(self.router(self.aliases(alice=["bob@example.org"])), "alice@example.org"), ["alice"])

    def test_case_makes_no_difference(self) -> None:
        self.assertEqual(self.route(self.router(self.aliases(Sales=["bob@example.org"])), "SALES@example.org"), ["bob"])

    def test_a_member_that_does_not_exist_does_not_hinder_the_others(self) -> None:
        domain = self.aliases(sales=["gone@example.org", "bob@example.org"], dead=["gone@example.org"])
        router = self.router(domain)
        self.assertEqual(self.route(router, "sales@example.org"), ["bob"])
        self.assertEqual(self.route(router, "dead@example.org"), ["no 550 5.1.1"])

    def test_a_loop_is_found_when_the_tables_are_loaded_and_named(self) -> None:
        domain = self.aliases(a=["bob@example.org", "b@example.org"], b=["C+tag@example.org"], c=["a@EXAMPLE.org"])
        error = self.assertRaises(RoutingError, self.router, domain)
        self.assertEqual(error.key, 'domain."example.org".aliases')
        self.assertEqual(error.message.count("→"), 3)
        for name in ("a@example.org", "b@example.org", "c@example.org"):
            self.assertIn(name, error.message)

    def test_an_alias_that_names_its_own_account_keeps_and_forwards(self) -> None:
        router = self.router(self.aliases(bob=["BOB@example.org", "alice@example.org", "x@far.example"]))
        self.assertEqual(sorted(self.route(router, "Bob@example.org")), ["-> x@far.example", "alice", "bob"])
        self.assertEqual(self.faults(router), [])
        routes, hops = self.successResultOf(Deferred.fromCoroutine(router.explain(Address("bob", "example.org"))))
        self.assertEqual(len(routes), 3)
        self.assertEqual(
            [(str(hop.address), hop.how) for hop in hops[:2]], [("bob@example.org", "alias"), ("bob@example.org", "account")]
        )

    def test_a_subaddress_of_such_a_name_keeps_its_copy_in_the_folder(self) -> None:
        router = self.router(self.aliases(bob=["bob@example.org", "alice@example.org"]))
        self.assertEqual(sorted(self.route(router, "bob+lists@example.org")), ["alice", "bob/lists?"])

    def test_an_alias_that_such_a_name_is_a_member_of_leads_to_all_of_them(self) -> None:
        router = self.router(self.aliases(all=["bob@example.org"], bob=["bob@example.org", "alice@example.org"]))
        self.assertEqual(sorted(self.route(router, "all@example.org")), ["alice", "bob"])

    def test_an_alias_that_names_itself_where_no_account_is_forwards_and_is_told(self) -> None:
        router = self.router(self.aliases(sales=["sales@example.org", "alice@example.org"]))
        self.assertEqual(self.route(router, "sales@example.org"), ["alice"])
        [fault] = self.faults(router)
        self.assertEqual(fault, "alias sales@example.org: it names itself, and there is no account of this name")
        only_itself = self.router(self.aliases(sales=["sales@example.org"]))
        self.assertEqual(self.route(only_itself, "sales@example.org"), ["no 550 5.1.1"])

    def test_an_alias_that_leads_to_itself_by_a_tag_is_a_loop(self) -> None:
        error = self.assertRaises(RoutingError, self.router, self.aliases(a=["a+x@example.org"]))
        self.assertEqual(error.message, "a@example.org leads back to itself: a@example.org → a@example.org")

    def test_a_loop_over_two_domains_is_found(self) -> None:
        other = {"other.example": self.aliases(b=["a@example.org"])}
        error = self.assertRaises(RoutingError, self.router, self.aliases(a=["b@other.example"]), also=other)
        first, rest = error.message.split(" leads back to itself: ")
        self.assertEqual(rest.split(" → ")[:: len(rest.split(" → ")) - 1], [first, first])

    def test_a_loop_through_the_catch_all_ends(self) -> None:
        domain = LocalDomain(aliases={"a": addresses("gone@example.org")}, catch_all=Address("a", "example.org"))
        self.assertEqual(self.route(self.router(domain), "x@example.org"), ["no 550 5.1.1"])

    def test_a_long_chain_is_followed(self) -> None:
        chain = {f"a{n}": [f"a{n + 1}@example.org"] for n in range(5000)} | {"a5000": ["bob@example.org"]}
        self.assertEqual(self.route(self.router(self.aliases(**chain)), "a0@example.org"), ["bob"])

    def test_an_alias_that_explodes_is_refused_when_it_is_loaded(self) -> None:
        tables = {"top": ["left@example.org", "right@example.org"]}
        tables |= {side: [f"{side}{n}@far.example" for n in range(60)] for side in ("left", "right")}
        self.router(self.aliases(**tables), expansion_limit=120)
        error = self.assertRaises(RoutingError, self.router, self.aliases(**tables), expansion_limit=119)
        self.assertIn("top@example.org leads to more than 119 addresses", error.message)

    def test_tables_that_cannot_be_meant_are_refused(self) -> None:
        self.assertRaises(RoutingError, self.router, self.aliases(a=[]))
        self.assertRaises(RoutingError, self.router, self.aliases(a=["x@far.example"], A=["y@far.example"]))
        self.assertRaises(RoutingError, self.router, LocalDomain(aliases={"a@example.org": addresses("x@far.example")}))


class Subaddresses(RouterCase):
    def test_a_tag_names_a_folder_that_must_exist(self) -> None:
        router = self.router()
        self.assertEqual(self.route(router, "alice+lists.python@example.org"), ["alice/lists/python?"])
        self.assertEqual(self.route(router, "alice+@example.org"), ["alice"])
        self.assertEqual(self.route(router, "nobody+x@example.org"), ["no 550 5.1.1"])

    def test_the_longest_user_wins(self) -> None:
        router = self.router(LocalDomain(subaddress="-+"))
        self.assertEqual(self.route(router, "first-last-x@example.org"), ["first-last/x?"])
        self.assertEqual(self.route(router, "alice-x+y@example.org"), ["alice/x+y?"])

    def test_it_can_be_switched_off(self) -> None:
        self.assertEqual(self.route(self.router(LocalDomain(subaddress="")), "alice+x@example.org"), ["no 550 5.1.1"])

    def test_an_alias_takes_a_tag_and_its_members_their_inboxes(self) -> None:
        domain = LocalDomain(aliases={"sales": addresses("bob@example.org")})
        self.assertEqual(self.route(self.router(domain), "sales+x@example.org"), ["bob"])

    def test_many_separators_cost_a_few_look_ups_only(self) -> None:
        router = self.router()
        self.assertEqual(self.route(router, "alice" + "+a" * 28 + "@example.org"), ["alice/" + "+".join("a" * 28) + "?"])
        self.route(router, "x" + "+a" * 28 + "@example.org")
        self.assertLessEqual(len(self.directory.asked), 2 * (SEPARATORS_TRIED + 2))


class Patterns(RouterCase):
    def test_a_rule_for_the_local_part(self) -> None:
        domain = LocalDomain(patterns=[Pattern("{user}.{tag}", folder="{tag}"), Pattern("box-{user}", folder="Box")])
        router = self.router(domain)
        self.assertEqual(self.route(router, "alice.news@example.org"), ["alice/news?"])
        self.assertEqual(self.route(router, "Box-BOB@example.org"), ["bob/Box"])
        self.assertEqual(self.route(router, "gone.news@example.org"), ["no 550 5.1.1"])

    def test_a_rule_for_every_users_own_domain(self) -> None:
        also = {"*.example.org": LocalDomain(patterns=[Pattern("{tag}@{user}.example.org", folder="{tag}")])}
        router = self.router(also=also)
        self.assertEqual(self.route(router, "shop@alice.Example.ORG"), ["alice/shop?"])
        self.assertEqual(self.route(router, "shop@gone.example.org"), ["no 550 5.1.1"])
        self.assertEqual(self.route(router, "shop@a.b.example.org"), ["no 550 5.1.1"])
        self.assertEqual(self.route(router, "shop@example.com"), ["-> shop@example.com"])

    def test_a_rule_can_lead_into_another_domain_of_ours(self) -> None:
        also = {"old.example": LocalDomain(patterns=[Pattern("{user}", user="{user}@example.org")])}
        self.assertEqual(self.route(self.router(also=also), "alice@old.example"), ["alice"])

    def test_a_rule_never_leads_to_another_host(self) -> None:
        domain = LocalDomain(patterns=[Pattern("{user}%{host}", user="{user}@{host}")])
        router = self.router(domain)
        self.assertEqual(self.route(router, "x%far.example@example.org"), ["no 550 5.1.1"])
        self.assertEqual(self.route(router, "carol%other.example@example.org"), ["carol@other.example"])

    def test_a_rule_whose_users_live_nowhere_is_refused_when_it_is_loaded(self) -> None:
        for key, pattern in (("*.nowhere.example", Pattern("{user}")), ("a.example", Pattern("{user}", "{user}@b.example"))):
            error = self.assertRaises(RoutingError, self.router, also={key: LocalDomain(patterns=[pattern])})
            self.assertEqual(error.key, f'domain."{key}".pattern[0]')


class SameAs(RouterCase):
    """A domain that has the names of another one."""

    SAME = LocalDomain(same_as="example.org")

    def second(self, domain: LocalDomain | None = None, **named: Any) -> Router:
        also = {"second.example": self.SAME, "*.second.example": self.SAME}
        return self.router(domain, also=also, **named)

    def test_every_name_of_the_other_domain_holds(self) -> None:
        domain = LocalDomain(
            aliases={"team": addresses("alice@example.org", "far@elsewhere.example")},
            patterns=[Pattern("{tag}_{user}@example.org", folder="{tag}")],
            postmaster=Address("bob", "example.org"),
        )
        router = self.second(domain)
        for name, expected in {
            "alice": ["alice"],
            "ALICE": ["alice"],
            "alice+lists": ["alice/lists?"],
            "team": ["alice", "-> far@elsewhere.example"],
            "team+x": ["alice", "-> far@elsewhere.example"],
            "news_bob": ["bob/news?"],
            "postmaster": ["bob"],
            "nobody": ["no 550 5.1.1"],
        }.items():
            for place in ("example.org", "second.example", "SECOND.example", "below.second.example"):
                self.assertEqual(self.route(router, f"{name}@{place}"), expected, f"{name}@{place}")

    def test_the_other_domains_catch_all_holds(self) -> None:
        router = self.second(LocalDomain(catch_all=Address("bob", "example.org")))
        self.assertEqual(self.route(router, "nobody@second.example"), ["bob"])

    def test_one_mailbox_has_one_copy_by_both_names(self) -> None:
        router = self.second(LocalDomain(aliases={"both": addresses("alice@example.org", "alice@second.example")}))
        self.assertEqual(self.route(router, "both@second.example"), ["alice"])

    def test_an_alias_that_names_itself_by_the_second_name_keeps_and_forwards(self) -> None:
        router = self.second(LocalDomain(aliases={"bob": addresses("bob@second.example", "alice@example.org")}))
        for place in ("example.org", "second.example"):
            self.assertEqual(self.route(router, f"bob@{place}"), ["bob", "alice"])

    def test_a_loop_by_the_second_name_is_found(self) -> None:
        aliases = {"a": addresses("b@second.example"), "b": addresses("a@second.example")}
        error = self.assertRaises(RoutingError, self.second, LocalDomain(aliases=aliases))
        self.assertIn("leads back to itself", str(error))

    def test_a_rule_finds_users_by_the_second_name(self) -> None:
        router = self.second(LocalDomain(patterns=[Pattern("x-{user}", "{user}@second.example")]))
        self.assertEqual(self.route(router, "x-alice@example.org"), ["alice"])

    def test_an_account_of_its_own_gets_no_mail_and_that_is_told(self) -> None:
        router = self.second(accounts=(*ACCOUNTS, "eve@second.example"))
        self.assertEqual(self.route(router, "eve@second.example"), ["no 550 5.1.1"])
        self.assertEqual(
            self.faults(router), ["account eve@second.example: it gets no mail, as second.example is the same as example.org"]
        )

    def test_one_that_leads_nowhere_or_to_another_such_is_refused_when_it_is_loaded(self) -> None:
        for other in ("gone.example", "second.example", "third.example"):
            also = {"second.example": LocalDomain(same_as=other), "third.example": self.SAME}
            error = self.assertRaises(RoutingError, self.router, also=also)
            self.assertEqual(error.key, 'domain."second.example".same_as')


class Disabled(RouterCase):
    """A domain, or an alias, that takes no mail for now."""

    def test_a_disabled_domain_refuses_all_but_the_roles(self) -> None:
        domain = LocalDomain(aliases={"team": addresses("alice@example.org")}, catch_all=Address("alice", "example.org"), disabled=True)
        router = self.router(domain, also={"second.example": LocalDomain(same_as="example.org")}, postmaster=Address("carol", "other.example"))
        for name in ("alice", "team", "alice+x", "nobody"):
            for place in ("example.org", "second.example"):
                self.assertEqual(self.route(router, f"{name}@{place}"), ["no 550 5.2.1"], name)
        self.assertEqual(self.route(router, "postmaster@example.org"), ["carol@other.example"])
        self.assertEqual(self.route(router, "carol@other.example"), ["carol@other.example"], "the others go on")

    def test_a_second_name_is_disabled_alone(self) -> None:
        router = self.router(also={"second.example": LocalDomain(same_as="example.org", disabled=True)})
        self.assertEqual(self.route(router, "alice@second.example"), ["no 550 5.2.1"])
        self.assertEqual(self.route(router, "alice@example.org"), ["alice"])

    def test_a_disabled_alias_is_refused_and_no_catch_alls(self) -> None:
        aliases = {"team": addresses("alice@example.org", "bob@example.org"), "all": addresses("team@example.org", "bob@example.org")}
        domain = LocalDomain(aliases=aliases, catch_all=Address("alice", "example.org"), disabled_aliases=("TEAM",))
        router = self.router(domain)
        for name in ("team", "Team+x"):
            self.assertEqual(self.route(router, f"{name}@example.org"), ["no 550 5.2.1"])
        self.assertEqual(self.route(router, "all@example.org"), ["bob"], "the other members have it")
        [_, hop] = now_or_later(router.explain(Address("team", "example.org")))  # type: ignore[misc]
        self.assertEqual(hop[0].how, "disabled")

    def test_an_account_whose_forwarding_is_disabled_has_its_mail(self) -> None:
        domain = LocalDomain(aliases={"alice": addresses("alice@example.org", "bob@example.org")}, disabled_aliases=("alice",))
        self.assertEqual(self.route(self.router(domain), "alice@example.org"), ["alice"])


class CatchAll(RouterCase):
    def test_it_takes_what_nobody_else_takes(self) -> None:
        domain = LocalDomain(catch_all=Address("alice", "example.org"), aliases={"sales": addresses("bob@example.org")})
        router = self.router(domain)
        self.assertEqual(self.route(router, "anything@example.org"), ["alice"])
        self.assertEqual(self.route(router, "x%far.example@example.org"), ["alice"])
        self.assertEqual(self.route(router, "sales@example.org"), ["bob"])

    def test_one_that_does_not_exist_refuses(self) -> None:
        domain = LocalDomain(catch_all=Address("gone", "example.org"))
        self.assertEqual(self.route(self.router(domain), "anything@example.org"), ["no 550 5.1.1"])


class Roles(RouterCase):
    """RFC 5321 section 4.5.1: mail for postmaster is always taken; RFC 2142: abuse."""

    BOB = Address("bob", "example.org")

    def test_rfc_5321_4_5_1_postmaster_without_a_domain_in_any_case(self) -> None:
        for postmaster in ("postmaster", "PostMaster"):
            self.assertEqual(self.route(self.router(postmaster=self.BOB), Address(postmaster, "")), ["bob"])

    def test_every_domain_of_ours_has_both(self) -> None:
        router = self.router(postmaster=self.BOB, also={"*.example.org": LocalDomain()})
        for domain in ("example.org", "other.example", "x.example.org", "mx.example.org"):
            for role in ("postmaster", "abuse"):
                self.assertEqual(self.route(router, f"{role}@{domain}"), ["bob"])

    def test_an_alias_an_account_and_the_domains_own_come_first(self) -> None:
        domain = LocalDomain(aliases={"abuse": addresses("alice@example.org")}, postmaster=Address("carol", "other.example"))
        router = self.router(domain, postmaster=self.BOB)
        self.assertEqual(self.route(router, "abuse@example.org"), ["alice"])
        for of_the_first in ("postmaster@example.org", "postmaster@mx.example.org", Address("postmaster", "")):
            self.assertEqual(self.route(router, of_the_first), ["carol@other.example"])
        own = self.router(accounts=("postmaster@example.org",), postmaster=self.BOB)
        self.assertEqual(self.route(own, "postmaster@example.org"), ["postmaster"])

    def test_it_comes_before_the_catch_all(self) -> None:
        router = self.router(LocalDomain(catch_all=Address("alice", "example.org")), postmaster=self.BOB)
        self.assertEqual(self.route(router, "abuse@example.org"), ["bob"])

    def test_without_a_configured_one_the_first_account_gets_it(self) -> None:
        router = self.router()
        for text in ("postmaster@example.org", "abuse@other.example"):
            self.assertEqual(self.route(router, text), ["alice"])
        self.assertEqual(self.route(router, Address("postmaster", "")), ["alice"])

    def test_one_that_is_gone_is_replaced_by_the_first_account(self) -> None:
        router = self.router(postmaster=Address("gone", "example.org"))
        self.assertEqual(self.route(router, "postmaster@example.org"), ["alice"])

    def test_our_own_name_has_no_other_users(self) -> None:
        self.assertEqual(self.route(self.router(), "alice@mx.example.org"), ["no 550 5.1.1"])

    def test_rfc_5321_4_1_3_our_address_literal_has_the_roles_alone(self) -> None:
        router = self.router(postmaster=self.BOB, own_addresses=["192.0.2.25", "2001:db8::25"])
        self.assertEqual(self.route(router, "postmaster@[192.0.2.25]"), ["bob"])
        self.assertEqual(self.route(router, "postmaster@[IPv6:2001:DB8:0::25]"), ["bob"])
        self.assertEqual(self.route(router, "alice@[192.0.2.25]"), ["no 550 5.1.1"])
        self.assertEqual(self.route(router, "postmaster@[192.0.2.26]"), ["-> postmaster@[192.0.2.26]"])

    def test_where_our_addresses_are_not_known_every_literal_has_a_postmaster(self) -> None:
        router = self.router(postmaster=self.BOB)
        self.assertEqual(self.route(router, "postmaster@[192.0.2.25]"), ["bob"])
        self.assertEqual(self.route(router, "alice@[192.0.2.25]"), ["-> alice@[192.0.2.25]"])


class Checks(RouterCase):
    def test_nothing_to_say_of_good_tables(self) -> None:
        self.assertEqual(self.faults(self.router(LocalDomain(aliases={"sales": addresses("bob@example.org")}))), [])

    def test_dead_members_shadowed_aliases_and_a_missing_postmaster_are_said(self) -> None:
        domain = LocalDomain(aliases={"sales": addresses("gone@example.org"), "bob": addresses("alice@example.org")})
        found = self.faults(self.router(domain))
        self.assertEqual(len(found), 2)
        self.assertIn("gone@example.org", found[0])
        self.assertIn("the alias is without effect", found[1])
        self.assertIn("postmaster", self.faults(self.router(accounts=()))[0])

    def test_a_rule_for_one_user_who_is_gone_is_said(self) -> None:
        rules = [Pattern("news-{tag}", "gone"), Pattern("box-{tag}", "bob"), Pattern("o-{tag}", "carol@other.example"), Pattern("{user}.{tag}")]
        [found] = self.faults(self.router(LocalDomain(patterns=rules)))
        self.assertTrue(found.startswith("domain \"example.org\": pattern 'news-{tag}'"), found)
        self.assertIn("gone@example.org", found)


locals_ = st.text("abc+.-%@!/ ", min_size=1, max_size=8) | st.sampled_from(["alice", "sales", "postmaster", "abuse", "../x"])
hosts = st.sampled_from(["example.org", "other.example", "alice.example.org", "far.example", "[192.0.2.1]", "mx.example.org", ""])


class Always(RouterCase):
    @settings(max_examples=300)
    @given(locals_, hosts)
    def test_a_local_route_is_one_of_the_directorys_and_a_remote_one_was_asked_for(self, local: str, domain: str) -> None:
        tables = LocalDomain(
            aliases={"sales": addresses("alice@example.org", "x@far.example"), "ab": addresses("sales+c@example.org")},
            subaddress="+-",
            patterns=[Pattern("{user}.{tag}", folder="{tag}"), Pattern("{tag}%{user}", user="{user}")],
        )
        also = {"*.example.org": LocalDomain(patterns=[Pattern("{tag}@{user}.example.org", folder="{tag}")])}
        router = self.router(tables, also=also, postmaster=Address("bob", "example.org"))
        address = Address(local, domain)
        routes = now_or_later(router.route(address))
        assert not isinstance(routes, Deferred)
        self.assertTrue(routes)
        for route in routes:
            if isinstance(route, Local):
                known = self.directory.mailboxes[f"{route.mailbox.user}@{route.mailbox.domain}"]
                self.assertEqual((route.mailbox.user, route.mailbox.domain), (known.user, known.domain))
            elif isinstance(route, Remote):
                self.assertIn(str(route.address), {"x@far.example", str(address)})
                if route.address == address:
                    self.assertIn(domain, ("far.example", "[192.0.2.1]"))
            else:
                self.assertIsInstance(route, Refused)


class Explaining(RouterCase):
    def steps(self, router: Router, address: str) -> list[tuple[str, str]]:
        explained = now_or_later(router.explain(Address.parse(address, utf8=True)))
        assert not isinstance(explained, Deferred), "a directory in memory costs no reactor turn"
        routes, hops = explained
        self.assertEqual(where(routes), self.route(router, address), "the explanation is of what happens")
        return [(str(hop.address), hop.how) for hop in hops]

    def test_each_step_says_what_the_address_is(self) -> None:
        router = self.router(
            LocalDomain(
                aliases={"team": addresses("alice@example.org", "far@elsewhere.example")},
                catch_all=Address("bob", "example.org"),
                patterns=[Pattern("box-{user}", folder="Box")],
            )
        )
        self.assertEqual(self.steps(router, "alice@example.org"), [("alice@example.org", "account")])
        self.assertEqual(
            self.steps(router, "team@example.org"),
            [("team@example.org", "alias"), ("alice@example.org", "account"), ("far@elsewhere.example", "elsewhere")],
        )
        self.assertEqual(self.steps(router, "alice+x@example.org"), [("alice+x@example.org", "subaddress")])
        self.assertEqual(self.steps(router, "box-alice@example.org"), [("box-alice@example.org", "pattern")])
        self.assertEqual(
            self.steps(router, "who@example.org"), [("who@example.org", "catch-all"), ("bob@example.org", "account")]
        )
        self.assertEqual(self.steps(router, "who@other.example"), [("who@other.example", "nobody")])
        self.assertEqual(self.steps(router, "who@mx.example.org"), [("who@mx.example.org", "own name")])
        second = self.router(also={"second.example": LocalDomain(same_as="example.org")})
        self.assertEqual(
            self.steps(second, "alice+x@second.example"),
            [("alice+x@second.example", "same domain"), ("alice+x@example.org", "subaddress")],
        )
        self.assertEqual(self.steps(router, "postmaster@other.example")[0], ("postmaster@other.example", "role"))


class Time(RouterCase):
    def test_one_bound_holds_for_all_that_an_address_needs(self) -> None:
        clock = Clock()
        members = addresses("a@example.org", "b@example.org", "c@example.org")
        router = self.router(LocalDomain(aliases={"team": members}), accounts=("a@example.org",), clock=clock, seconds=5.0)
        answers: list[Deferred[None]] = []

        def find(local_part: str, domain: str) -> Deferred[None]:
            if local_part == "team":
                return succeed(None)
            answers.append(Deferred())
            return answers[-1]

        self.patch(self.directory, "find", find)
        routed = Deferred.fromCoroutine(router.route(Address("team", "example.org")))
        for _ in range(2):
            clock.advance(2.4)
            answers[-1].callback(None)
            self.assertNoResult(routed)
        clock.advance(0.3)
        self.assertIn("no route was found within 5 seconds", self.failureResultOf(routed, CannotTell).getErrorMessage())
        self.assertEqual(clock.getDelayedCalls(), [])
        explained = Deferred.fromCoroutine(router.explain(Address("team", "example.org")))
        clock.advance(5)
        self.failureResultOf(explained, CannotTell)
