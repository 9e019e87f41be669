"""`mailserver record`: the dialogue with one peer, inside TLS, without passwords, and nobody else's."""

from __future__ import annotations

import base64
import json
import os
import signal
import smtplib
import stat
import subprocess
import tempfile
from pathlib import Path

from mailserver.control.server import ask
from tests.requires import require_tool
from tests.scenarios.support import BASIC, Server, wait_until
from tests.scenarios.test_login import ALICE, MESSAGE, PASSWORD, LoginCase, server_command

SECRET = base64.b64encode(f"\0{ALICE}\0{PASSWORD}".encode())


class Recording(LoginCase):
    def record(self, server: Server, *arguments: str) -> subprocess.Popen[str]:
        """The command, once it records."""
        command = server_command(server, "record", "--peer", "127.0.0.1", *arguments)
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.addCleanup(process.__exit__, None, None, None)
        self.addCleanup(process.kill)
        assert process.stderr is not None
        self.assertIn("recording 127.0.0.1", process.stderr.readline())
        return process

    def submit(self, server: Server, source: str = "127.0.0.1") -> None:
        client = smtplib.SMTP("127.0.0.1", server.port, "client.example", timeout=20, source_address=(source, 0))
        self.addCleanup(client.close)
        client.starttls(context=self.context())
        client.ehlo()
        client.user, client.password = ALICE, PASSWORD
        client.auth("PLAIN", client.auth_plain)
        client.sendmail(ALICE, [f"to-{source.replace('.', '-')}@elsewhere.example"], MESSAGE)
        client.quit()

    def ended(self, process: subprocess.Popen[str]) -> tuple[str, str]:
        out, err = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 0, err)
        return out, err

    def test_a_file_that_tshark_reads_has_the_dialogue_inside_tls_of_that_peer_alone_and_no_password(self) -> None:
        server = self.with_password()
        path = Path(tempfile.mkdtemp(prefix="recorded")) / "dialogue.pcapng"
        self.addCleanup(subprocess.run, ["rm", "-rf", path.parent], check=True)
        process = self.record(server, "--to", str(path), "--for", "1d")
        self.submit(server)
        self.submit(server, "127.0.0.2")
        wait_until(lambda: path.read_bytes().count(b"221 ") >= 1, server.log)
        process.send_signal(signal.SIGINT)
        self.ended(process)
        octets = path.read_bytes()
        self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600)
        for secret in (SECRET, base64.b64encode(PASSWORD.encode()), PASSWORD.encode(), b"to-127-0-0-2"):
            self.assertNotIn(secret, octets)
        said = subprocess.run(server_command(server, "decode", str(path), "--json", "--secrets")[:-2], capture_output=True, text=True, check=True, timeout=30)
        before, inside = [json.loads(line) for line in said.stdout.splitlines()]
        texts = [[line["text"] for line in one["lines"] if line["from"] == "client"] for one in (before, inside)]
        self.assertEqual([text.upper() for text in texts[0]], ["EHLO CLIENT.EXAMPLE", "STARTTLS"])
        self.assertEqual(texts[1][1], "AUTH PLAIN " + "*" * len(SECRET))
        self.assertEqual([text.split(":")[0].upper() for text in texts[1][2:]], ["MAIL FROM", "RCPT TO", "DATA", f"(CONTENT OF {len(MESSAGE)} OCTETS)", "QUIT"])
        self.assertTrue(inside["messages"][0]["is_whole"])
        self.assertEqual((before["client"], before["server_port"]), ("127.0.0.1", server.port))
        self.assertTsharkReadsIt(path, server.port)
        self.assertIn("is recorded for", server.log())
        wait_until(lambda: "has ended: it was stopped" in server.log(), server.log)

    def assertTsharkReadsIt(self, path: Path, port: int) -> None:
        tshark = require_tool("tshark")
        options = ["-r", str(path), "-d", f"tcp.port=={port},smtp", "-o", "ip.check_checksum:TRUE", "-o", "tcp.check_checksum:TRUE", "-T", "fields"]
        read = subprocess.run([tshark, *options, "-Y", "smtp", "-e", "smtp.req.command", "-e", "frame.comment"], capture_output=True, text=True, check=True, timeout=60)
        verbs = [line.split("\t")[0].upper()[:4] for line in read.stdout.splitlines() if line.split("\t")[0]]
        self.assertEqual(verbs, ["EHLO", "STAR", "EHLO", "AUTH", "MAIL", "RCPT", "DATA", "QUIT"])
        bad = subprocess.run([tshark, *options, "-Y", "tcp.checksum.status==0 || ip.checksum.status==0 || (tcp.analysis.flags && !tcp.analysis.reused_ports)", "-e", "frame.number"],
            capture_output=True, text=True, check=True, timeout=60)  # fmt: skip
        self.assertEqual(bad.stdout, "")
        comments = subprocess.run([tshark, *options, "-Y", "frame.comment", "-e", "frame.comment"], capture_output=True, text=True, check=True, timeout=60)
        self.assertIn("inside TLSv1.3", comments.stdout)

    def test_a_terminal_shows_it_as_it_happens_and_ends_after_its_time(self) -> None:
        server = self.with_password()
        process = self.record(server, "--for", "4s")
        self.submit(server)
        out, err = self.ended(process)
        self.assertIn("has ended: its time is over", err)
        self.assertIn("C  AUTH PLAIN ****", out)
        self.assertIn("to-127-0-0-1@elsewhere.example", out)
        self.assertIn("S  221 ", out)
        wait_until(lambda: "has ended: its time is over" in server.log(), server.log)

    def test_what_the_relay_says_inside_tls_is_recorded_without_the_password(self) -> None:
        smarthost = self.with_password()
        (smarthost.work / "password").write_text(PASSWORD + "\n")
        server = self.serve(
            BASIC + f"""
[relay]
use           = "smarthost"
networks      = ["127.0.0.0/8"]
host          = "127.0.0.1"
port          = {smarthost.port}
tls           = "required"
username      = "{ALICE}"
mechanisms    = ["PLAIN"]
password_file = "{smarthost.work}/password"
connection_idle = 1
"""
        )
        process = self.record(server, "--for", "1d")
        with smtplib.SMTP("127.0.0.1", server.port, "client.example", timeout=20, source_address=("127.0.0.2", 0)) as client:
            client.sendmail(ALICE, ["bob@elsewhere.example"], MESSAGE)
        self.sent(smarthost)
        process.send_signal(signal.SIGINT)
        out, _ = self.ended(process)
        self.assertIn("C  AUTH PLAIN", out)
        self.assertIn("C  MAIL FROM:<alice@example.org>", out)
        self.assertIn("235 ", out)
        self.assertNotIn(SECRET.decode(), out)
        self.assertNotIn("EHLO client.example", out)

    def test_what_cannot_be_recorded_is_refused_with_a_sentence(self) -> None:
        server = self.serve()
        for arguments, code, words in (
            (("--peer", "nobody"), 1, "nobody"), (("--peer", "0.0.0.0/0"), 1, "wider than a /24"), (("--peer", "192.0.2.1", "--for", "2d"), 1, "up to a day"),
            (("--peer", "192.0.2.1", "--for", "soon"), 2, "--for"), (("--peer", "192.0.2.1", "--to", str(server.work)), 74, str(server.work)),
        ):  # fmt: skip
            said = server.command("record", *arguments)
            self.assertEqual((said.returncode, words in said.stderr), (code, True), said.stderr)

    def test_what_is_refused_leaves_no_file(self) -> None:
        server = self.serve()
        path = server.work / "dialogue.pcapng"
        for arguments, words in ((("--peer", "nobody"), "nobody"), (("--peer", "192.0.2.1", "--most", "0"), "at least one octet")):
            said = server.command("record", *arguments, "--to", str(path))
            self.assertEqual((said.returncode, words in said.stderr, path.exists()), (1, True, False), said.stderr)

    def test_what_was_said_before_the_server_went_is_there(self) -> None:
        server = self.serve()
        path = server.work / "dialogue.pcapng"
        process, terminal, stopped = self.record(server, "--to", str(path)), self.record(server), self.record(server)
        with smtplib.SMTP("127.0.0.1", server.port, "client.example", timeout=20) as client:
            client.ehlo()
            wait_until(lambda: b"PIPELINING" in path.read_bytes(), server.log)
            stopped.terminate()
            self.assertIn("EHLO CLIENT.EXAMPLE", self.ended(stopped)[0].upper())
            server.kill()
            out, _ = terminal.communicate(timeout=60)
            process.communicate(timeout=60)
        self.assertEqual((process.returncode != 0, terminal.returncode != 0), (True, True))
        self.assertIn("client.example", out)
        self.assertIn("not seen after", out)

    def test_recordings_are_bounded_in_number_and_end_without_anybody_who_fetches(self) -> None:
        server = self.serve()
        socket = str(server.work / "data" / "control.sock")
        start = {"peer": "192.0.2.1", "seconds": 60, "octets": 1000, "by": "a test"}
        for _ in range(4):
            ask(socket, "record.start", start)
        said = server.command("record", "--peer", "192.0.2.1")
        self.assertEqual((said.returncode, "4 recordings are running" in said.stderr), (1, True), said.stderr)
        self.assertEqual(os.path.exists(str(server.work / "data" / "dialogue.pcapng")), False)
