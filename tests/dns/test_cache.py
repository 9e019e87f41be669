"""Answers that are still true."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mailserver.dns.cache import ENTRY_OCTETS, Cache
from mailserver.mail.dns_records import Answer, LookupFailed

KEY = ("example.org", "MX")
BACK_OFF = {"failure_seconds_most": 12}
NO_NAME = Answer((), 60, name_exists=False)


def cache(**changes):
    return Cache(
        **{"entries_most": 3, "octets_most": 100_000, "longest_seconds": 1000, "failure_seconds": 5, **BACK_OFF, **changes}
    )


class Keeping(SynchronousTestCase):
    def test_an_answer_is_true_until_its_time_to_live_is_over(self) -> None:
        one = cache()
        one.put(KEY, Answer(("10 mx.example",), 60, True, True, "c.example"), 100.0)
        self.assertEqual(one.get(KEY, 130.5), Answer(("10 mx.example",), 29, True, True, "c.example"))
        self.assertIsNone(one.get(KEY, 160.0))
        self.assertEqual((len(one), one.octets), (0, 0))

    def test_absurd_times_to_live_are_cut(self) -> None:
        one = cache()
        one.put(KEY, Answer((), 2**31 - 1), 0.0)
        self.assertEqual(one.get(KEY, 0.0).ttl_seconds, 1000)
        self.assertIsNone(one.get(KEY, 1000.0))

    def test_a_time_to_live_of_0_is_not_kept_and_drops_what_was(self) -> None:
        one = cache()
        one.put(KEY, Answer(("1 a.example",), 60), 0.0)
        one.put(KEY, Answer((), 0), 1.0)
        self.assertIsNone(one.get(KEY, 1.0))

    def test_a_failure_is_kept_for_a_moment_and_is_a_new_exception_each_time(self) -> None:
        one = cache()
        one.put_failure(KEY, "SERVFAIL", 0.0)
        first, second = one.get(KEY, 4.0), one.get(KEY, 4.0)
        self.assertIsInstance(first, LookupFailed)
        self.assertIsNot(first, second)
        self.assertEqual(str(first), "SERVFAIL")
        self.assertIsNone(one.get(KEY, 5.0))

    def test_a_failure_again_and_again_is_kept_twice_as_long_up_to_a_bound(self) -> None:
        one = cache()
        now = 0.0
        for seconds in (5, 10, 12, 12):
            one.put_failure(KEY, "SERVFAIL", now)
            self.assertIsNotNone(one.get(KEY, now + seconds - 0.5), seconds)
            now += seconds
            self.assertIsNone(one.get(KEY, now), seconds)

    def test_an_answer_or_a_long_time_ends_the_row_of_failures(self) -> None:
        one = cache()
        one.put_failure(KEY, "SERVFAIL", 0.0)
        one.put(KEY, Answer((), 0), 6.0)
        one.put_failure(KEY, "SERVFAIL", 7.0)
        self.assertIsNone(one.get(KEY, 12.0))
        one.put_failure(KEY, "SERVFAIL", 700.0)
        self.assertIsNone(one.get(KEY, 705.0))


class NoSuchName(SynchronousTestCase):
    """RFC 2308 section 5: for every type of the name."""

    def test_a_name_that_does_not_exist_has_no_type(self) -> None:
        one = cache()
        one.put(KEY, NO_NAME, 0.0)
        self.assertFalse(one.get(("example.org", "A"), 10.0).name_exists)
        self.assertEqual(one.get(("example.org", "A"), 10.0).ttl_seconds, 50)
        self.assertIsNone(one.get(("www.example.org", "A"), 10.0))
        self.assertIsNone(one.get(("example.org", "A"), 60.0))

    def test_that_one_type_is_missing_says_nothing_of_the_others(self) -> None:
        one = cache()
        one.put(KEY, Answer((), 60), 0.0)
        self.assertIsNone(one.get(("example.org", "A"), 10.0))

    def test_behind_an_alias_it_is_the_other_name_that_does_not_exist(self) -> None:
        one = cache()
        one.put(KEY, Answer((), 60, False, False, "gone.example"), 0.0)
        self.assertFalse(one.get(KEY, 10.0).name_exists)
        self.assertIsNone(one.get(("example.org", "CNAME"), 10.0))
        self.assertIsNone(one.get(("gone.example", "MX"), 10.0), "what a message says of a name that was not asked for")

    def test_a_later_answer_with_the_name_is_believed(self) -> None:
        one = cache()
        one.put(KEY, NO_NAME, 0.0)
        one.put(("example.org", "A"), Answer(("192.0.2.1",), 60), 1.0)
        self.assertIsNone(one.get(KEY, 2.0))

    def test_it_is_known_of_a_type_that_failed_before(self) -> None:
        one = cache()
        one.put_failure(("example.org", "A"), "SERVFAIL", 0.0)
        one.put(KEY, NO_NAME, 1.0)
        self.assertFalse(one.get(("example.org", "A"), 2.0).name_exists)


class Bounds(SynchronousTestCase):
    def keys(self, one):
        return [name for name in "abcde" if one.get((name, "A"), 0.0) is not None]

    def test_what_was_not_asked_for_the_longest_time_goes_first(self) -> None:
        one = cache()
        for name in "abc":
            one.put((name, "A"), Answer((), 60), 0.0)
        one.get(("a", "A"), 0.0)
        one.put(("d", "A"), Answer((), 60), 0.0)
        self.assertEqual(self.keys(one), ["a", "c", "d"])

    def test_the_octets_are_bounded_too(self) -> None:
        one = cache(octets_most=4 * ENTRY_OCTETS)
        one.put(("a", "A"), Answer((), 60), 0.0)
        one.put(("b", "A"), Answer(("x" * 2 * ENTRY_OCTETS,), 60), 0.0)
        self.assertEqual(self.keys(one), ["b"])
        self.assertLessEqual(one.octets, 4 * ENTRY_OCTETS)

    def test_an_answer_that_is_larger_than_the_cache_pushes_nothing_out(self) -> None:
        one = cache(octets_most=4 * ENTRY_OCTETS)
        one.put(("a", "A"), Answer((), 60), 0.0)
        one.put(("b", "A"), Answer(("x" * 5 * ENTRY_OCTETS,), 60), 0.0)
        self.assertEqual(self.keys(one), ["a"])

    def test_replacing_an_answer_does_not_count_it_twice(self) -> None:
        one = cache()
        one.put(KEY, Answer(("x",), 60), 0.0)
        octets = one.octets
        one.put(KEY, Answer(("y",), 60), 0.0)
        self.assertEqual((one.octets, len(one)), (octets, 1))
        one.clear()
        self.assertEqual((one.octets, len(one)), (0, 0))
