"""Who guesses passwords is kept out, and nobody else."""

from __future__ import annotations

import ipaddress
import os
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase

from mailserver.authentication.lockout.counting import LockoutRules
from mailserver.authentication.lockout.entries import LockoutSelection
from mailserver.authentication.lockout.lockout import Lockout, account_name
from mailserver.mail.networks import Networks
from mailserver.state_store import StateStore
from mailserver.testing.state import MemoryState
from tests.at_once import AtOnce, at_once
from tests.state_store.threads import new_threads

ALICE, BOB, PEER = "alice@example.org", "bob@example.org", "192.0.2.1"
NEVER = LockoutRules(account_failures=10**6, account_failures_everywhere=10**6, network_failures=10**6)
ALLOWED = Networks([ipaddress.ip_network("198.51.100.0/24")])


def refusal(lockout: Any, peer_address: str, account: str) -> str | None:
    """Why not even the right password gets in; None where it does."""
    standing = lockout.standing(peer_address, account)
    return None if standing.lets_in else standing.why


class LockoutCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.rightNow = 1_800_000_000.0
        self.state = MemoryState(self.clock)
        self.steps: list[dict[str, Any]] = []

    def lockout(self, rules: LockoutRules = LockoutRules(), **changes: Any) -> Any:
        lockout = Lockout(
            clock=self.clock, spaces=self.state.space, rules=rules, allow=ALLOWED, note=self.note, next_id=lambda: "ID", **changes
        )
        return AtOnce(lockout)

    def note(self, id: str, step: str, **fields: Any) -> None:
        self.steps.append({"id": id, "step": step, **fields})

    def guess(self, lockout: Any, count: int, *, peer: str = PEER, account: str = ALICE, first: int = 0) -> int:
        """Try wrong passwords as long as it is allowed; return how many were."""
        for n in range(count):
            if refusal(lockout, peer, account) is not None:
                return n
            lockout.failed(peer, account, b"wrong %d" % (first + n))
        return count


class HundredWrongPasswords(LockoutCase):
    def test_for_one_account_the_tenth_locks_it_out_there_for_a_quarter_of_an_hour(self) -> None:
        lockout = self.lockout()
        self.assertEqual(self.guess(lockout, 100), 10)
        self.assertEqual(refusal(lockout, PEER, ALICE), "the account is locked out from 192.0.2.1")
        self.assertIsNone(refusal(lockout, PEER, BOB))
        self.assertIsNone(refusal(lockout, "192.0.2.2", ALICE))
        (step,) = self.steps
        self.assertEqual(
            step,
            {
                "id": "ID", "step": "lockout", "scope": "account-from-network", "account": ALICE, "network": PEER,
                "failures": 10, "seconds": 900, "lockouts": 1,
            },
        )  # fmt: skip
        self.clock.advance(899)
        self.assertIsNotNone(refusal(lockout, PEER, ALICE))
        self.clock.advance(1)
        self.assertIsNone(refusal(lockout, PEER, ALICE))

    def test_in_a_day_one_network_gets_no_more_than_some_dozens_at_one_account(self) -> None:
        lockout, tried = self.lockout(), 0
        for _ in range(24 * 60):
            tried += self.guess(lockout, 100, first=tried)
            self.clock.advance(60)
        self.assertEqual(tried, 70, "10 each after 0, 15, 45, 105, 225 … minutes, as each lockout lasts twice as long")

    def test_for_many_accounts_the_thirtieth_locks_the_network_out(self) -> None:
        lockout = self.lockout()
        tried = sum(self.guess(lockout, 1, account=f"user{n}@example.org") for n in range(100))
        self.assertEqual(tried, 30)
        self.assertEqual(refusal(lockout, PEER, ""), "the network 192.0.2.1 is locked out")
        self.assertIsNone(refusal(lockout, "192.0.2.2", ""))

    def test_from_many_networks_the_hundredth_locks_the_account_where_it_was_not_used(self) -> None:
        lockout = self.lockout()
        lockout.succeeded("203.0.113.9", ALICE)
        tried = sum(self.guess(lockout, 1, peer=f"192.0.2.{n}", first=n) for n in range(200))
        self.assertEqual(tried, 100)
        self.assertIsNotNone(refusal(lockout, "192.0.2.250", ALICE))
        self.assertIsNone(refusal(lockout, "203.0.113.9", ALICE), "where alice has logged in before")
        self.assertIsNone(refusal(lockout, "192.0.2.250", BOB))

    def test_the_answers_become_slower(self) -> None:
        lockout = self.lockout()
        waits = [lockout.failed(PEER, ALICE, b"wrong %d" % n) for n in range(10)]
        self.assertEqual(waits, [1, 2, 4, 5, 5, 5, 5, 5, 5, 5])
        self.assertEqual(lockout.failed(PEER, BOB, b"wrong"), 1, "one who mistypes in an office slows down nobody else")
        self.assertEqual([lockout.failed(PEER, "nobody", b"wrong %d" % n) for n in range(3)], [1, 2, 4], "existing or not")
        self.assertEqual(lockout.failed("192.0.2.2", ALICE, b"wrong"), 1)

    def test_all_at_once_gain_nothing(self) -> None:
        lockout = self.lockout()
        for n in range(50):  # were all allowed to try before the first has failed
            lockout.failed(PEER, ALICE, b"wrong %d" % n)
        self.assertEqual([one["lockouts"] for one in self.steps if one["scope"] == "account-from-network"], [1, 2, 3])
        self.clock.advance(3600 - 1)
        self.assertIsNotNone(refusal(lockout, PEER, ALICE))


