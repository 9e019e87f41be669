"""What a filter has answered, made one of our own values: a verdict with its findings and notes, or edits.

An answer is an object of a plugin: of a derived class, with properties that raise, with words that no log can keep.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from twisted.python.reflect import safe_str

from mailserver.mail.answers import (
    NO_FACTS,
    Accept,
    Defer,
    Discard,
    Disconnect,
    Finding,
    Pass,
    Quarantine,
    Refuse,
    Signal,
    Verdict,
)
from mailserver.mail.edits import AddHeader, Edit, checked_edit

__all__ = [
    "NO_FINDINGS",
    "ACCEPTED",
    "PASS",
    "STRONGEST_FIRST",
    "read_edits",
    "read_findings",
    "read_notes",
    "read_signature",
    "read_verdict",
]

PASS = Pass()
ACCEPTED = "accepted"  # the finding of an explicit yes, for those who weigh later
NO_FINDINGS: tuple[Finding, ...] = ()
WORDS_CHARACTERS = 1000
NAME_CHARACTERS = 100
FINDINGS_MOST = 100  # of one answer
PROPERTIES_MOST = 50
TAGS_MOST = 50
EDITS_MOST = 1000
NUMBER_MOST = 2**63
ONLY_TEXT = frozenset({str})
UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")  # with those that turn a line's direction round
STRONGEST_FIRST = (Disconnect, Refuse, Discard, Defer, Quarantine)
READ_FIRST = (Disconnect, Refuse, Discard, Defer, Quarantine, Accept)


def read_verdict(answer: object, allowed: frozenset[type]) -> Verdict:
    """One of our own verdicts without findings and notes, its words such as the log and the queue can keep.

    What is several verdicts at once counts as the worst of them; one whose words or enhanced code cannot be had is still that
    verdict.  Raises TypeError for what is no verdict, or none of those `allowed` at this stage, ValueError for a score that is
    not finite, and what a plugin's object raises.
    """
    if type(answer) is Pass:
        return PASS
    kind = next((kind for kind in READ_FIRST if isinstance(answer, kind)), None)
    if kind is None:
        if isinstance(answer, Signal):
            return Signal(_name(answer.name, "a signal's"), _score(answer.score), _words(answer.why))
        if isinstance(answer, Pass):
            return PASS
        raise TypeError(f"a verdict was expected, not {type(answer).__name__}")
    if kind not in allowed:
        raise TypeError(f"{kind.__name__} is no answer at this stage")
    said: Any = answer
    try:
        words = said.why
    except Exception:  # noqa: BLE001  # a plugin's property: whatever it raises
        words = ""
    why = _words(words)
    if type(answer) is kind and why is words and said.findings is NO_FINDINGS and said.notes is NO_FACTS:
        return said  # type: ignore[no-any-return]
    if kind is Quarantine:
        return Quarantine(why, hold=getattr(said, "hold", False) is True)
    if kind is Refuse or kind is Defer:
        try:
            return kind(why, said.enhanced, reply=said.reply)
        except Exception:  # noqa: BLE001  # as above, or no code, or no reply
            return kind(why)
    return kind(why)


def read_findings(answer: Any, source: str) -> tuple[Finding, ...]:
    """What the answer says was found, by the filter `source`.

    Raises TypeError or ValueError where that is anything but findings, and what a plugin's object raises.
    """
    given = getattr(answer, "findings", ())  # a derived class may never have set it
    if not isinstance(given, tuple | list):
        raise TypeError(f"findings are a tuple, not {type(given).__name__}")
    if len(given) > FINDINGS_MOST:
        raise ValueError(f"more than {FINDINGS_MOST} findings in one answer")
    findings = tuple([_plain(one, source) or _finding(one, source) for one in given]) if given else ()
    if isinstance(answer, Signal):
        seen = Finding(_name(answer.name, "a signal's"), _score(answer.score), _words(answer.why), source=source)
        return (seen, *findings)
    if isinstance(answer, Accept):
        return (Finding(ACCEPTED, 0.0, _words(answer.why), source=source), *findings)
    return findings


def read_notes(answer: Any) -> Mapping[str, object]:
    """What the answer wants to have noted.  Raises as `read_findings`."""
    notes = getattr(answer, "notes", NO_FACTS)
    if notes is NO_FACTS:
        return NO_FACTS
    if not isinstance(notes, Mapping):
        raise TypeError(f"notes are a mapping, not {type(notes).__name__}")
    return {_name(key, "a note's"): value for key, value in notes.items()}


def _finding(finding: object, source: str) -> Finding:
    if not isinstance(finding, Finding):
        raise TypeError(f"a finding was expected, not {type(finding).__name__}")
    properties = finding.properties
    if properties is not NO_FACTS:
        if not isinstance(properties, Mapping):
            raise TypeError(f"the properties of a finding are a mapping, not {type(properties).__name__}")
        if len(properties) > PROPERTIES_MOST:
            raise ValueError(f"a finding with more than {PROPERTIES_MOST} properties")
        properties = {_name(key, "a property's"): _fact(value) for key, value in properties.items()}
    name, score, evidence = _name(finding.name, "a finding's"), _score(finding.score), _words(finding.evidence)
    return Finding(name, score, evidence, properties, source, _tags(finding.tags))


def _plain(finding: Any, source: str) -> Finding | None:
    """The usual finding, told by a few looks at all of it together; None where each part of it has to be looked at."""
    if finding.__class__ is not Finding:
        return None
    properties, names, words = finding.properties, [finding.name], [finding.evidence]
    if properties is not NO_FACTS:
        if properties.__class__ is not dict or len(properties) > PROPERTIES_MOST:
            return None
        properties = properties.copy()
        names += properties
        for value in properties.values():
            kind = value.__class__
            if kind is str:
                words.append(value)
            elif kind is float:
                if not math.isfinite(value):
                    return None
            elif kind is int:
                if not -NUMBER_MOST < value < NUMBER_MOST:
                    return None
            elif kind is not bool and value is not None:
                return None
    score: Any = finding.score
    if score.__class__ is not float or not math.isfinite(score) or finding.tags.__class__ is not tuple or finding.tags:
        return None
    if words[0].__class__ is not str or {*map(type, names)} != ONLY_TEXT:
        return None
    lengths = [*map(len, names)]
    if not 0 < min(lengths) <= max(lengths) <= NAME_CHARACTERS or max(map(len, words)) > WORDS_CHARACTERS:
        return None
    whole = "".join(names + words)
    return Finding(finding.name, score, words[0], properties, source) if whole.isascii() and whole.isprintable() else None


def _tags(tags: Any) -> tuple[AddHeader, ...]:
    if not tags and isinstance(tags, tuple):
        return ()
    if not isinstance(tags, tuple | list) or not all(isinstance(tag, AddHeader) for tag in tags):
        raise TypeError("the tags of a finding are a tuple of AddHeader")
    if len(tags) > TAGS_MOST:
        raise ValueError(f"a finding with more than {TAGS_MOST} tags")
    return tuple([AddHeader(tag.name, tag.value) for tag in tags])


def _fact(value: object) -> str | int | float | bool | None:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _words(value)
    if isinstance(value, int) and abs(value) < NUMBER_MOST:
        return int(value)
    if isinstance(value, float) and math.isfinite(value):
        return float(value)
    raise TypeError(f"a property is a text, a finite number, a bool or None, not {type(value).__name__}")


def _score(score: Any) -> float:
    if not math.isfinite(score):  # TypeError where it is not a number
        raise ValueError("a score must be a finite number")
    return float(score)


def _name(name: object, whose: str) -> str:
    if not isinstance(name, str) or not name:
        raise TypeError(f"{whose} name is a text that is not empty, not {type(name).__name__}")
    return _words(name[:NAME_CHARACTERS])


def _words(text: object) -> str:
    """Words of a plugin, as the log, the queue and a header field can keep them."""
    words = text if type(text) is str else safe_str(text)
    words = words[:WORDS_CHARACTERS]
    if words.isascii() and words.isprintable():
        return words
    words = UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), words)
    return words.encode("utf-8", "backslashreplace").decode("utf-8")[:WORDS_CHARACTERS]


def read_edits(answer: object) -> tuple[Edit, ...]:
    """A modifier's edits, each checked.  Raises TypeError or ValueError for anything else."""
    if not isinstance(answer, list | tuple):
        raise TypeError(f"a sequence of edits was expected, not {type(answer).__name__}")
    if len(answer) > EDITS_MOST:
        raise ValueError(f"more than {EDITS_MOST} edits in one answer")
    for edit in answer:
        if not isinstance(edit, Edit):
            raise TypeError(f"an edit was expected, not {type(edit).__name__}")
    return tuple(map(checked_edit, answer))


def read_signature(answer: object) -> tuple[Edit, ...]:
    """A signer's fields, each checked.  Raises as `read_edits`, also for any other edit."""
    edits = read_edits(answer)
    for edit in edits:
        if not isinstance(edit, AddHeader):
            raise TypeError(f"a signature is an AddHeader, not {type(edit).__name__}")
    return edits
