"""A primary server whose zone may be changed by dynamic updates, with records of others."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from pathlib import Path
from shutil import rmtree

import dns.message
import dns.query
from twisted.trial.unittest import SynchronousTestCase

from mailserver.mail.dns_records import ServerAddress
from tests.ports import free_port
from tests.requires import require_tool

__all__ = ["KEY", "SECRET", "Primary"]

SECRET = "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"
KEY = f'# made by hand\nkey "mail" {{\n\talgorithm hmac-sha256;\n\tsecret "{SECRET}";\n}};\n'
CONFIGURATION = """\
server:
    rundir: "{folder}"
    listen: 127.0.0.1@{port}
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
database:
    storage: "{folder}"
key:
  - id: mail.
    algorithm: hmac-sha256
    secret: {secret}
acl:
  - id: ours
    action: update
    key: mail.
zone:
  - domain: example.org
    storage: "{folder}"
    file: zone
    acl: ours
    zonefile-sync: -1
    zonefile-load: whole
    journal-content: none
"""
BIND = """\
options {{
    directory "{folder}";
    listen-on port {port} {{ 127.0.0.1; }};
    listen-on-v6 {{ none; }};
    recursion no;
    dnssec-validation no;
    pid-file none;
    session-keyfile none;
}};
controls {{ }};
zone "example.org" {{ type primary; file "zone"; allow-update {{ key "mail"; }}; }};
"""
ZONE = """\
example.org. 300 IN SOA ns.example.org. root.example.org. 1 1 1 1 1
example.org. 300 IN NS ns.example.org.
ns.example.org. 300 IN A 127.0.0.1
example.org. 300 IN TXT "v=spf1 -all"
example.org. 300 IN TXT "somebody-verification=1"
example.org. 300 IN MX 10 old.example.net.
"""


class Primary:
    """knotd or named with the zone, and perhaps more records in it, for one test."""

    def __init__(self, test: SynchronousTestCase, program: str = "knotd", *, more: str = "") -> None:
        path, folder = require_tool(program), Path(tempfile.mkdtemp(prefix="primary-"))
        test.addCleanup(rmtree, folder)
        self.server = ServerAddress("127.0.0.1", free_port())
        (folder / "zone").write_text(ZONE + more)
        configuration = folder / "configuration"
        text = CONFIGURATION.format(folder=folder, port=self.server.port, secret=SECRET)
        if program == "named":
            text = KEY + BIND.format(folder=folder, port=self.server.port)
        configuration.write_text(text)
        words = [path, "-f", "-c"] if program == "named" else [path, "-c"]
        process = subprocess.Popen([*words, os.fspath(configuration)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        test.addCleanup(process.wait)
        test.addCleanup(process.kill)
        end = time.monotonic() + 10
        while time.monotonic() < end:
            try:
                if self.texts("example.org", "SOA"):
                    return
            except OSError:
                time.sleep(0.02)
        test.fail(f"{program} does not serve the zone")

    def texts(self, name: str, type: str) -> list[str]:
        said = dns.query.tcp(dns.message.make_query(name, type), self.server.host, timeout=2, port=self.server.port)
        return sorted(one.to_text() for found in said.answer for one in found)
