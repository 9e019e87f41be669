"""The resolver without a network: whom it asks, when it gives up, what it keeps."""

from __future__ import annotations

import os
from itertools import count
from unittest import mock

from twisted.internet.defer import CancelledError, ensureDeferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mailserver.dns import NameServer, Resolver
from mailserver.interfaces import IComponent, IResolver
from mailserver.mail.dns_records import Answer, LookupFailed, ServerAddress
from tests.dns.messages import mx, opt, record, reply, soa
from tests.dns.network import Network

A, B = NameServer(ServerAddress("192.0.2.1")), NameServer(ServerAddress("192.0.2.2"))
NAME = "example.org"
SETTINGS = {"servers": [A, B], "timeout_seconds": 3.0, "attempts": 2}


class ResolverCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.network = Network()
        self.resolver = self.make()

    def make(self, **changes):
        resolver = Resolver(reactor=self.network, **{**SETTINGS, **changes})
        self.successResultOf(self.ended(resolver.start()))
        return resolver

    def ended(self, coroutine):
        return ensureDeferred(coroutine)

    def stop(self):
        stopped = self.ended(self.resolver.stop())
        self.network.advance(0)
        self.successResultOf(stopped)

    def query(self, name=NAME, type="MX"):
        return self.resolver.query(name, type)

    def exchange(self, name=NAME):
        return mx(name, 10, "mx.example")

    def why(self, deferred):
        return str(self.failureResultOf(deferred, LookupFailed).value)

    @property
    def asked(self):
        return [datagram.server[-1] for datagram in self.network.sent]

    def answer(self, *records, at=-1, **more):
        datagram = self.network.sent[at]
        datagram.answer(reply(datagram.data, *records, **more))


class Answers(ResolverCase):
    def test_it_provides_its_interfaces(self) -> None:
        verifyObject(IResolver, self.resolver)
        verifyObject(IComponent, self.resolver)

    def test_a_question_goes_to_the_first_server_and_its_answer_back(self) -> None:
        found = self.query()
        self.assertNoResult(found)
        self.answer(self.exchange())
        self.assertEqual(self.successResultOf(found), Answer(("10 mx.example",), 300))
        self.assertEqual(self.asked, ["1"])

    def test_an_answer_is_kept_for_its_time_to_live(self) -> None:
        self.query()
        self.answer(self.exchange())
        self.network.advance(100)
        self.assertEqual(self.successResultOf(self.query("Example.ORG.")).ttl_seconds, 200)
        self.network.advance(200)
        self.assertNoResult(self.query())
        self.assertEqual(len(self.asked), 2)

    def test_no_such_name_is_kept_too(self) -> None:
        self.query()
        self.answer(rcode=3, authority=[soa(NAME, 600)])
        self.assertFalse(self.successResultOf(self.query()).name_exists)
        self.assertEqual(len(self.asked), 1)

    def test_types_are_kept_apart(self) -> None:
        self.query()
        self.answer(self.exchange())
        self.assertNoResult(self.query(type="A"))

    def test_many_who_ask_the_same_at_once_are_one_question(self) -> None:
        found = [self.query(name) for name in (NAME, "EXAMPLE.org", NAME + ".")]
        self.assertEqual(len(self.asked), 1)
        self.answer(self.exchange())
        self.assertEqual(len({self.successResultOf(one) for one in found}), 1)

    def test_who_gives_up_waiting_does_not_take_the_answer_from_others(self) -> None:
        first, second = self.query(), self.query()
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.answer(self.exchange())
        self.assertEqual(self.successResultOf(second).records, ("10 mx.example",))

    def test_a_callback_may_cancel_another_who_waits(self) -> None:
        first, second = self.query(), self.query()
        first.addCallback(lambda _: second.cancel())
        self.answer(self.exchange())
        self.failureResultOf(second, CancelledError)

    def test_an_answer_that_all_gave_up_on_is_kept(self) -> None:
        self.failureResultOf(self.cancelled(), CancelledError)
        self.answer(self.exchange())
        self.assertEqual(len(self.successResultOf(self.query()).records), 1)

    def cancelled(self):
        found = self.query()
        found.cancel()
        return found

    def test_what_cannot_be_a_name_does_not_exist_and_is_not_asked(self) -> None:
        for name in ("", "a..b", "a" * 64, "\ud800.example", "ü\\065.example"):
            self.assertFalse(self.successResultOf(self.query(name)).name_exists)
        self.assertEqual(self.asked, [])

    def test_international_names_are_asked_in_their_ascii_form(self) -> None:
        self.query("bücher.example")
        self.assertIn(b"\x0dxn--bcher-kva\x07example\x00", self.network.sent[0].data)

    def test_a_type_that_it_does_not_know_is_the_callers_mistake(self) -> None:
        self.assertRaises(ValueError, self.query, NAME, "HINFO")

    def test_ipv6_servers_are_asked_from_ipv6_sockets(self) -> None:
        self.resolver = self.make(servers=[NameServer(ServerAddress("2001:db8::53"))])
        self.query()
        self.assertEqual((self.network.interfaces, self.network.ports[0].peer), (["::"], ("2001:db8::53", 53)))


