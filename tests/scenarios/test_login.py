"""Mail programs that log in to the whole server and send."""

from __future__ import annotations

import smtplib
import ssl
import subprocess
import sys
from pathlib import Path

from mailserver.authentication.app_passwords import hash_app_password, new_app_password
from mailserver.control.server import ask
from tests.requires import require_tool
from tests.scenarios.support import BASIC, ScenarioCase, Server, Wire, wait_until
from tests.tls.authority import Authority

AUTHORITY = Authority()
SUBMISSION = (
    BASIC.replace('service = "mx"', 'service = "submission"').replace('tls = "none"', 'tls = "starttls"')
    + """
[[listen]]
service = "submission"
endpoint = "tcp:{tlsport}:interface=127.0.0.1"
tls = "implicit"

[tls]
certificate = "{work}/server.pem"
key = "{work}/server.key"

[relay]
use = "capture"
path = "{work}/outbound"

[lockout]
delay = 0
"""
)
ALICE, PASSWORD = "alice@example.org", "correct horse battery staple"
MESSAGE = b"From: alice@example.org\r\nTo: bob@elsewhere.example\r\nSubject: out\r\n\r\nyes\r\n"


class LoginCase(ScenarioCase):
    def with_password(self, config: str = SUBMISSION) -> Server:
        server = self.prepare(config)
        self.certify(server)
        (server.work / "data").mkdir()
        self.set_password(server, ALICE)
        server.start()
        return server

    def set_password(self, server: Server, user: str) -> None:
        said = server.command("user", "password", user, "--password-stdin", input=PASSWORD + "\n")
        self.assertEqual(said.returncode, 0, said.stderr)

    def certify(self, server: Server) -> None:
        AUTHORITY.leaf("mx.example.org").write(str(server.work))
        (server.work / "ca.pem").write_bytes(AUTHORITY.pem)

    def context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cadata=AUTHORITY.pem.decode())
        context.check_hostname = False
        return context

    def client(self, server: Server) -> smtplib.SMTP:
        client = smtplib.SMTP("127.0.0.1", server.port, timeout=20)
        self.addCleanup(client.close)
        client.starttls(context=self.context())
        client.ehlo()
        return client

    def sent(self, server: Server, count: int = 1) -> list[bytes]:
        def files() -> list[Path]:
            return sorted((server.work / "outbound" / "new").glob("*"))

        wait_until(lambda: len(files()) >= count, server.log)
        return [path.read_bytes() for path in files()]


def server_command(server: Server, *arguments: str) -> list[str]:
    return [str(Path(sys.executable).parent / "mailserver"), *arguments, "--config", str(server.config_path)]


class OwnRelay(LoginCase):
    def test_another_server_of_ours_logs_in_as_to_a_smarthost(self) -> None:
        smarthost = self.with_password()
        (smarthost.work / "password").write_text(PASSWORD + "\n")
        for port, implicit in ((smarthost.port, "false"), (smarthost.ports["tlsport"], "true")):
            server = self.serve(
                BASIC + f"""
[relay]
use           = "smarthost"
networks      = ["127.0.0.0/8"]
host          = "127.0.0.1"
port          = {port}
tls           = "required"
implicit_tls  = {implicit}
username      = "{ALICE}"
password_file = "{smarthost.work}/password"
"""
            )
            before = len(list((smarthost.work / "outbound" / "new").glob("*")))
            self.assertEqual(server.send(MESSAGE, sender=ALICE, to="bob@elsewhere.example").code, 250)
            self.assertEqual(len(self.sent(smarthost, before + 1)), before + 1)
            wait_until(lambda: smarthost.log().count("method=SCRAM-SHA-256-PLUS") > before, smarthost.log)


class FirstListener(LoginCase):
    def test_a_reload_that_brings_the_first_listener_with_logins_lets_users_log_in(self) -> None:
        server = self.with_password(BASIC)
        server.configure(SUBMISSION)
        ask(str(server.work / "data" / "control.sock"), "reload")
        client = self.client(server)
        client.user, client.password = ALICE, PASSWORD
        self.assertEqual(client.auth("PLAIN", client.auth_plain)[0], 235)


