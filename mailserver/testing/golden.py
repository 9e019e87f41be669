"""Transcripts that a file keeps: what was said to and fro, compared with what was said when the file was written."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any

__all__ = ["UPDATE", "assert_golden", "without_what_changes"]

UPDATE = "MAILSERVER_GOLDEN"
CHANGES = (
    (re.compile(r"\b[0-9A-HJKMNP-TV-Z]{16}\b"), "<id>"),
    (re.compile(r"\w{3}, \d{1,2} \w{3} \d{4} \d\d:\d\d:\d\d [+-]\d{4}"), "<date>"),
)


def without_what_changes(lines: Sequence[str]) -> str:
    """The lines with marks in place of message ids and dates."""
    text = "".join(f"{line}\n" for line in lines)
    for pattern, mark in CHANGES:
        text = pattern.sub(mark, text)
    return text


def assert_golden(case: Any, lines: Sequence[str], path: str) -> None:
    """The lines must be those of the file.  ``MAILSERVER_GOLDEN=update`` in the environment writes it."""
    text = without_what_changes(lines)
    if os.environ.get(UPDATE) == "update":
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return
    try:
        with open(path, encoding="utf-8") as file:
            kept = file.read()
    except FileNotFoundError:
        case.fail(f"there is no {path}: {UPDATE}=update writes it")
    case.assertEqual(text, kept, f"{path} says otherwise; {UPDATE}=update writes it anew")
