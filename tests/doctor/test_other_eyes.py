"""What others think of the same zones: checkdmarc of records, the checkers of BIND, Knot and NSD of zone text."""

from __future__ import annotations

import subprocess
from pathlib import Path

import dns.resolver
from twisted.trial.unittest import SynchronousTestCase

from mailserver.doctor.house_facts import DomainFacts, OfferedService, WantedKey
from mailserver.doctor.wanted import parked, wanted
from mailserver.doctor.zone_text import ZoneRecord
from mailserver.trust.dkim_key import PrivateKey
from mailserver.trust.mta_sts import STSFault, parse_policy
from tests.dnssec import shared
from tests.doctor.test_asking import FAULT_HOUSES, zones
from tests.doctor.test_examination import FAULTS, POLICY
from tests.requires import require_module, require_tool

SPF_ENDS = {"spf-missing", "spf-two", "spf-syntax", "spf-look-ups", "spf-broken"}  # what makes it count as none
DMARC_ENDS = {"dmarc-missing", "dmarc-two", "dmarc-syntax"}
STS_ENDS = {"mta-sts-missing", "mta-sts-two", "mta-sts-syntax"}


class CheckDMARC(SynchronousTestCase):
    def setUp(self) -> None:
        require_module("checkdmarc")

    def test_it_finds_the_same_records_of_the_broken_zones_wrong(self) -> None:
        from checkdmarc import dmarc, mta_sts, spf

        resolver = dns.resolver.Resolver(configure=False)
        host, _, port = shared(zones).address.rpartition(":")
        resolver.nameservers, resolver.port, resolver.lifetime = [host], int(port), 10.0

        def announces(domain: str) -> bool:
            try:
                return bool(mta_sts.parse_mta_sts_record(mta_sts.query_mta_sts_record(domain, resolver=resolver)["record"]))
            except mta_sts.MTASTSError:
                return False

        for house, fault in FAULT_HOUSES:
            theirs = [
                bool(spf.check_spf(house.domain, resolver=resolver)["valid"]), bool(dmarc.check_dmarc(house.domain, resolver=resolver)["valid"]),
                announces(house.domain),
            ]  # fmt: skip
            self.assertEqual(theirs, [fault.told not in ends for ends in (SPF_ENDS, DMARC_ENDS, STS_ENDS)], fault)

    def test_it_reads_the_same_policies(self) -> None:
        from checkdmarc import mta_sts

        for text in {POLICY.encode(), *[fault.policy["body"] for fault in FAULTS if fault.policy.get("body")]}:
            try:
                ours = parse_policy(text).mode.value
            except STSFault:
                ours = ""
            try:
                theirs = str(mta_sts.parse_mta_sts_policy(text.decode())["policy"]["mode"])
            except mta_sts.MTASTSError:
                theirs = ""
            self.assertEqual(theirs, ours, text)


class ZoneFiles(SynchronousTestCase):
    def test_bind_knot_and_nsd_load_what_is_printed(self) -> None:
        checkers = [(require_tool("named-checkzone"), "-i", "none"), (require_tool("kzonecheck"), "-o"), (require_tool("nsd-checkzone"),)]
        domain = "xn--bcher-kva.example"
        facts = DomainFacts(
            domain=domain, hostname=f"mail.{domain}", addresses=("192.0.2.1", "2001:db8::1"), spki="ab" * 32, next_spki="cd" * 32,
            keys=(WantedKey("s1-rsa", PrivateKey.generate("rsa").record, "active"), WantedKey("s1-ed", PrivateKey.generate("ed25519").record, "next")),
            services=(OfferedService("_submissions._tcp", 465),), dmarc_reports_to=f"d@{domain}", tls_reports_to=f"t@{domain}", serves_web=True,
        )  # fmt: skip
        strange = ZoneRecord(f"strange.{domain}", "TXT", 'a "quoted" \\ text; with $ORIGIN @ (and) \udcc3\udcbc\x1b' + "x" * 300)
        for name, records in ((domain, (*wanted(facts, signed=True), strange)), ("parked.example", parked("parked.example"))):
            path = Path(self.mktemp())
            head = [f"{name}. 3600 IN SOA ns.example. hostmaster.example. 1 7200 3600 604800 300", f"{name}. 3600 IN NS ns.example."]
            path.write_text("".join(f"{line}\n" for line in [*head, *[one.line for one in records]]))
            for program, *words in checkers:
                done = subprocess.run([program, *words, name, str(path)], capture_output=True, text=True, timeout=60, check=False)
                self.assertEqual(done.returncode, 0, f"{program}: {done.stdout}{done.stderr}")
