"""A whole server behind a smarthost that wants tokens: log-in on the command line, mail, a token that is revoked, and no token
anywhere but in the folder of keys.  The smarthost is aiosmtpd, the issuer is a small web server of the test."""

from __future__ import annotations

import base64
import json
import logging
import ssl
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult

from tests.ports import free_port
from tests.scenarios.support import BASIC, ScenarioCase, Server, wait_until
from tests.tls.authority import Authority

logging.getLogger("mail.log").addHandler(logging.NullHandler())
MARK = "tokxqzzy"  # stands in each token and secret
RELAY = """
[relay]
use               = "smarthost"
networks          = ["127.0.0.0/8"]
host              = "127.0.0.1"
port              = HOST_PORT
tls               = "required"
username          = "relay@us.example"
oauth             = "http://127.0.0.1:ISSUER_PORT"
oauth_client      = "our-id"
oauth_secret_file = "{work}/secret"
oauth_scopes      = ["mail.send", "offline_access"]
probe             = "1ms"
messages_per_connection = 1
[queue]
retry = ["1s"]
"""


class Issuer:
    """Gives a token at the second question about the device, and a new one for each refresh token, as long as it is willing."""

    def __init__(self, port: int) -> None:
        issuer, self.asked, self.is_willing, self.lifetime = self, [], True, 3600
        self.good: set[str] = set()

        class Requests(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                base = f"http://127.0.0.1:{port}"
                names = {"token_endpoint": "/token", "device_authorization_endpoint": "/device"}
                self.say(200, {"issuer": base, **{name: base + path for name, path in names.items()}})

            def do_POST(self) -> None:
                form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
                if self.path == "/device":
                    place = {"verification_uri": "https://issuer.example/go", "user_code": "ABCD-EFGH"}
                    return self.say(200, {"device_code": f"{MARK}-device", "interval": 0, "expires_in": 60, **place})
                issuer.asked.append(form["grant_type"][0])
                if not issuer.is_willing:
                    return self.say(400, {"error": "invalid_grant", "error_description": f"{form['refresh_token'][0]} was revoked"})
                if len(issuer.asked) == 1:
                    return self.say(400, {"error": "authorization_pending"})
                token = f"{MARK}-access-{len(issuer.asked)}"
                issuer.good.add(token)
                refresh = {"refresh_token": f"{MARK}-refresh-{len(issuer.asked)}"}
                return self.say(200, {"access_token": token, "token_type": "Bearer", "expires_in": issuer.lifetime, **refresh})

            def say(self, status: int, said: dict[str, Any]) -> None:
                octets = json.dumps(said).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(octets)))
                self.end_headers()
                self.wfile.write(octets)

            def log_message(self, format: str, *arguments: Any) -> None:
                pass

        self.web = ThreadingHTTPServer(("127.0.0.1", port), Requests)
        self.thread = threading.Thread(target=self.web.serve_forever, args=(0.05,), daemon=True)
        self.thread.start()

    def stop(self) -> None:
        self.web.shutdown()
        self.web.server_close()
        self.thread.join(10)


class Smarthost:
    """aiosmtpd with XOAUTH2."""

    def __init__(self, issuer: Issuer) -> None:
        self.issuer, self.messages = issuer, []

    async def auth_XOAUTH2(self, server: Any, arguments: list[Any]) -> AuthResult:
        said = base64.b64decode(arguments[1]) if len(arguments) > 1 else await server.challenge_auth(b"", encode_to_b64=False)
        if said.partition(b"Bearer ")[2].strip(b"\x01").decode() in self.issuer.good:
            return AuthResult(success=True, auth_data=said)
        await server.challenge_auth(json.dumps({"status": "401", "schemes": "bearer"}).encode())
        return AuthResult(success=False, handled=False)

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        self.messages.append(envelope.rcpt_tos)
        return "250 2.0.0 Kept"


class OAuth(ScenarioCase):
    def begun(self) -> Server:
        host_port, issuer_port = free_port(), free_port()
        server = self.prepare(BASIC + RELAY.replace("HOST_PORT", str(host_port)).replace("ISSUER_PORT", str(issuer_port)))
        (server.work / "secret").write_text(f"{MARK}-secret\n")
        (server.work / "secret").chmod(0o600)
        self.issuer = Issuer(issuer_port)
        self.addCleanup(self.issuer.stop)
        pair = Authority().leaf("smtp.example").write(str(server.work), "smarthost")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair.certificate, pair.key)
        self.smarthost = Smarthost(self.issuer)
        controller = Controller(
            self.smarthost, hostname="127.0.0.1", port=host_port, tls_context=context, require_starttls=True,
            auth_required=True, auth_require_tls=True, ready_timeout=20,
        )  # fmt: skip
        controller.start()
        self.addCleanup(controller.loop.close)
        self.addCleanup(controller.stop)
        server.start()
        return server

    def run_command(self, server: Server, *words: str) -> subprocess.CompletedProcess[str]:
        return server.command(*words, timeout=60)

    def test_a_log_in_lets_the_mail_go_and_no_token_leaves_the_folder_of_keys(self) -> None:
        server = self.begun()
        first = server.send(b"Subject: 1\r\n\r\nx\r\n", to="bob@elsewhere.example")
        self.assertEqual(first.code, 250)
        wait_until(lambda: "There is no token to log in with" in server.log(), server.log)
        self.assertIn("there is no token yet, and mail for other hosts waits: mailserver smarthost login", self.run_command(server, "check").stdout)
        said = self.run_command(server, "smarthost", "login")
        self.assertEqual((said.returncode, said.stderr), (0, ""), said)
        self.assertIn("Open  https://issuer.example/go  on any device, enter the code  ABCD-EFGH", said.stdout)
        wait_until(lambda: self.smarthost.messages, server.log)
        self.assertNotIn("relay.oauth", self.run_command(server, "check").stdout)
        self.assertGreater(server.status()["relay"]["token_seconds_left"], 3000)

        self.issuer.good.clear()  # revoked at the host, and then at the issuer
        self.issuer.is_willing = False
        second = server.send(b"Subject: 2\r\n\r\nx\r\n", to="bob@elsewhere.example")
        wait_until(lambda: "(status 401)" in server.log(), server.log)
        backup = server.work / "backup"
        self.assertEqual(server.command("backup", str(backup), timeout=60).returncode, 0)
        outputs = [said.stdout, self.run_command(server, "smarthost", "status", "--json").stdout, server.log()]
        outputs += [server.command(*words, second.id).stdout for words in (("explain",), ("queue", "show"))]
        self.assertIn("(status 401)", outputs[-2])
        for text in outputs:
            self.assertNotIn(MARK, text)
        for path in server.work.rglob("*"):
            if path.is_file() and path.name != "secret":
                self.assertNotIn(MARK.encode(), path.read_bytes(), path)
        self.assertEqual([path for path in backup.rglob("*") if "token" in path.name], [])
        self.assertEqual(len(self.smarthost.messages), 1)
        server.stop()  # before the smarthost, which would leave its end open
