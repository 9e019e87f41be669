"""The looks before: over eyes that see what each test says, none of them the Internet."""

from __future__ import annotations

import errno
import json
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailserver.doctor.house_facts import DomainFacts
from mailserver.doctor.seen import SeenRecords, SeenState, ZoneSeen
from mailserver.quickstart.domain_age import BOOTSTRAP, NotTold, rdap_url, registered_at
from mailserver.quickstart.eyes import Eyes, NameTold
from mailserver.quickstart.host_sightings import clock, disk, host_name, ports
from mailserver.quickstart.network_sightings import addresses, age, dns_lists, outwards, resolver, reverse_names
from mailserver.quickstart.preflight import PREFLIGHT, look
from mailserver.quickstart.verdicts import Outlook, Sighting
from mailserver.quickstart.what_is_seen import Seeing
from mailserver.quickstart.wishes import HIGH_PORTS, HouseWishes, hostname_of
from tests.quickstart.support import Blind

OK, WARN, FAIL, UNKNOWN = Outlook.OK, Outlook.WARN, Outlook.FAIL, Outlook.UNKNOWN
IP = "198.18.0.1"


class Zones:
    """`Seen`, of these records."""

    def __init__(self, records: dict[tuple[str, str], tuple[str, ...]], *, tells: bool = True) -> None:
        self._records = records
        self._tells = tells

    def of(self, name: str, type: str) -> SeenRecords:
        if not self._tells:
            return SeenRecords(name, type, SeenState.FAILED, why="nobody answers")
        records = self._records.get((name, type), ())
        return SeenRecords(name, type, SeenState.FOUND if records else SeenState.NO_NAME, records)

    def zone(self, name: str) -> ZoneSeen:
        return ZoneSeen("")


class Seer(Blind):
    """Sees what it is given."""

    def __init__(self, **seen: Any) -> None:
        super().__init__()
        self._seen = seen

    def ask(self, name: str, type: str, *, checking_disabled: bool = False) -> NameTold:
        told = self._seen.get("told", {})
        found = told.get((name, type, "CD")) if checking_disabled else None
        return found or told.get((name, type), NameTold(failure="SERVFAIL"))

    def greeting(self, host: str, port: int) -> str:
        if isinstance(said := self._seen["greeting"], OSError):
            raise said
        return str(said)

    def fetch(self, url: str, octets_most: int) -> bytes:
        if url not in self._seen["pages"]:
            raise OSError(errno.ENOENT, "404")
        return json.dumps(self._seen["pages"][url]).encode()

    def why_not_listen(self, port: int) -> str:
        return str(self._seen.get("taken", {}).get(port, ""))

    def holder_of(self, port: int) -> str:
        return str(self._seen.get("holder", ""))

    def sync_seconds(self, folder: str) -> float:
        return float(self._seen["sync"])

    def free_octets(self, folder: str) -> int:
        return int(self._seen["room"])

    def clock_offset(self, host: str) -> float:
        if isinstance(offset := self._seen["offset"], OSError):
            raise offset
        return float(offset)

    def is_clock_kept(self) -> bool | None:
        return self._seen.get("kept")  # type: ignore[no-any-return]


def seeing(eyes: Eyes | None = None, zones: Zones | None = None, ips: tuple[str, ...] = (IP,), own: str = "mail", **wishes: Any) -> Seeing:
    house = {"address": "you@example.org", "domain": "example.org", "hostname": "mail.example.org", "config": "/x/c", "data": "/tmp/d", "keys": "/tmp/k"}
    facts = DomainFacts(domain="example.org", hostname="mail.example.org", addresses=ips, addresses_are_sure=bool(ips))
    return Seeing(HouseWishes(**(house | wishes)), facts, zones or Zones({}), eyes or Blind(), own)


