"""Counters and histograms, as fast as they can be counted in Python.  Pure.

One thread counts; others read.  What a reader sees is as of a moment ago, each series by itself.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from mailserver.metrics.catalogue import METRICS, Metric

__all__ = ["Counters", "Histogram"]

SERIES_MOST = 300  # of one name; what comes then counts under the label values "other"
OTHER = "other"
LABEL_CHARACTERS = 60

Values = tuple[str, ...]


@dataclass(slots=True)
class Histogram:
    """`counts[n]` values were at most ``bounds[n]`` and above the bound before; the last one is for those above all."""

    bounds: tuple[float, ...]
    counts: list[int] = field(default_factory=list)
    sum: float = 0.0

    def __post_init__(self) -> None:
        self.counts = self.counts or [0] * (len(self.bounds) + 1)

    def observe(self, value: float) -> None:
        """Put a value in."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


class Counters:
    """Of a server.  The names are those of `METRICS`, without the prefix; label values come in the order of its labels.

    A wrong name or number of labels raises KeyError or ValueError: it is a fault of ours.
    """

    def __init__(self, metrics: Mapping[str, Metric] = METRICS) -> None:
        self._metrics = metrics
        self._counters: dict[str, dict[Values, float]] = {
            one.name: {} for one in metrics.values() if one.kind == "counter"
        }
        self._histograms: dict[str, dict[Values, Histogram]] = {
            one.name: {} if one.labels else {(): Histogram(one.bounds)} for one in metrics.values() if one.kind == "histogram"
        }

    def count(self, name: str, *values: str, by: float = 1) -> None:
        """Add to a counter."""
        series = self._counters[name]
        if values in series:
            series[values] += by
        else:
            values = self._bounded(name, series, values)
            series[values] = series.get(values, 0) + by

    def observe(self, name: str, value: float, *values: str) -> None:
        """Put a value into a histogram."""
        series = self._histograms[name]
        known = series.get(values)
        if known is None:
            values = self._bounded(name, series, values)
            known = series.setdefault(values, Histogram(self._metrics[name].bounds))
        known.observe(value)

    def counters(self) -> Iterator[tuple[Metric, Mapping[Values, float]]]:
        """Those that count, in the order of the table: copies."""
        for name, series in self._counters.items():
            yield self._metrics[name], dict(series)

    def histograms(self) -> Iterator[tuple[Metric, Mapping[Values, Histogram]]]:
        """The histograms, likewise."""
        for name, series in self._histograms.items():
            copies = {values: Histogram(one.bounds, list(one.counts), one.sum) for values, one in list(series.items())}
            yield self._metrics[name], copies

    def _bounded(self, name: str, series: Mapping[Values, object], values: Values) -> Values:
        if len(values) != len(self._metrics[name].labels):
            raise ValueError(f"{name} has the labels {self._metrics[name].labels}")
        if len(series) >= SERIES_MOST:
            return (OTHER,) * len(values)
        return tuple([value[:LABEL_CHARACTERS] for value in values])
