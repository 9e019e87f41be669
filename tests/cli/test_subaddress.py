"""``mailserver subaddress``: with a server that runs, and without one."""

from __future__ import annotations

from typing import Any

from mailserver.cli import filter_records
from tests.cli.support import CONFIGURATION, CommandCase

SUBADDRESSES = CONFIGURATION + '[[filter]]\nuse = "subaddresses"\n'
SHOP = "alice+shop@example.org"


class Subaddress(CommandCase):
    def setUp(self) -> None:
        super().setUp()
        self.configure(SUBADDRESSES)

    def done(self, *words: str) -> str:
        said = self.command("subaddress", *words)
        self.assertEqual((said.code, said.err), (0, ""), said)
        return said.out

    def test_they_are_opened_closed_shown_and_forgotten(self) -> None:
        self.assertEqual(self.done("list"), "There are no such addresses.\n")
        self.assertFalse((self.data / "records.db").exists())
        self.assertEqual(self.done("open", SHOP, "--from", "shop.example"), f"{SHOP} is for shop.example\n")
        self.assertIn("whoever writes first", self.done("open", "bob+x@example.org"))
        self.assertIn("anybody", self.done("open", "bob+y@example.org", "--from", "*"))
        self.assertEqual(self.done("close", SHOP), f"{SHOP} takes no more mail\n")
        rows = self.command("subaddress", "list", "--json").json
        self.assertEqual([(row["address"], row["domain"], row["state"]) for row in rows],
                         [(SHOP, "shop.example", "closed"), ("bob+x@example.org", "", "open"), ("bob+y@example.org", "*", "open")])  # fmt: skip
        shown = self.done("list", "bob@example.org")
        self.assertIn("(who writes first)", shown)
        self.assertNotIn("alice", shown)
        self.done("forget", SHOP)
        self.assertEqual(self.command("subaddress", "forget", SHOP).code, 1)

    def test_what_makes_no_sense_is_said(self) -> None:
        for words, code in (
            ((), 2), (("open",), 2), (("open", "alice@example.org"), 1), (("close", "x"), 1), (("open", SHOP, "--from", "a b"), 1),
            (("list", "alice"), 1), (("close", "\x1b]0;x"), 1), (("close", SHOP, "--filter", "other"), 1),
        ):  # fmt: skip
            said = self.command("subaddress", *words)
            self.assertEqual((said.code, said.out), (code, ""), (words, said))
            self.assertTrue(all(line.isprintable() for line in said.err.splitlines()))
        self.configure(CONFIGURATION)
        self.assertIn('use = "subaddresses"', self.command("subaddress", "list").err)

    def test_the_server_that_runs_makes_the_change_and_knows_the_counts(self) -> None:
        asked: list[Any] = []
        answers: list[Any] = []
        row = {"address": SHOP, "domain": "shop.example\x1b", "state": "open", "how": "learnt", "since": 0.0, "by": "", "right": 7,
               "other": 1, "refused": 0}  # fmt: skip
        self.patch(filter_records, "ask_server", lambda data, command, given, seconds: asked.append(given) or {"answer": answers.pop(0)})
        answers += [[row], "done"]
        out = self.done("list")
        self.assertIn("7", out)
        self.assertNotIn("\x1b", out)
        self.command("subaddress", "close", SHOP)
        self.assertEqual([(one["name"], one["command"]) for one in asked], [("subaddresses", "list"), ("subaddresses", "close")])