class Looks(SynchronousTestCase):
    def stands(self, found: list[Sighting], *wanted: Outlook) -> str:
        """They stand so; what they say, and how it is mended."""
        self.assertEqual([one.standing for one in found], list(wanted), found)
        return " ".join(f"{one.why} {one.fix}" for one in found)

    def test_without_a_network_all_is_told_at_once_and_nothing_is_called_wrong(self) -> None:
        found = look(seeing(Blind(), Zones({}, tells=False), ips=()))
        self.assertNotIn(FAIL, [one.standing for one in found])
        self.assertGreaterEqual({one.name for one in found}, set(PREFLIGHT) - {"reverse names", "age of the domain"})

    def test_a_look_that_hangs_or_fails_cannot_tell_and_the_others_can(self) -> None:
        never = threading.Event()
        self.addCleanup(never.set)

        def hangs(seeing: Seeing) -> list[Sighting]:
            never.wait(60)
            return []

        def fails(seeing: Seeing) -> list[Sighting]:
            raise RuntimeError("odd")

        def sees(seeing: Seeing) -> list[Sighting]:
            return [Sighting("c", OK, "fine")]

        found = look(seeing(), {"a": hangs, "b": fails, "c": sees}, seconds=0.05)
        self.assertEqual([(one.name, one.standing) for one in found], [("a", UNKNOWN), ("b", UNKNOWN), ("c", OK)])
        self.assertIn("odd", found[1].why)

    def test_a_resolver_validates_where_it_also_refuses_what_is_bogus(self) -> None:
        good = {(".", "NS"): NameTold(authenticated=True), ("home.arpa", "NS"): NameTold()}
        bogus = ("dnssec-failed.org", "NS")
        refusing = {bogus: NameTold(failure="SERVFAIL", is_servfail=True), (*bogus, "CD"): NameTold()}
        self.assertIn("refused as bogus", self.stands(resolver(seeing(Seer(told=good | refusing))), OK))
        self.assertIn("apt install unbound", self.stands(resolver(seeing(Seer(told=good | {bogus: NameTold()}))), WARN))
        self.assertIn("AD bit", self.stands(resolver(seeing(Seer(told={(".", "NS"): NameTold()}))), WARN))
        self.stands(resolver(seeing(Seer())), UNKNOWN)

    def test_the_name_should_be_the_hosts(self) -> None:
        self.stands(host_name(seeing(own="mail.example.org")), OK)
        self.stands(host_name(seeing(own="mail")), OK)
        self.assertIn("hostnamectl set-hostname mail.example.org", self.stands(host_name(seeing(own="vm")), WARN))
        for own, hosts, name in (
            ("mx.example.net", "", "mx.example.net"), ("vm", "10.0.0.1 vm.example.net vm", "vm.example.net"),
            ("vm", "127.0.0.1 localhost\n#1 a.b vm", "mail.example.org"), ("vm.local", "", "mail.example.org"), ("", "", "mail.example.org"),
        ):  # fmt: skip
            self.assertEqual(hostname_of("example.org", own, hosts), name)

    def test_addresses_and_their_names_agree_both_ways(self) -> None:
        there = {("mail.example.org", "A"): (IP,), ("1.0.18.198.in-addr.arpa", "PTR"): ("mail.example.org",)}
        self.stands(addresses(seeing(zones=Zones(there))), OK, OK)
        self.stands(reverse_names(seeing(zones=Zones(there))), OK)
        self.assertIn("mail.example.org. 3600 IN A 198.18.0.1", self.stands(addresses(seeing()), OK, WARN))
        self.assertIn("IN PTR mail.example.org.", self.stands(reverse_names(seeing()), WARN))
        self.stands(reverse_names(seeing(zones=Zones({}, tells=False))), UNKNOWN)
        self.assertIn("--nat", self.stands(addresses(seeing(ips=())), UNKNOWN))
        self.assertIn("leads to 198.18.0.1", self.stands(addresses(seeing(zones=Zones(there), ips=(), behind_nat=True)), OK))
        self.stands(addresses(seeing(ips=(), behind_nat=True)), WARN)

    def test_port_25_outwards_is_tried_at_those_who_take_from_everybody(self) -> None:
        told = {("gmail.com", "MX"): NameTold(("5 mx.gmail.example.",))}
        self.stands(outwards(seeing(Seer(told=told, greeting="220 hello"))), OK)
        closed = Seer(told=told, greeting=TimeoutError(errno.ETIMEDOUT, "timed out"))
        self.assertIn("--smarthost", self.stands(outwards(seeing(closed)), FAIL))
        self.stands(outwards(seeing(Seer(told=told, greeting=OSError(errno.ENETUNREACH, "no way")))), UNKNOWN)
        self.stands(outwards(seeing(Seer())), UNKNOWN)
        self.stands(outwards(seeing(Seer(), smarthost="smtp.isp.example:587")), OK)

    def test_a_port_that_another_holds_is_told_with_who_it_is(self) -> None:
        self.assertIn("25, 465, 587, 443, 80: free", self.stands(ports(seeing()), OK))
        busy = Seer(taken={25: "Address already in use"}, holder="exim4")
        self.assertIn("systemctl disable --now exim4", self.stands(ports(seeing(busy)), OK, FAIL))
        self.assertIn("ss -ltnp", self.stands(ports(seeing(Seer(taken={25: "in use"}))), OK, FAIL))
        self.assertIn("sysctl", self.stands(ports(seeing(Seer(taken={25: "this user may not"}))), OK, FAIL))
        self.assertIn("lead port 25 there", self.stands(ports(seeing(ports=HIGH_PORTS)), OK, WARN))

    def test_disk_and_clock_have_their_bounds(self) -> None:
        self.stands(disk(seeing(Seer(sync=0.001, room=1 << 40))), OK)
        self.assertIn("quicker disk", self.stands(disk(seeing(Seer(sync=0.05, room=1 << 40))), WARN))
        self.assertIn("more room", self.stands(disk(seeing(Seer(sync=0.001, room=1 << 20))), WARN))
        self.stands(clock(seeing(Seer(offset=0.1, kept=True))), OK)
        self.assertIn("100 s behind", self.stands(clock(seeing(Seer(offset=-100, kept=True))), FAIL))
        self.stands(clock(seeing(Seer(offset=0.1, kept=False))), WARN)
        self.stands(clock(seeing(Seer(offset=OSError(1, "no"), kept=True))), OK)
        self.stands(clock(seeing(Seer(offset=OSError(1, "no")))), UNKNOWN)

    def test_a_list_that_does_not_answer_us_says_nothing(self) -> None:
        name = "1.0.18.198"
        clean = {(f"{name}.zen.spamhaus.org", "A"): NameTold(), (f"{name}.bl.spamcop.net", "A"): NameTold()}
        self.stands(dns_lists(seeing(Seer(told=clean))), OK)
        listed = clean | {(f"{name}.zen.spamhaus.org", "A"): NameTold(("127.0.0.3",))}
        self.assertIn("check.spamhaus.org", self.stands(dns_lists(seeing(Seer(told=listed))), OK, FAIL))
        refused = clean | {(f"{name}.zen.spamhaus.org", "A"): NameTold(("127.255.255.254",))}
        self.stands(dns_lists(seeing(Seer(told=refused))), OK, UNKNOWN)
        self.stands(dns_lists(seeing(ips=())), UNKNOWN)

    def test_a_new_domain_is_told(self) -> None:
        service = {"services": [[["org", "example"], ["http://a.example/", "https://rdap.example/v1"]], [["co.uk"], ["https://uk.example/"]]]}
        day = (datetime.now(UTC) - timedelta(days=3)).strftime("%Y-%m-%dT%H:%M:%SZ")
        pages = {BOOTSTRAP: service, "https://rdap.example/v1/domain/example.org": {"events": [{"eventAction": "registration", "eventDate": day}]}}
        self.assertIn("3 days ago", self.stands(age(seeing(Seer(pages=pages))), WARN))
        self.assertEqual(registered_at("mail.example.org", Seer(pages=pages).fetch)[0], "example.org")
        self.stands(age(seeing(Seer(pages={BOOTSTRAP: service}))), UNKNOWN)
        self.stands(age(seeing(Seer(pages={}))), UNKNOWN)
        self.assertEqual(rdap_url("a.co.uk", service), "https://uk.example/")
        for odd in ([1], {"services": 1}, {"services": [[], 7, [["org"], ["http://a/"]]]}):
            with self.assertRaises(NotTold):
                registered_at("example.org", lambda url, most, odd=odd: json.dumps(odd).encode())  # type: ignore[misc]

    def test_the_eyes_see_this_host(self) -> None:
        eyes = Eyes(())
        self.assertLess(eyes.sync_seconds("/tmp"), 10)
        self.assertGreater(eyes.free_octets("/tmp"), 0)
        self.assertIn(eyes.is_clock_kept(), (True, False, None))
        self.assertEqual(eyes.ask("example.org", "A").failure, "this host has no name server")
        with self.assertRaises(ValueError):
            eyes.fetch(Path("/etc/passwd").as_uri(), 10)
