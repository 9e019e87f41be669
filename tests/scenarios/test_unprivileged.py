"""A server that is started as root, as for port 25, and serves as somebody else; root's hand on it."""

from __future__ import annotations

import functools
import os
import pwd
import re
import smtplib
import subprocess
import sys
import sysconfig
from pathlib import Path

from twisted.trial.unittest import SkipTest

from tests.requires import require_root
from tests.scenarios.support import ROOT, RUN, Server, family, wait_until
from tests.scenarios.test_login import ALICE, AUTHORITY, MESSAGE, PASSWORD, SUBMISSION, LoginCase

USER = pwd.getpwnam("nobody")


@functools.cache
def python_for_everybody() -> tuple[str, tuple[str, ...]]:
    """An interpreter that `USER` may run too, and where it finds Twisted and us.  The one of the tests may be in root's home."""
    path = [str(ROOT), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    for python in (sys.executable, "/usr/bin/python3"):
        try:
            tried = subprocess.run(
                [python, "-c", "import sys, mailserver.service; print(*sys.version_info[:2])"],
                user=USER.pw_uid, group=USER.pw_gid, extra_groups=[], cwd="/", env={"PYTHONPATH": os.pathsep.join(path)},
                capture_output=True, text=True, check=False, timeout=60,
            )  # fmt: skip
        except OSError:
            continue
        if tried.stdout.split() == [str(number) for number in sys.version_info[:2]]:
            return python, tuple(path)
    raise SkipTest("nobody but root may run this Python, or read this checkout")


class Unprivileged(LoginCase):
    def setUp(self) -> None:
        require_root("a server that gives root up")

    def installed(self) -> Server:
        """As after docs/operating.md: the configuration is root's, the data are the server's, the first account is root's doing."""
        config = SUBMISSION.replace("{work}/accounts.toml", "{work}/data/accounts.toml").replace("{work}/mail", "{work}/data/mail")
        server = self.prepare(config.replace("{work}/outbound", "{work}/data/outbound"))
        for folder in (server.work.parent, server.work):
            folder.chmod(0o711)
        (server.work / "accounts.toml").unlink()
        AUTHORITY.leaf("mx.example.org").write(str(server.work))  # root's alone: read before root is given up
        data = server.work / "data"
        data.mkdir(mode=0o700)
        os.chown(data, USER.pw_uid, USER.pw_gid)
        server.mail = data / "mail"
        self.root_says(server, "user", "add", ALICE, "--password-stdin", input=PASSWORD + "\n")
        server.twistd = [sys.executable, "-c", RUN, "-n", "--uid", str(USER.pw_uid), "--gid", str(USER.pw_gid)]
        return server

    def started(self) -> Server:
        server = self.installed()
        python, path = python_for_everybody()
        server.twistd[0] = python
        server.python_path += path
        server.start()
        return server

    def root_says(self, server: Server, *words: str, input: str | None = None) -> str:
        said = server.command(*words, input=input)
        self.assertEqual(said.returncode, 0, said.stderr)
        return said.stdout

    def sends(self, server: Server, to: str = ALICE) -> None:
        with self.client(server) as client:
            client.login(ALICE, PASSWORD)
            client.sendmail(ALICE, [to], MESSAGE)

    def of_others(self, server: Server) -> list[str]:
        """What lies in the data folder and is not the server's."""
        return [str(path) for path in (server.work / "data").rglob("*") if path.lstat().st_uid != USER.pw_uid]

    def test_it_serves_without_roots_rights_and_so_do_its_children(self) -> None:
        server = self.started()
        self.sends(server)
        [mail] = server.wait_for_mail("alice")
        assert server.process is not None
        seen = roots = 0
        for process in family(server.process.pid):
            try:
                status = Path(f"/proc/{process}/status").read_text()
                program = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
            except OSError:
                continue  # the sweep at the start may just have ended
            if b"mailserver.processes.root" in program:  # the one that stays, with one socket: to the server
                roots += 1
                links = [os.readlink(one) for one in Path(f"/proc/{process}/fd").iterdir()]  # it opens and closes none now
                self.assertEqual(len([link for link in links if link.startswith("socket:")]), 1)
                continue
            seen += 1
            self.assertEqual(re.findall(r"^(?:Uid|Gid):\s+(\d+)\s+(\d+)\s+(\d+)\s+(\d+)$", status, re.M),
                             [(str(USER.pw_uid),) * 4, (str(USER.pw_gid),) * 4])  # fmt: skip
            self.assertRegex(status, r"(?m)^CapEff:\s+0+$")
        self.assertGreaterEqual(seen, 2)  # one writes Maildirs
        self.assertEqual(roots, 1)
        self.assertEqual(mail.path.stat().st_uid, USER.pw_uid)
        self.assertEqual(self.of_others(server), [])
        self.assertNotIn("keeps root's rights", server.log())

    def test_what_root_does_with_the_commands_the_server_can_use(self) -> None:
        """While it runs and while it does not: no file of root's stays where the server has to write."""
        server = self.started()
        self.root_says(server, "user", "add", "bob@example.org", "--no-password")
        self.root_says(server, "user", "app-password", "add", ALICE, "phone")
        wait_until(lambda: self.is_taken(server, "bob@example.org"), server.log)
        self.sends(server, "bob@example.org")
        server.wait_for_mail("bob")
        self.assertEqual(self.of_others(server), [])
        self.assertEqual(server.stop(), 0)
        for words in ("queue list", "queue retry --all", "lockouts list", "lockouts clear --all", f"user app-password list {ALICE}",
                      "explain 1K17B500JKDZ3GAN"):  # fmt: skip
            said = server.command(*words.split())
            self.assertIn(said.returncode, (0, 1), said.stderr)  # 1: there is nothing of the kind
        self.assertEqual(self.of_others(server), [])
        self.root_says(server, "sendmail", "-f", ALICE, "bob@example.org", input="Subject: from root\n\nyes\n")
        server.restart()
        server.wait_for_mail("bob", 2)
        self.sends(server)
        server.wait_for_mail("alice")
        self.assertEqual(self.of_others(server), [])

    def is_taken(self, server: Server, address: str) -> bool:
        with smtplib.SMTP("127.0.0.1", server.port, timeout=20) as client:
            client.starttls(context=self.context())
            client.login(ALICE, PASSWORD)
            client.mail(ALICE)
            return client.rcpt(address)[0] == 250

    def test_a_python_that_its_user_may_not_run_stops_the_start(self) -> None:
        """Else it would take mail and could not deliver it."""
        server = self.installed()
        secret = server.work / "secret"
        secret.mkdir(mode=0o700)
        (secret / "python").symlink_to(sys.executable)
        server.twistd[2] = f"import sys; sys.executable = {str(secret / 'python')!r}; {RUN}"
        error = self.assertRaises(self.failureException, server.start)
        self.assertIn(f"may not run {secret}/python: install into a Python that everybody may read", str(error))

    def test_a_server_that_stays_root_says_so(self) -> None:
        server = self.installed()
        server.twistd = server.twistd[:-4]
        server.start()
        wait_until(lambda: "the server keeps root's rights" in server.log(), server.log)
