"""What commands say: tables for people, JSON for programs."""

from __future__ import annotations

import json
import shutil
import sys
import time
import unicodedata
from collections.abc import Sequence
from os import EX_IOERR
from typing import Any

__all__ = ["EX_IOERR", "Unable", "age", "as_json", "cells_of", "moment", "plain", "say", "size", "table"]

UNFIT = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})  # for a terminal: they move the cursor or turn the direction of writing
NARROWEST = 10  # columns of a cell that is cut


class Unable(Exception):
    """The command cannot be done.  `code` is the exit code."""

    def __init__(self, words: str, code: int = 1) -> None:
        super().__init__(words)
        self.code = code


def say(*lines: str) -> None:
    """Print lines to standard output."""
    for line in lines:
        sys.stdout.write(line + "\n")


def as_json(value: Any) -> None:
    """Print one JSON value to standard output.  What is not fit for a terminal is escaped: it is the same value."""
    text = json.dumps(value, ensure_ascii=False, indent=2)
    text = text.translate({ord(c): json.dumps(c)[1:-1] for c in set(text) if c != "\n" and unicodedata.category(c) in UNFIT})
    say(text if _is_encodable(text) else json.dumps(value, indent=2))


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table.  A column whose heading begins with a blank is aligned to the right.

    Empty columns are left out.  On a terminal the widest columns are cut until a row fits, but never the first.
    """
    say(*cells_of(headers, rows))


def cells_of(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of such a table."""
    shown = [n for n in range(len(headers)) if not rows or any(row[n] for row in rows)]
    titles = [headers[n] for n in shown]
    cells = [[plain(row[n]) for n in shown] for row in (headers, *rows)]
    widths = [max(_columns(row[n]) for row in cells) for n in range(len(shown))]
    if sys.stdout.isatty():
        _narrow(widths, shutil.get_terminal_size().columns)
    lines = []
    for row in cells:
        fitted = zip(row, widths, titles, strict=True)
        lines.append("  ".join(_padded(_cut(cell, width), width, title) for cell, width, title in fitted).rstrip())
    return lines


def plain(text: str) -> str:
    """Text from the wire made fit for a terminal: no control characters, none that turn the direction of writing."""
    return "".join(c if unicodedata.category(c) not in UNFIT else "?" for c in text)


def moment(seconds: float | None) -> str:
    """A time of day with its date, in the zone of the log and of `explain`, and with it; "" for none."""
    return "" if seconds is None else time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))


def age(seconds: float) -> str:
    """``3d 4h``, ``5m``, ``12s``: the two largest units."""
    whole = max(0, int(seconds))
    parts = [(whole // 86400, "d"), (whole // 3600 % 24, "h"), (whole // 60 % 60, "m"), (whole % 60, "s")]
    first = next((n for n, (count, _) in enumerate(parts) if count), len(parts) - 1)
    return " ".join(f"{count}{unit}" for count, unit in parts[first : first + 2] if count) or "0s"


def size(octets: int) -> str:
    """``812``, ``4.1K``, ``52M``."""
    value, unit = float(octets), ""
    for unit in ("", "K", "M", "G", "T"):
        if value < 1024 or unit == "T":
            break
        value /= 1024
    return f"{value:.0f}{unit}" if not unit or value >= 10 else f"{value:.1f}{unit}"


def _is_encodable(text: str) -> bool:
    """Whether standard output can write the text: it has no lone surrogate and no foreign character."""
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _columns(text: str) -> int:
    """Columns on a terminal: wide East Asian characters take two, combining ones none."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _narrow(widths: list[int], columns: int) -> None:
    """Make the widest narrower until all fit, with two blanks between them, or none can be."""
    over = sum(widths) + 2 * (len(widths) - 1) - columns
    while over > 0 and max(widths[1:], default=0) > NARROWEST:
        widths[widths.index(max(widths[1:]), 1)] -= 1
        over -= 1


def _cut(text: str, width: int) -> str:
    if _columns(text) <= width:
        return text
    while text and _columns(text) >= width:
        text = text[:-1]
    return text + "…"


def _padded(text: str, width: int, header: str) -> str:
    fill = " " * (width - _columns(text))
    return fill + text if header.startswith(" ") else text + fill
