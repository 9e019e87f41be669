"""What preflight looks with: name servers, other hosts, this host's ports, disk and clock.

Everything blocks, each for a bounded time.
"""

from __future__ import annotations

import contextlib
import ctypes
import glob
import os
import socket
import struct
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass

import dns.exception
import dns.flags
import dns.message
import dns.query
import dns.rcode

from mailserver.mail.dns_records import ServerAddress

__all__ = ["Eyes", "NameTold"]

ANSWER_SECONDS = 2.0
CONNECT_SECONDS = 5.0
FETCH_SECONDS = 6.0
LINE_OCTETS = 512
SYNCS = 15
NTP_EPOCH = 2_208_988_800  # 1970 in seconds since 1900 (RFC 5905 section 6)
TIME_ERROR = 5  # what adjtimex(2) says of a clock that nobody keeps right
LISTENING = "0A"
TIMEX_OCTETS = 512  # more than struct timex has anywhere
FAULTS = (OSError, dns.exception.DNSException, EOFError, ValueError)


@dataclass(frozen=True, slots=True)
class NameTold:
    """What a name server has told: the records of that type, or why there are none."""

    records: tuple[str, ...] = ()
    authenticated: bool = False
    failure: str = ""
    is_servfail: bool = False


class Eyes:
    """`servers` are the name servers of this host."""

    def __init__(self, servers: Sequence[ServerAddress]) -> None:
        self.servers = tuple(servers)

    def ask(self, name: str, type: str, *, checking_disabled: bool = False) -> NameTold:
        """Ask the first of the name servers that answers.  A name that does not exist is an answer without records."""
        failure = "this host has no name server"
        for server in self.servers:
            try:
                query = dns.message.make_query(name, type, want_dnssec=True)
                query.flags |= dns.flags.AD | (dns.flags.CD if checking_disabled else 0)
                said, _ = dns.query.udp_with_fallback(query, server.host, timeout=ANSWER_SECONDS, port=server.port)
            except FAULTS as error:
                failure = f"{server.host}: {error}" if str(error) else f"{server.host} gives no answer"
                continue
            if said.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
                word = dns.rcode.to_text(said.rcode())
                return NameTold(failure=f"{server.host} says {word}", is_servfail=said.rcode() == dns.rcode.SERVFAIL)
            found = [one for one in said.answer if one.rdtype == dns.rdatatype.from_text(type)]
            records = tuple([one.to_text() for rrset in found for one in rrset])
            return NameTold(records, authenticated=bool(said.flags & dns.flags.AD))
        return NameTold(failure=failure)

    def greeting(self, host: str, port: int) -> str:
        """The first line that a server says.  Raises OSError."""
        until = time.monotonic() + CONNECT_SECONDS
        with socket.create_connection((host, port), CONNECT_SECONDS) as connection:
            said = b""
            while b"\n" not in said and len(said) < LINE_OCTETS:
                connection.settimeout(max(0.01, until - time.monotonic()))
                octets = connection.recv(LINE_OCTETS)
                if not octets:
                    break
                said += octets
        return said.partition(b"\n")[0].decode("ascii", "replace").strip()

    def fetch(self, url: str, octets_most: int) -> bytes:
        """What stands at an https URL.  Raises OSError or ValueError."""
        until = time.monotonic() + FETCH_SECONDS
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        if not url.startswith("https://"):
            raise ValueError(f"{url} is no https URL")
        request = urllib.request.Request(url, headers={"Accept": "application/rdap+json, application/json"})  # noqa: S310
        said = b""
        with opener.open(request, timeout=ANSWER_SECONDS) as answer:
            while octets := answer.read1(65536):
                said += octets
                if len(said) > octets_most or time.monotonic() > until:
                    raise ValueError(f"{url}: too long")
        return said

    def why_not_listen(self, port: int) -> str:
        """Why nobody can listen on a port of all addresses, "" where one can."""
        for family in (socket.AF_INET6, socket.AF_INET):
            try:
                probe = socket.socket(family)
            except OSError:
                continue
            with contextlib.closing(probe):
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                try:
                    probe.bind(("", port))
                except PermissionError:
                    return "this user may not"
                except OSError as error:
                    return error.strerror or str(error)
        return ""

    def holder_of(self, port: int) -> str:
        """Which program listens on a port (``exim4``), "" where that cannot be seen.  Needs /proc and root."""
        inodes = set()
        for table in ("/proc/net/tcp", "/proc/net/tcp6"):
            with contextlib.suppress(OSError), open(table, encoding="ascii") as file:
                for line in list(file)[1:]:
                    words = line.split()
                    if words[3] == LISTENING and int(words[1].rpartition(":")[2], 16) == port:
                        inodes.add(f"socket:[{words[9]}]")
        for link in glob.glob("/proc/[0-9]*/fd/[0-9]*") if inodes else ():
            with contextlib.suppress(OSError):
                if os.readlink(link) in inodes:
                    process = os.path.dirname(os.path.dirname(link))
                    with open(os.path.join(process, "comm"), encoding="utf-8", errors="replace") as file:
                        return file.read(64).strip()
        return ""

    def sync_seconds(self, folder: str) -> float:
        """How long one sync of a page takes, the middle of some.  Raises OSError."""
        times = []
        with tempfile.TemporaryFile(dir=folder) as file:
            for _ in range(SYNCS):
                file.write(b"\0" * 4096)
                file.flush()
                begin = time.perf_counter()
                os.fsync(file.fileno())
                times.append(time.perf_counter() - begin)
        return sorted(times)[SYNCS // 2]

    def free_octets(self, folder: str) -> int:
        """The room on the disk.  Raises OSError."""
        found = os.statvfs(folder)
        return found.f_bavail * found.f_frsize

    def clock_offset(self, host: str) -> float:
        """By how many seconds our clock is ahead of a server's (RFC 5905, as SNTP).  Raises OSError."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.settimeout(ANSWER_SECONDS)
            probe.connect((host, 123))
            began = time.time()
            probe.send(b"\x23" + bytes(47))
            said = probe.recv(512)
            ended = time.time()
        if len(said) < 48 or said[1] == 0:
            raise OSError("an answer that says nothing of the time")
        whole, part = struct.unpack("!II", said[40:48])
        return float((began + ended) / 2 - (whole - NTP_EPOCH + part / 2**32))

    def is_clock_kept(self) -> bool | None:
        """Whether the kernel says that somebody keeps the clock right; None where it says nothing."""
        try:
            state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(TIMEX_OCTETS))
        except (OSError, AttributeError):
            return None
        return None if state < 0 else state != TIME_ERROR
