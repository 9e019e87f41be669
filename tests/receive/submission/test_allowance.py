"""How much an account may send."""

from __future__ import annotations

import os
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase

from mailserver.mail.address import Address
from mailserver.receive.submission.allowance import (
    KEY_SPACE,
    KNOWN_MOST,
    KNOWN_SPACE,
    SHARDS,
    USAGE_SPACE,
    Allowance,
    AllowanceLimits,
)
from mailserver.receive.submission.usage import DAY_SLOTS, HOUR_SLOTS, Sent, Usage
from mailserver.state_store import StateStore
from mailserver.testing.state import MemoryState
from tests.at_once import AtOnce, at_once
from tests.state_store.threads import new_threads

ALICE, BOB = "alice@example.org", "bob@example.org"
ANY = AllowanceLimits(0, 0, 0, 0, 0, 0)
T = 1_800_000_000.0
SENT = st.builds(Sent, st.integers(0, 1), st.integers(0, 9), st.integers(0, 9))


def limits(**some: int) -> AllowanceLimits:
    return AllowanceLimits(**{name: some.get(name, 0) for name in AllowanceLimits.__slots__})


class UsageOfSlots(SynchronousTestCase):
    @given(st.lists(st.tuples(st.floats(0, 3000), SENT), max_size=60))
    def test_no_hour_and_no_day_is_counted_short(self, events: list[tuple[float, Sent]]) -> None:
        usage, now, all_sent = Usage(), T, []
        for later, sent in events:
            now += later
            usage = usage.with_sent(now, sent)
            all_sent.append((now, sent))
            for seconds, slots in ((3600, HOUR_SLOTS), (86400, DAY_SLOTS)):
                counted = usage.within(now, slots)
                self.assertGreaterEqual(counted.recipients, sum(one.recipients for at, one in all_sent if at > now - seconds))
                slack = sum(one.recipients for at, one in all_sent if at > now - seconds - 600)
                self.assertLessEqual(counted.recipients, slack)
            self.assertLessEqual(len(usage.slots), 145)
            self.assertEqual(Usage.decode(usage.encode()), usage)

    @given(SENT)
    def test_what_is_taken_back_was_never_sent(self, sent: Sent) -> None:
        self.assertEqual(Usage().with_sent(T, sent).with_sent(T, sent, -1), Usage())

    def test_counts_never_leave_their_bounds(self) -> None:
        much = Sent(2**32 - 1, 5, 0)
        self.assertEqual(much.plus(much), Sent(2**32 - 1, 10, 0))
        self.assertEqual(Sent().plus(much, -1), Sent())
        self.assertRaises(ValueError, Usage.decode, b"x")


class AllowanceCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.rightNow = T
        self.state = MemoryState(self.clock)

    def allowance(self, **some: int) -> Any:
        return AtOnce(Allowance(clock=self.clock, spaces=self.state.space, limits=limits(**some)))

    def send(self, allowance: Any, *recipients: str, account: str = ALICE) -> str | None:
        """One message, the way that a transaction goes; the first limit that it meets."""
        claim = allowance.claim(account)
        found = claim.message()
        for recipient in recipients:
            found = found or claim.recipient(Address.parse(recipient))
        found = found or claim.charge()
        claim.settle(found is None)
        return found


