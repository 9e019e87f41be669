"""Pebble, a CA for tests that speaks ACME, on free ports; every name leads to this host."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path
from shutil import rmtree
from typing import Any

from tests.ports import free_port
from tests.requires import require_tool
from tests.tls.authority import Authority

__all__ = ["Pebble"]


class Pebble:
    """Every name leads to `address`.  `names_by` is the name server that it asks, in the place of one of its own.  `http_port` and `tls_port` are where it looks for challenges."""

    def __init__(self, names_by: str = "", *, address: str = "127.0.0.1", http_port: int = 0, **environment: str) -> None:
        pebble, names = require_tool("pebble"), require_tool("pebble-challtestsrv")
        self.folder = Path(tempfile.mkdtemp(prefix="pebble-"))
        self.port, self.tls_port, self._management = free_port(), free_port(), free_port()
        self.http_port = http_port or free_port()
        dns, self._names_management = free_port(), free_port()
        authority = Authority("The CA's own https")
        pair = authority.leaf("localhost").write(str(self.folder))
        self.ca_file = str(self.folder / "roots.pem")
        Path(self.ca_file).write_bytes(authority.pem)
        (self.folder / "pebble.json").write_text(json.dumps({"pebble": {
            "listenAddress": f"127.0.0.1:{self.port}", "managementListenAddress": f"127.0.0.1:{self._management}",
            "certificate": pair.certificate, "privateKey": pair.key,
            "httpPort": self.http_port, "tlsPort": self.tls_port,
            "ocspResponderURL": "", "externalAccountBindingRequired": False, "certificateValidityPeriod": 7776000,
        }}))  # fmt: skip
        self.log = open(self.folder / "log", "wb")
        own = dict(os.environ, PEBBLE_VA_NOSLEEP="1", PEBBLE_WFE_NONCEREJECT="20", PEBBLE_AUTHZREUSE="0") | environment
        self.processes = [
            subprocess.Popen(words, env=own, stdout=self.log, stderr=self.log)
            for words in (
                [names, "-http01", "", "-https01", "", "-tlsalpn01", "", "-defaultIPv4", address, "-defaultIPv6", "",
                 "-dns01", f"127.0.0.1:{dns}", "-management", f"127.0.0.1:{self._names_management}"],
                [pebble, "-config", str(self.folder / "pebble.json"), "-dnsserver", names_by or f"127.0.0.1:{dns}"],
            )
        ]
        self.directory = f"https://localhost:{self.port}/dir"
        self._context = __import__("ssl").create_default_context(cafile=self.ca_file)
        end = time.monotonic() + 10
        while True:
            try:
                self._get(self.directory)
                break
            except OSError:
                if time.monotonic() > end:
                    self.stop()
                    raise
                time.sleep(0.02)

    def _get(self, url: str) -> bytes:
        with urllib.request.urlopen(url, timeout=5, context=self._context) as answer:
            found: bytes = answer.read()
            return found

    def status_of(self, serial: str) -> str:
        """What has become of a certificate: "Valid", "Revoked"."""
        found: Any = json.loads(self._get(f"https://localhost:{self._management}/cert-status-by-serial/{serial}"))
        return str(found["Status"])

    def stop(self) -> None:
        """End it."""
        for process in self.processes:
            process.kill()
            process.wait()
        self.log.close()
        rmtree(self.folder, ignore_errors=True)
