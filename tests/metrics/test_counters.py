"""Counting: counters, histograms, and what steps of roads come to."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailserver.metrics.counters import SERIES_MOST, Counters, Histogram
from mailserver.metrics.health import ServerFacts, reasons_against
from mailserver.metrics.meter import Meter


class Counting(SynchronousTestCase):
    def setUp(self) -> None:
        self.counters = Counters()

    def series(self, name: str) -> dict[tuple[str, ...], float]:
        return next(dict(series) for metric, series in self.counters.counters() if metric.name == name)

    def test_a_value_counts_in_the_bucket_whose_bound_it_does_not_pass(self) -> None:
        histogram = Histogram((1.0, 2.0))
        for value in (0.5, 1.0, 1.5, 2.0, 9.0):
            histogram.observe(value)
        self.assertEqual((histogram.counts, histogram.sum), ([2, 2, 1], 14.0))

    def test_labels_are_bounded_in_number_and_in_length(self) -> None:
        for n in range(SERIES_MOST + 50):
            self.counters.count("filter_errors_total", f"{n:03}" + "x" * 100)
        series = self.series("filter_errors_total")
        self.assertEqual((len(series), series[("other",)]), (SERIES_MOST + 1, 50))
        self.assertTrue(all(len(value) <= 60 for (value,) in series))

    def test_a_name_or_a_number_of_labels_that_the_table_has_not_is_a_fault(self) -> None:
        self.assertRaises(KeyError, self.counters.count, "nonsense_total")
        self.assertRaises(ValueError, self.counters.count, "connections_total")
        self.assertRaises(ValueError, self.counters.observe, "filter_seconds", 1.0)

    def test_steps_come_to_figures(self) -> None:
        meter = Meter(self.counters)

        def step(id: str, name: str, **fields: Any) -> tuple[float, str, str, Any]:
            return 0.0, id, name, fields

        portion = [
            step("C1", "connected", service="mx", peer="192.0.2.1"),
            step("C2", "connected", service="submission"),
            step("C2", "encrypted", version="TLSv1.3", cipher="x", group="X25519"),
            step("C2", "login", method="PLAIN"),
            step("C2", "login_failed", why="LOGIN: the credentials are wrong"),
            step("M1", "accepted", connection="C1", recipients=["a", "b"], size=100),
            step("M2", "accepted", connection="C2", recipients=["a"], size=10),
            step("M3", "accepted", recipients=["a"], size=1),
            step("R1", "refused", connection="C1", stage="rcpt", reply="550 5.1.1 no"),
            step("C1", "rejected", reply="nonsense"),
            step("M1", "filter", filter="spf", verdict="Pass", ms=2.0, error=""),
            step("M1", "filter", filter="spf", verdict="", ms=2.0, error="boom"),
            step("M1", "delivered", ms=50),
            step("M1", "deferred"),
            step("C1", "timeout"),
            step("C1", "closed"),
            step("C1", "something else"),
        ]
        for _, id, name, fields in portion:
            meter.take(id, name, fields)
        found = {metric.name: dict(series) for metric, series in self.counters.counters() if series}
        self.assertEqual(found["connections_total"], {("mx",): 1, ("submission",): 1})
        self.assertEqual(found["messages_received_total"], {("mx",): 1, ("submission",): 1, ("local",): 1})
        self.assertEqual(found["recipients_received_total"], {("mx",): 2, ("submission",): 1, ("local",): 1})
        self.assertEqual(found["received_bytes_total"], {("mx",): 100, ("submission",): 10, ("local",): 1})
        self.assertEqual(found["refusals_total"], {("mx", "rcpt", "550"): 1})
        self.assertEqual(found["connections_rejected_total"], {("mx", ""): 1})
        self.assertEqual(found["connection_timeouts_total"], {("mx",): 1})
        self.assertEqual(found["logins_total"], {("PLAIN", "success"): 1, ("LOGIN", "failed"): 1})
        self.assertEqual(found["tls_handshakes_total"], {("client", "TLSv1.3", "X25519", "success"): 1})
        self.assertEqual(found["filter_verdicts_total"], {("spf", "Pass"): 1})
        self.assertEqual(found["filter_errors_total"], {("spf",): 1})
        self.assertEqual(found["deliveries_total"], {("delivered",): 1, ("delayed",): 1})

    def test_why_mail_is_not_taken_is_told_with_every_reason(self) -> None:
        self.assertEqual(reasons_against(ServerFacts()), [])
        reasons = reasons_against(
            ServerFacts(has_started=False, is_writable=False, has_room=False, silent=("tcp:25",), lag_seconds=7)
        )
        self.assertEqual(len(reasons), 5)
        self.assertIn("nobody listens on tcp:25", reasons)
        self.assertEqual(reasons_against(ServerFacts(stops=True, has_started=False)), ["the server stops"])
        self.assertEqual(reasons_against(ServerFacts(damage="bad pages", is_writable=False)), ["the queue is damaged: bad pages"])
