"""What commands say: tables for people, JSON for programs."""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Sequence
from datetime import datetime
from typing import Any

__all__ = ["EX_IOERR", "Unable", "age", "as_json", "moment", "plain", "say", "size", "table"]

EX_IOERR = 74


class Unable(Exception):
    """The command cannot be done; `code` is what the process exits with."""

    def __init__(self, words: str, code: int = 1) -> None:
        super().__init__(words)
        self.code = code


def say(*lines: str) -> None:
    """Lines to standard output."""
    for line in lines:
        sys.stdout.write(line + "\n")


def as_json(value: Any) -> None:
    """One JSON value to standard output."""
    text = json.dumps(value, ensure_ascii=False, indent=2)
    say(text if _is_encodable(text) else json.dumps(value, indent=2))


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns as wide as they have to be, numbers to the right where the heading begins with a blank."""
    cells = [[plain(cell) for cell in row] for row in (headers, *rows)]
    widths = [max(_columns(row[n]) for row in cells) for n in range(len(headers))]
    for row in cells:
        say(
            "  ".join(
                _padded(cell, width, headers[n]) for n, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
        )


def plain(text: str) -> str:
    """Text from the wire made fit for a terminal: no control characters, none that turn the direction of writing."""
    return "".join(c if unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Zl", "Zp") else "?" for c in text)


def moment(seconds: float | None) -> str:
    """A time of day with its date, in the local zone; "" for none."""
    return "" if seconds is None else datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S")


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
    """No lone surrogate is in it, and no character that standard output cannot write."""
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _columns(text: str) -> int:
    """Columns on a terminal: wide East Asian characters take two, combining ones none."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _padded(text: str, width: int, header: str) -> str:
    fill = " " * (width - _columns(text))
    return fill + text if header.startswith(" ") else text + fill
