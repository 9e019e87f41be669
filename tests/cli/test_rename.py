"""``mailserver user rename`` and ``domain rename``: the account, what it logs in with, its mail, and whatever names it."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from typing import Any

from twisted.internet import reactor, unix
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from mailserver.accounts.table import AccountsFile
from mailserver.authentication.passwords import verify_password
from mailserver.authentication.sealing import KeyPlace, read_key, unseal
from mailserver.cli import configuration_change, maildir_move, renaming
from mailserver.control.client import ControlError
from mailserver.control.server import CommandRefused, ControlServer
from mailserver.sasl.scram_keys import decode_scram_keys
from tests.cli.support import CONFIGURATION, CommandCase, Said, run
from tests.requires import require_root

ALICE, SMITH, BOB = "alice@example.org", "smith@example.org", "bob@example.org"
TABLES = """\
postmaster = "Alice@example.org" # who reads it

[domain."example.org".aliases]
alice = ["alice", "far@elsewhere.example"]   # keeps and forwards
help  = "alice+help@example.org"
info  = ["alice@second.example", "bob"]

[[domain."example.org".pattern]]
match = "info-{tag}"
user = "alice"

[domain."second.example"]
same_as = "example.org"

[relay]
use = "mx"
"""
FOLLOWED = TABLES.replace('"Alice@', '"smith@').replace('alice = ["alice"', 'smith = ["smith"').replace("alice+", "smith+")
FOLLOWED = FOLLOWED.replace('"alice@second.example"', '"smith@example.org"').replace('user = "alice"', 'user = "smith"')


class RenameCase(CommandCase):
    tables = ""

    def setUp(self) -> None:
        super().setUp()
        self.configure(CONFIGURATION.replace('path = "accounts.toml"', 'path = "accounts.toml"\nrecoverable = true') + self.tables)
        self.accounts.write_text("# People.\n")
        self.command("user", "add", ALICE, "--password-stdin", stdin=f"secret of {ALICE}\n")
        self.command("user", "add", BOB, "--no-password")
        self.mail = self.data / "mail" / "example.org"
        (self.mail / "alice" / "new").mkdir(parents=True)
        (self.mail / "alice" / "new" / "1.x.y").write_text("kept")

    def account(self, name: str) -> Any:
        return {one.address: one for one in AccountsFile(str(self.accounts)).list()}.get(name)

    def assertDone(self, said: Said) -> Said:
        self.assertEqual((said.code, said.err), (0, ""), said)
        return said


class User(RenameCase):
    def test_all_that_the_account_has_goes_along(self) -> None:
        self.assertDone(self.command("user", "sender", "add", ALICE, "@lists.example"))
        self.assertDone(self.command("user", "certificate", "add", ALICE, ALICE))
        app = self.command("user", "app-password", "add", ALICE, "my phone").out
        self.accounts.write_text(self.accounts.read_text().replace("senders =", "# for the lists\nsenders ="))
        before, text = self.account(ALICE), self.accounts.read_text()
        said = self.assertDone(self.command("user", "rename", "Alice@example.org", SMITH))
        self.assertIn(f"{ALICE}: {SMITH}\n", said.out)
        after = self.account(SMITH)
        self.assertEqual((self.account(ALICE), len(AccountsFile(str(self.accounts)).list())), (None, 2))
        for name in ("password", "scram", "senders", "certificates", "app_passwords"):
            self.assertEqual(getattr(after, name), getattr(before, name), name)
        self.assertTrue(app and verify_password(f"secret of {ALICE}", after.password) and decode_scram_keys(after.scram))
        key = read_key(KeyPlace(f"{self.data}-keys", str(self.data)), make=False)
        self.assertEqual(unseal(after.secret, SMITH, key), f"secret of {ALICE}".encode())
        self.assertEqual(
            [line for line in self.accounts.read_text().splitlines() if "cram_md5" not in line],
            [line.replace(ALICE, SMITH, 1) if line.startswith("[") else line for line in text.splitlines() if "cram_md5" not in line],
        )

    def test_a_readable_password_that_cannot_be_opened_goes_and_is_told(self) -> None:
        os.unlink(f"{self.data}-keys/accounts.key")
        said = self.assertDone(self.command("user", "rename", ALICE, SMITH))
        self.assertIn("no CRAM-MD5 until the next login by PLAIN", said.out)
        self.assertEqual((self.account(SMITH).secret, self.account(SMITH).password is not None), (None, True))

    def test_the_mail_is_moved_and_the_old_path_leads_there(self) -> None:
        said = self.assertDone(self.command("user", "rename", ALICE, SMITH))
        self.assertIn(f"{self.mail}/alice is a link now", said.out)
        self.assertEqual((self.mail / "smith" / "new" / "1.x.y").read_text(), "kept")
        self.assertFalse((self.mail / "smith").is_symlink())
        self.assertEqual(os.readlink(self.mail / "alice"), "smith")

    def test_back_again_leaves_no_link_in_the_way(self) -> None:
        self.assertDone(self.command("user", "rename", ALICE, SMITH))
        self.assertDone(self.command("user", "rename", SMITH, ALICE))
        self.assertEqual((self.mail / "alice" / "new" / "1.x.y").read_text(), "kept")
        self.assertFalse((self.mail / "alice").is_symlink())
        self.assertEqual(os.readlink(self.mail / "smith"), "alice")

    def test_a_new_account_of_the_old_name_does_not_share_the_mail(self) -> None:
        self.assertDone(self.command("user", "rename", ALICE, SMITH))
        said = self.command("user", "add", ALICE, "--no-password")
        self.assertEqual(said.code, 1)
        self.assertIn("is a link to the mail of another account", said.err)
        self.assertIsNone(self.account(ALICE))
        self.assertEqual(self.command("user", "rename", BOB, ALICE).code, 74)
        self.assertIsNotNone(self.account(BOB))
        self.assertDone(self.command("user", "remove", SMITH, "--purge", "--yes"))
        said = self.command("user", "add", ALICE, "--no-password")
        self.assertEqual(said.code, 1, "mail for it could not be delivered")
        self.assertIn("is a link that leads nowhere", said.err)
        (self.mail / "alice").unlink()
        self.assertDone(self.command("user", "add", ALICE, "--no-password"))

    def test_an_account_whose_mail_another_one_shares_is_not_added(self) -> None:
        self.assertDone(self.command("user", "rename", ALICE, SMITH))
        self.assertDone(self.command("user", "remove", SMITH))
        self.assertDone(self.command("user", "add", ALICE, "--no-password"))
        said = self.command("user", "add", SMITH, "--no-password")
        self.assertEqual(said.code, 1)
        self.assertIn(f"{self.mail}/alice, another account's, is a link to {self.mail}/smith: remove the link first", said.err)

    def test_domains_whose_folders_are_one_share_their_mail(self) -> None:
        self.assertDone(self.command("domain", "add", "c.example"))
        os.symlink("example.org", self.data / "mail" / "c.example")
        self.assertDone(self.command("user", "add", "alice@c.example", "--no-password"))

    def test_a_try_that_was_cut_off_before_the_exchange_is_no_obstacle(self) -> None:
        os.symlink("smith", self.mail / "smith")
        self.assertDone(self.command("user", "rename", ALICE, SMITH))
        self.assertEqual((self.mail / "smith" / "new" / "1.x.y").read_text(), "kept")
        self.assertEqual(os.readlink(self.mail / "alice"), "smith")

    def test_the_link_of_an_earlier_name_stays_where_nothing_comes_of_it(self) -> None:
        self.assertDone(self.command("user", "rename", ALICE, SMITH))
        self.patch(renaming, "become", self.no_room)
        self.assertEqual(self.command("user", "rename", SMITH, ALICE).code, 74)
        self.assertEqual(sorted(os.listdir(self.mail)), ["alice", "smith"])
        self.assertEqual(os.readlink(self.mail / "alice"), "smith")
        self.assertEqual((self.mail / "smith" / "new" / "1.x.y").read_text(), "kept")

    def no_room(self, *_: Any, dry_run: bool = False, **__: Any) -> None:
        if not dry_run:
            raise OSError(28, "No space left on device")

    def test_there_is_one_rename_at_a_time(self) -> None:
        def another(*words: Any, **__: Any) -> None:
            said.append(self.command("user", "rename", ALICE, SMITH))

        said: list[Said] = []
        self.patch(renaming, "become", another)
        self.assertDone(self.command("user", "rename", BOB, "b@example.org"))
        self.assertEqual([one.code for one in said], [69] * len(said))
        self.assertIn("another rename is going on", said[0].err)
        self.assertEqual((self.mail / "alice" / "new" / "1.x.y").read_text(), "kept")

    def test_root_moves_and_removes_no_more_than_the_user_of_the_server_could(self) -> None:
        require_root(self)
        own = self.folder / "of-root"
        (own / "passwd").mkdir(parents=True)
        os.chmod(self.folder, 0o755)
        for path in (self.data, self.data / "mail"):
            os.chown(path, 65534, 65534)
        shutil.rmtree(self.mail)
        os.symlink(own, self.mail)
        self.command("user", "add", "passwd@example.org", "--no-password")
        self.assertEqual(self.command("user", "rename", "passwd@example.org", SMITH).code, 74)
        said = self.command("user", "remove", "passwd@example.org", "--purge", "--yes")
        self.assertEqual(said.code, 74)
        self.assertIn("Permission denied", said.err)
        self.assertEqual(os.listdir(own), ["passwd"])

    def test_mail_of_nobody_yet_goes_where_it_should(self) -> None:
        said = self.assertDone(self.command("user", "rename", BOB, "b@example.org"))
        self.assertNotIn("CRAM-MD5", said.out, "there was no password that could be lost")
        self.assertTrue((self.mail / "b").is_dir())
        self.assertEqual(os.readlink(self.mail / "bob"), "b")

    def test_where_nobody_has_mail_yet_the_folders_above_are_made(self) -> None:
        shutil.rmtree(self.data / "mail")
        self.assertDone(self.command("user", "rename", BOB, "b@example.org"))
        self.assertTrue((self.mail / "b").is_dir())
        shutil.rmtree(self.data / "mail")
        self.configure(self.config.read_text() + '[domain."b.example"]\n')
        self.assertDone(self.command("user", "rename", ALICE, "alice@b.example"))
        self.assertTrue((self.data / "mail" / "b.example" / "alice").is_dir())

    def test_what_cannot_be_is_refused_before_anything_changes(self) -> None:
        accounts = self.accounts.read_text()
        (self.mail / "full" / "new").mkdir(parents=True)
        for words, code, why in (
            ((ALICE, BOB), 1, "exists already"),
            (("nobody@example.org", SMITH), 1, "there is no account nobody@example.org"),
            ((ALICE, "smith@elsewhere.example"), 1, "there is no [domain."),
            ((ALICE, "smith"), 2, "not an address"),
            ((ALICE, "full@example.org"), 74, "is there already: nothing was changed"),
        ):
            said = self.command("user", "rename", *words)
            self.assertEqual((said.code, said.out), (code, ""), words)
            self.assertIn(why, said.err)
        dry = self.assertDone(self.command("user", "rename", ALICE, SMITH, "--dry-run"))
        self.assertIn(f"{ALICE}: would be {SMITH}\n", dry.out)
        self.assertEqual(self.accounts.read_text(), accounts)
        self.assertEqual(sorted(os.listdir(self.mail)), ["alice", "full"])

    def test_a_file_system_that_cannot_exchange_names_leaves_everything(self) -> None:
        accounts = self.accounts.read_text()

        def cannot(one: str, other: str) -> None:
            raise OSError(22, "Invalid argument")

        self.patch(maildir_move, "_exchange", cannot)
        said = self.command("user", "rename", ALICE, SMITH)
        self.assertEqual(said.code, 74)
        self.assertIn("--mail-stays", said.err)
        self.assertEqual((self.accounts.read_text(), os.listdir(self.mail)), (accounts, ["alice"]))
        self.assertDone(self.command("user", "rename", ALICE, SMITH, "--mail-stays"))
        self.assertEqual(os.listdir(self.mail), ["alice"])

    def test_a_file_that_cannot_be_written_brings_the_mail_back(self) -> None:
        def full(*_: Any, **__: Any) -> None:
            raise OSError(28, "No space left on device")

        self.configure(self.config.read_text() + 'postmaster = "alice@example.org"\n')
        text = self.config.read_text()
        self.patch(maildir_move, "sync_directory", lambda path: None)
        from mailserver.accounts import table

        self.patch(table, "replace_file", full)
        said = self.command("user", "rename", ALICE, SMITH)
        self.assertEqual(said.code, 74)
        self.assertEqual(os.listdir(self.mail), ["alice"])
        self.assertFalse((self.mail / "alice").is_symlink())
        self.assertEqual(self.config.read_text(), text)


class Named(RenameCase):
    tables = TABLES

    def test_all_that_names_the_account_follows(self) -> None:
        said = self.assertDone(self.command("user", "rename", ALICE, SMITH))
        self.assertTrue(self.config.read_text().endswith(FOLLOWED), self.config.read_text())
        self.assertIn('+smith = ["smith", "far@elsewhere.example"]   # keeps and forwards\n', said.out)
        self.assertEqual([one.address for one in AccountsFile(str(self.accounts)).list()], [BOB, SMITH][::-1])

    def test_the_old_name_leads_to_the_new_one(self) -> None:
        self.assertDone(self.command("user", "rename", ALICE, SMITH, "--alias"))
        self.assertEqual(self.command("alias", "list", "--json").json[-1], {"alias": ALICE, "disabled": False, "leads_to": [SMITH]})
        self.assertIn("smith", self.command("route", ALICE).out)

    def test_an_alias_of_the_new_name_makes_way_or_is_refused(self) -> None:
        self.command("alias", "add", SMITH, "alice")
        self.assertDone(self.command("user", "rename", ALICE, SMITH))
        self.assertTrue(self.config.read_text().endswith(FOLLOWED), self.config.read_text())
        self.command("alias", "add", "other@example.org", "bob")
        said = self.command("user", "rename", SMITH, "other@example.org")
        self.assertEqual(said.code, 1)
        self.assertIn("is an alias", said.err)

    def test_an_account_that_has_nothing_goes_on_where_a_try_was_cut_off_too(self) -> None:
        new = "b@example.org"
        self.assertDone(self.command("user", "add", new, "--no-password"))
        self.assertEqual(self.command("user", "rename", BOB, new).code, 1, "another account")
        (self.mail / "b").mkdir()
        os.symlink("b", self.mail / "bob")
        self.assertDone(self.command("user", "rename", BOB, new))
        self.assertIn('"alice@second.example", "b"]', self.config.read_text())
        self.assertEqual((self.account(BOB), self.account(new).address), (None, new))

    def test_a_disabled_alias_that_makes_way_leaves_the_accounts_own_one_as_it_was(self) -> None:
        for others in ((), ("help@example.org",)):
            self.command("alias", "add", SMITH, "alice")
            for one in (SMITH, *others):
                self.assertDone(self.command("alias", "disable", one))
            self.assertDone(self.command("user", "rename", ALICE, SMITH))
            found = {one["alias"]: one["disabled"] for one in self.command("alias", "list", "--json").json}
            self.assertEqual((found[SMITH], found["help@example.org"]), (False, bool(others)))
            self.assertDone(self.command("user", "rename", SMITH, ALICE))

    def test_what_is_still_named_is_told(self) -> None:
        self.configure(self.config.read_text() + '[[filter]]\nuse = "denylist"\nsenders = ["x@y.example", "alice@example.org"]\n')
        said = self.assertDone(self.command("user", "rename", ALICE, SMITH))
        self.assertIn("still names it: filter[0].senders[1]\n", said.out)


class Domain(RenameCase):
    tables = TABLES.replace('[relay]', '[authentication]\ndomain = "example.org"\n\n[relay]')

    def test_a_domain_with_its_accounts_and_their_mail(self) -> None:
        self.assertDone(self.command("domain", "rename", "example.org", "new.example"))
        text = self.config.read_text()
        self.assertNotIn('"example.org"', text)
        for line in (
            '[domain."new.example"]\n',
            'postmaster = "Alice@new.example" # who reads it\n',
            'alice = ["alice", "far@elsewhere.example"]   # keeps and forwards\n',
            'help  = "alice+help@new.example"\n',
            'info  = ["alice@second.example", "bob"]\n',
            '[[domain."new.example".pattern]]\n',
            'same_as = "new.example"\n',
            'domain = "new.example"\n',
        ):
            self.assertIn(line, text)
        self.assertEqual([one.address for one in AccountsFile(str(self.accounts)).list()], ["alice@new.example", "bob@new.example"])
        self.assertEqual((self.data / "mail" / "new.example" / "alice" / "new" / "1.x.y").read_text(), "kept")
        self.assertEqual(os.path.realpath(self.mail / "alice"), str(self.data / "mail" / "new.example" / "alice"))
        self.assertIn(": no faults", self.command("check").out)

    def test_a_pattern_for_users_of_the_domain_follows_and_one_for_others_stays(self) -> None:
        more = "".join(f'[[domain."second.example".pattern]]\nmatch = "{name}-{{tag}}"\nuser = "{user}"\n' for name, user in (
            ("own", "{tag}@example.org"), ("plain", "{tag}"), ("other", "{tag}@other.example"), ("umlaut", "{tag}.\u00fc"),
        ))  # fmt: skip
        self.configure(self.config.read_text().replace('same_as = "example.org"\n', f'\n{more}[domain."other.example"]\n'))
        self.assertDone(self.command("domain", "rename", "example.org", "new.example"))
        for user in ("{tag}@new.example", "{tag}", "{tag}@other.example", "{tag}.\u00fc"):
            self.assertIn(f'user = "{user}"\n', self.config.read_text())

    def test_what_completes_addresses_follows_under_either_name_of_its_table(self) -> None:
        text = self.config.read_text()
        for table in ("[pickup]\ndomain = ", "[drop]  # since long\ndomain = ", "drop.domain = "):
            more = f'{table}"example.org"  # for cron'
            self.configure(f"{more}\n{text}" if table.startswith("drop") else f"{text}\n{more}\n")
            self.assertDone(self.command("domain", "rename", "example.org", "new.example"))
            self.assertIn(more.replace("example.org", "new.example"), self.config.read_text())
            self.assertDone(self.command("domain", "rename", "new.example", "example.org"))

    def test_the_old_name_goes_on_as_a_second_one_and_a_second_one_becomes_the_first(self) -> None:
        self.assertDone(self.command("domain", "rename", "example.org", "second.example", "--alias"))
        found = {one["domain"]: one["same_as"] for one in self.command("domain", "list", "--json").json}
        self.assertEqual(found, {"second.example": "", "example.org": "second.example"})
        self.assertIn(": no faults", self.command("check").out)

    def test_what_was_cut_off_with_both_names_goes_on(self) -> None:
        for words in ((), ("--alias",)):
            old, new = ("example.org", "new.example") if not words else ("new.example", "newer.example")
            with self.patched_to_end_before("become"):
                self.assertEqual(self.command("domain", "rename", old, new, *words).code, 130)
            names = [one.address for one in AccountsFile(str(self.accounts)).list()]
            self.assertEqual(sorted(names), sorted(f"{user}@{domain}" for user in ("alice", "bob") for domain in (old, new)))
            self.assertDone(self.command("domain", "rename", old, new, *words))
            names = [one.address for one in AccountsFile(str(self.accounts)).list()]
            self.assertEqual(sorted(names), [f"alice@{new}", f"bob@{new}"])
            self.assertEqual((self.data / "mail" / new / "alice" / "new" / "1.x.y").read_text(), "kept")

    @contextlib.contextmanager
    def patched_to_end_before(self, step: str) -> Iterator[None]:
        def end(*_: Any, dry_run: bool = False, **__: Any) -> None:
            if not dry_run:
                raise KeyboardInterrupt

        before = getattr(renaming, step)
        setattr(renaming, step, end)
        try:
            yield
        finally:
            setattr(renaming, step, before)

    def test_a_domain_that_is_there_is_not_taken(self) -> None:
        self.command("domain", "add", "b.example")
        text = self.config.read_text()
        for words in (("example.org", "b.example"), ("nowhere.example", "c.example"), ("example.org", "EXAMPLE.org")):
            self.assertEqual(self.command("domain", "rename", *words).code, 1, words)
        self.assertEqual((self.config.read_text(), os.listdir(self.data / "mail")), (text, ["example.org"]))


class OtherStores(CommandCase):
    def setUp(self) -> None:
        super().setUp()
        self.configure(CONFIGURATION.replace('path = "accounts.toml"', 'use = "system"\ndomains = ["example.org", "b.example"]'))

    def test_accounts_in_no_file_are_changed_where_they_stand(self) -> None:
        for words in (("disable", ALICE), ("enable", ALICE), ("rename", ALICE, SMITH)):
            said = self.command("user", *words)
            self.assertEqual((said.code, said.out), (1, ""))
            self.assertIn('([accounts] use = "system"), so this command cannot change or list them: do it with the host', said.err)

    def test_the_configuration_alone_is_renamed_where_that_is_said(self) -> None:
        text = self.config.read_text()
        said = self.command("domain", "rename", "example.org", "new.example")
        self.assertEqual((said.code, self.config.read_text()), (1, text))
        self.assertIn("then --mail-stays changes the configuration", said.err)
        said = self.command("domain", "rename", "example.org", "new.example", "--mail-stays")
        self.assertEqual((said.code, said.err), (0, ""))
        self.assertEqual(self.config.read_text(), text.replace('"example.org"', '"new.example"'))


class Running(RenameCase, TestCase):
    tables = TABLES

    def serve(self, refuse: bool | Exception) -> list[tuple[str, list[str]]]:
        self.patch(unix, "_inFilesystemNamespace", lambda path: path[:1] != b"\0")
        seen: list[tuple[str, list[str]]] = []

        async def reload(_: dict[str, Any]) -> dict[str, Any]:
            seen.append((self.config.read_text(), [one.address for one in AccountsFile(str(self.accounts)).list()]))
            if refuse:
                raise refuse if isinstance(refuse, Exception) else CommandRefused("the port is taken")
            return {}

        async def status(_: dict[str, Any]) -> dict[str, Any]:
            return {}

        async def follow(arguments: dict[str, Any]) -> dict[str, Any]:
            self.asked.append((arguments["verb"], arguments["accounts"]))
            failed = {"the filter odd": "it cannot"} if arguments["verb"] in self.failing else {}
            return {"followed": ["the filter lists"], "failed": failed, "kept": {}}

        self.asked: list[Any] = []
        self.failing: set[str] = set()
        commands = {"reload": reload, "status": status, "component.follow": follow}
        server = ControlServer(str(self.data / "control.sock"), commands)
        server.start(reactor)
        self.addCleanup(server.stop)
        return seen

    async def rename(self, *words: str) -> Said:
        said: Said = await deferToThread(run, "user", "rename", ALICE, SMITH, "--config", str(self.config), *words)
        return said

    async def test_the_server_takes_it_up_while_both_names_are_there(self) -> None:
        seen = self.serve(refuse=False)
        said = await self.rename()
        self.assertEqual((said.code, seen), (1, []))
        self.assertIn("say --reload", said.err)
        self.assertDone(await self.rename("--reload"))
        [(text, names)] = seen
        self.assertTrue(text.endswith(FOLLOWED))
        self.assertEqual(names, [ALICE, BOB, SMITH])
        self.assertEqual([one.address for one in AccountsFile(str(self.accounts)).list()], [SMITH, BOB])
        self.assertEqual(self.asked, [("begin", {ALICE: SMITH}), ("complete", {ALICE: SMITH})])
        self.assertFalse((self.data / "renames.json").exists())

    async def test_a_component_that_cannot_follow_stops_it_before_anything_has_changed(self) -> None:
        seen = self.serve(refuse=False)
        self.failing = {"begin"}
        before = self.config.read_text(), self.accounts.read_text()
        said = await self.rename("--reload")
        self.assertEqual((said.code, seen), (74, []))
        self.assertIn("the filter odd: it cannot; what it keeps of the users would not follow, so nothing was changed", said.err)
        self.assertEqual((self.config.read_text(), self.accounts.read_text()), before)
        self.assertEqual(self.asked, [("begin", {ALICE: SMITH}), ("undo", {ALICE: SMITH})])
        self.assertFalse((self.mail / "alice").is_symlink() or (self.data / "renames.json").exists())

    async def test_one_that_fails_at_the_end_is_named_and_the_same_once_more_completes_it(self) -> None:
        self.serve(refuse=False)
        self.failing = {"complete"}
        said = await self.rename("--reload")
        self.assertEqual(said.code, 74)
        self.assertIn("the filter odd: it cannot; all else is renamed.", said.err)
        self.assertIn(f"{ALICE}: {SMITH}\n", said.out)
        self.assertEqual([one.address for one in AccountsFile(str(self.accounts)).list()], [SMITH, BOB])
        os.unlink(self.mail / "alice")
        added = await deferToThread(run, "user", "add", ALICE, "--no-password", "--config", str(self.config))
        self.assertEqual(added.code, 1)
        self.assertIn(f"say  mailserver user rename {ALICE} {SMITH}  once more", added.err)
        self.assertEqual((await self.rename()).code, 74)
        self.failing = set()
        self.assertDone(await self.rename())
        self.assertEqual(self.asked[-1], ("complete", {ALICE: SMITH}))
        self.assertIn("there is no account", (await self.rename()).err)
        added = await deferToThread(run, "user", "add", ALICE, "--no-password", "--config", str(self.config))
        self.assertEqual(added.code, 0, added)

    async def test_a_domain_that_was_cut_off_at_its_end_is_taken_up_by_the_server_first(self) -> None:
        seen = self.serve(refuse=False)
        self.failing = {"complete"}
        words = ("domain", "rename", "example.org", "new.example", "--config", str(self.config))
        self.assertEqual((await deferToThread(run, *words, "--reload")).code, 74)
        self.failing = set()
        said = await deferToThread(run, *words)
        self.assertEqual((said.code, len(seen), self.asked[-1][0]), (1, 1, "complete"))
        self.assertIn("say --reload", said.err)
        self.assertDone(await deferToThread(run, *words, "--reload"))
        self.assertEqual((len(seen), self.asked[-1]), (2, ("complete", {"@example.org": "@new.example"})))
        self.assertFalse((self.data / "renames.json").exists())

    async def test_what_cannot_be_taken_back_is_told_and_its_names_are_nobody_elses(self) -> None:
        self.serve(refuse=True)
        self.failing = {"undo"}
        said = await self.rename("--reload")
        self.assertIn("what they keep stands under the new names, too: the filter odd: it cannot", said.err)
        added = await deferToThread(run, "user", "add", SMITH, "--no-password", "--config", str(self.config))
        self.assertIn("a rename that was not finished", added.err)

    async def test_a_removal_that_a_component_cannot_follow_removes_nothing(self) -> None:
        self.serve(refuse=False)
        self.failing = {"removed"}
        words = ("user", "remove", ALICE, "--purge", "--yes", "--config", str(self.config))
        said = await deferToThread(run, *words)
        self.assertEqual(said.code, 74)
        self.assertIn(f"the filter odd: it cannot; {ALICE} was not removed", said.err)
        self.assertTrue(self.account(ALICE) and (self.mail / "alice").exists())
        self.failing = set()
        self.assertEqual((await deferToThread(run, *words)).code, 0)
        self.assertEqual(self.asked[-1], ("removed", {ALICE: ALICE}))
        self.assertIsNone(self.account(ALICE))

    async def test_a_server_that_does_not_take_it_up_leaves_everything_as_it_was(self) -> None:
        seen = self.serve(refuse=True)
        before = self.config.read_text(), self.accounts.read_text()
        said = await self.rename("--reload")
        self.assertEqual((said.code, len(seen)), (1, 1))
        self.assertIn("the port is taken; it was put back, nothing is changed", said.err)
        self.assertEqual((self.config.read_text(), self.accounts.read_text()), before)
        self.assertEqual(os.listdir(self.mail), ["alice"])
        self.assertFalse((self.mail / "alice").is_symlink())
        self.assertEqual(self.asked, [("begin", {ALICE: SMITH}), ("undo", {ALICE: SMITH})])
        self.assertFalse((self.data / "renames.json").exists())

    async def test_where_nobody_knows_what_the_server_has_done_both_names_stay_and_the_next_try_goes_on(self) -> None:
        seen = self.serve(refuse=False)

        def no_answer(*_: Any, **__: Any) -> None:
            raise ControlError("the server gave no answer within 120 s")

        before, configuration_change.ask_server = configuration_change.ask_server, no_answer
        try:
            said = await self.rename("--reload")
        finally:
            configuration_change.ask_server = before
        self.assertEqual((said.code, seen), (69, []))
        self.assertIn("all stands under both names: say the same once more", said.err)
        self.assertEqual([one.address for one in AccountsFile(str(self.accounts)).list()], [ALICE, BOB, SMITH])
        self.assertTrue(self.config.read_text().endswith(FOLLOWED))
        self.assertEqual(os.readlink(self.mail / "alice"), "smith")
        said = await self.rename()
        self.assertEqual((said.code, seen), (1, []))
        self.assertIn("has changed with it, and the running server has to take that up", said.err)
        self.assertDone(await self.rename("--reload"))
        self.assertEqual([names for _, names in seen], [[ALICE, BOB, SMITH]])
        self.assertEqual([one.address for one in AccountsFile(str(self.accounts)).list()], [SMITH, BOB])

    async def test_what_somebody_else_wrote_meanwhile_is_not_put_back(self) -> None:
        other = "# Somebody else's.\n"

        class Edits(CommandRefused):
            def __str__(edits) -> str:
                if not self.config.read_text().endswith(other):
                    self.config.write_text(self.config.read_text() + other)
                return "the port is taken"

        self.serve(refuse=Edits())
        said = await self.rename("--reload")
        self.assertEqual(said.code, 1)
        self.assertIn("was changed by somebody else meanwhile", said.err)
        self.assertTrue(self.config.read_text().endswith(other))
        self.assertEqual([one.address for one in AccountsFile(str(self.accounts)).list()], [ALICE, BOB, SMITH])
