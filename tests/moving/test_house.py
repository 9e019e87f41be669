"""``mailserver export`` and ``import house``: the same house on another machine."""

from __future__ import annotations

import json
import os
import re
import shutil
import tarfile
from pathlib import Path
from typing import Any

from mailserver.moving import maildir_target
from tests.cli.support import CONFIGURATION, CommandCase, Said, run

MAIL = ("cur/1600000000.a.host,S=13,W=16:2,FSa", "new/1600000001.b.host", ".Sent.2020/cur/1600000002.c.host:2,S")
PASSWORD = "the-relay-password"
HOUSE = CONFIGURATION.replace(
    '[domain."example.org"]',
    """[relay]
use = "smarthost"
host = "smtp.provider.example"
tls = "verified"
username = "alice"
password_file = "relay.password"
[[filter]]
use = "lists"
[domain."example.org"]
catch_all = "alice@example.org"
[domain."example.org".aliases]
sales = ["alice", "bob@far.example"]
[domain."example.com"]
same_as = "example.org"
""",
)
ACCOUNTS = """\
[account."alice@example.org"]
password = "$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHQ$AAAAAAAAAAAAAAAAAAAAAA"
senders = ["boss@example.org", "@lists.example.org"]
certificates = ["alice@people.example"]

[account."alice@example.org".app_password."phone"]
password = "{SSHA256}AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=="
scopes = ["smtp"]
expires = 2030-01-02

[account."bob@example.org"]
disabled = true
"""


