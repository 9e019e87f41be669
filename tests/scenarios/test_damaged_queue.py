"""A whole server whose queue has been damaged: what peers, the log and the commands say."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from twisted.trial.unittest import FailTest

from tests.scenarios.support import BASIC, ScenarioCase, Server, Wire, wait_until

LETTER = b"Subject: x\r\n\r\n" + b"x" * 70 + (b"\r\n" + b"y" * 70) * 150


class Damaged(ScenarioCase):
    def waiting(self) -> tuple[Server, Path]:
        """A server that has been killed, with mail in its queue that nobody could deliver."""
        server = self.prepare(BASIC)
        server.mail.mkdir()
        (server.mail / "alice").touch()  # a file where her Maildir should be
        server.start()
        for _ in range(30):
            self.assertEqual(server.send(LETTER).code, 250)
        # After two quiet seconds the log is moved into the file.
        wait_until(lambda: (server.work / "data" / "queue.db").stat().st_size > 300_000, server.log)
        server.kill()
        return server, server.work / "data" / "queue.db"

    def mail_code(self, server: Server) -> int:
        with Wire(server.port) as wire:
            return wire.dialogue("EHLO client.example", "MAIL FROM:<a@example.net>")[-1]

    def test_turned_bits_are_451_and_a_critical_line_and_can_be_salvaged(self) -> None:
        server, db = self.waiting()
        self.assertEqual(server.command("queue", "list").returncode, 0)  # this moves nothing out of the log
        with Path(f"{db}-wal").open("rb+") as log:
            log.truncate(0)
        octets = bytearray(db.read_bytes())
        for place in range(len(octets) // 32768 * 16384, len(octets), 16384):  # the beginning of each page
            octets[place : place + 64] = os.urandom(64)
        db.write_bytes(octets)
        server.restart()
        self.assertEqual(self.mail_code(server), 451)
        wait_until(lambda: "critical" in server.log() and "the queue is damaged" in server.log(), server.log)
        server.stop()
        self.assertIn("are in the new queue", server.command("queue", "salvage").stdout)
        server.restart()
        self.assertEqual(self.mail_code(server), 250)

    def test_a_file_that_is_gone_or_empty_stops_the_start_and_can_be_put_back(self) -> None:
        server, db = self.waiting()
        saved = shutil.copytree(db.parent, server.work / "saved", ignore=shutil.ignore_patterns("*.sock*"))
        for spoil in (lambda: os.truncate(db, 0), db.unlink):
            spoil()
            self.assertRaises(FailTest, server.restart)
            self.assertIn("though there has been a queue here", server.log())
            said = server.command("queue", "list")
            self.assertEqual(said.returncode, 74)
        for name in ("queue.db", "queue.db-wal"):
            shutil.copy2(saved / name, db.parent / name)
        server.restart()
        self.assertEqual(self.mail_code(server), 250)
        wait_until(lambda: server.status()["queue"]["depth"] == 30, server.log)
