"""MTA-STS: fetched over https from a policy host, kept over restarts, renewed; and in force for as long as it says (RFC 8461)."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailserver.mail.fetched import Fetched, FetchFailed
from mailserver.mail.networks import NO_NETWORKS
from mailserver.relay import sts_keeper
from mailserver.relay.hosts import Host, Hosts
from mailserver.relay.sts_fetching import PolicyFetching
from mailserver.relay.sts_keeper import STSKeeper, with_sts
from mailserver.relay.sts_store import KeptPolicies
from mailserver.testing import FakeResolver
from mailserver.testing.fetch import FakeFetch
from mailserver.testing.state import MemoryState
from mailserver.trust.mta_sts import FETCH_ERROR, NO_STS, POLICY_INVALID, WEBPKI_INVALID, STSAnswer, STSMode, policy_url
from tests.fetching.test_client import HOST, FetchCase, answer

DAY = 86_400
POLICY = b"version: STSv1\nmode: enforce\nmx: mx.stranger.example\nmx: *.stranger.example\nmax_age: 604800\n"
DOMAIN = "stranger.example"


class KeeperCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_000_000)
        self.resolver = FakeResolver({})
        self.fetch = FakeFetch()
        self.state = MemoryState(self.clock)
        self.keeper: Any = None
        self.announce("a1")
        self.publish(POLICY)
        self.start()

    def start(self, fetch: Any = None) -> None:
        """A server that has just been started."""
        if self.keeper is not None:
            self.successResultOf(Deferred.fromCoroutine(self.keeper.stop()))
        self.keeper = STSKeeper(
            resolver=self.resolver,
            fetching=PolicyFetching(fetch or self.fetch),
            kept=KeptPolicies(self.state, self.clock),
            clock=self.clock,
            seconds=self.clock.seconds,
        )
        self.keeper.start()
        keeper = self.keeper
        self.addCleanup(lambda: Deferred.fromCoroutine(keeper.stop()))

    def announce(self, id: str, domain: str = DOMAIN) -> None:
        self.resolver.zones[f"_mta-sts.{domain}"] = {"TXT": [f"v=STSv1; id={id};"]} if id else {"TXT": []}

    def publish(self, policy: Fetched | bytes | None, domain: str = DOMAIN) -> None:
        self.fetch.pages.pop(policy_url(domain), None)
        if policy is not None:
            self.fetch.pages[policy_url(domain)] = policy

    def found(self, domain: str = DOMAIN) -> STSAnswer:
        return self.successResultOf(Deferred.fromCoroutine(self.keeper.find(domain)))

    def id_in_force(self) -> str:
        policy = self.found().policy
        return "" if policy is None else policy.id

    def pass_time(self, seconds: float, step: float = 60.0) -> None:
        for _ in range(int(seconds / step)):
            self.clock.advance(step)


class InForce(KeeperCase):
    def test_a_policy_is_fetched_once_and_kept_over_a_restart(self) -> None:
        policy = self.found().policy
        assert policy is not None
        self.assertEqual((policy.id, policy.mode, policy.mx[0]), ("a1", STSMode.ENFORCE, "mx.stranger.example"))
        self.assertEqual(self.found().policy, policy)
        self.start()
        self.assertEqual(self.found().policy, policy)
        self.assertEqual(len(self.fetch.asked), 1)

    def test_it_stays_in_force_when_the_record_or_the_policy_host_or_the_dns_has_gone(self) -> None:
        self.found()
        self.publish(None)
        self.announce("")
        self.assertEqual(self.id_in_force(), "a1")
        self.resolver.failing.add(f"_mta-sts.{DOMAIN}")
        self.assertEqual(self.id_in_force(), "a1")
        self.clock.advance(604_000)
        self.start()
        self.assertEqual(self.id_in_force(), "a1")

    def test_it_ends_with_its_age(self) -> None:
        self.found()
        self.publish(None)
        self.announce("")
        self.clock.advance(604_801)
        self.assertEqual(self.found(), NO_STS)

    def test_a_new_id_brings_a_new_policy_and_until_then_the_old_one_holds(self) -> None:
        self.found()
        self.announce("b2")
        self.publish(None)
        answer = self.found()
        self.assertEqual((answer.policy and answer.policy.id, answer.why), ("a1", FETCH_ERROR))
        self.publish(POLICY.replace(b"enforce", b"testing"))
        self.assertEqual(self.id_in_force(), "a1", "the failure is remembered")
        self.clock.advance(301)
        policy = self.found().policy
        self.assertEqual((policy and policy.id, policy and policy.mode), ("b2", STSMode.TESTING))

    def test_mode_none_ends_a_policy(self) -> None:
        self.found()
        self.announce("b2")
        self.publish(b"version: STSv1\nmode: none\nmax_age: 86400\n")
        self.assertEqual(self.found(), NO_STS)
        self.assertEqual(self.found(), NO_STS)
        self.assertEqual(len(self.fetch.asked), 2, "it is kept, too")

    def test_without_a_record_nothing_is_fetched(self) -> None:
        self.announce("")
        self.assertEqual(self.found(), NO_STS)
        self.assertEqual(self.found("[192.0.2.1]"), NO_STS)
        self.resolver.failing.add(f"_mta-sts.{DOMAIN}")
        self.assertIn("the DNS does not say", self.found().detail)
        self.assertEqual(self.fetch.asked, [])


class Failures(KeeperCase):
    def test_at_first_contact_a_failure_leaves_no_policy_and_is_remembered_for_five_minutes(self) -> None:
        self.publish(None)
        self.assertEqual((self.found().policy, self.found().why), (None, FETCH_ERROR))
        self.assertEqual(len(self.fetch.asked), 1)
        self.publish(POLICY)
        self.clock.advance(301)
        self.assertEqual(self.id_in_force(), "a1")

    def test_a_dns_that_cannot_tell_is_asked_again_after_five_minutes(self) -> None:
        self.resolver.failing.add(f"_mta-sts.{DOMAIN}")
        for _ in range(3):
            self.assertIn("the DNS does not say", self.found().detail)
        self.assertEqual(len(self.resolver.asked), 1)
        self.resolver.failing.clear()
        self.clock.advance(301)
        self.assertEqual(self.id_in_force(), "a1")

    def test_another_id_is_tried_at_once(self) -> None:
        self.publish(None)
        self.found()
        self.announce("b2")
        self.publish(POLICY)
        self.assertEqual(self.id_in_force(), "b2")

    def test_what_is_damaged_on_the_disk_is_told_and_fetched_anew(self) -> None:
        self.found()
        for octets in (b"", b"x", b"\x78\x9c", b"\xff" * 100):
            self.successResultOf(self.deferred(self.state.put(f"policy/{DOMAIN}", octets, 1e6)))
            self.start()
            self.assertEqual(self.id_in_force(), "a1")
        self.assertEqual(len(self.fetch.asked), 5)

    def test_a_store_that_fails_stops_no_mail(self) -> None:
        self.state.failing.add("*")
        self.start()
        self.assertEqual(self.id_in_force(), "a1")

    def test_an_error_of_our_own_stops_no_mail(self) -> None:
        async def broken(url: str, **_: Any) -> Any:
            raise KeyError("oh")

        self.start(broken)
        self.assertEqual((self.found().policy, self.found().detail), (None, "an error of our own"))
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 2)

    @staticmethod
    def deferred(awaitable: Any) -> Deferred[Any]:
        async def wait() -> Any:
            return await awaitable

        return Deferred.fromCoroutine(wait())


class Waiting(KeeperCase):
    def setUp(self) -> None:
        super().setUp()
        self.fetches: list[Deferred[Fetched]] = []

        def fetch(url: str, **_: Any) -> Deferred[Fetched]:
            self.fetches.append(Deferred())
            return self.fetches[-1]

        self.start(fetch)

    def begin(self) -> Deferred[STSAnswer]:
        return Deferred.fromCoroutine(self.keeper.find(DOMAIN))

    def test_one_fetch_serves_all_who_wait(self) -> None:
        waiting = [self.begin() for _ in range(5)]
        self.assertEqual(len(self.fetches), 1)
        self.fetches[0].callback(Fetched("", 200, "text/plain", POLICY))
        self.assertEqual({self.successResultOf(one).policy is not None for one in waiting}, {True})

    def test_mail_waits_for_ten_seconds_at_most_and_the_fetch_goes_on(self) -> None:
        waiting = self.begin()
        self.clock.advance(9)
        self.assertNoResult(waiting)
        second = self.begin()
        self.clock.advance(1)
        answer = self.successResultOf(waiting)
        self.assertEqual((answer.policy, answer.why, answer.is_pending), (None, FETCH_ERROR, True))
        self.assertNoResult(second)
        self.fetches[0].callback(Fetched("", 200, "text/plain", POLICY))
        self.assertIsNotNone(self.successResultOf(second).policy)
        self.assertIsNotNone(self.successResultOf(self.begin()).policy)
        self.assertEqual(len(self.fetches), 1)

    def test_who_waits_too_long_for_a_new_policy_has_the_old_one(self) -> None:
        waiting = self.begin()
        self.fetches[0].callback(Fetched("", 200, "text/plain", POLICY))
        self.successResultOf(waiting)
        self.announce("b2")
        waiting = self.begin()
        self.clock.advance(10)
        answer = self.successResultOf(waiting)
        self.assertEqual((answer.policy and answer.policy.id, answer.is_pending), ("a1", True))

    def test_the_look_ups_under_way_are_bounded(self) -> None:
        self.patch(sts_keeper, "LOOKUPS_MOST", 3)
        for n in range(4):
            self.announce("a", f"d{n}.example")
        waiting = [Deferred.fromCoroutine(self.keeper.find(f"d{n}.example")) for n in range(4)]
        self.assertTrue(self.successResultOf(waiting[3]).is_pending)
        self.assertEqual(len(self.fetches), 3)

    def test_look_ups_of_others_take_no_policy_away_that_is_in_force(self) -> None:
        kept = self.begin()
        self.fetches[0].callback(Fetched("", 200, "text/plain", POLICY))
        self.successResultOf(kept)
        self.patch(sts_keeper, "LOOKUPS_MOST", 3)
        for n in range(3):
            self.announce("a", f"d{n}.example")
            Deferred.fromCoroutine(self.keeper.find(f"d{n}.example"))
        answer = self.found()
        self.assertEqual((answer.policy and answer.policy.id, answer.is_pending), ("a1", True))

    def test_at_the_end_nobody_waits_any_more(self) -> None:
        waiting = self.begin()
        self.successResultOf(Deferred.fromCoroutine(self.keeper.stop()))
        self.assertIsNone(self.successResultOf(waiting).policy)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.found(), NO_STS)

    def test_hosts_that_are_found_meanwhile_are_kept_for_a_moment_only(self) -> None:
        async def hosts(domain: str) -> Hosts:
            return Hosts(((Host("mx.stranger.example", ("192.0.2.1",)),),), 300.0)

        look_up = with_sts(hosts, self.keeper)

        async def run() -> Hosts:
            return await look_up(DOMAIN)

        found = Deferred.fromCoroutine(run())
        self.assertNoResult(found)
        self.clock.advance(10)
        pending = self.successResultOf(found)
        self.assertEqual((pending.ttl_seconds, pending.sts and pending.sts.policy), (30.0, None))
        self.fetches[0].callback(Fetched("", 200, "text/plain", POLICY))
        known = self.successResultOf(Deferred.fromCoroutine(run()))
        self.assertEqual(known.ttl_seconds, 300.0)
        self.assertIsNotNone(known.sts and known.sts.policy)


class Renewal(KeeperCase):
    def test_a_policy_is_renewed_each_day_and_so_outlives_its_age(self) -> None:
        self.found()
        self.announce("")
        self.pass_time(10 * DAY, 600.0)
        self.assertEqual(len(self.fetch.asked), 11)
        self.assertEqual(self.id_in_force(), "a1")

    def test_it_is_renewed_after_a_restart_when_it_was_due(self) -> None:
        self.found()
        successful = len(self.fetch.asked)
        self.pass_time(DAY / 2)
        self.start()
        self.pass_time(DAY / 2 - 120)
        self.assertEqual(len(self.fetch.asked), successful)
        self.pass_time(240)
        self.assertEqual(len(self.fetch.asked), successful + 1)

    def test_a_renewal_that_fails_is_tried_each_hour_until_the_end(self) -> None:
        self.found()
        self.publish(None)
        self.pass_time(DAY + 2.5 * 3600)
        self.assertEqual(len(self.fetch.asked), 4)
        self.assertEqual(self.id_in_force(), "a1")
        self.pass_time(6 * DAY, 600.0)
        self.assertEqual(self.found().policy, None)
        asked = len(self.fetch.asked)
        self.pass_time(2 * DAY, 600.0)
        self.assertEqual(len(self.fetch.asked), asked, "what has ended is not renewed")

    def test_a_policy_that_nobody_needs_any_more_ends(self) -> None:
        self.found()
        self.pass_time(30 * DAY, 3600.0)
        asked = len(self.fetch.asked)
        self.pass_time(30 * DAY, 3600.0)
        self.assertLessEqual(len(self.fetch.asked) - asked, 1)

    def test_one_that_is_needed_again_is_renewed_again(self) -> None:
        self.publish(POLICY.replace(b"604800", b"31557600"))
        self.found()
        self.pass_time(40 * DAY, 3600.0)
        self.found()
        asked = len(self.fetch.asked)
        self.pass_time(3 * DAY, 3600.0)
        self.assertGreater(len(self.fetch.asked), asked)

    def test_renewals_that_fail_keep_no_other_from_its_own(self) -> None:
        self.patch(sts_keeper, "RENEWED_AT_ONCE", 2)
        for n in range(130):
            self.announce("a", f"d{n}.example")
            self.publish(POLICY, f"d{n}.example")
            self.found(f"d{n}.example")
        self.found()
        for n in range(130):
            self.publish(None, f"d{n}.example")
        asked = self.fetch.asked.count(policy_url(DOMAIN))
        self.pass_time(2 * DAY)
        self.assertGreater(self.fetch.asked.count(policy_url(DOMAIN)), asked)

    def test_the_domains_are_bounded(self) -> None:
        self.patch(sts_keeper, "DOMAINS_MOST", 2)
        for n in range(4):
            self.announce("a", f"d{n}.example")
            self.publish(POLICY, f"d{n}.example")
            self.assertIsNotNone(self.found(f"d{n}.example").policy)
        self.assertEqual(self.keeper.counts()["sts_policies"], 2)


class PolicyHost(FetchCase):
    """The real client, against a real policy host with certificates of a CA of the test's."""

    async def policy(self, **changes: Any) -> STSAnswer:
        resolver = FakeResolver({
            "_mta-sts.stranger.example": {"TXT": ["v=STSv1; id=a1"]}, HOST: changes.pop("host", {"A": ["127.0.0.1"]}),
        })  # fmt: skip
        clock = Clock()
        fetch = changes.pop("fetch", None) or self.fetching(resolver=resolver, **changes).lend()
        self.keeper = STSKeeper(
            resolver=resolver,
            fetching=PolicyFetching(fetch, url=lambda domain: policy_url(domain).replace(HOST, f"{HOST}:{self.port}")),
            kept=KeptPolicies(MemoryState(clock), clock),
            clock=clock,
            seconds=clock.seconds,
        )
        return await self.keeper.find(DOMAIN)

    async def test_a_good_policy_is_in_force(self) -> None:
        self.site.script = answer(POLICY)
        found = await self.policy()
        assert found.policy is not None
        self.assertTrue(found.policy.matches("mx.stranger.example") and found.policy.matches("b.stranger.example"))
        self.assertFalse(found.policy.matches("mx.elsewhere.example") or found.policy.matches("a.b.stranger.example"))
        self.assertIn(b"GET /.well-known/mta-sts.txt HTTP/1.1", self.site.requests[0])

    async def test_nothing_else_is_a_policy(self) -> None:
        def typed(kind: str) -> Any:
            return lambda server: server.say(
                f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(POLICY)}\r\n\r\n".encode() + POLICY
            )

        for script, why, words in (
            (answer(POLICY, "301 Moved", f"Location: https://{HOST}/"), FETCH_ERROR, "301: a redirect, which is not followed"),
            (answer(POLICY, "308 Moved", f"Location: https://{HOST}/"), FETCH_ERROR, "308: a redirect"),
            (answer(POLICY, "404 Not Found"), FETCH_ERROR, "404"),
            (typed("text/html"), FETCH_ERROR, "text/html"),
            (answer(POLICY + b"x: " + b"y" * 65_536), FETCH_ERROR, "more than 65536 octets"),
            (answer(b"<html></html>"), POLICY_INVALID, "cannot be read"),
            (answer(POLICY.replace(b"enforce", b"maybe")), POLICY_INVALID, "mode"),
        ):
            self.site.script = script
            found = await self.policy()
            self.assertEqual((found.policy, found.why), (None, why))
            self.assertIn(words, found.detail)

    async def test_a_certificate_of_another_name_is_no_policy_host(self) -> None:
        self.listen(DOMAIN)
        found = await self.policy()
        self.assertEqual((found.policy, found.why, self.site.requests), (None, WEBPKI_INVALID, []))

    async def test_a_policy_host_in_a_private_network_is_not_asked(self) -> None:
        for address in ("127.0.0.1", "10.1.2.3", "192.168.0.1"):
            found = await self.policy(allow=NO_NETWORKS, host={"A": [address]})
            self.assertEqual((found.policy, found.why), (None, FETCH_ERROR))
            self.assertIn("not for the public", found.detail)
        self.assertEqual(self.site.connections, 0)

    async def test_a_slow_policy_host_is_a_failure(self) -> None:
        async def late(url: str, **_: Any) -> Any:
            raise FetchFailed(f"{HOST}: no whole answer within 60 seconds")

        found = await self.policy(fetch=late)
        self.assertEqual((found.policy, found.why), (None, FETCH_ERROR))
