"""The exchanges against clients of others: GNU SASL's command, and smtplib."""

from __future__ import annotations

import base64
import contextlib
import smtplib
import subprocess
import threading
from typing import IO, Any

from twisted.trial.unittest import SynchronousTestCase

from mailserver.sasl.exchange import Exchange
from mailserver.sasl.exchanges import MECHANISMS, Start, begin
from mailserver.sasl.scram_keys import decode_scram_keys, derive_scram_keys
from mailserver.sasl.steps import (
    Challenge,
    ChannelBindings,
    CheckCertificate,
    CheckPassword,
    Failed,
    FindScramKeys,
    FindSecret,
    Step,
    Succeeded,
    Trouble,
)
from tests.requires import require_tool

BINDINGS = ChannelBindings({"tls-exporter": b"e" * 32})
START = Start(BINDINGS, offers_plus=True, hostname="mx.example.org")
KEYS = derive_scram_keys("pencil", salt=b"0123456789abcdef", iterations=4096)
EXPORTED = base64.b64encode(BINDINGS.data["tls-exporter"]) + b"\n"
# GNU SASL asks its user what a program would take from TLS; without PLUS, an empty line says that there is nothing.
TYPED = {"SCRAM-SHA-256": b"\n\n", "SCRAM-SHA-256-PLUS": EXPORTED}
SECONDS = 30


def answer(question: Step) -> Any:
    """One account: "user" with the password "pencil"."""
    match question:
        case CheckPassword(username, password, _):
            return "user" if (username, password) == ("user", "pencil") else None
        case FindScramKeys():
            return KEYS
        case FindSecret(username):
            return b"pencil" if username == "user" else None
        case CheckCertificate():
            return "user"
    raise AssertionError(f"{question} is no question")


def fed(exchange: Exchange, response: bytes | None) -> Challenge | Succeeded | Failed:
    step = exchange.respond(response)
    while not isinstance(step, Challenge | Succeeded | Failed):
        step = exchange.answer(answer(step))
    return step


def said(output: IO[bytes]) -> bytes:
    """The next message of GNU SASL.  What it asks its user stands before, in the same line."""
    return base64.b64decode(output.readline().rpartition(b": ")[2])


class GNUSASL(SynchronousTestCase):
    """`gsasl --client` writes the mechanism's name and then its messages in base64, a line each, and reads ours."""

    def login(
        self, mechanism: str, *, password: str = "pencil", typed: bytes | None = None, waits: bool = False
    ) -> tuple[Succeeded | Failed, bool]:
        """How it ended, and whether the client was content: it trusts the server, and nothing is left to be said.

        `typed` is what its user enters, `waits` that it gives no initial response.
        """
        options = ("--no-client-first",) if waits else ()
        process = subprocess.Popen(
            [require_tool("gsasl"), "--client", "-d", "--quiet", "-m", mechanism, "-a", "user", "-p", password, *options],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        deadline = threading.Timer(SECONDS, process.kill)
        deadline.start()
        try:
            assert process.stdin is not None and process.stdout is not None
            with process.stdout as output, contextlib.suppress(BrokenPipeError), process.stdin as entry:
                entry.write(TYPED.get(mechanism, b"") if typed is None else typed)
                entry.flush()
                self.assertEqual(output.readline(), mechanism.encode() + b"\n")
                exchange = begin(mechanism, START)
                initial = None if waits else said(output)
                # The client's first line is empty where the server speaks first.
                step = fed(exchange, None if mechanism == "CRAM-MD5" else initial)
                while isinstance(step, Challenge):
                    entry.write(base64.b64encode(step.data) + b"\n")
                    entry.flush()
                    step = fed(exchange, said(output))
                if isinstance(step, Succeeded):
                    entry.write(b"\n")  # no more to say; who knows that already has gone
            return step, process.wait() == 0
        finally:
            deadline.cancel()
            process.kill()
            process.wait()

    def test_each_mechanism_logs_in(self) -> None:
        for mechanism in MECHANISMS:
            self.assertEqual(self.login(mechanism), (Succeeded("user"), True), mechanism)

    def test_without_an_initial_response_too(self) -> None:
        for mechanism in ("PLAIN", "LOGIN", "EXTERNAL", "CRAM-MD5"):
            self.assertEqual(self.login(mechanism, waits=True), (Succeeded("user"), True), mechanism)

    def test_a_wrong_password_fails(self) -> None:
        for mechanism in MECHANISMS:
            if mechanism != "EXTERNAL":
                ended, is_content = self.login(mechanism, password="Pencil")
                assert isinstance(ended, Failed), mechanism
                self.assertEqual(
                    (ended.trouble, ended.username, is_content), (Trouble.CREDENTIALS, "user", False), mechanism
                )

    def test_plus_over_another_channel_fails(self) -> None:
        # RFC 9266: what the client exports from its own connection
        typed = base64.b64encode(b"x" * 32) + b"\n"
        ended, is_content = self.login("SCRAM-SHA-256-PLUS", typed=typed)
        self.assertEqual((ended, is_content), (Failed(Trouble.CHANNEL_BINDING, "user"), False))

    def test_keys_are_what_it_makes_of_a_password(self) -> None:
        made = subprocess.run(
            [require_tool("gsasl"), "--mkpasswd", "-m", "SCRAM-SHA-256", "-p", "pencil", "--iteration-count=4096",
             f"--salt={base64.b64encode(KEYS.salt).decode()}"],
            capture_output=True, text=True, check=True, timeout=SECONDS,
        ).stdout.strip()  # fmt: skip
        iterations, salt, stored, server = made.removeprefix("{SCRAM-SHA-256}").split(",")
        self.assertEqual(decode_scram_keys(f"SCRAM-SHA-256${iterations}:{salt}${stored}:{server}"), KEYS)


class Joined(smtplib.SMTP):
    """smtplib, whose AUTH goes to an exchange."""

    def docmd(self, cmd: str, args: str = "") -> tuple[int, bytes]:
        if cmd == "AUTH":
            mechanism, _, initial = args.partition(" ")
            self.exchange = begin(mechanism, START)
            step = fed(self.exchange, base64.b64decode(initial) if initial else None)
        else:
            step = fed(self.exchange, base64.b64decode(cmd))
        match step:
            case Challenge(data):
                return 334, base64.b64encode(data)
            case Succeeded(username):
                return 235, username.encode()
            case Failed(trouble):
                return 535, trouble.name.encode()


class SMTPLib(SynchronousTestCase):
    def login(self, mechanism: str, password: str, has_initial: bool) -> tuple[int, bytes]:
        client = Joined(local_hostname="client.example")
        client.user, client.password = "user", password  # type: ignore[attr-defined]
        respond = {"PLAIN": client.auth_plain, "LOGIN": client.auth_login, "CRAM-MD5": client.auth_cram_md5}[mechanism]
        return client.auth(mechanism, respond, initial_response_ok=has_initial)

    def test_each_mechanism_that_it_has_logs_in(self) -> None:
        for mechanism in ("PLAIN", "LOGIN", "CRAM-MD5"):
            for has_initial in (True, False):
                self.assertEqual(self.login(mechanism, "pencil", has_initial), (235, b"user"), mechanism)

    def test_a_wrong_password_fails(self) -> None:
        for mechanism in ("PLAIN", "LOGIN", "CRAM-MD5"):
            refused = self.assertRaises(smtplib.SMTPAuthenticationError, self.login, mechanism, "Pencil", True)
            self.assertEqual((refused.smtp_code, refused.smtp_error), (535, b"CREDENTIALS"), mechanism)
