"""``mailserver domain`` and ``mailserver alias``: the configuration file is changed, and what people wrote in it stays."""

from __future__ import annotations

import difflib
import os
import stat
from typing import Any

from twisted.internet import reactor, unix
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from mailserver.config import editing, load
from mailserver.control.server import CommandRefused, ControlServer
from tests.cli.support import CONFIGURATION, CommandCase, run
from tests.requires import require_root

COMMENTED = CONFIGURATION.replace(
    '[domain."example.org"]\n',
    """# Ours.
[domain."example.org"]           # since 1999
postmaster = "alice@example.org" # who reads it

[domain."example.org".aliases]
sales = [                        # those who sell
    "alice@example.org",
    "bob@example.org",           # until May
]                                # end of sales
help = "alice@example.org"

# --- Where mail goes. ---

[relay]
use = "none"
""",
)


class Changes(CommandCase):
    def setUp(self) -> None:
        super().setUp()
        self.configure(COMMENTED)

    def change(self, *arguments: str) -> list[str]:
        """The lines that have changed in the file; and the command says the same."""
        before = self.config.read_text()
        said = self.command(*arguments)
        self.assertEqual((said.code, said.err), (0, ""), said)
        both = difflib.unified_diff(before.splitlines(), self.config.read_text().splitlines(), n=0, lineterm="")
        changed = [line for line in both if line[:1] in "+-" and line[:3] not in ("---", "+++")]
        self.assertEqual(said.out.splitlines()[:-1], changed)
        self.assertTrue(load(str(self.config)))
        return changed

    def test_an_alias_more_is_one_line_more(self) -> None:
        self.assertEqual(self.change("alias", "add", "info@example.org", "alice"), ['+info = ["alice"]'])
        self.assertEqual(self.command("alias", "list", "--json").json[-1]["leads_to"], ["alice@example.org"])

    def test_an_alias_leads_to_more_and_to_fewer(self) -> None:
        self.assertEqual(
            self.change("alias", "add", "HELP@Example.ORG", "bob@example.org"),
            ['-help = "alice@example.org"', '+help = ["alice@example.org", "bob@example.org"]'],
        )
        self.change("alias", "remove", "sales@example.org", "bob@example.org")
        self.assertIn('sales = ["alice@example.org"]                                # end of sales\n', self.config.read_text())
        self.assertEqual(
            self.change("alias", "remove", "help@example.org"), ['-help = ["alice@example.org", "bob@example.org"]']
        )

    def test_the_last_address_of_an_alias_takes_it_along(self) -> None:
        self.assertEqual(
            self.change("alias", "remove", "help@example.org", "alice@example.org"), ['-help = "alice@example.org"']
        )

    def test_a_domain_comes_behind_the_others_and_goes_without_a_trace(self) -> None:
        changed = self.change("domain", "add", "B.example", "--postmaster", "alice@example.org")
        self.assertEqual([one for one in changed if one != "+"], ['+[domain."b.example"]', '+postmaster = "alice@example.org"'])
        self.assertEqual(self.change("alias", "add", "x@b.example", "y@b.example"), ['+aliases.x = ["y@b.example"]'])
        self.assertLess(self.config.read_text().index("b.example"), self.config.read_text().index("Where mail goes"))
        self.change("domain", "remove", "b.example")
        self.assertEqual(self.config.read_text(), COMMENTED)

    def test_what_stands_around_a_domain_stays_when_it_goes(self) -> None:
        self.change("domain", "remove", "example.org")
        text = self.config.read_text()
        self.assertNotIn("alice", text)
        for kept in ("# Ours.\n", "# --- Where mail goes. ---\n\n[relay]"):
            self.assertIn(kept, text)
        self.assertEqual(self.command("domain", "list").out, "0 domains.\n")

    def test_a_domain_is_disabled_and_enabled_by_one_line(self) -> None:
        self.assertEqual(self.change("domain", "disable", "Example.org"), ["+disabled = true"])
        self.assertRegex(self.command("domain", "list").out, r"example\.org +disabled ")
        self.assertEqual(self.command("domain", "disable", "example.org").code, 1)
        self.assertIn("is disabled", self.command("route", "alice@example.org").out)
        self.assertEqual(self.change("domain", "enable", "example.org"), ["-disabled = true"])
        self.assertEqual(self.config.read_text(), COMMENTED)
        self.assertEqual(self.command("domain", "enable", "example.org").code, 1)

    def test_an_alias_is_disabled_and_enabled_by_one_line(self) -> None:
        self.assertEqual(self.change("alias", "disable", "SALES@example.org"), ['+disabled_aliases = ["sales"]'])
        self.assertRegex(self.command("alias", "list").out, r"sales@example\.org +disabled +alice")
        self.assertEqual(self.command("alias", "disable", "sales@example.org").code, 1)
        self.change("alias", "disable", "help@example.org")
        self.assertEqual(self.change("alias", "rename", "help@example.org", "hilfe")[-1], '+hilfe = "alice@example.org"')
        self.assertEqual([one["disabled"] for one in self.command("alias", "list", "--json").json], [True, True])
        self.change("alias", "remove", "hilfe@example.org")
        self.assertEqual(self.change("alias", "enable", "sales@example.org"), ['-disabled_aliases = ["sales"]'])
        for command in ("disable", "enable"):
            self.assertEqual(self.command("alias", command, "nobody@example.org").code, 1)

    def test_a_disabled_alias_that_is_not_there_is_a_fault(self) -> None:
        self.configure(COMMENTED.replace('postmaster = "a', 'disabled_aliases = ["nobody"]\npostmaster = "a', 1))
        self.assertIn("there is no alias 'nobody' here", self.command("check").out)

    def test_an_alias_gets_another_name_where_others_name_it_too(self) -> None:
        self.change("alias", "add", "all@example.org", "sales", "help+x@example.org")
        self.accounts.write_text('[account."taken@example.org"]\n')
        self.assertEqual(
            self.change("alias", "rename", "sales@example.org", "verkauf@example.org"),
            [
                "-sales = [                        # those who sell",
                "+verkauf = [                        # those who sell",
                '-all = ["sales", "help+x@example.org"]',
                '+all = ["verkauf", "help+x@example.org"]',
            ],
        )
        for new in ("help", "taken", "nobody@nowhere.example"):
            self.assertEqual(self.command("alias", "rename", "verkauf@example.org", new).code, 1, new)
        self.change("domain", "add", "b.example")
        moved = self.change("alias", "rename", "help@example.org", "hilfe@b.example")
        self.assertIn('+aliases.hilfe = ["alice@example.org"]', moved)
        self.assertIn('+all = ["verkauf", "hilfe+x@b.example"]', moved)

    def test_a_disabled_alias_that_moves_to_another_domain_stays_disabled(self) -> None:
        self.change("domain", "add", "b.example")
        self.change("alias", "disable", "help@example.org")
        self.assertIn('+disabled_aliases = ["hilfe"]', self.change("alias", "rename", "help@example.org", "hilfe@b.example"))
        disabled = {one["alias"]: one["disabled"] for one in self.command("alias", "list", "--json").json}
        self.assertEqual(disabled, {"sales@example.org": False, "hilfe@b.example": True})

    def test_aliases_that_would_go_round_are_not_written(self) -> None:
        self.change("alias", "add", "a@example.org", "help")
        text = self.config.read_text()
        said = self.command("alias", "add", "help@example.org", "a")
        self.assertEqual((said.code, said.out), (78, ""))
        self.assertIn("leads back to itself", said.err)
        self.assertEqual(self.config.read_text(), text)

    def test_a_domain_goes_with_its_accounts_and_their_mail(self) -> None:
        self.change("domain", "add", "b.example")
        self.accounts.write_text('# People.\n[account."alice@example.org"]\n\n[account."x@b.example"]\n')
        for name in ("example.org/alice", "b.example/x"):
            (self.data / "mail" / name / "new").mkdir(parents=True)
        text = self.config.read_text()
        self.assertEqual(self.command("domain", "remove", "b.example", "--purge").code, 2, "nobody can be asked")
        dry = self.command("domain", "remove", "b.example", "--purge", "--dry-run")
        self.assertIn("x@b.example: would be removed, with ", dry.out)
        self.assertEqual((self.config.read_text(), len(list(self.data.glob("mail/*/*")))), (text, 2))
        said = self.command("domain", "remove", "b.example", "--purge", "--yes")
        self.assertEqual((said.code, said.err), (0, ""), said)
        self.assertIn("x@b.example: removed, with its mail\n", said.out)
        self.assertEqual(self.config.read_text(), COMMENTED)
        self.assertEqual(self.accounts.read_text().rstrip(), '# People.\n[account."alice@example.org"]')
        self.assertEqual([one.name for one in self.data.glob("mail/*/*")], ["alice"])

    def test_one_account_whose_mail_does_not_go_keeps_no_other_one(self) -> None:
        self.change("domain", "add", "b.example")
        names = ("x", "y", "z")
        self.accounts.write_text("".join(f'[account."{name}@b.example"]\n' for name in names))
        mail = self.data / "mail" / "b.example"
        for name in ("x", "z"):
            (mail / name / "new").mkdir(parents=True)
        (mail / "y").write_text("no folder")
        said = self.command("domain", "remove", "b.example", "--purge", "--yes")
        self.assertEqual(said.code, 74)
        self.assertIn("y@b.example: the account is removed, but not its mail: ", said.err)
        self.assertIn("z@b.example: removed, with its mail\n", said.out)
        self.assertEqual((self.accounts.read_text().strip(), os.listdir(mail)), ("", ["y"]))

    def test_line_ends_a_mark_a_mode_and_a_link_are_kept(self) -> None:
        self.config.write_bytes(b"\xef\xbb\xbf" + COMMENTED.replace("\n", "\r\n").encode())
        os.chmod(self.config, 0o640)
        real = self.folder / "real.toml"
        self.config.rename(real)
        self.config.symlink_to(real)
        self.assertEqual(self.command("alias", "add", "info@example.org", "alice").code, 0)
        octets = real.read_bytes()
        self.assertEqual(octets.replace(b'info = ["alice"]\r\n', b""), b"\xef\xbb\xbf" + COMMENTED.replace("\n", "\r\n").encode())
        self.assertTrue(self.config.is_symlink())
        self.assertEqual(stat.S_IMODE(real.stat().st_mode), 0o640)

    def test_the_answer_is_no_where_there_is_nothing_to_change(self) -> None:
        for command in (
            ("domain", "add", "EXAMPLE.org"),
            ("domain", "remove", "b.example"),
            ("alias", "add", "sales@example.org", "alice@example.org"),
            ("alias", "add", "sales@b.example", "alice@example.org"),
            ("alias", "remove", "nobody@example.org"),
            ("alias", "remove", "sales@example.org", "carol@example.org"),
            ("alias", "list", "b.example"),
        ):
            said = self.command(*command)
            self.assertEqual((said.code, said.out), (1, ""), command)
        self.assertEqual(self.config.read_text(), COMMENTED)

    def test_a_second_name_of_a_domain(self) -> None:
        added = self.change("domain", "add", "b.example", "--same-as", "example.org")
        self.assertEqual(added, ['+[domain."b.example"]', '+same_as = "example.org"', "+"])
        self.assertEqual(self.command("domain", "list", "--json").json[-1]["same_as"], "example.org")
        self.assertRegex(self.command("domain", "list").out, r"b\.example +example\.org")
        said = self.command("user", "add", "alice@b.example", "--no-password")
        self.assertEqual(said.code, 1)
        self.assertIn("b.example is the same as example.org: add the account there", said.err)
        text = self.config.read_text()
        self.assertEqual(self.command("domain", "remove", "example.org").code, 78, "the other one needs it")
        self.assertEqual(self.command("alias", "add", "info@b.example", "alice").code, 78)
        self.assertEqual(self.config.read_text(), text)
        road = self.command("route", "alice@b.example", "--config", str(self.config)).out
        self.assertIn("has the names of the domain of alice@example.org", road)

    def test_what_would_be_a_fault_is_told_and_not_written(self) -> None:
        for command, code in (
            (("domain", "add", "b.example", "--postmaster", "nobody"), 78),
            (("alias", "add", "info@example.org", "not an address"), 78),
            (("alias", "add", "no address", "alice"), 2),
            (("domain", "add", "not a domain"), 2),
        ):
            said = self.command(*command)
            self.assertEqual((said.code, said.out), (code, ""), command)
            self.assertEqual(self.config.read_text(), COMMENTED)
        self.configure(COMMENTED.replace('use = "none"', 'use = "nun"'))
        self.assertEqual(self.command("domain", "add", "b.example").code, 78)

    def test_a_form_that_cannot_be_changed_is_left_alone(self) -> None:
        text = CONFIGURATION + 'aliases = { sales = "alice" }\n'
        self.configure(text)
        said = self.command("alias", "add", "info@example.org", "alice")
        self.assertEqual(said.code, 78)
        self.assertIn("edit it by hand", said.err)
        self.assertEqual(self.config.read_text(), text)

    def test_a_file_in_another_encoding_is_told_and_left_alone(self) -> None:
        octets = COMMENTED.encode().replace(b"since", b"\xfcber")
        self.config.write_bytes(octets)
        said = self.command("alias", "add", "info@example.org", "alice")
        self.assertEqual(said.code, 78)
        self.assertIn("is not UTF-8", said.err)
        self.assertEqual(self.config.read_bytes(), octets)

    def test_dry_run_only_shows_it(self) -> None:
        said = self.command("alias", "add", "info@example.org", "alice", "--dry-run")
        self.assertEqual((said.code, said.out), (0, '+info = ["alice"]\n'))
        self.assertEqual(self.config.read_text(), COMMENTED)

    def test_a_disk_that_is_full_leaves_the_old_file(self) -> None:
        def full(fd: int) -> None:
            raise OSError(28, "No space left on device")

        self.patch(editing.os, "fsync", full)
        said = self.command("alias", "add", "info@example.org", "alice")
        self.assertEqual(said.code, 74)
        self.assertEqual(self.config.read_text(), COMMENTED)
        self.assertEqual([one.name for one in self.folder.iterdir() if one.name.endswith(".new")], [])

    def test_who_may_not_write_the_file_is_refused(self) -> None:
        require_root("to be another user")
        os.chmod(self.folder, 0o755)
        os.chmod(self.config, 0o644)
        os.seteuid(65534)
        try:
            said = self.command("alias", "add", "info@example.org", "alice")
        finally:
            os.seteuid(0)
        self.assertEqual((said.code, said.out), (77, ""))
        self.assertIn("you may not change it", said.err)
        self.assertEqual(self.config.read_text(), COMMENTED)


class Reload(CommandCase, TestCase):
    async def test_the_running_server_takes_it_up_or_says_why_not(self) -> None:
        self.patch(unix, "_inFilesystemNamespace", lambda path: path[:1] != b"\0")
        asked: list[str] = []

        async def reload(_: dict[str, Any]) -> dict[str, Any]:
            asked.append(self.config.read_text())
            if len(asked) > 1:
                raise CommandRefused("the port is taken")
            return {}

        server = ControlServer(str(self.data / "control.sock"), {"reload": reload})
        server.start(reactor)
        self.addCleanup(server.stop)
        words = ("alias", "add", "info@example.org", "--config", str(self.config), "--reload")
        said = await deferToThread(run, *words, "alice")
        self.assertEqual((said.code, said.out), (0, '+aliases.info = ["alice"]\n'))
        self.assertIn("aliases.info", asked[0])
        said = await deferToThread(run, *words, "bob")
        self.assertEqual(said.code, 1)
        self.assertIn("the server goes on with what it had: the port is taken", said.err)
