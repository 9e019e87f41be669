"""A whole server learns from what its users move, and judges by it."""

from __future__ import annotations

import json
import os
import time

import apsw

from mailserver.state_store.learnt_file import LearntFile
from tests.filters.mail_corpus import Corpus
from tests.scenarios.support import ID, ScenarioCase, Server, wait_until

LEARNING = """
hostname = "mx.example.org"
data = "{work}/data"

[[listen]]
service = "mx"
endpoint = "tcp:{port}:interface=127.0.0.1"
tls = "none"

[accounts]
use = "file"
path = "{work}/accounts.toml"

[delivery]
use = "maildir"
path = "{work}/mail/{user}"

[domain."example.org"]

[[filter]]
use = "bayes"
maildirs = "{work}/mail/{user}"
minimum = 8
every = "1s"
on_error = "skip"

[[filter]]
use = "scores"
junk = 4.0
"""


class Learning(ScenarioCase):
    def learnt(self, server: Server) -> list[tuple[str, int, int]]:
        rows = json.loads(server.command("learn", "show", "--json").stdout)
        return [(one["owner"], one["spam"], one["ham"]) for one in rows]

    def test_what_a_user_moves_between_folders_decides_over_his_mail_alone(self) -> None:
        corpus = Corpus(9, overlap=0.6)
        server = self.serve(LEARNING)
        for kind, count in (("ham", 2), ("spam", 8)):
            for _ in range(count):
                for user in ("alice", "bob"):
                    self.assertEqual(server.send(corpus.message(kind), to=f"{user}@example.org").code, 250)
            server.wait_for_mail("alice", 2 if kind == "ham" else 10)
            if kind == "ham":
                kept = {one.path.name for one in server.messages("alice")}
        ham = server.work / "ham"
        ham.mkdir()
        for n in range(8):
            (ham / str(n)).write_bytes(corpus.message("ham"))
        taught = server.command("learn", "ham", str(ham), "--user", "alice")
        self.assertEqual((taught.returncode, taught.stdout), (0, "8 messages are learnt as ham\n"))
        self.move_spam(server, kept)
        wait_until(lambda: self.learnt(server) == [("alice", 8, 8)], lambda: f"{self.learnt(server)} {server.log()}")
        answers = [
            server.send(corpus.message(kind, words=200), to=f"{user}@example.org")
            for kind, user in (("spam", "alice"), ("ham", "alice"), ("spam", "bob"))
        ]
        self.assertEqual([one.code for one in answers], [250] * 3)
        wait_until(
            lambda: len(server.messages("alice", ".Junk")) == 9, lambda: server.command("explain", answers[0].id).stdout, 5
        )
        server.wait_for_mail("alice", 3)
        server.wait_for_mail("bob", 11)
        said = server.command("explain", answers[0].id).stdout
        self.assertRegex(said, r"bayes [4-6]\.\d+: .*by 8 spam and 8 ham of alice and the site; most of \d+:")
        self.assertNotIn("bayes", server.command("explain", answers[2].id).stdout)
        self.assertEqual(self.learnt(server), [("alice", 8, 8)])  # what the filter has put into Junk teaches nothing
        self.assertEqual(server.stop(), 0)
        file = LearntFile.open(str(server.work / "data" / "bayes.db"))
        self.addCleanup(file.close)
        told = [one.message for one in file.told_after(0, 100)]
        self.assertEqual(len(told), 8)  # the ids under which they came, for those who remember from where
        self.assertTrue(all(ID.fullmatch(one) for one in told), told)
        self.assertEqual(self.learnt(server), [("alice", 8, 8)])

    def move_spam(self, server: Server, kept: set[str]) -> None:
        """Alice makes a Junk folder and moves eight messages there, an hour old, after a look has seen that there was none."""
        wait_until(lambda: self.looked_at(server) == 2, server.log)
        junk = server.mail / "alice" / ".Junk"
        for part in ("tmp", "new", "cur"):
            (junk / part).mkdir(parents=True)
        for one in server.messages("alice"):
            if one.path.name not in kept:
                os.utime(one.path, (time.time() - 3600,) * 2)
                one.path.rename(junk / "cur" / f"{one.path.name}:2,S")

    def looked_at(self, server: Server) -> int:
        """How many mailboxes have been."""
        path = str(server.work / "data" / "bayes.db")
        try:
            connection = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READONLY)
            try:
                return int(connection.execute("SELECT count(*) FROM mailbox").get)
            finally:
                connection.close()
        except apsw.Error:
            return 0
