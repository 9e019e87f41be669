"""Broken zones on a real name server: the doctor names exactly the fault of each."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from mailserver.doctor.asking import SeenLive
from mailserver.doctor.examination import examined, examined_parked
from mailserver.doctor.findings import CheckedRecord
from mailserver.doctor.house_facts import DomainFacts
from mailserver.doctor.seen import DNSSECState, SeenState, ZoneSeen
from mailserver.doctor.wanted import parked, wanted
from mailserver.doctor.zone_text import ZoneRecord, zone_name
from mailserver.mail.dns_records import ServerAddress
from tests.dns.unbound import Unbound
from tests.dnssec import SignedWorld, Signing, Zone, shared
from tests.doctor.test_examination import FACTS, FAULTS, INCLUDES, Fault

SECOND = "127.0.0.2"
# The loopback world's own trouble: what is done to a whole zone
ZONES = {
    "dnssec-bogus": (Signing.BOGUS, ()),
    "dnssec-missing": (Signing.MISSING, ()),
    "dnssec-expired": (Signing.EXPIRED, ()),
    "dnssec-forged": (Signing.SECURE, ("mail",)),
    "dnssec-lame": (Signing.LAME, ()),
    "good": (Signing.NONE, ()),
    "good-signed": (Signing.SECURE, ()),
}


class House:
    """A domain of its own for a fault, with addresses of its own."""

    def __init__(self, number: int) -> None:
        self.domain = f"f{number}.example"
        self.facts = replace(
            FACTS,
            domain=self.domain,
            hostname=f"mail.{self.domain}",
            addresses=(f"198.18.0.{number}", f"2001:2::{number:x}"),
            dmarc_reports_to=f"dmarc-reports@{self.domain}",
            tls_reports_to=f"tls-reports@{self.domain}",
        )
        self.reverse = [f"{number}.0.18.198.in-addr.arpa", self._reverse6(number)]

    @staticmethod
    def _reverse6(number: int) -> str:
        return ".".join(reversed("20010002" + f"{number:024x}")) + ".ip6.arpa"

    def here(self, text: str) -> str:
        """Words about example.org as words about this domain."""
        four, six = self.facts.addresses
        changes = {
            "example.org": self.domain,
            "1.2.0.192.in-addr.arpa": self.reverse[0],
            "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa": self.reverse[1],
            "192.0.2.1": four,
            "2001:db8::1": six,
        }
        for old, new in changes.items():
            text = text.replace(old, new)
        return text

    def lines(self, *, signed: bool) -> list[str]:
        reverse = [f"{name} PTR {self.facts.hostname}" for name in self.reverse]
        return [f"{one.name} {one.type} {one.data}" for one in wanted(self.facts, signed=signed)] + reverse

    def broken(self, fault: Fault) -> list[str]:
        gone = [self.here(one) for one in fault.gone]
        left = [line for line in self.lines(signed=fault.signed) if not any(line.startswith(one) for one in gone)]
        return left + [self.here(line) for line in fault.lines]


SERVED = [one for one in FAULTS if not one.table and not one.policy and not one.told.startswith("mta-sts-policy") and one.told != "domain-is-cname"]
HOUSES = {House(n + 1).domain: House(n + 1) for n in range(len(SERVED) + len(ZONES))}
FAULT_HOUSES = [*zip(HOUSES.values(), SERVED, strict=False)]
ZONE_HOUSES = dict(zip(ZONES, [*HOUSES.values()][len(SERVED) :], strict=True))


def in_zones(lines: Sequence[str], zones: Sequence[str]) -> dict[str, list[str]]:
    """Lines as zone files have them, by zone."""
    found: dict[str, list[str]] = {zone: [] for zone in zones}
    for line in dict.fromkeys(lines):
        name, type, data = line.split(" ", 2)
        zone = next(one for one in zones if name == one or name.endswith("." + one))
        found[zone].append(f"{zone_name(name)} {type} {ZoneRecord(name, type, data).shown_data}")
    return found


def zones() -> Mapping[str, Zone]:
    signings = {house.domain: (Signing.SECURE if fault.signed else Signing.NONE, ()) for house, fault in FAULT_HOUSES}
    lines = [line for house, fault in FAULT_HOUSES for line in house.broken(fault)]
    for name, house in ZONE_HOUSES.items():
        signings[house.domain] = ZONES[name]
        lines += house.lines(signed=ZONES[name][0] is not Signing.NONE)
    lines += [*INCLUDES, "two.example NS ns2.two.example", f"ns2.two.example A {SECOND}", "two.example MX 10 new.two.example"]
    lines += [f"{one.name} {one.type} {one.data}" for one in parked("parked.example")]
    others = ["0.18.198.in-addr.arpa", "2.0.0.0.1.0.0.2.ip6.arpa", "example.net", "parked.example", "two.example"]
    split = in_zones(lines, [*signings, *others])
    return {
        zone: Zone(records, *signings.get(zone, (Signing.NONE, ()))) for zone, records in split.items()
    }


def faults_of(found: Sequence[CheckedRecord]) -> list[str]:
    return sorted({one.fault for one in found if one.is_to_be_done})


class BrokenZones(SynchronousTestCase):
    def setUp(self) -> None:
        self.world: SignedWorld = shared(zones)

    def seen(self, **more: float) -> SeenLive:
        return SeenLive([ServerAddress.parse(self.world.address)], port=self.world.port, **{"timeout_seconds": 0.5, **more})

    def examined(self, facts: DomainFacts) -> tuple[CheckedRecord, ...]:
        return examined(facts, self.seen(), now=time.time())

    def of(self, name: str) -> list[str]:
        return faults_of(self.examined(ZONE_HOUSES[name].facts))

    def test_a_zone_that_is_right_has_no_fault(self) -> None:
        self.assertEqual(self.of("good"), [])
        self.assertEqual(self.of("good-signed"), [])

    def test_each_broken_zone_has_its_fault_and_no_other(self) -> None:
        self.assertGreater(len(FAULT_HOUSES), 40)
        seen = self.seen(total_seconds=100.0)  # what is common to all zones is asked once
        for house, fault in FAULT_HOUSES:
            found = examined(replace(house.facts, **fault.facts), seen, now=time.time())
            self.assertEqual(faults_of(found), [fault.told] if fault.told else [], (fault, found))
            lines = "\n".join([record.line for one in found for record in one.add])
            if "include" not in fault.add:
                self.assertIn(house.here(fault.add).replace("192.0.2.1", house.facts.addresses[0]), lines)

    def test_signatures_that_do_not_hold_are_told_once(self) -> None:
        self.assertEqual(self.of("dnssec-bogus"), ["dnssec-bogus"])
        self.assertEqual(self.of("dnssec-missing"), ["dnssec-bogus"])
        self.assertEqual(self.of("dnssec-expired"), ["dnssec-expired"])
        self.assertEqual(self.of("dnssec-forged"), ["dnssec-bogus"])

    def test_a_zone_whose_servers_do_not_know_it_is_lame(self) -> None:
        house = ZONE_HOUSES["dnssec-lame"]
        self.assertEqual(self.of("dnssec-lame"), ["ns-lame"])
        zone = self.seen().zone(house.domain)
        self.assertEqual((zone.name, [str(one) for one in zone.servers]), (house.domain, ["ns.root (127.0.0.1)"]))

    def test_a_server_that_does_not_answer_is_told_and_holds_nothing_up(self) -> None:
        seen = self.seen()
        found = seen.of("two.example", "MX")
        self.assertEqual((found.state, found.differing), (SeenState.FOUND, ()))
        self.assertEqual([(one.name, one.fault) for one in seen.zone("two.example").servers], [("ns.root", ""), ("ns2.two.example", "silent")])

    def test_servers_that_differ_are_told_with_what_each_shows(self) -> None:
        other = Unbound(
            {"two.example": ["two.example. 300 IN SOA a. b. 1 1 1 1 1", "two.example. 300 IN MX 10 old.two.example."]},
            host=SECOND, port=self.world.port,
        )  # fmt: skip
        self.addCleanup(other.stop)
        other.start()
        found = self.seen().of("two.example", "MX")
        self.assertEqual(found.differing, ("ns.root: 10 new.two.example", "ns2.two.example: 10 old.two.example"))

    def test_a_parked_domain_is_looked_at_for_its_four_records(self) -> None:
        self.assertEqual(faults_of(examined_parked("parked.example", self.seen())), [])
        house = ZONE_HOUSES["good"]
        told = faults_of(examined_parked(house.domain, self.seen()))
        self.assertEqual(told, ["parked-dkim", "parked-dmarc", "parked-mx", "parked-spf"])

    def test_without_a_dns_nobody_can_tell(self) -> None:
        seen = SeenLive([ServerAddress("127.0.0.1", 1)], timeout_seconds=0.2)
        self.assertEqual(seen.of("example.org", "MX").state, SeenState.FAILED)
        self.assertEqual(seen.zone("example.org").name, "")
        found = examined(ZONE_HOUSES["good"].facts, seen, now=time.time())
        self.assertEqual([one for one in found if one.add or one.remove], [])

    def test_a_look_has_an_end(self) -> None:
        seen = self.seen(total_seconds=0.0)
        self.assertEqual(seen.of("example.org", "MX").why, "no name server of this host tells where the zone begins")

    def test_what_is_asked_ahead_is_the_same(self) -> None:
        house, seen = ZONE_HOUSES["good-signed"], self.seen()
        seen.ask_ahead([(house.domain, "MX"), (house.domain, "TXT"), ("..", "A")])
        self.assertEqual(seen.of(house.domain, "MX").records, (f"10 mail.{house.domain}",))
        self.assertEqual(seen.zone(house.facts.hostname), ZoneSeen(house.domain, seen.zone(house.domain).servers, DNSSECState.SECURE))
