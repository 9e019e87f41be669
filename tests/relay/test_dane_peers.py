"""DANE over real sockets: a signed DNS, hosts with certificates of every kind, our relay, and Postfix's word on the same hosts."""

from __future__ import annotations

import functools
import os
import re
import time
import warnings
from dataclasses import dataclass, field
from typing import Any

from OpenSSL import SSL, crypto
from twisted.internet import reactor
from twisted.internet.defer import ensureDeferred, gatherResults
from twisted.internet.protocol import Factory
from twisted.internet.utils import getProcessOutputAndValue
from twisted.trial.unittest import TestCase

from mailserver.dns import NameServer, ProbeNames, Resolver
from mailserver.mail.address import Address
from mailserver.mail.answers import Delayed, Delivered, Outcome
from mailserver.mail.content import Content
from mailserver.mail.dns_records import TLSA, ServerAddress
from mailserver.relay import library
from mailserver.relay.delivery import ConnectSettings
from tests.dns.liar import Liar
from tests.dnssec import Signing, Zone, shared
from tests.ports import free_port, own_loopback
from tests.relay.test_sockets import MESSAGE, ServerSide, Sink
from tests.requires import require_root, require_tool
from tests.trust.chains import Link, chain_of, self_signed, tlsa

VERIFIED = "TLS with a certificate that a record stands for"
ENCRYPTED = "TLS with any certificate"
REFUSED = "nothing goes to this host: its certificate, or its TLS, is not what the records say"
BARRED = "nobody connects"
POSTFIX = {  # what posttls-finger says; where it gets no TLS it says nothing of that
    VERIFIED: r"Verified TLS connection established",
    ENCRYPTED: r"Untrusted TLS connection established",
    REFUSED: r"num=65:no matching DANE TLSA records|num=62:hostname mismatch|certificate has expired|SSL_connect error|^((?!established).)*$",
    BARRED: r"TLSA lookup error|Destination address lookup failed",
}


NAME_SERVER = own_loopback(1)  # programs that use the C library ask at port 53


@dataclass
class Case:
    """A domain, what its host shows, and what becomes of mail to it."""

    fate: str
    shown: list[Link]
    records: list[TLSA] = field(default_factory=list)
    signing: Signing = Signing.SECURE
    forged: list[str] = field(default_factory=list)
    more: list[str] = field(default_factory=list)
    cname: str = ""
    is_odd: bool = False  # one of the certificates is of a version that nobody has heard of
    tls: str = "offered"
    served_by: str = ""  # where it is another's host
    of_postfix: str = ""  # where it stops earlier


def cases() -> dict[str, Case]:
    """By their domains' first labels."""
    now = time.time()

    def host(*names: str, **more: Any) -> list[Link]:
        return chain_of(names=names or ("nothing.example",), now=now, **more)

    own, other = self_signed(now=now), self_signed("rsa", now=now)
    ee = tlsa(own, 3, 1, 1)
    found = {
        "ee311": Case(VERIFIED, [own], [ee]),
        "ee300": Case(VERIFIED, [other], [tlsa(other, 3, 0, 0)]),
        "expired-ee": Case(VERIFIED, (old := host(leaf_days=(-20, -10)))[:1], [tlsa(old[0], 3, 1, 2)]),
        "odd": Case(VERIFIED, [own], [ee], is_odd=True),
        "rollover": Case(VERIFIED, [own], [tlsa(other, 3, 1, 1), ee]),
        "mismatch": Case(REFUSED, [other], [ee]),
        "mismatch-ta": Case(REFUSED, host("mx.mismatch-ta.example"), [tlsa(other, 2, 0, 1)]),
        "no-starttls": Case(REFUSED, [own], [ee], tls="none"),
        "broken-tls": Case(REFUSED, [own], [ee], tls="garbage"),
        "stronger": Case(REFUSED, [own], [ee, tlsa(other, 3, 1, 2)]),
        "unusable": Case(ENCRYPTED, [own], [TLSA(1, 1, 1, bytes(32)), TLSA(3, 1, 9, b"x")]),
        "unusable-no-starttls": Case(REFUSED, [own], [TLSA(0, 1, 1, bytes(32))], tls="none"),
        "none": Case(ENCRYPTED, [own]),
        "unsigned": Case(ENCRYPTED, [other], [ee], signing=Signing.NONE),
        "bogus": Case(BARRED, [own], [ee], signing=Signing.BOGUS),
        "forged": Case(BARRED, [own], [ee], forged=["mx"]),
        "cname": Case(VERIFIED, [own], cname="ee311"),
        "cname-out": Case(VERIFIED, [other], [tlsa(other, 3, 1, 1)], cname="unsigned"),
        "second": Case(VERIFIED, [other], [ee], more=["@ MX 20 mx.ee311.example."], served_by="ee311", of_postfix=REFUSED),
        "second-forged": Case(
            VERIFIED, [own], [ee], forged=["mx"], more=["@ MX 20 mx.ee311.example."], served_by="ee311"
        ),
        "self-ta": Case(REFUSED, self_ta := [self_signed("ecdsa", ("mx.self-ta.example",), now=now)], [tlsa(self_ta[0], 2, 0, 1)]),
    }
    own_key = [self_signed("ecdsa", ("mx.own-key-ta.example",), now=now)]
    found["own-key-ta"] = Case(VERIFIED, own_key, [tlsa(own_key[0], 2, 1, 0)])
    for label, names, record, shown, fate in (
        ("ta201", ("mx.ta201.example",), (2, 0, 1), 3, VERIFIED),
        ("ta211-domain", ("ta211-domain.example",), (2, 1, 1), 3, VERIFIED),
        ("ta-wildcard", ("*.ta-wildcard.example",), (2, 1, 2), 3, VERIFIED),
        ("ta-other-name", ("mx.other.example",), (2, 0, 1), 3, REFUSED),
        ("ta-left-out", ("mx.ta-left-out.example",), (2, 0, 1), 2, REFUSED),
        ("ta200-left-out", ("mx.ta200-left-out.example",), (2, 0, 0), 2, VERIFIED),
        ("ta210-left-out", ("mx.ta210-left-out.example",), (2, 1, 0), 2, VERIFIED),
    ):
        chain = host(*names)
        found[label] = Case(fate, chain[:shown], [tlsa(chain[2], *record)])
    late = host("mx.ta-expired.example", leaf_days=(-20, -10))
    found["ta-expired"] = Case(REFUSED, late, [tlsa(late[2], 2, 0, 1)])
    named = chain_of(names=(), subject="mx.ta-common-name.example", now=now)
    found["ta-common-name"] = Case(VERIFIED, named, [tlsa(named[1], 2, 1, 1)])
    return found


