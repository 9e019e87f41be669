"""``mailserver user lock|unlock|show``: with a server that runs, and without one."""

from __future__ import annotations

from typing import Any

from mailserver.cli import filter_records
from mailserver.control.client import CommandRefused
from mailserver.filters.account_records import StoppedAccount, key_of
from mailserver.filters.account_signals import SeenSignal
from tests.cli.support import CONFIGURATION, CommandCase

GUARD = CONFIGURATION + '[[filter]]\nuse = "account_guard"\n'
ALICE, BOB = "alice@example.org", "bob@example.org"


class WithoutServer(CommandCase):
    def setUp(self) -> None:
        super().setUp()
        self.configure(GUARD)
        for user in (ALICE, BOB):
            self.assertEqual(self.command("user", "add", user, "--no-password").code, 0)

    def done(self, *words: str) -> str:
        said = self.command("user", *words)
        self.assertEqual((said.code, said.err), (0, ""), said)
        return said.out

    def test_an_account_is_stopped_shown_and_let_go_in_the_records(self) -> None:
        self.assertEqual(self.done("show", ALICE), f"{ALICE} may send.\n")
        self.assertNotIn("stopped", self.done("list"))
        self.assertFalse((self.data / "records.db").exists())
        self.assertIn("when a server runs", self.done("lock", "Alice@example.org", "--why", "stolen\x1b]0;x"))
        self.assertRegex(self.done("list"), rf"{ALICE} +stopped")
        self.assertEqual([bool(row["stopped"]) for row in self.command("user", "list", "--json").json], [True, False])
        shown = self.command("user", "show", ALICE)
        self.assertEqual(shown.code, 1)
        self.assertIn("stolen", shown.out)
        self.assertNotIn("\x1b", shown.out)
        self.assertEqual(self.command("user", "lock", ALICE).code, 1)
        self.assertIn("may send again", self.done("unlock", ALICE))
        said = self.command("user", "unlock", ALICE)
        self.assertEqual((said.code, said.out), (1, ""))
        self.assertIn("is not stopped", said.err)
        self.assertEqual(self.command("user", "show", ALICE, "--json").json, {})

    def test_a_stopped_account_is_so_by_its_new_name_too(self) -> None:
        self.done("lock", ALICE)
        self.done("rename", ALICE, "carol@example.org", "--mail-stays")
        self.assertRegex(self.done("list"), r"carol@example.org +stopped")
        self.done("add", ALICE, "--no-password")
        self.assertEqual(self.done("show", ALICE), f"{ALICE} may send.\n")
        self.done("unlock", "carol@example.org")
        self.assertEqual(self.done("show", "carol@example.org"), "carol@example.org may send.\n")

    def test_a_disabled_account_may_be_stopped_too(self) -> None:
        self.done("disable", BOB)
        self.done("lock", BOB)
        self.assertRegex(self.done("list"), rf"{BOB} +disabled, stopped")

    def test_who_does_not_exist_is_not_stopped(self) -> None:
        for words in (("lock", "nobody@example.org"), ("lock", "x"), ("unlock", "nobody@example.org"), ("unlock", "\x1b]0;x"), ("show", "\x1b")):
            said = self.command("user", *words)
            self.assertNotEqual(said.code, 0, words)
            self.assertTrue(said.err.strip().isprintable(), said)

    def test_without_the_filter_nobody_is(self) -> None:
        self.configure(CONFIGURATION)
        said = self.command("user", "lock", ALICE)
        self.assertEqual(said.code, 1)
        self.assertIn('use = "account_guard"', said.err)
        self.assertEqual(self.done("list").count("stopped"), 0)

    def test_check_says_where_it_does_less_than_it_seems(self) -> None:
        self.configure(GUARD + 'services = ["mx"]\nmode = "shadow"\n')
        said = self.command("check").out
        self.assertIn("without submission no account is stopped", said)
        self.assertIn('action = "tell"', said)


class WithServer(CommandCase):
    def setUp(self) -> None:
        super().setUp()
        self.configure(GUARD)
        self.assertEqual(self.command("user", "add", ALICE, "--no-password").code, 0)
        self.answers: dict[str, Any] = {}
        self.asked: list[tuple[str, Any]] = []

        def ask(data: str, command: str, question: Any, seconds: float) -> Any:
            self.asked.append((question["command"], question["arguments"]))
            answer = self.answers[question["command"]]
            if isinstance(answer, Exception):
                raise answer
            return {"answer": answer}

        self.patch(filter_records, "ask_server", ask)

    def test_the_server_is_asked(self) -> None:
        self.answers = {"lock": "done", "unlock": "done"}
        self.assertEqual(self.command("user", "lock", ALICE, "--why", "x").out, "done\n")
        self.assertEqual(self.command("user", "unlock", ALICE, "--json").json, {"done": "done"})
        self.assertEqual([(name, given["account"]) for name, given in self.asked], [("lock", ALICE), ("unlock", ALICE)])
        self.assertTrue(all(given["by"] for _, given in self.asked))

    def test_it_shows_what_has_counted(self) -> None:
        stopped = StoppedAccount(ALICE, 5.0, (SeenSignal("networks", 2, ("198.51.0.0/16: 198.51.100.7",)),), ("198.51.100.7, app password phone",))
        signals = {one.signal: {"count": one.count, "examples": list(one.examples)} for one in stopped.seen}
        row = {"account": ALICE, "since": 5.0, "by": "", "why": stopped.words, "signals": signals, "logins": list(stopped.logins), "held": True}
        self.answers = {"show": row}
        said = self.command("user", "show", ALICE)
        for words in ("the filter", "networks: 2", "198.51.100.7", "app password phone", "is held"):
            self.assertIn(words, said.out)

    def test_a_server_that_says_no_does_not_keep_the_list_from_being_shown(self) -> None:
        self.answers = {"list": CommandRefused("it hangs")}
        said = self.command("user", "list")
        self.assertEqual(said.code, 0)
        self.assertIn(ALICE, said.out)
        self.assertIn("cannot be told: it hangs", said.err)

    def test_keys_are_as_the_filter_has_them(self) -> None:
        self.assertEqual(key_of("stopped", ALICE), f"stopped\t{ALICE}")
