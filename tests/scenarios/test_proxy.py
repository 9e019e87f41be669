"""The whole server behind HAProxy itself, which speaks both versions of the PROXY protocol."""

from __future__ import annotations

import smtplib
import socket
import subprocess

from tests.ports import free_port
from tests.requires import require_tool
from tests.scenarios.support import BASIC, Server, wait_until
from tests.scenarios.test_login import ALICE, PASSWORD, LoginCase

CONFIG = (
    BASIC
    + """
[[listen]]
service = "mx"
endpoint = "haproxy:tcp:{proxiedport}:interface=127.0.0.1"
tls = "starttls"

[[listen]]
service = "submission"
endpoint = "haproxy:tcp:{proxiedtlsport}:interface=127.0.0.1"
tls = "implicit"
proxies = ["127.0.0.1"]

[tls]
certificate = "{work}/server.pem"
key = "{work}/server.key"

[relay]
use = "capture"
path = "{work}/outbound"
networks = ["127.0.0.1"]
"""
)
HAPROXY = """
defaults
    mode tcp
    timeout connect 5s
    timeout client 30s
    timeout server 30s
listen mx1
    bind 127.0.0.1:{mx1}
    option smtpchk EHLO balancer.example
    server one 127.0.0.1:{mx} send-proxy check inter 100ms
listen mx2
    bind 127.0.0.1:{mx2}
    option smtpchk EHLO balancer.example
    server one 127.0.0.1:{mx} send-proxy-v2 check inter 100ms
listen submissions
    bind 127.0.0.1:{tls}
    server one 127.0.0.1:{submissions} send-proxy-v2
"""
CLIENT = ("127.0.0.2", 0)  # where the client stands; the proxy itself, 127.0.0.1, may relay
MESSAGE = b"From: alice@example.org\r\nTo: x@elsewhere.example\r\nSubject: out\r\n\r\nyes\r\n"


class BehindHAProxy(LoginCase):
    def haproxy(self, server: Server) -> dict[str, int]:
        """Start it; its ports."""
        program = require_tool("haproxy")
        ports = {name: free_port() for name in ("mx1", "mx2", "tls")}
        path = server.work / "haproxy.cfg"
        path.write_text(
            HAPROXY.format(mx=server.ports["proxiedport"], submissions=server.ports["proxiedtlsport"], **ports)
        )
        log = (server.work / "haproxy.log").open("wb")
        self.addCleanup(log.close)
        process = subprocess.Popen([program, "-db", "-f", str(path)], stdout=log, stderr=log)
        self.addCleanup(process.wait)
        self.addCleanup(process.terminate)
        for port in ports.values():
            wait_until(lambda port=port: connects(port), lambda: (server.work / "haproxy.log").read_text())
        return ports

    def test_clients_are_themselves_in_both_versions_and_log_in_and_its_health_checks_are_nobody(self) -> None:
        require_tool("haproxy")
        server = self.with_password(CONFIG)
        ports = self.haproxy(server)
        for name in ("mx1", "mx2"):
            with smtplib.SMTP("127.0.0.1", ports[name], timeout=20, source_address=CLIENT) as client:
                client.starttls(context=self.context())
                client.ehlo("client.example")
                self.assertEqual(client.mail("a@elsewhere.example")[0], 250)
                self.assertEqual(client.rcpt("b@elsewhere.example")[0], 550, "the proxy's right to relay is not its clients'")
                client.rset()
                client.sendmail("a@elsewhere.example", [ALICE], MESSAGE)
        with smtplib.SMTP_SSL("127.0.0.1", ports["tls"], context=self.context(), timeout=20, source_address=CLIENT) as client:
            client.login(ALICE, PASSWORD)
            client.sendmail(ALICE, ["x@elsewhere.example"], MESSAGE)
        received = [one.header("Received") or "" for one in server.wait_for_mail("alice", 2)]
        self.assertEqual([one.startswith("from client.example ([127.0.0.2])") for one in received], [True, True], received)
        [sent] = self.sent(server)
        self.assertIn(b"with ESMTPSA id", sent)
        wait_until(lambda: "peer=proxy:127.0.0.1 port=0 service=mx via=127.0.0.1" in server.log(), server.log)
        wait_until(lambda: f"login peer=127.0.0.2 account={ALICE}" in server.log(), server.log)
        self.assertNotIn("is DOWN", (server.work / "haproxy.log").read_text())


def connects(port: int) -> bool:
    """Somebody listens there."""
    try:
        socket.create_connection(("127.0.0.1", port), 5).close()
    except OSError:
        return False
    return True
