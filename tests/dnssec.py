"""A signed DNS for tests: zones signed in memory, Knot DNS serves them, unbound validates them by the root's key.

    def zones():
        return {
            "secure.example": Zone(["@ MX 10 mx", "mx A 127.0.0.2", f"_25._tcp.mx TLSA 3 1 1 {digest}"]),
            "plain.example": Zone(["@ MX 10 mx", "mx A 127.0.0.3"], signing=Signing.NONE),
        }

    class Lookups(TestCase):
        def setUp(self):
            self.world = shared(zones)      # started by the first test, ended with the process

`world.address` is the validating resolver, as ``[dns] servers`` has it.  `world.not_validating()` is one that passes everything on,
`world.authority` the name server itself.  All stand on loopback; the whole starts in a fraction of a second.
"""

from __future__ import annotations

import atexit
import enum
import functools
import os
import re
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from shutil import rmtree

import dns.dnssec
import dns.name
import dns.rdatatype
import dns.zone
from cryptography.hazmat.primitives.asymmetric import ec

from tests.dns.unbound import Unbound
from tests.ports import free_port
from tests.requires import require_tool

__all__ = ["PROBES", "Signing", "SignedWorld", "Zone", "shared"]

ALGORITHM = "ECDSAP256SHA256"
SECONDS_TO_START = 10.0
HOUR = 3600
CONFIGURATION = """\
server:
    rundir: "{directory}"
    listen: 127.0.0.1@{port}
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
database:
    storage: "{directory}"
log:
  - target: "{directory}/log"
    any: warning
template:
  - id: default
    storage: "{directory}"
    semantic-checks: off
    journal-content: none
    zonefile-load: whole
    zonefile-sync: -1
zone:
{zones}
"""


class Signing(enum.Enum):
    """How a zone hangs in its parent."""

    SECURE = "signed, and the parent has the key's digest (DS)"
    NONE = "not signed"
    BOGUS = "signed, and the parent has another key's digest"
    MISSING = "the parent says that it is signed, and it is not"
    LAME = "every question about it fails"
    EXPIRED = "signed, and the signatures have expired"


@dataclass(frozen=True)
class Zone:
    """A zone: its records as in a zone file, a relative name each (``@`` is the zone's own), without class and TTL.

    The signatures at the names of `forged` are broken: a validating resolver answers SERVFAIL there.
    """

    records: Sequence[str] = ()
    signing: Signing = Signing.SECURE
    forged: Sequence[str] = ()
    ttl_seconds: int = 300


# What a server is asked for to find out whether it validates
PROBES: Mapping[str, Zone] = {
    "signed.probe": Zone(["@ A 192.0.2.1"]),
    "bogus.probe": Zone(["@ A 192.0.2.1"], Signing.BOGUS),
    "unsigned.probe": Zone(["@ A 192.0.2.1"], Signing.NONE),
}


