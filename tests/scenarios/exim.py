"""Exim as server and as client, with a configuration, a spool and mailboxes of its own.

`.ci/run` unpacks it into ``.peers``, since its package cannot be installed beside Postfix.  It takes root, and a user of its own
(Debian-exim), whose name is built into it.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from twisted.trial.unittest import FailTest, SkipTest

from tests.ports import free_port
from tests.requires import require_root

__all__ = ["Exim"]

PEERS = Path(__file__).resolve().parents[2] / ".peers"
SECONDS = 60.0
USER = "Debian-exim"

# Each recipient's local part says what comes of the content; all else goes to one port on loopback.
CONFIGURATION = """
exim_path = {program}
spool_directory = {top}/spool
log_file_path = {top}/log/%slog
primary_hostname = exim.example
domainlist local = far.example
daemon_smtp_ports = {port}
local_interfaces = 127.0.0.1
keep_environment =
tls_advertise_hosts =
chunking_advertise_hosts = {chunking}
prdr_enable = true
acl_smtp_rcpt = accept
acl_smtp_data = accept
acl_smtp_data_prdr = prdr
begin acl
prdr:
  deny local_parts = no
  defer local_parts = later
  accept
begin routers
keep:
  driver = accept
  domains = far.example
  transport = keep
out:
  driver = manualroute
  transport = out
  route_list = * 127.0.0.1
  self = send
begin transports
out:
  driver = smtp
  port = {to}
  hosts_try_prdr = *
  hosts_try_chunking = {chunking}
keep:
  driver = appendfile
  directory = {top}/mail
  maildir_format
  create_directory
  user = {user}
"""


def _is_there() -> None:
    """Exim and its user.  Without them: fail in CI, skip elsewhere."""
    require_root("Exim")
    missing = [] if (PEERS / "usr/sbin/exim4").exists() else ["exim4 is not in .peers"]
    try:
        pwd.getpwnam(USER)
    except KeyError:
        missing.append(f"there is no user {USER}")
    if missing:
        kind = FailTest if os.environ.get("CI") == "true" else SkipTest
        raise kind(f"{' and '.join(missing)}; .ci/run sees to it")


class Exim:
    """Sends to the port `to` of this machine, and once `start`ed listens on `port`."""

    def __init__(self, to: int = 0, *, chunking: bool = False) -> None:
        _is_there()
        self.port = free_port()
        self.top = Path(tempfile.mkdtemp(prefix="exim"))
        self.top.chmod(0o755)
        for folder in ("spool", "log", "mail"):
            (self.top / folder).mkdir()
            shutil.chown(self.top / folder, USER)
        words = {"program": PEERS / "usr/sbin/exim4", "top": self.top, "port": self.port, "to": to or 9, "user": USER}
        (self.top / "exim.conf").write_text(CONFIGURATION.format(**words, chunking="*" if chunking else ""))
        self._command = [str(words["program"]), "-C", str(self.top / "exim.conf")]
        self._server: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._server = subprocess.Popen([*self._command, "-bdf"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def close(self) -> None:
        if self._server is not None:
            self._server.terminate()
            self._server.wait(SECONDS)
        shutil.rmtree(self.top)

    def send(self, message: bytes, *recipients: str, sender: str = "sender@far.example") -> None:
        """Hand a message with LF lines to it, which it delivers at once."""
        subprocess.run(
            [*self._command, "-odf", "-oi", "-f", sender, *recipients],
            input=message, capture_output=True, check=True, timeout=SECONDS,
        )  # fmt: skip

    def log(self) -> str:
        path = self.top / "log" / "mainlog"
        return path.read_text() if path.exists() else ""

    def kept(self) -> list[str]:
        """Those of its own users who have had mail."""
        return sorted(re.findall(r" => \S+ <(\S+)> R=keep", self.log()))
