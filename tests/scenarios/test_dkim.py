"""What programs and users send is signed, from the command that makes the keys on, and another program verifies it."""

from __future__ import annotations

import json
from pathlib import Path

from tests.relay.postfix import Postfix
from tests.scenarios.support import BASIC, Server, Wire, wait_until
from tests.scenarios.test_sendmail import SendmailCase
from tests.trust.dkimpy_peer import verified_by_dkimpy

SENDING = (
    BASIC
    + """
[relay]
use = "capture"
path = "{work}/sent"

[[filter]]
use = "dkim_signing"
"""
)


class Signing(SendmailCase):
    def sent(self, server: Server, subject: str) -> bytes:
        message = f"From: alice@example.org\nTo: bob@far.example\nSubject: {subject}\n\n..dot  \nand grün\n"
        self.assertEqual(self.sendmail(server, "-t", message=message.encode()).returncode, 0)

        def found() -> list[bytes]:
            files = Path(server.work, "sent", "new").glob("*")
            return [data for path in files if f"Subject: {subject}".encode() in (data := path.read_bytes())]

        return wait_until(found, server.log)[0]  # type: ignore[no-any-return]

    def test_a_programs_mail_is_signed_from_the_next_message_on(self) -> None:
        server = self.serve(SENDING)
        self.assertNotIn(b"DKIM-Signature", self.sent(server, "one"))
        made = server.command("dkim", "new", "example.org")
        self.assertEqual((made.returncode, made.stderr), (0, ""))
        keys = json.loads(server.command("dkim", "list", "--json").stdout)
        sent = self.sent(server, "two").replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
        signed = sent[sent.index(b"DKIM-Signature") :]
        self.assertEqual(signed.count(b"DKIM-Signature:"), 2)
        record = next(one["record"] for one in keys if one["state"] == "active" and one["kind"] == "ed25519")
        self.assertIs(verified_by_dkimpy(signed, record), True)


class ToAHostOfSevenBits(SendmailCase):
    """What we have signed verifies wherever it goes: nobody has to change it on its way (RFC 6376 section 5.3)."""

    def setUp(self) -> None:
        super().setUp()
        self.postfix = Postfix("smtpd_discard_ehlo_keywords = 8bitmime, smtputf8, chunking\nstrict_8bitmime_body = yes\n")
        self.addCleanup(self.postfix.remove)
        self.postfix.start()
        self.server = self.prepare(
            BASIC
            + f'[relay]\nuse = "smarthost"\nhost = "127.0.0.1"\nport = {self.postfix.port}\n[[filter]]\nuse = "dkim_signing"\n'
            + '[domain."example.org".aliases]\nfar = "bob@far.example"\ngone = "refused@far.example"\n'
        )
        self.assertEqual(self.server.command("dkim", "new", "example.org").returncode, 0)
        self.server.start()
        keys = json.loads(self.server.command("dkim", "list", "--json").stdout)
        self.record = next(one["record"] for one in keys if one["state"] == "active" and one["kind"] == "ed25519")

    def arrived(self, user: str) -> bytes:
        [message] = self.postfix.wait_for_mail(user)
        return message.data.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")

    def assert_verifies(self, message: bytes) -> None:
        self.assertTrue(message.isascii())
        self.assertEqual(message.count(b"DKIM-Signature:"), 2)
        self.assertIs(verified_by_dkimpy(message[message.index(b"DKIM-Signature:") :], self.record), True)

    def test_what_a_program_sends_arrives_encoded_and_signed(self) -> None:
        text = "From: alice@example.org\nTo: bob@far.example\nSubject: x\n\n..dot \nGrüße an alle\n"
        self.assertEqual(self.sendmail(self.server, "-t", message=text.encode()).returncode, 0)
        self.assert_verifies(self.arrived("bob"))

    def test_so_does_what_an_alias_sends_on(self) -> None:
        text = "From: alice@example.org\nTo: far@example.org\nSubject: x\n\nGrüße über den Alias\n"
        self.assertEqual(self.sendmail(self.server, "-t", message=text.encode()).returncode, 0)
        self.assert_verifies(self.arrived("bob"))

    def test_so_does_our_own_report(self) -> None:
        with Wire(self.server.port) as wire:
            mail = "MAIL FROM:<carol@far.example> BODY=8BITMIME RET=FULL"
            wire.dialogue("EHLO client.example", mail, "RCPT TO:<gone@example.org>", "DATA")
            wire.send("From: carol@far.example\r\nSubject: x\r\n\r\nGrüße\r\n.\r\n".encode())
            self.assertEqual(wire.reply().code, 250)
        report = self.arrived("carol")
        self.assertIn(b"Gr=C3=BC=C3=9Fe", report)
        self.assert_verifies(report)
