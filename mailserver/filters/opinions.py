"""What was learnt says of messages: here, or asked of a process beside the server (`work_beside`), which has the file open, too.

The process reads and never writes.  With each question it is told how often the server has begun or ended to write; what it
remembers of the file holds for one such number, and what was opened before the server opened the file anew is opened anew.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from itertools import compress, repeat
from operator import is_
from typing import Any

from mailserver.filters.token_memory import SubjectMessage, TokenMemory, TokenQuestion, TokensFound, Whose, look_up
from mailserver.mail.content import Content
from mailserver.state_store.learnt_file import LearntFile
from mailserver.trust.bayes import Said, WordWeight, combined

__all__ = ["TOO_LITTLE", "Opinion", "Told", "opinion_of", "opinions_on", "read_told", "recall"]

UNKNOWN: Any = False  # of a token that is not remembered: it says nothing, but is no None
WORD_CHARACTERS = 40
WORDS_CHARACTERS = 1000  # of ten of them
TOO_LITTLE: list[Any] = []  # the process's answer where too little was learnt


class Opinion:
    """What was learnt says of a message: how likely it is spam, by how many tokens, and in `words` which of them say the most.

    `owner` is whose own learning counted, "" for the site's alone; `spam` and `ham` are how many messages were learnt.
    """

    __slots__ = ("counted", "ham", "owner", "probability", "spam", "words")

    def __init__(self, probability: float, counted: int, words: str, owner: str, spam: int, ham: int) -> None:
        self.probability = probability
        self.counted = counted
        self.words = words
        self.owner = owner
        self.spam = spam
        self.ham = ham


Told = tuple[Whose, Opinion] | tuple[None, None]
"""An answer of the process; None and None where too little was learnt."""


def recall(memory: TokenMemory, whose: Whose, tokens: Sequence[str]) -> tuple[list[Said | None], list[str]]:
    """What is remembered of these tokens, and those that are not remembered."""
    said = [*map(memory.strengths(whose.number).get, tokens, repeat(UNKNOWN))]
    return said, [*compress(tokens, map(is_, said, repeat(UNKNOWN)))]


def opinion_of(subject: SubjectMessage, whose: Whose, said: Sequence[Said | None]) -> Opinion:
    """`said` is what each token says, in whatever order."""
    opinion: Opinion | None = subject.opinions.get(whose.number)
    if opinion is None:
        weighed = combined(said)
        opinion = Opinion(weighed.probability, weighed.counted, _words_of(weighed), whose.own, whose.spam, whose.ham)
        subject.opinions[whose.number] = opinion
    return opinion


def _words_of(weighed: WordWeight) -> str:
    return ", ".join([
        f"{token if token.isprintable() and len(token) <= WORD_CHARACTERS else _shown(token)} {value:.3f}"
        for token, value in weighed.named
    ])  # fmt: skip


def _shown(token: str) -> str:
    """A stranger's word for a person's eyes."""
    return "".join([one if one.isprintable() else "?" for one in token[:WORD_CHARACTERS]])


def read_told(answer: Any) -> Told:
    """One of the process's answers.  Raises ValueError for what is none."""
    match answer:
        case []:
            return None, None
        case [float(probability), int(counted), str(words), str(own), int(number), int(spam), int(ham)]:
            is_of_somebody = bool(own) == bool(number) and min(counted, number, spam, ham) >= 0
            if is_of_somebody and 0.0 <= probability <= 1.0 and len(words) <= WORDS_CHARACTERS and words.isprintable():
                return Whose(own, number, spam, ham), Opinion(probability, counted, words, own, spam, ham)
    raise ValueError("an opinion")


# --- In the process. ---


class _Reading:
    """The file, and what is remembered of it."""

    def __init__(self, path: str) -> None:
        self.file = LearntFile.open(path, writes=False)
        self.memory = TokenMemory()
        self._changes = -1

    def __del__(self) -> None:
        self.file.close()

    def as_of(self, changes: int) -> None:
        """Forget what was remembered before."""
        if changes != self._changes:
            self._changes = changes
            self.memory.clear()


@functools.lru_cache(1)
def _reading(path: str, opened: int) -> _Reading:
    return _Reading(path)


def opinions_on(
    messages: Sequence[bytes], questions: Sequence[tuple[int, tuple[str, ...]]], path: str, opened: int, changes: int,
    key: bytes, minimum: int, own_weight: float,
) -> list[Any]:  # fmt: skip
    """For each question, a message by its number and its owners, what `read_told` reads.  Blocks.  Raises `StorageFault`."""
    reading = _reading(path, opened)
    reading.as_of(changes)
    memory = reading.memory
    subjects = [SubjectMessage(Content.of(one)) for one in messages]
    asked: list[tuple[TokenQuestion, list[Said | None]]] = []
    for number, owners in questions:
        tokens = subjects[number].read()
        said: list[Said | None] = []
        try:
            whose = memory.whose(owners)
        except KeyError:
            whose = None
        if whose is not None:
            said, tokens = recall(memory, whose, tokens)
        asked.append((TokenQuestion(subjects[number], owners, tokens), said))
    found = look_up(reading.file, [one for one, _ in asked], key, minimum, own_weight)
    memory.keep([one for one, _ in asked], found)
    return [_answer(question, said, one) for (question, said), one in zip(asked, found, strict=True)]


def _answer(question: TokenQuestion, said: Sequence[Said | None], found: TokensFound | Exception) -> list[Any]:
    if not isinstance(found, TokensFound) or found.whose is None:
        return TOO_LITTLE
    whose = found.whose
    one = opinion_of(question.subject, whose, [*said, *map(found.strengths.__getitem__, question.tokens or ())])
    return [one.probability, one.counted, one.words, whose.own, whose.number, whose.spam, whose.ham]
