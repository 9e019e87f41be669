"""Which account mail in the queue belongs to, where accounts were renamed since it came.  Pure.

A message keeps the login by which it was handed in.  It is the renamed user's, also where somebody else has the old name by now.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from mailserver.filters.account_records import MovedAccount
from mailserver.filters.followed_names import FollowedNames

__all__ = ["AccountNames", "LoginSpan"]


@dataclass(frozen=True, slots=True)
class LoginSpan:
    """A login and when messages by it were received: from `since` on and before `before`, seconds since the epoch."""

    login: str
    since: float = 0.0
    before: float = math.inf

    @property
    def bounds(self) -> dict[str, float]:
        """Those that there are, as `IWaitingMail` takes them."""
        return ({"since": self.since} if self.since > 0 else {}) | ({"before": self.before} if self.before < math.inf else {})


class AccountNames:
    """By the renames that there were, in any order."""

    def __init__(self, moves: Iterable[MovedAccount] = ()) -> None:
        self._moves = [
            (one.at, FollowedNames({one.old: one.new}, ""), FollowedNames({one.new: one.old}, ""))
            for one in sorted(moves, key=lambda one: (one.at, one.old, one.new))
        ]

    def owner(self, login: str, received_at: float) -> str:
        """Whose a message is that came by this login."""
        for at, ahead, _ in self._moves:
            if received_at < at:
                login = ahead.after(login) or login
        return login

    def logins_of(self, account: str) -> list[LoginSpan]:
        """By which logins its messages have come, and when: those of which it is the `owner`."""
        ends = {account: math.inf}  # what was its name at the time that is looked at, and until when
        found = []
        for at, ahead, back in reversed(self._moves):
            names = list(ends)
            for name in names:
                if ahead.after(name) is not None:  # before, the name was another's, who has another one since
                    found.append(LoginSpan(name, at, ends.pop(name)))
            for name in names:
                former = back.after(name)
                if former is not None:
                    ends.setdefault(former, at)
        return [one for one in (*[LoginSpan(name, 0.0, end) for name, end in ends.items()], *found) if one.since < one.before]
