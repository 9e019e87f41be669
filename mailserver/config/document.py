"""From the octets of a file to a TOML document that is small enough to be looked at, whatever stands in it."""

from __future__ import annotations

import re
import tomllib
from typing import Any

from mailserver.config.fault import Fault

__all__ = ["FILE_OCTETS", "parse_document", "read_document"]

FILE_OCTETS = 4 * 1024 * 1024
LEVELS = 20  # of nested tables and lists; the deepest key has six
INTEGERS = range(-(2**63), 2**63)  # TOML 1.0: 64 bits
SYNTAX_PLACE = re.compile(r" \(at (?:line ([0-9]+), column [0-9]+|end of document)\)$")
TOO_DEEP = f"has more than {LEVELS} tables and lists within each other"


def read_document(octets: bytes, file: str) -> tuple[str, dict[str, Any]] | Fault:
    """The text and its document, or the first fault.  A byte order mark is allowed: editors of Windows write one."""
    if len(octets) > FILE_OCTETS:
        return Fault(file, 1, "", f"is larger than {FILE_OCTETS} octets")
    try:
        text = octets.removeprefix(b"\xef\xbb\xbf").decode("utf-8")
    except UnicodeDecodeError as error:
        return Fault(file, 1, "", f"is not UTF-8: {error.reason} at octet {error.start}")
    return parse_document(text, file)


def parse_document(text: str, file: str) -> tuple[str, dict[str, Any]] | Fault:
    """As `read_document`, for a text."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        return _syntax_fault(str(error), text, file)
    except RecursionError:
        return Fault(file, 1, "", TOO_DEEP)
    except ValueError:  # Python refuses numbers of more than 4300 digits
        return Fault(file, 1, "", "has a number that is out of range")
    words = _out_of_bounds(document)
    return (text, document) if not words else Fault(file, 1, "", words)


def _out_of_bounds(document: dict[str, Any]) -> str:
    """The fault in the depth or the numbers of a document, "" for none.  Without recursion, whatever the depth."""
    level: list[Any] = [document]
    for _ in range(LEVELS):
        below: list[Any] = []
        for value in level:
            for inner in value.values() if isinstance(value, dict) else value:
                if isinstance(inner, dict | list):
                    below.append(inner)
                elif isinstance(inner, int) and inner not in INTEGERS:
                    return "has a number that is out of range"
        level = below
    return TOO_DEEP if level else ""


def _syntax_fault(message: str, text: str, file: str) -> Fault:
    place = SYNTAX_PLACE.search(message)
    line = int(place[1]) if place and place[1] else text.count("\n") + 1
    sentence = SYNTAX_PLACE.sub("", message)
    return Fault(file, line, "", f"is not valid TOML: {sentence[:1].lower()}{sentence[1:]}")