CASES = cases()


def address(label: str) -> str:
    return f"127.0.77.{list(CASES).index(label) + 1}"


def zone_of(label: str, case: Case, port: int) -> Zone:
    records = ["@ MX 10 mx", *case.more, f"mx CNAME mx.{case.cname}.example." if case.cname else f"mx A {address(label)}"]
    service = f"_{port}._tcp.mx"
    records += [f"{service} TLSA {one.usage} {one.selector} {one.matching_type} {one.data.hex()}" for one in case.records]
    return Zone(records, case.signing, [f"_{port}._tcp.{name}" for name in case.forged])


@functools.cache
def port() -> int:
    return free_port()


def zones() -> dict[str, Zone]:
    return {f"{label}.example": zone_of(label, case, port()) for label, case in CASES.items()}


def server_side(case: Case) -> ServerSide:
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.use_certificate(case.shown[0].certificate)
    context.use_privatekey(case.shown[0].key)
    for one in case.shown[1:]:
        context.add_extra_chain_cert(one.certificate)
    if case.is_odd:
        octets = bytearray(case.shown[0].der)
        octets[octets.index(bytes.fromhex("a003020102")) + 4] = 5
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # cryptography's own class takes no such certificate
            context.add_extra_chain_cert(crypto.load_certificate(crypto.FILETYPE_ASN1, bytes(octets)))
    return ServerSide(context)


