"""One step or one log event as a line of text or of JSON.

Much of what is logged was said by a peer.  A value is written bare only where every character is harmless printable ASCII.  Any
other value is quoted, and its control characters, changes of writing direction and line ends are escaped.  So nothing that a
peer says can command a terminal, end its line or look like another field.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from json.encoder import encode_basestring, encode_basestring_ascii
from typing import Any

from mailserver.mail.json_text import json_text

__all__ = ["Stamps", "as_text", "encode_fields", "json_event", "json_step", "text_event", "text_step", "text_value"]

FIELDS_OCTETS = 16_384  # of one step; above this long values are cut
VALUE_CHARACTERS = 1000
LIST_ITEMS = 100
BARE = re.compile(r"[!#-+\--\[\]-~]+").fullmatch  # printable ASCII without blank, double quote, comma and backslash
ONLY_TEXT = {str}
ADDRESSES = frozenset({"sender", "recipient", "recipients"})  # shown in angle brackets, as on the wire


def as_text(value: object) -> str:
    """The text of a value of an unexpected type.  Never raises: a plugin's object must not lose a step."""
    try:
        return value if isinstance(value, str) else repr(value) if isinstance(value, bytes) else str(value)
    except Exception as error:  # noqa: BLE001 anybody's __str__
        return f"({type(value).__name__} without a text: {type(error).__name__})"


encode_json = json_text(allow_nan=False, default=as_text)
ENDS = tuple([f".{n:03d}Z" for n in range(1000)])


class Stamps:
    """Formats times as ``2026-11-23T01:02:03.456Z``.  The part up to the second is made once a second."""

    __slots__ = ("_second", "_text")

    def __init__(self) -> None:
        self._second = -1
        self._text = ""

    def __call__(self, moment: float) -> str:
        milliseconds = int(moment * 1000)
        second = milliseconds // 1000
        if second != self._second:
            self._second = second
            self._text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return self._text + ENDS[milliseconds % 1000]


def encode_fields(fields: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """The fields as a JSON object in ASCII, and the fields themselves.  Both are cut where they are too long."""
    try:
        encoded = encode_json(fields)
    except (ValueError, TypeError, RecursionError):  # not a number, or an odd container
        fields = {name: as_text(value) for name, value in fields.items()}
        encoded = encode_json(fields)
    if len(encoded) <= FIELDS_OCTETS:
        return encoded, fields
    fields = {name: _cut(value) for name, value in fields.items()}
    return encode_json(fields), fields


def json_step(stamp: str, id: str, step: str, encoded: str) -> str:
    """One line of JSON; `encoded` is what `encode_fields` made."""
    rest = "," + encoded[1:] if len(encoded) > 2 else "}"
    return f'{{"time":"{stamp}","id":{encode_basestring_ascii(id)},"step":{encode_basestring_ascii(step)}{rest}\n'


def text_step(stamp: str, id: str, step: str, fields: Mapping[str, Any]) -> str:
    """One line of text: ``time id step name=value …``; an empty field is left out, but for the null sender."""
    parts, texts = [stamp, id, step], [id, step]
    for name, value in fields.items():
        kind = type(value)
        if kind is str:
            if value or name == "sender":
                texts.append(value)
                parts.append(f"{name}=<{value}>" if name in ADDRESSES else f"{name}={value}")
        elif kind is int or kind is float:
            parts.append(f"{name}={value}")
        elif kind is list and value and {*map(type, value)} == ONLY_TEXT:
            texts += value
            parts.append(f"{name}=<{'>,<'.join(value)}>" if name in ADDRESSES else f"{name}={','.join(value)}")
        elif value is not None:
            return _careful_step(stamp, id, step, fields)
    # One check over all texts together: nearly every line is harmless as it is.
    return " ".join(parts) + "\n" if BARE("".join(texts)) else _careful_step(stamp, id, step, fields)


def _careful_step(stamp: str, id: str, step: str, fields: Mapping[str, Any]) -> str:
    parts = [stamp, id if BARE(id) else _quoted(id), step if BARE(step) else _quoted(step)]
    for name, value in fields.items():
        if type(value) is str:
            if not value and name != "sender":
                continue
            if name in ADDRESSES:
                value = f"<{value}>"
            parts.append(f"{name}={value}" if BARE(value) else f"{name}={_quoted(value)}")
        elif value is not None:
            parts.append(f"{name}={text_value(value, name in ADDRESSES)}")
    return " ".join(parts) + "\n"


def text_value(value: Any, is_address: bool = False) -> str:
    """A field's value in a line of text."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, list | tuple):
        return ",".join([text_value(item, is_address) for item in value]) or "-"
    text = f"<{as_text(value)}>" if is_address else as_text(value)
    return text if BARE(text) else _quoted(text)


def json_event(stamp: str, level: str, namespace: str, text: str, traceback: str) -> str:
    """A line of JSON for an event that is not a step: starts, warnings, failures.  The traceback is one field."""
    event = {"time": stamp, "level": level, "logger": namespace, "text": text}
    if traceback:
        event["traceback"] = traceback
    return encode_json(event) + "\n"


def text_event(stamp: str, level: str, namespace: str, text: str, traceback: str) -> str:
    """The same in text.  In place of an id it has "-".  Further lines and the traceback are indented, to show that they go on."""
    first, *more = _lines(text) or [""]
    source = f" [{_escaped(namespace)}]" if namespace else ""
    lines = [f"{stamp} - {level}{source} {first}", *["    " + line for line in (*more, *_lines(traceback))]]
    return "\n".join(lines) + "\n"


def _lines(text: str) -> list[str]:
    return [_escaped(line) for line in text.rstrip().split("\n")] if text else []


def _escaped(text: str) -> str:
    return text if text.isprintable() else encode_basestring_ascii(text)[1:-1]


def _quoted(text: str) -> str:
    # isprintable is false for controls, line ends, direction marks and lone surrogates.
    return encode_basestring(text) if text.isprintable() else encode_basestring_ascii(text)


def _cut(value: Any) -> Any:
    if isinstance(value, str) and len(value) > VALUE_CHARACTERS:
        return f"{value[:VALUE_CHARACTERS]}… ({len(value)} characters)"
    if isinstance(value, list | tuple):
        short = [_cut(item) for item in value[:LIST_ITEMS]]
        return [*short, f"… ({len(value)} in all)"] if len(value) > LIST_ITEMS else short
    if isinstance(value, str | int | float | None):
        return value
    return _cut(as_text(value))