class Limits(AllowanceCase):
    def test_the_message_above_the_hours_limit_waits_for_the_next_hour(self) -> None:
        allowance = self.allowance(messages_per_hour=3)
        self.assertEqual([self.send(allowance, "x@y.example") for _ in range(4)], [None] * 3 + ["3 messages within an hour"])
        self.assertIsNone(self.send(allowance, "x@y.example", account=BOB), "each account for itself")
        self.assertIsNotNone(self.send(allowance, "x@y.example", account="ALICE@example.org"))
        self.clock.advance(3600 + 600)
        self.assertIsNone(self.send(allowance, "x@y.example"))

    def test_the_days_limit_holds_over_hours(self) -> None:
        allowance, found = self.allowance(messages_per_day=5), []
        for _ in range(24):
            found.append(self.send(allowance, "x@y.example"))
            self.clock.advance(3600)
        self.assertEqual(found, [None] * 5 + ["5 messages within a day"] * 19)
        self.clock.advance(600)
        self.assertIsNone(self.send(allowance, "x@y.example"))

    def test_the_recipient_above_the_limit_is_told_and_the_others_may_go(self) -> None:
        allowance = self.allowance(recipients_per_hour=3)
        claim = allowance.claim(ALICE)
        told = [claim.recipient(Address(f"u{n}", "y.example")) for n in range(5)]
        self.assertEqual(told, [None] * 3 + ["3 recipients within an hour"] * 2)
        self.assertIsNone(claim.charge())

    def test_recipients_to_whom_the_account_has_written_are_not_new(self) -> None:
        allowance = self.allowance(new_recipients_per_hour=2)
        self.assertIsNone(self.send(allowance, "a@y.example", "b@y.example", "A@Y.example"))
        self.clock.advance(5000)
        self.assertIsNone(self.send(allowance, "a@y.example", "b@y.example", "c@y.example", "d@y.example"))
        self.assertEqual(self.send(allowance, "a@y.example", "e@y.example"), "2 new recipients within an hour")
        self.assertIsNone(self.send(allowance, "a@y.example", "b@y.example"))

    def test_after_30_days_without_a_message_a_recipient_is_new_again(self) -> None:
        allowance = self.allowance(new_recipients_per_day=1)
        self.assertIsNone(self.send(allowance, "a@y.example"))
        for _ in range(3):
            self.clock.advance(29 * 86400)
            self.assertIsNone(self.send(allowance, "a@y.example", f"{_}@y.example"), "each message begins the 30 days anew")
        self.clock.advance(30 * 86400)
        self.assertEqual(self.send(allowance, "a@y.example", "b@y.example"), "1 new recipients within a day")

    def test_refused_and_abandoned_messages_cost_nothing(self) -> None:
        allowance = self.allowance(messages_per_hour=1, new_recipients_per_hour=1)
        for _ in range(10):
            claim = allowance.claim(ALICE)  # RSET
            self.assertIsNone(claim.recipient(Address("a", "y.example")))
            claim.settle(False)
        for _ in range(10):
            claim = allowance.claim(ALICE)  # the store failed
            self.assertIsNone(claim.recipient(Address("a", "y.example")))
            self.assertIsNone(claim.charge())
            claim.settle(False)
            claim.settle(False)
        self.assertIsNone(self.send(allowance, "b@y.example"))
        self.assertIsNotNone(self.send(allowance, "b@y.example"))

    def test_many_connections_at_once_get_no_more_than_one(self) -> None:
        allowance = self.allowance(recipients_per_hour=10)
        claims = [allowance.claim(ALICE) for _ in range(50)]
        for claim in claims:
            self.assertEqual([claim.recipient(Address(f"u{n}", "y.example")) for n in range(5)], [None] * 5)
        self.assertEqual([claim.charge() for claim in claims].count(None), 2)

    def test_0_stands_for_any_number(self) -> None:
        allowance = AtOnce(Allowance(clock=self.clock, spaces=self.state.space, limits=ANY))
        self.assertEqual([self.send(allowance, "a@y.example") for _ in range(3000)], [None] * 3000)
        self.assertEqual(at_once(self.state.space(KNOWN_SPACE).items()), [], "nobody asks who is new")


class WhatIsKept(AllowanceCase):
    def test_known_recipients_are_bounded_and_the_latest_stay(self) -> None:
        allowance = self.allowance(new_recipients_per_day=10**6)
        tags = [allowance.tag(Address(f"u{n}", "y.example")) for n in range(30_000)]
        for start in range(0, len(tags), 1000):
            allowance.remember(ALICE, frozenset(tags[start : start + 1000]))
        sizes = [len(value) for _, value, _ in at_once(self.state.space(KNOWN_SPACE).items())]
        self.assertEqual((len(sizes), max(sizes)), (SHARDS, KNOWN_MOST * 8))
        self.assertFalse(any(allowance.is_new(ALICE, tag) for tag in tags[-10_000:]))
        self.assertTrue(all(allowance.is_new(ALICE, tag) for tag in tags[:5_000]))

    def test_no_address_is_in_the_state_and_another_installation_has_other_hashes(self) -> None:
        allowance = self.allowance(new_recipients_per_day=10)
        self.send(allowance, "secret-friend@y.example")
        spaces = (KNOWN_SPACE, KEY_SPACE, USAGE_SPACE)
        kept = b"".join(value for name in spaces for _, value, _ in at_once(self.state.space(name).items()))
        self.assertNotIn(b"friend", kept)
        friend = Address("secret-friend", "y.example")
        self.assertEqual(allowance.tag(friend), self.allowance().tag(friend))
        other = AtOnce(Allowance(clock=self.clock, spaces=MemoryState(self.clock).space, limits=ANY))
        self.assertNotEqual(allowance.tag(friend), other.tag(friend))


class OverARestart(TestCase):
    timeout = 30

    async def test_what_was_sent_and_to_whom_is_known_again(self) -> None:
        clock = Clock()
        clock.rightNow = T
        path = os.path.join(self.mktemp(), "state.db")
        os.makedirs(os.path.dirname(path))
        friend, stranger = Address("friend", "y.example"), Address("stranger", "y.example")
        for start in range(2):
            store = StateStore(path=path, clock=clock, new_threads=new_threads)
            some = limits(messages_per_hour=1, new_recipients_per_hour=1)
            allowance = AtOnce(Allowance(clock=clock, spaces=store.space, limits=some))
            await store.start()
            claim = allowance.claim(ALICE)
            if start == 0:
                self.assertIsNone(claim.recipient(friend))
                self.assertIsNone(claim.charge())
                claim.settle(True)
            else:
                self.assertEqual(claim.message(), "1 messages within an hour")
                clock.advance(4200)
                claim = allowance.claim(ALICE)
                self.assertIsNone(claim.message())
                self.assertIsNone(claim.recipient(stranger))
                self.assertIsNone(claim.recipient(friend))
            await store.stop()
