"""The queue of a server under load goes on elsewhere: nothing is missing, and whatever would come twice is named."""

from __future__ import annotations

import json
import os
import re
import shutil
import threading
from pathlib import Path
from typing import Any

from mailserver.observe.roads import UnknownId, read_road
from tests.rounds import rounds
from tests.scenarios.support import BASIC, ScenarioCase, Server, Wire, wait_until

USERS = ("alice", "bob", "carol")
ACCOUNTS = tuple(f"{user}@example.org" for user in USERS)
MARK = re.compile(rb"mark-[0-9]+-[0-9]+-")


class Load(threading.Thread):
    """Sends one message after the other to each in turn; remembers the marks and ids of those that were acknowledged."""

    def __init__(self, port: int, number: int) -> None:
        super().__init__()
        self.port, self.number = port, number
        self.acknowledged: dict[bytes, str] = {}
        self.done = threading.Event()

    def run(self) -> None:
        count = 0
        with Wire(self.port) as wire:
            wire.command("EHLO client.example")
            while not self.done.is_set():
                count += 1
                mark = b"mark-%d-%d-" % (self.number, count)
                if wire.dialogue("MAIL FROM:<s@example.net>", f"RCPT TO:<{ACCOUNTS[count % 3]}>", "DATA") != [250, 250, 354]:
                    raise AssertionError("refused")
                wire.send(b"Subject: x\r\n\r\n" + mark + b"\r\n.\r\n")
                answer = wire.reply()
                if answer.code == 250:
                    self.acknowledged[mark] = answer.id


class Elsewhere(ScenarioCase):
    def held(self, server: Server) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(server.command("queue", "list", "--json").stdout)
        return found

    def marks(self, *servers: Server) -> list[bytes]:
        return sorted(MARK.findall(b"".join(one.data for server in servers for user in USERS for one in server.messages(user))))

    def user(self, mark: bytes) -> str:
        return USERS[int(mark.split(b"-")[2]) % 3]

    def is_known_as_delivered(self, server: Server, id: str) -> bool:
        try:
            return "delivered" in [step.step for step in read_road(str(server.work / "data" / "explain.db"), id)]
        except UnknownId:
            return False

    def loaded(self) -> tuple[Server, Path, dict[bytes, str], dict[bytes, str]]:
        """A server whose bob and carol have no mailbox, a backup under load, bob's mail delivered after it, and a SIGKILL.

        Returns it with the backup, what was acknowledged before the backup began, and all that was.
        """
        server = self.prepare(accounts=ACCOUNTS)
        server.mail.mkdir()
        for name in ("bob", "carol"):
            (server.mail / name).write_text("no folder")
        server.start()
        senders = [Load(server.port, n) for n in range(3)]
        folder = Path(self.mktemp()).resolve() / "of" / "today"
        for one in senders:
            one.start()
        try:
            wait_until(lambda: all(len(one.acknowledged) >= rounds(10) for one in senders), server.log, 60 * rounds(1))
            before = {mark: id for one in senders for mark, id in list(one.acknowledged.items())}
            said = server.command("backup", str(folder), timeout=60)
            self.assertEqual((said.returncode, said.stderr), (0, ""), said)
            bobs = len([mark for mark in before if self.user(mark) == "bob"])
            (server.mail / "bob").unlink()
            server.command("queue", "retry", "--recipient", "bob@*")
            wait_until(lambda: len(server.messages("bob")) >= bobs, server.log)
        finally:
            for one in senders:
                one.done.set()
            for one in senders:
                one.join()
        written = {id for mark, id in before.items() if self.user(mark) != "carol"}
        wait_until(lambda: all(self.is_known_as_delivered(server, id) for id in written), server.log)
        server.kill()
        return server, folder, before, {mark: id for one in senders for mark, id in one.acknowledged.items()}

    def restored(self, folder: Path, *words: str, mail: Path | None = None) -> tuple[Server, list[dict[str, Any]]]:
        server = self.prepare(BASIC, accounts=ACCOUNTS)
        (server.work / "data").mkdir(mode=0o700)
        if mail is not None:
            shutil.copytree(mail, server.mail)
            (server.mail / "carol").unlink()
        said = server.command("restore", str(folder), *words, "--json", timeout=60)
        self.assertEqual((said.returncode, said.stderr), (0, ""), said)
        held: list[dict[str, Any]] = json.loads(said.stdout)["held"]
        told = server.command("restore", str(folder), *words, "--look", timeout=60)
        self.assertEqual((told.returncode, told.stderr), (0, ""), told)
        for one in held[:20]:
            self.assertIn(one["id"], told.stdout)
        server.start()
        return server, held

    def test_with_its_roads_and_maildirs_it_is_known_what_was_delivered_since_and_nothing_comes_twice(self) -> None:
        old, folder, before, _ = self.loaded()
        server, held = self.restored(folder, "--roads", str(old.work / "data" / "explain.db"), mail=old.mail)
        known: dict[str, set[str]] = {"delivered": set(), "waiting": set(), "unknown": set()}
        for one in held:
            known[one["known"]].add(one["id"])
        self.assertEqual(known["unknown"], set())
        for mark, id in before.items():
            if self.user(mark) == "carol":
                self.assertIn(id, known["waiting"])
            else:  # alice's had her mail before, or is among those that were delivered since
                self.assertNotIn(id, known["waiting"])
            if self.user(mark) == "bob":
                self.assertIn(id, known["delivered"])
        if known["delivered"]:
            self.assertEqual(server.command("queue", "drop", *sorted(known["delivered"]), "--yes", timeout=60).returncode, 0)
        self.assertEqual(server.command("queue", "release", "--all", timeout=60).returncode, 0)
        wait_until(lambda: not self.held(server), server.log, 60)
        there = self.marks(server)
        self.assertEqual([mark for mark in before if there.count(mark) != 1], [])
        self.assertEqual(len(set(there)), len(there), "nothing is there twice")

    def test_without_them_all_that_is_released_is_there_and_whatever_comes_twice_was_named(self) -> None:
        old, folder, before, every = self.loaded()
        server, held = self.restored(folder)
        self.assertEqual({one["known"] for one in held}, {"unknown"})
        named = {one["id"] for one in held}
        self.assertEqual({one["id"] for one in self.held(server)}, named)
        self.assertEqual(server.command("queue", "release", "--all", timeout=60).returncode, 0)
        wait_until(lambda: not self.held(server), server.log, 60)
        there = self.marks(old, server)
        self.assertEqual([mark for mark in before if mark not in there], [])
        twice = {every[mark] for mark in every if there.count(mark) > 1}
        self.assertTrue(twice)
        self.assertEqual(twice - named, set())
        self.assertEqual(os.listdir(server.work / "data" / "spool"), [])
