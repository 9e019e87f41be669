"""``mailserver list``: with a server that runs, and without one."""

from __future__ import annotations

from typing import Any

from mailserver.cli import filter_records
from mailserver.control.client import CommandRefused
from mailserver.state_store.records_file import open_records, write_record
from tests.cli.support import CONFIGURATION, CommandCase

LISTS = CONFIGURATION + '[[filter]]\nuse = "lists"\n'
ALICE = "alice@example.org"


class WithoutServer(CommandCase):
    def setUp(self) -> None:
        super().setUp()
        self.configure(LISTS)

    def done(self, *words: str) -> str:
        said = self.command("list", *words)
        self.assertEqual((said.code, said.err), (0, ""), said)
        return said.out

    def test_entries_are_added_shown_and_removed(self) -> None:
        self.assertEqual(self.done("show"), "There are no entries.\n")
        self.assertFalse((self.data / "records.db").exists())
        self.assertIn("hard black network:192.0.2.0/24 (site)", self.done("add", "black", "192.0.2.0/24", "--hard", "--for", "30d"))
        self.assertIn(f"(user {ALICE})", self.done("add", "white", "bob@example.net", "--user", ALICE, "--comment", "her friend"))
        self.done("add", "grey", ".example.net", "--domain", "example.org")
        shown = self.done("show")
        for words in ("network:192.0.2.0/24 (hard)", "her friend", "@example.org", "UTC"):
            self.assertIn(words, shown)
        rows = self.command("list", "show", "--json").json
        self.assertEqual([row["scope"] for row in rows], ["site", "@example.org", ALICE])
        self.assertTrue(all(row["by"] and row["hits"] is None for row in rows))
        self.assertAlmostEqual(rows[0]["until"] - rows[0]["added"], 30 * 86_400, delta=1)
        self.assertEqual(len(self.command("list", "show", "--site", "--json").json), 1)
        self.assertEqual(len(self.command("list", "show", "bob@example.net", "--user", ALICE, "--json").json), 1)
        self.assertIn("in the place of", self.done("add", "black", "bob@example.net", "--user", ALICE))
        self.assertIn("removed", self.done("remove", "bob@example.net", "--user", ALICE))
        said = self.command("list", "remove", "bob@example.net", "--user", ALICE)
        self.assertEqual((said.code, said.out), (1, ""))
        self.assertIn("there is no entry", said.err)

    def test_test_says_what_decides_and_its_code_whether_anything_does(self) -> None:
        self.done("add", "white", "example.net")
        said = self.command("list", "test", "bob@example.net", "--to", ALICE)
        self.assertEqual(said.code, 1)
        self.assertIn("lacks evidence", said.out)
        self.assertIn("decides", self.done("test", "bob@example.net", "--to", ALICE, "--dkim", "example.net"))
        self.assertEqual(self.command("list", "test", "x@elsewhere.example").out, "No entry speaks of it.\n")

    def test_what_makes_no_sense_is_said(self) -> None:
        for words, code in (
            (("add", "pink", "example.net"), 2), (("add", "white"), 2), (("add", "white", "a b"), 1),
            (("add", "black", "x.example", "--for", "soon"), 2), (("add", "black", "x.example", "--hard", "--user", ALICE), 1),
            (("add", "black", "x.example", "--user", "alice"), 2), (("add", "black", "x.example", "--user", ALICE, "--domain", "d.e"), 2),
            (("add", "white", "0.0.0.0/0"), 1), (("add", "black", "x.example", "--comment", "a\nb"), 1),
            (("show", "--filter", "other"), 1), (("test", "\x1b]0;x"), 1),
        ):  # fmt: skip
            said = self.command("list", *words)
            self.assertEqual((said.code, said.out), (code, ""), (words, said))
            self.assertTrue(all(line.isprintable() for line in said.err.splitlines()))
        self.assertEqual(self.command("list", "show", "--json").json, [])

    def test_without_the_filter_there_are_no_lists(self) -> None:
        self.configure(CONFIGURATION)
        said = self.command("list", "show")
        self.assertEqual(said.code, 1)
        self.assertIn('use = "lists"', said.err)

    def test_each_of_several_filters_has_its_own(self) -> None:
        self.configure(LISTS + '[[filter]]\nuse = "lists"\n[[filter]]\nuse = "lists"\nname = "third"\n')
        self.done("add", "black", "x.example", "--filter", "lists#2")
        self.assertEqual([len(self.command("list", "show", "--json", *more).json) for more in ((), ("--filter", "lists#2"), ("--filter", "third"))], [0, 1, 0])

    def test_a_damaged_file_is_said_and_left_alone(self) -> None:
        (self.data / "records.db").write_bytes(b"not a database" * 1000)
        for words in (("show",), ("add", "black", "x.example")):
            self.assertEqual(self.command("list", *words).code, 74)
        self.assertEqual((self.data / "records.db").read_bytes(), b"not a database" * 1000)

    def test_check_tells_of_allow_entries_that_want_no_evidence(self) -> None:
        self.assertNotIn("helps whoever", self.command("check").out)
        said = self.done("add", "white", "bob@example.net", "--evidence", "none", "--user", ALICE)
        self.assertIn("wants no evidence", said)
        self.done("add", "white", "192.0.2.7", "--evidence", "none")
        self.done("add", "black", "x.example", "--evidence", "none")
        told = [line for line in self.command("check").out.splitlines() if "helps whoever" in line]
        self.assertEqual(len(told), 1)
        self.assertIn(f"warning: filter lists: white address:bob@example.net (user {ALICE})", told[0])

    def test_records_that_were_written_by_others_do_no_harm(self) -> None:
        connection = open_records(str(self.data / "records.db"))
        with connection:
            for key in ("x", "\tdomain\t\x1b", "\tdomain\texample.net"):
                write_record(connection, "filter/lists", key, b"\xff")
        connection.close()
        self.assertEqual(self.command("list", "show", "--json").json, [])
        self.done("add", "black", "example.net")
        self.assertEqual(len(self.command("list", "show", "--json").json), 1)


