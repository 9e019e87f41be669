"""``mailserver learn``: with a server that runs, and without one."""

from __future__ import annotations

import base64
import os
import pwd
from pathlib import Path
from typing import Any

from mailserver.cli import learn
from mailserver.control.client import CommandRefused
from mailserver.filters.learnt_commands import owner_of
from tests.cli.support import CONFIGURATION, CommandCase
from tests.filters.mail_corpus import Corpus
from tests.requires import require_root

BAYES = CONFIGURATION + '[[filter]]\nuse = "bayes"\n'
ALICE = "alice@example.org"


class LearnCase(CommandCase):
    def setUp(self) -> None:
        super().setUp()
        self.configure(BAYES)
        self.corpus = Corpus(1)

    def messages(self, kind: str, count: int, folder: str = "mail") -> str:
        path = self.folder / folder
        path.mkdir(exist_ok=True, parents=True)
        for n in range(count):
            (path / f"{kind}{n}").write_bytes(self.corpus.message(kind))
        return str(path)

    def learnt(self, *words: str) -> list[tuple[str, int, int]]:
        return [(one["owner"], one["spam"], one["ham"]) for one in self.command("learn", "show", "--json", *words).json]


class WithoutServer(LearnCase):
    def test_files_and_folders_are_learnt_once_and_taken_back(self) -> None:
        self.assertEqual(self.command("learn", "show").out, "Nothing was learnt.\n")
        spam, ham = self.messages("spam", 60, "a"), self.messages("ham", 3, "b")
        said = self.command("learn", "spam", spam)
        self.assertEqual((said.code, said.out, said.err), (0, "60 messages are learnt as spam\n", ""))
        self.assertEqual(self.command("learn", "spam", spam).out, "0 messages are learnt as spam; 60 were known\n")
        self.assertEqual(self.command("learn", "ham", ham, f"{spam}/spam0", "--json").json, {"new": 3, "moved": 1, "unreadable": 0})
        self.assertEqual(self.learnt(), [("site", 59, 4)])
        said = self.command("learn", "ham", "--forget", ham, self.messages("spam", 1, "c"))
        self.assertEqual(said.out, "3 messages are forgotten; 1 were not known\n")
        self.assertEqual(self.learnt(), [("site", 59, 1)])
        self.assertRegex(self.command("learn", "show").out, r"(?s)OWNER.*site +59 +1 +\d+ .*UTC")
        self.assertEqual((self.data / "bayes.db").stat().st_mode & 0o777, 0o600)

    def test_a_user_s_learning_is_his_and_can_be_dropped(self) -> None:
        spam = self.messages("spam", 2)
        self.command("learn", "spam", spam, "--user", "Alice@EXAMPLE.org")
        self.command("learn", "spam", spam, "--user", "bob@example.org")
        self.assertEqual(self.learnt(), [(ALICE, 2, 0), ("bob@example.org", 2, 0)])
        self.assertEqual(self.learnt("--user", ALICE), [(ALICE, 2, 0)])
        self.assertIn(ALICE, self.command("learn", "drop", "--user", ALICE).out)
        said = self.command("learn", "drop", "--user", ALICE)
        self.assertEqual((said.code, said.out), (1, ""))
        self.assertEqual(self.learnt(), [("bob@example.org", 2, 0)])

    def test_a_maildir_s_messages_are_learnt_and_nothing_else_in_it(self) -> None:
        maildir = self.folder / "Maildir"
        for part in ("new", "cur", "tmp"):
            self.messages("ham", 2, f"Maildir/{part}")
            self.messages("spam", 2, f"Maildir/.Junk/{part}")
        (maildir / "dovecot-uidlist").write_text("3 V1")
        (maildir / "cur" / "link").symlink_to(self.folder / "mailserver.toml")
        os.mkfifo(maildir / "cur" / "pipe")
        self.assertEqual(self.command("learn", "ham", str(maildir), "--json").json["new"], 4)
        self.assertEqual(self.command("learn", "spam", str(maildir / ".Junk"), "--json").json["new"], 4)

    def test_one_that_cannot_be_read_is_named_and_the_others_are_learnt(self) -> None:
        spam = self.messages("spam", 2)
        os.mkfifo(self.folder / "pipe")
        said = self.command("learn", "spam", f"{spam}/spam0", str(self.folder / "gone\x1b"), str(self.folder / "pipe"), f"{spam}/spam1")
        self.assertEqual((said.code, said.out), (1, "2 messages are learnt as spam\n"))
        self.assertEqual(len(said.err.splitlines()), 2)
        self.assertNotIn("\x1b", said.err)

    def test_standard_input_is_one_message(self) -> None:
        path = Path(self.messages("spam", 1), "spam0")
        opened = path.open("rb")
        self.addCleanup(opened.close)
        self.patch(learn, "_standard_input", opened.fileno)
        self.assertEqual(self.command("learn", "spam", "-").out, "1 messages are learnt as spam\n")
        self.assertIn("1 were known", self.command("learn", "spam", str(path)).out)

    def test_what_makes_no_sense_is_said(self) -> None:
        self.configure(CONFIGURATION)
        self.assertIn('use = "bayes"', self.command("learn", "show").err)
        self.configure(BAYES)
        for words, code in (
            (("spam",), 2), (("spam", "x", "--user", "a@@b"), 2), (("drop",), 2), (("show", "--filter", "x"), 1),
            (("spam", str(self.folder / "empty")), 1),
        ):  # fmt: skip
            (self.folder / "empty").mkdir(exist_ok=True)
            self.assertEqual(self.command("learn", *words).code, code, words)
        self.assertEqual([owner_of(one) for one in ("", "site", "Alice", ALICE)], ["", "", "alice", ALICE])
        self.assertRaises(ValueError, owner_of, "a b@")

    def test_a_damaged_file_or_another_key_is_said_and_left_alone(self) -> None:
        spam = self.messages("spam", 2)
        (self.data / "bayes.db").write_bytes(b"not a database" * 1000)
        self.assertEqual(self.command("learn", "spam", spam).code, 74)
        self.assertEqual((self.data / "bayes.db").read_bytes(), b"not a database" * 1000)
        (self.data / "bayes.db").unlink()
        self.assertEqual(self.command("learn", "spam", spam).code, 0)
        (key,) = self.folder.glob("**/bayes.key")
        key.unlink()
        said = self.command("learn", "spam", spam)
        self.assertEqual(said.code, 74)
        self.assertIn("another key", said.err)

    def test_root_leaves_the_files_to_the_server_s_user_and_follows_no_link_of_his(self) -> None:
        require_root("a folder of somebody else")
        nobody = pwd.getpwnam("nobody")
        self.folder.chmod(0o711)
        os.chown(self.data, nobody.pw_uid, nobody.pw_gid)
        spam = self.messages("spam", 2)
        secret = self.folder / "secret"
        secret.mkdir(mode=0o700)
        (self.data / "bayes.db").symlink_to(secret / "made")
        self.assertNotEqual(self.command("learn", "spam", spam).code, 0)
        self.assertEqual(list(secret.iterdir()), [])
        (self.data / "bayes.db").unlink()
        self.assertEqual(self.command("learn", "spam", spam).code, 0)
        self.assertEqual({path.stat().st_uid for path in self.data.rglob("*")}, {nobody.pw_uid})
        self.assertEqual((os.geteuid(), os.getegid()), (0, 0))


