"""A real name server for tests: unbound, in a private folder, with zones that are given inline."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from shutil import rmtree

from tests.ports import free_port
from tests.requires import require_tool

__all__ = ["Unbound"]

SECONDS_TO_START = 10.0
CONFIGURATION = """\
server:
    directory: "{directory}"
    chroot: ""
    username: ""
    pidfile: ""
    logfile: "{directory}/log"
    use-syslog: no
    verbosity: 1
    interface: {host}
    port: {port}
    do-ip6: no
    access-control: 127.0.0.0/8 allow
    do-not-query-localhost: no
    module-config: "{modules}"
    edns-buffer-size: 1232
    max-udp-size: 1232
    msg-cache-size: 1m
    rrset-cache-size: 1m
{lines}
remote-control:
    control-enable: no
"""
# What is needed to ask one name server of the tests for everything, and to validate what it says
FORWARDING = """\
    qname-minimisation: no
    trust-anchor-signaling: no
    root-key-sentinel: no
    ede: yes
    local-zone: "test." nodefault
    {anchor}
forward-zone:
    name: "."
    forward-addr: {address}
"""


class Unbound:
    """unbound on a loopback address, from `start` to `stop`.

    `zones` maps a zone to its records in zone-file form, names written out:
    ``{"example.org": ["example.org. 300 IN MX 10 mx.example.org.", "mx.example.org. 300 IN A 127.0.0.2"]}``.
    What is in no zone does not exist (NXDOMAIN).  Questions for the zones in `refused` are answered with REFUSED.
    `more` are further lines of the section "server".

    With `forward` ("127.0.0.1@5300") that name server is asked for all that is in no zone.  What it says is validated where a
    `trust_anchor` is given (the root's, as a DNSKEY record), and passed on as it is where there is none.
    """

    def __init__(
        self,
        zones: Mapping[str, Sequence[str]],
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        refused: Sequence[str] = (),
        more: Sequence[str] = (),
        forward: str = "",
        trust_anchor: str = "",
    ) -> None:
        self.host = host
        self.port = port
        self._zones = zones
        self._refused = refused
        self._more = more
        self._forward = forward
        self._trust_anchor = trust_anchor
        self._directory = ""
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """As `servers` in the configuration has it."""
        return f"{self.host}:{self.port}"

    def start(self) -> Unbound:
        """Start it and wait until it answers.  Raises SkipTest where it is not installed, RuntimeError where it dies."""
        program = require_tool("unbound")
        self.port = self.port or free_port(self.host)
        self._directory = tempfile.mkdtemp(prefix="unbound-")
        path = os.path.join(self._directory, "unbound.conf")
        with open(path, "w") as file:
            modules = "validator iterator" if self._trust_anchor else "iterator"
            lines = "\n".join(self._lines())
            file.write(
                CONFIGURATION.format(
                    directory=self._directory, host=self.host, port=self.port, lines=lines, modules=modules
                )
            )
        self._process = subprocess.Popen([program, "-d", "-c", path], stderr=subprocess.PIPE)
        self._wait_until_it_answers(self._process)
        return self

    def stop(self) -> None:
        """End it and remove its folder."""
        if self._process is not None:
            self._process.terminate()
            self._process.communicate()
            self._process = None
        rmtree(self._directory, ignore_errors=True)

    def _lines(self) -> list[str]:
        lines = [] if self._forward else ['    local-zone: "." static']
        for zone, records in self._zones.items():
            lines.append(f'    local-zone: "{zone}." static')
            lines += [f"    local-data: '{record}'" for record in records]
        lines += [f'    local-zone: "{zone}." always_refuse' for zone in self._refused]
        lines += [f"    {line}" for line in self._more]
        if self._forward:
            anchor = f'trust-anchor: "{self._trust_anchor}"' if self._trust_anchor else ""
            lines.append(FORWARDING.format(anchor=anchor, address=self._forward))
        return lines

    def _wait_until_it_answers(self, process: subprocess.Popen[bytes]) -> None:
        query = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x01"  # the NS records of the root
        end = time.monotonic() + SECONDS_TO_START
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.settimeout(0.05)
            probe.connect((self.host, self.port))
            while time.monotonic() < end:
                if process.poll() is not None:
                    break
                try:
                    probe.send(query)
                    probe.recv(512)
                except OSError:  # nobody listens yet, or nothing came in time
                    time.sleep(0.01)
                else:
                    return
        process.kill()
        complaint = process.communicate()[1].decode(errors="replace")
        self._process = None
        with contextlib.suppress(OSError), open(os.path.join(self._directory, "log")) as log:
            complaint += log.read()
        self.stop()
        raise RuntimeError(f"unbound does not answer: {complaint}")
