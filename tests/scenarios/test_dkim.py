"""What programs and users send is signed, from the command that makes the keys on, and another program verifies it."""

from __future__ import annotations

import json
from pathlib import Path

from tests.scenarios.support import BASIC, Server, wait_until
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
