"""What rspamd answers to /checkv2, read from the octets of its HTTP answer with every bound that a stranger's would have."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.header import Header
from typing import Any

from mailserver.api import AddHeader, ChangeHeader, DropHeader, Edit, EditError, Headers
from mailserver.filters.scanner_client import ScannerFailed

__all__ = ["RspamdAnswer", "Symbol", "edits_of", "is_whole", "read_answer", "read_learnt"]

WORDS_CHARACTERS = 200
FIELDS_MOST = 50  # that are added to one message, and names of those that are removed
FIELDS_CHARACTERS_MOST = 32_768  # of all their values
SYMBOLS_MOST = 10_000  # of one answer, which are looked at
STATUS = re.compile(rb"HTTP/1\.[01] ([0-9]{3})[^\r\n]{0,200}\r\n")
LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,9})[ \t]*\r\n", re.IGNORECASE)
UNPRINTABLE = re.compile(r"[^ -~\u00a0-\u1fff\u2010-\u2027\u2030-\u205f\u2070-\ud7ff\uf900-\ufffd]+")
NAME = re.compile(r"[!-9;-~]{1,76}")
FOLD = re.compile(r"\r?\n[ \t]+")
CONTROL = re.compile(r"[\x00-\x1f\x7f]+")


@dataclass(frozen=True, slots=True)
class Symbol:
    """A rule that has matched, with what it says for people."""

    name: str
    score: float
    words: str


@dataclass(frozen=True, slots=True)
class RspamdAnswer:
    """`action` as rspamd writes it (``add header``); `symbols` by their weight, the heaviest first, whichever way it pulls.

    `message` is what it would say to the peer, `subject` the one that it wants, "" where it says nothing.  `added` and
    `removed` are its milter headers: name and value, name and place (0 for each of them, 1 for the first, -1 for the last).
    """

    action: str
    score: float
    required: float
    symbols: tuple[Symbol, ...]
    message: str = ""
    subject: str = ""
    added: tuple[tuple[str, str], ...] = ()
    removed: tuple[tuple[str, int], ...] = ()


def is_whole(octets: bytes) -> bool:
    """All of the HTTP answer is there, or it is none."""
    head, end, body = octets.partition(b"\r\n\r\n")
    if not end:
        return False
    length = LENGTH.search(head + b"\r\n")
    return length is None or len(body) >= int(length[1])


def read_learnt(octets: bytes) -> str:
    """What the controller has made of a message to be learnt: ``new`` or ``known``.  Raises `ScannerFailed` for a no."""
    status = STATUS.match(octets)
    if status is None:
        raise ScannerFailed("the answer of rspamd's controller is no HTTP")
    if status[1] == b"208":
        return "known"
    body = octets.partition(b"\r\n\r\n")[2]
    if status[1] == b"404" and b"already learned" in body:  # so says rspamd 3.4
        return "known"
    if status[1] != b"200":
        raise ScannerFailed(f"rspamd's controller answers {status[1].decode()}: {_words(body.decode('utf-8', 'replace'))}")
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        said = None
    if _mapping(said).get("success") is not True:
        raise ScannerFailed(f"rspamd has not learnt it: {_words(body.decode('utf-8', 'replace'))}")
    return "new"


def read_answer(octets: bytes) -> RspamdAnswer:
    """The answer.  Raises `ScannerFailed` for what is none."""
    status = STATUS.match(octets)
    head, _, body = octets.partition(b"\r\n\r\n")
    length = LENGTH.search(head + b"\r\n")
    if status is None or length is None:
        raise ScannerFailed("the answer of rspamd is no HTTP")
    body = body[: int(length[1])]
    if status[1] != b"200":
        raise ScannerFailed(f"rspamd answers {status[1].decode()}: {_words(body.decode('utf-8', 'replace'))}")
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        raise ScannerFailed("the answer of rspamd is no JSON") from None
    if not isinstance(said, dict) or not isinstance(said.get("action"), str):
        raise ScannerFailed("the answer of rspamd has no action")
    messages, milter = _mapping(said.get("messages")), _mapping(said.get("milter"))
    return RspamdAnswer(
        action=_words(said["action"]),
        score=_number(said.get("score")),
        required=_number(said.get("required_score", 0.0)),
        symbols=_symbols(_mapping(said.get("symbols"))),
        message=_words(messages.get("smtp_message", "")),
        subject=_text(said.get("subject", "")),
        added=_added(_mapping(milter.get("add_headers"))),
        removed=_removed(_mapping(milter.get("remove_headers"))),
    )


def edits_of(answer: RspamdAnswer, headers: Headers, *, utf8: bool) -> Sequence[Edit]:
    """The edits for its milter headers and its subject, for a message with these fields, the first Received of which is our own:
    rspamd has not seen that one, and it stays.

    A field is added in front; what is not there is not removed; a field that no message may have (one that is too long, say) is
    left out.  `utf8` is that the message came with SMTPUTF8: otherwise a value is encoded (RFC 2047).
    """
    edits: list[Edit] = []
    places: dict[str, set[int]] = {}
    for name, place in answer.removed:
        unseen = 1 if name.lower() == "received" else 0
        count = headers.count(name)
        if place == 0 and not unseen:
            edits += _made(DropHeader, name)
        elif place == 0:
            places.setdefault(name.lower(), set()).update(range(unseen, count))
        elif abs(place) <= count - unseen:
            places.setdefault(name.lower(), set()).add(unseen + place - 1 if place > 0 else count + place)
    dropped = {edit.name.lower() for edit in edits if isinstance(edit, DropHeader)}
    for name, found in places.items():
        if name not in dropped:
            for place in sorted(found, reverse=True):  # from the last on, so that the others keep their places
                edits += _made(ChangeHeader, name, place, None)
    for name, value in answer.added:
        edits += _made(AddHeader, name, _encoded(value, utf8))
    if answer.subject:
        edits += [*_made(DropHeader, "Subject"), *_made(AddHeader, "Subject", _encoded(answer.subject, utf8))]
    return edits


def _made(kind: Any, *arguments: Any) -> list[Edit]:
    try:
        return [kind(*arguments)]
    except EditError:
        return []


def _encoded(value: str, utf8: bool) -> str:
    if utf8 or value.isascii():
        return value
    return Header(value.replace("\r\n\t", " "), "utf-8").encode(linesep="\r\n")


# --- What stands in the JSON: of any type, of any length. ---


def _symbols(given: Mapping[str, Any]) -> tuple[Symbol, ...]:
    found = []
    for name, symbol in list(given.items())[:SYMBOLS_MOST]:
        facts = _mapping(symbol)
        options = facts.get("options")
        options = options[:20] if isinstance(options, list) else []
        words = ", ".join([option[:WORDS_CHARACTERS] for option in options if isinstance(option, str)])
        found.append(Symbol(_words(name) or "?", _number(facts.get("score", 0.0)), _words(words)))
    return tuple(sorted(found, key=lambda symbol: (-abs(symbol.score), symbol.name)))


def _added(given: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """A value is a text, or a text with its place, or several of those."""
    found: list[tuple[str, str]] = []
    characters = 0
    for name, values in given.items():
        if NAME.fullmatch(name) is None:
            continue
        for value in values if isinstance(values, list) else [values]:
            text = _text(value.get("value") if isinstance(value, dict) else value)
            characters += len(name) + len(text)
            if len(found) >= FIELDS_MOST or characters > FIELDS_CHARACTERS_MOST:
                return tuple(found)
            if text:
                found.append((name, text))
    return tuple(found)


def _removed(given: Mapping[str, Any]) -> tuple[tuple[str, int], ...]:
    found = [
        (name, place)
        for name, places in given.items()
        if NAME.fullmatch(name) is not None
        for place in (places if isinstance(places, list) else [places])
        if isinstance(place, int) and not isinstance(place, bool)
    ]
    return tuple(found[:FIELDS_MOST])


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _number(value: Any) -> float:
    try:
        number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    except OverflowError:
        number = math.nan
    if not math.isfinite(number):
        raise ScannerFailed("a score in the answer of rspamd is no number")
    return min(max(number, -1e6), 1e6)


def _words(value: Any) -> str:
    return UNPRINTABLE.sub("?", value[:WORDS_CHARACTERS]) if isinstance(value, str) else ""


def _text(value: Any) -> str:
    """The value of a field, folded as on the wire."""
    if not isinstance(value, str) or len(value) > FIELDS_CHARACTERS_MOST:
        return ""
    lines = [CONTROL.sub(" ", line).strip() for line in FOLD.split(value)]
    return "\r\n\t".join([line for line in lines if line]).encode("utf-8", "replace").decode()
