"""A stop follows its account under a new name, its mail in the queue too; whoever gets the old name has neither."""

# mypy: disallow-untyped-calls=False
# (trial's assertions have no annotations)

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.filters.account_guard import factory
from mailserver.filters.account_names import AccountNames
from mailserver.filters.account_records import MovedAccount, key_of, read_moved
from mailserver.interfaces import CannotDo
from mailserver.mail.address import Address
from mailserver.mail.answers import Defer, Pass, Remote
from mailserver.mail.faults import StorageBroken
from mailserver.mail.outbound_answers import Postpone, Proceed
from mailserver.mail.parcel import Destination
from mailserver.testing import ComponentCase, FollowerContract
from tests.any_octets import any_octets
from tests.filters.test_account_guard import ABROAD, ALICE, BOB, DKIM, GuardCase

SMITH, DOMAIN = "smith@example.org", {"@example.org": "@example.com"}
RENAMED = {ALICE: SMITH}
NAMES = [f"{local}@{domain}" for local in "ab" for domain in ("x.example", "y.example")]


class Names(SynchronousTestCase):
    def test_mail_is_the_renamed_users_and_what_came_later_by_the_old_name_is_not(self) -> None:
        names = AccountNames([MovedAccount(10.0, ALICE, SMITH), MovedAccount(20.0, "@example.org", "@example.com")])
        self.assertEqual([names.owner(ALICE, at) for at in (9.0, 10.0, 20.0)], ["smith@example.com", "alice@example.com", ALICE])
        self.assertEqual([(one.login, one.bounds) for one in names.logins_of("smith@example.com")], [
            ("smith@example.com", {}), (SMITH, {"before": 20.0}), (ALICE, {"before": 10.0}),
        ])  # fmt: skip
        self.assertEqual([(one.login, one.bounds) for one in names.logins_of(ALICE)], [(ALICE, {"since": 20.0})])
        self.assertEqual([(one.login, one.bounds) for one in names.logins_of("root")], [("root", {})])

    @settings(max_examples=300, deadline=None)
    @given(
        st.lists(st.tuples(st.sampled_from([1.0, 2.0, 3.0, 4.0]), st.one_of(
            st.tuples(st.sampled_from(NAMES), st.sampled_from(NAMES)), st.just(("@x.example", "@y.example")),
        )).map(lambda one: MovedAccount(one[0], *one[1])), max_size=5, unique_by=lambda one: one.at),
        st.sampled_from(NAMES), st.sampled_from(NAMES), st.sampled_from([0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5]),
    )  # fmt: skip
    def test_the_logins_of_an_account_are_those_whose_mail_it_owns(
        self, moves: list[MovedAccount], login: str, account: str, at: float
    ) -> None:
        names = AccountNames([one for one in moves if one.old != one.new])
        found = any(one.login == login and one.since <= at < one.before for one in names.logins_of(account))
        self.assertEqual(found, names.owner(login, at) == account)

    @settings(max_examples=100, deadline=None)
    @given(any_octets(max_size=60))
    def test_a_damaged_rename_is_none(self, octets: bytes) -> None:
        moved = MovedAccount(5.25, ALICE, SMITH)
        self.assertEqual(read_moved(moved.key, moved.octets()), moved)
        for key in (moved.key, "moved", "moved\t", "x\ty\tz"):
            read_moved(key, octets)


class KeepsTheContract(FollowerContract, ComponentCase):
    def make(self) -> Any:
        return self.build(factory)

    async def keep(self, component: Any, account: str) -> None:
        await next(one.run for one in component.commands() if one.name == "lock")(account=account)


class RenameCase(GuardCase):
    def setUp(self) -> None:
        super().setUp()
        self.waiting_mail.waiting = {ALICE: 3, BOB: 2}

    def rename(self, accounts: Any = RENAMED, stages: Any = ("begin", "complete")) -> None:
        for stage in stages:
            self.answer(self.guard.accounts_renamed(accounts, stage))

    def facts(self) -> dict[str, bytes]:
        return {key: value for key, value, _ in self.answer(self.services.state.items())}

    @contextlib.contextmanager
    def cut_off(self, left: list[int]) -> Iterator[None]:
        """After so many changes of the records no more comes through."""
        kept = {verb: getattr(self.records, verb) for verb in ("put", "put_if_absent", "compare_and_put", "drop")}

        def counted(verb: str) -> Any:
            async def call(*arguments: Any) -> Any:
                left[0] -= 1
                if left[0] < 0:
                    raise StorageBroken("killed")
                return await kept[verb](*arguments)

            return call

        for verb in kept:
            setattr(self.records, verb, counted(verb))
        try:
            yield
        finally:
            for verb, method in kept.items():
                setattr(self.records, verb, method)

    def kept(self) -> dict[str, bytes]:
        return dict(self.answer(self.records.items()))