class Forgeries(ResolverCase):
    def test_nothing_but_the_answer_to_the_question_from_the_server_is_believed(self) -> None:
        found = self.query()
        asked = self.network.sent[0]
        good = reply(asked.data, self.exchange())
        wrong_id = bytes([good[0] ^ 1]) + good[1:]
        other_name = good.replace(b"\x07example\x03org", b"\x07exbmple\x03org")
        for data, peer in (
            (wrong_id, None),
            (other_name, None),
            (asked.data, None),
            (b"", None),
            (good[:20], None),
            (good, ("192.0.2.9", 53)),
            (good, ("192.0.2.1", 54)),
        ):
            asked.answer(data, peer)
            self.assertNoResult(found)
        asked.answer(good)
        self.assertEqual(len(self.successResultOf(found).records), 1)

    def test_an_answer_that_comes_twice_or_late_does_nothing(self) -> None:
        found = self.query()
        self.network.advance(3)
        self.answer(self.exchange(), at=0)
        self.assertNoResult(found)
        self.answer(self.exchange(), at=1)
        self.answer(mx(NAME, 66, "forged.example"), at=1)
        self.assertEqual(self.successResultOf(found).records, ("10 mx.example",))

    def test_sockets_are_replaced_after_a_while_and_closed_when_nothing_waits_there(self) -> None:
        for n in range(60):
            self.query(f"n{n}.example")
        old = list(self.network.ports)
        self.assertTrue(1 < len(old) <= 8, len(old))
        self.network.advance(1)
        for n in range(60):
            self.network.sent[n].answer(reply(self.network.sent[n].data, rcode=3))
        self.network.advance(60)
        for n in range(200):
            self.query(f"m{n}.example")
        self.assertFalse([port for port in old if port.open])
        self.assertLessEqual(len(self.network.ports), 8)

    def test_a_retired_socket_still_hears_what_it_waits_for(self) -> None:
        self.resolver = self.make(timeout_seconds=100.0, question_seconds=200.0, random_octets=lambda n: os.urandom(n - 1) + b"\0")
        first, second = self.query("first.example"), self.query("second.example")
        self.network.advance(61)
        self.query("third.example")
        self.assertEqual(len(self.network.ports), 2)
        self.answer(rcode=3, at=0)
        self.assertEqual(len(self.network.ports), 2)
        self.answer(rcode=3, at=1)
        self.assertEqual(len(self.network.ports), 1)
        self.assertEqual([self.successResultOf(one).name_exists for one in (first, second)], [False, False])

    def test_a_socket_serves_two_hundred_questions(self) -> None:
        self.resolver = self.make(random_octets=lambda n: os.urandom(n - 1) + b"\0")
        for n in range(201):
            self.query(f"n{n}.example")
        self.assertEqual([self.network.sent[n].port.number for n in (0, 199, 200)], [40000, 40000, 40001])

    def test_a_socket_that_forgers_try_is_replaced(self) -> None:
        self.resolver = self.make(random_octets=lambda n: os.urandom(n - 1) + b"\0")
        found = self.query()
        for _ in range(10):
            self.network.sent[0].answer(b"\0" * 40)
        self.query("other.example")
        self.assertIsNot(self.network.sent[0].port, self.network.sent[1].port)
        self.network.sent[0].answer(reply(self.network.sent[0].data, self.exchange()))
        self.successResultOf(found)

    def test_ids_in_use_are_not_drawn_again(self) -> None:
        numbers = count()
        self.resolver = self.make(
            random_octets=lambda n: (b"\x07\x07\0", b"\x07\x07\0", b"\x08\x08")[next(numbers)][:n]
        )
        self.query("a.example")
        self.query("b.example")
        self.assertEqual([one.data[:2] for one in self.network.sent], [b"\x07\x07", b"\x08\x08"])

    def test_with_random_case_the_case_has_to_come_back(self) -> None:
        self.resolver = self.make(random_case=True, random_octets=lambda n: b"\xff" * n)
        found = self.query()
        asked = self.network.sent[0]
        self.assertIn(b"\x07EXAMPLE\x03ORG\0", asked.data)
        asked.answer(reply(asked.data, self.exchange()).replace(b"EXAMPLE", b"example"))
        self.assertNoResult(found)
        asked.answer(reply(asked.data, self.exchange("EXAMPLE.ORG")))
        self.assertEqual(self.successResultOf(found).records, ("10 mx.example",))