class Mechanisms(LoginCase):
    def test_smtplib_logs_in_with_each_mechanism_that_it_has_and_sends(self) -> None:
        server = self.with_password(SUBMISSION.replace('path = "{work}/accounts.toml"', 'path = "{work}/accounts.toml"\nrecoverable = true'))
        offered = str(self.client(server).esmtp_features["auth"]).split()
        self.assertEqual(offered, ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "CRAM-MD5", "PLAIN", "LOGIN"])
        for mechanism in ("CRAM-MD5", "PLAIN", "LOGIN"):
            client = self.client(server)
            client.user, client.password = ALICE, PASSWORD
            client.auth(mechanism, getattr(client, f"auth_{mechanism.lower().replace('-', '_')}"))
            client.sendmail(ALICE, ["bob@elsewhere.example"], MESSAGE)
        for message in self.sent(server, 3):
            self.assertIn(b"with ESMTPSA id", message)
            self.assertNotIn(b"127.0.0.1", message)

    def test_swaks_and_curl_send_after_a_login(self) -> None:
        server = self.with_password()
        for mechanism in ("PLAIN", "LOGIN"):
            done = subprocess.run(
                [require_tool("swaks"), "--server", f"127.0.0.1:{server.port}", "--tls", "--auth", mechanism,
                 "--auth-user", ALICE, "--auth-password", PASSWORD, "--from", ALICE, "--to", "bob@elsewhere.example"],
                capture_output=True, text=True, check=False, timeout=30,
            )  # fmt: skip
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        message = server.work / "message"
        message.write_bytes(MESSAGE)
        done = subprocess.run(
            [require_tool("curl"), "--silent", "--show-error", "--cacert", str(server.work / "ca.pem"),
             "--resolve", f"mx.example.org:{server.ports['tlsport']}:127.0.0.1",
             "--url", f"smtps://mx.example.org:{server.ports['tlsport']}", "--user", f"{ALICE}:{PASSWORD}",
             "--mail-from", ALICE, "--mail-rcpt", "bob@elsewhere.example", "--upload-file", str(message)],
            capture_output=True, text=True, check=False, timeout=30,
        )  # fmt: skip
        self.assertEqual(done.returncode, 0, done.stderr)
        self.sent(server, 3)

    def test_msmtp_logs_in_with_scram(self) -> None:
        server = self.with_password()
        done = subprocess.run(
            [require_tool("msmtp"), "--host=127.0.0.1", f"--port={server.port}", "--tls=on", "--tls-certcheck=off",
             "--auth=scram-sha-256", f"--user={ALICE}", f"--passwordeval=echo {PASSWORD}", f"--from={ALICE}",
             "bob@elsewhere.example"],
            input=MESSAGE, capture_output=True, check=False, timeout=30,
        )  # fmt: skip
        self.assertEqual(done.returncode, 0, done.stderr)
        self.sent(server)
        wait_until(lambda: "method=SCRAM-SHA-256" in server.log(), server.log)

    def test_gsasl_logs_in_by_scram_bound_to_its_own_connection(self) -> None:
        # RFC 5802 section 6, RFC 9266: it exports the binding from its TLS, we from ours
        server = self.with_password()
        for mechanism, options in (("SCRAM-SHA-256-PLUS", ()), ("SCRAM-SHA-256", ("--no-cb",))):
            done = subprocess.run(
                [require_tool("gsasl"), "--client", "--smtp", "--verbose", f"--connect=127.0.0.1:{server.port}",
                 "--x509-ca-file=", "-m", mechanism, "-a", ALICE, "-p", PASSWORD, *options],
                stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=30,
            )  # fmt: skip
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            self.assertIn("server trusted", done.stderr)
            wait_until(lambda line=f"method={mechanism}\n": line in server.log(), server.log)

    def test_an_app_password_logs_in_and_its_use_is_shown(self) -> None:
        server = self.with_password()
        word = new_app_password()
        with (server.work / "accounts.toml").open("a") as file:
            file.write(f'[account."bob@example.org".app_password."phone"]\npassword = "{hash_app_password(word)}"\n')
        client = self.client(server)
        wait_until(lambda: "accounts read" in server.log() or self.tries(server, word), server.log)
        client.login("bob@example.org", word)
        self.assertIn('note="app password phone"', self.noted(server))
        wait_until(
            lambda: "never\n" not in server.command("user", "app-password", "list", "bob@example.org").stdout.partition("\n")[2]
            .replace("never  ", ""),
            server.log,
        )

    def tries(self, server: Server, word: str) -> bool:
        """A login makes the server look at the accounts file."""
        try:
            self.client(server).login("bob@example.org", word)
        except smtplib.SMTPAuthenticationError:
            return False
        return True

    def noted(self, server: Server) -> str:
        return str(wait_until(lambda: server.log() if "app password phone" in server.log() else "", server.log))


