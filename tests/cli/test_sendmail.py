"""``mailserver sendmail``: what cannot be seen from outside."""

from __future__ import annotations

import contextlib
import io
import os
import pwd
import subprocess
import sys
from typing import Any

from twisted.internet import reactor, unix
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

from mailserver.cli import sendmail
from mailserver.cli.sendmail import write_file
from mailserver.cli.sendmail_message import TypedMessage
from mailserver.control.server import ControlServer
from mailserver.mail.address import Address
from mailserver.mail.envelope import MailParameters, Recipient
from mailserver.pickup.file_format import PickupEnvelope


class AfterTheHandOver(SynchronousTestCase):
    def test_a_sync_that_fails_is_told_and_is_no_failure(self) -> None:
        """The file has its name: the server may have taken it, and a program that heard of a failure would send it again."""

        def fails(folder: str, descriptor: int) -> None:
            raise OSError(5, "Input/output error")

        self.patch(sendmail, "_sync_name", fails)
        folder = self.mktemp()
        os.mkdir(folder)
        envelope = PickupEnvelope(None, (Recipient(Address.parse("alice@example.org")),), MailParameters())
        said = io.StringIO()
        with contextlib.redirect_stderr(said):
            write_file(os.path.join(folder, "x.mail"), envelope, [b"Subject: x"], TypedMessage.read(iter(())), 1000)
        self.assertEqual(os.listdir(folder), ["x.mail"])
        self.assertIn("power cut", said.getvalue())

    def test_the_header_names_recipients_only_where_that_was_said(self) -> None:
        for words, reads in ((["bob@example.net"], False), (["-t"], True), (["-i", "-t", "bob@example.net"], True)):
            self.assertIs(sendmail.parse(words).from_header, reads)

    def test_where_the_folder_may_not_be_read_its_file_system_is_synced_or_all_are(self) -> None:
        def fails(folder: str) -> None:
            raise PermissionError(13, "Permission denied")

        synced: list[Any] = []
        self.patch(sendmail, "sync_directory", fails)
        self.patch(os, "sync", lambda: synced.append("all"))
        for syncfs in (synced.append, None):
            self.patch(sendmail, "find_syncfs", lambda found=syncfs: found)
            sendmail._sync_name("/pickup", 7)
        self.assertEqual(synced, [7, "all"])

    def test_the_words_are_those_that_were_typed(self) -> None:
        self.patch(sys, "argv", ["/usr/sbin/sendmail", "-bi"])
        self.assertEqual(sendmail.main(), 0)

    def test_a_sync_that_fails_before_leaves_nothing(self) -> None:
        def fails(descriptor: int) -> None:
            raise OSError(5, "Input/output error")

        folder = self.mktemp()
        os.mkdir(folder)
        envelope = PickupEnvelope(None, (Recipient(Address.parse("alice@example.org")),), MailParameters())
        self.patch(os, "fsync", fails)
        with self.assertRaises(OSError):
            write_file(os.path.join(folder, "x.mail"), envelope, [b"Subject: x"], TypedMessage.read(iter(())), 1000)
        self.assertEqual(os.listdir(folder), [])


class Whoever(SynchronousTestCase):
    def test_the_name_is_what_stands_before_the_first_comma_and_an_ampersand_in_it_the_users(self) -> None:
        entry = pwd.struct_passwd(("alice", "x", 1000, 1000, "& Smith,Room 5,555", "/home/alice", "/bin/sh"))
        self.patch(pwd, "getpwuid", lambda uid: entry)
        self.assertEqual(sendmail.whoami(), ("alice", "Alice Smith"))


class Closed(SynchronousTestCase):
    def test_streams_that_are_closed_are_empty(self) -> None:
        command = ["sh", "-c", 'exec "$@" <&- >&-', "sh", sys.executable, "-m", "mailserver.cli", "sendmail", "-C", "/nowhere", "alice@example.org"]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual(ended.returncode, 78, ended.stderr)
        self.assertNotIn("Traceback", ended.stderr)


class Ringing(TestCase):
    async def ring(self, command: str) -> list[str]:
        """Ring at a server that knows `command` alone; what it was asked for."""
        self.patch(unix, "_inFilesystemNamespace", lambda path: path[:1] != b"\0")
        path = os.path.join(self.mktemp(), "control.sock")
        os.mkdir(os.path.dirname(path))
        asked = []

        async def answer(_: dict[str, Any]) -> dict[str, Any]:
            asked.append(command)
            return {}

        server = ControlServer(path, {command: answer})
        server.start(reactor)
        try:
            await deferToThread(sendmail._ring, path)
        finally:
            await server.stop()
        return asked

    async def test_a_server_of_this_version_and_of_the_former_one_look_at_once(self) -> None:
        for command in ("pickup.look", "drop.look"):
            self.assertEqual(await self.ring(command), [command])

    async def test_a_server_that_knows_neither_finds_the_file_by_itself(self) -> None:
        self.assertEqual(await self.ring("status"), [])