class WithServer(CommandCase):
    def setUp(self) -> None:
        super().setUp()
        self.configure(LISTS)
        self.asked: list[Any] = []
        self.given: Any = "done"

        def ask_server(data: str, command: str, arguments: Any, seconds: float) -> Any:
            self.asked.append((command, arguments))
            if isinstance(self.given, Exception):
                raise self.given
            return {"answer": self.given}

        self.patch(filter_records, "ask_server", ask_server)

    def test_the_server_makes_the_change_and_the_files_are_left_alone(self) -> None:
        said = self.command("list", "add", "white", "bob@example.net", "--user", ALICE, "--for", "1h")
        self.assertEqual((said.code, said.out), (0, "done\n"))
        [(command, question)] = self.asked
        self.assertEqual((command, question["name"], question["command"]), ("component.run", "lists", "add"))
        self.assertTrue(question["arguments"].pop("by"))
        self.assertEqual(
            question["arguments"],
            {
                "colour": "white", "entry": "bob@example.net", "scope": ALICE, "comment": "", "evidence": "aligned", "hard": False,
                "seconds": 3600.0,
            },
        )  # fmt: skip
        self.assertFalse((self.data / "records.db").exists())

    def test_its_no_is_ours(self) -> None:
        self.given = CommandRefused("there is no such component")
        said = self.command("list", "remove", "bob@example.net")
        self.assertEqual(said.code, 1)
        self.assertIn("no such component", said.err)

    def test_hits_are_shown(self) -> None:
        self.given = [
            {
                "scope": "site", "colour": "white", "entry": "domain:x.example", "hard": False, "evidence": "none", "hits": 7,
                "until": None, "ended": False, "added": 0.0, "by": "root\x1b", "comment": "",
            }
        ]  # fmt: skip
        out = self.command("list", "show").out
        self.assertIn("7", out)
        self.assertIn("(no evidence)", out)
        self.assertNotIn("\x1b", out)