class Failures(ResolverCase):
    def test_silence_is_a_failure_after_each_server_was_asked_as_often_as_configured(self) -> None:
        found = self.query()
        for _ in range(3):
            self.network.advance(3)
            self.assertNoResult(found)
        self.network.advance(3)
        self.assertIn("192.0.2.2: no answer in 3 s", self.why(found))
        self.assertEqual(self.asked, ["1", "2", "1", "2"])

    def test_each_attempt_has_its_own_time(self) -> None:
        first = self.query("first.example")
        self.network.advance(2)
        self.query("second.example")
        self.network.advance(1)
        self.assertEqual(self.asked, ["1", "1", "2"])
        self.network.advance(2)
        self.assertEqual(self.asked, ["1", "1", "2", "2"])
        self.assertNoResult(first)

    def test_a_question_that_stumbles_at_its_deadline_fails_alone_and_the_others_have_their_end(self) -> None:
        first, second, third = [self.query(f"{name}.example") for name in ("first", "second", "third")]
        attempts = list(self.resolver._attempts)

        def stumble(_: object) -> None:
            raise RuntimeError("a fault of ours")

        attempts[1].waits_in = mock.Mock(forget=stumble)
        for _ in range(4):
            self.network.advance(3)
        for found in (first, second, third):
            self.failureResultOf(found, LookupFailed)
        self.assertTrue(self.flushLoggedErrors(RuntimeError))
        self.assertEqual(self.resolver._asking, 0)

    def test_a_lost_packet_costs_a_time_out_and_nothing_else(self) -> None:
        found = self.query()
        self.network.advance(3)
        self.answer(self.exchange())
        self.assertEqual(len(self.successResultOf(found).records), 1)

    def test_servfail_and_refused_go_to_the_next_server_at_once_and_are_not_asked_again(self) -> None:
        for rcode, word in ((2, "SERVFAIL"), (5, "REFUSED")):
            found = self.query(f"{word}.example")
            self.answer(rcode=rcode)
            self.answer(rcode=rcode)
            self.assertIn(word, self.why(found))
        self.assertEqual(self.asked, ["1", "2", "1", "2"])

    def test_an_answer_that_makes_no_sense_is_a_failure_not_an_absence(self) -> None:
        found = self.query()
        for _ in range(2):
            self.answer(record(NAME, "MX", b"\0"))
        self.assertIn("makes no sense", self.why(found))

    def test_a_message_that_is_cut_off_is_a_failure_not_an_absence(self) -> None:
        found = self.query()
        for _ in range(2):
            asked = self.network.sent[-1]
            asked.answer(reply(asked.data, self.exchange())[:-20])
        self.assertIn("cut off", self.why(found))

    def test_the_extended_error_is_in_the_reason(self) -> None:
        found = self.query()
        for _ in range(2):
            self.answer(rcode=2, additional=[opt(b"\0\x0f\0\x02\0\x06")])
        self.assertIn("SERVFAIL (DNSSEC bogus)", self.why(found))

    def test_a_failure_is_kept_for_five_seconds(self) -> None:
        self.failureResultOf(self.failing(), LookupFailed)
        self.assertIn("SERVFAIL", self.why(self.query()))
        self.assertEqual(len(self.asked), 2)
        self.network.advance(5)
        self.assertNoResult(self.query())

    def failing(self):
        found = self.query()
        self.answer(rcode=2)
        self.answer(rcode=2)
        return found

    def test_each_who_waits_gets_an_exception_of_his_own(self) -> None:
        found = [self.query(), self.query()]
        self.answer(rcode=2)
        self.answer(rcode=2)
        one, other = (self.failureResultOf(each, LookupFailed).value for each in found)
        self.assertIsNot(one, other)

    def test_a_question_has_an_end_however_many_servers_there_are(self) -> None:
        servers = [NameServer(ServerAddress(f"192.0.2.{n}")) for n in range(1, 9)]
        self.resolver = self.make(servers=servers, attempts=5, question_seconds=20.0)
        found = self.query()
        self.network.pump([3.0] * 7)
        self.assertIn("no answer in 20 s", self.why(found))
        self.assertEqual(len(self.asked), 7)

    def test_where_nobody_listens_the_next_server_is_asked_at_once(self) -> None:
        found = self.query()
        self.network.sent[0].port.protocol.connectionRefused()
        self.assertEqual(self.asked, ["1", "2"])
        self.answer(self.exchange())
        self.successResultOf(found)

    def test_where_nobody_listens_anywhere_it_fails_at_once(self) -> None:
        self.network.nobody_listens = True
        self.assertIn("nobody listens", self.why(self.query()))

    def test_without_a_route_it_fails_at_once_and_leaves_no_socket(self) -> None:
        self.network.no_route = True
        self.assertIn("unreachable", self.why(self.query()))
        self.network.advance(0)
        self.assertEqual(self.network.ports, [])

    def test_a_socket_that_the_kernel_closed_is_replaced(self) -> None:
        found = self.query()
        for port in list(self.network.ports):
            port.stopListening()
        self.network.advance(0)
        self.assertEqual(self.asked, ["1", "2"])
        self.answer(self.exchange())
        self.successResultOf(found)

    def test_a_server_from_before_edns_is_asked_without_it(self) -> None:
        for rcode in (1, 4):
            found = self.query(f"n{rcode}.example")
            self.answer(rcode=rcode, additional=[])
            query = self.network.sent[-1]
            self.assertEqual((query.server[-1], query.data[10:12]), ("1", b"\0\0"))
            query.answer(reply(query.data, self.exchange(f"n{rcode}.example"), additional=[]))
            self.assertEqual(len(self.successResultOf(found).records), 1)

    def test_servers_that_never_understand_are_asked_twice_and_no_more(self) -> None:
        found = self.query()
        for _ in range(4):
            self.assertNoResult(found)
            self.answer(rcode=1)
        self.assertIn("FORMERR", self.why(found))
        self.assertEqual(self.asked, ["1", "1", "2", "2"])

    def test_no_server_is_asked_the_same_more_than_three_times_rfc_9520(self) -> None:
        self.resolver = self.make(servers=[A], attempts=5)
        found = self.query()
        self.network.pump([3.0] * 3)
        self.assertIn("no answer in 3 s", self.why(found))
        self.assertEqual(self.asked, ["1"] * 3)

    def test_the_other_try_of_one_that_did_not_understand_counts_too(self) -> None:
        self.resolver = self.make(servers=[A], attempts=3)
        found = self.query()
        self.answer(rcode=1)
        self.network.pump([3.0] * 2)
        self.why(found)
        self.assertEqual(self.asked, ["1"] * 3)

    def test_a_name_that_fails_again_is_left_alone_for_longer(self) -> None:
        self.resolver = self.make(servers=[A], attempts=1, failure_seconds_most=60.0)
        for seconds in (5, 10, 20, 40, 60, 60):
            found = self.query()
            self.answer(rcode=2)
            self.why(found)
            asked = len(self.asked)
            self.network.advance(seconds - 1)
            self.why(self.query())
            self.assertEqual(len(self.asked), asked)
            self.network.advance(1)

    def test_a_name_that_does_not_exist_is_not_asked_for_another_type(self) -> None:
        self.query()
        self.answer(rcode=3, authority=[soa(NAME, 600)])
        for type in ("A", "AAAA", "TXT"):
            self.assertFalse(self.successResultOf(self.query(type=type)).name_exists)
        self.assertEqual(len(self.asked), 1)


