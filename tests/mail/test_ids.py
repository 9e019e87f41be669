from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailserver.mail.ids import ALPHABET, IdSource, time_of


class IdTests(SynchronousTestCase):
    def test_ids_rise_and_differ_within_one_microsecond_and_when_the_clock_goes_back(self) -> None:
        now = [1795400000.0]
        source = IdSource(lambda: now[0])
        ids = [source.next() for _ in range(1000)]
        now[0] -= 3600
        ids += [source.next() for _ in range(1000)]
        self.assertEqual(ids, sorted(set(ids)))

    def test_an_id_tells_its_time(self) -> None:
        clock = Clock()
        clock.advance(1795400000.123456)
        id = IdSource(clock.seconds).next()
        self.assertEqual(len(id), 16)
        self.assertTrue(set(id) <= set(ALPHABET))
        self.assertAlmostEqual(time_of(id), 1795400000.123456, places=5)

    def test_two_processes_in_one_microsecond_differ(self) -> None:
        first, second = (IdSource(lambda: 1795400000.0).next() for _ in range(2))
        self.assertNotEqual(first, second)  # by chance equal once in 33 million runs

    def test_what_is_no_id_is_refused(self) -> None:
        for text in ("", "1K0WZ", "1K0WZABCDEFGHJKU", "1k0wzabcdefghjkm", "1K0WZABCDEFGHJKM0"):
            self.assertRaises(ValueError, time_of, text)