class Check(LearnCase):
    def warnings(self, more: str) -> list[str]:
        self.configure(BAYES + more)
        said = self.command("check")
        self.assertEqual((said.code, said.err), (0, ""), said)
        return [line for line in said.out.splitlines() if "not learnt" in line]

    def test_maildirs_elsewhere_than_the_delivery_s_are_told(self) -> None:
        self.assertEqual(self.warnings(""), [])
        self.assertEqual(self.warnings('maildirs = "{data}/m/{user}"\n[delivery]\npath = "{data}/m/{user}"\n'), [])
        self.assertEqual(self.warnings('maildirs = "m/{user}"\n[delivery]\npath = "m/{user}"\n'), [])
        self.assertEqual(self.warnings('maildirs = ""\n[delivery]\npath = "{data}/m/{user}"\n'), [])
        self.assertEqual(self.warnings('[delivery]\nuse = "discard"\n'), [])
        (told,) = self.warnings('[delivery]\npath = "{data}/m/{user}"\n')
        self.assertIn("filter bayes: maildirs: mail is delivered to {data}/m/{user}", told)
        (told,) = self.warnings('maildirs = "{home}/Maildir"\n')
        self.assertIn("homes", told)


class WithServer(LearnCase):
    def setUp(self) -> None:
        super().setUp()
        self.asked: list[Any] = []
        self.given: Any = {"new": 1}

        def ask_server(data: str, command: str, arguments: Any, seconds: float) -> Any:
            self.asked.append((command, arguments))
            if isinstance(self.given, Exception):
                raise self.given
            return {"answer": self.given}

        self.patch(learn, "ask_server", ask_server)

    def test_the_server_gets_hashes_and_no_word(self) -> None:
        spam = self.messages("spam", 70)
        said = self.command("learn", "spam", spam, "--user", ALICE)
        self.assertEqual(said.code, 0, said)
        self.assertEqual(len(self.asked), 4)  # so many at once
        for command, question in self.asked:
            self.assertEqual((command, question["name"], question["command"]), ("component.run", "bayes", "learn"))
            self.assertEqual((question["arguments"]["kind"], question["arguments"]["user"]), ("spam", ALICE))
            self.assertRegex(question["arguments"]["messages"], r'^\[\["[0-9a-f]{32}", "[A-Za-z0-9+/=]+", ""\]')
        self.assertFalse((self.data / "bayes.db").exists())

    def test_its_no_is_ours(self) -> None:
        self.given = CommandRefused("the disk has too little room")
        said = self.command("learn", "spam", self.messages("spam", 1))
        self.assertEqual((said.code, said.out), (1, ""))
        self.assertIn("too little room", said.err)

    def test_a_scanner_gets_the_messages_themselves(self) -> None:
        self.configure(BAYES + '[[filter]]\nuse = "rspamd"\n[[filter]]\nuse = "spamassassin"\nname = "sa"\n')
        folder = self.messages("spam", 2)
        for name in ("rspamd", "sa"):
            self.asked.clear()
            said = self.command("learn", "spam", folder, "--filter", name)
            self.assertEqual((said.code, said.out), (0, "2 messages are learnt as spam\n"), said)
            found = [(question["name"], question["command"], question["arguments"]["kind"]) for _, question in self.asked]
            self.assertEqual(found, [(name, "teach", "spam")] * 2)
            octets = base64.b64decode(self.asked[0][1]["arguments"]["message"])
            self.assertEqual(octets.replace(b"\r\n", b"\n"), (self.folder / "mail" / "spam0").read_bytes().replace(b"\r\n", b"\n"))
            self.assertNotRegex(octets, rb"(?<!\r)\n")

    def test_a_scanner_s_no_is_told_and_the_others_are_tried(self) -> None:
        self.configure(CONFIGURATION + '[[filter]]\nuse = "rspamd"\n')
        self.given = CommandRefused("rspamd's controller answers 403")
        said = self.command("learn", "ham", self.messages("ham", 3), "--filter", "rspamd")
        self.assertEqual((said.code, said.err.count("403"), len(self.asked)), (1, 3, 3))
        self.assertEqual(self.command("learn", "spam", "x", "--filter", "rspamd", "--user", ALICE).code, 2)
        for words in (("show",), ("drop", "--user", ALICE)):  # what it has learnt only the scanner knows
            self.assertIn('use = "bayes"', self.command("learn", *words, "--filter", "rspamd").err)
        self.patch(learn, "SCANNER_OCTETS", 10)
        self.assertIn("more than 10 octets", self.command("learn", "spam", self.messages("spam", 1), "--filter", "rspamd").err)
