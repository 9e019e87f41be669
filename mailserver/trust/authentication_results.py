"""Writes what was found about a message into its header: Authentication-Results (RFC 8601), Received-SPF (RFC 7208 section 9.1).

    authres-header   =  "Authentication-Results:" [CFWS] authserv-id [CFWS] ( no-result / 1*resinfo ) [CFWS] CRLF
    resinfo          =  [CFWS] ";" methodspec [ CFWS reasonspec ] [ CFWS 1*propspec ]
    propspec         =  ptype [CFWS] "." [CFWS] property [CFWS] "=" pvalue

Domains, selectors and reasons hold what strangers have written.  What is no word is quoted here, and what no quoted string may
hold becomes a question mark: nobody adds a result of his own.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mailserver.mail.quick import quick

__all__ = ["MethodResult", "authentication_results", "received_spf"]

LINE_CHARACTERS = 78
VALUE_CHARACTERS = 255
VALUE_KEPT = VALUE_CHARACTERS + 1  # of one that is too long for a word
REMEMBERED = 2000  # words, of those who send much
REASON_CHARACTERS = 120
RESULTS_MOST = 30
# What is both a token of RFC 2045 section 5.1 and a dot-atom of RFC 5322, which RFC 7208 asks for.
WORD = re.compile(r"[A-Za-z0-9!#$%&'*+^_`~\-]+(?:\.[A-Za-z0-9!#$%&'*+^_`~\-]+)*")
NOT_PRINTABLE = re.compile(r"[^ -~]")
NOT_IN_A_COMMENT = re.compile(r"[^ -'*-\[\]-~]")  # RFC 5322 section 3.2.2: ctext
ESCAPED = re.compile(r'(["\\])')


@quick
@dataclass(frozen=True, slots=True)
class MethodResult:
    """One result: ``spf=pass``.  `properties` are by ptype and property: ``{"smtp.mailfrom": "example.org"}``.

    `method`, `result`, `comment` and the names of the properties are ours; values and the `reason` may be anybody's.
    """

    method: str
    result: str
    properties: Mapping[str, str]
    reason: str = ""
    comment: str = ""


def authentication_results(server: str, results: Sequence[MethodResult]) -> str:
    """The value of the field, folded.  `server` is the authserv-id."""
    if not results:
        return f"{_word(server)}; none"
    lines = []
    for one in results[:RESULTS_MOST]:
        words = [f"{one.method}={one.result}"]
        if one.comment:
            words.append(f"({one.comment})")
        if one.reason:
            words.append(f"reason={_quoted(one.reason, REASON_CHARACTERS)}")
        words += [f"{name}={_word(value[:VALUE_KEPT])}" for name, value in one.properties.items() if value]
        lines.append(_wrapped(words))
    return ";\r\n\t".join([_word(server), *lines])


def received_spf(result: str, comment: str, values: Mapping[str, str]) -> str:
    """The value of the field, folded.  `values` are by the keys of section 9.1; those that are empty are left out."""
    pairs = [f"{key}={_word(value[:VALUE_KEPT])};" for key, value in values.items() if value]
    words = [result, f"({_in_comment(comment)})", *pairs]
    return _wrapped(words, len("Received-SPF: ")).removesuffix(";")


@functools.lru_cache(REMEMBERED)
def _word(value: str) -> str:
    return value if len(value) <= VALUE_CHARACTERS and WORD.fullmatch(value) else _quoted(value, VALUE_CHARACTERS)


def _quoted(text: str, most: int) -> str:
    text = NOT_PRINTABLE.sub("?", text[:most])
    return '"' + ESCAPED.sub(r"\\\1", text) + '"'


def _in_comment(text: str) -> str:
    return NOT_IN_A_COMMENT.sub("?", text[:VALUE_CHARACTERS])


def _wrapped(words: Iterable[str], column: int = 8) -> str:
    """Joined with blanks, or with a fold where a line would become too long; a tab is eight columns."""
    text = ""
    for word in words:
        if text and column + 1 + len(word) > LINE_CHARACTERS:
            text += "\r\n\t"
            column = 8
        elif text:
            text += " "
            column += 1
        text += word
        column += len(word)
    return text
