"""What filters keep of users follows when accounts are renamed or removed: theirs, all of it, and nobody else's."""

from __future__ import annotations

import os
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from mailserver.filters import contacts, lists, scores, subaddresses
from mailserver.filters.bayes import factory
from mailserver.filters.followed_names import FollowedNames
from mailserver.mail.faults import StorageBroken
from mailserver.testing import ComponentCase, FilterCase, FollowerContract
from tests.filters.test_bayes import BayesCase

ALICE, SMITH, BOB, CAROL = "alice@example.org", "smith@example.org", "bob@example.org", "carol@example.net"
RENAMED = {ALICE: SMITH}


class Names(SynchronousTestCase):
    def test_a_user_is_renamed_with_his_details_and_nobody_else_is(self) -> None:
        names = FollowedNames(RENAMED, "+")
        self.assertEqual(names.after("alice+shop@example.org"), "smith+shop@example.org")
        self.assertEqual([names.after(one) for one in (ALICE, SMITH)], [SMITH, None])
        for other in (BOB, "alice@example.net", "alicia@example.org", "@example.org", "", "alice", "+alice@example.org"):
            self.assertIsNone(names.after(other), other)
        self.assertIsNone(FollowedNames(RENAMED, "").after("alice+shop@example.org"))

    def test_a_domain_is_renamed_with_all_that_is_in_it(self) -> None:
        names = FollowedNames({"@example.org": "@example.com"}, "+")
        self.assertEqual(names.after("@example.org"), "@example.com")
        self.assertEqual(names.after("alice+x@example.org"), "alice+x@example.com")
        self.assertIsNone(names.after("alice@sub.example.org"))

    @settings(max_examples=100, deadline=None)
    @given(st.text(max_size=20))
    def test_whatever_stands_in_a_key_raises_nothing(self, text: str) -> None:
        FollowedNames({ALICE: SMITH, "@example.org": "@example.com"}, "+").after(text)
        FollowedNames(RENAMED, "").locals_after(text)


class FollowingCase(FilterCase):
    """Each filter has something of three users, of the domain and of the site."""

    def made(self, module: Any, **options: Any) -> Any:
        component = self.build(module.factory, **options)
        if hasattr(component, "start"):
            self.answer(component.start())
        return component

    def run_command(self, component: Any, command: str, **arguments: Any) -> Any:
        return self.answer(next(one.run for one in component.commands() if one.name == command)(**arguments))

    def rename(self, component: Any, accounts: Any = RENAMED, stages: Any = ("begin", "complete")) -> None:
        for stage in stages:
            self.answer(component.accounts_renamed(accounts, stage))

    def kept(self) -> dict[str, bytes]:
        return dict(self.answer(self.services.records.items()))

    def facts(self) -> dict[str, bytes]:
        return {key: value for key, value, _ in self.answer(self.services.state.items())}

    def renamed(self, found: dict[str, bytes]) -> dict[str, bytes]:
        return {key.replace("alice", "smith"): value.replace(b"alice", b"smith") for key, value in found.items()}

    def filled(self, module: Any) -> Any:
        """The filter, with something in its records under each of the users' names."""
        component = self.made(module)
        records, state = self.services.records, self.services.state
        if module is lists:
            for scope in (ALICE, "alice+shop@example.org", BOB, CAROL, "@example.org", "site"):
                self.run_command(component, "add", colour="white", entry="friend.example", scope=scope)
            self.answer(state.put(f"hits\t{ALICE}\tdomain\tfriend.example", b"7", 500.0))
            self.answer(state.put(f"hits\t{BOB}\tdomain\tfriend.example", b"3", 500.0))
        elif module is scores:
            for scope in (ALICE, BOB, CAROL, "@example.org"):
                self.run_command(component, "set", scope=scope, junk="3")
        elif module is subaddresses:
            for one in (ALICE, BOB, CAROL):
                self.run_command(component, "close", address=one.replace("@", "+shop@"))
                self.answer(state.put(f"refused\t{one}\tshop", b"4", 500.0))
        else:
            for one in (ALICE, BOB, CAROL):
                for key, value in (
                    (f"contact\t{one}\taddress:friend@far.example", b'{"is": "accepted", "at": 1.0}'),
                    (f"hold\t{one}", b'{"hold": true}'),
                    (f"expected\t{one}\tshop.example", b'{"until": 9000000000.0, "at": 1.0}'),
                    (f"order\t{one}\taddress:friend@far.example", b'{"verb": "release", "at": 1.0}'),
                    (f"token\tabc{one[0]}", f'{{"user": "{one}", "sender": "address:x@y.example", "until": 9000000000.0}}'.encode()),
                    (f"digest\t{one}", b'{"at": 1.0}'),
                ):
                    self.answer(records.put(key, value))
                self.answer(state.put(f"written\t{one}\taddress:friend@far.example", b"1", 500.0))
            self.answer(component._book.read())
        return component


