from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys

import apsw
from twisted.trial.unittest import SynchronousTestCase

from mailserver.observe import AmbiguousId, RoadStore, RoadsUnreadable, Step, UnknownId, format_road, read_road

NOW = 1795436523.0
DAY = 86_400
CONNECTION = "1K0WZ000000000C1"
MESSAGE = "1K0WZ000000000M1"


def batch(*rows: tuple[str, list[tuple[float, str, dict[str, object]]]]) -> str:
    return json.dumps([[id, steps[0][0], steps] for id, steps in rows])


class RoadTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = self.mktemp()
        self.store = RoadStore(self.path, retention_seconds=DAY)
        self.addCleanup(self.store.close)

    def add(self, id: str, *steps: tuple[float, str, dict[str, object]], now: float = NOW) -> None:
        self.store.add(batch((id, list(steps))), 1, now)

    def rows(self) -> int:
        connection = apsw.Connection(self.path, flags=apsw.SQLITE_OPEN_READONLY)
        try:
            return int(connection.execute("SELECT count(*) FROM road").get)
        finally:
            connection.close()


class ReadTests(RoadTestCase):
    def add_one_road(self) -> None:
        self.add(CONNECTION, (NOW, "connected", {"peer": "192.0.2.1"}))
        self.add(MESSAGE, (NOW + 0.1, "accepted", {"connection": CONNECTION, "sender": ""}))
        self.add(CONNECTION, (NOW + 0.3, "closed", {}))
        self.add(MESSAGE, (NOW + 0.2, "delivered", {"recipient": "a@b"}), (NOW + 0.4, "settled", {}))
        self.add("1K0WZ000000000M2", (NOW, "accepted", {"connection": CONNECTION}))

    def test_a_message_comes_with_its_connection_in_the_order_of_time(self) -> None:
        self.add_one_road()
        steps = read_road(self.path, MESSAGE)
        self.assertEqual([step.step for step in steps], ["connected", "accepted", "delivered", "closed", "settled"])
        self.assertEqual(steps[2], Step(NOW + 0.2, MESSAGE, "delivered", {"recipient": "a@b"}))

    def test_a_connection_has_its_own_steps(self) -> None:
        self.add_one_road()
        self.assertEqual([step.step for step in read_road(self.path, CONNECTION)], ["connected", "closed"])

    def test_steps_of_one_moment_keep_the_order_in_which_they_were_noted(self) -> None:
        self.add(MESSAGE, (NOW, "accepted", {}), (NOW, "delivered", {}))
        self.add(MESSAGE, (NOW, "settled", {}))
        self.assertEqual([step.step for step in read_road(self.path, MESSAGE)], ["accepted", "delivered", "settled"])

    def test_the_beginning_of_an_id_is_enough_where_it_is_the_only_one(self) -> None:
        self.add_one_road()
        self.add("2B4TZ000000000M9", (NOW, "accepted", {}))
        for id in ("2B4TZ0", "2b4tz000", " 2B4TZ000000000m9\n"):
            self.assertEqual([step.id for step in read_road(self.path, id)], ["2B4TZ000000000M9"])
        error = self.assertRaises(AmbiguousId, read_road, self.path, "1k0wz0000")
        self.assertEqual(error.candidates, (CONNECTION, MESSAGE, "1K0WZ000000000M2"))
        self.assertRaises(UnknownId, read_road, self.path, "2B4TZ")

    def test_what_is_not_there_is_unknown(self) -> None:
        self.add_one_road()
        for id in ("", "3333333333333333", "%", "' OR 1", "\U0010ffff" * 5, "1K0WZ0_"):
            self.assertRaises(UnknownId, read_road, self.path, id)

    def test_it_is_read_after_the_server_has_stopped(self) -> None:
        self.add_one_road()
        self.store.close()
        self.assertEqual(len(read_road(self.path, MESSAGE)), 5)

    def test_a_missing_or_damaged_file_is_said(self) -> None:
        self.assertRaises(RoadsUnreadable, read_road, self.path + "-missing", MESSAGE)
        with open(self.path, "wb") as file:
            file.write(b"no database" * 1000)
        self.assertRaises(RoadsUnreadable, read_road, self.path, MESSAGE)

    def test_reading_never_makes_a_file(self) -> None:
        self.assertRaises(RoadsUnreadable, read_road, self.path, MESSAGE)
        self.assertFalse(os.path.exists(self.path))

    def test_the_store_of_a_killed_process_opens(self) -> None:
        program = (
            "import os, signal, sys, json\n"
            "from mailserver.observe import RoadStore\n"
            "store = RoadStore(sys.argv[1])\n"
            "for n in range(50):\n"
            "    store.add(json.dumps([['ID%014d' % n, 1.0, [[1.0, 'accepted', {}]]]]), 1, 1.0)\n"
            "os.kill(os.getpid(), signal.SIGKILL)\n"
        )
        killed = subprocess.run(
            [sys.executable, "-c", program, self.path],
            check=False,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        self.assertEqual(killed.returncode, -signal.SIGKILL)
        self.assertEqual([step.step for step in read_road(self.path, f"ID{49:014}")], ["accepted"])
        self.add(MESSAGE, (1.0, "accepted", {}), now=1.0)
        self.assertEqual(len(read_road(self.path, MESSAGE)), 1)


class StoreTests(RoadTestCase):
    def test_others_cannot_read_it(self) -> None:
        self.add(MESSAGE, (NOW, "accepted", {}))
        for name in (self.path, self.path + "-wal"):
            self.assertEqual(stat.S_IMODE(os.stat(name).st_mode) & 0o007, 0, name)

    def test_what_is_older_than_the_retention_goes_and_the_rest_stays(self) -> None:
        for n in range(5):
            self.add(f"OLD{n:013}", (NOW, "accepted", {}), now=NOW)
        self.add("NEW", (NOW + DAY - 1, "accepted", {}), now=NOW + DAY - 1)
        self.assertEqual(self.rows(), 6)
        self.add("NEWER", (NOW + DAY + 1, "accepted", {}), now=NOW + DAY + 1)
        self.assertEqual(self.rows(), 2)
        self.assertEqual(len(read_road(self.path, "NEW")), 1)

    def test_rows_of_a_clock_that_was_ahead_keep_no_others_and_go_with_those_that_follow_them(self) -> None:
        for ahead in (10_000 * DAY, 10 * DAY):
            for n in range(3):
                self.add(f"AHEAD{ahead}{n}", (NOW + ahead, "accepted", {}), now=NOW + ahead)
        for n in range(3):
            self.add(f"RIGHT{n}", (NOW + n, "accepted", {}), now=NOW + n)
        self.assertEqual(self.rows(), 9)
        self.add("LATER", (NOW + DAY + 1.5, "accepted", {}), now=NOW + DAY + 1.5)  # two are over, and what came before them
        self.assertEqual(self.rows(), 2)
        self.add("LAST", (NOW + 2 * DAY + 9, "accepted", {}), now=NOW + 2 * DAY + 9)
        self.assertEqual(self.rows(), 1)

    def test_a_clock_that_is_behind_for_a_while_takes_nothing_away(self) -> None:
        for n in range(3):
            self.add(f"RIGHT{n}", (NOW + n, "accepted", {}), now=NOW + n)
        for n in range(3):
            self.add(f"1970{n}", (10.0 + n, "accepted", {}), now=10.0 + n)
        self.add("BACK", (NOW + 5, "accepted", {}), now=NOW + 5)
        self.assertEqual(len(read_road(self.path, "RIGHT0")), 1)
        self.assertEqual(self.rows(), 4)  # of 1970 nothing

    def test_a_row_far_behind_its_neighbours_is_found_by_its_own_time(self) -> None:
        for n, time in enumerate((NOW + 50, NOW, NOW + 60, NOW + 10)):
            self.add(f"ROW{n}", (time, "accepted", {}), now=time)
        self.add("NEW", (NOW + DAY + 20, "accepted", {}), now=NOW + DAY + 20)
        self.assertEqual(self.rows(), 3)

    def test_the_file_of_an_older_version_is_judged_in_the_same_way(self) -> None:
        self.store.close()
        connection = apsw.Connection(self.path)
        connection.execute("CREATE TABLE road (number INTEGER PRIMARY KEY, id TEXT NOT NULL, time REAL NOT NULL, steps TEXT NOT NULL)")
        connection.execute("INSERT INTO road (id, time, steps) VALUES ('A', 9e9, '[]'), ('B', ?, '[]')", (NOW - 2 * DAY,))
        connection.close()
        self.add("NEW", (NOW, "accepted", {}))
        self.assertEqual(self.rows(), 1)

    def test_one_batch_deletes_a_bounded_number(self) -> None:
        old = [(f"OLD{n:013}", [(NOW, "accepted", {})]) for n in range(1000)]
        self.store.add(json.dumps([[id, steps[0][0], steps] for id, steps in old]), 1000, NOW)
        counts = []
        for n in range(1, 4):
            self.add(f"NEW{n}", (NOW + 2 * DAY, "accepted", {}), now=NOW + 2 * DAY)
            counts.append(self.rows() - n)
        self.assertEqual(counts, [900, 800, 700])

    def test_a_file_that_grows_too_large_loses_its_oldest_roads(self) -> None:
        store = RoadStore(self.path, retention_seconds=DAY, octets_max=200_000)
        self.addCleanup(store.close)
        for n in range(100):
            rows = [(f"ID{n:05}{m:09}", [(NOW + n, "accepted", {"why": "x" * 200})]) for m in range(50)]
            store.add(json.dumps([[id, steps[0][0], steps] for id, steps in rows]), 50, NOW + n)
        self.assertTrue(os.path.getsize(self.path) < 400_000, os.path.getsize(self.path))
        self.assertEqual(len(read_road(self.path, f"ID{99:05}{49:09}")), 1)
        self.assertRaises(UnknownId, read_road, self.path, f"ID{0:05}{0:09}")

    def test_a_damaged_file_is_put_aside_and_a_new_one_begun(self) -> None:
        with open(self.path, "wb") as file:
            file.write(b"no database" * 1000)
        self.add(MESSAGE, (NOW, "accepted", {}))
        self.assertEqual(len(read_road(self.path, MESSAGE)), 1)
        with open(self.store.put_aside, "rb") as file:
            self.assertEqual(file.read(11), b"no database")

    def test_what_is_found_damaged_while_it_is_open_is_written_no_more(self) -> None:
        self.add(CONNECTION, (NOW, "accepted", {}))
        add = self.store._add

        def damaged(*_: object) -> None:
            self.store._add = add  # type: ignore[method-assign]
            raise apsw.CorruptError

        self.store._add = damaged  # type: ignore[method-assign]
        self.add(MESSAGE, (NOW, "accepted", {}))
        self.assertEqual(len(read_road(self.path, MESSAGE)), 1)
        self.assertEqual(len(read_road(self.store.put_aside, CONNECTION)), 1)


class FormatTests(SynchronousTestCase):
    def test_a_road_is_a_table(self) -> None:
        steps = [
            Step(NOW, CONNECTION, "connected", {"peer": "192.0.2.1", "port": 4711}),
            Step(
                NOW + 0.0123,
                MESSAGE,
                "accepted",
                {"connection": CONNECTION, "sender": "", "recipients": ["a@b"], "why": ""},
            ),
            Step(NOW + 75, MESSAGE, "deferred", {"recipient": "a@b", "reply": "451 4.3.0 later"}),
            Step(NOW + 3720, MESSAGE, "settled", {}),
        ]
        self.assertEqual(
            format_road(steps),
            [
                f"{MESSAGE}  2026-11-23 12:22:03.000 UTC",
                "   0.0 ms  connection  connected  peer=192.0.2.1  port=4711",
                "  12.3 ms              accepted   sender=<>  recipients=<a@b>",
                '  75.0 s               deferred   recipient=<a@b>  reply="451 4.3.0 later"',
                "1 h 02 m               settled",
            ],
        )

    def test_no_steps_no_lines(self) -> None:
        self.assertEqual(format_road([]), [])

    def test_nothing_of_a_peer_reaches_the_terminal(self) -> None:
        evil = "\x1b[2J\r\n\u202e"
        for line in format_road([Step(NOW, evil, evil, {"name": evil, "names": [evil]})]):
            self.assertTrue(line.isprintable(), repr(line))
