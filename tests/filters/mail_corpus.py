"""Generated mail of two kinds: each has words of its own, and most words are common to both, as in a language."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

__all__ = ["Corpus"]

SYLLABLES = [a + b for a in "bdfghklmnprstvz" for b in ("a", "e", "i", "o", "u", "an", "er", "is")]


class Corpus:
    """`overlap` of each message's words are common to both kinds; the frequencies are those of a language (Zipf).

    The words of a kind are many, and a message has few of them: no two messages share all.
    """

    def __init__(self, seed: int, *, overlap: float = 0.8, own_words: int = 1500, common_words: int = 4000) -> None:
        self.random = Random(seed)
        words = [self._word() for _ in range(own_words * 2 + common_words)]
        self.kinds = {"spam": words[:own_words], "ham": words[own_words : own_words * 2]}
        self.common = words[own_words * 2 :]
        self._overlap = overlap
        self._number = 0

    def message(self, kind: str, *, more: Sequence[str] = (), overlap: float | None = None, words: int = 0) -> bytes:
        """One of this kind, lines ending with CRLF."""
        self._number += 1
        common = self._overlap if overlap is None else overlap
        found = [
            self._drawn(self.common if self.random.random() < common else self.kinds[kind])
            for _ in range(words or self.random.randint(30, 250))
        ]
        found += more
        self.random.shuffle(found)
        lines = [" ".join(found[n : n + 10]) for n in range(0, len(found), 10)]
        head = [
            f"From: {self._word()}@{self._word()}.example",
            "To: alice@example.org",
            f"Subject: {' '.join(found[:5])}",
            f"Message-ID: <{self._number}.{self.random.random()}@example.net>",
        ]
        return "\r\n".join([*head, "", *lines, ""]).encode()

    def _drawn(self, words: Sequence[str]) -> str:
        """The n-th word is drawn 1/n as often as the first."""
        return words[int(len(words) ** self.random.random()) - 1]

    def _word(self) -> str:
        return "".join(self.random.choices(SYLLABLES, k=self.random.randint(2, 4)))
