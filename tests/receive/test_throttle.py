"""Connections, errors and time: what a peer may ask for."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.mail.networks import network_of
from mailserver.mail.reply import Reply
from mailserver.receive.throttle import Admission, Pace, Patience, Progress, Slowness

ADDRESSES = ["192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2", "2001:db8:0:1::1", "::ffff:192.0.2.1", "unix"]


def deadline_of(progress: Progress, *, stress: bool = False) -> float:
    """Before this time nothing can be slow: the earliest of the bounds that the pace sets."""
    pace, window = progress._pace, progress._window_started
    window += pace.stress_window_seconds if stress else pace.window_seconds
    return min(progress.started + pace.message_seconds, progress._last + pace.data_seconds, window)


class AdmissionOfConnections(SynchronousTestCase):
    def refused(self, admission: Admission, address: str) -> Reply:
        reply = admission.admit(address)
        self.assertIsInstance(reply, Reply)
        return reply  # type: ignore[return-value]

    def test_the_connection_above_the_total_hears_421(self) -> None:
        admission = Admission(connections=2, connections_per_network=10)
        self.assertIsNone(admission.admit("192.0.2.1"))
        self.assertIsNone(admission.admit("unix"))
        reply = self.refused(admission, "192.0.2.2")
        self.assertEqual((reply.code, reply.enhanced), (421, "4.3.2"))
        admission.release("unix")
        self.assertIsNone(admission.admit("192.0.2.2"))

    def test_one_network_cannot_take_all_places(self) -> None:
        admission = Admission(connections=10, connections_per_network=1)
        self.assertIsNone(admission.admit("192.0.2.1"))
        reply = self.refused(admission, "192.0.2.1")
        self.assertEqual((reply.code, reply.enhanced), (421, "4.7.0"))
        self.assertIsNone(admission.admit("192.0.2.2"))

    def test_an_ipv6_network_is_the_first_64_bits(self) -> None:
        admission = Admission(connections=10, connections_per_network=1)
        self.assertIsNone(admission.admit("2001:db8::1"))
        self.assertEqual(self.refused(admission, "2001:db8:0:0:ffff::9").enhanced, "4.7.0")
        self.assertIsNone(admission.admit("2001:db8:0:1::1"))

    def test_what_is_no_address_is_counted_as_it_is_written(self) -> None:
        admission = Admission(connections=10, connections_per_network=1)
        self.assertIsNone(admission.admit("what:is:this"))
        self.assertEqual(self.refused(admission, "what:is:this").enhanced, "4.7.0")

    def test_unix_sockets_count_in_all_but_not_by_network(self) -> None:
        admission = Admission(connections=3, connections_per_network=1)
        for _ in range(3):
            self.assertIsNone(admission.admit("unix"))
        self.assertEqual(admission.networks, 0)
        self.assertEqual(self.refused(admission, "unix").enhanced, "4.3.2")

    def test_a_refused_connection_leaves_no_trace(self) -> None:
        admission = Admission(connections=1, connections_per_network=1)
        admission.admit("192.0.2.1")
        self.refused(admission, "192.0.2.2")
        self.assertEqual((admission.connections, admission.networks), (1, 1))

    def test_releasing_what_was_never_admitted_is_an_error(self) -> None:
        admission = Admission(connections=5, connections_per_network=5)
        for address in ("unix", "192.0.2.1"):
            with self.assertRaises(ValueError):
                admission.release(address)
        admission.admit("192.0.2.1")
        with self.assertRaises(ValueError):
            admission.release("192.0.2.2")
        self.assertEqual(admission.connections, 1)

    def test_stress_begins_at_the_percentage_and_ends_below_it(self) -> None:
        admission = Admission(connections=10, connections_per_network=10, stress_percent=80)
        for _ in range(7):
            admission.admit("192.0.2.1")
        self.assertFalse(admission.stress)
        admission.admit("192.0.2.1")
        self.assertTrue(admission.stress)
        admission.release("192.0.2.1")
        self.assertFalse(admission.stress)

    @given(st.lists(st.sampled_from(ADDRESSES), max_size=60))
    def test_when_all_have_gone_the_table_is_empty(self, addresses: list[str]) -> None:
        admission = Admission(connections=40, connections_per_network=6)
        inside = [address for address in addresses if admission.admit(address) is None]
        self.assertEqual(admission.connections, len(inside))
        self.assertLessEqual(len(inside), 40)
        for address in set(inside) - {"unix"}:
            self.assertLessEqual(sum(network_of(one) == network_of(address) for one in inside), 6)
        for address in inside:
            admission.release(address)
        self.assertEqual((admission.connections, admission.networks), (0, 0))


class PatienceWithErrors(SynchronousTestCase):
    def test_replies_slow_down_after_the_soft_limit_only(self) -> None:
        patience = Patience(soft_errors=10, error_delay_seconds=1.0)
        self.assertEqual(patience.delay_seconds(10), 0.0)
        self.assertEqual(patience.delay_seconds(11), 1.0)

    def test_the_hard_limit_ends_it(self) -> None:
        patience = Patience(hard_errors=20)
        self.assertFalse(patience.is_over(19))
        self.assertTrue(patience.is_over(20))

    def test_stress_ends_it_sooner(self) -> None:
        patience = Patience()
        self.assertFalse(patience.is_over(0, stress=True))
        self.assertTrue(patience.is_over(1, stress=True))
        self.assertEqual(patience.errors_of_junk(2, stress=True), 1)

    def test_junk_counts_as_an_error_beyond_its_limit(self) -> None:
        patience = Patience(junk_commands=100)
        self.assertEqual(patience.errors_of_junk(100), 0)
        self.assertEqual(patience.errors_of_junk(101), 1)


class PaceOfData(SynchronousTestCase):
    pace = Pace(
        command_seconds=300,
        stress_command_seconds=10,
        data_seconds=180,
        message_seconds=3600,
        data_octets_per_second=500,
        window_seconds=200,
        stress_window_seconds=10,
    )

    def test_a_command_may_take_five_minutes_and_ten_seconds_under_stress(self) -> None:
        """RFC 5321 section 4.5.3.2.7."""
        self.assertEqual(self.pace.command_deadline(1000.0), 1300.0)
        self.assertEqual(self.pace.command_deadline(1000.0, stress=True), 1010.0)

    def test_data_that_stop_are_given_up_after_the_data_time(self) -> None:
        """RFC 5321 section 4.5.3.2.5."""
        progress = Progress(self.pace, 0.0)
        progress.received(10_000_000, 50.0)
        self.assertEqual(deadline_of(progress), 200.0)
        self.assertIsNone(progress.slowness(200.0))
        self.assertEqual(deadline_of(progress), 230.0)
        self.assertEqual(progress.slowness(230.0), Slowness.STALLED)

    def test_octet_by_octet_is_too_slow_after_one_window(self) -> None:
        progress = Progress(self.pace, 0.0)
        for second in range(200):
            progress.received(1, float(second))
            self.assertIsNone(progress.slowness(float(second)))
        self.assertEqual(progress.slowness(200.0), Slowness.TOO_SLOW)

    def test_the_minimum_rate_is_enough(self) -> None:
        progress = Progress(self.pace, 0.0)
        for second in range(1, 1001):
            progress.received(500, float(second))
            self.assertIsNone(progress.slowness(float(second)))

    def test_a_quick_start_earns_no_right_to_be_slow_later(self) -> None:
        progress = Progress(self.pace, 0.0)
        progress.received(50_000_000, 1.0)
        progress.received(1, 150.0)
        self.assertIsNone(progress.slowness(200.0))
        progress.received(1, 300.0)
        self.assertEqual(progress.slowness(400.0), Slowness.TOO_SLOW)

    def test_a_window_that_is_looked_at_late_needs_as_much_more(self) -> None:
        progress = Progress(self.pace, 0.0)
        progress.received(500 * 200, 390.0)
        self.assertEqual(progress.slowness(400.0), Slowness.TOO_SLOW)

    def test_a_message_has_an_end_in_all(self) -> None:
        progress = Progress(self.pace, 0.0)
        for second in range(1, 3600):
            progress.received(1_000_000, float(second))
            self.assertIsNone(progress.slowness(float(second)))
        self.assertEqual(progress.slowness(3600.0), Slowness.TOO_LONG)

    def test_stress_shortens_the_window(self) -> None:
        progress = Progress(self.pace, 0.0)
        progress.received(400, 9.0)
        self.assertEqual(deadline_of(progress, stress=True), 10.0)
        self.assertIsNone(progress.slowness(10.0))
        self.assertEqual(progress.slowness(10.0, stress=True), Slowness.TOO_SLOW)

    def test_time_in_which_we_did_not_read_is_excused(self) -> None:
        progress = Progress(self.pace, 0.0)
        progress.received(1, 1.0)
        progress.excuse(1000.0)
        self.assertIsNone(progress.slowness(1150.0))
        self.assertEqual(progress.slowness(1181.0), Slowness.STALLED)

    @given(st.lists(st.tuples(st.floats(0.1, 60), st.integers(0, 100_000)), max_size=50), st.booleans())
    def test_before_its_deadline_no_progress_is_slow(self, pieces: list[tuple[float, int]], stress: bool) -> None:
        progress, now = Progress(self.pace, 0.0), 0.0
        for wait, octets in pieces:
            deadline = deadline_of(progress, stress=stress)
            now += wait
            slowness = progress.slowness(now, stress=stress)
            if slowness is not None:
                self.assertGreaterEqual(now, deadline)
                return
            progress.received(octets, now)
        self.assertGreater(deadline_of(progress, stress=stress), now)
