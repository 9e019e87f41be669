"""``[log] addresses``: whatever happens to a user's mail, his name is in no log and no road."""

from __future__ import annotations

import contextlib
import smtplib

from mailserver.accounts.kept_password import keep_password
from tests.authentication.pam_service import PamService
from tests.scenarios.support import Server, wait_until
from tests.scenarios.test_login import SUBMISSION, LoginCase

MARK = "xqzzy"  # stands in every name below, and nowhere else
USER = f"{MARK}.user@example.org"
BROKEN = f"{MARK}-broken@example.org"
PASSWORD = "correct horse battery staple"
LISTEN_MX = """
[[listen]]
service = "mx"
endpoint = "tcp:{mxport}:interface=127.0.0.1"
tls = "none"
"""
ALIASES = f'\n[domain."example.org".aliases]\n{MARK}-sales = ["{USER}", "{MARK}-gone@example.org"]\n'


class Names(LoginCase):
    def setUp(self) -> None:
        super().setUp()
        self.clients: list[smtplib.SMTP] = []
        self.addCleanup(self.hang_up)

    def client(self, server: Server) -> smtplib.SMTP:
        self.clients.append(super().client(server))
        return self.clients[-1]

    def hang_up(self) -> None:
        """The server's end waits a while for clients that do not hear its goodbye."""
        while self.clients:
            self.clients.pop().close()

    def lived(self, config: str, *users: str) -> Server:
        """A server that was prepared with an account for each user."""
        server = self.prepare(config, accounts=users)
        self.certify(server)
        accounts = server.work / "accounts.toml"
        if accounts.exists():
            words = keep_password(PASSWORD, USER)
            accounts.write_text(
                "".join(f'[account."{user}"]\npassword = "{words.hash}"\nscram = "{words.scram}"\n' for user in users)
            )
        return server

    def kept(self, server: Server) -> dict[str, bytes]:
        """All that the server has written down of what happened, by file name."""
        files = [path for path in server.work.rglob("*") if path.is_file() and path.name.split(".")[0] in ("log", "explain", "server")]
        return {path.name: path.read_bytes() for path in files if path.suffix not in (".pem", ".key")}

    def assertUnnamed(self, server: Server, mark: str) -> None:
        found = self.kept(server)
        self.assertTrue([name for name in found if name.startswith("explain")], "the roads were looked at")
        self.assertIn(b"delivered", b"".join(found.values()))
        for name, octets in found.items():
            at = octets.lower().find(mark.encode())
            self.assertEqual(at, -1, f"{name}: {octets[max(0, at - 300) : at + 100]!r}")

    def test_no_name_is_written_down_whatever_happens(self) -> None:
        for setting in ("domain", "hash", "none"):
            log = f'\n[log]\naddresses = "{setting}"\nlevel = "debug"\n'
            server = self.lived(SUBMISSION + LISTEN_MX + ALIASES + log, USER, BROKEN)
            (server.work / "mail").mkdir(exist_ok=True)
            (server.work / "mail" / BROKEN.partition("@")[0]).write_text("no folder")
            server.start()
            for password in (PASSWORD, f"{MARK}-wrong"):
                client = self.client(server)
                with contextlib.suppress(smtplib.SMTPAuthenticationError):
                    client.login(USER, password)
                    client.sendmail(USER, [USER, f"{MARK}-remote@elsewhere.example"], f"From: {USER}\r\n\r\nx\r\n".encode())
            client = self.client(server)
            with contextlib.suppress(smtplib.SMTPAuthenticationError):
                client.login(f"{MARK}-nobody", "x")
            stranger = smtplib.SMTP("127.0.0.1", server.ports["mxport"], timeout=20)
            self.clients.append(stranger)
            for recipient in (
                USER, BROKEN, f"{MARK}-unknown@example.org", f"{MARK}.user+tag@example.org", f"{MARK}-sales@example.org",
                f'"{MARK}{"s" * 130}"@example.org', f"{MARK}%40elsewhere.example@example.org", f"{MARK}@elsewhere.example",
            ):  # fmt: skip
                with contextlib.suppress(smtplib.SMTPException):
                    stranger.sendmail(f"{MARK}-sender@example.net", [recipient], b"Subject: x\r\n\r\nx\r\n")
                stranger.rset()
            wait_until(lambda server=server: "deferred" in server.log() and server.log().count(" delivered ") >= 4, server.log)
            self.hang_up()
            server.stop()
            self.assertUnnamed(server, MARK)

    def test_the_host_s_passwords_name_nobody_either(self) -> None:
        system = 'use = "system"\ndomains = ["example.org"]\nuid_min = 1\nuid_max = 70000\npam = "%s"\n'
        config = SUBMISSION.replace('use = "file"\npath = "{work}/accounts.toml"\n', "%s")
        server = self.lived(config % 'use = "file"\npath = "{work}/accounts.toml"\n')
        service = PamService(server.work, {"nobody": "secret"})
        self.addCleanup(service.remove)
        server.configure(config % (system % service.name) + '\n[log]\naddresses = "none"\nlevel = "debug"\n')
        server.start()
        for password in ("secret", "Secret"):
            client = self.client(server)
            with contextlib.suppress(smtplib.SMTPAuthenticationError):
                client.login("nobody@example.org", password)
                client.sendmail("nobody@example.org", ["nobody@example.org"], b"From: nobody@example.org\r\n\r\nx\r\n")
        wait_until(lambda: " delivered " in server.log() or " deferred " in server.log(), server.log)
        self.hang_up()
        server.stop()
        text = b"".join(self.kept(server).values()).replace(b"which nobody vouches for", b"")
        for line in text.splitlines():
            self.assertNotIn(b"nobody", line)


