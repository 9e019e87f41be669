"""A Postfix with a configuration of its own: SMTP on a loopback port, a few mailboxes, recipients that it refuses, STARTTLS.

It sends nothing anywhere: what is not for its own domain fails inside it, unless a test's settings name a `default_transport`.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

from twisted.trial.unittest import FailTest

from tests.ports import free_port
from tests.requires import require_root, require_tool
from tests.scenarios.support import Stored, wait_until

__all__ = ["DOMAIN", "SIZE_LIMIT", "Postfix"]

DOMAIN = "far.example"
SIZE_LIMIT = 20_000
MAILBOXES = ("alice", "bob", "carol", "sender", "jürgen")
STOP_SECONDS = 20.0


MAIN = """
compatibility_level = 3.6
mail_owner = postfix
setgid_group = postdrop
queue_directory = {top}/queue
data_directory = {top}/data
maillog_file = {top}/log
maillog_file_prefixes = {top}

myhostname = mx.{domain}
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
mydestination =
local_recipient_maps =
alias_maps =
alias_database =
default_transport = error:5.3.2 this server sends nothing
smtpd_peername_lookup = no

virtual_mailbox_domains = {domain}
virtual_mailbox_base = {top}/mail
virtual_mailbox_maps = texthash:{top}/etc/mailboxes
virtual_mailbox_limit = 0
virtual_minimum_uid = 1
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{gid}

message_size_limit = {size}
smtpd_recipient_restrictions = check_recipient_access texthash:{top}/etc/recipients, reject_unauth_destination
smtpd_tls_security_level = may
smtpd_tls_cert_file = {top}/etc/certificate.pem
smtpd_tls_key_file = {top}/etc/key.pem
smtpd_tls_loglevel = 1
"""
MASTER = """
127.0.0.1:{port} inet n - n - - smtpd
cleanup    unix       n - n -     0 cleanup
qmgr       unix       n - n 300   1 qmgr
tlsmgr     unix       - - n 1000? 1 tlsmgr
rewrite    unix       - - n -     - trivial-rewrite
bounce     unix       - - n -     0 bounce
defer      unix       - - n -     0 bounce
trace      unix       - - n -     0 bounce
flush      unix       n - n 1000? 0 flush
proxymap   unix       - - n -     - proxymap
virtual    unix       - n n -     - virtual
smtp       unix       - - n -     - smtp
error      unix       - - n -     - error
retry      unix       - - n -     - error
anvil      unix       - - n -     1 anvil
postlog    unix-dgram n - n -     1 postlogd
"""
QUEUE = (  # folders, mode, owner, group
    ("active bounce corrupt defer deferred flush hold incoming private saved trace", 0o700, "postfix", "root"),
    ("pid", 0o755, "root", "root"),
    ("public", 0o710, "postfix", "postdrop"),
    ("maildrop", 0o730, "postfix", "postdrop"),
)
PROBE_ENDED = re.compile(r" disconnect from \S+ (?:quit=1 commands=1|commands=0/0)$", re.MULTILINE)
RECIPIENTS = f"""
refused@{DOMAIN} 550 5.7.1 Nothing for this one
later@{DOMAIN}   450 4.7.1 Come back another day
"""


class Postfix:
    """Runs from `start` to `stop`; listens on `port`.  `settings` are further lines of main.cf."""

    def __init__(self, settings: str = "") -> None:
        self._program = require_tool("/usr/lib/postfix/sbin/master")
        self._openssl = require_tool("openssl")
        require_root("Postfix")
        self.port = free_port()
        self._top = Path(tempfile.mkdtemp(prefix="post"))
        self._process: subprocess.Popen[bytes] | None = None
        self._write(settings)

    def _write(self, settings: str) -> None:
        top, nobody = self._top, pwd.getpwnam("nobody")
        for name in ("etc", "queue", "data", "mail"):
            (top / name).mkdir()
        top.chmod(0o755)  # its processes run as two other users
        shutil.chown(top / "data", "postfix")
        os.chown(top / "mail", nobody.pw_uid, nobody.pw_gid)
        values = {"top": top, "domain": DOMAIN, "size": SIZE_LIMIT, "uid": nobody.pw_uid, "gid": nobody.pw_gid}
        self._make_queue()
        etc = top / "etc"
        (etc / "main.cf").write_text(MAIN.format(**values) + settings)
        (etc / "master.cf").write_text(MASTER.format(port=self.port))
        (etc / "mailboxes").write_text("".join(f"{name}@{DOMAIN} {name}/\n" for name in MAILBOXES))
        (etc / "recipients").write_text(RECIPIENTS)
        for path in etc.iterdir():
            os.utime(path, (0, 0))  # else Postfix waits until nobody has written to them for two seconds
        subject = ["-subj", f"/CN=mx.{DOMAIN}", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
        files = ["-keyout", str(etc / "key.pem"), "-out", str(etc / "certificate.pem")]
        kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        self._run([self._openssl, "req", "-x509", *kind, *subject, *files])

    def _make_queue(self) -> None:
        """The folders that `postfix start` would make, after looking at much else."""
        for folders, mode, owner, group in QUEUE:
            for name in folders.split():
                folder = self._top / "queue" / name
                folder.mkdir()
                folder.chmod(mode)
                shutil.chown(folder, owner, group)

    def start(self) -> None:
        """Return when it greets."""
        self._process = subprocess.Popen(
            [self._program, "-c", str(self._top / "etc"), "-s"],
            start_new_session=True,  # it ends its whole process group
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_until(self._greets, lambda: f"Postfix did not start:\n{self.log()}", 30.0)

    def _greets(self) -> bool:
        with socket.socket() as probe:
            probe.settimeout(2)
            try:
                probe.connect(("127.0.0.1", self.port))
                if not probe.recv(512).startswith(b"220"):
                    return False
                probe.sendall(b"QUIT\r\n")
                return bool(probe.recv(512))
            except OSError:
                return False

    def stop(self) -> None:
        """End it with all its processes."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # who is still there
            process.wait()

    def remove(self) -> None:
        """Stop and remove its files."""
        try:
            self.stop()
        finally:
            shutil.rmtree(self._top, ignore_errors=True)

    def log(self) -> str:
        path = self._top / "log"
        return path.read_text() if path.exists() else ""

    def messages(self, user: str) -> list[Stored]:
        """The files of a user's Maildir."""
        new = self._top / "mail" / user / "new"
        return [Stored(path, path.read_bytes()) for path in sorted(new.iterdir())] if new.exists() else []

    def wait_for_mail(self, user: str, count: int = 1) -> list[Stored]:
        """Wait until there are `count` messages and Postfix's queue is empty; fail where there are more."""
        wait_until(
            lambda: len(self.messages(user)) >= count and self.has_delivered_all(),
            lambda: f"{user} has {len(self.messages(user))} of {count} messages:\n{self.log()}",
        )
        messages = self.messages(user)
        if len(messages) != count:
            raise FailTest(f"{user} has {len(messages)} messages, not {count}")
        return messages

    def has_delivered_all(self) -> bool:
        """Nothing is in the queue."""
        queue = self._top / "queue"
        files = (path for name in ("incoming", "active", "deferred") for path in queue.glob(f"{name}/**/*"))
        return not any(path.is_file() for path in files)

    @property
    def connections(self) -> int:
        """How many there were, without the probes that waited for the greeting."""
        log = self.log()
        return log.count(" connect from ") - len(PROBE_ENDED.findall(log))

    def _run(self, command: list[str]) -> None:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
        if done.returncode:
            raise FailTest(f"{' '.join(command)}: {done.stderr.decode(errors='replace')}\n{self.log()}")
