"""What operators have said since the last look whose meaning is known and whose cause may be ours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mailserver.mail.reply import Reply
from mailserver.relay.provider_replies import ReplyMeaning, meaning_of

__all__ = ["HeardMeaning", "HeardMeanings"]


@dataclass(slots=True)
class HeardMeaning:
    """`count` replies of this meaning; the first was `reply`, by `host`."""

    meaning: ReplyMeaning
    host: str
    reply: str
    count: int = 1


class HeardMeanings:
    """One for each meaning, so that there are never more than the table has."""

    def __init__(self) -> None:
        self._heard: dict[str, HeardMeaning] = {}

    def add(self, reply: Reply, host: str) -> None:
        """A host has said so."""
        words = str(reply)
        meaning = meaning_of(words)
        if meaning is None or not meaning.is_ours:
            return
        known = self._heard.get(meaning.key)
        if known is None:
            self._heard[meaning.key] = HeardMeaning(meaning, host, words)
        else:
            known.count += 1

    def taken(self) -> Sequence[HeardMeaning]:
        """What was heard since the last look."""
        heard, self._heard = self._heard, {}
        return tuple(heard.values())
