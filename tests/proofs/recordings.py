"""What `mailserver record` writes of log-ins and of connections of other kinds, looked at from outside.

    python -m twisted.trial tests.proofs.recordings

Each recording is a file that tshark and `mailserver decode` read alike, and neither a password nor a token nor what either could
be guessed from is in it.
"""

from __future__ import annotations

import base64
import json
import re
import signal
import smtplib
import socket
import subprocess
from typing import Any, cast

from tests.requires import require_tool
from tests.scenarios import test_oauth
from tests.scenarios.support import BASIC, Server, wait_until
from tests.scenarios.test_login import ALICE, MESSAGE, PASSWORD, LoginCase, server_command

PROXIED = BASIC + '\n[[listen]]\nservice = "mx"\nendpoint = "haproxy:tcp:{proxiedport}:interface=127.0.0.1"\ntls = "none"\nproxies = ["127.0.0.1"]\n'
LMTP = BASIC.replace('service = "mx"', 'service = "lmtp"')
RELAY = """
[relay]
use             = "smarthost"
networks        = ["127.0.0.0/8"]
host            = "127.0.0.1"
port            = {smarthost.port}
tls             = "required"
username        = "{ALICE}"
mechanisms      = ["{mechanism}"]
password_file   = "{smarthost.work}/password"
connection_idle = 1
"""
WORD = re.compile(rb"[A-Za-z0-9+/]{4,}={0,2}")
# What a word of base64 holds that says a secret, or that a password can be tried against: proofs and signatures of SCRAM (RFC 5802).
TOLD = re.compile(rb"(?:^|,)[pv]=|^n,|^\0|auth=Bearer|" + test_oauth.MARK.encode())


class Recorded:
    """A recording that goes on."""

    def __init__(self, case: LoginCase, server: Server, peer: str = "127.0.0.1", port: int = 0) -> None:
        self.case, self.server, self.port = case, server, port or server.port
        self.path = server.work / f"recorded-{peer}.pcapng"
        command = server_command(server, "record", "--peer", peer, "--to", str(self.path), "--for", "1h")
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        case.addCleanup(self.process.__exit__, None, None, None)
        case.addCleanup(self.process.kill)
        assert self.process.stderr is not None
        case.assertIn(f"recording {peer}", self.process.stderr.readline())

    def ended(self, *words: bytes) -> list[dict[str, Any]]:
        """Its sessions, once these words are in it; both readers see the same, and no secret."""
        wait_until(lambda: all(word in self.path.read_bytes() for word in words), lambda: self.server.log() + repr(self.path.read_bytes()))
        self.process.send_signal(signal.SIGINT)
        self.process.communicate(timeout=60)
        self.case.assertEqual(self.process.returncode, 0)
        octets = self.path.read_bytes()
        said = [octets, *[base64.b64decode(word + b"=" * (-len(word) % 4)) for word in WORD.findall(octets) if len(word.rstrip(b"=")) % 4 != 1]]
        self.case.assertEqual([word for word in said if PASSWORD.encode() in word], [])
        self.case.assertEqual([word for word in said[1:] if TOLD.search(word)], [])
        self.case.assertNotIn(test_oauth.MARK.encode(), octets)
        decoded = subprocess.run(server_command(self.server, "decode", str(self.path), "--json", "--secrets")[:-2], capture_output=True, text=True, check=True, timeout=30)
        self.case.assertEqual(decoded.stderr, "")
        sessions = [json.loads(line) for line in decoded.stdout.splitlines()]
        lines = [line["text"][:4].upper() for one in sessions for line in one["lines"] if line["from"] == "client"]
        self.case.assertEqual(self.verbs(), [line for line in lines if line in VERBS])
        return sessions

    def verbs(self) -> list[str]:
        options = ["-r", str(self.path), "-d", f"tcp.port=={self.port},smtp", "-Y", "smtp.req.command", "-T", "fields", "-e", "smtp.req.command"]
        read = subprocess.run([require_tool("tshark"), *options], capture_output=True, text=True, check=True, timeout=60)
        said = [verb.upper()[:4] for line in read.stdout.splitlines() for verb in line.split(",")]
        return [verb for verb in said if verb in VERBS]


VERBS = ("EHLO", "LHLO", "STAR", "AUTH", "MAIL", "RCPT", "DATA", "QUIT")


def said_by(sessions: list[dict[str, Any]], who: str) -> list[str]:
    return [line["text"] for one in sessions for line in one["lines"] if line["from"] == who]