class WhoIsKnown(LockoutCase):
    def locked_office(self, **changes: Any) -> Lockout:
        """Alice logs in there every day; somebody has tried thirty names."""
        lockout = self.lockout(**changes)
        lockout.succeeded(PEER, ALICE)
        for n in range(30):
            lockout.failed(PEER, f"user{n}@example.org", b"wrong")
        return lockout

    def test_thirty_wrong_names_of_an_office_keep_nobody_out_who_logs_in_from_there(self) -> None:
        lockout = self.locked_office()
        self.assertIsNone(refusal(lockout, PEER, ALICE))
        for name in (BOB, "nobody", ""):
            self.assertEqual(refusal(lockout, PEER, name), "the network 192.0.2.1 is locked out")

    def test_from_a_locked_network_a_pair_is_locked_after_its_ten_whoever_it_is(self) -> None:
        for name in (ALICE, BOB, "nobody"):
            lockout = self.locked_office()
            for n in range(10):
                self.assertEqual(lockout.standing(PEER, name).lets_in, name == ALICE)
                lockout.failed(PEER, name, b"wrong %d" % n)
            self.assertFalse(lockout.standing(PEER, name).lets_in)
            self.assertFalse(lockout.standing(PEER, name).refuses, "it is told like any other failure there")
            lockout.failed(PEER, name, b"one more does not make it longer")
            self.clock.advance(899)
            self.assertIsNotNone(refusal(lockout, PEER, name))
            self.clock.advance(1)
            self.assertIsNone(refusal(lockout, PEER, name))
            self.setUp()

    def test_failures_from_a_locked_network_wait_alike_and_do_not_lock_it_for_longer(self) -> None:
        lockout = self.locked_office()
        waits = {lockout.failed(PEER, name, b"wrong %d" % n) for n in range(20) for name in (ALICE, BOB, "nobody", "")}
        self.assertEqual(waits, {5.0})
        self.clock.advance(900)
        self.assertFalse(lockout.standing(PEER, "carol").is_guarded)

    def test_where_an_account_is_locked_out_everywhere_nobody_sees_which_networks_know_it(self) -> None:
        lockout = self.lockout(LockoutRules(account_failures_everywhere=1))
        lockout.succeeded(PEER, ALICE)
        lockout.failed("203.0.113.1", ALICE, b"x")
        known, other = lockout.standing(PEER, ALICE), lockout.standing("192.0.2.2", ALICE)
        self.assertEqual((known.lets_in, other.lets_in), (True, False))
        self.assertEqual((known.is_guarded, known.answer_seconds), (other.is_guarded, other.answer_seconds))


