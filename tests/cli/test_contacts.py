"""``mailserver contacts`` and ``mailserver expect``: with a server that runs, and without one."""

from __future__ import annotations

from typing import Any

from mailserver.cli import filter_records
from mailserver.control.client import CommandRefused
from tests.cli.support import CONFIGURATION, CommandCase

CONTACTS = CONFIGURATION + '[[filter]]\nuse = "contacts"\n'
ALICE = "alice@example.org"


class WithoutServer(CommandCase):
    def setUp(self) -> None:
        super().setUp()
        self.configure(CONTACTS)

    def done(self, *words: str) -> str:
        said = self.command(*words)
        self.assertEqual((said.code, said.err), (0, ""), said)
        return said.out

    def test_decisions_are_kept_shown_and_forgotten(self) -> None:
        self.assertEqual(self.done("contacts", ALICE, "list"), "There are no contacts.\n")
        self.assertEqual(self.done("contacts", ALICE, "pending"), "Nothing waits for a decision.\n")
        self.assertFalse((self.data / "records.db").exists())
        self.assertIn(f"{ALICE} takes mail from bob@example.net", self.done("contacts", "Alice+x@example.org", "accept", "Bob@example.NET"))
        self.done("contacts", ALICE, "refuse", ".example")
        self.done("contacts", ALICE, "refuse", "once@example.com", "--once")
        self.done("contacts", ALICE, "accept", "c@example.net", "--evidence", "none")
        rows = self.command("contacts", ALICE, "list", "--json").json
        self.assertEqual(
            sorted([(row["state"], row["contact"], row["evidence"]) for row in rows]),
            [("accepted", "bob@example.net", "aligned"), ("accepted", "c@example.net", "none"), ("refused", ".example", "aligned")],
        )
        self.assertTrue(all(row["by"] for row in rows))
        self.assertIn("c@example.net (no evidence)", self.done("contacts", ALICE, "list"))
        self.done("contacts", ALICE, "forget", ".example")
        self.assertEqual(self.command("contacts", ALICE, "forget", ".example").code, 1)
        self.assertEqual(self.command("contacts", "bob@example.org", "list", "--json").json, [])

    def test_rules_are_set_and_shown(self) -> None:
        self.assertIn("There are no rules", self.done("contacts", "site", "hold"))
        self.done("contacts", "@example.org", "hold", "on")
        self.done("contacts", ALICE, "hold", "off")
        self.assertEqual(
            self.command("contacts", "site", "hold", "--json").json, [{"scope": "@example.org", "hold": True}, {"scope": ALICE, "hold": False}]
        )
        self.done("contacts", ALICE, "hold", "default")
        self.assertEqual(len(self.done("contacts", "site", "hold").splitlines()), 2)

    def test_mail_is_expected_for_a_while(self) -> None:
        self.assertEqual(self.done("expect", "--list"), "Nobody expects mail.\n")
        self.assertIn("from anybody for 30 minutes", self.done("expect", ALICE))
        self.done("expect", ALICE, "--minutes", "5", "--domain", "example.net")
        rows = self.command("expect", "--list", "--json").json
        self.assertEqual([(row["user"], row["domain"], round(row["until"] - row["since"])) for row in rows], [(ALICE, "", 1800), (ALICE, "example.net", 300)])
        self.assertIn("anybody", self.done("expect", ALICE, "--list"))
        self.done("expect", ALICE, "--end", "--domain", "example.net")
        self.assertEqual(len(self.command("expect", "--list", "--json").json), 1)
        self.done("expect", ALICE, "--end")
        self.assertEqual(self.command("expect", ALICE, "--end").code, 1)

    def test_what_makes_no_sense_is_said(self) -> None:
        for words, code in (
            (("contacts",), 2), (("contacts", ALICE), 2), (("contacts", ALICE, "accept"), 2), (("contacts", "alice", "list"), 1),
            (("contacts", ALICE, "accept", "a b"), 1), (("contacts", ALICE, "accept", "helo:x.example"), 1),
            (("contacts", ALICE, "hold", "perhaps"), 2), (("contacts", "site", "list"), 1), (("expect",), 2),
            (("expect", ALICE, "--minutes", "soon"), 2), (("expect", ALICE, "--minutes", "1441"), 1), (("expect", ALICE, "--minutes", "-1"), 1),
            (("expect", ALICE, "--minutes", "nan"), 1), (("expect", ALICE, "--list", "--end"), 2), (("expect", "\x1b]0;x"), 1),
            (("expect", ALICE, "--filter", "other"), 1), (("contacts", ALICE, "accept", "\x1b]0;x"), 1),
        ):  # fmt: skip
            said = self.command(*words)
            self.assertEqual((said.code, said.out), (code, ""), (words, said))
            self.assertTrue(all(line.isprintable() for line in said.err.splitlines()))

    def test_without_the_filter_there_are_no_contacts(self) -> None:
        self.configure(CONFIGURATION)
        for words in (("contacts", ALICE, "list"), ("expect", ALICE)):
            said = self.command(*words)
            self.assertEqual(said.code, 1)
            self.assertIn('use = "contacts"', said.err)

    def test_check_tells_what_does_less_than_it_seems_to(self) -> None:
        self.assertIn("contacts count as strangers", self.command("check").out)
        self.configure(CONFIGURATION + '[policy]\nheld_expire = "7d"\n[[filter]]\nuse = "spf"\n[[filter]]\nuse = "contacts"\nservices = ["mx"]\n')
        said = self.command("check").out
        for words in ("services: without submission nobody's contacts are learnt", "junk_after: what is held goes to Junk at policy.held_expire"):
            self.assertIn(words, said)
        self.configure(CONFIGURATION + '[[filter]]\nuse = "spf"\n[[filter]]\nuse = "contacts"\n')
        self.assertNotIn("filter contacts", self.command("check").out)

    def test_a_damaged_file_is_said_and_left_alone(self) -> None:
        self.data.mkdir(exist_ok=True)
        path = self.data / "records.db"
        path.write_bytes(b"no database" * 1000)
        said = self.command("contacts", ALICE, "accept", "bob@example.net")
        self.assertEqual(said.code, 74)
        self.assertEqual(path.read_bytes(), b"no database" * 1000)


