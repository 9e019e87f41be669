"""`mailserver sink`: what a program sends is seen, and what is to go wrong goes wrong.  The server itself: tests/testing."""

from __future__ import annotations

import argparse
import json
import signal
import smtplib
import socket
import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from mailserver.cli.sink import _reply
from tests.cli.support import run

MAIL = "Subject: hello\r\n\r\n.dots\r\n"


class Sinks(SynchronousTestCase):
    def sink(self, *arguments: str) -> tuple[subprocess.Popen[str], int]:
        """The command while it runs, and its port."""
        command = [sys.executable, "-m", "mailserver.cli", "sink", "--port", "0", *arguments]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.addCleanup(process.__exit__, None, None, None)
        self.addCleanup(process.kill)
        assert process.stderr is not None
        return process, int(process.stderr.readline().rsplit(" ", 1)[1])

    def client(self, port: int, host: str = "127.0.0.1") -> smtplib.SMTP:
        client = smtplib.SMTP(host, port, "client.example", timeout=20)
        self.addCleanup(client.close)
        return client

    def test_it_prints_what_comes_and_ends_after_so_many(self) -> None:
        process, port = self.sink("--count", "2")
        client = self.client(port)
        client.sendmail("bob@example.net", ["a@one.example"], MAIL + "\x1b[2J\r\n")
        client.sendmail("", ["a@one.example", "b@two.example"], MAIL)
        out, _ = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 0)
        self.assertEqual(
            out,
            "--- from <bob@example.net> to <a@one.example> (hello client.example)\nSubject: hello\n\n.dots\n?[2J\n\n"
            "--- from <> to <a@one.example>, <b@two.example> (hello client.example)\nSubject: hello\n\n.dots\n\n",
        )

    def test_for_programs_each_is_a_line_of_json(self) -> None:
        process, port = self.sink("--count", "1", "--json", "--delay", "0.01")
        self.client(port).sendmail("bob@example.net", ["a@one.example"], MAIL)
        out, _ = process.communicate(timeout=60)
        content = MAIL.replace("\r\n", "\n")
        wanted = {"sender": "bob@example.net", "recipients": ["a@one.example"], "hello": "client.example", "content": content}
        self.assertEqual(json.loads(out), wanted)

    def test_it_refuses_where_it_is_asked_to_each_time(self) -> None:
        for stage, error in (("rcpt", smtplib.SMTPRecipientsRefused), ("end", smtplib.SMTPDataError)):
            process, port = self.sink(f"--{stage}", "451 4.3.0 Later")
            client = self.client(port)
            for _ in range(2):
                with self.assertRaises(error) as raised:
                    client.sendmail("bob@example.net", ["a@one.example"], MAIL)
                self.assertIn("4.3.0 Later", str(raised.exception))
            process.send_signal(signal.SIGINT)
            out, _ = process.communicate(timeout=60)
            self.assertEqual((process.returncode, out), (0, ""), stage)

    def test_it_drops_the_connection_after_the_dot(self) -> None:
        _, port = self.sink("--drop")
        with self.assertRaises(smtplib.SMTPServerDisconnected):
            self.client(port).sendmail("bob@example.net", ["a@one.example"], MAIL)

    def test_it_ends_while_a_client_says_nothing_and_another_waits_for_its_answer(self) -> None:
        process, port = self.sink("--delay", "3600")
        with socket.create_connection(("127.0.0.1", port)), socket.create_connection(("127.0.0.1", port)) as waiting:
            waiting.sendall(b"EHLO client.example\r\n")
            waiting.settimeout(20)
            self.assertEqual(waiting.recv(3), b"220")
            process.send_signal(signal.SIGINT)
            self.assertEqual(process.wait(60), 0)

    def test_a_port_or_a_delay_that_cannot_be_is_told(self) -> None:
        for arguments in (("--port", "99999"), ("--delay", "-1"), ("--delay", "nan"), ("--host", "192.0.2.1")):
            command = [sys.executable, "-m", "mailserver.cli", "sink", "--port", "0", *arguments]
            ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
            self.assertGreater(ended.returncode, 1, arguments)
            self.assertNotIn("Traceback", ended.stderr)

    def test_the_help_says_where_each_refusal_happens(self) -> None:
        said = " ".join(run("sink", "--help").out.split())
        for words in ("refuse so at MAIL:", "refuse so at RCPT:", "refuse so after the dot:"):
            self.assertEqual(said.count(words), 1, words)

    def test_a_reply_is_read_with_and_without_its_status(self) -> None:
        self.assertEqual(_reply("451 4.3.0 Try later"), (451, "4.3.0 Try later"))
        self.assertEqual(_reply("550 No such user"), (550, "No such user"))
        self.assertEqual(_reply("550"), (550, "No"))
        for wrong in ("250 OK", "", "x", "4510 no", "\u0664\u0665\u0661 no", "451 5.3.0 no", "451 4.3.0 a\r\nb"):
            with self.assertRaises(argparse.ArgumentTypeError):
                _reply(wrong)
