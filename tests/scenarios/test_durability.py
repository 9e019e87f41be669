"""What has had its 250 is never lost: not by SIGKILL, not by a full disk."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import re
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from twisted.trial.unittest import SkipTest

from tests.rounds import rounds
from tests.scenarios.support import BASIC, ID, Answer, ScenarioCase, Server, Stored, Wire, as_wire, family, wait_until

KILLS = rounds(3)
SENDERS = 6
QUICK_RETRY = '\n[queue]\nretry = ["1s"]\n'
LIMITS = "\n[limits]\nconnections_per_network = 100\nminimum_free_bytes = 0\n"
MARK = re.compile(rb"^X-Number: (\S+)\r\nX-Sum: (\w+)\r\n", re.MULTILINE)


def letter(number: str, octets: int) -> bytes:
    """A message that can tell whether it is whole."""
    line = number.encode().ljust(76, b".") + b"\r\n"
    body = b"\r\n" + line * (octets // len(line)) + b"the end"
    checksum = hashlib.sha256(body).hexdigest().encode()
    return b"X-Number: %b\r\nX-Sum: %b\r\n%b" % (number.encode(), checksum, body)


class Load:
    """Several clients that send until they are told to stop, and know which messages were acknowledged."""

    def __init__(self, server: Server, *, octets: Callable[[], int]) -> None:
        self.acknowledged: dict[str, str] = {}  # number: user
        self.refusals: Counter[int] = Counter()
        self.enough = threading.Event()
        self._server = server
        self._octets = octets
        self._threads = [threading.Thread(target=self._send_on, args=(n,), daemon=True) for n in range(SENDERS)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.enough.set()
        for thread in self._threads:
            thread.join(30)

    def _send_on(self, sender: int) -> None:
        count = 0
        while not self.enough.is_set():
            try:
                with Wire(self._server.port, timeout=10) as wire:
                    wire.command("EHLO client.example")
                    while not self.enough.is_set():
                        count += 1
                        self._send(wire, f"{sender}-{count}", ("alice", "bob")[count % 2])
            except (OSError, EOFError):
                self.enough.wait(0.02)  # the server is down: once more

    def _send(self, wire: Wire, number: str, user: str) -> None:
        for command in ("MAIL FROM:<sender@example.net>", f"RCPT TO:<{user}@example.org>", "DATA"):
            if not self._is_positive(wire.command(command)):
                wire.command("RSET")
                self.enough.wait(0.02)
                return
        wire.send(letter(number, self._octets()) + b"\r\n.\r\n")
        if self._is_positive(wire.reply()):
            self.acknowledged[number] = user

    def _is_positive(self, answer: Answer) -> bool:
        if answer.code >= 400:
            self.refusals[answer.code] += 1
        return answer.code < 400


class DurabilityCase(ScenarioCase):
    def found(self, server: Server) -> Counter[tuple[str, str]]:
        """How often each (number, user) stands in a Maildir.  A torn message fails the test."""
        counted: Counter[tuple[str, str]] = Counter()
        for user in ("alice", "bob"):
            for message in server.messages(user):
                counted[self.number_of(message), user] += 1
        return counted

    def number_of(self, message: Stored) -> str:
        mark = MARK.search(message.data.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"))
        self.assertIsNotNone(mark, f"torn: {message.path} with {len(message.data)} octets")
        assert mark is not None
        checksum = hashlib.sha256(b"\r\n" + message.body.removesuffix(b"\r\n")).hexdigest()
        self.assertEqual(checksum, mark[2].decode(), f"torn: {message.path}")
        return mark[1].decode()

    def assertNothingLost(self, server: Server, load: Load) -> None:
        """Every acknowledged message stands once in the right Maildir, and no message stands twice."""
        expected = {(number, user) for number, user in load.acknowledged.items()}

        def lost() -> set[tuple[str, str]]:
            return expected - {(number, user) for number, user in self.found_quickly(server)}

        wait_until(lambda: not lost(), lambda: f"lost: {sorted(lost())[:20]}\n{server.log()}", 40)
        found = self.found(server)
        self.assertEqual(expected - set(found), set())
        self.assertEqual([key for key, times in found.items() if times > 1], [], "doubled")

    def found_quickly(self, server: Server) -> set[tuple[str, str]]:
        """As `found`, without reading what was read before."""
        for user in ("alice", "bob"):
            for path in (server.mail / user / "new").glob("*"):
                if path not in self._read:
                    mark = MARK.search(path.read_bytes()[:4096].replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"))
                    if mark is not None:
                        self._read[path] = (mark[1].decode(), user)
        return set(self._read.values())

    def setUp(self) -> None:
        self._read: dict[Path, tuple[str, str]] = {}


class Kills(DurabilityCase):
    timeout = 180

    def test_no_kill_loses_or_tears_what_was_acknowledged(self) -> None:
        server = self.serve(BASIC + LIMITS + "memory_bytes = 100000\n" + QUICK_RETRY)
        sizes = random.Random(1)
        counts = []
        with Load(server, octets=lambda: sizes.choice((500, 4000, 4000, 30_000, 300_000))) as load:
            for _ in range(KILLS):
                enough = len(load.acknowledged) + sizes.randrange(40, 200)
                wait_until(lambda enough=enough: len(load.acknowledged) >= enough, lambda: server.log())
                server.kill()
                counts.append(len(load.acknowledged))
                server.restart()
        self.assertEqual(len(counts), KILLS)
        self.assertGreater(len(load.acknowledged), 40 * KILLS)
        self.assertNothingLost(server, load)

    def test_a_kill_while_recovering_from_a_kill_loses_nothing(self) -> None:
        server = self.serve(BASIC + LIMITS + QUICK_RETRY)
        with Load(server, octets=lambda: 4000) as load:
            wait_until(lambda: len(load.acknowledged) >= 300, lambda: server.log())
            server.kill()
        for _ in range(3):
            server.restart()
            server.kill()
        server.restart()
        self.assertNothingLost(server, load)


class FullDisk(DurabilityCase):
    timeout = 180

    def mounted(self, server: Server, size: str) -> Path:
        """The server's data and mail on a file system of this size, in memory."""
        where = server.work / "small"
        where.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(where)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            if os.environ.get("CI") == "true":
                self.fail(f"no file system could be mounted: {done.stderr}")
            raise SkipTest(f"no file system can be mounted here: {done.stderr.strip()}")
        self.addCleanup(subprocess.run, ["umount", "--lazy", str(where)], check=True)
        server.mail = where / "mail"
        return where

    def prepare_small(self, size: str, limits: str = LIMITS) -> tuple[Server, Path]:
        config = BASIC.replace("{work}/data", "{work}/small/data").replace("{work}/mail", "{work}/small/mail")
        server = self.prepare(config + limits + "memory_bytes = 100000\n" + QUICK_RETRY)
        return server, self.mounted(server, size)

    def test_a_disk_that_fills_up_defers_what_comes_and_keeps_what_came(self) -> None:
        server, where = self.prepare_small("12m")
        server.start()
        self.addCleanup(server.kill)  # before the umount
        sizes = random.Random(2)
        with Load(server, octets=lambda: sizes.choice((4000, 60_000, 200_000))) as load:
            wait_until(lambda: sum(load.refusals.values()) >= 30, lambda: f"the disk never filled:\n{server.log()}", 40)
        self.assertGreater(len(load.acknowledged), 10)
        self.assertEqual(set(load.refusals) - {451, 452, 421}, set(), "only temporary refusals")
        self.assertIn(452, load.refusals)
        subprocess.run(["mount", "-o", "remount,size=200m", str(where)], check=True)
        self.assertNothingLost(server, load)
        wait_until(lambda: server.send(letter("after", 4000)).code == 250, lambda: f"still refused:\n{server.log()}")

    def test_a_kill_on_a_full_disk_loses_nothing(self) -> None:
        server, where = self.prepare_small("12m")
        server.start()
        self.addCleanup(server.kill)
        with Load(server, octets=lambda: 60_000) as load:
            wait_until(lambda: sum(load.refusals.values()) >= 10, lambda: f"the disk never filled:\n{server.log()}", 40)
            server.kill()
        subprocess.run(["mount", "-o", "remount,size=200m", str(where)], check=True)
        server.restart()
        self.assertNothingLost(server, load)

    def test_too_little_room_is_said_before_the_data(self) -> None:
        server, where = self.prepare_small("40m", LIMITS.replace("free_bytes = 0", "free_bytes = 20000000"))
        server.start()
        self.addCleanup(server.kill)
        with Wire(server.port) as wire:
            wire.command("EHLO client.example")
            self.assertEqual(wire.command("MAIL FROM:<sender@example.net> SIZE=1000").code, 250)
            wire.command("RSET")
            (where / "ballast").write_bytes(bytes(30_000_000))

            def refused() -> Answer | None:
                answer = wire.command("MAIL FROM:<sender@example.net> SIZE=1000")
                wire.command("RSET")
                return answer if answer.code >= 400 else None

            answer = wait_until(refused, lambda: "mail is taken although there is no room")
            self.assertEqual((answer.code, answer.enhanced), (452, "4.3.1"))
        (where / "ballast").unlink()
        wait_until(lambda: server.send(letter("after", 4000)).code == 250, lambda: f"still refused:\n{server.log()}")


