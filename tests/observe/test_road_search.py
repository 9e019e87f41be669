"""Messages are found by what a person knows of them."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailserver.observe.road_search import Wanted, search_roads
from mailserver.observe.roads import RoadStore, RoadsUnreadable

ROADS: list[tuple[str, float, str, dict[str, Any]]] = [
    ("06AAAAAAAAAAAAA1", 100.0, "connected", {"peer": "192.0.2.1"}),
    ("06AAAAAAAAAAAAA2", 101.0, "accepted", {"connection": "06AAAAAAAAAAAAA1", "peer": "192.0.2.1", "hello": "mx.one.example",
                                             "sender": "Bob_x@Example.net", "recipients": ["alice@example.org", "ann@example.org"],
                                             "message_id": "<abc%1@one.example>"}),
    ("06AAAAAAAAAAAAA2", 150.0, "delivered", {"recipients": ["alice@example.org"], "host": "mx2.example.org"}),
    ("06AAAAAAAAAAAAA3", 200.0, "refused", {"peer": "198.51.100.9", "sender": "", "recipient": "nobody@example.org"}),
    ("06AAAAAAAAAAAAA4", 300.0, "accepted", {"peer": "192.0.2.1", "sender": "bobyx@example.net", "recipients": ["é@example.org"]}),
]  # fmt: skip


class Search(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = self.mktemp()
        roads = RoadStore(self.path)
        for id, time, step, fields in ROADS:
            roads.add(json.dumps([[id, time, [[time, step, fields]]]]), 1, time)
        roads.close()

    def ids(self, limit: int = 10, **wanted: Any) -> list[str]:
        return [one.id[-1] for one in search_roads(self.path, Wanted(**wanted), limit)]

    def test_each_thing_that_is_known_finds_it_the_newest_first(self) -> None:
        found = {
            "sender": {"bob_x@example.net": "2", "bob?x@*": "42", "*@EXAMPLE.NET": "42", "<>": "3", "x@y": ""},
            "recipient": {"ann@example.org": "2", "nobody@*": "3", "é@example.org": "4", "*": "432", "*@example.com": ""},
            "host": {"192.0.2.1": "421", "mx*.example.org": "2", "mx.one.example": "2", "198.51.100.*": "3"},
            "message_id": {"<abc%1@one.example>": "2", "abc%1@one.example": "2", "abc*": "2", "<abd*": ""},
        }
        for name, patterns in found.items():
            for pattern, ids in patterns.items():
                self.assertEqual("".join(self.ids(**{name: pattern})), ids, (name, pattern))

    def test_all_that_is_known_must_fit_on_whichever_step_it_stands(self) -> None:
        self.assertEqual(self.ids(sender="bob*", host="mx2.example.org"), ["2"])
        self.assertEqual(self.ids(sender="bob*", recipient="nobody@example.org"), [])

    def test_times_have_two_ends_and_a_limit_keeps_the_newest(self) -> None:
        self.assertEqual(self.ids(since=150.0), ["4", "3", "2"])
        self.assertEqual(self.ids(until=150.0), ["2", "1"])
        self.assertEqual(self.ids(since=110.0, until=210.0, sender="*"), ["3", "2"])
        self.assertEqual(self.ids(limit=1, since=0.0), ["4"])

    def test_a_row_says_what_became_of_it(self) -> None:
        (one,) = search_roads(self.path, Wanted(sender="bob_x@*"), 10)
        self.assertEqual((one.time, one.sender, one.steps), (101.0, "Bob_x@Example.net", ("accepted", "delivered")))
        self.assertEqual(one.recipients, ("alice@example.org", "ann@example.org"))

    def test_no_file_and_a_damaged_one_are_told(self) -> None:
        with self.assertRaises(RoadsUnreadable):
            search_roads(self.mktemp(), Wanted(sender="*"), 1)
        with open(self.path, "wb") as file:
            file.write(b"not a database" * 1000)
        with self.assertRaises(RoadsUnreadable):
            search_roads(self.path, Wanted(sender="*"), 1)
