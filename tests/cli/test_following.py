"""What filters keep of users follows ``user rename`` and ``domain rename``, and goes with ``user remove --purge``: without a server."""

from __future__ import annotations

import json
import os
from typing import Any

from mailserver.cli import following, renaming
from mailserver.filters.lists import Lists
from tests.cli.support import CONFIGURATION, CommandCase, Said

ALICE, SMITH, BOB, CAROL = "alice@example.org", "smith@example.org", "bob@example.org", "carol@example.org"
FILTERS = """\
[[filter]]
use = "lists"
[[filter]]
use = "contacts"
[[filter]]
use = "subaddresses"
[[filter]]
use = "scores"
[[filter]]
use = "bayes"
[[filter]]
use = "denylist"
"""


class FollowingCase(CommandCase):
    def setUp(self) -> None:
        super().setUp()
        self.configure(CONFIGURATION + FILTERS)
        for one in (ALICE, BOB, CAROL):
            self.done("user", "add", one, "--no-password")
            self.done("list", "add", "white", "friend.example", "--user", one)
            self.done("contacts", one, "accept", "friend@far.example")
            self.done("subaddress", "close", one.replace("@", "+shop@"))
        self.done("list", "add", "black", "spam.example", "--domain", "example.org")

    def done(self, *words: str) -> Said:
        said = self.command(*words)
        self.assertEqual((said.code, said.err), (0, ""), (words, said))
        return said

    def kept(self) -> list[str]:
        """The keys of all records."""
        return sorted(f"{one['space']}\t{one['key']}" for one in map(json.loads, self.done("records", "export").out.splitlines()))

    def let_lists_fail_at(self, *stages: str) -> None:
        before = Lists.accounts_renamed

        async def failing(filter: Any, accounts: Any, stage: Any) -> None:
            if stage in stages:
                raise OSError("the disk is away")
            await before(filter, accounts, stage)

        self.patch(Lists, "accounts_renamed", failing)


class Renamed(FollowingCase):
    def test_one_of_three_takes_all_along_and_the_others_keep_theirs(self) -> None:
        before = self.kept()
        self.done("user", "rename", ALICE, SMITH)
        self.assertEqual(self.kept(), sorted(one.replace("alice@", "smith@") for one in before))
        self.assertFalse((self.data / "renames.json").exists())

    def test_a_new_account_of_the_old_name_inherits_nothing(self) -> None:
        self.done("user", "rename", ALICE, SMITH)
        os.unlink(self.data / "mail" / "example.org" / "alice")
        self.done("user", "add", ALICE, "--no-password")
        self.assertEqual(self.command("list", "show", "--user", ALICE, "--json").json, [])
        self.assertEqual(self.command("contacts", ALICE, "list", "--json").json, [])
        self.assertEqual(len(self.command("contacts", SMITH, "list", "--json").json), 1)

    def test_a_domain_takes_its_own_rules_along(self) -> None:
        before = self.kept()
        self.done("domain", "rename", "example.org", "example.com")
        self.assertEqual(self.kept(), sorted(one.replace("@example.org", "@example.com") for one in before))

    def test_dry_run_touches_nothing(self) -> None:
        before = self.kept()
        self.done("user", "rename", ALICE, SMITH, "--dry-run")
        self.assertEqual((self.kept(), (self.data / "renames.json").exists()), (before, False))

    def test_one_that_fails_stops_it_and_is_named_and_the_others_take_back(self) -> None:
        before = self.kept()
        self.let_lists_fail_at("begin")
        said = self.command("user", "rename", ALICE, SMITH)
        self.assertEqual(said.code, 74)
        self.assertIn("the filter lists: OSError: the disk is away", said.err)
        self.assertEqual(self.kept(), before)
        self.assertIn(ALICE, self.done("user", "list").out)
        self.assertFalse((self.data / "renames.json").exists())

    def test_one_that_fails_at_the_end_is_named_and_the_same_once_more_completes_it(self) -> None:
        before = self.kept()
        self.let_lists_fail_at("complete")
        said = self.command("user", "rename", ALICE, SMITH)
        self.assertEqual(said.code, 74)
        self.assertIn("say the same once more", said.err)
        for words in (("user", "add", ALICE, "--no-password"), ("user", "rename", BOB, ALICE)):
            self.assertIn("part of a rename that was not finished", self.command(*words).err)
        self.patch(Lists, "accounts_renamed", self.original)
        self.done("user", "rename", CAROL, "karoline@example.org")  # another's rename is not in its way
        self.done("user", "rename", ALICE, SMITH)
        wanted = [one.replace("alice@", "smith@").replace("carol@", "karoline@") for one in before]
        self.assertEqual(self.kept(), sorted(wanted))
        self.done("user", "rename", BOB, "robert@example.org")

    original = staticmethod(Lists.accounts_renamed)

    def test_killed_before_any_step_nothing_is_lost_and_the_same_once_more_completes_it(self) -> None:
        before = self.kept()
        wanted = sorted(one.replace("alice@", "smith@") for one in before)

        class Killed(BaseException):
            pass

        real_ask, real_become = following.ask_followers, renaming.become
        for count in range(1, 6):
            left = [count]

            def step(real: Any, left: list[int] = left) -> Any:
                def run(*arguments: Any, **named: Any) -> Any:
                    left[0] -= 1
                    if left[0] == 0:
                        raise Killed
                    return real(*arguments, **named)

                return run

            self.patch(renaming, "ask_followers", step(real_ask))
            self.patch(renaming, "become", step(real_become))
            try:
                self.command("user", "rename", ALICE, SMITH, "--mail-stays")
                was_killed = False
            except Killed:
                was_killed = True
            self.patch(renaming, "ask_followers", real_ask)
            self.patch(renaming, "become", real_become)
            kept = self.kept()
            for one in before:
                self.assertTrue(one in kept or one.replace("alice@", "smith@") in kept, (one, count))
            if was_killed and count > 1:  # the first step is a try of the file
                self.assertIn("not finished", self.command("user", "add", SMITH, "--no-password").err, count)
            if was_killed:
                self.done("user", "rename", ALICE, SMITH, "--mail-stays")
            self.assertEqual(self.kept(), wanted)
            if not was_killed:
                break
            self.done("user", "rename", SMITH, ALICE, "--mail-stays")
            self.assertEqual(self.kept(), before)
        self.assertFalse(was_killed)

    def test_a_domain_that_was_cut_off_at_the_end_is_completed(self) -> None:
        before = self.kept()
        self.let_lists_fail_at("complete")
        self.assertEqual(self.command("domain", "rename", "example.org", "example.com").code, 74)
        self.patch(Lists, "accounts_renamed", self.original)
        self.done("domain", "rename", "example.org", "example.com")
        self.assertEqual(self.kept(), sorted(one.replace("@example.org", "@example.com") for one in before))
        self.assertFalse((self.data / "renames.json").exists())

    def test_a_damaged_journal_is_told(self) -> None:
        for text in ("{", "[]", '{"a@b.example": 1}'):
            (self.data / "renames.json").write_text(text)
            said = self.command("user", "rename", ALICE, SMITH)
            self.assertEqual((said.code, "renames.json is damaged" in said.err), (74, True), said)


