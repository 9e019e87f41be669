"""REQUIRETLS (RFC 8689) through two servers: in at one, kept over a restart, on to the other, or back."""

from __future__ import annotations

import contextlib
import os
import smtplib
import ssl
from collections.abc import Iterator
from pathlib import Path

from tests.dns.unbound import Unbound
from tests.scenarios.support import BASIC, ScenarioCase, Server, wait_until
from tests.tls.authority import Authority

AUTHORITY = Authority()
PAIR = '\n[tls]\ncertificate = "{work}/server.pem"\nkey = "{work}/server.key"\n'
STARTTLS = BASIC.replace('tls = "none"', 'tls = "starttls"') + PAIR
FAR = STARTTLS.replace('[domain."example.org"]', '[domain."far.example"]').replace("mx.example.org", "mx.far.example")
LINES = b"Subject: a secret\r\n\r\nin the body\r\n"


class RequireTLS(ScenarioCase):
    def far(self, config: str = FAR) -> Server:
        server = self.prepare(config, accounts=("alice@far.example",))
        AUTHORITY.leaf("mx.far.example").write(str(server.work))
        server.start()
        return server

    def front(self, port: int) -> Server:
        names = Unbound({"far.example": ["mx.far.example. 300 IN A 127.0.0.1"]})
        self.addCleanup(names.stop)
        names.start()
        server = self.prepare(
            f'{STARTTLS}[relay]\nuse = "smarthost"\nhost = "mx.far.example"\nport = {port}\nnetworks = ["127.0.0.0/8"]\nprobe = "200ms"\n'
            f'[dns]\nservers = ["{names.address}"]\n[queue]\nretry = ["1s"]\n'
        )
        AUTHORITY.leaf("mx.example.org").write(str(server.work))
        authorities = Path(server.work / "authorities.pem")
        authorities.write_bytes(AUTHORITY.pem)
        with self.believing(authorities):
            server.start()
        return server

    @contextlib.contextmanager
    def believing(self, authorities: Path) -> Iterator[None]:
        """The system's authorities, for what is started meanwhile."""
        before = os.environ.get("SSL_CERT_FILE")
        os.environ["SSL_CERT_FILE"] = str(authorities)
        try:
            yield
        finally:
            if before is None:
                del os.environ["SSL_CERT_FILE"]
            else:
                os.environ["SSL_CERT_FILE"] = before

    def send(self, server: Server, to: str, *options: str) -> str:
        """Return the id."""
        context = ssl.create_default_context(cadata=AUTHORITY.pem.decode())
        context.check_hostname = False
        with smtplib.SMTP("127.0.0.1", server.port, timeout=15) as client:
            client.ehlo()
            self.assertNotIn("requiretls", client.esmtp_features, "never in the clear")
            self.assertEqual(client.mail("alice@example.org", ["REQUIRETLS"])[0], 555)
            client.starttls(context=context)
            client.ehlo()
            self.assertIn("requiretls", client.esmtp_features)
            self.assertEqual(client.mail("alice@example.org", ["REQUIRETLS=1"])[0], 501)
            self.assertEqual(client.mail("alice@example.org", ["REQUIRETLS", *options])[0], 250)
            self.assertEqual(client.rcpt(to)[0], 250)
            code, text = client.data(LINES)
            self.assertEqual(code, 250, text)
        return text.decode().split()[-1].strip("()")

    def test_it_is_kept_over_a_restart_and_said_to_the_next_host(self) -> None:
        far = self.far()
        front = self.front(far.port)
        far.stop()
        id = self.send(front, "alice@far.example")
        wait_until(lambda: "deferred" in front.log(), front.log)
        front.kill()
        far.restart()
        with self.believing(front.work / "authorities.pem"):
            front.restart()
        [stored] = far.wait_for_mail("alice", 1)
        self.assertEqual(stored.body, b"in the body\r\n")
        wait_until(lambda: ", WebPKI (verified: the message has REQUIRETLS), message 1" in front.command("explain", id).stdout, front.log)
        self.assertIn(", REQUIRETLS", front.command("explain", id).stdout)
        received = (stored.header("Received") or "").partition(" id ")[2].split()[0]
        self.assertIn("requiretls=true", far.command("explain", received).stdout)

    def test_where_the_next_host_has_no_tls_its_sender_hears_of_it_and_gets_only_the_header(self) -> None:
        far = self.far(FAR.replace('tls = "starttls"', 'tls = "none"'))
        front = self.front(far.port)
        self.send(front, "alice@far.example", "RET=FULL")
        [report] = front.wait_for_mail("alice", 1)
        self.assertIn(b"Status: 5.7.10", report.data)
        self.assertIn(b"a secret", report.data)
        self.assertNotIn(b"in the body", report.data)
        self.assertEqual(far.messages("alice"), [])