class SpecialNames(ResolverCase):
    """RFC 6761: they never leave this host as questions."""

    HERE = NameServer(ServerAddress("127.0.0.1"))

    def found(self, name, type="A"):
        return self.successResultOf(self.query(name, type))

    def test_localhost_is_this_host(self) -> None:
        for name in ("localhost", "LocalHost.", "a.b.localhost"):
            self.assertEqual(self.found(name).records, ("127.0.0.1",))
            self.assertEqual(self.found(name, "AAAA").records, ("::1",))
            for type in ("MX", "TXT", "TLSA"):
                self.assertEqual(self.found(name, type), Answer(()))
        self.assertEqual(self.asked, [])

    def test_invalid_does_not_exist(self) -> None:
        for name in ("invalid", "mx.example.INVALID."):
            self.assertFalse(self.found(name, "MX").name_exists)
        self.assertEqual(self.asked, [])

    def test_names_under_test_are_asked_of_servers_on_this_host_only(self) -> None:
        self.assertFalse(self.found("a.test").name_exists)
        self.assertEqual(self.asked, [])
        self.resolver = self.make(servers=[A, self.HERE, B])
        found = self.query("a.test")
        self.network.advance(3)
        self.answer(self.exchange("a.test"))
        self.assertEqual(len(self.successResultOf(found).records), 1)
        self.assertEqual([one.server for one in self.network.sent], ["127.0.0.1", "127.0.0.1"])

    def test_names_that_only_end_alike_are_asked(self) -> None:
        for name in ("notlocalhost", "latest", "invalid.example", "localhost.example", "test.example"):
            self.assertNoResult(self.query(name))
        self.assertEqual(len(self.asked), 5)

    def test_an_alias_does_not_lead_out_either(self) -> None:
        for target, exists in (("x.localhost", True), ("x.invalid", False), ("x.test", False)):
            found = self.query(f"to.{target}.example", "A")
            self.answer(record(f"to.{target}.example", "CNAME", target))
            answer = self.successResultOf(found)
            self.assertEqual((answer.name_exists, answer.canonical_name), (exists, target))
        self.assertEqual(len(self.asked), 3)


