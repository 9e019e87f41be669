"""How somebody stands who tries to log in."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["FREE", "Standing"]


@dataclass(frozen=True, slots=True)
class Standing:
    """Of one account's name in one network, at this moment.

    `why` is for the log, "" where nothing is held against it.  `lets_in` says whether the right password gets in.

    Where `is_guarded`, that depends on who has been there before, and guessers may not learn who has: whoever does not get in
    hears the same words, `answer_seconds` after the last line, as if the password had been wrong.
    """

    why: str = ""
    lets_in: bool = True
    is_guarded: bool = False
    answer_seconds: float = 0.0

    @property
    def refuses(self) -> bool:
        """Nobody need be asked anything."""
        return not self.lets_in and not self.is_guarded


FREE = Standing()