class SignedWorld:
    """The root and `zones` (each is delegated by the nearest of the others above it), from `start` to `stop`.

    The validating resolver listens at `also`, too: ``127.1.2.3@53``, for programs that know no other port.  The name server of the
    zones takes `port`, or any that is free.
    """

    def __init__(self, zones: Mapping[str, Zone], also: str = "", port: int = 0) -> None:
        self._served: list[dns.name.Name] = []
        self._zones = {dns.name.from_text(name): zone for name, zone in {**PROBES, **zones}.items()}
        self._directory = ""
        self._knot: subprocess.Popen[bytes] | None = None
        self._resolvers: list[Unbound] = []
        self._anchor = ""
        self._also = [f"interface: {also}"] if also else []
        self._wanted_port = port
        self.port = 0

    # --- what a test uses ---

    @property
    def address(self) -> str:
        """The resolver that validates."""
        return self._resolvers[0].address

    @property
    def authority(self) -> str:
        """The name server of all the zones; it is no resolver."""
        return f"127.0.0.1:{self.port}"

    @property
    def trust_anchor(self) -> str:
        """The root's key as a record."""
        return self._anchor

    def not_validating(self) -> str:
        """A resolver that does not validate: forged answers are as good as all others.  Started where it is first asked for."""
        if len(self._resolvers) == 1:
            self._resolvers.append(self._unbound("", []).start())
        return self._resolvers[1].address

    def start(self) -> SignedWorld:
        """Sign, serve, validate.  Raises SkipTest where a program is not installed, RuntimeError where one dies."""
        program = require_tool("knotd")
        require_tool("unbound")
        self._directory = tempfile.mkdtemp(prefix="dnssec-")
        try:
            self._write()
            self.port = self._wanted_port or free_port()
            self._start_knot(program)
            self._resolvers.append(self._unbound(self._anchor, self._also).start())
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End everything and remove its folder."""
        for one in self._resolvers:
            one.stop()
        self._resolvers = []
        if self._knot is not None:
            self._knot.kill()
            self._knot.communicate()
            self._knot = None
        rmtree(self._directory, ignore_errors=True)

    # --- zones ---

    def _write(self) -> None:
        root = dns.name.root
        everything = {root: Zone(), **self._zones}
        keys = {name: ec.generate_private_key(ec.SECP256R1()) for name in everything}
        other = ec.generate_private_key(ec.SECP256R1())
        lines: dict[dns.name.Name, list[str]] = {name: _apex(name, zone) for name, zone in everything.items()}
        for name, zone in self._zones.items():
            parent = _parent(name, everything)
            lines[parent] += [f"{name} {zone.ttl_seconds} IN NS ns.root."]
            if zone.signing in (Signing.SECURE, Signing.BOGUS, Signing.MISSING, Signing.EXPIRED):
                key = keys[name] if zone.signing in (Signing.SECURE, Signing.EXPIRED) else other
                digest = dns.dnssec.make_ds(name, _dnskey(key), "SHA256")
                lines[parent].append(f"{name} {zone.ttl_seconds} IN DS {digest}")
        lines[root] += ["ns.root. 300 IN A 127.0.0.1"]
        self._anchor = f". 300 IN DNSKEY {_dnskey(keys[root])}"
        for name, zone in everything.items():
            if zone.signing is Signing.LAME:
                continue
            made = dns.zone.from_text("\n".join(lines[name]), origin=name, relativize=False, check_origin=False)
            if zone.signing in (Signing.SECURE, Signing.BOGUS, Signing.EXPIRED):
                _sign(made, keys[name], since=100 * HOUR if zone.signing is Signing.EXPIRED else HOUR)
                for forged in zone.forged:
                    _break_signatures(made, dns.name.from_text(forged, name))
            made.to_file(os.path.join(self._directory, _file(name)), relativize=False, want_origin=False)
        self._served = [name for name, zone in everything.items() if zone.signing is not Signing.LAME]

    # --- processes ---

    def _unbound(self, trust_anchor: str, more: Sequence[str]) -> Unbound:
        lame = [name.to_text(omit_final_dot=True) for name, zone in self._zones.items() if zone.signing is Signing.LAME]
        forward = f"127.0.0.1@{self.port}"
        return Unbound({}, forward=forward, trust_anchor=trust_anchor, refused=lame, more=more)

    def _start_knot(self, program: str) -> None:
        zones = "\n".join(f'  - domain: "{name}"\n    file: "{_file(name)}"' for name in self._served)
        path = os.path.join(self._directory, "knot.conf")
        with open(path, "w") as file:
            file.write(CONFIGURATION.format(directory=self._directory, port=self.port, zones=zones))
        self._knot = subprocess.Popen([program, "-c", path], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        waiting = list(self._served)
        end = time.monotonic() + SECONDS_TO_START
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.settimeout(0.02)
            probe.connect(("127.0.0.1", self.port))
            while waiting and time.monotonic() < end and self._knot.poll() is None:
                try:
                    probe.send(b"\x12\x34\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00" + waiting[-1].to_wire() + b"\0\x06\0\x01")
                    answer = probe.recv(512)
                except OSError:  # nobody listens yet
                    time.sleep(0.01)
                    continue
                if answer[3] & 15 == 0 and answer[7]:  # the zone's SOA record: it is loaded
                    waiting.pop()
                else:
                    time.sleep(0.005)
        if waiting:
            self._knot.kill()
            said = self._knot.communicate()[0].decode(errors="replace")
            self._knot = None
            raise RuntimeError(f"knotd does not serve {waiting[-1]}: {said}")


@functools.cache
def shared(zones: Callable[[], Mapping[str, Zone]], also: str = "") -> SignedWorld:
    """One world for all that ask with the same function.  It ends with the process.  Raises as `start` does."""
    world = SignedWorld(zones(), also).start()
    atexit.register(world.stop)
    return world


def _apex(name: dns.name.Name, zone: Zone) -> list[str]:
    soa = f"ns.root. hostmaster.root. 1 7200 3600 604800 {zone.ttl_seconds}"
    lines = [f"$TTL {zone.ttl_seconds}", f"{name} IN SOA {soa}", f"{name} IN NS ns.root."]
    lines.append(f"$ORIGIN {name}")
    lines += [re.sub(r"^(\S+) ", r"\1 IN ", record, count=1) for record in zone.records]
    return [*lines, "$ORIGIN ."]


def _parent(name: dns.name.Name, zones: Mapping[dns.name.Name, Zone]) -> dns.name.Name:
    parent = name.parent()
    while parent not in zones:
        parent = parent.parent()
    return parent


def _file(name: dns.name.Name) -> str:
    return f"{name.to_text(omit_final_dot=True) or 'root'}.zone"


def _dnskey(key: ec.EllipticCurvePrivateKey) -> dns.rdtypes.ANY.DNSKEY.DNSKEY:
    return dns.dnssec.make_dnskey(key.public_key(), ALGORITHM, flags=257)


def _sign(zone: dns.zone.Zone, key: ec.EllipticCurvePrivateKey, since: int) -> None:
    """Signatures hold from `since` seconds ago, and for two days."""
    begins = int(time.time()) - since
    dns.dnssec.sign_zone(
        zone, keys=[(key, _dnskey(key))], inception=begins, expiration=begins + 49 * HOUR, deterministic=False
    )


def _break_signatures(zone: dns.zone.Zone, name: dns.name.Name) -> None:
    """Change an octet of each signature at a name."""
    node = zone.find_node(name)
    for found in list(node.rdatasets):
        if found.rdtype == dns.rdatatype.RRSIG:
            broken = [one.replace(signature=bytes([one.signature[0] ^ 1]) + one.signature[1:]) for one in found]
            found.clear()
            for one in broken:
                found.add(one, found.ttl)
