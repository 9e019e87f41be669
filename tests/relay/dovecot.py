"""A Dovecot with a configuration of its own: LMTP on a loopback port and on a Unix socket, three users, one of them full."""

from __future__ import annotations

import getpass
import grp
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from twisted.trial.unittest import FailTest

from tests.ports import free_port
from tests.requires import require_tool

__all__ = ["Dovecot"]

AS_ROOT = os.geteuid() == 0
START_SECONDS = 20.0

CONFIGURATION = """
base_dir = {base}/run
state_dir = {base}/state
log_path = {base}/log
protocols = lmtp
ssl = no
listen = 127.0.0.1
default_internal_user = {internal_user}
default_login_user = {login_user}
default_internal_group = {internal_group}
first_valid_uid = 1
mail_location = maildir:{base}/mail/%n
postmaster_address = postmaster@example.org
hostname = store.example.org
recipient_delimiter = +
lmtp_save_to_detail_mailbox = yes
lda_mailbox_autocreate = yes
mail_plugins = quota
plugin {{
  quota = count:User
  quota_vsizes = yes
}}
namespace inbox {{
  inbox = yes
  separator = .
}}
passdb {{
  driver = static
  args = nopassword=y
}}
userdb {{
  driver = passwd-file
  args = username_format=%n {base}/users
  default_fields = uid={uid} gid={gid} home={base}/mail/%n
}}
service lmtp {{
  unix_listener {base}/lmtp {{
    mode = 0666
  }}
  inet_listener lmtp {{
    address = 127.0.0.1
    port = {port}
  }}
}}
service anvil {{
  chroot =
}}
service stats {{
  chroot =
}}
"""
USERS = """alice:::::::
bob:::::::
full:::::::userdb_quota_rule=*:bytes=2000
"""


class Dovecot:
    """Runs from `start` to `stop`.  `socket` and `port` are where it listens."""

    def __init__(self) -> None:
        require_tool("/usr/lib/dovecot/lmtp")  # a package of its own
        self._program = require_tool("dovecot")
        self.base = Path(tempfile.mkdtemp(prefix="dove"))
        self.socket = str(self.base / "lmtp")
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._write()

    def _write(self) -> None:
        own, group = getpass.getuser(), grp.getgrgid(os.getgid()).gr_name
        mail_user = pwd.getpwnam("nobody") if AS_ROOT else pwd.getpwuid(os.geteuid())
        for name in ("mail", "run", "state"):
            (self.base / name).mkdir()
        self.base.chmod(0o755)
        if AS_ROOT:
            os.chown(self.base / "mail", mail_user.pw_uid, mail_user.pw_gid)
        (self.base / "users").write_text(USERS)
        (self.base / "dovecot.conf").write_text(
            CONFIGURATION.format(
                base=self.base,
                port=self.port,
                uid=mail_user.pw_uid,
                gid=mail_user.pw_gid,
                internal_user="dovecot" if AS_ROOT else own,
                login_user="dovenull" if AS_ROOT else own,
                internal_group="dovecot" if AS_ROOT else group,
            )
        )

    def start(self) -> None:
        """Return when it listens."""
        self._process = subprocess.Popen(
            [self._program, "-F", "-c", str(self.base / "dovecot.conf")],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        end = time.monotonic() + START_SECONDS
        while not self._listens():
            if self._process.poll() is not None or time.monotonic() > end:
                raise FailTest(f"dovecot did not start: {self.log()}")
            time.sleep(0.02)

    def _listens(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(1)
            try:
                probe.connect(self.socket)
                return probe.recv(3) == b"220"
            except OSError:
                return False

    def stop(self) -> None:
        """End it, with its connections."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(20)
            self._process = None

    def remove(self) -> None:
        """Stop and remove its files."""
        self.stop()
        shutil.rmtree(self.base, ignore_errors=True)

    def log(self) -> str:
        path = self.base / "log"
        return path.read_text() if path.exists() else ""

    def messages(self, user: str, folder: str = "") -> list[bytes]:
        """The files of a user's inbox or folder."""
        new = self.base / "mail" / user / folder / "new"
        return [path.read_bytes() for path in sorted(new.iterdir())] if new.exists() else []
