"""``mailserver suppression``: with a server that runs, and without one."""

from __future__ import annotations

from typing import Any

from mailserver.cli import filter_records
from tests.cli.support import CONFIGURATION, CommandCase

SUPPRESSION = CONFIGURATION + '[[filter]]\nuse = "suppression"\nservices = ["submission"]\n'
ALICE, BOB = "alice@example.org", "bob@example.net"


class SuppressionCommand(CommandCase):
    def setUp(self) -> None:
        super().setUp()
        self.configure(SUPPRESSION)

    def done(self, *words: str) -> str:
        said = self.command("suppression", *words)
        self.assertEqual((said.code, said.err), (0, ""), said)
        return said.out

    def test_they_are_added_shown_and_removed(self) -> None:
        self.assertEqual(self.done("list"), "There are no such addresses.\n")
        self.assertFalse((self.data / "records.db").exists())
        self.assertEqual(self.done("add", ALICE, "Bob@EXAMPLE.net"), f"{ALICE} writes to {BOB} no more\n")
        self.done("add", "@example.org", BOB)
        rows = self.command("suppression", "list", "--json").json
        self.assertEqual([(row["user"], row["address"], row["state"], row["until"]) for row in rows],
                         [("@example.org", BOB, "suppressed", None), (ALICE, BOB, "suppressed", None)])  # fmt: skip
        shown = self.done("list", ALICE)
        self.assertIn(BOB, shown)
        self.assertNotIn("@example.org ", shown.replace(ALICE, ""))
        self.assertEqual(self.done("remove", ALICE, BOB), f"{ALICE} may write to {BOB} again\n")
        self.assertEqual(self.command("suppression", "remove", ALICE, BOB).code, 1)

    def test_what_makes_no_sense_is_said(self) -> None:
        for words, code in (
            ((), 2), (("add",), 2), (("add", ALICE), 2), (("add", "alice", "x"), 1), (("remove", ALICE, "\x1b]0;x"), 1),
            (("list", "--filter", "other"), 1),
        ):  # fmt: skip
            said = self.command("suppression", *words)
            self.assertEqual((said.code, said.out), (code, ""), (words, said))
            self.assertTrue(all(line.isprintable() for line in said.err.splitlines()))
        self.configure(CONFIGURATION)
        self.assertIn('use = "suppression"', self.command("suppression", "list").err)

    def test_the_server_that_runs_makes_the_change(self) -> None:
        asked: list[Any] = []
        row = {"user": ALICE, "address": "x\x1b@example.net", "state": "refused once", "status": "5.1.1", "first": 0.0, "since": None,
               "until": 5.0, "by": ""}  # fmt: skip
        answers: list[Any] = [[row], "done"]
        self.patch(filter_records, "ask_server", lambda data, command, given, seconds: asked.append(given) or {"answer": answers.pop(0)})
        self.assertNotIn("\x1b", self.done("list"))
        self.done("remove", ALICE, BOB)
        self.assertEqual([(one["name"], one["command"]) for one in asked], [("suppression", "list"), ("suppression", "remove")])
