"""``mailserver user``: the file that the server reads is what the command writes."""

from __future__ import annotations

import os
import stat

from mailserver.accounts.passwords import verify_password
from mailserver.accounts.table import AccountsFile
from tests.cli.support import CONFIGURATION, CommandCase, Said

ALICE = "alice@example.org"


class User(CommandCase):
    def user(self, action: str, *arguments: str, stdin: str = "") -> Said:
        return self.command("user", action, *arguments, stdin=stdin)

    def password_fits(self, password: str) -> bool:
        (account,) = AccountsFile(str(self.accounts)).list()
        return account.password is not None and verify_password(password, account.password)

    def test_an_account_is_added_with_the_password_from_standard_input(self) -> None:
        said = self.user("add", ALICE, "--password-stdin", stdin="correct horse\n")
        self.assertEqual((said.code, said.out, said.err), (0, "alice@example.org: added\n", ""))
        self.assertTrue(self.password_fits("correct horse"))
        self.assertNotIn("correct", self.accounts.read_text())

    def test_the_file_is_made_where_there_is_none_and_closed_to_others(self) -> None:
        self.accounts.unlink()
        self.assertEqual(self.user("add", ALICE, "--no-password").code, 0)
        self.assertEqual(stat.S_IMODE(os.stat(self.accounts).st_mode) & 0o007, 0)

    def test_an_account_that_exists_is_not_added_again(self) -> None:
        self.user("add", ALICE, "--no-password")
        said = self.user("add", "Alice@Example.org", "--no-password")
        self.assertEqual(said.code, 1)
        self.assertIn("exists already", said.err)

    def test_a_password_is_changed(self) -> None:
        self.user("add", ALICE, "--password-stdin", stdin="first\n")
        self.assertEqual(self.user("password", ALICE, "--password-stdin", stdin="second\r\n").code, 0)
        self.assertTrue(self.password_fits("second"))

    def test_an_account_is_removed(self) -> None:
        self.user("add", ALICE, "--no-password")
        self.assertEqual(self.user("remove", ALICE).out, "alice@example.org: removed\n")
        self.assertEqual(AccountsFile(str(self.accounts)).list(), ())

    def test_what_is_not_there_cannot_be_changed_or_removed(self) -> None:
        for said in (self.user("remove", ALICE), self.user("password", ALICE, "--password-stdin", stdin="x\n")):
            self.assertEqual(said.code, 1)
            self.assertIn("there is no account alice@example.org", said.err)
            self.assertNotIn("Traceback", said.err)

    def test_accounts_are_listed_as_a_table_and_as_json(self) -> None:
        self.assertEqual(self.user("list").out, "0 accounts.\n")
        self.user("add", ALICE, "--password-stdin", stdin="x\n")
        self.user("add", "bob@example.org", "--no-password")
        self.assertEqual(
            self.lines(self.user("list")),
            ["ADDRESS            LOG-IN", "alice@example.org  yes", "bob@example.org    no", "2 accounts."],
        )
        self.assertEqual(
            self.user("list", "--json").json,
            [{"address": ALICE, "password": True}, {"address": "bob@example.org", "password": False}],
        )

    def test_a_wrong_address_or_a_missing_password_is_a_wrong_command_line(self) -> None:
        for said in (
            self.user("add", "alice", "--no-password"),
            self.user("add", ALICE),  # standard input is no terminal here
            self.user("add", ALICE, "--no-password", "--password-stdin"),
        ):
            self.assertEqual(said.code, 2)
            self.assertEqual(said.err.count("\n"), 1)
        self.assertEqual(self.accounts.read_text(), "")

    def test_an_empty_password_is_refused(self) -> None:
        said = self.user("add", ALICE, "--password-stdin", stdin="\n")
        self.assertEqual((said.code, self.accounts.read_text()), (1, ""))
        self.assertIn("not empty", said.err)

    def test_an_account_in_a_domain_that_is_not_ours_is_warned_of(self) -> None:
        said = self.user("add", "alice@elsewhere.example", "--no-password")
        self.assertEqual(said.code, 0)
        self.assertIn('there is no [domain."elsewhere.example"] yet', said.err)

    def test_a_damaged_file_is_told_and_left_alone(self) -> None:
        self.accounts.write_text("[account\n")
        said = self.user("add", ALICE, "--no-password")
        self.assertEqual((said.code, self.accounts.read_text()), (78, "[account\n"))
        self.assertIn(f"{self.accounts}:", said.err)

    def test_accounts_that_are_not_in_a_file_cannot_be_changed(self) -> None:
        self.configure(CONFIGURATION.replace('path = "accounts.toml"', 'use = "system"'))
        said = self.user("add", ALICE, "--no-password")
        self.assertEqual(said.code, 1)
        self.assertIn('[accounts] use = "system"', said.err)
