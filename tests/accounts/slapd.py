"""An LDAP server of the test's own: OpenLDAP's slapd on a loopback port and a Unix socket."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

from tests.ports import free_port
from tests.requires import require_tool
from tests.scenarios.support import wait_until

__all__ = ["BASE", "Slapd"]

BASE = "dc=example,dc=org"
CONFIGURATION = """
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
TLSCertificateFile {folder}/server.pem
TLSCertificateKeyFile {folder}/server.key
allow bind_anon_cred
database mdb
suffix "{base}"
rootdn "cn=admin,{base}"
rootpw admin-secret
directory {folder}/db
access to attrs=userPassword by anonymous auth
access to * by dn.exact="cn=mail,{base}" read by * {others}
"""


class Slapd:
    """`folder` has ``server.pem`` and ``server.key`` already.  `allow bind_anon_cred` takes a name without a password for anonymous.

    Its Unix socket is in a short folder of its own: a path of more than 107 octets is none, however deep the checkout lies.
    """

    def __init__(self, folder: Path, entries: str, *, anybody_reads: bool = False) -> None:
        self._program = require_tool("slapd")
        self.port, self.tls_port = free_port(), free_port()
        self.socket = Path()
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        (folder / "db").mkdir()
        (folder / "slapd.conf").write_text(CONFIGURATION.format(folder=folder, base=BASE, others="read" if anybody_reads else "auth"))
        loaded = subprocess.run(
            [require_tool("slapadd"), "-f", str(folder / "slapd.conf")], input=entries, capture_output=True, text=True, check=False
        )
        if loaded.returncode:
            raise RuntimeError(loaded.stderr)

    def start(self) -> None:
        self.socket = Path(tempfile.mkdtemp(prefix="slapd-")) / "s"
        path = str(self.socket).replace("/", "%2F")
        places = f"ldap://127.0.0.1:{self.port} ldaps://127.0.0.1:{self.tls_port} ldapi://{path}"
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._program, "-d", "none", "-f", str(self._folder / "slapd.conf"), "-h", places], stdout=log, stderr=log
            )
        wait_until(self._is_there, lambda: (self._folder / "log").read_text())

    def _is_there(self) -> bool:
        if self._process is None or self._process.poll() is not None:
            raise RuntimeError(f"slapd ended: {(self._folder / 'log').read_text()}")
        try:
            socket.create_connection(("127.0.0.1", self.tls_port), 5).close()
        except OSError:
            return False
        return True

    def halt(self) -> None:
        """From now on none of its threads does anything, until `go_on`: the signal alone takes a moment to reach them all."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED)

    def go_on(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """It is gone at once."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()
            shutil.rmtree(self.socket.parent, ignore_errors=True)
