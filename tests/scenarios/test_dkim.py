"""What programs and users send is signed, from the command that makes the keys on, and another program verifies it."""

from __future__ import annotations

import json
import smtplib
import time
from pathlib import Path

from mailserver.mail.content import Content
from mailserver.trust.dkim_key import PrivateKey
from tests.relay.postfix import Postfix
from tests.scenarios.exim import Exim
from tests.scenarios.support import BASIC, Server, Wire, as_wire, wait_until
from tests.scenarios.test_sendmail import SendmailCase
from tests.trust.dkimpy_peer import verified_by_dkimpy
from tests.trust.opendkim_peer import signed_by_opendkim, verified_by_opendkim
from tests.trust.test_dkim import results

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
            + f'[relay]\nuse = "smarthost"\nhost = "127.0.0.1"\nport = {self.postfix.port}\nnetworks = ["127.0.0.0/8"]\n[[filter]]\nuse = "dkim_signing"\n'
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


RELAYING = (
    BASIC
    + """
[relay]
use = "smarthost"
host = "127.0.0.1"
port = PORT
networks = ["127.0.0.0/8"]

[[filter]]
use = "dkim_signing"
"""
)
# What relays like to touch: octets above 127, dots in front, lines as long as they may be, blanks, a folded field.
TOUCHY = (
    "From: Ann <alice@example.org>\nTo: bob@onward.example,\n\tcarol@far.example\nSubject:  Gr\u00fc\u00dfe \u2013 und\n  mehr\n"
    "MIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\n"
    ".\n..\n.dot\n\tTab  \u00fc \n"
    f"{'x' * 998}\n{'y ' * 499}\n\n \n\n"
).encode()


class ThroughRelays(SendmailCase):
    """From this server over Postfix and Exim, in both orders: their SMTP, both ways, and their mailboxes."""

    def send(self, port: int, recipient: str) -> dict[str, str]:
        """Send it to a relay at this port; return the records of the keys that have signed."""
        server = self.serve(RELAYING.replace("PORT", str(port)))
        self.assertEqual(server.command("dkim", "new", "example.org").returncode, 0)
        self.sendmail(server, "-i", "-f", "alice@example.org", recipient, message=TOUCHY)
        keys = json.loads(server.command("dkim", "list", "--json").stdout)
        return {one["name"]: one["record"] for one in keys if one["state"] == "active"}

    def assertVerifies(self, stored: bytes, records: dict[str, str]) -> None:
        message = as_wire(stored)
        found = results(Content.of(message), {name: record.encode() for name, record in records.items()}, time.time())
        self.assertEqual([(one.result, one.reason) for one in found], [("pass", "")] * 2)
        self.assertEqual(list(verified_by_opendkim(message, records).values()), ["pass"] * 2)
        signatures = message.split(b"DKIM-Signature: ")[1:]
        self.assertEqual(len(signatures), 2)
        for record in records.values():
            kind = b"a=rsa-" if "k=rsa" in record else b"a=ed25519-"
            own = next(one for one in signatures if kind in one[:200])
            rest = signatures[-1].partition(b"\r\n")[2] if own is not signatures[-1] else b""
            while rest[:1] in (b"\t", b" "):
                rest = rest.partition(b"\r\n")[2]
            self.assertIs(verified_by_dkimpy(b"DKIM-Signature: " + own + rest, record), True, kind)

    def test_postfix_and_then_exim(self) -> None:
        exim = Exim()
        self.addCleanup(exim.close)
        exim.start()
        postfix = Postfix(
            f"default_transport = smtp:[127.0.0.1]:{exim.port}\nvirtual_mailbox_domains = other.example\n"
            "smtp_dns_support_level = disabled\nsmtpd_recipient_restrictions = permit_mynetworks, reject\n"
        )
        self.addCleanup(postfix.remove)
        postfix.start()
        records = self.send(postfix.port, "carol@far.example")
        [path] = wait_until(lambda: list((exim.top / "mail").glob("new/*")), lambda: postfix.log() + exim.log(), 30.0)
        self.assertVerifies(path.read_bytes(), records)
        # What others have signed goes the same way with its octets above 127.
        key = PrivateKey.generate("rsa")
        theirs = signed_by_opendkim(as_wire(TOUCHY), key, "theirs", "relaxed/simple")
        with smtplib.SMTP("127.0.0.1", postfix.port, timeout=30) as client:
            client.sendmail("alice@example.org", ["carol@far.example"], theirs, mail_options=["BODY=8BITMIME"])
        paths = wait_until(lambda: len(found := list((exim.top / "mail").glob("new/*"))) == 2 and found, exim.log, 30.0)
        [stored] = [data for one in paths if b"s=theirs" in (data := one.read_bytes())]
        self.assertIn("\u00fc".encode(), stored)
        found = results(Content.of(as_wire(stored)), key.record.encode(), time.time())
        self.assertEqual([(one.result, one.reason) for one in found], [("pass", "")])

    def test_exim_and_then_postfix(self) -> None:
        postfix = Postfix(
            "virtual_alias_domains = onward.example\nvirtual_alias_maps = inline:{ bob@onward.example=alice@far.example }\n"
        )
        self.addCleanup(postfix.remove)
        postfix.start()
        exim = Exim(postfix.port)
        self.addCleanup(exim.close)
        exim.start()
        records = self.send(exim.port, "bob@onward.example")
        [stored] = postfix.wait_for_mail("alice")
        self.assertVerifies(stored.data, records)