class WhatCounts(LockoutCase):
    def test_a_program_with_an_old_password_is_never_locked_out(self) -> None:
        lockout = self.lockout()
        for _ in range(1000):
            lockout.failed(PEER, ALICE, b"last year's")
            self.assertIsNone(refusal(lockout, PEER, ALICE))
            self.clock.advance(60)

    def test_where_the_mechanism_shows_nothing_each_failure_counts(self) -> None:
        lockout = self.lockout()
        for _ in range(10):
            lockout.failed(PEER, ALICE, b"")
        self.assertIsNotNone(refusal(lockout, PEER, ALICE))

    def test_one_password_tried_on_many_accounts_is_many_failures_of_the_network(self) -> None:
        lockout = self.lockout()
        for n in range(30):
            lockout.failed(PEER, f"user{n}@example.org", b"123456")
        self.assertIsNotNone(refusal(lockout, PEER, ALICE))

    def test_an_ipv6_network_counts_as_one(self) -> None:
        lockout = self.lockout()
        for n in range(10):
            lockout.failed(f"2001:db8::{n:x}", ALICE, b"wrong %d" % n)
        self.assertEqual(refusal(lockout, "2001:db8::ffff", ALICE), "the account is locked out from 2001:db8::/64")
        self.assertIsNone(refusal(lockout, "2001:db8:0:1::1", ALICE))

    def test_the_ways_to_write_an_account_are_one_account(self) -> None:
        lockout = self.lockout()
        for n in range(10):
            lockout.failed(PEER, "ALICE@Example.ORG" if n % 2 else ALICE, b"wrong %d" % n)
        self.assertIsNotNone(refusal(lockout, PEER, "Alice@example.org"))
        self.assertEqual(account_name("user@bücher.example"), account_name("USER@xn--bcher-kva.example"))

    def test_any_name_of_a_stranger_is_bounded_and_fit_for_a_database(self) -> None:
        for name in ("x" * 10**6, "\ud800", "a b@c", "\0", "@", "a@\ud800", "a@" + "é" * 300):
            key = account_name(name)
            key.encode()
            self.assertLessEqual(len(key), 330)

    def test_success_forgets_what_this_network_did_to_this_account_and_nothing_else(self) -> None:
        lockout = self.lockout(LockoutRules(account_failures_everywhere=15))
        for n in range(9):
            lockout.failed(PEER, ALICE, b"wrong %d" % n)
            lockout.failed(PEER, BOB, b"wrong %d" % n)
            lockout.failed("192.0.2.2", ALICE, b"other %d" % n)
        lockout.succeeded(PEER, ALICE)
        counts = {
            (one.account, one.network): one.failures for one in lockout.entries(LockoutSelection(), locked_only=False) if one.failures
        }
        self.assertEqual(
            counts,
            {
                (BOB, PEER): 9, (BOB, ""): 9, ("", PEER): 9,
                (ALICE, "192.0.2.2"): 9, ("", "192.0.2.2"): 7,
            },
            "alice was locked out everywhere by the 15th failure, and what the other network made after it is held against it there",
        )  # fmt: skip

    def test_unix_sockets_and_local_programs_are_never_locked_out(self) -> None:
        lockout = self.lockout()
        for peer in ("unix", "local"):
            self.assertEqual([lockout.failed(peer, ALICE, b"") for _ in range(200)], [1.0] * 200)
            self.assertIsNone(refusal(lockout, peer, ALICE))
        self.assertEqual(lockout.entries(LockoutSelection(), locked_only=False), [])

    def test_a_known_network_is_known_for_30_days(self) -> None:
        lockout = self.lockout(LockoutRules(account_failures_everywhere=1, window_seconds=60))
        lockout.succeeded(PEER, ALICE)
        lockout.failed("192.0.2.2", ALICE, b"x")
        self.assertIsNone(refusal(lockout, PEER, ALICE))
        self.clock.advance(31 * 86400)
        lockout.failed("192.0.2.2", ALICE, b"y")
        self.assertIsNotNone(refusal(lockout, PEER, ALICE))

    def test_a_guess_that_another_login_overtakes_is_counted_all_the_same(self) -> None:
        lockout = self.lockout()
        pair, quicker = self.state.space("lockout.pair"), 5
        compare_and_put = pair.compare_and_put

        async def overtaken(*arguments: Any) -> bool:
            nonlocal quicker
            if quicker:
                quicker -= 1
                lockout.failed(PEER, ALICE, b"another %d" % quicker)
            return await compare_and_put(*arguments)

        pair.compare_and_put = overtaken  # type: ignore[method-assign]
        lockout.failed(PEER, ALICE, b"wrong")
        [entry] = [one for one in lockout.entries(LockoutSelection(), locked_only=False) if one.scope == "account-from-network"]
        self.assertEqual(entry.failures, 6)

    def test_no_password_is_in_the_state(self) -> None:
        lockout = self.lockout()
        lockout.failed(PEER, ALICE, b"correct horse battery staple")
        values = self.kept(self.state)
        self.assertNotIn(b"correct", values)
        other = MemoryState(self.clock)
        AtOnce(Lockout(clock=self.clock, spaces=other.space, rules=LockoutRules())).failed(PEER, ALICE, b"correct horse battery staple")
        self.assertNotEqual(values, self.kept(other), "the hash is keyed")

    def kept(self, state: MemoryState) -> bytes:
        spaces = ("lockout.pair", "lockout.account", "lockout.network", "lockout.known")
        return b"".join(value for name in spaces for _, value, _ in at_once(state.space(name).items()))


