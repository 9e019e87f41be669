"""Sizes and times as people write them."""

from __future__ import annotations

import math
import re
from typing import Any

__all__ = ["octets", "seconds"]

SIZE = re.compile(r"([0-9]{1,15})(?:\.([0-9]{1,3}))? ?([kKMGT]?)(?:i?B)?")
SIZE_UNITS = {"": 0, "k": 10, "K": 10, "M": 20, "G": 30, "T": 40}  # powers of two
DURATION = re.compile(r"(?:[0-9]{1,9}(?:\.[0-9]{1,6})?(?:ms|[smhdw]) ?)+")
DURATION_PART = re.compile(r"([0-9.]+)(ms|[smhdw])")
DURATION_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
SIZE_MOST = 1 << 50
TIME_MOST = 3660 * 86400.0


def octets(value: Any) -> int:
    """A size in octets, from ``52428800``, ``"50M"`` or ``"1.5G"``.  K, M, G and T are powers of 1024."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return _sensible_size(value)
    match = SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError('must be a size: a count of octets, or text such as "512K", "50M", "2G"')
    whole, fraction, unit = match.groups()
    shift = SIZE_UNITS[unit]
    return _sensible_size((int(whole) << shift) + int(float(f"0.{fraction or 0}") * (1 << shift)))


def _sensible_size(value: int) -> int:
    if value > SIZE_MOST:
        raise ValueError("is larger than any disk: at most 1024T")
    return value


def seconds(value: Any) -> float:
    """A time in seconds, from ``300``, ``"5m"``, ``"1h30m"`` or ``"5d"``."""
    if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0 and math.isfinite(value):
        return _sensible_time(float(value))
    if not isinstance(value, str) or DURATION.fullmatch(value.strip()) is None:
        raise ValueError('must be a time: seconds, or text such as "30s", "5m", "1h30m", "5d"')
    return _sensible_time(float(sum(float(number) * DURATION_UNITS[unit] for number, unit in DURATION_PART.findall(value))))


def _sensible_time(value: float) -> float:
    if value > TIME_MOST:
        raise ValueError("is longer than ten years")
    return value