class Recordings(LoginCase):
    def relayed(self, mechanism: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """A message to a smarthost of ours that wants a log-in, as the relay and as the smarthost recorded it."""
        smarthost = self.with_password()
        (smarthost.work / "password").write_text(PASSWORD + "\n")
        server = self.serve(BASIC + RELAY.format(smarthost=smarthost, ALICE=ALICE, mechanism=mechanism))
        outgoing, incoming = Recorded(self, server, port=smarthost.port), Recorded(self, smarthost)
        with smtplib.SMTP("127.0.0.1", server.port, "client.example", timeout=20, source_address=("127.0.0.2", 0)) as client:
            client.sendmail(ALICE, ["bob@elsewhere.example"], MESSAGE)
        self.sent(smarthost)
        return outgoing.ended(b"QUIT", b"221 "), incoming.ended(b"QUIT", b"221 ")

    def test_a_log_in_to_a_smarthost_with_each_mechanism_from_both_ends(self) -> None:
        for mechanism, secrets in (("PLAIN", 1), ("LOGIN", 2), ("SCRAM-SHA-256", 2)):
            for sessions in self.relayed(mechanism):
                spoken = said_by(sessions, "client")
                self.assertEqual([line.split()[:2] for line in spoken if line.startswith("AUTH")], [["AUTH", mechanism]])
                stars = [line for line in spoken if line.endswith("****") and set(line.split()[-1]) == {"*"}]
                self.assertGreaterEqual(len(stars), secrets, spoken)
                self.assertIn("235", " ".join(said_by(sessions, "server")))
                self.assertIn("MAIL FROM:<alice@example.org>", " ".join(spoken))

    def test_a_token_for_a_smarthost(self) -> None:
        scene = cast(test_oauth.OAuth, self)
        server = test_oauth.OAuth.begun(scene)
        port = scene.smarthost_port if hasattr(scene, "smarthost_port") else int(re.findall(r"^port += (\d+)", server.config_path.read_text(), re.M)[-1])
        recorded = Recorded(self, server, port=port)
        said = test_oauth.OAuth.run_command(scene, server, "smarthost", "login")
        self.assertEqual(said.returncode, 0, said)
        with smtplib.SMTP("127.0.0.1", server.port, "client.example", timeout=20, source_address=("127.0.0.2", 0)) as client:
            client.sendmail(ALICE, ["bob@elsewhere.example"], MESSAGE)
        wait_until(lambda: scene.smarthost.messages, server.log)
        spoken = said_by(recorded.ended(b"235 ", b"250 2.0.0 Kept", b"221 "), "client")
        (login,) = [line for line in spoken if line.startswith("AUTH")]
        self.assertEqual((login.split()[1], set(login.split()[2])), ("XOAUTH2", {"*"}))
        server.stop()

    def test_a_token_that_a_client_sends_though_nobody_asked_for_it(self) -> None:
        server = self.with_password()
        recorded = Recorded(self, server)
        client = self.client(server)
        token = base64.b64encode(f"user={ALICE}\x01auth=Bearer {test_oauth.MARK}\x01\x01".encode()).decode()
        self.assertEqual(client.docmd("AUTH", f"XOAUTH2 {token}")[0] // 100, 5)
        client.docmd("AUTH", "XOAUTH2")
        client.docmd(token)
        client.quit()
        recorded.ended(b"221 ")

    def test_a_connection_through_a_proxy_is_that_of_the_peer_it_names(self) -> None:
        server = self.serve(PROXIED)
        port = server.ports["proxiedport"]
        recorded = Recorded(self, server, "192.0.2.7", port)
        for peer in ("192.0.2.8", "192.0.2.7"):
            with socket.create_connection(("127.0.0.1", port), timeout=20) as one:
                one.sendall(f"PROXY TCP4 {peer} 192.0.2.25 40000 25\r\n".encode())
                file = one.makefile("rb")
                for command in (b"", b"EHLO of-%s.example\r\n" % peer.encode(), b"MAIL FROM:<a@b.example>\r\n", b"QUIT\r\n"):
                    one.sendall(command)
                    while file.readline()[3:4] == b"-":
                        pass
        (session,) = recorded.ended(b"QUIT", b"221 ")
        self.assertEqual((session["client"], session["client_port"]), ("192.0.2.7", 40000))
        self.assertNotIn(b"192.0.2.8", recorded.path.read_bytes())
        self.assertNotIn(b"PROXY", recorded.path.read_bytes())

    def test_lmtp_has_a_reply_for_each_recipient(self) -> None:
        server = self.serve(LMTP)
        recorded = Recorded(self, server)
        with smtplib.LMTP("127.0.0.1", server.port) as client:
            client.sendmail("ann@example.net", ["alice@example.org", "bob@example.org"], MESSAGE)
            client.getreply()  # smtplib reads one only
        (session,) = recorded.ended(b"221 ")
        self.assertEqual((session["protocol"], len(session["messages"][0]["replies"])), ("lmtp", 2))
