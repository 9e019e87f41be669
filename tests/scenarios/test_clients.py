"""Real clients put mail through the whole server."""

from __future__ import annotations

import asyncio
import smtplib
import subprocess
from email.message import EmailMessage
from email.policy import SMTP

import aiosmtplib

from tests.requires import require_tool
from tests.scenarios.support import BASIC, ScenarioCase, Server

LMTP = BASIC.replace('service = "mx"', 'service = "lmtp"')
MANY = """
[limits]
connections = 500
connections_per_network = 500
"""


def letter(subject: str, *, to: str = "alice@example.org") -> EmailMessage:
    message = EmailMessage()
    message["From"] = "sender@example.net"
    message["To"] = to
    message["Subject"] = subject
    message.set_content("A line.\n.\n..two dots\nFrom the end\n")
    return message


class Clients(ScenarioCase):
    def run_tool(self, *command: str) -> str:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=60, stdin=subprocess.DEVNULL
        )
        self.assertEqual(done.returncode, 0, f"{command}: {done.stdout}{done.stderr}")
        return done.stdout

    def smtp_source(self, server: Server, *options: str) -> None:
        source = require_tool("smtp-source")
        self.run_tool(
            source, *options, "-f", "sender@example.net", "-t", "alice@example.org", f"127.0.0.1:{server.port}"
        )

    def test_smtplib_sends_a_message_that_arrives_whole(self) -> None:
        server = self.serve()
        message = letter("From smtplib")
        with smtplib.SMTP("127.0.0.1", server.port, "client.example", timeout=10) as client:
            # Not send_message, which would itself write ">From".
            refused = client.sendmail("sender@example.net", ["alice@example.org"], message.as_bytes(policy=SMTP))
        self.assertEqual(refused, {})
        (stored,) = server.wait_for_mail("alice")
        self.assertEqual(stored.header("Subject"), "From smtplib")
        self.assertEqual(stored.header("Return-Path"), "<sender@example.net>")
        self.assertIn("by mx.example.org", stored.header("Received") or "")
        self.assertEqual(stored.body, b"A line.\r\n.\r\n..two dots\r\nFrom the end\r\n")
        self.assertEqual(
            (stored.path.stat().st_mode & 0o777, stored.path.parent.stat().st_mode & 0o777), (0o600, 0o700)
        )

    def test_smtplib_sends_many_messages_on_one_connection_with_rset_between(self) -> None:
        server = self.serve()
        with smtplib.SMTP("127.0.0.1", server.port, "client.example", timeout=10) as client:
            for n in range(30):
                client.send_message(letter(f"number {n}"))
                client.rset()
        stored = server.wait_for_mail("alice", 30)
        self.assertEqual({message.header("Subject") for message in stored}, {f"number {n}" for n in range(30)})

    def test_swaks_sends_with_its_headers_and_body(self) -> None:
        server = self.serve()
        swaks = require_tool("swaks")
        said = self.run_tool(
            swaks, "--server", f"127.0.0.1:{server.port}", "--from", "sender@example.net", "--to", "alice@example.org",
            "--header", "Subject: From swaks", "--body", "swaks was here", "--pipeline",
        )  # fmt: skip
        self.assertIn("250 ", said)
        (stored,) = server.wait_for_mail("alice")
        self.assertEqual(stored.header("Subject"), "From swaks")
        self.assertIn(b"swaks was here", stored.body)

    def test_swaks_speaks_lmtp(self) -> None:
        server = self.serve(LMTP)
        self.run_tool(
            require_tool("swaks"), "--protocol", "LMTP", "--server", f"127.0.0.1:{server.port}",
            "--from", "sender@example.net", "--to", "alice@example.org,bob@example.org",
        )  # fmt: skip
        server.wait_for_mail("alice")
        server.wait_for_mail("bob")

    def test_smtp_source_sends_one_message(self) -> None:
        server = self.serve()
        self.smtp_source(server)
        server.wait_for_mail("alice")

    def test_smtp_source_sends_on_one_connection(self) -> None:
        server = self.serve()
        self.smtp_source(server, "-d", "-m", "200", "-l", "4096")
        server.wait_for_mail("alice", 200)

    def test_smtp_source_sends_in_twenty_sessions_at_once(self) -> None:
        server = self.serve(BASIC + MANY)
        self.smtp_source(server, "-s", "20", "-m", "400", "-l", "4096")
        self.smtp_source(server, "-d", "-s", "20", "-m", "400", "-l", "4096")
        server.wait_for_mail("alice", 800, seconds=30)

    def test_smtp_source_speaks_lmtp(self) -> None:
        server = self.serve(LMTP)
        self.smtp_source(server, "-L", "-d", "-s", "4", "-m", "40")
        server.wait_for_mail("alice", 40)

    def test_aiosmtplib_sends_from_a_dozen_connections(self) -> None:
        server = self.serve()

        async def send_all() -> list[str]:
            sendings = [
                aiosmtplib.send(letter(f"number {n}"), hostname="127.0.0.1", port=server.port, start_tls=False)
                for n in range(12)
            ]
            return [reply for _errors, reply in await asyncio.gather(*sendings)]

        replies = asyncio.run(send_all())
        self.assertEqual(len(replies), 12)
        stored = server.wait_for_mail("alice", 12)
        self.assertEqual({message.header("Subject") for message in stored}, {f"number {n}" for n in range(12)})

    def test_smtplib_sends_ten_megabytes(self) -> None:
        server = self.serve()
        body = b"".join(b"%07d %s\r\n" % (n, b"x" * 70) for n in range(130_000))
        with smtplib.SMTP("127.0.0.1", server.port, "client.example", timeout=30) as client:
            client.sendmail("sender@example.net", ["alice@example.org"], b"Subject: large\r\n\r\n" + body)
        (stored,) = server.wait_for_mail("alice")
        self.assertTrue(stored.body == body, "the body has changed")
