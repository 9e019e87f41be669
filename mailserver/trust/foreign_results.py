"""What another host says that it has found: an Authentication-Results payload, read (RFC 8601 section 2.2).

    authres-payload  =  [CFWS] authserv-id [CFWS authres-version] ( no-result / 1*resinfo ) [CFWS]
    resinfo          =  [CFWS] ";" methodspec [ CFWS reasonspec ] [ CFWS 1*propspec ]

`authentication_results` writes such fields.  Comments may be nested, values quoted; what stands in either is never taken for a
result of its own, and behind a quote or a comment without an end there is nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from mailserver.trust.authentication_results import MethodResult

__all__ = ["read_results"]

RESULTS_MOST = 50
PIECE = re.compile(r'"(?:[^"\\]|\\.)*"|[^"();\s=]+|\s+|[=();]', re.DOTALL)
IN_COMMENT = re.compile(r"[^()\\]+|\\.|[()]", re.DOTALL)
ESCAPED = re.compile(r"\\(.)", re.DOTALL)
NAME = re.compile(r"[a-z0-9_-]+")


def read_results(payload: str) -> tuple[MethodResult, ...]:
    """The results in their order, names and results in lower case; at most fifty.  What is none is left out.  Never raises."""
    found: list[MethodResult] = []
    for part in _parts(payload):
        one = _result(part)
        if one is not None and len(found) < RESULTS_MOST:
            found.append(one)
    return tuple(found)


def _parts(payload: str) -> list[list[str]]:
    """The words between the semicolons, quoted ones unquoted, ``=`` by itself; without the authserv-id."""
    parts: list[list[str]] = [[]]
    in_word = False
    for piece in _pieces(payload):
        is_word = piece not in (";", "=") and not piece.isspace()
        if piece == ";":
            parts.append([])
        elif piece == "=":
            parts[-1].append(piece)
        elif is_word:
            word = ESCAPED.sub(r"\1", piece[1:-1]) if piece[0] == '"' else piece
            if in_word:
                parts[-1][-1] += word
            else:
                parts[-1].append(word)
        in_word = is_word
    return parts[1:]


def _pieces(text: str) -> Iterator[str]:
    """Each comment is a blank."""
    place, depth = 0, 0
    while (found := (IN_COMMENT if depth else PIECE).match(text, place)) is not None:
        place = found.end()
        piece = found.group()
        if piece == "(":
            depth += 1
        elif piece == ")":
            depth = max(0, depth - 1)
            yield " "
        elif not depth:
            yield piece


def _result(words: list[str]) -> MethodResult | None:
    """From ``dmarc = pass header.from = example.org``."""
    if len(words) < 3 or words[1] != "=":
        return None
    method, result = words[0].lower().partition("/")[0], words[2].lower()
    if NAME.fullmatch(method) is None or NAME.fullmatch(result) is None:
        return None
    properties: dict[str, str] = {}
    for name, equals, value in zip(words[3:], words[4:], words[5:], strict=False):
        if equals == "=" and "=" not in (name, value):
            properties.setdefault(name.lower(), value)
    return MethodResult(method, result, properties, reason=properties.pop("reason", ""))
