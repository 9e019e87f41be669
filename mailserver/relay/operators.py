"""Whose hosts are whose: the operators whose hosts share one pace, and the limits of each destination.  A pure table.

The exchangers of a large operator have many names and count together what comes from us.  `PaceTable.of` says of a host's name
under which name its pace is kept, and with which limits: the operator's, else those of the host alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

__all__ = ["OPERATORS", "Operator", "PaceLimit", "PaceTable"]


@dataclass(frozen=True, slots=True)
class PaceLimit:
    """Connections at once, messages on one of them, messages a minute over all of them (0: as many as go)."""

    connections: int = 20
    messages: int = 100
    per_minute: float = 0.0


@dataclass(frozen=True, slots=True)
class Operator:
    """Hosts that share one pace: those whose name is one of `suffixes` or ends with ``.`` and it.

    None for a limit: as for every other destination.
    """

    name: str
    suffixes: tuple[str, ...]
    connections: int | None = None
    messages: int | None = None
    per_minute: float | None = None


# The machines of its customers have names below comcast.net, too.
COMCAST = tuple([f"mx{n}{place}.comcast.net" for n in (1, 2) for place in ("", "a1", "c1", "h1")])

# What the operators publish of themselves is little; where a limit stands here, it is one that they are known to enforce.
OPERATORS = (
    Operator("google", ("google.com", "googlemail.com", "psmtp.com")),
    Operator("microsoft", ("outlook.com", "mx.microsoft", "hotmail.com")),
    Operator("yahoo", ("yahoodns.net",), messages=20),
    Operator("apple", ("icloud.com", "apple.com")),
    Operator("proofpoint", ("pphosted.com", "ppe-hosted.com")),
    Operator("mimecast", ("mimecast.com",)),
    Operator("comcast", COMCAST),
    Operator("gmx", ("gmx.net", "web.de", "kundenserver.de", "perfora.net")),
    Operator("telekom", ("t-online.de",)),
    Operator("mail.ru", ("mail.ru",)),
    Operator("yandex", ("yandex.ru", "yandex.net")),
    Operator("qq", ("qq.com",)),
)


class PaceTable:
    """The limits by host.  `operators` come after those that are known already: who has the same name takes its place.

    One without suffixes keeps those of its namesake.  Raises ValueError where there is none.
    """

    def __init__(self, default: PaceLimit, operators: Iterable[Operator] = (), *, known: Iterable[Operator] = OPERATORS) -> None:
        self.default = default
        by_name = {one.name: one for one in known}
        for one in operators:
            namesake = by_name.get(one.name)
            if not one.suffixes:
                if namesake is None:
                    raise ValueError(f"pace {one.name!r} names no hosts, and none are known by that name")
                one = replace(one, suffixes=namesake.suffixes)
            by_name.pop(one.name, None)
            by_name[one.name] = one
        self._by_suffix: dict[str, Operator] = {}
        for one in by_name.values():
            for suffix in one.suffixes:
                self._by_suffix[suffix.lower().strip(".")] = one

    def of(self, host: str) -> tuple[str, PaceLimit, bool]:
        """The name under which the host's pace is kept, its limits, and whether it shares them with other hosts."""
        name = host.lower().rstrip(".")
        rest = name
        while rest:  # the longest suffix wins
            operator = self._by_suffix.get(rest)
            if operator is not None:
                return operator.name, self._limit(operator), True
            rest = rest.partition(".")[2]
        return name, self.default, False

    def _limit(self, operator: Operator) -> PaceLimit:
        default = self.default
        return PaceLimit(
            default.connections if operator.connections is None else operator.connections,
            default.messages if operator.messages is None else operator.messages,
            default.per_minute if operator.per_minute is None else operator.per_minute,
        )