class WithServer(CommandCase):
    def setUp(self) -> None:
        super().setUp()
        self.configure(CONTACTS)
        self.asked: list[Any] = []
        self.given: Any = "done"

        def ask_server(data: str, command: str, arguments: Any, seconds: float) -> Any:
            self.asked.append((command, arguments["name"], arguments["command"], arguments["arguments"]))
            if isinstance(self.given, Exception):
                raise self.given
            return {"answer": self.given}

        self.patch(filter_records, "ask_server", ask_server)

    def test_the_server_makes_the_change_and_the_files_are_left_alone(self) -> None:
        said = self.command("contacts", ALICE, "accept", "bob@example.net", "--once")
        self.assertEqual((said.code, said.out), (0, "done\n"))
        [(command, name, action, given)] = self.asked
        self.assertTrue(given.pop("by"))
        self.assertEqual((command, name, action), ("component.run", "contacts", "accept"))
        self.assertEqual(given, {"user": ALICE, "sender": "bob@example.net", "once": True})
        self.assertFalse((self.data / "records.db").exists())

    def test_what_strangers_have_written_reaches_no_terminal_raw(self) -> None:
        row = {"id": "X/0", "sender": "a@b.example", "evidence": "fail", "author": "x", "subject": "\x1b]0;x\u202e", "since": 0.0, "until": None}
        self.given = [row]
        out = self.command("contacts", ALICE, "pending").out
        self.assertIn("DENIED", out)
        self.assertNotIn("\x1b", out)
        self.assertNotIn("\u202e", out)

    def test_its_no_is_ours(self) -> None:
        self.given = CommandRefused("bob@example.net is no contact")
        said = self.command("contacts", ALICE, "forget", "bob@example.net")
        self.assertEqual(said.code, 1)
        self.assertIn("is no contact", said.err)
