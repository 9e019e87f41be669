"""Checks what a plugin's delivery returns before it goes into the store, into reports and into the log.

An outcome with a member of a wrong type is unsound, and whoever asked defers that destination alone.  Text is cleaned and cut.
Of a `Delivered` nothing but words can be wrong, and it stays one: what was delivered is not delivered again for a word's sake.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from mailserver.mail.answers import Delayed, Delivered, Failed, Outcome
from mailserver.mail.reply import Reply

__all__ = ["UnsoundOutcome", "clean_text", "outcome_of", "sound_outcome"]

TEXT_CHARACTERS = 2000
REPLY_LINES = 100
DIALOGUE_LINES = 200
PUT_OFF_LEAST, PUT_OFF_MOST = 1.0, 86_400.0  # seconds
STATUS = re.compile(r"[245]\.[0-9]{1,3}\.[0-9]{1,3}")  # RFC 3463 section 2


class UnsoundOutcome(ValueError):
    """What a delivery said of a destination says nothing.  The words name what was wrong, never the value itself."""


def clean_text(text: str) -> str:
    """Fit for a store: a lone surrogate (an octet of a file's name that is no UTF-8) becomes ``\\udcff``.  Long ones are cut."""
    text = str.__getitem__(text, slice(TEXT_CHARACTERS))
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def outcome_of(answer: object, index: int) -> Outcome:
    """What a delivery's answer, a mapping of indexes to outcomes, says of one destination.  Raises `UnsoundOutcome`."""
    try:
        if answer.__class__ is not dict and not isinstance(answer, Mapping):  # an abstract class takes its time
            raise UnsoundOutcome(f"the delivery answered with {_kind(answer)} in place of a mapping")
        outcome: Any = answer.get(index)
        if outcome is None:
            raise UnsoundOutcome("the delivery gave no outcome")
        return sound_outcome(outcome)
    except UnsoundOutcome:
        raise
    except Exception as error:
        raise UnsoundOutcome(f"the delivery's outcome cannot be read: {_kind(error)}") from error


def sound_outcome(outcome: object) -> Outcome:
    """An outcome of exactly one of the three classes, each member of its type.  Raises `UnsoundOutcome`, or a member's error."""
    if isinstance(outcome, Delivered):
        if outcome.__class__ is Delivered and _is_plain(outcome.note) and _is_plain(outcome.peer):
            if outcome.notifies is False or outcome.notifies is True:
                return outcome
        return _delivered(outcome)
    if not isinstance(outcome, Delayed | Failed):
        raise UnsoundOutcome(f"the delivery's outcome is {_kind(outcome)}, no outcome")
    note, peer, phase = [_text(name, getattr(outcome, name)) for name in ("note", "peer", "phase")]
    dialogue: Any = outcome.dialogue
    if not isinstance(dialogue, tuple | list):
        raise UnsoundOutcome(f"the dialogue of the delivery's outcome is {_kind(dialogue)}")
    lines = tuple([_text("dialogue", line) for line in dialogue[-DIALOGUE_LINES:]])
    reply = _reply(outcome.reply)
    if isinstance(outcome, Failed):
        return Failed(reply, note, peer, phase, lines, outcome.reports is not False)
    return Delayed(reply, note, peer, phase, lines, _put_off(outcome.put_off_seconds))


def _is_plain(text: str) -> bool:
    return text.__class__ is str and text.isascii() and len(text) <= TEXT_CHARACTERS


def _delivered(outcome: Delivered) -> Delivered:
    def word(name: str) -> str:
        try:
            return _text(name, getattr(outcome, name))
        except Exception:  # noqa: BLE001  anybody's attribute: it is delivered whatever it has to say
            return ""

    try:
        notifies = outcome.notifies is True
    except Exception:  # noqa: BLE001  as above
        notifies = False
    return Delivered(word("note"), word("peer"), notifies)


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise UnsoundOutcome(f"the {name} of the delivery's outcome is {_kind(value)}")
    return clean_text(value)


def _put_off(seconds: object) -> float | None:
    """Where nobody was asked, in how many seconds it comes again: no busy loop, and no message that never comes."""
    if seconds is None:
        return None
    if not isinstance(seconds, int | float) or isinstance(seconds, bool) or not PUT_OFF_LEAST <= seconds <= PUT_OFF_MOST:
        raise UnsoundOutcome(f"put_off_seconds of the delivery's outcome is no time from {PUT_OFF_LEAST:g} to {PUT_OFF_MOST:g} s")
    return float(seconds)


def _reply(reply: object) -> Reply:
    if not isinstance(reply, Reply):
        raise UnsoundOutcome(f"the reply of the delivery's outcome is {_kind(reply)}")
    code: Any = reply.code
    enhanced: Any = reply.enhanced
    lines: Any = reply.lines
    if type(code) is not int or not 400 <= code <= 599:
        raise UnsoundOutcome("the reply of the delivery's outcome has no code from 400 to 599")
    if not isinstance(enhanced, str) or not isinstance(lines, tuple | list):
        raise UnsoundOutcome("the reply of the delivery's outcome is made of other types than a reply's")
    status = enhanced if type(enhanced) is str and STATUS.fullmatch(enhanced) else ""
    return Reply.heard(code, status, [_text("reply", line) for line in lines[:REPLY_LINES]])


def _kind(value: object) -> str:
    return clean_text(f"a {type(value).__name__}")[:80]
