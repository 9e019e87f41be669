"""What a component counts: `Services.metrics`.

Counters, gauges and histograms by short names, with labels.  Both are bounded: a label that takes a value from outside (a
domain, an address) would grow for ever, so that beyond `SERIES_MOST` series of a component all others go into one with the
label values ``other``.
"""

from __future__ import annotations

import bisect
import math
import re
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["BUCKETS", "Metrics", "Series"]

SERIES_MOST = 200
NAMES_MOST = 50
LABEL_CHARACTERS = 64
NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)  # seconds; above the last: the rest

Labels = tuple[tuple[str, str], ...]
Kind = Literal["counter", "gauge", "histogram"]


@dataclass(slots=True)
class Series:
    """One name with one set of labels.

    `value` is a histogram's sum; `buckets` how many of its values were at most each of `BUCKETS` and above the one before.
    """

    kind: Kind
    name: str
    labels: Labels
    value: float = 0.0
    count: int = 0
    buckets: list[int] = field(default_factory=list)

    @property
    def text(self) -> str:
        """``name{label="value"}``, or the name alone."""
        return self.name + ("{" + ",".join(f'{key}="{value}"' for key, value in self.labels) + "}" if self.labels else "")


class Metrics:
    """Of one component.  From any thread; a wrong name or value raises at who counts (ValueError, TypeError)."""

    def __init__(self) -> None:
        self._series: dict[tuple[str, Labels], Series] = {}
        self._kinds: dict[str, Kind] = {}
        self._lock = threading.Lock()
        self.folded = 0
        """How many values went into ``other``, for there were too many series."""

    def count(self, name: str, /, by: float = 1, **labels: str) -> None:
        """Add to a counter, which never falls."""
        if not by >= 0 or math.isinf(by):
            raise ValueError(f"{name}: a counter does not grow by {by!r}")
        with self._lock:
            series = self._one("counter", name, labels)
            series.value = _sum(series.value, by)

    def gauge(self, name: str, value: float, /, **labels: str) -> None:
        """Set a gauge."""
        number = float(value)
        if not math.isfinite(number):
            raise ValueError(f"{name}: {value!r} is no value")
        with self._lock:
            self._one("gauge", name, labels).value = number

    def observe(self, name: str, value: float, /, **labels: str) -> None:
        """Put a value, in seconds, into a histogram."""
        number = float(value)
        if not math.isfinite(number):
            raise ValueError(f"{name}: {value!r} is no value")
        with self._lock:
            series = self._one("histogram", name, labels)
            series.buckets = series.buckets or [0] * (len(BUCKETS) + 1)
            series.buckets[bisect.bisect_left(BUCKETS, number)] += 1
            series.value = _sum(series.value, number)
            series.count += 1

    def series(self) -> list[Series]:
        """All there is, by name: copies, for whoever exports them."""
        with self._lock:
            return [
                Series(one.kind, one.name, one.labels, one.value, one.count, list(one.buckets))
                for _, one in sorted(self._series.items())
            ]

    def figures(self) -> Mapping[str, float]:
        """For people: a counter's or gauge's value, a histogram's count and mean, by ``name{label="value"}``."""
        found: dict[str, float] = {}
        for one in self.series():
            if one.kind == "histogram":
                found[one.text + ".count"] = one.count
                found[one.text + ".mean"] = one.value / one.count
            else:
                found[one.text] = int(one.value) if one.value.is_integer() else one.value
        return found

    def _one(self, kind: Kind, name: str, labels: Mapping[str, Any]) -> Series:
        pairs = [(label, str(value)[:LABEL_CHARACTERS]) for label, value in labels.items()]
        key = name, tuple(sorted(pairs) if len(pairs) > 1 else pairs)
        known = self._series.get(key)
        if known is None:
            known = self._new(kind, name, key[1])
        if known.kind != kind:
            raise TypeError(f"{name} is a {known.kind}, no {kind}")
        return known

    def _new(self, kind: Kind, name: str, labels: Labels) -> Series:
        for word in (name, *(label for label, _ in labels)):
            if not NAME.fullmatch(word):
                raise ValueError(f"{word!r} is no name for a metric: lower-case letters, digits, _")
        if name not in self._kinds and len(self._kinds) >= NAMES_MOST:
            raise ValueError(f"{name}: a component has at most {NAMES_MOST} metrics")
        if self._kinds.setdefault(name, kind) != kind:
            raise TypeError(f"{name} is a {self._kinds[name]}, no {kind}")
        if len(self._series) >= SERIES_MOST:
            self.folded += 1
            labels = tuple((label, "other") for label, _ in labels)
        return self._series.setdefault((name, labels), Series(kind, name, labels))


def _sum(value: float, more: float) -> float:
    """Never beyond the greatest number: what is infinite is no figure for whoever reads it."""
    return max(-sys.float_info.max, min(sys.float_info.max, value + more))
