"""``mailserver checkpassword``: the command as Dovecot runs it, and a socket that answers as the test wants."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

from mailserver.cli import checkpassword
from mailserver.cli.checkpassword import environment_of, question_in
from mailserver.control.server import ControlServer
from tests.control.test_server import without_bytes_warning

OK = {"answer": "ok", "account": "alice@example.org", "maildir": "/mail/alice", "home": "/home/al", "uid": 12, "gid": 34}
SHOW = ["/bin/sh", "-c", 'echo "$USER|$HOME|$EXTRA|$userdb_uid|$userdb_gid|$userdb_mail"']


class Command(TestCase):
    def setUp(self) -> None:
        without_bytes_warning(self)
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder)
        self.path = os.path.join(self.folder, "auth.sock")
        self.asked: list[dict[str, Any]] = []
        self.answer: dict[str, Any] = OK

    async def run_command(
        self, octets: bytes = b"alice\0pass\xff word\x001\0", *, reply: list[str] = SHOW, client: str = "192.0.2.7", is_there: bool = True, **more: str
    ) -> subprocess.CompletedProcess[bytes]:
        async def check(arguments: dict[str, Any]) -> dict[str, Any]:
            self.asked.append(arguments)
            return self.answer

        server = ControlServer(self.path, {"check_password": check})
        if is_there:
            server.start(reactor)
        try:
            return await deferToThread(self.process, octets, reply, {"TCPREMOTEIP": client} if client else {}, more)
        finally:
            await server.stop()

    def process(self, octets: bytes, reply: list[str], client: dict[str, str], more: dict[str, str]) -> subprocess.CompletedProcess[bytes]:
        command = [str(Path(sys.executable).parent / "mailserver"), "checkpassword", "--service", "imap", "--socket", self.path, *reply]
        return subprocess.run(
            ["/bin/sh", "-c", 'exec "$0" "$@" 3<&0 </dev/null', *command], input=octets, capture_output=True, check=False, timeout=60,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": os.environ.get("PYTHONPATH", ""), "MAILSERVER_CONFIG": "/nowhere/at/all.toml", **client, **more},
        )  # fmt: skip

    async def test_the_right_password_runs_the_reply_with_what_dovecot_reads(self) -> None:
        said = await self.run_command()
        self.assertEqual((said.returncode, said.stderr), (0, b""))
        self.assertEqual(said.stdout, b"alice@example.org|/home/al|userdb_uid userdb_gid userdb_mail|12|34|maildir:/mail/alice\n")
        self.assertEqual(self.asked, [{"user": "alice", "password": "pass\udcff word", "service": "imap", "client": "192.0.2.7"}])

    async def test_no_and_locked_are_1_and_what_cannot_be_told_is_111(self) -> None:
        for word, code in (("no", 1), ("locked", 1), ("later", 111), ("odd", 111)):
            self.answer = {"answer": word}
            said = await self.run_command()
            self.assertEqual((word, said.returncode, said.stdout), (word, code, b""))
            self.assertNotIn(b"pass", said.stderr.replace(b"checkpassword", b""))

    async def test_an_answer_that_is_none_and_a_reply_that_is_not_there_are_111(self) -> None:
        self.answer = {"answer": "ok"}
        self.assertEqual((await self.run_command()).returncode, 111)
        self.answer = OK
        self.assertEqual((await self.run_command(reply=["/no/such/program"])).returncode, 111)

    async def test_without_a_server_it_is_later(self) -> None:
        said = await self.run_command(is_there=False)
        self.assertEqual((said.returncode, said.stdout), (111, b""))
        self.assertIn(b"no server runs", said.stderr)

    async def test_without_the_clients_address_and_for_a_look_up_nobody_is_asked(self) -> None:
        self.assertEqual((await self.run_command(client="")).returncode, 111)
        self.assertEqual((await self.run_command(AUTHORIZED="1")).returncode, 111)
        self.assertEqual(self.asked, [])

    async def test_a_question_that_is_none_is_2(self) -> None:
        for octets in (b"", b"alice\0pass", b"alice\0" + b"x" * 506 + b"\0"):
            self.assertEqual((await self.run_command(octets)).returncode, 2)
        self.assertEqual((await self.run_command(reply=[])).returncode, 2)
        self.assertEqual(self.asked, [])


class Pieces(SynchronousTestCase):
    def test_512_octets_are_taken_and_one_more_is_not(self) -> None:
        word = b"x" * 505
        self.assertEqual(question_in(b"alice\0" + word + b"\0"), ("alice", word.decode()))
        self.assertIsNone(question_in(b"alice\0x" + word + b"\0"))

    def test_all_is_read_and_no_more_than_one_octet_too_many(self) -> None:
        for sent in (b"", b"alice\0word\0", b"x" * 600):
            read, write = os.pipe()
            self.patch(checkpassword, "QUESTION_FD", read)
            os.write(write, sent)
            os.close(write)
            try:
                self.assertEqual(checkpassword._read(), sent[:513])
            finally:
                os.close(read)

    def test_the_time_may_be_missing_and_the_password_may_be_empty(self) -> None:
        self.assertEqual(question_in(b"a\0b\0"), ("a", "b"))
        self.assertEqual(question_in(b"a\0\0\0"), ("a", ""))
        self.assertIsNone(question_in(b"a\0b"))

    def test_mail_that_stands_elsewhere_is_left_to_dovecot(self) -> None:
        found = environment_of({**OK, "maildir": "", "home": ""})
        self.assertEqual(found, {"USER": "alice@example.org", "EXTRA": "userdb_uid userdb_gid", "userdb_uid": "12", "userdb_gid": "34"})
