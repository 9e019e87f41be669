"""Tells components that accounts are renamed or removed (`mailserver.interfaces.IAccountFollower`), each within its time.

One that fails is named; the others have done it all the same.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as Late

from mailserver.interfaces import Clock, IAccountFollower
from mailserver.plugins.awaiting import FAULTS, all_of, later, within
from mailserver.plugins.failure_log import FailureLog, place_of, words_of

__all__ = ["SECONDS", "VERBS", "Follower", "Followed", "follow"]

SECONDS = 300.0  # a domain may have a million records
VERBS = ("begin", "complete", "undo", "removed", "kept")
WORDS_CHARACTERS = 300


@dataclass(frozen=True, slots=True)
class Follower:
    """A component, as people know it; `given_up` is told of a call that is late."""

    who: str
    component: Any
    given_up: Callable[[Deferred[Any]], object] | None = None


@dataclass(slots=True)
class Followed:
    """Who has done it; who has not, and why; how many records each keeps."""

    followed: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    kept: dict[str, int] = field(default_factory=dict)

    def described(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {"followed": self.followed, "failed": self.failed, "kept": self.kept}


async def follow(
    components: Sequence[Follower], verb: str, accounts: Mapping[str, str], *, clock: Clock, failures: FailureLog
) -> Followed:
    """Ask all of them at once.  Never raises for one that fails."""
    found = Followed()
    asked = [one for one in components if IAccountFollower.providedBy(one.component)]
    await all_of([Deferred.fromCoroutine(_ask(one, verb, accounts, found, clock, failures)) for one in asked])
    return found


async def _ask(
    one: Follower, verb: str, accounts: Mapping[str, str], found: Followed, clock: Clock, failures: FailureLog
) -> None:
    try:
        counts = await within(SECONDS, later(_called(one.component, verb, accounts)), clock, one.given_up)
    except Late as error:
        found.failed[one.who] = f"no answer within {SECONDS:g} seconds"
        failures.tell(f"{one.who}: accounts {verb}", error, "")
    except FAULTS as error:
        found.failed[one.who] = _one_line(words_of(error))
        failures.tell(f"{one.who}: accounts {verb}", error, place_of(error))
    else:
        found.followed.append(one.who)
        if counts:
            found.kept[one.who] = max(counts, found.kept.get(one.who, 0))  # a former generation of it may still be at work


async def _called(component: Any, verb: str, accounts: Mapping[str, str]) -> int:
    if verb in ("begin", "complete", "undo"):
        await _answer(component.accounts_renamed(dict(accounts), verb))
        return 0
    counts = 0
    for account in accounts:
        if verb == "removed":
            await _answer(component.account_removed(account))
        else:
            count = await _answer(component.kept_of_account(account))
            if type(count) is not int or count < 0:
                raise TypeError(f"kept_of_account has returned {count!r:.40}, no count")
            counts += count
    return counts


def _answer(answer: Any) -> Awaitable[Any]:
    if not isinstance(answer, Awaitable):
        raise TypeError(f"an Awaitable was expected, not {type(answer).__name__}")
    return answer


def _one_line(words: str) -> str:
    line = " ".join(words.split())[:WORDS_CHARACTERS]
    return "".join(character if character.isprintable() else "?" for character in line)