PEERS = st.sampled_from([PEER, "192.0.2.2", "2001:db8::1", "198.51.100.1", "::ffff:198.51.100.7", "unix", "local"])
EVENTS = st.tuples(
    st.sampled_from(["failed", "succeeded", "wait"]), PEERS, st.sampled_from([ALICE, BOB, ""]), st.sampled_from([b"", b"a", b"b", b"c"])
)


class WhateverHappens(LockoutCase):
    def play(self, lockout: Lockout, events: list[Any]) -> None:
        for what, peer, account, evidence in events:
            if what == "failed":
                lockout.failed(peer, account, evidence)
            elif what == "succeeded" and refusal(lockout, peer, account) is None:
                lockout.succeeded(peer, account)
            elif what == "wait":
                self.clock.advance(600)

    TIGHT = LockoutRules(account_failures=2, account_failures_everywhere=3, network_failures=3)

    @given(st.lists(EVENTS, max_size=80))
    def test_an_allowed_network_is_never_locked_out(self, events: list[Any]) -> None:
        self.setUp()
        lockout = self.lockout(self.TIGHT)
        self.play(lockout, events)
        for peer in ("198.51.100.1", "::ffff:198.51.100.7", "unix", "local"):
            self.assertIsNone(refusal(lockout, peer, ALICE))

    @given(st.lists(EVENTS, max_size=80), PEERS)
    def test_success_always_begins_the_count_anew(self, events: list[Any], peer: str) -> None:
        self.setUp()
        lockout = self.lockout(LockoutRules(account_failures=3, account_failures_everywhere=3, network_failures=10**6))
        self.play(lockout, events)
        if refusal(lockout, peer, ALICE) is None:
            lockout.succeeded(peer, ALICE)
            for n in range(2):
                lockout.failed(peer, ALICE, b"new %d" % n)
                self.assertIsNone(refusal(lockout, peer, ALICE))

    @given(st.lists(EVENTS, max_size=60))
    def test_a_restart_changes_nothing(self, events: list[Any]) -> None:
        self.setUp()
        lockout = self.lockout(self.TIGHT, key=b"k")
        for event in events:
            self.play(lockout, [event])
            again = self.lockout(self.TIGHT, key=b"k")
            for peer in (PEER, "192.0.2.2", "2001:db8::1"):
                for account in (ALICE, BOB, ""):
                    self.assertEqual(refusal(lockout, peer, account), refusal(again, peer, account))

    @given(st.lists(EVENTS, max_size=60))
    def test_every_lockout_ends_and_can_be_cleared(self, events: list[Any]) -> None:
        self.setUp()
        lockout = self.lockout(self.TIGHT)
        self.play(lockout, events)
        lockout.clear(LockoutSelection())
        for peer in (PEER, "192.0.2.2", "2001:db8::1"):
            self.assertIsNone(refusal(lockout, peer, ALICE))
        self.play(lockout, events)
        self.clock.advance(86400)
        for peer in (PEER, "192.0.2.2", "2001:db8::1"):
            self.assertIsNone(refusal(lockout, peer, ALICE))


