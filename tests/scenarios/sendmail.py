"""Sendmail as a client: its own configuration and queue, and one server of ours to which it hands everything.

`.ci/run` unpacks it into ``.peers``, since its package cannot be installed beside Postfix.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

from twisted.trial.unittest import FailTest, SkipTest

__all__ = ["Sendmail"]

PEERS = Path(__file__).resolve().parents[2] / ".peers"
SECONDS = 60.0

# Debian's m4 sources; all mail, local names too, goes to one port on loopback.
CONFIGURATION = """divert(-1)
define(`_CF_DIR_', `{cf}/')
include(`{cf}/m4/cf.m4')
divert(0)dnl
OSTYPE(`linux')
define(`ALIAS_FILE', `')
define(`HELP_FILE', `')
define(`QUEUE_DIR', `{top}/queue')
define(`STATUS_FILE', `{top}/statistics')
define(`confPID_FILE', `{top}/pid')
define(`confDONT_BLAME_SENDMAIL', `MapInUnsafeDirPath')
define(`confBIND_OPTS', `-DNSRCH -DEFNAMES')
define(`confDOMAIN_NAME', `client.example')
define(`RELAY_MAILER_ARGS', `TCP $h {port}')
define(`SMART_HOST', `relay:[127.0.0.1]')
define(`LOCAL_RELAY', `relay:[127.0.0.1]')
define(`MAIL_HUB', `relay:[127.0.0.1]')
FEATURE(`nocanonify')
FEATURE(`authinfo', `text -z| -k0 -v1 {top}/authinfo')
MAILER(`smtp')
"""


def _unpacked(path: str) -> str:
    """A program below ``.peers``.  Without it: fail in CI, skip elsewhere."""
    found = next(PEERS.glob(path), None)
    if found is not None:
        return str(found)
    if os.environ.get("CI") == "true":
        raise FailTest(f"{path} is not in .peers; .ci/run has to unpack it")
    raise SkipTest("Sendmail is not in .peers: .ci/run unpacks it")


def _with_a_full_name() -> list[str]:
    """The beginning of a command whose process calls the machine client.example.

    Where the machine's name has no domain, Sendmail sleeps for a minute before it reads its configuration.
    """
    if "." in socket.gethostname():
        return []
    own = [] if os.geteuid() == 0 else ["--map-current-user", "--keep-caps"]
    named = ["unshare", *own, "--uts", "sh", "-c", 'hostname client.example && exec "$@"', "sh"]
    if subprocess.run([*named, "true"], check=False, capture_output=True, timeout=SECONDS).returncode == 0:
        return named
    raise SkipTest("the name of this machine has no domain, and a process may not have a name of its own")


class Sendmail:
    """Sends to `port` of this machine.  With a login it authenticates itself, by the mechanism that is named."""

    def __init__(self, port: int, login: tuple[str, str, str] | None = None) -> None:
        self.program = _unpacked("usr/lib*/sendmail/sendmail")
        self.named = _with_a_full_name()
        self.top = Path(tempfile.mkdtemp(prefix="sendmail")).resolve()
        (self.top / "queue").mkdir(mode=0o700)
        (self.top / "authinfo").write_text(
            'AuthInfo:|"U:{0}" "I:{0}" "P:{1}" "M:{2}"\n'.format(*login) if login else ""
        )
        (self.top / "authinfo").chmod(0o600)
        made = subprocess.run(
            [_unpacked("usr/bin/m4")], capture_output=True, text=True, check=True, timeout=SECONDS,
            input=CONFIGURATION.format(cf=PEERS / "usr/share/sendmail/cf", top=self.top, port=port),
        ).stdout  # fmt: skip
        (self.top / "sendmail.cf").write_text(made)
        self.said = ""

    def close(self) -> None:
        shutil.rmtree(self.top)

    def _run(self, *options: str, message: bytes = b"") -> int:
        done = subprocess.run(
            [*self.named, self.program, "-C", str(self.top / "sendmail.cf"), "-v", *options],
            input=message, capture_output=True, check=False, timeout=SECONDS,
        )  # fmt: skip
        self.said = (done.stdout + done.stderr).decode(errors="replace")
        return done.returncode

    def send(self, message: bytes, *recipients: str, sender: str = "sender@example.net", options: tuple[str, ...] = ()) -> int:
        """Hand a message with LF lines to it, which it delivers at once; its exit status.  Its talk stands in `said`."""
        return self._run("-odi", "-oi", "-f", sender, *options, *recipients, message=message)

    def run_queue(self) -> int:
        return self._run("-q")

    def queued(self) -> int:
        return len(list((self.top / "queue").glob("qf*")))