class WithoutEDNS(ResolverCase):
    """A server, or a firewall before it, that drops what has an OPT record."""

    def setUp(self) -> None:
        super().setUp()
        self.resolver = self.make(servers=[A])
        self.names = 0

    def edns(self, at=-1):
        return self.network.sent[at].data[10:12] == b"\0\1"

    def ask(self):
        self.names += 1
        name = f"n{self.names}.example"
        return self.query(name), name

    def answered(self, found, name):
        self.answer(self.exchange(name), additional=[])
        self.successResultOf(found)

    def dropped(self):
        """One question that is answered only without."""
        found, name = self.ask()
        self.assertTrue(self.edns())
        self.network.advance(3)
        self.assertFalse(self.edns())
        self.answered(found, name)

    def test_after_silence_the_same_server_is_tried_without(self) -> None:
        self.dropped()

    def test_another_server_is_asked_with_it_all_the_same(self) -> None:
        self.resolver = self.make()
        self.ask()
        self.network.pump([3.0] * 3)
        self.assertEqual((self.asked, [self.edns(n) for n in range(4)]), (["1", "2", "1", "2"], [True, True, False, False]))

    def test_twice_in_a_row_is_remembered_for_a_quarter_of_an_hour(self) -> None:
        self.dropped()
        self.dropped()
        for _ in range(2):
            found, name = self.ask()
            self.assertFalse(self.edns())
            self.answered(found, name)
            self.network.advance(449)
        self.network.advance(2)
        self.ask()
        self.assertTrue(self.edns())

    def test_one_lost_packet_is_not_remembered(self) -> None:
        for _ in range(3):
            self.dropped()
            found, name = self.ask()
            self.assertTrue(self.edns())
            self.answered(found, name)

    def test_a_server_that_is_asked_once_only_is_tried_without_by_the_next_question(self) -> None:
        self.resolver = self.make(servers=[A], attempts=1)
        for _ in range(2):
            first, _ = self.ask()
            self.assertTrue(self.edns())
            self.network.advance(3)
            self.why(first)
            second, name = self.ask()
            self.assertFalse(self.edns())
            self.answered(second, name)
        self.ask()
        self.assertFalse(self.edns())

    def test_silence_to_both_kinds_is_not_for_edns(self) -> None:
        for _ in range(3):
            found, _ = self.ask()
            self.assertTrue(self.edns())
            self.network.pump([3.0] * 2)
            self.why(found)

    def test_a_server_that_refuses_it_is_remembered_too(self) -> None:
        for _ in range(2):
            found, name = self.ask()
            self.answer(rcode=1, additional=[])
            self.assertFalse(self.edns())
            self.answered(found, name)
        self.ask()
        self.assertFalse(self.edns())

    def test_a_refusal_of_what_was_asked_without_is_final(self) -> None:
        self.dropped()
        self.dropped()
        found, _ = self.ask()
        self.answer(rcode=1, additional=[])
        self.assertIn("FORMERR", self.why(found))


