"""The accounts file: people and programs write it."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import tomllib

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from mailserver.accounts.table import AccountExists, AccountsFile, NoSuchAccount, Password, parse_accounts
from mailserver.config import ConfigurationError
from mailserver.mail.address import AddressError

HASH = "$argon2id$v=19$m=19456,t=2,p=1$c2FsdA$aGFzaA"
OTHER = "$argon2id$v=19$m=19456,t=2,p=1$c2FsdA$b3RoZXI"
TEXT = f"""\
# The office.  Do not delete.

# Alice is the boss.
[account."alice@example.org"]   # since 2019
  password = '{HASH}'   # changed in May
# she reads mail at night

[account."bob@example.org"]

# Carol left, but still gets mail.
[account.'carol@example.org']
# no password
"""


class FileCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = os.path.abspath(self.mktemp())
        os.mkdir(self.directory)
        self.path = f"{self.directory}/accounts.toml"
        self.file = AccountsFile(self.path)

    def write(self, text: str = TEXT) -> None:
        with open(self.path, "w", newline="") as file:
            file.write(text)

    def text(self) -> str:
        with open(self.path, newline="") as file:
            return file.read()

    def accounts(self) -> dict[str, str | None]:
        return {account.address: account.password for account in self.file.list()}


class Reading(FileCase):
    def test_accounts_are_found_by_their_normal_form_in_the_files_order(self) -> None:
        text = '[account."Jürgen@Exämple.org"]\n[account."Bob@example.org"]\n'
        self.assertEqual(list(parse_accounts(text, "f")), [("jürgen", "xn--exmple-cua.org"), ("bob", "example.org")])

    def test_a_missing_file_lists_no_accounts_but_cannot_be_read(self) -> None:
        self.assertEqual(self.file.list(), ())
        self.assertRaises(FileNotFoundError, self.file.read)

    def test_a_pipe_or_a_device_in_its_place_holds_nobody_up(self) -> None:
        os.mkfifo(self.path)
        device = f"{self.directory}/device.toml"
        os.symlink("/dev/zero", device)
        for path in (self.path, device):
            with self.assertRaisesRegex(ConfigurationError, "is not a regular file"):
                AccountsFile(path).read()

    def test_every_fault_is_told_with_its_line(self) -> None:
        text = (
            '[account."alice@example.org"]\npasswort = "x"\n'
            '[account."ALICE@example.org"]\n'
            "\n"
            "[account.bob]\n"
            '[account."carol@example.org"]\npassword = "secret"\n'
            '[account."dora@example.org"]\npassword = 7\n'
            "[user.x]\n"
        )
        error = self.assertRaises(ConfigurationError, parse_accounts, text, "accounts.toml")
        self.assertEqual([fault.line for fault in error.faults], [2, 3, 5, 7, 9, 10])
        words = str(error)
        for part in ("not a key of an account", "same account as alice@", "not an address", "not a hash", "must be text"):
            self.assertIn(part, words)
        self.assertNotIn("secret", words)

    def test_broken_toml_is_told_with_its_line(self) -> None:
        error = self.assertRaises(ConfigurationError, parse_accounts, '\n\n[account."a@b.example"\n', "f")
        self.assertEqual(error.faults[0].line, 3)
        error = self.assertRaises(ConfigurationError, parse_accounts, "a = 1\nb = [\n", "f")
        self.assertEqual(error.faults[0].line, 3, "where it ends")

    def test_a_key_of_an_app_password_that_is_none_is_told(self) -> None:
        text = f'[account."a@b.example".app_password."phone"]\npassword = "{HASH}"\nscope = ["imap"]\n'
        error = self.assertRaises(ConfigurationError, parse_accounts, text, "f")
        self.assertEqual([(fault.line, "is not a key of an app password" in str(fault)) for fault in error.faults], [(3, True)])

    def test_other_shapes_are_faults_and_no_crash(self) -> None:
        for text in ("account = 3", "account = [1]", '[account]\n"a@b.example" = 3', "[[account]]\nx=1"):
            self.assertRaises(ConfigurationError, parse_accounts, text, "f")

    def test_octets_that_are_no_utf_8_are_a_fault(self) -> None:
        with open(self.path, "wb") as file:
            file.write(b"# \xff\n")
        self.assertRaises(ConfigurationError, self.file.read)


class Editing(FileCase):
    def test_a_new_password_changes_one_value_and_nothing_else(self) -> None:
        self.write()
        self.file.set_password("Alice@EXAMPLE.org", Password(OTHER))
        self.assertEqual(self.text(), TEXT.replace(f"'{HASH}'", f'"{OTHER}"'))

    def test_a_first_password_stands_under_the_accounts_name(self) -> None:
        self.write()
        self.file.set_password("carol@example.org", Password(HASH))
        self.assertEqual(self.text(), TEXT.replace("carol@example.org']\n", f'carol@example.org\']\npassword = "{HASH}"\n'))

    def test_taking_a_password_away_takes_its_line(self) -> None:
        self.write()
        self.file.set_password("alice@example.org", None)
        self.assertEqual(self.text(), TEXT.replace(f"  password = '{HASH}'   # changed in May\n", ""))
        self.file.set_password("alice@example.org", None)

    def test_an_added_account_stands_at_the_end(self) -> None:
        self.write()
        self.file.add("dora@example.org", Password(HASH))
        self.assertEqual(self.text(), f'{TEXT}\n[account."dora@example.org"]\npassword = "{HASH}"\n')
        self.assertEqual(list(self.accounts())[-1], "dora@example.org")

    def test_an_added_account_begins_a_line_of_its_own(self) -> None:
        self.write('[account."a@b.example"]')
        self.file.add("c@b.example")
        self.assertEqual(list(self.accounts()), ["a@b.example", "c@b.example"])

    def test_removing_an_account_leaves_the_others_and_the_comments_around(self) -> None:
        self.write()
        self.file.remove("bob@example.org")
        self.assertEqual(self.text(), TEXT.replace('[account."bob@example.org"]\n\n', ""))
        self.file.remove("alice@example.org")
        self.assertIn("# The office.  Do not delete.\n", self.text())
        self.assertIn("# Carol left, but still gets mail.\n", self.text())
        self.assertEqual(list(self.accounts()), ["carol@example.org"])

    def test_windows_line_ends_stay(self) -> None:
        self.write(TEXT.replace("\n", "\r\n"))
        self.file.set_password("bob@example.org", Password(HASH))
        self.file.add("dora@example.org")
        self.assertEqual(self.text().count("\n"), self.text().count("\r\n"))

    def test_a_quoted_local_part_can_be_an_account(self) -> None:
        self.file.add('"a \\"b\\\\ c"@example.org', Password(HASH))
        self.assertEqual(self.accounts(), {'"a \\"b\\\\ c"@example.org': HASH})
        self.file.remove('"a \\"b\\\\ c"@example.org')
        self.assertEqual(self.accounts(), {})

    def test_what_does_not_fit_is_refused_and_changes_nothing(self) -> None:
        self.write()
        self.assertRaises(AccountExists, self.file.add, "ALICE@example.org")
        self.assertRaises(AddressError, self.file.add, "no address")
        self.assertRaises(NoSuchAccount, self.file.remove, "dora@example.org")
        self.assertRaises(NoSuchAccount, self.file.set_password, "dora@example.org", Password(HASH))
        self.assertEqual(self.text(), TEXT)

    def test_a_form_that_the_edit_does_not_know_is_refused_and_left_alone(self) -> None:
        for text in (
            f'[account]\n"a@b.example" = {{password = "{HASH}"}}\n',
            f'[account."a@b.example"]\npassword = """\\\n{HASH}"""\n',
            f'account."a@b.example".password = "{HASH}"\n',
        ):
            self.write(text)
            self.assertRaises(ConfigurationError, self.file.set_password, "a@b.example", Password(OTHER))
            self.assertRaises(ConfigurationError, self.file.remove, "a@b.example")
            self.assertEqual(self.text(), text)

    def test_a_faulty_file_is_not_edited(self) -> None:
        self.write("[account.bob]\n")
        self.assertRaises(ConfigurationError, self.file.add, "a@b.example")
        self.assertEqual(self.text(), "[account.bob]\n")

    def test_no_new_account_has_odd_dots(self) -> None:
        self.write()
        before = self.text()
        for name in ("a..b@x.example", ".a@x.example", "a.@x.example", '"a..b"@x.example'):
            self.assertRaises(AddressError, self.file.add, name)
        self.assertEqual(self.text(), before)

    names = st.sampled_from(["a@x.example", "B@x.example", "ä@x.example", '"q q"@x.example', "c@y.example"])
    steps = st.lists(st.tuples(st.sampled_from(["add", "remove", "password"]), names, st.sampled_from([None, HASH, OTHER])), max_size=12)

    @settings(max_examples=15)
    @given(steps)
    def test_any_edits_leave_what_was_asked_for_and_every_comment(self, steps: list[tuple[str, str, str | None]]) -> None:
        self.write()
        wanted = self.accounts()
        for step, name, password in steps:
            if step == "add" and name not in wanted:
                self.file.add(name, None if password is None else Password(password))
                wanted[name] = password
            elif step == "remove" and name in wanted:
                self.file.remove(name)
                del wanted[name]
            elif step == "password" and name in wanted:
                self.file.set_password(name, None if password is None else Password(password))
                wanted[name] = password
        self.assertEqual(self.accounts(), wanted)
        self.assertEqual(self.text()[: len(TEXT)], TEXT)
        tomllib.loads(self.text())


class OnTheDisk(FileCase):
    def test_a_new_file_is_0600(self) -> None:
        self.addCleanup(os.umask, os.umask(0))
        self.file.add("a@b.example")
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o600)

    def test_an_existing_file_keeps_owner_and_group_and_no_stranger_reads_it(self) -> None:
        self.write()
        os.chmod(self.path, 0o644)
        if os.geteuid() == 0:
            os.chown(self.path, 1234, 2345)
        before = os.stat(self.path)
        self.file.add("a@b.example")
        after = os.stat(self.path)
        self.assertEqual((after.st_uid, after.st_gid), (before.st_uid, before.st_gid))
        self.assertEqual(stat.S_IMODE(after.st_mode), 0o640)
        self.assertNotEqual(after.st_ino, before.st_ino)

    def test_roots_first_file_belongs_to_the_directorys_owner(self) -> None:
        if os.geteuid() != 0:
            raise SkipTest("needs root")
        os.chown(self.directory, 1234, 2345)
        self.file.add("a@b.example")
        self.assertEqual(os.stat(self.path).st_uid, 1234)

    def test_roots_first_file_is_for_the_server_to_read(self) -> None:
        """Also where the configuration's folder is root's: whose the data directory is, that one the server runs as."""
        if os.geteuid() != 0:
            raise SkipTest("needs root")
        data = f"{self.directory}/data"
        AccountsFile(self.path, data).add("a@b.example")  # the server has never been started
        self.assertEqual(os.stat(self.path).st_uid, 0)
        os.unlink(self.path)
        os.mkdir(data)
        os.chown(data, 1234, 2345)
        AccountsFile(self.path, data).add("a@b.example")
        found = os.stat(self.path)
        self.assertEqual((found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)), (1234, 2345, 0o600))

    def test_a_link_stays_a_link(self) -> None:
        self.write()
        link = f"{self.directory}/link.toml"
        os.symlink(self.path, link)
        AccountsFile(link).add("a@b.example")
        self.assertTrue(os.path.islink(link))
        self.assertIn("a@b.example", self.text())

    def test_file_and_directory_are_synced_and_only_then_is_it_done(self) -> None:
        calls: list[str] = []
        real_fsync, real_rename = os.fsync, os.rename

        def fsync(fd: int) -> None:
            calls.append("directory" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file")
            real_fsync(fd)

        def rename(old: str, new: str) -> None:
            calls.append("rename")
            real_rename(old, new)

        self.patch(os, "fsync", fsync)
        self.patch(os, "rename", rename)
        self.file.add("a@b.example")
        self.assertEqual(calls, ["file", "rename", "directory"])

    def test_a_disk_that_fails_leaves_the_old_file_and_no_draft(self) -> None:
        self.write()

        def fsync(fd: int) -> None:
            raise OSError(5, "no")

        self.patch(os, "fsync", fsync)
        self.assertRaises(OSError, self.file.add, "a@b.example")
        self.assertEqual(self.text(), TEXT)
        self.assertEqual(os.listdir(self.directory), ["accounts.toml"])

    def test_a_writer_waits_for_another_one_and_gives_up(self) -> None:
        import fcntl

        from mailserver.mail import durable

        self.patch(durable, "LOCK_SECONDS", 0.0)
        fd = os.open(self.directory, os.O_RDONLY)
        fcntl.flock(fd, fcntl.LOCK_EX)
        self.assertRaises(TimeoutError, self.file.add, "a@b.example")
        os.close(fd)
        self.file.add("a@b.example")

    WRITER = (
        "import sys; from mailserver.accounts.table import AccountsFile; file = AccountsFile(sys.argv[1])\n"
        "print('ready', flush=True)\n"
        "n = 0\n"
        "while True:\n"
        "    file.add(f'{sys.argv[2]}{n}@example.org'); n += 1; print(n, flush=True)\n"
    )

    def writer(self, name: str) -> subprocess.Popen[str]:
        root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        process = subprocess.Popen(
            [sys.executable, "-c", self.WRITER, self.path, name],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": root},
        )
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        assert process.stdout is not None
        self.addCleanup(process.stdout.close)
        self.assertEqual(process.stdout.readline(), "ready\n")
        return process

    def test_two_writers_killed_at_any_moment_leave_a_whole_file_with_all_that_was_said(self) -> None:
        writers = {name: self.writer(name) for name in ("a", "b")}
        told = {}
        for name, process in writers.items():
            assert process.stdout is not None
            for _ in range(20):
                told[name] = int(process.stdout.readline())
        for name, process in writers.items():
            process.send_signal(signal.SIGKILL)
            assert process.stdout is not None
            told[name] = max([told[name], *map(int, process.stdout.read().split("\n")[:-1])])
        accounts = self.accounts()
        for name, count in told.items():
            for n in range(count):
                self.assertIn(f"{name}{n}@example.org", accounts)
        self.file.add("last@example.org")
        self.assertIn("last@example.org", self.accounts())
