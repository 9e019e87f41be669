"""What the daily looks at the DNS have found: for `mailserver check` and `mailserver dns`."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mailserver.cli.asking import ask_or_read, data_directory
from mailserver.cli.output import age, plain
from mailserver.control.client import ControlError
from mailserver.mail.faults import StorageFault
from mailserver.processes.identity import as_owner_of

if TYPE_CHECKING:
    from mailserver.config import Configuration

__all__ = ["clean_day_lines", "clean_days_of", "last_look_words"]

LATE_SECONDS = 2 * 86_400.0
DOMAINS_TOLD = 3
NOTHING: Mapping[str, Any] = {"at": None, "faults": {}, "clean": {}}


def _known(data: str) -> Mapping[str, Any]:
    """By the server; where none runs, by its files; where these cannot be read either, nothing."""
    try:
        return {**NOTHING, **ask_or_read(data, "domains", {}, lambda: _kept(data))}
    except (ControlError, StorageFault, OSError):
        return NOTHING


def _kept(data: str) -> dict[str, Any]:
    from mailserver.assembly.daily_look import SPACE
    from mailserver.cli.without_server import finished
    from mailserver.doctor.daily import last_look
    from mailserver.queue.clock_watch import boot_seconds
    from mailserver.state_store import StoppedState

    with as_owner_of(data), StoppedState.opened(os.path.join(data, "state.db"), steady=boot_seconds) as state:
        found: dict[str, Any] = {} if state is None else finished(last_look(state.space(SPACE)))
        return found


def last_look_words(configuration: Configuration) -> tuple[list[str], list[str]]:
    """Notes and warnings, a sentence each; none where nobody looks daily."""
    from mailserver.assembly.daily_look import looks_daily

    if not looks_daily(configuration):
        return [], []
    found = _known(configuration.data)
    if found["at"] is None:
        return ["dns: nobody has looked yet at what the DNS shows for the domains: mailserver dns DOMAIN"], []
    passed = time.time() - found["at"]
    ago = f"{age(passed)} ago" if passed >= 0 else "before the clock was set"
    when = f"the last look at the DNS of the domains was {ago}"
    wrong = {name: count for name, count in found["faults"].items() if count}
    if not wrong:
        words = f"dns: {when}, and found nothing to be done"
    else:
        more = f" and {len(wrong) - DOMAINS_TOLD} more domains" if len(wrong) > DOMAINS_TOLD else ""
        told = ", ".join([f"{name} ({count})" for name, count in [*wrong.items()][:DOMAINS_TOLD]])
        number, first = sum(wrong.values()), next(iter(wrong))
        words = plain(f"dns: {when}, and found {number} to be done: {told}{more} (mailserver dns {first} --try)")
    return ([], [words]) if wrong or passed > LATE_SECONDS else ([words], [])


def clean_days_of(config: str, domain: str) -> Mapping[str, Any]:
    """Of a domain, by the kind of policy."""
    found: Mapping[str, Any] = _known(data_directory(config))["clean"].get(domain, {})
    return found


def clean_day_lines(counts: Mapping[str, Any]) -> list[str]:
    """For people: where it stands with stricter policies."""
    from mailserver.doctor.clean_days import CLEAN_DAYS, STRICTER, CleanDays

    lines = []
    for kind, value in counts.items():
        one = CleanDays.of(value)
        after = None if one is None else STRICTER.get(kind, {}).get(one.stage)
        if one is None or after is None:
            continue
        words = f"{kind} {one.stage}: day {one.days} of {CLEAN_DAYS} without a fault, then {after} is proposed"
        if one.days >= CLEAN_DAYS:
            words = f"{kind} {one.stage}: {one.days} days without a fault: {after} can come"
        lines.append(plain(words + (f"; {one.waits}" if one.waits else "")))
    return lines
