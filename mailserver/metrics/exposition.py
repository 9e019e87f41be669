"""Counters in Prometheus' text format, or in OpenMetrics' where the one who asks wants it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector, CollectorRegistry

from mailserver.metrics.catalogue import METRICS, PREFIX, Metric
from mailserver.metrics.counters import Counters, Histogram
from mailserver.metrics.gauge import Gauge
from mailserver.plugins.metrics import BUCKETS, Series

__all__ = ["exposed"]

COMPONENT_SERIES_MOST = 2_000  # of all components
COMPONENT_PREFIX = "mailserver_component_"


def exposed(
    figures: Counters, gauges: Iterable[Gauge], components: Mapping[str, Sequence[Series]], accept: str
) -> tuple[bytes, str]:
    """The text and its media type.  `components` are the series of each component by its name; `accept` is the header."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collected(figures, list(gauges), components))
    encode, media_type = choose_encoder(accept)
    text: bytes = encode(registry)
    return text, media_type


class _Collected(Collector):
    def __init__(
        self, figures: Counters, gauges: Sequence[Gauge], components: Mapping[str, Sequence[Series]]
    ) -> None:
        self._figures = figures
        self._gauges = gauges
        self._components = components

    def collect(self) -> Iterable[Any]:
        """All families."""
        read = {gauge.name for gauge in self._gauges}
        for metric, series in self._figures.counters():
            if metric.name not in read:
                yield _of_counter(metric, series)
        for metric, histograms in self._figures.histograms():
            yield _of_histogram(metric, histograms)
        yield from _of_gauges(self._gauges)
        yield from _of_components(self._components)


def _of_counter(metric: Metric, series: Mapping[tuple[str, ...], float]) -> Any:
    family = CounterMetricFamily(PREFIX + metric.name.removesuffix("_total"), metric.help, labels=metric.labels)
    for values, value in series.items() or ([((), 0.0)] if not metric.labels else []):
        family.add_metric(values, value)
    return family


def _of_histogram(metric: Metric, series: Mapping[tuple[str, ...], Histogram]) -> Any:
    family = HistogramMetricFamily(PREFIX + metric.name, metric.help, labels=metric.labels)
    for values, histogram in series.items():
        family.add_metric(values, _buckets(metric.bounds, histogram.counts), histogram.sum)
    return family


def _buckets(bounds: Sequence[float], counts: Sequence[int]) -> list[tuple[str, float]]:
    """With the counts of all below, as Prometheus wants them."""
    found, below = [], 0
    for bound, count in zip([*map(str, bounds), "+Inf"], counts, strict=True):
        below += count
        found.append((bound, float(below)))
    return found


def _of_gauges(gauges: Sequence[Gauge]) -> Iterable[Any]:
    families: dict[str, Any] = {}
    for gauge in gauges:
        metric = METRICS[gauge.name]
        family = families.get(gauge.name)
        if family is None:
            if metric.kind == "counter":
                family = CounterMetricFamily(PREFIX + metric.name.removesuffix("_total"), metric.help, labels=metric.labels)
            else:
                family = GaugeMetricFamily(PREFIX + metric.name, metric.help, labels=metric.labels)
            families[gauge.name] = family
        family.add_metric(gauge.labels, gauge.value)
    return families.values()


def _of_components(components: Mapping[str, Sequence[Series]]) -> Iterable[Any]:
    """What components count by themselves: a name that two give different labels or kinds has the first one's."""
    families: dict[str, tuple[Any, tuple[str, ...], str]] = {}
    series = [(name, one) for name, found in components.items() for one in found]
    for component, one in series[:COMPONENT_SERIES_MOST]:
        labels = tuple([label for label, _ in one.labels])
        known = families.setdefault(one.name, (_family(one, labels), labels, one.kind))
        if known[1:] != (labels, one.kind):
            continue
        values = (component, *[value for _, value in one.labels])
        if one.kind == "histogram":
            known[0].add_metric(values, _buckets(BUCKETS, one.buckets), one.value)
        else:
            known[0].add_metric(values, one.value)
    return [family for family, _, _ in families.values()]


def _family(one: Series, labels: Sequence[str]) -> Any:
    kinds = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily, "histogram": HistogramMetricFamily}
    name = COMPONENT_PREFIX + one.name.removesuffix("_total")
    return kinds[one.kind](name, "Counted by a component of the configuration.", labels=("component", *labels))
