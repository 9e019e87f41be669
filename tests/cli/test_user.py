"""``mailserver user``: the file that the server reads is what the command writes."""

from __future__ import annotations

import datetime
import os
import stat
from types import SimpleNamespace
from typing import Any

from mailserver.accounts.table import AccountsFile
from mailserver.authentication.app_password_uses import USES_SPACE, AppPasswordUses
from mailserver.authentication.passwords import verify_password
from mailserver.cli.output import Unable
from mailserver.cli.purge import maildir_of
from mailserver.delivery.maildir import MaildirOptions
from mailserver.sasl.scram_keys import decode_scram_keys, derive_scram_keys
from mailserver.state_store import StoppedState
from mailserver.state_store.state_file import open_writing
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

    def test_an_account_is_disabled_and_enabled_and_keeps_what_it_has(self) -> None:
        self.user("add", ALICE, "--password-stdin", stdin="correct horse\n")
        before = self.accounts.read_text()
        self.assertEqual(self.user("disable", ALICE).out, "alice@example.org: disabled\n")
        self.assertEqual(self.accounts.read_text().replace("disabled = true\n", ""), before)
        self.assertRegex(self.user("list").out, r"alice@example.org +disabled +yes")
        self.assertTrue(self.user("list", "--json").json[0]["disabled"])
        said = self.user("disable", ALICE)
        self.assertEqual((said.code, said.out, said.err), (1, "", "mailserver: alice@example.org is disabled already\n"))
        self.assertEqual(self.user("enable", ALICE).code, 0)
        self.assertEqual(self.accounts.read_text(), before)
        self.assertNotIn("STATE", self.user("list").out)
        self.assertEqual(self.user("enable", ALICE).code, 1)
        self.assertEqual(self.user("disable", "nobody@example.org").code, 1)
        self.accounts.write_text(before + "disabled = false\n")
        self.assertEqual(self.user("disable", ALICE).code, 0)
        self.assertTrue(self.accounts.read_text().endswith("\ndisabled = true\n"))

    def test_a_purge_takes_the_mail_of_that_account_and_of_no_other(self) -> None:
        mail = self.data / "mail" / "example.org"
        for name in ("alice", "alice2", "bob"):
            (mail / name / "new").mkdir(parents=True)
            (mail / name / "new" / "1").write_text("mail")
        (mail / "alice" / "link").symlink_to(mail / "bob")
        self.user("add", ALICE, "--no-password")
        said = self.user("remove", ALICE, "--purge")
        self.assertEqual((said.code, said.out), (2, ""))
        self.assertTrue((mail / "alice" / "new" / "1").exists())
        said = self.user("remove", "Alice@Example.org", "--purge", "--yes")
        self.assertEqual((said.code, said.out), (0, "Alice@Example.org: removed, with its mail\n"), said)
        self.assertEqual(sorted(one.name for one in mail.iterdir()), ["alice2", "bob"])
        self.assertTrue((mail / "bob" / "new" / "1").exists())
        self.assertEqual(self.user("remove", ALICE, "--purge", "--yes").code, 1)
        self.user("add", ALICE, "--no-password")
        self.assertEqual(self.user("remove", ALICE, "--purge", "--yes").out, "alice@example.org: removed; it had no mail\n")

    def test_a_purge_follows_no_link_and_knows_where_it_cannot_know(self) -> None:
        other = self.data / "mail" / "example.org" / "bob"
        other.mkdir(parents=True)
        (other.parent / "alice").symlink_to(other)
        self.user("add", ALICE, "--no-password")
        said = self.user("remove", ALICE, "--purge", "--yes")
        self.assertEqual(said.code, 74)
        self.assertIn("the account is removed, but not its mail", said.err)
        self.assertTrue(other.exists())
        self.user("add", ALICE, "--no-password")
        text = self.config.read_text()
        for delivery in ('use = "discard"', 'use = "maildir"\npath = "{home}/Maildir"'):
            self.configure(f"{text}[delivery]\n{delivery}\n")
            said = self.user("remove", ALICE, "--purge", "--yes")
            self.assertEqual(said.code, 1)
            self.assertIn("nothing was changed", said.err)
            self.assertEqual(len(self.user("list", "--json").json), 1)

    def test_a_purge_leaves_the_homes_of_users_alone(self) -> None:
        delivery = SimpleNamespace(use="maildir", options=MaildirOptions(path="{home}/Maildir"))
        configuration: Any = SimpleNamespace(delivery=delivery, data="/data")
        self.assertRaisesRegex(Unable, "homes of the host's users", maildir_of, configuration, "alice@example.org")

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
        self.user("app-password", "add", ALICE, "phone", "--scope", "smtp")
        self.user("certificate", "add", ALICE, "ab" * 32)
        self.user("sender", "add", ALICE, "@Example.net")
        lines = self.lines(self.user("list"))
        self.assertEqual(lines[0].split("  ")[0], "ADDRESS")
        self.assertRegex(lines[1], r"^alice@example.org +yes +yes +phone +1 +@example.net$")
        self.assertRegex(lines[2], r"^bob@example.org +no +no$")
        self.assertEqual(lines[3], "2 accounts.")
        nothing = {"app_passwords": [], "certificates": [], "senders": [], "scram": False, "cram_md5": False, "stopped": ""}
        self.assertEqual(
            self.user("list", "--json").json,
            [
                {
                    "address": ALICE,
                    "disabled": False,
                    "password": True,
                    "scram": True,
                    "cram_md5": False,
                    "app_passwords": ["phone"],
                    "certificates": ["ab" * 32],
                    "senders": ["@example.net"],
                    "stopped": "",
                },
                {"address": "bob@example.org", "disabled": False, "password": False, **nothing},
            ],
        )

    def test_an_app_password_is_shown_once_listed_and_revoked(self) -> None:
        self.user("add", ALICE, "--password-stdin", stdin="x\n")
        made = self.user("app-password", "add", ALICE, "phone", "--expires", "2099-01-01", "--json").json
        self.assertRegex(made["app_password"], r"^([a-z2-9]{5}-){3}[a-z2-9]{5}$")
        self.assertEqual(self.user("app-password", "add", ALICE, "phone").code, 1)
        self.assertRegex(self.user("app-password", "list", ALICE).out, r"phone +smtp, imap, pop3 +2099-01-01 +never")
        self.assertNotIn(made["app_password"], self.user("app-password", "list", ALICE).out)
        self.assertEqual(self.user("app-password", "remove", ALICE, "phone").code, 0)
        self.assertEqual(self.user("app-password", "list", ALICE, "--json").json, [])
        self.assertEqual(self.user("app-password", "remove", ALICE, "phone").code, 1)
        self.assertEqual(self.user("app-password", "add", ALICE, "x", "--expires", "soon").code, 2)
        today = datetime.datetime.now(datetime.UTC).date().isoformat()
        for day in ("2020-01-01", today):
            late = self.user("app-password", "add", ALICE, "x", "--expires", day)
            self.assertEqual((late.code, late.out), (2, ""))
            self.assertIn("expired already", late.err)

    def test_certificates_and_senders_are_added_and_removed(self) -> None:
        self.user("add", ALICE, "--no-password")
        for kind, value in (("certificate", "AB:" * 31 + "AB"), ("sender", "info@example.org")):
            self.assertEqual(self.user(kind, "add", ALICE, value).code, 0)
            self.assertEqual(self.user(kind, "remove", ALICE, value).code, 0)
            self.assertEqual(self.user(kind, "remove", ALICE, value).code, 1)
            self.assertEqual(self.user(kind, "add", ALICE, "nonsense").code, 2)
        self.assertEqual(self.user("list", "--json").json[0]["certificates"], [])

    def test_what_an_account_gets_or_loses_is_told_as_json(self) -> None:
        self.user("add", ALICE, "--no-password")
        self.user("app-password", "add", ALICE, "phone")
        for words, said in (
            (("sender", "add", ALICE, "@example.net"), {"account": ALICE, "added": "@example.net"}),
            (("sender", "remove", ALICE, "@example.net"), {"account": ALICE, "removed": "@example.net"}),
            (("app-password", "remove", ALICE, "phone"), {"account": ALICE, "revoked": "phone"}),
            (("remove", ALICE), {"removed": ALICE}),
        ):
            self.assertEqual(self.user(*words, "--json").json, said)

    def test_a_new_app_password_of_an_old_name_has_not_been_used(self) -> None:
        self.user("add", ALICE, "--no-password")
        path = str(self.folder / "data" / "state.db")
        for used in (True, False):
            self.user("app-password", "add", ALICE, "phone")
            (account,) = AccountsFile(str(self.accounts)).list()
            if used:
                open_writing(path).close()  # as the server makes it
                with StoppedState.opened(path) as state:
                    AppPasswordUses(state.space(USES_SPACE)).note(ALICE, account.app_passwords[0])
            [listed] = self.user("app-password", "list", ALICE, "--json").json
            self.assertEqual(listed["last_used"] is not None, used)
            self.user("app-password", "remove", ALICE, "phone")

    def test_what_is_kept_of_a_password_can_be_printed_for_a_database(self) -> None:
        self.configure(CONFIGURATION.replace('path = "accounts.toml"', 'use = "sql"\npath = "accounts.db"'))
        said = self.user("hash", ALICE, "--password-stdin", "--json", stdin="correct horse\n").json
        self.assertTrue(verify_password("correct horse", said["password"]))
        keys = decode_scram_keys(said["scram"])
        self.assertEqual(derive_scram_keys("correct horse", salt=keys.salt, iterations=keys.iterations), keys)
        self.assertRegex(
            self.user("hash", ALICE, "--password-stdin", stdin="x\n").out, r"\Apassword: \$argon2id.*\nscram:    SCRAM-SHA-256.*\n\Z"
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

    def test_an_account_in_a_domain_that_is_not_ours_is_added_where_that_is_meant(self) -> None:
        said = self.user("add", "alice@Elsewhere.example", "--password-stdin")
        self.assertEqual((said.code, self.accounts.read_text()), (1, ""))
        self.assertIn(f'there is no [domain."elsewhere.example"] in {self.config}', said.err)
        self.assertEqual(self.user("add", "alice@elsewhere.example", "--no-password", "--any-domain").code, 0)

    def test_a_name_below_a_domain_with_a_star_is_ours(self) -> None:
        self.configure(CONFIGURATION + '[domain."*.example.net"]\n')
        self.assertEqual(self.user("add", "alice@lists.example.net", "--no-password").code, 0)
        self.assertEqual(self.user("add", "alice@example.net", "--no-password").code, 1)

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
