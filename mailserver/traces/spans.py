"""Steps of a road as spans.  Pure: the same steps give the same spans with the same ids, however often they are told.

An id is the digest of what it stands for, so a collector that is told a span twice knows it again, and anybody can say which
trace belongs to a message.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Literal

from mailserver.mail.ids import time_of
from mailserver.observe.judged import FACTS
from mailserver.observe.roads import Step

__all__ = ["Detail", "TraceSpan", "root_span", "root_span_id", "spans_of", "trace_id"]

Detail = Literal["figures", "all"]
Value = str | bool | int | float | tuple[str, ...]
TEXT_CHARACTERS = 500  # of one attribute
LIST_ITEMS = 32
MICROSECONDS = 1_000_000
MILLISECOND = 0.001
ROOT = "message"
PREFIX = "mailserver."
FAILURES = frozenset({"failed", "refused", "damaged", "rejected", "handshake_failed", "login_failed", "timeout"})
# Fields that hold no word of a stranger's: neither addresses nor hosts nor texts.
FIGURES = frozenset({
    "attempt", "cipher", "condition", "errors", "filter", "group", "hold", "mechanism", "messages", "method", "ms",
    "overruled", "phase", "port", "released", "requiretls", "service", "shadow", "size", "stage", "verdict", "version",
})  # fmt: skip
CODE = re.compile(r"[2-5][0-9][0-9](?: [245]\.[0-9]{1,3}\.[0-9]{1,3})?(?= |$)")


@dataclass(frozen=True, slots=True)
class TraceSpan:
    """One span; times in nanoseconds since the epoch, ids as OpenTelemetry's (128 and 64 bits, never 0).  `parent` 0: none."""

    trace: int
    span: int
    parent: int
    name: str
    begin: int
    end: int
    attributes: dict[str, Value] = field(default_factory=dict)
    is_error: bool = False


def trace_id(message: str) -> int:
    """The trace of a message, by its id."""
    return _digest(16, "trace", message)


def root_span_id(message: str) -> int:
    """The span above all others of its trace."""
    return _digest(8, "root", message)


def spans_of(message: str, steps: Sequence[Step], *, detail: Detail) -> list[TraceSpan]:
    """One for each of these steps of a message, or of its connection.

    A step that says how long it took reaches back so far; `accepted` to when the message was given its id.  The others are
    moments.
    """
    seen: Counter[tuple[str, float, str]] = Counter()
    trace, parent, begin = trace_id(message), root_span_id(message), time_of(message)
    found = []
    for step in steps:
        key = (step.id, step.time, step.step)
        seen[key] += 1
        span = _digest(8, "span", message, *map(repr, key), str(seen[key]))
        start = max(0.0, min(step.time, _start(step, begin)))
        attributes = _attributes(step, detail)
        is_error = step.step in FAILURES or bool(step.fields.get("error"))
        found.append(TraceSpan(trace, span, parent, _name(step), _ns(start), _ns(step.time), attributes, is_error))
    return found


def root_span(message: str, steps: Sequence[Step], *, detail: Detail, service: str = "") -> TraceSpan:
    """The message as a whole, from when it was given its id to its last step; it is known when the message is over.

    `steps` are all of its own.  `service` is that of its connection.
    """
    counts = Counter(step.step for step in steps)
    attributes: dict[str, Value] = {PREFIX + "id": message}
    if service:
        attributes[PREFIX + "service"] = service
    outcomes = ("accepted", "delivered", "deferred", "failed", "refused", "discarded")
    attributes |= {PREFIX + "steps." + name: counts[name] for name in outcomes if counts[name]}
    accepted = next((step for step in steps if step.step == "accepted"), None)
    if accepted is not None:
        attributes |= _attributes(accepted, detail)
    begin = time_of(message)
    end = max([begin, *[step.time for step in steps]])
    is_error = bool(counts["failed"] or counts["damaged"]) or (accepted is None and bool(counts["refused"]))
    return TraceSpan(trace_id(message), root_span_id(message), 0, ROOT, _ns(begin), _ns(end), attributes, is_error)


def _digest(octets: int, *parts: str) -> int:
    digest = blake2b("\0".join(parts).encode("utf-8", "surrogatepass"), digest_size=octets, person=b"mailserver road").digest()
    return int.from_bytes(digest, "big") or 1


def _start(step: Step, begin: float) -> float:
    if step.step == "accepted":
        return begin
    took = step.fields.get("ms")
    is_since_arrival = step.step != "filter" and step.fields.get("attempt", 1) != 1  # the pauses between attempts are no work
    if isinstance(took, bool) or not isinstance(took, int | float) or is_since_arrival:
        return step.time
    return step.time - took * MILLISECOND


def _name(step: Step) -> str:
    name = step.fields.get("filter")
    return f"{step.step} {name[:TEXT_CHARACTERS]}" if step.step == "filter" and isinstance(name, str) else step.step


def _attributes(step: Step, detail: Detail) -> dict[str, Value]:
    named = _figures(step.fields) if detail == "figures" else step.fields.items()
    found: dict[str, Value] = {PREFIX + "id": step.id}
    for name, value in named:
        known = _value(value)
        if name != FACTS and known is not None:
            found[PREFIX + name] = known
    return found


def _figures(fields: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    for name, value in fields.items():
        if name in FIGURES:
            yield name, value
        elif name == "reply" and isinstance(value, str) and (code := CODE.match(value)) is not None:
            yield name, code[0]
        elif name == "recipients" and isinstance(value, list):
            yield name, len(value)


def _value(value: Any) -> Value | None:
    """None where there is nothing to say."""
    match value:
        case None | "" | []:
            return None
        case bool() | int() | float():
            return value if not isinstance(value, int) or abs(value) < 1 << 63 else str(value)
        case str():
            return _text(value)
        case list():
            return tuple([_text(str(one)) for one in value[:LIST_ITEMS]])
    return _text(str(value))


def _text(value: str) -> str:
    return value[:TEXT_CHARACTERS].encode("utf-8", "replace").decode()  # half of a pair cannot be sent


def _ns(seconds: float) -> int:
    return round(seconds * MICROSECONDS) * 1_000  # a float has no more