class House(CommandCase):
    def setUp(self) -> None:
        super().setUp()
        self.patch(maildir_target, "find_syncfs", lambda: lambda fd: None)
        self.patch(os, "sync", lambda: None)
        self.configure(HOUSE)
        self.accounts.write_text(ACCOUNTS)
        (self.folder / "relay.password").write_text(PASSWORD)
        keys = self.folder / "data-keys" / "dkim"
        keys.mkdir(parents=True, mode=0o700)
        (keys / "example.org.pem").write_text("-----BEGIN SECRET-----\n")
        maildir = self.data / "mail" / "example.org" / "alice"
        for name in MAIL:
            path = maildir / name
            for part in ("cur", "new", "tmp"):
                (path.parent.parent / part).mkdir(parents=True, exist_ok=True)
            path.write_text(f"Subject: {name[0]}\n\nx\n")
            os.utime(path, (1_600_000_000, 1_600_000_000))
        (maildir / "dovecot-keywords").write_text("0 $Forwarded\n")
        (maildir / "subscriptions").write_text("Sent.2020\n")
        self.assertEqual(self.command("list", "add", "white", "friend@example.net", "--comment", "he is").code, 0)
        self.out, self.other = self.folder / "out", self.folder / "other"
        (self.other / "data").mkdir(parents=True, mode=0o700)

    def export(self, *more: str, config: Path | None = None, target: Path | None = None) -> Said:
        return run("export", str(target or self.out), *more, "--config", str(config or self.config))

    def put_up(self, source: Path | None = None) -> Said:
        return run("import", "house", str(source or self.out), "--output", str(self.other / "mailserver.toml"))

    def contents(self, folder: Path) -> dict[str, Any]:
        """An export without its date, and without the names that its mail has got: octets, times and flags."""
        found: dict[str, Any] = {}
        for path in folder.rglob("*"):
            name = str(path.relative_to(folder))
            if not path.is_file():
                continue
            content: Any = path.read_bytes()
            if name.startswith("mail/") and path.parent.name in ("cur", "new"):
                flags = path.name.partition(":2")[2]
                name = f"{path.parent.relative_to(folder)}/{content.decode()}"
                content = flags, int(path.stat().st_mtime)
            elif name == "house.json":
                content = json.loads(content) | {"made_at": 0}
            found[name] = content
        return found

    def test_what_is_exported_from_the_house_that_was_put_up_is_what_was_exported_from_the_first(self) -> None:
        said = self.export("--mail", "--keys")
        self.assertEqual((said.code, said.err), (0, ""), said.out)
        self.assertIn("2 accounts, 2 domains, 1 records, 2 secrets, 3 messages", said.out)
        put = self.put_up()
        self.assertEqual((put.code, put.err), (0, ""), put.out)
        again = self.folder / "again"
        self.assertEqual(self.export("--mail", "--keys", config=self.other / "mailserver.toml", target=again).code, 0)
        first = self.contents(self.out)
        self.assertEqual(self.contents(again), first)
        self.assertIn(("mail/example.org/alice/cur/Subject: c\n\nx\n", (",FSa", 1_600_000_000)), first.items())
        self.assertEqual((self.other / "relay.password").stat().st_mode & 0o777, 0o600)
        routes = [
            run("route", "sales@example.com", "--json", "--config", str(c)).json
            for c in (self.config, self.other / "mailserver.toml")
        ]
        self.assertEqual(routes[0], routes[1])

    def test_put_up_a_second_time_it_changes_nothing(self) -> None:
        self.export("--mail", "--keys")
        self.put_up()
        before = {
            path: path.stat().st_mtime_ns for path in self.other.rglob("*") if path.is_file() and ".db" not in path.name
        }
        said = run("import", "house", str(self.out), "--output", str(self.other / "mailserver.toml"), "--json")
        self.assertEqual(said.code, 0)
        self.assertEqual((said.json["accounts"], said.json["messages"], said.json["keys"]), (0, 0, 0))
        after = {
            path: path.stat().st_mtime_ns for path in self.other.rglob("*") if path.is_file() and ".db" not in path.name
        }
        self.assertEqual(
            {path for path in after if after[path] != before.get(path)} - {*self.other.rglob("subscriptions")}, set()
        )

    def test_a_tar_file_gives_the_same_house(self) -> None:
        tar = self.folder / "house.tar"
        self.export("--mail", "--keys", target=tar)
        self.assertEqual(tar.stat().st_mode & 0o777, 0o600)
        self.assertEqual(self.put_up(tar).code, 0)
        again = self.folder / "again"
        self.export("--mail", "--keys", config=self.other / "mailserver.toml", target=again)
        self.export("--mail", "--keys")
        self.assertEqual(self.contents(again), self.contents(self.out))
        self.assertEqual(self.export(target=tar).code, 1)  # not over a file that is there
        self.assertEqual([path.name for path in self.folder.glob("house-*")], [])

    def test_without_being_asked_for_neither_mail_nor_secrets_leave(self) -> None:
        said = self.export()
        self.assertIn("not there: keys, and files with secrets (--keys)", said.out)
        names = sorted(str(path.relative_to(self.out)) for path in self.out.rglob("*"))
        self.assertEqual(names, ["accounts.jsonl", "domains.jsonl", "house.json", "mailserver.toml", "records.jsonl"])
        whole = b"".join(path.read_bytes() for path in self.out.iterdir())
        self.assertNotIn(PASSWORD.encode(), whole)
        self.assertEqual(self.out.stat().st_mode & 0o777, 0o700)

    def test_the_lines_can_be_read_by_others(self) -> None:
        self.export()
        accounts = [json.loads(line) for line in (self.out / "accounts.jsonl").read_text().splitlines()]
        self.assertEqual(
            accounts[0]["app_passwords"][0] | {"password": ""},
            {"name": "phone", "password": "", "scopes": ["smtp"], "expires": "2030-01-02"},
        )
        self.assertEqual(accounts[1], {"address": "bob@example.org", "disabled": True})
        domains = {one["domain"]: one for one in map(json.loads, (self.out / "domains.jsonl").read_text().splitlines())}
        self.assertEqual(domains["example.org"]["aliases"], {"sales": ["alice@example.org", "bob@far.example"]})
        self.assertEqual(domains["example.com"]["same_as"], "example.org")

    def test_what_is_there_already_and_is_another_one_stops_it(self) -> None:
        self.export("--keys")
        (self.other / "mailserver.toml").write_text("another\n")
        said = self.put_up()
        self.assertEqual((said.code, (self.other / "mailserver.toml").read_text()), (1, "another\n"))
        (self.other / "mailserver.toml").unlink()
        (self.other / "accounts.toml").write_text('[account."bob@example.org"]\nsenders = ["x@example.org"]\n')
        self.assertIn("bob@example.org is an account here already", self.put_up().err)
        (self.other / "accounts.toml").unlink()
        (self.other / "relay.password").write_text("of somebody else")
        self.assertIn("is another one: nothing was written over it", self.put_up().err)

    def test_an_export_that_is_not_whole_is_refused_before_anything_is_made(self) -> None:
        self.export()
        whole = self.folder / "whole"
        shutil.copytree(self.out, whole)
        for name, change in {
            "house.json": None, "mailserver.toml": None, "accounts.jsonl": '{"address": 7}\n',
        }.items():  # fmt: skip
            with self.subTest(name):
                shutil.rmtree(self.out)
                shutil.copytree(whole, self.out)
                (self.out / name).unlink()
                if change:
                    (self.out / name).write_text(change)
                self.assertEqual(self.put_up().code, 1)
        self.assertFalse((self.other / "accounts.toml").exists())
        (self.out / "house.json").write_text('{"format": 99}')
        self.assertIn("this release knows 1", self.put_up().err)

    def test_a_tar_file_with_names_that_lead_out_is_refused(self) -> None:
        self.export()
        evil = self.folder / "evil.tar"
        with tarfile.open(evil, "w") as tar:
            tar.add(self.out / "house.json", "../../escaped.json")
        said = self.put_up(evil)
        self.assertEqual(said.code, 74, said)
        self.assertFalse((self.folder.parent / "escaped.json").exists())

    def test_no_link_in_an_export_is_followed(self) -> None:
        secret = self.folder / "secret"
        (secret / "cur").mkdir(parents=True)
        (secret / "cur" / "1.a").write_text("Subject: secret\n\n")
        for name in ("keys", "mail/example.org/alice"):
            with self.subTest(name):
                shutil.rmtree(self.out, ignore_errors=True)
                self.export("--mail", "--keys")
                shutil.rmtree(self.out / name)
                os.symlink(secret, self.out / name)
                self.assertNotEqual(self.put_up().code, 0)
                everything = [path for path in self.other.rglob("*") if path.is_file()]
                self.assertEqual([path for path in everything if b"Subject: secret" in path.read_bytes()], [])

    def manifest(self, change: Any) -> None:
        found = json.loads((self.out / "house.json").read_text())
        change(found)
        (self.out / "house.json").write_text(json.dumps(found))

    def test_an_export_writes_no_file_that_its_configuration_does_not_name_and_none_outside_without_consent(self) -> None:
        target = self.folder / "profile.d" / "x.sh"
        target.parent.mkdir()
        for path in (str(target), "../profile.d/x.sh", "other.txt", f"{self.other}/../profile.d/x.sh"):
            with self.subTest(path):
                shutil.rmtree(self.out, ignore_errors=True)
                self.export("--keys")
                self.manifest(lambda found: found["files"][0].update(path=path))
                said = self.put_up()
                self.assertEqual((said.code, "that the configuration names" in said.err), (1, True), said)
                self.assertEqual(([*target.parent.iterdir()], (self.other / "other.txt").exists()), ([], False))
        shutil.rmtree(self.out)
        self.config.write_text(self.config.read_text().replace('"relay.password"', json.dumps(str(target))))
        target.write_text(PASSWORD)
        self.export("--keys")
        target.unlink()
        (self.other / "mailserver.toml").unlink()
        said = self.put_up()
        self.assertEqual((said.code, "--any-path" in said.err, target.exists()), (1, True, False), said)
        said = run("import", "house", str(self.out), "--output", str(self.other / "mailserver.toml"), "--any-path")
        self.assertEqual((said.code, target.read_text()), (0, PASSWORD), said)

    def test_a_tar_file_with_links_devices_pipes_doubles_or_holes_is_refused(self) -> None:
        self.export()
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.REGTYPE, b"S"):
            with self.subTest(kind):
                evil = self.folder / "evil.tar"
                with tarfile.open(evil, "w", format=tarfile.GNU_FORMAT) as tar:
                    tar.add(self.out / "house.json", "house.json")
                    info = tarfile.TarInfo("house.json" if kind == tarfile.REGTYPE else "accounts.jsonl")
                    info.type, info.linkname = kind, "house.json"
                    tar.addfile(info)
                said = self.put_up(evil)
                self.assertEqual((said.code, [*self.other.glob("*.toml")]), (74, []), said)

    def test_a_pipe_in_an_export_does_not_hold_it_up(self) -> None:
        for name in ("house.json", "mail/example.org/alice/dovecot-keywords", "mail/example.org/alice/subscriptions"):
            with self.subTest(name):
                shutil.rmtree(self.out, ignore_errors=True)
                self.export("--mail")
                (self.out / name).unlink()
                os.mkfifo(self.out / name)
                self.put_up()

    def test_a_write_that_was_cut_off_leaves_nothing_that_the_next_run_takes_for_another_file(self) -> None:
        self.export("--keys")

        def full(descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        patch = self.patch(os, "fsync", full)
        self.assertEqual(self.put_up().code, 74)
        patch.restore()
        self.assertEqual([*self.other.glob("*.toml")], [])
        self.assertEqual(self.put_up().code, 0)

    def test_one_users_maildir_that_cannot_be_written_is_told_and_the_others_mail_comes(self) -> None:
        bob = self.data / "mail" / "example.org" / "bob" / "cur"
        bob.mkdir(parents=True)
        (bob / "1.b:2,").write_text("Subject: of bob\n\nx\n")
        self.export("--mail")
        alice = self.other / "data" / "mail" / "example.org" / "alice"
        alice.mkdir(parents=True)
        os.symlink("/etc", alice / "cur")
        said = self.put_up()
        self.assertEqual((said.code, "alice@example.org" in said.out), (1, True), said)
        self.assertEqual(len([*(alice.parent / "bob" / "cur").iterdir()]), 1)

    def test_odd_names_in_a_maildir_do_not_stop_the_export_of_the_others(self) -> None:
        cur = self.data / "mail" / "example.org" / "alice" / "cur"
        for name in ("5.x:2,S", "5.x:2,SS", "5.x:2,Sz", "5.x", "6\n.x:2,S", "\udcff.x:2,"):
            (cur / name).write_text(f"Subject: {name!a}\n\nx\n"[:40])
        bob = self.data / "mail" / "example.org" / "bob"
        bob.mkdir()
        (bob / "cur").write_text("no folder")
        os.symlink("/etc", bob / "new")
        said = self.export("--mail", "--json")
        self.assertEqual((said.code, said.json["messages"]), (1, 9), said)
        self.assertTrue((self.out / "house.json").exists())
        self.assertEqual(len([*(self.out / "mail/example.org/alice/cur").iterdir()]), 7)

    def test_a_link_in_a_maildir_is_told_and_a_full_target_is_left_alone(self) -> None:
        os.symlink("/etc/passwd", self.data / "mail" / "example.org" / "alice" / "cur" / "9.x:2,")
        said = self.export("--mail")
        self.assertEqual((said.code, "no link is followed" in said.out), (1, True))
        self.assertNotIn("root:", "".join(path.read_text() for path in self.out.rglob("*") if path.is_file()))
        self.assertTrue(re.search("is not empty", self.export().err))