class Peers(TestCase):
    timeout = 100

    def setUp(self) -> None:
        self.port = port()
        self.sinks: dict[str, Any] = {}
        for label, case in CASES.items():
            sink: Any = Factory.forProtocol(Sink)
            sink.noisy = False
            sink.connections, sink.messages, sink.slow, sink.behind_220, sink.resuming = [], [], False, b"", None
            sink.tls = {"none": None, "garbage": "garbage"}.get(case.tls) or (server_side(case) if case.tls == "offered" else None)
            self.sinks[label] = sink
            self.addCleanup(reactor.listenTCP(self.port, sink, interface=address(label)).stopListening)
        self.addCleanup(self.hang_up)
        self.world = shared(zones, f"{NAME_SERVER}@53" if os.geteuid() == 0 else "")

    def hang_up(self) -> Any:
        connections = [one for sink in self.sinks.values() for one in sink.connections]
        for one in connections:
            one.transport.abortConnection()
        return gatherResults([one.gone for one in connections])

    async def resolver(self, server: str) -> Resolver:
        names = ProbeNames(("signed.probe",), ("unsigned.probe",), ("bogus.probe",))
        servers = [NameServer(ServerAddress.parse(server), trusted=True)]
        resolver = Resolver(reactor=reactor, servers=servers, timeout_seconds=20.0, probe_names=names)
        await resolver.start()
        self.addCleanup(resolver.stop)
        return resolver

    async def sent(self, relay: Any, label: str) -> Outcome:
        recipient = Address("user", f"{label}.example")
        (outcome,) = await library.send(relay, Address("sender", "example.net"), [recipient], Content.of(MESSAGE))
        return outcome

    async def relay(self, make: Any, server: str = "", **more: Any) -> Any:
        settings = ConnectSettings(port=self.port)
        resolver = await self.resolver(server or self.world.address)
        relay = make(reactor=reactor, hostname="us.example", resolver=resolver, connect_settings=settings, **more)
        await relay.start()
        self.addCleanup(lambda: ensureDeferred(relay.stop()))
        return relay

    async def test_mail_goes_where_the_records_say_and_nowhere_else(self) -> None:
        relay = await self.relay(library.mx_relay)
        outcomes = await gatherResults([ensureDeferred(self.sent(relay, label)) for label in CASES])
        for (label, case), outcome in zip(CASES.items(), outcomes, strict=True):
            note, sink = f"{label}: {outcome.note}", self.sinks[case.served_by or case.cname or label]
            if case.fate in (VERIFIED, ENCRYPTED):
                self.assertIsInstance(outcome, Delivered, note)
                self.assertEqual("DANE" in outcome.note, case.fate is VERIFIED, note)
                self.assertTrue(all(encrypted for encrypted, _ in sink.messages), note)
            else:
                self.assertIsInstance(outcome, Delayed, note)
                if case.fate is REFUSED and case.tls != "garbage":
                    self.assertIn("TLS is demanded (", str(outcome), note)
            if case.fate in (REFUSED, BARRED) or case.served_by:
                self.assertEqual(self.sinks[label].messages, [], note)
            if case.forged or case.fate is BARRED:
                self.assertEqual(self.sinks[label].connections, [], note)

    async def test_a_smarthosts_records_count_and_hold_back_what_another_would_get(self) -> None:
        for label, kind in (("ee311", Delivered), ("cname", Delivered), ("mismatch", Delayed), ("forged", Delayed)):
            relay = await self.relay(library.smarthost_relay, host=f"mx.{label}.example")
            outcome = await self.sent(relay, "elsewhere")
            self.assertIsInstance(outcome, kind, outcome.note)
            self.assertIn("DANE" if kind is Delivered else "TLSA", str(outcome))
        self.assertEqual([len(self.sinks[label].messages) for label in ("ee311", "mismatch", "forged")], [2, 0, 0])

    async def test_by_a_resolver_that_lies_about_ad_or_does_not_validate_no_record_counts(self) -> None:
        liar = reactor.listenUDP(0, Liar(self.world.not_validating()), interface="127.0.0.1")
        self.addCleanup(liar.stopListening)
        for server in (self.world.not_validating(), f"127.0.0.1:{liar.getHost().port}"):
            relay = await self.relay(library.mx_relay, server)
            for label in ("unsigned", "mismatch", "bogus"):
                outcome = await self.sent(relay, label)
                self.assertIsInstance(outcome, Delivered, f"{label}: {outcome}")
                self.assertNotIn("DANE", outcome.note)

    async def test_postfix_finds_the_same(self) -> None:
        require_root("/etc/resolv.conf of another name server")
        program, unshare = require_tool("posttls-finger"), require_tool("unshare")
        folder = self.mktemp()
        os.makedirs(folder)
        with open(os.path.join(folder, "main.cf"), "w") as file:
            file.write("compatibility_level = 3.6\n")
        with open(conf := os.path.abspath(os.path.join(folder, "resolv.conf")), "w") as file:
            file.write(f"nameserver {NAME_SERVER}\noptions trust-ad\n")
        environment = {"MAIL_CONFIG": os.path.abspath(folder), "PATH": os.environ["PATH"]}
        script = 'mount --bind "$1" /etc/resolv.conf && exec "$2" -c -l dane "$3"'

        async def asked(label: str) -> str:
            words = [unshare, "--mount", "sh", "-c", script, "sh", conf, program, f"{label}.example:{self.port}"]
            out, err, _ = await getProcessOutputAndValue(words[0], words[1:], env=environment)
            return (out + err).decode(errors="replace")

        said = await gatherResults([ensureDeferred(asked(label)) for label in CASES])
        for (label, case), text in zip(CASES.items(), said, strict=True):
            self.assertTrue(re.search(POSTFIX[case.of_postfix or case.fate], text), f"{label} ({case.fate}): {text}")
