from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.queue.schedule import Schedule


class Due(SynchronousTestCase):
    def due(self, attempts, now=0.0, chance=0.5, retry=(60, 300), expire=10_000):
        schedule = Schedule(retry_seconds=retry, expire_seconds=expire)
        return schedule.next_due(attempts=attempts, received_at=0.0, now=now, chance=chance)

    def test_each_attempt_has_its_pause_and_the_last_one_repeats(self):
        self.assertEqual([self.due(n) for n in (1, 2, 3, 50)], [60, 300, 300, 300])

    def test_chance_moves_it_by_a_tenth_at_most(self):
        self.assertAlmostEqual(self.due(1, chance=0.0), 54)
        self.assertAlmostEqual(self.due(1, chance=1.0), 66)

    def test_the_last_attempt_is_at_the_end_of_the_time(self):
        self.assertEqual(self.due(2, now=9_900), 10_000)

    def test_after_the_end_there_is_none(self):
        self.assertIsNone(self.due(1, now=10_000))

    @given(st.integers(1, 100), st.floats(0, 20_000), st.floats(0, 1))
    def test_it_is_never_in_the_past_and_never_past_the_end(self, attempts, now, chance):
        due = self.due(attempts, now=now, chance=chance)
        self.assertTrue(due is None if now >= 10_000 else now < due <= 10_000)

    def test_pauses_that_make_no_sense_are_an_error(self):
        for retry, expire in (((), 1), ((0,), 1), ((-1, 5), 1), ((1,), 0)):
            with self.assertRaises(ValueError):
                Schedule(retry_seconds=retry, expire_seconds=expire)

    def test_a_warning_comes_before_the_end_or_not_at_all(self):
        for warn, expected in ((None, None), (100, 1100.0), (10_000, None), (20_000, None)):
            schedule = Schedule(retry_seconds=(60,), expire_seconds=10_000, warn_seconds=warn)
            self.assertEqual(schedule.warning(1000.0), expected)
            self.assertEqual(schedule.end(1000.0), 11_000.0)
