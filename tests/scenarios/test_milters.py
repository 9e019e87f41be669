"""The whole server with real milters: what programs send is signed, what comes is verified, and both outlive reloads and deaths."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path

from mailserver.mail.content import Content
from mailserver.trust.dkim_key import PrivateKey
from tests.filters.scanner import RealScanner
from tests.filters.test_milter_programs import OPENDKIM
from tests.ports import free_port
from tests.requires import require_tool
from tests.scenarios.support import BASIC, Server, Wire, as_wire, wait_until
from tests.scenarios.test_sendmail import SendmailCase
from tests.trust.dkimpy_peer import verified_by_dkimpy
from tests.trust.test_dkim import results

KEY = PrivateKey.generate("rsa")
FILTERS = """
[limits]
memory_bytes = "64K"

[relay]
use = "capture"
path = "{{work}}/sent"

[[filter]]
use = "milter"
name = "signs"
endpoint = "inet:127.0.0.1:{signer}"
services = ["submission"]

[[filter]]
use = "milter"
name = "verifies"
endpoint = "inet:{verifier}@127.0.0.1"
services = ["mx"]
client_names = false
"""
SIGNS = "Mode s\nDomain example.org\nSelector s1\nKeyFile {folder}/key\nCanonicalization simple/simple\n"
VERIFIES = "Mode v\nTestPublicKeys {folder}/keys\n"
LARGE = b"z" * 70 + b"\r\n"


class Milters(SendmailCase):
    def setUp(self) -> None:
        super().setUp()
        self.ports = {"signer": free_port(), "verifier": free_port()}
        self.signer, self.verifier = RealScanner(self), RealScanner(self)
        self.signer.write("key", KEY.pem.decode())
        self.verifier.write("keys", f"s1._domainkey.example.org {KEY.record}\n")
        self.launch("signer", SIGNS)
        self.process = self.launch("verifier", VERIFIES)

    def launch(self, name: str, text: str) -> int:
        scanner, port = getattr(self, name), self.ports[name]
        path = scanner.write("conf", (OPENDKIM + text).format(folder=scanner.folder, port=port))
        process = scanner.launch([require_tool("opendkim"), "-f", "-x", path])

        def listens() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        wait_until(listens, scanner.output)
        return int(process.pid)

    def server(self) -> Server:
        return self.serve(BASIC + FILTERS.format(**self.ports).replace("{{", "{").replace("}}", "}"))

    def signed(self, server: Server, subject: str) -> bytes:
        message = f"From: alice@example.org\nTo: bob@far.example\nSubject:  {subject}\n\n..dot  \nx\n"
        self.sendmail(server, "-t", message=message.encode())

        def found() -> list[bytes]:
            return [data for path in Path(server.work, "sent", "new").glob("*") if subject.encode() in (data := path.read_bytes())]

        sent = as_wire(wait_until(found, server.log)[0])
        return sent[sent.index(b"DKIM-Signature:") :]

    def test_what_is_signed_here_verifies_here_and_elsewhere(self) -> None:
        server = self.server()
        signed = self.signed(server, "one")
        self.assertIs(verified_by_dkimpy(signed, KEY.record), True)
        self.assertEqual([one.result for one in results(Content.of(signed), KEY.record.encode(), time.time())], ["pass"])
        for text, word in ((signed, "dkim=pass"), (signed + LARGE * 3000, "dkim=fail"), (b"Subject: x\r\n\r\n" + LARGE * 3000, "")):
            accepted = server.send(text[:-2].replace(b"\r\n.", b"\r\n.."))
            self.assertEqual(accepted.code, 250, accepted)
            [stored] = server.wait_for_mail("alice")
            self.assertIn(word, stored.header("Authentication-Results") or "")
            stored.path.unlink()

    def test_a_reload_and_a_restart_of_the_milter_amid_a_message_lose_nothing(self) -> None:
        server = self.server()
        with Wire(server.port) as wire:
            wire.dialogue("EHLO client.example", "MAIL FROM:<a@example.net>", "RCPT TO:<alice@example.org>")
            text = server.config_path.read_text()
            server.config_path.write_text(text.replace("client_names = false", 'client_names = false\ncommand_timeout = "19s"'))
            server.signal(signal.SIGHUP)
            wait_until(lambda: "reloaded" in server.log(), server.log)
            os.killpg(self.process, signal.SIGKILL)
            wait_until(lambda: self.refused(), self.verifier.output)
            self.launch("verifier", VERIFIES)
            self.assertEqual(wire.dialogue("RCPT TO:<bob@example.org>", "DATA"), [250, 354])
            wire.send(b"Subject: x\r\n\r\nx\r\n.\r\n")
            self.assertEqual(wire.reply().code, 250)
            server.wait_for_mail("alice")
            server.wait_for_mail("bob")
            # The configuration of today has brought a filter of its own, which has never heard of this connection.
            wire.dialogue("MAIL FROM:<b@example.net>", "RCPT TO:<alice@example.org>", "DATA")
            wire.send(b"Subject: y\r\n\r\nx\r\n.\r\n")
            self.assertEqual(wire.reply().code, 250)

    def refused(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.ports["verifier"])) != 0

    def test_while_the_milter_is_dead_nothing_is_taken_and_a_programs_mail_waits(self) -> None:
        server = self.server()
        for scanner in ("signer", "verifier"):
            pid = int(Path(getattr(self, scanner).folder, "pid").read_text())
            os.killpg(pid, signal.SIGKILL)
        wait_until(lambda: self.refused(), self.verifier.output)
        with Wire(server.port, greet=False) as wire:
            self.assertEqual(wire.reply().code, 421)
        self.sendmail(server, "-t", message=b"From: alice@example.org\nTo: bob@far.example\nSubject: waits\n\nx\n")
        wait_until(lambda: server.log().count("cannot be reached") >= 2, server.log)
        self.assertEqual(list(Path(server.work, "sent").rglob("*.*")), [])