class HangingDisk(ScenarioCase):
    """The disk of the mailboxes hangs: a stopped process stands for one that the kernel keeps."""

    def stopped_writer(self, server: Server) -> int:
        """The process that writes into the Maildirs, which has been stopped."""
        self.assertEqual(server.send(b"Subject: first\r\n\r\nthe writer starts").code, 250)
        server.wait_for_mail("alice")
        assert server.process is not None
        [pid] = [
            pid
            for pid in family(server.process.pid)
            if b"mailserver.delivery.writer_process" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        ]
        os.kill(pid, signal.SIGSTOP)
        return pid

    def take_mail(self, server: Server) -> None:
        """More messages than a shared pool has threads, and a large one."""
        for n in range(15):
            self.assertEqual(server.send(letter(f"small{n}", 100), to="bob@example.org").code, 250)
        self.assertEqual(server.send(letter("large", 3_000_000), to="bob@example.org").code, 250)

    def assertWhole(self, server: Server) -> None:
        """Each message stands there once."""
        found = server.wait_for_mail("bob", 16)
        numbers = set()
        for message in found:
            match = MARK.search(as_wire(message.data))
            assert match is not None
            body = as_wire(message.data).partition(match[0])[2]
            self.assertEqual(hashlib.sha256(body.removesuffix(b"\r\n")).hexdigest().encode(), match[2])
            numbers.add(match[1])
        self.assertEqual(len(numbers), 16)

    def test_mail_is_taken_and_the_command_line_answers_meanwhile_and_then_all_is_there_once(self) -> None:
        server = self.serve(BASIC + QUICK_RETRY)
        writer = self.stopped_writer(server)
        self.take_mail(server)
        listed = server.command("queue", "list")
        self.assertEqual(listed.returncode, 0, listed.stderr)
        self.assertGreaterEqual(len(ID.findall(listed.stdout)), 16)
        os.kill(writer, signal.SIGCONT)
        self.assertWhole(server)

    def test_the_servers_end_does_not_wait_for_it_and_the_next_start_delivers_once(self) -> None:
        server = self.serve(BASIC + QUICK_RETRY + "\n[limits]\nshutdown_seconds = 2\n")
        writer = self.stopped_writer(server)
        self.take_mail(server)
        self.assertEqual(server.stop(), 0, server.log())
        with contextlib.suppress(ProcessLookupError):
            os.kill(writer, signal.SIGCONT)
        server.restart()
        self.assertWhole(server)
