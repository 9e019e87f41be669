"""A key is taken into use when each server of the zone has shown its TLSA record long enough, where there are such records."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailserver.acme.next_key import key_shown
from mailserver.doctor.seen import SeenRecords, SeenState
from mailserver.tls.issued import next_spki
from tests.acme.test_faults import DAY, HOST, WithMock

TLSA = f"_25._tcp.{HOST}"
OTHER = "3 1 1 " + "ab" * 32


class Zone:
    """What the servers of the zone show."""

    def __init__(self, *records: str, **more: Any) -> None:
        state = SeenState.FOUND if records else SeenState.NO_NAME
        self.seen = SeenRecords(TLSA, "TLSA", state, records, **({"ttl_seconds": 3600} | more))

    def of(self, name: str, type: str) -> SeenRecords:
        assert type == "TLSA"
        return self.seen if name == TLSA else SeenRecords(name, type, SeenState.FAILED)

    def zone(self, name: str) -> Any:
        raise AssertionError


class RollOver(WithMock):
    def setUp(self) -> None:
        super().setUp()
        self.steady = 1e9
        self.zone = Zone()

    def look(self, **wanted: Any) -> Any:
        visit = replace(self.visit(), hostname=HOST, seen=lambda: self.zone, steady_seconds=lambda: self.steady)
        return visit.look(**wanted)

    def test_without_tlsa_records_it_is_taken_at_once(self) -> None:
        first = self.look()
        found = self.look(roll="wanted")
        self.assertEqual((found.has_changed, found.spki), (True, first.next_spki))

    def test_it_has_to_be_shown_by_all_servers_for_twice_its_time_to_live(self) -> None:
        first = self.look()
        self.zone = Zone(f"3 1 1 {first.spki}")
        found = self.look(roll="wanted")
        self.assertEqual((found.has_changed, found.progress.roll), (False, "wanted"))
        self.assertIn(f"3 1 1 {first.next_spki} is not in the zone", found.progress.waits_for)
        both = (f"3 1 1 {first.spki}", f"3 1 1 {first.next_spki}")
        self.zone = Zone(*both, differing=("ns1: both", "ns2: one"))
        self.later(1000)
        self.assertIn("do not agree", self.look().progress.waits_for)
        self.zone = Zone(*both)
        self.later(1000)
        self.assertIn("has to be for 7200 s more", self.look().progress.waits_for)
        self.later(2 * DAY)  # a clock that was set is no time that has gone by
        self.assertFalse(self.look().has_changed)
        self.steady += 7100
        self.later(1000)
        self.assertFalse(self.look().has_changed)
        self.steady += 200
        self.later(1000)
        found = self.look()
        self.assertEqual((found.has_changed, found.spki, found.progress.waits_for), (True, first.next_spki, ""))

    def test_a_record_that_goes_away_meanwhile_begins_the_time_anew(self) -> None:
        first = self.look()
        shown = Zone(f"3 1 1 {first.spki}", f"3 1 1 {first.next_spki}")
        self.zone = shown
        self.look(roll="wanted")
        self.zone = Zone(f"3 1 1 {first.spki}")
        self.steady += 5000
        self.later(5000)
        self.look()
        self.zone = shown
        self.steady += 5000
        self.later(5000)
        self.assertIn("7200 s more", self.look().progress.waits_for)

    def test_nobody_who_can_tell_is_no_permission(self) -> None:
        self.look()
        self.zone = Zone()
        self.zone.seen = SeenRecords(TLSA, "TLSA", SeenState.FAILED, why="no answer in 3 s")
        found = self.look(roll="wanted")
        self.assertEqual((found.has_changed, found.progress.waits_for), (False, "no answer in 3 s"))

    def test_a_compromised_key_waits_for_nobody(self) -> None:
        first = self.look()
        self.zone = Zone(f"3 1 1 {first.spki}")
        visit = replace(self.visit(), hostname=HOST, seen=lambda: self.zone)
        found = visit.revoke(1)
        self.assertEqual((found.has_changed, found.spki), (True, first.next_spki))
        self.assertEqual(self.ca.said["revokeCert"][0]["reason"], 1)

    def test_the_first_certificate_waits_where_tlsa_records_hold_the_host_to_other_keys(self) -> None:
        self.zone = Zone(OTHER)
        found = self.look()
        self.assertIsNone(found.identity)
        self.assertIn("is not in the zone", found.progress.waits_for)
        self.assertEqual(self.count("newOrder"), 0)
        self.later(1000)
        self.zone = Zone(OTHER, f"3 1 1 {next_spki(self.keys, 'mail')}")
        self.assertTrue(self.look().has_changed)


class Records(SynchronousTestCase):
    def test_an_alias_is_followed_once_and_a_bad_signature_means_that_nobody_can_tell(self) -> None:
        spki = "cd" * 32
        self.assertTrue(key_shown(Zone(f"3 1 1 {spki}"), HOST, spki).is_shown)
        bad = key_shown(Zone(f"3 1 1 {spki}", signature_fault="it has expired"), HOST, spki)
        self.assertFalse(bad.is_shown or bad.is_free)
        alias = Zone(OTHER, alias="_dane.example.org")
        found = key_shown(alias, HOST, spki)
        self.assertFalse(found.is_shown or found.is_free)