class Renamed(RenameCase):
    def test_who_is_stopped_is_so_under_the_new_name_and_the_old_one_is_free(self) -> None:
        self.order("lock", account=ALICE, why="stolen", by="root")
        self.rename()
        self.assertEqual(self.stopped, [SMITH])
        self.assertEqual(self.order("show", account=SMITH)["why"], "root has stopped it: stolen")
        self.assertEqual(self.order("show", account=ALICE), {})
        self.assertIsInstance(self.submit(SMITH), Defer)
        self.assertIsInstance(self.submit(ALICE), Pass)
        self.assertIsInstance(self.submit(BOB), Pass)
        self.make()  # over a restart
        self.assertEqual(self.stopped, [SMITH])

    def test_between_the_steps_both_names_are_stopped(self) -> None:
        self.order("lock", account=ALICE)
        self.rename(stages=["begin"])
        for name in (ALICE, SMITH):
            self.assertIsInstance(self.submit(name), Defer)

    def test_a_whole_domain_takes_all_its_stops_along(self) -> None:
        for one in (ALICE, BOB):
            self.order("lock", account=one)
        self.rename(DOMAIN)
        self.assertEqual(self.stopped, ["alice@example.com", "bob@example.com"])
        self.order("unlock", account="bob@example.com")
        self.assertEqual(self.waiting_mail.held, {ALICE: 3})

    def test_what_is_held_under_the_old_name_stays_so_and_is_released_with_the_new_one(self) -> None:
        self.order("lock", account=ALICE)
        self.assertEqual(self.waiting_mail.held, {ALICE: 3})
        self.clock.advance(5)
        self.rename()
        moved_at = self.clock.seconds()
        self.run_round()
        self.assertEqual(self.waiting_mail.held[ALICE], 3)
        self.order("unlock", account=SMITH, by="root")
        self.assertNotIn(ALICE, self.waiting_mail.held)
        self.assertIn(("release", ALICE, "root"), self.waiting_mail.done)
        self.assertEqual(self.waiting_mail.spans[self.waiting_mail.done.index(("release", ALICE, "root"))], (None, moved_at))

    def test_mail_that_came_by_the_old_name_does_not_leave_and_that_of_the_next_user_of_it_does(self) -> None:
        before = self.envelope_of(ALICE)
        self.order("lock", account=ALICE)
        self.clock.advance(5)
        self.rename()
        self.assertIsInstance(self.attempt(before), Postpone)
        self.assertIsInstance(self.leave(ALICE)[1], Proceed)
        self.waiting_mail.waiting[ALICE] = 1  # it was being delivered
        self.run_round()
        self.assertEqual(self.waiting_mail.held[ALICE], 4)
        self.order("unlock", account=SMITH)
        self.assertIsInstance(self.attempt(before), Proceed)

    def test_the_next_user_of_the_name_may_be_stopped_without_the_mail_of_the_former_one(self) -> None:
        self.clock.advance(5)
        self.rename()
        moved_at = self.clock.seconds()
        self.clock.advance(5)
        self.order("lock", account=ALICE)
        self.order("unlock", account=ALICE)
        self.assertEqual(self.waiting_mail.spans, [(moved_at, None)] * 2)

    def test_who_is_stopped_after_the_rename_has_the_mail_held_that_came_before(self) -> None:
        self.clock.advance(5)
        self.rename()
        self.order("lock", account=SMITH)
        self.assertEqual([one[1] for one in self.waiting_mail.done], [SMITH, ALICE])

    def test_a_connection_that_is_older_than_the_rename_goes_on_as_the_renamed_account(self) -> None:
        old, others = self.envelope_of(ALICE), self.envelope_of(BOB)
        self.order("lock", account=ALICE)
        self.assertIsInstance(self.judge(self.guard.judge_sender(old)), Defer)
        self.assertIsInstance(self.judge(self.guard.judge_sender(others)), Pass)
        self.clock.advance(5)
        self.rename()
        self.assertIsInstance(self.judge(self.guard.judge_sender(old)), Defer)
        self.assertIsInstance(self.judge(self.guard.judge_content(old, self.content())), Defer)
        self.assertIsInstance(self.judge(self.guard.judge_sender(others)), Pass)
        self.assertIsInstance(self.submit(ALICE), Pass)  # the next user of the name, on another connection
        self.order("unlock", account=SMITH)
        self.assertIsInstance(self.judge(self.guard.judge_sender(old)), Pass)

    def test_what_was_counted_and_learnt_follows(self) -> None:
        self.submit(ALICE, "somebody@elsewhere.example", address=ABROAD)
        self.leave(ALICE, "<sent@example.org>")
        before = self.facts()
        self.assertIn(ALICE.encode(), before.values())
        self.rename()
        wanted = {key.replace(ALICE, SMITH): value.replace(ALICE.encode(), SMITH.encode()) for key, value in before.items()}
        self.assertEqual(self.facts(), wanted)
        self.complain("<sent@example.org>", DKIM)
        self.assertIn(f"count\t{SMITH}\tcomplaints", self.facts())
        self.assertFalse([key for key in self.facts() if ALICE in key])

    def test_what_others_refuse_later_counts_for_the_new_name(self) -> None:
        id, _ = self.leave(ALICE)
        self.clock.advance(5)
        self.rename()
        self.step("failed", id, recipient="x@elsewhere.example", reply="550 5.7.1 Spam")
        self.assertIn(f"count\t{SMITH}\trefusals", self.facts())

    def test_taken_back_only_the_old_name_is_stopped_also_where_something_was_done_meanwhile(self) -> None:
        self.waiting_mail.busy = {ALICE: 1}
        self.order("lock", account=ALICE)
        self.rename(stages=["begin"])
        self.run_round(5)  # of the new name nothing is being delivered
        self.assertEqual([self.guard.book.stopped[one].is_held for one in (ALICE, SMITH)], [False, True])
        self.rename(stages=["undo"])
        self.assertEqual(self.stopped, [ALICE])
        self.run_round(5)
        self.assertEqual((self.stopped, [key for key in self.kept() if SMITH in key]), ([ALICE], []))

    def test_a_release_that_is_owed_follows(self) -> None:
        self.order("lock", account=ALICE)
        self.waiting_mail.failing = StorageBroken("the queue is away")
        self.order("unlock", account=ALICE)
        self.rename()
        self.waiting_mail.failing = None
        self.run_round(5)
        self.assertEqual((self.waiting_mail.held.get(ALICE), self.guard.book.released, self.stopped), (None, {}, []))

    def test_a_stop_that_could_not_be_written_lets_nobody_be_renamed(self) -> None:
        self.records.failing.add("put")
        with self.assertRaises(CannotDo):  # it is stopped until the server ends
            self.order("lock", account=ALICE)
        with self.assertRaises(StorageBroken):
            self.rename(stages=["begin"])
        self.records.failing.clear()
        self.rename()
        self.assertEqual(self.stopped, [SMITH])

    def test_cut_off_at_any_write_he_is_never_free_and_the_same_again_completes_it(self) -> None:
        for count in range(1, 30):
            if ALICE not in self.guard.book.stopped:
                self.order("lock", account=ALICE)
            left = [count]
            with self.cut_off(left):
                try:
                    self.rename()
                    failed = False
                except StorageBroken:
                    failed = True
            self.make()
            self.assertIsInstance(self.submit(SMITH if SMITH in self.guard.book.stopped else ALICE), Defer, count)
            self.rename()
            self.assertEqual(self.stopped, [SMITH], count)
            self.order("unlock", account=SMITH)
            if not failed:
                return
        self.fail("it never came to its end")

    def test_a_damaged_record_keeps_its_account_stopped_under_the_new_name(self) -> None:
        for key in (key_of("stopped", ALICE), f"moved\t{ALICE}\t1", "moved\t"):
            self.answer(self.records.put(key, b"{"))
        self.run_round()
        self.rename()
        self.assertEqual(self.stopped, [SMITH])

    def attempt(self, envelope: Any) -> Any:
        to = "friend@elsewhere.example"
        return self.answer(
            self.guard.before_attempt(envelope, self.content(), Destination(0, self.recipient(to), Remote(Address.parse(to))))
        )


class Removed(RenameCase):
    def test_a_removed_user_is_forgotten_and_the_next_one_of_the_name_is_free(self) -> None:
        for one in (ALICE, BOB):
            self.order("lock", account=one)
        self.submit(ALICE, address=ABROAD)
        self.answer(self.guard.account_removed(ALICE))
        self.assertEqual(self.stopped, [BOB])
        self.assertFalse([one for one in {**self.kept(), **self.facts()} if ALICE in one])
        self.assertIsInstance(self.submit(ALICE), Pass)
        self.assertEqual(self.waiting_mail.held, {ALICE: 3, BOB: 2})  # nobody has released it

    def test_what_is_kept_without_purge_is_the_stop(self) -> None:
        self.assertEqual(self.answer(self.guard.kept_of_account(ALICE)), 0)
        self.order("lock", account=ALICE)
        self.assertEqual(self.answer(self.guard.kept_of_account(ALICE)), 1)
        self.assertEqual(self.answer(self.guard.kept_of_account("@example.org")), 1)

    def test_of_a_renamed_user_his_former_names_go_too(self) -> None:
        self.rename()
        self.answer(self.guard.account_removed(SMITH))
        self.assertEqual(self.kept(), {})
