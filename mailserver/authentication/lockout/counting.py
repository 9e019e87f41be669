"""When failed logins become a lockout: pure counting.

A `Tally` belongs to a subject: an account, a network, or an account from a network.  Each *guess* says which password it was (a
keyed hash, so that the same wrong password again is one guess) and what it came from, so that a success can take back what
came from there.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["DAY_SECONDS", "DELAY_MOST_SECONDS", "DIGEST_OCTETS", "NO_FAILURES", "Guess", "LockoutRules", "Tally"]

DAY_SECONDS = 86400.0
DIGEST_OCTETS = 8
DELAY_MOST_SECONDS = 5.0
LOCKOUTS_MOST = 255  # that are counted; the duration has reached its end long before
HEAD = struct.Struct(">BdB")  # version, end of the lockout, lockouts in a row
GUESS = struct.Struct(f">d{DIGEST_OCTETS}s{DIGEST_OCTETS}s")
VERSION = 1


@dataclass(frozen=True, slots=True)
class LockoutRules:
    """How many failures are too many; `[lockout]` in docs/configuration.md says what each number means."""

    account_failures: int = 10
    account_failures_everywhere: int = 100
    network_failures: int = 30
    window_seconds: float = 3600.0
    duration_seconds: float = 900.0
    delay_seconds: float = 1.0

    def lockout_seconds(self, before: int) -> float:
        """How long a lockout lasts that follows `before` others: twice as long each time, up to a day."""
        doubled = self.duration_seconds * 2.0 ** min(before, 32)
        return min(doubled, max(DAY_SECONDS, self.duration_seconds))

    def answer_seconds(self, failures: int) -> float:
        """How long the answer to a failure waits, which is the `failures`-th of the network with this name."""
        return min(self.delay_seconds * 2.0 ** min(max(failures - 1, 0), 32), DELAY_MOST_SECONDS)


@dataclass(frozen=True, slots=True)
class Guess:
    """One wrong password.  `source` and `password` are digests of `DIGEST_OCTETS` octets."""

    at: float
    source: bytes
    password: bytes


@dataclass(frozen=True, slots=True)
class Tally:
    """What is held against one subject.  Times are seconds since the epoch.

    `lockouts` counts those that came within a day of the end of the one before.
    """

    guesses: tuple[Guess, ...] = ()
    locked_until: float = 0.0
    lockouts: int = 0

    def is_locked(self, now: float) -> bool:
        """Nobody may try."""
        return now < self.locked_until

    def counted(self, now: float, window_seconds: float) -> int:
        """The guesses that still count."""
        return sum(guess.at > now - window_seconds for guess in self.guesses)

    def remembered(self, now: float) -> int:
        """The lockouts that make the next one longer."""
        return self.lockouts if now < self.locked_until + DAY_SECONDS else 0

    def after(self, guess: Guess, *, limit: int, rules: LockoutRules) -> Tally:
        """With one more guess; the `limit`-th within the window begins a lockout, and the count begins anew.

        A password that was counted is not counted again, but counts for longer.  Guesses that were under way when the lockout
        began are counted, too: many at once gain nothing.
        """
        now = guess.at
        kept = [one for one in self.guesses if one.at > now - rules.window_seconds and one.password != guess.password]
        kept.append(guess)
        if len(kept) < limit:
            return Tally(tuple(kept), self.locked_until, self.lockouts)
        before = self.remembered(now)
        until = max(self.locked_until, now + rules.lockout_seconds(before))
        return Tally((), until, min(before + 1, LOCKOUTS_MOST))

    def without(self, is_meant: Callable[[Guess], bool]) -> Tally:
        """Without some of the guesses; a lockout stays."""
        kept = tuple([guess for guess in self.guesses if not is_meant(guess)])
        return self if len(kept) == len(self.guesses) else Tally(kept, self.locked_until, self.lockouts)

    def lifetime_seconds(self, now: float, window_seconds: float) -> float:
        """How long it has to be remembered; 0 or less for one that says nothing any more."""
        newest = max([guess.at for guess in self.guesses], default=now - window_seconds)
        remembered = self.locked_until + DAY_SECONDS if self.lockouts else now
        return max(newest + window_seconds, remembered) - now

    def encode(self) -> bytes:
        """For a state store."""
        head = HEAD.pack(VERSION, self.locked_until, self.lockouts)
        return head + b"".join([GUESS.pack(one.at, one.source, one.password) for one in self.guesses])

    @classmethod
    def decode(cls, octets: bytes) -> Tally:
        """Raises ValueError for octets of another kind or version."""
        try:
            version, until, lockouts = HEAD.unpack_from(octets)
            guesses = tuple([Guess(*fields) for fields in GUESS.iter_unpack(octets[HEAD.size :])])
        except struct.error as error:
            raise ValueError(f"not a tally: {error}") from None
        if version != VERSION:
            raise ValueError(f"a tally of version {version}")
        return cls(guesses, until, lockouts)


NO_FAILURES = Tally()
