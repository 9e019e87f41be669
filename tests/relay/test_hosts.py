"""Where mail for a domain goes (RFC 5321 section 5.1)."""

import random

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailserver.mail.answers import Delayed, Failed
from mailserver.mail.dns_records import LookupFailed
from mailserver.relay.hosts import Host, HostBook, Hosts, Unroutable, domain_hosts, literal_address, named_hosts
from mailserver.testing import FakeResolver

A = {"A": ["192.0.2.1"]}


class Case(SynchronousTestCase):
    def found(self, awaitable):
        return self.successResultOf(Deferred.fromCoroutine(awaitable))

    def hosts(self, zones, domain="example.org", **more):
        resolver = FakeResolver(zones, failing=more.pop("failing", ()))
        return self.found(domain_hosts(domain, resolver=resolver, **more))

    def outcome(self, zones, domain="example.org", **more):
        resolver = FakeResolver(zones, failing=more.pop("failing", ()))
        asked = Deferred.fromCoroutine(domain_hosts(domain, resolver=resolver, **more))
        return self.failureResultOf(asked, Unroutable).value.outcome

    def names(self, hosts):
        return [[host.name for host in group] for group in hosts.groups]


class MailExchangers(Case):
    def test_they_come_by_preference_in_groups_of_equals(self):
        hosts = self.hosts(
            {
                "example.org": {"MX": ["20 late.example", "10 b.example", "10 a.example"]},
                "a.example": A,
                "b.example": A,
                "late.example": A,
            }
        )
        self.assertEqual(self.names(hosts), [["a.example", "b.example"], ["late.example"]])

    def test_equals_are_tried_in_random_order_and_the_worse_always_after_them(self):
        group = tuple(Host(name, ("192.0.2.1",)) for name in "abc")
        hosts = Hosts((group, (Host("late", ("192.0.2.2",)),)))
        chance = random.Random(7)
        orders = [[host.name for host in hosts.in_order(chance)] for _ in range(300)]
        self.assertEqual({order[3] for order in orders}, {"late"})
        for name in "abc":
            self.assertGreater(sum(order[0] == name for order in orders), 60)
        two = Hosts((group[:2],))
        self.assertEqual({two.in_order(chance)[0].name for _ in range(300)}, {"a", "b"})

    def test_a_host_with_several_addresses_has_them_all_ipv4_first(self):
        zones = {
            "example.org": {"MX": ["10 a.example"]},
            "a.example": {"AAAA": ["2001:db8::1"], "A": ["192.0.2.1", "192.0.2.2"]},
        }
        ((host,),) = self.hosts(zones).groups
        self.assertEqual((host.name, host.addresses), ("a.example", ("192.0.2.1", "192.0.2.2", "2001:db8::1")))

    def test_one_that_has_no_address_is_left_out(self):
        zones = {"example.org": {"MX": ["10 nowhere.example", "20 a.example"]}, "a.example": A}
        self.assertEqual(self.names(self.hosts(zones)), [["a.example"]])

    def test_one_whose_look_up_fails_is_left_out_while_there_is_another(self):
        zones = {"example.org": {"MX": ["10 b.example", "20 a.example"]}, "a.example": A}
        self.assertEqual(self.names(self.hosts(zones, failing=["b.example"])), [["a.example"]])

    def test_their_number_is_bounded(self):
        zones = {f"mx{n}.example": {"A": [f"192.0.2.{n}", *(f"198.51.100.{m}" for m in range(50))]} for n in range(99)}
        zones["example.org"] = {"MX": [f"{n} mx{n}.example" for n in range(99)]}
        hosts = self.hosts(zones)
        self.assertEqual((len(hosts.groups), len(hosts.groups[0][0].addresses)), (10, 8))

    def test_without_any_the_domains_own_address_is_used(self):
        self.assertEqual(self.names(self.hosts({"example.org": A})), [["example.org"]])


class NoWay(Case):
    def test_a_null_mx_fails_with_5_1_10(self):
        """RFC 7505 section 4.2"""
        outcome = self.outcome({"example.org": {"MX": ["0 ."], "A": ["192.0.2.1"]}})
        self.assertEqual((type(outcome), outcome.reply.code, outcome.reply.enhanced), (Failed, 556, "5.1.10"))

    def test_a_domain_that_does_not_exist_fails_with_5_1_2(self):
        outcome = self.outcome({})
        self.assertEqual((type(outcome), outcome.reply.enhanced), (Failed, "5.1.2"))

    def test_a_domain_without_any_address_fails(self):
        self.assertEqual(self.outcome({"example.org": {"TXT": ["x"]}}).reply.enhanced, "5.4.4")
        self.assertEqual(self.outcome({"example.org": {"MX": ["10 nowhere.example"]}}).reply.enhanced, "5.4.4")

    def test_a_name_server_that_does_not_answer_defers_with_4_4_3_and_never_fails(self):
        for zones, failing in (
            ({}, "example.org"),
            ({"example.org": {"MX": ["10 a.example", "20 nowhere.example"]}}, "a.example"),
        ):
            outcome = self.outcome(zones, failing=[failing])
            self.assertEqual((type(outcome), outcome.reply.enhanced), (Delayed, "4.4.3"))
            self.assertIn(failing, outcome.note)


class OurselvesAmongThem(Case):
    ZONES = {
        "example.org": {"MX": ["10 best.example", "20 us.example", "20 peer.example", "30 worse.example"]},
        **{f"{name}.example": A for name in ("best", "us", "peer", "worse")},
    }

    def test_our_name_and_all_of_the_same_or_a_worse_preference_are_left_out(self):
        self.assertEqual(self.names(self.hosts(self.ZONES, own_names={"us.example"})), [["best.example"]])

    def test_where_we_are_the_best_it_is_a_loop(self):
        outcome = self.outcome(self.ZONES, own_names={"best.example"})
        self.assertEqual((type(outcome), outcome.reply.enhanced), (Failed, "5.4.6"))

    def test_where_we_are_the_domain_without_a_mail_exchanger_it_is_a_loop(self):
        self.assertEqual(self.outcome({"example.org": A}, own_names={"example.org"}).reply.enhanced, "5.4.6")


