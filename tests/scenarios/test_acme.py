"""A whole server that gets its certificates from a CA, Pebble, while people send mail through it."""

from __future__ import annotations

import json
import signal
import smtplib
import ssl
import threading
from pathlib import Path
from typing import Any

from cryptography import x509
from twisted.trial.unittest import FailTest

from tests.acme.pebble import Pebble
from tests.doctor.primary import Primary
from tests.ports import own_loopback
from tests.rounds import rounds
from tests.scenarios.support import BASIC, ScenarioCase, Server, wait_until
from tests.scenarios.test_root_process import RootProcessCase
from tests.scenarios.test_unprivileged import USER

HOUSE = BASIC.replace('tls = "none"', 'tls = "starttls"') + """
[dns]
servers = ["{dns}"]
daily_look = false
[limits]
connections_per_network = 1000
[acme]
directory = "{directory}"
ca_file = "{ca_file}"
endpoint = "tcp:{http_port}:interface=127.0.0.1"
"""
BODY = b"Subject: encrypted\r\n\r\nyes\r\n"
SESSIONS = 8 if rounds(1) == 1 else 50
MESSAGES = 4 * rounds(1)


class ByACME(ScenarioCase):
    def setUp(self) -> None:
        self.pebble = Pebble()
        self.addCleanup(self.pebble.stop)

    def house(self) -> Server:
        text = HOUSE
        values = {"directory": self.pebble.directory, "ca_file": self.pebble.ca_file, "http_port": self.pebble.http_port}
        primary = Primary(self)
        for name, value in (values | {"dns": primary.server}).items():
            text = text.replace(f"{{{name}}}", str(value))
        server = self.prepare(text)
        server.changed = {
            "mailserver.acme.service:FIRST_SECONDS": 0.1,
            "mailserver.tls.certificates:LOOK_SECONDS": 0.2,
            "mailserver.assembly.acme:AUTHORITY_PORT": primary.server.port,
        }
        return server

    def shown(self, server: Server) -> x509.Certificate:
        with smtplib.SMTP("127.0.0.1", server.port, timeout=15) as client:
            client.starttls(context=ssl._create_unverified_context())
            found: Any = client.sock
            return x509.load_der_x509_certificate(found.getpeercert(True))

    def issued(self, server: Server, than: int = 0) -> x509.Certificate:
        """Once it is shown, and another one than that with this serial number."""

        def found() -> x509.Certificate | None:
            leaf = self.shown(server)
            return leaf if "Pebble" in leaf.issuer.rfc4514_string() and leaf.serial_number != than else None

        leaf: x509.Certificate = wait_until(found, server.log, 30)
        return leaf

    def test_mail_is_taken_before_the_first_certificate_and_nobody_is_dropped_when_others_follow(self) -> None:
        server = self.house()
        for process in self.pebble.processes:
            process.send_signal(signal.SIGSTOP)
        server.start()
        self.assertEqual(self.shown(server).issuer, self.shown(server).subject)  # of its own making
        self.assertEqual(server.send(BODY).code, 250)
        self.assertEqual(server.stop(), 0)  # nobody waits for the CA
        server.restart()
        for process in self.pebble.processes:
            process.send_signal(signal.SIGCONT)
        first = self.issued(server)
        sessions = Sessions(server.port)
        renewed = server.command("certificate", "renew", "--json", timeout=60)
        self.assertEqual(renewed.returncode, 0, renewed.stderr + server.log())
        second = self.issued(server, first.serial_number)
        self.assertEqual(json.loads(renewed.stdout)["serial"], f"{second.serial_number:x}")
        self.assertEqual(second.public_key(), first.public_key())
        self.assertEqual(server.command("certificate", "rollover", timeout=60).returncode, 0)
        third = self.issued(server, second.serial_number)
        self.assertNotEqual(third.public_key(), first.public_key())
        self.assertEqual(sessions.ended(), [])
        revoked = server.command("certificate", "revoke", "--reason", "superseded", timeout=60)
        self.assertEqual(revoked.returncode, 0, revoked.stderr)
        self.assertEqual(self.pebble.status_of(f"{third.serial_number:x}"), "Revoked")
        server.wait_for_mail("alice", 1 + SESSIONS * MESSAGES, seconds=60)
        listed = server.command("certificate", "list")
        self.assertEqual(listed.returncode, 0)
        self.assertIn("names           mx.example.org", listed.stdout)
        self.assertIn("next TLSA       3 1 1 ", listed.stdout)
        self.assertEqual(server.status()["certificates"]["mail"]["failures"], 0)
        server.stop()
        self.assertEqual(server.command("certificate", "list", "--json").returncode, 0)  # without a server
        said = server.log()
        self.assertEqual(said.count("a certificate for mx.example.org, until "), 4, said)

    def test_a_server_that_is_killed_while_it_orders_has_a_key_that_fits_and_a_certificate_in_the_end(self) -> None:
        server = self.house()
        keys = Path(f"{server.work}/data-keys/acme")
        server.launch()
        for there in ("mail.json", "mail.next.pem", "account-*.json", "shown.json")[: rounds(1)]:
            wait_until(lambda there=there: list(keys.glob(there)) or (keys / "mail.pem").exists(), server.log, 20)
            server.kill()
            (server.work / "pid").unlink(missing_ok=True)
            server.launch()
        server.wait_until_it_greets()
        self.issued(server)


class ByRoot(RootProcessCase):
    """Port 80 belongs to root, which the server gives up."""

    if rounds(1) > 1:

        def test_the_root_process_binds_the_port_while_the_ca_looks(self) -> None:
            address = own_loopback(80)
            pebble, primary = Pebble(address=address, http_port=80), Primary(self)
            self.addCleanup(pebble.stop)
            text = HOUSE.replace("{http_port}:interface=127.0.0.1", f"80:interface={address}").replace("{dns}", str(primary.server))
            server = self.installed(text.replace("{directory}", pebble.directory).replace("{ca_file}", "{work}/roots.pem"))
            (server.work / "roots.pem").write_bytes(Path(pebble.ca_file).read_bytes())
            server.start()
            keys = Path(f"{server.work}/data-keys/acme/mail.pem")
            wait_until(lambda: keys.exists() or "no certificate for" in server.log(), server.log, 60)
            self.assertTrue(keys.exists(), server.log())
            self.assertEqual((keys.stat().st_mode & 0o777, keys.parent.parent.stat().st_uid), (0o400, USER.pw_uid))


class Sessions:
    """Open before the certificate changes; each sends its messages one after the other, slowly enough to see the change."""

    def __init__(self, port: int) -> None:
        self.faults: list[str] = []
        self._go_on = threading.Event()
        self._ready = threading.Barrier(SESSIONS + 1)
        self._threads = [threading.Thread(target=self._run, args=(port,)) for _ in range(SESSIONS)]
        for thread in self._threads:
            thread.start()
        self._ready.wait(30)

    def _run(self, port: int) -> None:
        try:
            with smtplib.SMTP("127.0.0.1", port, timeout=60) as client:
                client.starttls(context=ssl._create_unverified_context())
                client.sendmail("sender@example.net", ["alice@example.org"], BODY)
                self._ready.wait(30)
                for _ in range(MESSAGES - 1):
                    self._go_on.wait(0.3)
                    client.sendmail("sender@example.net", ["alice@example.org"], BODY)
        except Exception as error:
            self.faults.append(f"{type(error).__name__}: {error}")

    def ended(self) -> list[str]:
        """What they have met with."""
        self._go_on.set()
        for thread in self._threads:
            thread.join(60)
            if thread.is_alive():
                raise FailTest("a session does not end")
        return self.faults
