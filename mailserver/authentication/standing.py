"""What the lockout holds against a name in a network."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["FREE", "Standing"]


@dataclass(frozen=True, slots=True)
class Standing:
    """The standing of one account's name in one network, at this moment.

    `why` is for the log, "" where nothing is held against it.  `lets_in` says whether the right password gets in.

    Where `is_guarded`, `lets_in` depends on who has logged in from there before, which guessers must not learn.  So whoever does
    not get in gets the reply for a wrong password, `answer_seconds` after the last line.
    """

    why: str = ""
    lets_in: bool = True
    is_guarded: bool = False
    answer_seconds: float = 0.0

    @property
    def refuses(self) -> bool:
        """Whether the login can be refused at once, without asking any store."""
        return not self.lets_in and not self.is_guarded


FREE = Standing()