MODULES = (lists, scores, subaddresses, contacts)


class Following(FollowingCase):
    def each(self) -> Any:
        """Each filter, filled, what it keeps, and nothing of the one before."""
        for module in MODULES:
            component = self.filled(module)
            before, facts = self.kept(), self.facts()
            self.assertTrue(before)
            yield component, before, facts
            for key in self.kept():
                self.answer(self.services.records.drop(key))
            for key in self.facts():
                self.answer(self.services.state.drop(key))

    def test_all_of_a_user_follows_and_nothing_of_others_is_touched(self) -> None:
        for component, before, facts in self.each():
            self.rename(component)
            after = self.kept()
            self.assertEqual(after, self.renamed(before))
            self.assertEqual(self.facts(), self.renamed(facts))
            self.assertEqual((self.answer(component.kept_of_account(ALICE)), self.answer(component.kept_of_account(SMITH)) > 0), (0, True))

    def test_between_the_steps_both_names_have_all_of_it(self) -> None:
        for component, before, _ in self.each():
            self.rename(component, stages=["begin"])
            kept = self.kept()
            for key, value in before.items():
                self.assertEqual(kept[key], value)
                if not key.startswith("token\t"):  # that one has one user
                    self.assertEqual(kept[key.replace("alice", "smith")], value)

    def test_taken_back_all_is_as_it_was(self) -> None:
        for component, before, facts in self.each():
            self.rename(component, stages=["begin", "undo"])
            self.assertEqual((self.kept(), self.facts()), (before, facts))
            self.rename(component, stages=["undo"])
            self.assertEqual((self.kept(), self.facts()), (before, facts))

    def test_done_again_it_changes_nothing_more(self) -> None:
        for component, _, _ in self.each():
            self.rename(component)
            after = self.kept(), self.facts()
            self.rename(component, stages=["begin", "complete", "complete"])
            self.assertEqual((self.kept(), self.facts()), after)

    def test_a_removed_user_leaves_nothing_and_the_others_all(self) -> None:
        for component, before, facts in self.each():
            self.answer(component.account_removed(ALICE))
            self.assertEqual(self.kept(), {key: value for key, value in before.items() if "alice" not in key and b"alice@" not in value})
            self.assertEqual(self.facts(), {key: value for key, value in facts.items() if "alice" not in key})

    def test_a_renamed_domain_takes_its_rules_and_its_users_along(self) -> None:
        for component, before, _ in self.each():
            self.rename(component, {"@example.org": "@example.com"})
            self.assertEqual(set(self.kept()), {key.replace("@example.org", "@example.com") for key in before})

    def test_cut_off_at_any_record_nothing_is_lost_and_the_same_again_completes_it(self) -> None:
        for component, before, _ in self.each():
            wanted = set(self.renamed(before))
            for count in range(1, 60):
                records, left = component._followed._kept[0][0]._records, [count]

                class CutOff:
                    def __getattr__(self, verb: str, records: Any = records, left: Any = left) -> Any:
                        def call(*arguments: Any, **named: Any) -> Any:
                            if verb != "items":
                                left[0] -= 1
                                if left[0] < 0:
                                    raise StorageBroken("killed")
                            return getattr(records, verb)(*arguments, **named)

                        return call

                component._followed._kept[0][0]._records = CutOff()
                failed = False
                try:
                    for stage in ("begin", "complete"):
                        self.answer(component.accounts_renamed(RENAMED, stage))
                except StorageBroken:
                    failed = True
                component._followed._kept[0][0]._records = records
                now = set(self.kept())
                for key in before:
                    self.assertTrue(key in now or key.replace("alice", "smith") in now, (key, count))
                self.rename(component)
                self.assertEqual(set(self.kept()), wanted)
                self.rename(component, {SMITH: ALICE})
                if not failed:
                    break
            self.assertFalse(failed)

    def test_what_stands_in_memory_follows_at_once(self) -> None:
        listed = self.filled(lists)
        self.rename(listed)
        rows = self.run_command(listed, "show", scope=SMITH)
        self.assertEqual(([row["entry"] for row in rows], self.run_command(listed, "show", scope=ALICE)), (["domain:friend.example"], []))
        self.assertEqual(rows[0].get("hits"), 7)

    def test_contacts_in_memory_are_the_new_names_at_once_and_a_new_user_of_the_old_name_has_none(self) -> None:
        component = self.filled(contacts)
        self.assertTrue(self.answer(component._book.contacts_of(ALICE)))
        self.assertFalse(self.answer(component._book.contacts_of(SMITH)))
        self.rename(component)
        self.assertEqual((self.answer(component._book.contacts_of(ALICE)), component._book.holds.get(ALICE)), ({}, None))
        self.assertTrue(self.answer(component._book.contacts_of(SMITH)))
        self.assertEqual((component._book.holds[SMITH], list(component._book.windows[SMITH])), (True, ["shop.example"]))

    def test_what_the_user_has_decided_stands_over_what_a_former_holder_of_the_new_name_had(self) -> None:
        component = self.made(scores)
        self.run_command(component, "set", scope=ALICE, junk="3")
        self.run_command(component, "set", scope=SMITH, junk="4")
        self.rename(component)
        self.assertEqual(self.kept(), {SMITH: b'{"junk": 3.0}'})

    def test_facts_end_when_they_would_have_ended(self) -> None:
        component = self.filled(subaddresses)
        self.clock.advance(300.0)
        self.rename(component)
        self.clock.advance(199.0)
        self.assertIn(f"refused\t{SMITH}\tshop", self.facts())
        self.clock.advance(2.0)
        self.assertNotIn(f"refused\t{SMITH}\tshop", self.facts())

    def test_more_records_than_a_page_follow(self) -> None:
        component = self.made(contacts)
        for n in range(1200):
            self.answer(self.services.records.put(f"contact\t{ALICE}\taddress:a{n}@far.example", b'{"is": "written"}'))
        self.rename(component)
        self.assertEqual({key.split("\t")[1] for key in self.kept()}, {SMITH})
        self.assertEqual(self.answer(component.kept_of_account(SMITH)), 1200)

    def test_records_that_are_damaged_stop_nothing(self) -> None:
        component = self.filled(contacts)
        for key, value in (("token\tx", b"{"), ("contact", b""), ("odd\t\t", b"[]"), ("token\ty", b"[1]")):
            self.answer(self.services.records.put(key, value))
        self.rename(component)
        self.answer(component.account_removed(BOB))
        self.assertEqual(self.kept()["token\tx"], b"{")


