"""A real Dovecot over our Maildirs, which asks us about passwords: the recipe of docs/accounts.md."""

from __future__ import annotations

import grp
import imaplib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

from twisted.trial.unittest import SkipTest

from mailserver.authentication.app_passwords import hash_app_password, new_app_password
from tests.ports import free_port
from tests.requires import require_root, require_tool
from tests.scenarios.support import BASIC, RUN, ScenarioCase, Server, wait_until
from tests.scenarios.test_login import ALICE, PASSWORD
from tests.scenarios.test_unprivileged import USER, python_for_everybody

CONFIG = (
    BASIC.replace("{work}/accounts.toml", "{data}/accounts.toml").replace("{work}/mail", "{data}/mail")
    + """
[authentication]
socket = "{data}/auth.sock"
socket_group = "dovecot"
[lockout]
account_failures = 3
delay = 0
"""
)
DOVECOT = """
base_dir = {base}/run
state_dir = {base}/run
log_path = {base}/log
protocols = imap
listen = 127.0.0.1
ssl = no
disable_plaintext_auth = no
auth_failure_delay = 0
service imap-login {{
  inet_listener imap {{
    port = {port}
  }}
}}
service anvil {{
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
passdb {{
  driver = checkpassword
  args = {command} checkpassword --service %s --socket {socket}
}}
userdb {{
  driver = prefetch
}}
auth_mechanisms = plain login
auth_cache_size = 0
mail_location = maildir:/nowhere/%u
first_valid_uid = 100
"""
SENT = b"From: sender@example.net\r\nSubject: for imap\r\n\r\nyes\r\n"


class From(imaplib.IMAP4):
    """A client at an address of its own."""

    def __init__(self, address: str, port: int) -> None:
        self._address = address
        super().__init__("127.0.0.1", port, timeout=60)

    def _create_socket(self, timeout: float | None) -> socket.socket:
        return socket.create_connection((self.host, self.port), timeout, source_address=(self._address, 0))


class Dovecot(ScenarioCase):
    def setUp(self) -> None:
        require_root("a server that gives root up, and Dovecot")
        self.dovecot = require_tool("dovecot")
        if not os.path.exists("/usr/lib/dovecot/imap"):
            if os.environ.get("CI") == "true":
                self.fail("dovecot-imapd is not installed; .ci/run has to install it")
            raise SkipTest("dovecot-imapd is not installed")
        self.word = {scope: new_app_password() for scope in ("imap", "smtp")}

    def served(self) -> Server:
        """As nobody, with the group that Dovecot asks in."""
        server = self.prepare(CONFIG)
        for folder in (server.work.parent, server.work):
            folder.chmod(0o711)
        data, group = server.work / "data", grp.getgrnam("dovecot").gr_gid
        data.mkdir(mode=0o711)
        os.chown(data, USER.pw_uid, group)
        server.mail = data / "mail"
        said = server.command("user", "add", ALICE, "--password-stdin", input=PASSWORD)
        self.assertEqual(said.returncode, 0, said.stderr)
        with (data / "accounts.toml").open("a") as file:
            for scope, word in self.word.items():
                file.write(f'[account."{ALICE}".app_password."{scope}"]\npassword = "{hash_app_password(word)}"\nscopes = ["{scope}"]\n')
        python, path = python_for_everybody()
        server.twistd = [python, "-c", RUN, "-n", "--uid", str(USER.pw_uid), "--gid", str(group)]
        server.python_path += path
        self.command = server.work / "mailserver"
        self.command.write_text(
            f"#!/bin/sh\nPYTHONPATH={os.pathsep.join(path)} exec {python} -m mailserver.cli \"$@\"\n"
        )
        self.command.chmod(0o755)
        server.start()
        return server

    def imap(self, server: Server) -> int:
        """Dovecot's port."""
        base = Path(tempfile.mkdtemp(prefix="dovecot"))
        self.addCleanup(shutil.rmtree, base, ignore_errors=True)
        base.chmod(0o755)
        port = free_port()
        (base / "dovecot.conf").write_text(
            DOVECOT.format(base=base, port=port, command=self.command, socket=server.work / "data" / "auth.sock")
        )
        self.log = base / "log"
        process = subprocess.Popen([self.dovecot, "-F", "-c", str(base / "dovecot.conf")], stdin=subprocess.DEVNULL)

        def end() -> None:
            process.send_signal(signal.SIGTERM)
            process.wait(30)

        self.addCleanup(end)
        wait_until(lambda: self.is_open(port), self.said)
        return port

    def is_open(self, port: int) -> bool:
        try:
            socket.create_connection(("127.0.0.1", port), 5).close()
        except OSError:
            return False
        return True

    def said(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def login(self, port: int, password: str, client: str = "127.0.0.2", user: str = ALICE) -> str:
        """ "" where it was right; else what the client hears."""
        connection = From(client, port)
        self.addCleanup(connection.shutdown)
        try:
            connection.login(user, password)
        except imaplib.IMAP4.error as error:
            return str(error.args[0], "ascii")
        self.session = connection
        return ""

    def test_right_and_wrong_locked_and_free_app_passwords_and_a_server_that_is_down(self) -> None:
        server = self.served()
        self.assertEqual(server.send(SENT).code, 250)
        server.wait_for_mail("alice")
        port = self.imap(server)

        self.assertEqual(self.login(port, PASSWORD), "", self.said())
        self.assertEqual(self.session.select("INBOX"), ("OK", [b"1"]))
        self.assertIn(b"Subject: for imap", self.session.fetch("1", "(BODY[HEADER])")[1][0][1])  # type: ignore[index]
        [mail] = server.messages("alice")
        self.assertEqual(mail.path.stat().st_uid, USER.pw_uid)

        self.assertEqual(self.login(port, self.word["imap"]), "")
        self.assertIn("AUTHENTICATIONFAILED", self.login(port, self.word["smtp"], "127.0.0.3"))
        self.assertIn("AUTHENTICATIONFAILED", self.login(port, PASSWORD, user="carol@example.org"))

        for n in range(3):
            self.assertIn("AUTHENTICATIONFAILED", self.login(port, f"wrong{n}", "127.0.0.4"))
        self.assertIn("AUTHENTICATIONFAILED", self.login(port, PASSWORD, "127.0.0.4"), "locked")
        self.assertEqual(self.login(port, PASSWORD, "127.0.0.5"), "")
        wait_until(lambda: "login_failed peer=127.0.0.4 service=imap" in server.log(), server.log)

        self.assertEqual(server.stop(), 0)
        self.assertIn("UNAVAILABLE", self.login(port, PASSWORD, "127.0.0.5"))
        server.restart()
        self.assertEqual(self.login(port, PASSWORD, "127.0.0.5"), "")
        for secret in (PASSWORD, "wrong1", *self.word.values()):
            self.assertNotIn(secret, server.log() + self.said())