class ForTheAdministrator(LockoutCase):
    def test_lockouts_are_listed_and_cleared_by_account_and_network(self) -> None:
        lockout = self.lockout()
        self.guess(lockout, 10)
        self.guess(lockout, 10, account=BOB)
        self.guess(lockout, 10, peer="2001:db8::1")
        self.guess(lockout, 3, account="carol@example.org", peer="203.0.113.1")
        found = {(one.account, one.network) for one in lockout.entries(LockoutSelection())}
        self.assertEqual(found, {(ALICE, PEER), (BOB, PEER), (ALICE, "2001:db8::/64")})
        self.assertEqual(len(lockout.entries(LockoutSelection(account=BOB), locked_only=False)), 2, "there, and everywhere")
        self.assertEqual([one.account for one in lockout.entries(LockoutSelection(network="2001:db8::7"))], [ALICE])
        cleared = lockout.clear(LockoutSelection(account=ALICE, network="192.0.2.0/24"), by="root")
        self.assertEqual([(one.account, one.network) for one in cleared], [(ALICE, PEER)])
        self.assertIsNone(refusal(lockout, PEER, ALICE))
        self.assertIsNotNone(refusal(lockout, "2001:db8::1", ALICE))
        self.assertEqual((self.steps[-1]["step"], self.steps[-1]["by"]), ("lockout_cleared", "root"))

    def test_what_is_cleared_makes_no_later_lockout_longer(self) -> None:
        lockout = self.lockout()
        self.guess(lockout, 10)
        self.clock.advance(901)  # the lockout is over, and remembered for a day
        [entry] = [one for one in lockout.entries(LockoutSelection(), locked_only=False) if one.network == PEER and one.account]
        self.assertEqual((entry.failures, entry.locked_until, entry.lockouts), (0, 0.0, 1))
        self.assertIn(entry, lockout.clear(LockoutSelection(account=ALICE)))
        self.assertEqual(lockout.entries(LockoutSelection(account=ALICE), locked_only=False), [])
        now = self.clock.seconds()
        self.guess(lockout, 10)
        [again] = lockout.entries(LockoutSelection(account=ALICE))
        self.assertEqual((again.lockouts, again.locked_until - now), (1, 900.0))

    def test_a_lockout_of_the_day_before_is_listed_no_more(self) -> None:
        lockout = self.lockout()
        self.guess(lockout, 10)
        self.clock.advance(900 + 86400)
        self.assertEqual(lockout.entries(LockoutSelection(), locked_only=False), [])


class OverARestart(TestCase):
    timeout = 30

    async def test_lockouts_counts_and_known_networks_are_there_again(self) -> None:
        clock = Clock()
        clock.rightNow = 1_800_000_000.0
        path = os.path.join(self.mktemp(), "state.db")
        os.makedirs(os.path.dirname(path))

        async def begun() -> tuple[StateStore, Any]:
            store = StateStore(path=path, clock=clock, new_threads=new_threads)
            lockout = Lockout(clock=clock, spaces=store.space, rules=LockoutRules())
            await store.start()
            return store, AtOnce(lockout)

        store, lockout = await begun()
        lockout.succeeded("203.0.113.9", ALICE)
        for n in range(100):
            lockout.failed(f"192.0.2.{n}", ALICE, b"wrong %d" % n)
        for n in range(9):
            lockout.failed(PEER, BOB, b"wrong %d" % n)
        await store.stop()
        store, lockout = await begun()
        self.assertIsNotNone(refusal(lockout, "192.0.2.250", ALICE))
        self.assertIsNone(refusal(lockout, "203.0.113.9", ALICE))
        self.assertIsNone(refusal(lockout, PEER, BOB))
        lockout.failed(PEER, BOB, b"the tenth")
        self.assertIsNotNone(refusal(lockout, PEER, BOB))
        await store.stop()
