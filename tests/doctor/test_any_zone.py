"""Whatever stands in a zone, or comes from a server that lies: there is a verdict, and text that a zone file can hold."""

from __future__ import annotations

import contextlib
import socket
import threading
from dataclasses import replace

import dns.exception
import dns.message
import dns.query
import dns.rcode
import dns.rdatatype
import dns.zonefile
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.doctor.asking import SeenLive
from mailserver.doctor.examination import examined, examined_parked
from mailserver.doctor.seen import DNSSECState, SeenState
from mailserver.mail.dns_records import ServerAddress
from tests.any_octets import any_octets
from tests.doctor.test_examination import DMARC, FACTS, REVERSE, RPT, S1, STS, TLSA_NAME
from tests.doctor.zones import ZoneTable
from tests.trust.chains import NOW

BEGINNINGS = st.sampled_from([b"", b"v=spf1 ", b"v=spf1", b"v=DKIM1; p=", b"v=DMARC1; p=none; rua=", b"v=STSv1; id=", b"v=TLSRPTv1; rua="])
TEXTS = st.tuples(BEGINNINGS, any_octets(max_size=40)).map(lambda pair: b"".join(pair).decode("ascii", "surrogateescape"))
NAMES = st.sampled_from([DMARC, S1, STS, RPT, "example.org TXT", "mail.example.org TXT", "any-selector._domainkey.example.org TXT"])
HOSTS = st.sampled_from(["mail.example.org", "example.org", ".", "a\\032b.example", "192.0.2.1", "loop.example.org"])
OTHERS = st.one_of(
    st.tuples(st.just("example.org MX 10 "), HOSTS),
    st.tuples(st.sampled_from(["mail.example.org CNAME ", "example.org CNAME ", "loop.example.org CNAME ", "_dmarc.example.org CNAME "]), HOSTS),
    st.tuples(st.just(f"{TLSA_NAME} TLSA 3 1 1 "), st.sampled_from(["00" * 32, "ab" * 32])),
    st.tuples(st.just("_submissions._tcp.example.org SRV 0 1 "), st.sampled_from(["465 .", "0 mail.example.org", "465 a\\032b"])),
    st.tuples(st.just("example.org CAA "), st.sampled_from(['0 issue ";"', '128 x ""', '0 issue "a; b=\\"c"', "0 issue letsencrypt.org"])),
).map("".join)


class AnyZone(SynchronousTestCase):
    @settings(max_examples=60)
    @given(st.lists(st.tuples(NAMES, TEXTS).map(" ".join), max_size=6), st.lists(OTHERS, max_size=4), st.booleans())
    def test_any_zone_has_its_verdicts(self, texts: list[str], others: list[str], is_signed: bool) -> None:
        table = ZoneTable([*texts, *others, *REVERSE], dnssec=DNSSECState.SECURE if is_signed else DNSSECState.UNSIGNED)
        found = [*examined(FACTS, table, now=NOW), *examined(replace(FACTS, addresses=(), addresses_are_sure=False), table, now=NOW)]
        for one in (*found, *examined_parked("example.org", table)):
            self.assertEqual(bool(one.fault), one.verdict.value not in ("ok", "not-wanted"), one)
            for record in (*one.add, *one.remove):
                self.assertEqual(len(dns.zonefile.read_rrsets(record.line, rdclass=None, default_ttl=None)), 1)


class Liar(SynchronousTestCase):
    def test_a_record_that_makes_no_sense_takes_nothing_from_the_others(self) -> None:
        """As a TLSA record with half a digest, which the library does not read."""
        said = dns.message.from_text("id 1\nopcode QUERY\nrcode NOERROR\nflags QR AA\n;QUESTION\n;ANSWER\n;AUTHORITY\n. 1 IN SOA . . 1 1 1 1 1\n")

        def answer(query: dns.message.Message, *_: object, **__: object) -> tuple[dns.message.Message, bool]:
            if query.question[0].rdtype == dns.rdatatype.TLSA:
                raise dns.exception.FormError("length inconsistent with matching type")
            return said, False

        self.patch(dns.query, "udp_with_fallback", answer)
        seen = SeenLive([ServerAddress("127.0.0.1")])
        for _ in range(2):
            self.assertEqual(seen._exchange("127.0.0.1", 53, "a.example", "TLSA"), "an answer that makes no sense: length inconsistent with matching type")
            self.assertIs(seen._exchange("127.0.0.1", 53, "a.example", "MX"), said)

    def test_a_server_that_knows_no_edns_is_asked_without_it(self) -> None:
        def answer(query: dns.message.Message, *_: object, **__: object) -> tuple[dns.message.Message, bool]:
            said = dns.message.make_response(query)
            said.set_rcode(dns.rcode.FORMERR if query.edns >= 0 else dns.rcode.NOERROR)
            return said, False

        self.patch(dns.query, "udp_with_fallback", answer)
        said = SeenLive([ServerAddress("127.0.0.1")])._exchange("127.0.0.1", 53, "a.example", "MX")
        self.assertIsInstance(said, dns.message.Message)
        self.assertEqual(said.rcode(), dns.rcode.NOERROR)  # type: ignore[union-attr]

    def test_octets_that_make_no_sense_are_no_answer(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
            server.bind(("127.0.0.1", 0))
            server.settimeout(5)

            def lie() -> None:
                with contextlib.suppress(OSError):  # the test is over
                    for more in (b"", b"\x81\x80", b"\x85\x00\0\1\xff\xff\0\0\0\0\x03org\0", b"\xc0\0" * 20):
                        asked, peer = server.recvfrom(4096)
                        server.sendto(asked[:2] + more, peer)

            liar = threading.Thread(target=lie, daemon=True)
            liar.start()
            seen = SeenLive([ServerAddress(*server.getsockname())], timeout_seconds=0.2)
            self.assertEqual(seen.of("example.org", "MX").state, SeenState.FAILED)