class DeadServers(ResolverCase):
    def test_a_dead_server_costs_two_time_outs_then_others_are_asked_first(self) -> None:
        for n in range(2):
            self.query(f"n{n}.example")
            self.network.advance(3)
            self.answer(rcode=3)
        self.assertEqual(self.resolver._servers.resting(), [A])
        self.query("n3.example")
        self.assertEqual(self.asked[-1], "2")
        self.answer(rcode=3)
        self.network.advance(30)
        self.query("n4.example")
        self.assertEqual(self.asked[-1], "1")
        self.answer(rcode=3)
        self.assertEqual(self.resolver._servers.resting(), [])


class Trust(ResolverCase):
    TRUSTED = NameServer(ServerAddress("127.0.0.1"), trusted=True)

    def test_the_ad_bit_is_kept_from_trusted_servers_only(self) -> None:
        for server, believed in ((self.TRUSTED, True), (A, False)):
            self.resolver = self.make(servers=[server])
            found = self.query()
            self.answer(self.exchange(), ad=True)
            self.assertEqual(self.successResultOf(found).authenticated, believed)
            self.assertEqual(self.successResultOf(self.query()).authenticated, believed, "from the cache")

    def test_the_servfail_of_a_server_that_validates_is_not_asked_away_elsewhere(self) -> None:
        other = NameServer(ServerAddress("127.0.0.2"), trusted=True)
        self.resolver = self.make(servers=[self.TRUSTED, A, other])
        found = self.query()
        self.answer(rcode=2)
        self.answer(rcode=2)
        self.assertIn("SERVFAIL", self.why(found))
        self.assertEqual([one.server for one in self.network.sent], ["127.0.0.1", "127.0.0.2"])

    def test_its_silence_is(self) -> None:
        self.resolver = self.make(servers=[self.TRUSTED, A])
        found = self.query()
        self.network.advance(3)
        self.answer(self.exchange(), ad=True)
        self.assertFalse(self.successResultOf(found).authenticated)


class Aliases(ResolverCase):
    def setUp(self) -> None:
        super().setUp()
        self.resolver = self.make(servers=[Trust.TRUSTED])

    def test_an_alias_that_leads_out_of_the_message_is_asked_on(self) -> None:
        found = self.query(type="A")
        self.answer(record(NAME, "CNAME", "b.example", 50), ad=True)
        self.assertIn(b"\x01b\x07example\x00", self.network.sent[1].data)
        self.answer(record("b.example", "A", "192.0.2.7"), ad=True)
        self.assertEqual(self.successResultOf(found), Answer(("192.0.2.7",), 50, True, True, "b.example"))

    def test_every_part_has_to_be_authenticated(self) -> None:
        for first, second in ((True, False), (False, True)):
            found = self.query(f"n{first}.example", "A")
            self.answer(record(f"n{first}.example", "CNAME", "b.example"), ad=first)
            self.answer(record("b.example", "A", "192.0.2.7"), ad=second)
            self.assertFalse(self.successResultOf(found).authenticated)

    def test_a_circle_through_several_messages_ends(self) -> None:
        found = self.query(type="A")
        for n in range(9):
            name, other = (NAME, "b.example") if n % 2 == 0 else ("b.example", NAME)
            self.answer(record(name, "CNAME", other))
        self.assertIn("without end", self.why(found))


class ByTCP(ResolverCase):
    def truncated(self):
        found = self.query()
        self.answer(tc=True)
        (connection,) = self.network.connections
        return found, connection

    def framed(self, data):
        return len(data).to_bytes(2) + data

    def test_a_truncated_answer_is_asked_for_by_tcp_at_the_same_server(self) -> None:
        found, connection = self.truncated()
        self.assertEqual(connection.peer, ("192.0.2.1", 53))
        data = self.framed(reply(connection.made(), *[mx(NAME, n, f"mx{n}.example") for n in range(900)]))
        for start in range(0, len(data), 1000):
            self.assertNoResult(found)
            connection.arrives(data[start : start + 1000])
        self.assertEqual(len(self.successResultOf(found).records), 900)
        self.assertTrue(connection.transport.disconnecting)

    def test_records_of_a_truncated_answer_do_not_count(self) -> None:
        found = self.query()
        self.answer(self.exchange(), tc=True)
        self.assertNoResult(found)

    def test_a_connection_that_fails_or_breaks_leads_to_the_next_server(self) -> None:
        found, connection = self.truncated()
        connection.disconnect()
        self.assertEqual(self.asked, ["1", "2"])
        self.answer(tc=True)
        (connection,) = self.network.connections
        connection.made()
        connection.arrives(b"\0\x50abc")
        connection.disconnect()
        self.assertEqual(self.asked, ["1", "2", "1"])
        self.assertNoResult(found)

    def test_another_question_or_another_truncation_by_tcp_is_no_answer(self) -> None:
        found, connection = self.truncated()
        good = reply(connection.made(), self.exchange())
        connection.arrives(self.framed(bytes([good[0] ^ 1]) + good[1:]))
        self.assertEqual(self.asked, ["1", "2"])
        self.answer(tc=True)
        connection = self.network.connections[-1]
        connection.arrives(self.framed(reply(connection.made(), tc=True)))
        self.assertEqual(self.asked, ["1", "2", "1"])
        self.assertNoResult(found)

    def test_a_connection_that_stalls_is_broken_off(self) -> None:
        _, connection = self.truncated()
        connection.made()
        self.network.advance(3)
        self.assertTrue(connection.over)
        self.assertEqual(self.asked, ["1", "2"])

    def test_a_connection_that_is_never_made_is_given_up(self) -> None:
        _, connection = self.truncated()
        self.network.advance(3)
        self.assertTrue(connection.over)

    def test_there_are_fifty_connections_at_most(self) -> None:
        for n in range(51):
            self.query(f"n{n}.example")
            self.answer(tc=True)
        self.assertEqual(len(self.network.connections), 50)
        self.assertEqual(self.asked[-1], "2")


