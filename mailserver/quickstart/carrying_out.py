"""Takes the steps, each with its lines in the ledger; takes them back."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mailserver.quickstart.ledger import QuickLedger
from mailserver.quickstart.steps import QuickStep

__all__ = ["StepsUndone", "missing", "take", "undo"]


@dataclass(frozen=True, slots=True)
class StepsUndone:
    """What came of taking back: why some things stay, and what could not be done."""

    stays: tuple[str, ...]
    failed: tuple[str, ...]


def missing(steps: Sequence[QuickStep], ledger: QuickLedger | None) -> list[QuickStep]:
    """Those that have to be taken: what was begun, and what is not there.  Raises OSError."""
    records = {} if ledger is None else ledger.steps
    begun = {name for name, record in records.items() if record.marks is None}
    return [one for one in steps if one.name in begun or not one.is_there()]


def take(steps: Sequence[QuickStep], ledger: QuickLedger, tell: Callable[[QuickStep], None]) -> None:
    """Take those that have to be.  Whatever fails, all that this run and those that were cut off have newly made is taken back.

    Raises what a step raises.
    """
    try:
        for step in missing(steps, ledger):
            record = ledger.steps.get(step.name)
            before = step.found() if record is None else record.before
            if record is None or record.marks is not None:
                ledger.begin(step.name, before)
            ledger.made(step.name, step.make(before))
            tell(step)
    except BaseException:
        if not undo(steps, ledger, ledger.new).failed and not ledger.is_done:
            with contextlib.suppress(OSError):
                ledger.remove()
        raise


def undo(steps: Sequence[QuickStep], ledger: QuickLedger, names: Sequence[str]) -> StepsUndone:
    """Take back these, the last one first.  One that cannot be does not keep the others from it."""
    stays: list[str] = []
    failed: list[str] = []
    for step in reversed([one for one in steps if one.name in names]):
        try:
            why = step.undo(ledger.steps[step.name])
        except OSError as error:
            failed.append(f"{error.filename or step.name}: {error.strerror or error}")
            continue
        if why:
            stays.append(why)
        else:
            with contextlib.suppress(OSError):  # a full disk: it is looked for once more, and not found
                ledger.undone(step.name)
    return StepsUndone(tuple(stays), tuple(failed))
