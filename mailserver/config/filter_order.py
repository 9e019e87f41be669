"""In which order filters are asked, and what they are called.  Pure.

A filter's name is what its table says, else the plugin's; a second table of one plugin without a name is ``denylist#2``.
A filter stands one level above the highest of those that it comes after.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from mailserver.config.fault_sentences import close_to

__all__ = ["filter_names", "levels_of", "order_faults"]


def filter_names(tables: Sequence[tuple[str, str | None]]) -> list[str]:
    """The name of each filter, from what its table says: `use` and `name`."""
    names: list[str] = []
    seen: Counter[str] = Counter()
    for use, name in tables:
        if name is None:
            seen[use] += 1
            name = use if seen[use] == 1 else f"{use}#{seen[use]}"
        names.append(name)
    return names


def order_faults(names: Sequence[str], after: Sequence[Sequence[str]]) -> list[tuple[int, str, str]]:
    """What is wrong with the names, and with those that each comes after: position, key and a sentence."""
    faults: list[tuple[int, str, str]] = []
    first: dict[str, int] = {}
    for n, name in enumerate(names):
        if name in first:
            faults.append((n, "name", f"{name!r} is the name of filter[{first[name]}], too"))
        first.setdefault(name, n)
    for n, others in enumerate(after):
        for other in others:
            if other not in first:
                known = [name for name in first if name != names[n]]
                faults.append((n, "after", f"there is no filter {other!r}" + close_to(other, known)))
    if not faults:
        circle = _circle(dict(zip(names, after, strict=True)))
        if circle:
            faults.append((first[circle[0]], "after", "goes round in a circle: " + " after ".join((*circle, circle[0]))))
    return faults


def _circle(after: Mapping[str, Sequence[str]]) -> list[str]:
    """Filters of which each comes after the next, and the last after the first; none where there is no such circle."""
    left = {name: set(others) for name, others in after.items()}
    while ready := [name for name, others in left.items() if not others & left.keys()]:
        for name in ready:
            del left[name]
    if not left:
        return []
    way = [next(iter(left))]
    while True:
        way.append(next(other for other in after[way[-1]] if other in left))
        if way[-1] in way[:-1]:
            return way[way.index(way[-1]) : -1]


def levels_of(names: Sequence[str], after: Sequence[Sequence[str]]) -> list[int]:
    """The level of each; 0 is asked first.  `order_faults` must have found nothing."""
    levels: dict[str, int] = {}
    left = dict(zip(names, after, strict=True))
    while left:
        for name in [name for name, others in left.items() if all(other in levels for other in others)]:
            levels[name] = max((levels[other] + 1 for other in left.pop(name)), default=0)
    return [levels[name] for name in names]
