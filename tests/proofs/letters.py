"""Messages that can tell whether they are whole, and what of them stands in Maildirs."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Found", "letter", "look"]

MARK = re.compile(rb"^X-Number: (\S+)\n", re.MULTILINE)
SUM = re.compile(rb"^X-Sum: (\w+)\n", re.MULTILINE)


def letter(number: str, octets: int) -> bytes:
    """A message with its number and the checksum of its body, CRLF; the last line has no end."""
    line = number.encode().ljust(76, b".") + b"\r\n"
    body = line * (octets // len(line)) + b"the end"
    return b"Subject: %b\r\nX-Number: %b\r\nX-Sum: %b\r\n\r\n%b" % (
        number.encode(), number.encode(), checksum(body).encode(), body,
    )  # fmt: skip


def checksum(body: bytes) -> str:
    return hashlib.sha256(body.replace(b"\r\n", b"\n").rstrip(b"\n")).hexdigest()


@dataclass(slots=True)
class Found:
    """How often each (number, user) is there, of which messages a report has come, and what is no message at all."""

    letters: Counter[tuple[str, str]] = field(default_factory=Counter)
    reports: Counter[str] = field(default_factory=Counter)
    torn: list[str] = field(default_factory=list)


def look(boxes: Mapping[str, Path]) -> Found:
    """Read these users' Maildirs."""
    found = Found()
    for user, box in boxes.items():
        for path in [*(box / "new").glob("*"), *(box / "cur").glob("*")]:
            data = path.read_bytes().replace(b"\r\n", b"\n")
            head, _, body = data.partition(b"\n\n")
            head += b"\n"
            mark, digest = MARK.search(head), SUM.search(head)
            if re.search(rb"^Content-Type:\s*multipart/report", head, re.MULTILINE | re.IGNORECASE):
                numbers = set(MARK.findall(body))
                found.reports.update(number.decode() for number in numbers)
                if not numbers or b"Action: failed" not in body or not body.rstrip().endswith(b"--"):
                    found.torn.append(f"{path} (a report of {len(data)} octets)")
            elif mark is None or digest is None or checksum(body) != digest[1].decode():
                found.torn.append(f"{path} ({len(data)} octets)")
            else:
                found.letters[mark[1].decode(), user] += 1
    return found