class Bounds(ResolverCase):
    def test_waiting_for_a_turn_counts_and_ends_with_the_time_of_the_question(self) -> None:
        self.resolver = self.make(servers=[A], in_flight=1, question_seconds=5.0)
        first = self.query("first.example")
        self.network.advance(1)
        waits, joins = self.query(), self.query()
        other = self.query("other.example")
        self.network.advance(2)  # the first is asked again
        self.network.advance(2)  # and given up: the second has its turn, with one second left
        self.why(first)
        self.assertIn(b"\x07example\x03org", self.network.sent[-1].data)
        self.network.advance(1)
        for one in (waits, joins):
            self.assertIn("no answer in 5 s", self.why(one))
        self.assertIn("no turn in 5 s", self.why(other))
        self.assertEqual(self.resolver.counts.failures, 3, "one for each question, however many have asked it")
        self.assertEqual((len(self.asked), self.network.ports[0].protocol.waiting), (3, {}))

    def test_who_had_no_turn_is_not_kept_as_a_failure_of_the_name(self) -> None:
        self.resolver = self.make(servers=[A], in_flight=1, question_seconds=5.0)
        first = self.query("first.example")
        found = self.query()
        self.network.pump([3.0, 2.0])
        self.why(first)
        self.assertIn("no turn", self.why(found))
        self.assertNoResult(self.query())

    def test_a_question_is_given_up_in_the_middle_of_an_attempt(self) -> None:
        self.resolver = self.make(question_seconds=4.0)
        found = self.query()
        self.network.advance(3)
        self.assertNoResult(found)
        self.network.advance(1)
        self.assertIn("no answer in 4 s", self.why(found))
        self.assertEqual(self.asked, ["1", "2"])

    def test_questions_beyond_the_bound_wait_for_their_turn(self) -> None:
        self.resolver = self.make(in_flight=2, waiting=1)
        found = [self.query(f"n{n}.example") for n in range(3)]
        self.assertEqual(len(self.asked), 2)
        self.assertIn("too many", self.why(self.query("n4.example")))
        self.answer(rcode=3, at=0)
        self.assertEqual(len(self.asked), 3)
        self.answer(rcode=3, at=2)
        self.assertEqual([one.called for one in found], [True, False, True])

    def test_who_waits_for_his_turn_can_be_joined(self) -> None:
        self.resolver = self.make(in_flight=1, waiting=1)
        self.query("first.example")
        found = [self.query(), self.query()]
        self.answer(rcode=3)
        self.answer(self.exchange())
        self.assertEqual([len(self.successResultOf(one).records) for one in found], [1, 1])

    def test_a_thousand_that_fail_at_once_do_not_pile_up_on_the_stack(self) -> None:
        self.resolver = self.make(in_flight=1)
        found = [self.query(f"n{n}.example") for n in range(1000)]
        self.network.no_route = self.network.nobody_listens = True
        self.network.advance(3)
        self.assertEqual(len([self.failureResultOf(one, LookupFailed) for one in found]), 1000)


