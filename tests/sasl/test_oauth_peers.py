"""OAUTHBEARER and XOAUTH2 against Dovecot, which asks a small web server of the test about each token."""

from __future__ import annotations

import imaplib
import json
import os
import shutil
import subprocess
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from mailserver.sasl.oauth import TOKEN_MECHANISMS, TokenCredentials, TokenExchange
from tests.ports import free_port
from tests.requires import require_root, require_tool
from tests.scenarios.support import wait_until

USER = "alice@example.org"
TOKEN = "x" * 1500 + ".good-_~+/=="
CONFIGURATION = """
base_dir = {base}/run
state_dir = {base}/run
log_path = {base}/log
protocols = imap
listen = 127.0.0.1
ssl = no
disable_plaintext_auth = no
auth_failure_delay = 0
auth_mechanisms = oauthbearer xoauth2
service imap-login {{
  inet_listener imap {{
    port = {port}
  }}
}}
passdb {{
  driver = oauth2
  mechanisms = oauthbearer xoauth2
  args = {base}/oauth2.conf
}}
userdb {{
  driver = static
  args = uid=nobody gid=nogroup home={base}/mail
}}
mail_location = maildir:{base}/mail
first_valid_uid = 1
first_valid_gid = 1
"""


class Dovecot(SynchronousTestCase):
    def setUp(self) -> None:
        require_root("Dovecot")
        program = require_tool("dovecot")
        if not os.path.exists("/usr/lib/dovecot/imap"):
            if os.environ.get("CI") == "true":
                self.fail("dovecot-imapd is not installed; .ci/run has to install it")
            raise SkipTest("dovecot-imapd is not installed")
        base, self.port, asked_port = Path(tempfile.mkdtemp(prefix="dove")), free_port(), free_port()
        self.addCleanup(shutil.rmtree, base, ignore_errors=True)
        base.chmod(0o755)
        (base / "mail").mkdir(mode=0o777)
        (base / "mail").chmod(0o777)
        self.ask_at(asked_port)
        asked = f"tokeninfo_url = http://127.0.0.1:{asked_port}/?access_token=\nusername_attribute = email\n"
        (base / "oauth2.conf").write_text(asked)
        (base / "dovecot.conf").write_text(CONFIGURATION.format(base=base, port=self.port))
        quiet = subprocess.DEVNULL
        process = subprocess.Popen([program, "-F", "-c", str(base / "dovecot.conf")], stdin=quiet, stdout=quiet, stderr=quiet)
        self.addCleanup(process.wait, 20)
        self.addCleanup(process.terminate)
        self.log = base / "log"
        wait_until(self.greets, lambda: self.log.read_text() if self.log.exists() else "no log", 20)

    def ask_at(self, port: int) -> None:
        class Requests(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                is_good = parse_qs(urlsplit(self.path).query).get("access_token") == [TOKEN]
                octets = json.dumps({"email": USER} if is_good else {"error": "invalid_token"}).encode()
                self.send_response(200 if is_good else 401)
                self.send_header("Content-Length", str(len(octets)))
                self.end_headers()
                self.wfile.write(octets)

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        web = ThreadingHTTPServer(("127.0.0.1", port), Requests)
        thread = threading.Thread(target=web.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        self.addCleanup(thread.join, 10)
        self.addCleanup(web.server_close)
        self.addCleanup(web.shutdown)

    def greets(self) -> bool:
        try:
            imaplib.IMAP4("127.0.0.1", self.port, timeout=10).shutdown()
        except (OSError, imaplib.IMAP4.error):
            return False
        return True

    def says(self, mechanism: str, token: str) -> tuple[bool, TokenExchange]:
        """Whether Dovecot lets us in."""
        exchange = TokenCredentials(USER, token, "127.0.0.1", self.port).exchange([mechanism])
        assert exchange is not None
        client = imaplib.IMAP4("127.0.0.1", self.port, timeout=30)
        begun: list[bool] = []

        def answer(challenge: bytes) -> bytes:
            if begun:
                return exchange.respond(challenge)
            begun.append(True)
            return exchange.first()

        try:
            client.authenticate(mechanism, answer)
        except imaplib.IMAP4.error:
            return False, exchange
        finally:
            client.shutdown()
        return exchange.is_complete, exchange

    def test_a_token_lets_us_in_with_each_mechanism_and_a_wrong_one_is_told_in_words(self) -> None:
        for mechanism in TOKEN_MECHANISMS:
            self.assertTrue(self.says(mechanism, TOKEN)[0], self.log.read_text())
            is_in, exchange = self.says(mechanism, "bad")
            self.assertFalse(is_in)
            self.assertIn("status ", exchange.heard)