class Strangers(LoginCase):
    def test_a_stranger_can_neither_send_nor_log_in_in_the_clear(self) -> None:
        server = self.with_password()
        with Wire(server.port) as wire:
            self.assertNotIn("AUTH", wire.command("EHLO client.example").text)
            self.assertEqual(wire.dialogue("AUTH PLAIN AGEAYg==", "MAIL FROM:<alice@example.org>"), [538, 530])
        client = self.client(server)
        self.assertEqual(client.mail(ALICE)[0], 530)

    def test_a_hundred_wrong_passwords_end_in_a_lockout_that_the_administrator_sees_and_clears(self) -> None:
        server = self.with_password()
        codes: list[int] = []
        client = self.client(server)
        for n in range(100):
            try:
                client.login(ALICE, f"guess {n}", initial_response_ok=True)
            except smtplib.SMTPAuthenticationError as error:
                codes.append(error.smtp_code)
            except (smtplib.SMTPServerDisconnected, smtplib.SMTPResponseException):
                client = self.client(server)
        self.assertNotIn(235, codes)
        self.assertIn(454, codes, "locked out")
        self.assertLess(codes.count(535), 60)
        listed = server.command("lockouts", "list").stdout
        self.assertIn(ALICE, listed)
        with self.assertRaises(smtplib.SMTPAuthenticationError):
            self.client(server).login(ALICE, PASSWORD)
        self.assertEqual(server.command("lockouts", "clear", "--all").returncode, 0)
        self.client(server).login(ALICE, PASSWORD)
        self.assertRegex(server.log(), r"login_failed peer=127\.0\.0\.1 service=submission username=alice@example\.org")
        self.assertNotIn("guess", server.log())

    def test_a_lockout_outlives_a_restart(self) -> None:
        server = self.with_password(SUBMISSION.replace("delay = 0", "delay = 0\naccount_failures = 2"))
        for n in range(2):
            with self.assertRaises(smtplib.SMTPAuthenticationError):
                self.client(server).login(ALICE, f"guess {n}")
        wait_until(lambda: "lockout" in server.log(), server.log)
        server.stop()
        server.restart()
        with self.assertRaises(smtplib.SMTPAuthenticationError) as caught:
            self.client(server).login(ALICE, PASSWORD)
        self.assertEqual(caught.exception.smtp_code, 454)


class Certificates(LoginCase):
    def test_a_client_certificate_logs_in_with_external(self) -> None:
        config = SUBMISSION.replace('tls = "starttls"', 'tls = "starttls"\nclient_certificate = "request"').replace(
            'key = "{work}/server.key"', 'key = "{work}/server.key"\nclient_authorities = "{work}/ca.pem"'
        )
        server = self.with_password(config)
        leaf = AUTHORITY.leaf(emails=["alice@mail.example"], client=True)
        pair = leaf.write(str(server.work), "client")
        self.assertEqual(server.command("user", "certificate", "add", ALICE, "alice@mail.example").returncode, 0)
        context = self.context()
        context.load_cert_chain(pair.certificate, pair.key)

        def login() -> int:
            with smtplib.SMTP("127.0.0.1", server.port, timeout=20) as client:
                client.starttls(context=context)
                client.ehlo()
                return client.docmd("AUTH", "EXTERNAL =")[0]

        wait_until(lambda: login() == 235, server.log)
        with smtplib.SMTP("127.0.0.1", server.port, timeout=20) as client:
            client.starttls(context=self.context())
            client.ehlo()
            self.assertNotIn("EXTERNAL", str(client.esmtp_features["auth"]))
