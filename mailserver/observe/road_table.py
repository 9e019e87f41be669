"""A road as a table for people."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from mailserver.observe.judged import FACTS
from mailserver.observe.lines import ADDRESSES, text_value
from mailserver.observe.roads import Step

__all__ = ["format_road"]


def format_road(steps: Sequence[Step], remarks: Callable[[Step], Sequence[str]] = lambda step: ()) -> list[str]:
    """One line for each step: the time since the first one, whether it is the connection's, the step and its fields.

    Below it, indented, are the `remarks` about it: our own words.
    """
    if not steps:
        return []
    connections = {step.fields["connection"] for step in steps if "connection" in step.fields}
    ids = list(dict.fromkeys(step.id for step in steps if step.id not in connections)) or [steps[0].id]
    begin = steps[0].time
    lines = [f"{text_value(', '.join(ids))}  {_moment(begin)}"]
    offsets = [_offset(step.time - begin) for step in steps]
    offset_width = max(map(len, offsets))
    step_width = max(len(step.step) for step in steps)
    for offset, step in zip(offsets, steps, strict=True):
        mark = "connection" if step.id in connections else ""
        fields = "  ".join(
            f"{name}={text_value(value, name in ADDRESSES)}"
            for name, value in step.fields.items()
            if name not in ("connection", FACTS) and (name == "sender" or value not in (None, "", []))
        )
        lines.append(f"{offset:>{offset_width}}  {mark:<10}  {text_value(step.step):<{step_width}}  {fields}".rstrip())
        lines += [f"{'':>{offset_width}}  {'':<10}  {remark}" for remark in remarks(step)]
    return lines


def _offset(seconds: float) -> str:
    if seconds < 10:
        return f"{seconds * 1000:.1f} ms"
    if seconds < 600:
        return f"{seconds:.1f} s "
    minutes = int(seconds // 60)
    return f"{minutes // 60} h {minutes % 60:02d} m "


def _moment(seconds: float) -> str:
    milliseconds = int(seconds * 1000)
    clock = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(milliseconds // 1000))
    return f"{clock}.{milliseconds % 1000:03d} UTC"