class Stopped(FollowingCase):
    """An account that `account_guard` has stopped."""

    def setUp(self) -> None:
        super().setUp()
        self.configure(CONFIGURATION + FILTERS + '[[filter]]\nuse = "account_guard"\n')
        for one in (ALICE, BOB):
            self.done("user", "lock", one)

    def stopped(self) -> list[str]:
        return sorted(one["account"] for one in self.command("user", "list", "--json").json if one["stopped"])

    def stops(self) -> list[str]:
        return [one.rpartition("\t")[2] for one in self.kept() if one.startswith("filter/account_guard\tstopped\t")]

    def test_a_renamed_domain_frees_none_of_its_accounts(self) -> None:
        self.done("domain", "rename", "example.org", "example.com")
        self.assertEqual(self.stops(), ["alice@example.com", "bob@example.com"])
        self.done("user", "unlock", "bob@example.com")
        self.assertEqual(self.stops(), ["alice@example.com"])

    def test_a_renamed_user_is_stopped_also_where_a_release_is_owed_to_another(self) -> None:
        self.done("user", "unlock", BOB)
        self.done("user", "rename", ALICE, SMITH)
        self.assertEqual(self.stops(), [SMITH])
        self.assertIn(f"filter/account_guard\treleased\t{BOB}", self.kept())

    def test_a_purge_forgets_the_stop_and_without_one_it_is_named(self) -> None:
        said = self.command("user", "remove", BOB)
        self.assertIn(f"the filter account_guard keeps 1 record of {BOB}", said.err)
        self.done("user", "remove", ALICE, "--purge", "--yes")
        self.assertEqual(self.stops(), [BOB])


class Removed(FollowingCase):
    def test_with_the_mail_goes_what_was_kept_and_nothing_of_others(self) -> None:
        before = self.kept()
        self.done("user", "remove", ALICE, "--purge", "--yes")
        self.assertEqual(self.kept(), [one for one in before if "alice" not in one])

    def test_without_purge_it_stays_and_is_named(self) -> None:
        before = self.kept()
        said = self.command("user", "remove", ALICE)
        self.assertEqual((said.code, said.out), (0, f"{ALICE}: removed\n"))
        self.assertIn(f"the filter contacts keeps 2 records of {ALICE}, which a new account of that name would have", said.err)
        self.assertEqual(self.kept(), before)

    def test_a_domain_that_is_purged_leaves_no_records(self) -> None:
        self.done("domain", "add", "example.net")
        self.done("list", "add", "white", "friend.example", "--user", "eve@example.net")
        self.done("domain", "remove", "example.org", "--purge", "--yes")
        self.assertEqual(self.kept(), ["filter/lists\teve@example.net\tdomain\tfriend.example"])