class Literals(Case):
    def test_an_address_literal_is_that_address_and_asks_nobody(self):
        """RFC 5321 section 4.1.3"""
        for domain, address in (("[192.0.2.9]", "192.0.2.9"), ("[ipv6:2001:db8::9]", "2001:db8::9")):
            ((host,),) = self.hosts({}, domain).groups
            self.assertEqual(host.addresses, (address,))

    def test_a_literal_of_another_kind_fails(self):
        self.assertEqual(self.outcome({}, "[x400:abc]").reply.enhanced, "5.1.3")

    def test_what_is_no_literal_is_none(self):
        for text in ("192.0.2.1", "[192.0.2.1", "[::1]", "[ipv6:192.0.2.1]", "[]"):
            self.assertIsNone(literal_address(text), text)


class Smarthosts(Case):
    def test_a_number_with_or_without_brackets_needs_no_resolver(self):
        for name in ("127.0.0.1", "[127.0.0.1]"):
            ((host,),) = self.found(named_hosts(name, resolver=None)).groups
            self.assertEqual(host.addresses, ("127.0.0.1",))

    def test_a_name_is_looked_up_for_addresses_and_not_for_mx(self):
        resolver = FakeResolver({"smart.example": {**A, "MX": ["10 other.example"]}, "other.example": A})
        self.assertEqual(self.names(self.found(named_hosts("smart.example", resolver=resolver))), [["smart.example"]])
        self.assertNotIn(("smart.example", "MX"), resolver.asked)
        with_mx = self.found(named_hosts("smart.example", resolver=resolver, look_up_mx=True))
        self.assertEqual(self.names(with_mx), [["other.example"]])

    def test_a_smarthost_that_is_not_in_the_dns_defers(self):
        """It is our own configuration that is wrong, not the recipient."""
        asked = Deferred.fromCoroutine(named_hosts("smart.example", resolver=FakeResolver({})))
        self.assertIsInstance(self.failureResultOf(asked, Unroutable).value.outcome, Delayed)


class Remembering(Case):
    def setUp(self):
        self.clock = Clock()
        self.asked = []
        self.answer = Hosts(((Host("a", ("192.0.2.1",)),),), 100)
        self.book = HostBook(look_up=self.look_up, seconds=self.clock.seconds)

    async def look_up(self, domain):
        self.asked.append(domain)
        if isinstance(self.answer, Deferred):
            return await self.answer
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def test_a_known_domain_costs_no_look_up_until_its_time_to_live_is_over(self):
        for seconds in (0, 99):
            self.clock.advance(seconds)
            self.assertIs(self.book.find("example.org"), self.answer)
        self.assertEqual(self.asked, ["example.org"])
        self.clock.advance(1)
        self.book.find("example.org")
        self.assertEqual(len(self.asked), 2)

    def test_all_who_ask_at_once_share_one_look_up(self):
        self.answer = Deferred()
        waiting = [self.book.find("example.org") for _ in range(5)]
        hosts = Hosts(((Host("a", ("192.0.2.1",)),),), 100)
        self.answer.callback(hosts)
        self.assertEqual([self.successResultOf(one) for one in waiting], [hosts] * 5)
        self.assertEqual(len(self.asked), 1)

    def test_a_cancelled_question_does_not_hurt_the_others(self):
        self.answer = Deferred()
        one, two = self.book.find("example.org"), self.book.find("example.org")
        one.addErrback(lambda _: None)
        one.cancel()
        self.answer.callback(Hosts(()))
        self.assertEqual(self.successResultOf(two), Hosts(()))

    def test_a_fault_is_remembered_for_half_a_minute(self):
        self.answer = Unroutable(Delayed(None))
        for _ in range(3):
            self.assertIs(self.book.find("example.org"), self.answer.outcome)
        self.assertEqual(len(self.asked), 1)
        self.clock.advance(30)
        self.book.find("example.org")
        self.assertEqual(len(self.asked), 2)

    def test_what_is_forgiven_is_asked_again_and_what_is_known_stays(self):
        self.book.find("example.org")
        self.answer = Unroutable(Delayed(None))
        self.book.find("example.net")
        self.answer = Deferred()
        waiting = self.book.find("example.com")
        self.book.forgive()
        self.answer.callback(Hosts(()))
        self.assertEqual(self.successResultOf(waiting), Hosts(()))
        self.answer = Hosts(((Host("b", ("192.0.2.2",)),),), 100)
        self.assertIs(self.book.find("example.net"), self.answer)
        self.book.find("example.org")
        self.assertEqual(self.asked, ["example.org", "example.net", "example.com", "example.net"])

    def test_any_other_error_means_that_we_cannot_tell(self):
        for error in (LookupFailed("x"), ZeroDivisionError()):
            self.answer = error
            outcome = self.book.find(repr(error))
            self.assertEqual((type(outcome), outcome.reply.enhanced), (Delayed, "4.4.3"))

    def test_what_it_remembers_is_bounded(self):
        self.patch(__import__("mailserver.relay.hosts", fromlist=["x"]), "DOMAINS_KEPT", 10)
        for n in range(100):
            self.book.find(f"{n}.example")
        self.assertLessEqual(len(self.book._pages), 10)
        self.assertIs(self.book.find("99.example"), self.answer)
        self.assertEqual(len(self.asked), 100)
