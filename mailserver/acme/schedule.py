"""When a certificate is due, when a failure is tried again, and when it is worth a word.  All of it decides and does nothing.

Times are seconds since the epoch, by a clock that may have been set: what lies further ahead than it ever can is not believed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mailserver.acme.progress import CertificateProgress

__all__ = ["ISSUED_KEPT", "HeldCertificate", "due_at", "is_late", "names_mark", "retry_at", "room_at", "window_of"]

HOUR, DAY = 3600.0, 86_400.0
FIRST_RETRY, RETRY_MOST = 300.0, 12 * HOUR  # Let's Encrypt lets a name fail five times an hour
ASKED_MOST = 7 * DAY  # how long a CA may bid us wait
LATE_WITHOUT_ANY = HOUR
SAME_MOST, WEEK = 4, 7 * DAY  # Let's Encrypt issues five for the same names in a week
CHANGED_MOST = 6  # in a day, whatever their names
ISSUED_KEPT = 20
SHORT = 10 * DAY  # such a certificate is renewed in the middle of its life, others after two thirds (RFC 9773 leaves it open)


@dataclass(frozen=True, slots=True)
class HeldCertificate:
    """The certificate that we have: its serial number in hex, its life, its names in order."""

    serial: str
    begins: float
    ends: float
    names: tuple[str, ...]


def window_of(held: HeldCertificate, progress: CertificateProgress) -> tuple[float, float]:
    """Within which time it should be renewed: as the CA suggests (RFC 9773 section 4.2), else by its life."""
    window = progress.window
    if window.get("serial") == held.serial and window.get("end"):
        return float(window["start"]), float(window["end"])
    life = held.ends - held.begins
    start = held.begins + life * (0.5 if life < SHORT else 2 / 3)
    return start, start + life / 12


def due_at(held: HeldCertificate | None, progress: CertificateProgress, names: Sequence[str], now: float, jitter: float) -> float:
    """When the next try is due.  `names` are wanted; `jitter` is from 0 to 1, always the same for this certificate."""
    not_before = progress.not_before
    if not_before > now + ASKED_MOST + DAY:  # the clock was set back
        not_before = now
    if progress.is_urgent or progress.order:
        return not_before
    not_before = max(not_before, room_at(held, progress, names, now))
    if held is None or progress.revoked == held.serial or not set(names) <= set(held.names):
        return not_before
    start, end = window_of(held, progress)
    chosen = float(progress.window.get("chosen") or 0) if progress.window.get("serial") == held.serial else 0.0
    if not start <= chosen <= end:
        chosen = start + (end - start) * jitter
    return max(not_before, min(chosen, held.ends - (held.ends - held.begins) / 12))


def names_mark(names: Sequence[str]) -> str:
    """What stands for these names in `CertificateProgress.issued`."""
    return " ".join(sorted(names))


def room_at(held: HeldCertificate | None, progress: CertificateProgress, names: Sequence[str], now: float) -> float:
    """Before when no other certificate is got by itself; 0 for no such time.

    A clock that is ahead, a CA whose suggestions are always over, two servers with one folder: each certificate would be due as
    soon as it is there, and a CA gives so many and no more.
    """
    within = WEEK if held is None else min(WEEK, held.ends - held.begins)
    mark = names_mark(names)
    same = sorted([at for at, its in progress.issued if its == mark and now - within < at <= now])
    all_of_them = sorted([at for at, _ in progress.issued if now - DAY < at <= now])
    found = [same[-SAME_MOST] + within] if len(same) >= SAME_MOST else []
    if len(all_of_them) >= CHANGED_MOST and within > DAY:
        found.append(all_of_them[-CHANGED_MOST] + DAY)
    return max(found, default=0.0)


def retry_at(progress: CertificateProgress, now: float, jitter: float, asked_seconds: float | None) -> float:
    """When to try again after one more failure: later each time, not all servers of the world at once, and as the CA bids."""
    delay = min(RETRY_MOST, FIRST_RETRY * 2.0 ** min(progress.failures - 1, 20)) * (0.75 + jitter / 2)
    if asked_seconds is not None:
        delay = max(delay, min(asked_seconds, ASKED_MOST) + 30 * jitter)
    return now + delay


def is_late(held: HeldCertificate | None, progress: CertificateProgress, now: float) -> bool:
    """Whether somebody has to be told: what should have been done by now has failed."""
    if not progress.failures:
        return False
    if held is None or progress.revoked == held.serial:
        return now - progress.failing_since >= LATE_WITHOUT_ANY or progress.failing_since > now
    if now >= window_of(held, progress)[1]:
        return True
    return now - progress.failing_since >= 3 * DAY  # names that are wanted, or a key: no window ends for these