class Life(ResolverCase):
    def test_nothing_is_opened_before_the_first_question(self) -> None:
        self.assertEqual((self.network.ports, self.network.getDelayedCalls()), ([], []))

    def test_stop_fails_what_waits_and_leaves_neither_socket_nor_timer(self) -> None:
        self.resolver = self.make(in_flight=2)
        found = [self.query(f"n{n}.example") for n in range(3)]
        self.answer(tc=True, at=0)
        connection = self.network.connections[0]
        connection.made()
        self.stop()
        self.assertEqual([self.why(one) for one in found], ["the resolver has stopped"] * 3)
        self.assertEqual((self.network.ports, self.network.connections, self.network.getDelayedCalls()), ([], [], []))

    def test_a_socket_that_is_being_closed_is_not_closed_again(self) -> None:
        self.resolver = self.make(random_octets=lambda n: os.urandom(n - 1) + b"\0")
        self.query()
        self.answer(self.exchange())
        self.network.advance(60)
        other = self.query("other.example")  # which retires the socket
        stopped = self.ended(self.resolver.stop())
        self.assertNoResult(stopped)
        self.why(other)
        self.network.advance(0)
        self.successResultOf(stopped)

    def test_a_stopped_resolver_answers_nothing_and_can_be_started_again(self) -> None:
        self.query()
        self.answer(self.exchange())
        self.stop()
        self.assertIn("not running", self.why(self.query()))
        self.successResultOf(self.ended(self.resolver.start()))
        self.assertNoResult(self.query())
        self.assertEqual(len(self.asked), 2)

    def test_who_asks_again_when_it_stops_gets_an_error(self) -> None:
        again = []
        self.query().addErrback(lambda _: again.append(self.query()))
        self.stop()
        self.assertIn("not running", self.why(again[0]))
        self.assertEqual(self.network.ports, [])

    def test_it_can_be_stopped_by_who_hears_of_a_time_out(self) -> None:
        self.resolver = self.make(servers=[A], attempts=1)
        first, second = self.query("a.example"), self.query("b.example")
        first.addErrback(lambda _: self.ended(self.resolver.stop()))
        self.network.advance(3)
        self.assertIn("stopped", self.why(second))
        self.network.advance(0)
        self.assertEqual((self.resolver.counts.timeouts, self.network.ports), (1, []))
        self.assertEqual(self.network.getDelayedCalls(), [])

    def test_it_counts_what_it_does(self) -> None:
        self.query()
        self.answer(self.exchange())
        self.query()
        dead = self.query("dead.example")
        self.network.pump([3.0] * 4)
        for one in (dead, self.query("dead.example")):
            self.failureResultOf(one, LookupFailed)
        counts = self.resolver.counts
        self.assertEqual((counts.queries, counts.from_cache, counts.datagrams), (4, 2, 5))
        self.assertEqual((counts.timeouts, counts.failures, counts.streams), (4, 1, 0))


class System(ResolverCase):
    def setUp(self) -> None:
        self.network = Network()
        self.path = self.mktemp()

    def write(self, text):
        with open(self.path + ".new", "w") as file:
            file.write(text)
        os.rename(self.path + ".new", self.path)

    def follow(self):
        self.resolver = self.make(servers=(), timeout_seconds=None, attempts=None, resolv_conf=self.path)

    def test_without_servers_it_asks_those_of_resolv_conf(self) -> None:
        self.write("nameserver 192.0.2.1\nnameserver 127.0.0.53\noptions timeout:2 attempts:1\n")
        self.follow()
        found = self.query()
        self.network.pump([2.0, 2.0])
        self.failureResultOf(found, LookupFailed)
        self.assertEqual([one.server for one in self.network.sent], ["192.0.2.1", "127.0.0.53"])

    def test_without_the_file_it_asks_this_host(self) -> None:
        self.follow()
        self.query()
        self.assertEqual(self.network.ports[0].peer, ("127.0.0.1", 53))

    def test_a_change_is_followed_within_half_a_minute(self) -> None:
        self.write("nameserver 192.0.2.1\n")
        self.follow()
        self.query("a.example")
        self.answer(rcode=3)
        self.write("nameserver 192.0.2.2\n")
        self.network.advance(30)
        self.query("b.example")
        self.assertEqual(self.asked, ["1", "2"])
        self.assertEqual([port.peer[0] for port in self.network.ports], ["192.0.2.2"])

    def test_a_file_that_vanishes_changes_nothing(self) -> None:
        self.write("nameserver 192.0.2.2\n")
        self.follow()
        os.remove(self.path)
        self.network.advance(30)
        self.query()
        self.assertEqual(self.asked, ["2"])
