"""What a filter has answered, made one of our own values: a verdict, or edits.

An answer is an object of a plugin: of a derived class, with properties that raise, with words that no log can keep.
"""

from __future__ import annotations

import math

from twisted.python.reflect import safe_str

from mailserver.mail.answers import Accept, Defer, Pass, Quarantine, Refuse, Signal, Verdict
from mailserver.mail.edits import AddHeader, DropHeader, Edit, ReplaceRecipient, checked_edit

__all__ = ["PASS", "STRONGEST_FIRST", "read_edits", "read_verdict"]

PASS = Pass()
WORDS_CHARACTERS = 1000
STRONGEST_FIRST = (Accept, Refuse, Defer, Quarantine)


def read_verdict(answer: object) -> tuple[Verdict, tuple[Edit, ...]]:
    """One of our own verdicts, with words that the log and the queue can keep.

    What is several verdicts at once counts as the worst of them; one whose words cannot be had is still that verdict.  Raises
    TypeError for what is no verdict, ValueError for a score that is not finite, and what a plugin's object raises.
    """
    if type(answer) is Pass:
        return answer, ()
    try:
        said = getattr(answer, "why", "")
    except Exception:
        if not isinstance(answer, STRONGEST_FIRST):
            raise
        said = ""
    why = _words(said)
    if type(answer) in STRONGEST_FIRST and why is said:
        return answer, ()  # type: ignore[return-value]
    verdict: Verdict
    if isinstance(answer, Refuse):
        try:
            verdict = Refuse(why, answer.enhanced)
        except Exception:  # noqa: BLE001  # a plugin's property: whatever it raises
            verdict = Refuse(why)
    elif isinstance(answer, Defer):
        verdict = Defer(why)
    elif isinstance(answer, Quarantine):
        verdict = Quarantine(why)
    elif isinstance(answer, Accept):
        verdict = Accept(why)
    elif isinstance(answer, Signal):
        if not math.isfinite(answer.score):  # TypeError where it is not a number
            raise ValueError("a signal's score must be a finite number")
        verdict = Signal(_words(answer.name), float(answer.score), why)
    elif isinstance(answer, Pass):
        verdict = PASS
    else:
        raise TypeError(f"a verdict was expected, not {type(answer).__name__}")
    return verdict, ()


def _words(text: object) -> str:
    """Words of a plugin, as the log and the queue can keep them."""
    words = text if type(text) is str else safe_str(text)
    words = words[:WORDS_CHARACTERS]
    return words if words.isascii() else words.encode("utf-8", "backslashreplace").decode("utf-8")


def read_edits(answer: object) -> tuple[Verdict, tuple[Edit, ...]]:
    """A modifier's edits, each checked.  Raises TypeError or ValueError for anything else."""
    if not isinstance(answer, list | tuple):
        raise TypeError(f"a sequence of edits was expected, not {type(answer).__name__}")
    for edit in answer:
        if not isinstance(edit, AddHeader | DropHeader | ReplaceRecipient):
            raise TypeError(f"an edit was expected, not {type(edit).__name__}")
    return PASS, tuple(map(checked_edit, answer))