class OrderedCase(FollowerContract, ComponentCase):
    """Filled by the commands that people type."""

    module: Any = lists
    order: Any = ("add", {"colour": "white", "entry": "friend.example"}, "scope")

    def make(self) -> Any:
        return self.build(self.module.factory)

    async def keep(self, component: Any, account: str) -> None:
        name, arguments, of = self.order
        value = account.replace("@", "+shop@") if of == "address" else account
        await next(one.run for one in component.commands() if one.name == name)(**arguments, **{of: value})


class ListsKeepTheContract(OrderedCase):
    pass


class ScoresKeepTheContract(OrderedCase):
    module = scores
    order = ("set", {"junk": "3"}, "scope")


class SubaddressesKeepTheContract(OrderedCase):
    module = subaddresses
    order = ("close", {}, "address")


class ContactsKeepTheContract(OrderedCase):
    module = contacts

    async def keep(self, component: Any, account: str) -> None:
        await component._book.learn(account, ["address:friend@far.example"])


del OrderedCase  # is none by itself


class Learning(BayesCase):
    def owners(self, component: Any) -> dict[str, int]:
        return {one["owner"]: one["tokens"] for one in self.answer(component._learnt.owners())}

    def both(self, component: Any) -> dict[str, int]:
        for user in (ALICE, BOB, ""):
            self.both_taught(component, 6, user)
        return self.owners(component)

    def rename(self, component: Any, *stages: str, accounts: Any = RENAMED) -> None:
        for stage in stages:
            self.answer(Deferred.fromCoroutine(component.accounts_renamed(accounts, stage)))

    def test_what_a_user_has_learnt_follows_and_that_of_others_stays(self) -> None:
        component = self.made()
        before = self.both(component)
        self.rename(component, "begin")
        self.assertEqual(self.owners(component), {**before, SMITH: before[ALICE]})
        self.rename(component, "complete")
        wanted = {SMITH if name == ALICE else name: count for name, count in before.items()}
        self.assertEqual(self.owners(component), wanted)
        self.rename(component, "complete", "begin", "complete")
        self.assertEqual(self.owners(component), wanted)
        self.assertEqual(self.answer(component.kept_of_account(SMITH)), 12)

    def test_taken_back_it_is_as_it_was(self) -> None:
        component = self.made()
        before = self.both(component)
        self.rename(component, "begin", "undo", "undo")
        self.assertEqual(self.owners(component), before)

    def test_what_is_learnt_anew_under_the_old_name_does_not_replace_what_has_followed(self) -> None:
        component = self.made()
        self.both(component)
        self.rename(component, "begin", "complete")
        before = self.owners(component)
        self.taught(component, "spam", [self.corpus.message("spam")], ALICE)
        self.rename(component, "complete")
        self.assertEqual(self.owners(component), before)

    def test_without_a_file_there_is_nothing_to_follow_and_one_that_is_damaged_is_told(self) -> None:
        component = self.build(factory)  # it was not started: nobody has learnt anything
        self.rename(component, "begin", "complete", "undo")
        self.answer(component.account_removed(ALICE))
        self.assertEqual(self.answer(component.kept_of_account(ALICE)), 0)
        with open(os.path.join(self.folder, "bayes.db"), "wb") as file:
            file.write(b"no database" * 1000)
        damaged = self.made()
        for call in (damaged.accounts_renamed(RENAMED, "begin"), damaged.account_removed(ALICE), damaged.kept_of_account(ALICE)):
            self.failureResultOf(Deferred.fromCoroutine(call), StorageBroken)

    def test_a_removed_user_leaves_nothing_and_the_others_all(self) -> None:
        component = self.made()
        before = self.both(component)
        self.answer(component.account_removed(ALICE))
        del before[ALICE]
        self.assertEqual(self.owners(component), before)

    def test_where_maildirs_have_no_domain_in_their_paths_the_name_alone_follows_too(self) -> None:
        component = self.made(maildirs=self.folder + "/mail/{user}")
        self.taught(component, "spam", [self.corpus.message("spam")], "alice")
        self.rename(component, "begin", "complete")
        self.assertEqual(list(self.owners(component)), ["smith"])
