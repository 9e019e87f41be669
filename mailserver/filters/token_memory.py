"""What was learnt of tokens: looked up in the file for several messages at once, and kept in memory.

Most words of a message are those of the messages before it, so that the file is asked about few of them, or of none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mailserver.state_store.learnt_file import LearntFile, OwnerRow
from mailserver.trust.bayes import Learned, Said, TokenCounts, said_by
from mailserver.trust.tokens import READ_OCTETS, hashes_of, tokens_of

__all__ = ["TokensFound", "TokenQuestion", "SubjectMessage", "TokenMemory", "Whose", "look_up"]

AT_ONCE_OCTETS = 16_384  # the tokens of a message up to this size are found at once, in a millisecond or two; else in a thread
SENT_OCTETS = 65_536
TOKENS_MOST = 50_000  # that are remembered: some ten megabytes
OWNERS_MOST = 10_000

Strengths = Mapping[str, Said | None]
"""What each token says; None where that is nothing."""

Weighted = Sequence[tuple[OwnerRow, float]]
"""What owners have learnt, and how much a message of theirs weighs."""


class SubjectMessage:
    """A message that is judged for several recipients: its tokens, and what was said of it for each who has learnt."""

    __slots__ = ("content", "opinions", "tokens")

    def __init__(self, content: Any) -> None:
        self.content = content
        self.tokens: Sequence[str] | None = None
        self.opinions: dict[int, Any] = {}

    def read(self) -> Sequence[str]:
        """Its tokens.  Raises OSError."""
        if self.tokens is None:
            self.tokens = tokens_of(_start_of(self.content))
        return self.tokens

    @property
    def can_be_sent(self) -> bool:
        """It is in memory, and small enough to be sent to a process."""
        return self.content.path is None and self.content.size <= SENT_OCTETS

    def octets(self) -> bytes:
        """All of it, where it can be sent."""
        content = self.content
        return (content.prefix + content.data) if content.prefix else content.data  # type: ignore[no-any-return]

    def read_at_once(self) -> Sequence[str] | None:
        """The same, None where it takes longer than the reactor can wait."""
        if self.tokens is None and (self.content.path is not None or self.content.size > AT_ONCE_OCTETS):
            return None
        return self.read()


class Whose:
    """Whose learning counts for a recipient.  `own` is the owner's name, "" for the site alone, and `number` his, or 0.

    `spam` and `ham` are how many messages were learnt.
    """

    __slots__ = ("ham", "number", "own", "spam")

    def __init__(self, own: str, number: int, spam: int, ham: int) -> None:
        self.own = own
        self.number = number
        self.spam = spam
        self.ham = ham


class TokenQuestion:
    """For one recipient of a message: `tokens` are those that are not remembered, None: all, which are not known yet."""

    __slots__ = ("owners", "subject", "tokens")

    def __init__(self, subject: SubjectMessage, owners: tuple[str, ...], tokens: Sequence[str] | None) -> None:
        self.subject = subject
        self.owners = owners
        self.tokens = tokens


class TokensFound:
    """The answer: `whose` is None where those have learnt too little.  `strengths` may hold more than was asked for."""

    __slots__ = ("strengths", "whose")

    def __init__(self, whose: Whose | None, strengths: Strengths) -> None:
        self.whose = whose
        self.strengths = strengths


class TokenMemory:
    """Remembers whose learning counts, and what tokens say, until something is learnt.

    What there is too much of is forgotten as a whole: the common words are soon there again.
    """

    def __init__(self) -> None:
        self._whose: dict[tuple[str, ...], Whose | None] = {}
        self._strengths: dict[int, dict[str, Said | None]] = {}
        self._count = 0

    def clear(self) -> None:
        """Something else holds now."""
        # In their places: whoever has asked before goes on with what held then.
        self._whose, self._strengths, self._count = {}, {}, 0

    def whose(self, owners: tuple[str, ...]) -> Whose | None:
        """As it was found; None where they have learnt too little.  Raises KeyError where nobody knows."""
        return self._whose[owners]

    def keep_whose(self, owners: tuple[str, ...], whose: Whose | None) -> None:
        """Remember that."""
        if len(self._whose) > OWNERS_MOST:
            self._whose = {}
        self._whose[owners] = whose

    def strengths(self, number: int) -> Strengths:
        """What tokens say for the owner of this number, the site 0."""
        return self._strengths.get(number, {})

    def keep(self, questions: Sequence[TokenQuestion], answers: Iterable[TokensFound | Exception]) -> None:
        """Remember what was found."""
        new: dict[int, Strengths] = {}
        for question, found in zip(questions, answers, strict=True):
            if isinstance(found, TokensFound):
                self.keep_whose(question.owners, found.whose)
                if found.whose is not None:
                    new[found.whose.number] = found.strengths
        self._count += sum(map(len, new.values()))
        if self._count > TOKENS_MOST:
            self._strengths, self._count = {}, sum(map(len, new.values()))
        for number, strengths in new.items():
            self._strengths.setdefault(number, {}).update(strengths)


def look_up(
    file: LearntFile, questions: Sequence[TokenQuestion], key: bytes, minimum: int, own_weight: float
) -> list[TokensFound | Exception]:
    """The answers, an OSError in the place of one whose message cannot be read.  Blocks.  Raises `StorageFault`."""
    rows = {one.name: one for one in file.owners(list({"", *[name for one in questions for name in one.owners]}))}
    found: list[TokensFound | Exception] = []
    wanted: dict[int, tuple[Weighted, dict[str, None], dict[str, Said | None]]] = {}
    for question in questions:
        whose, counting = _whose(rows, question.owners, own_weight)
        if whose.spam < minimum or whose.ham < minimum:
            found.append(TokensFound(None, {}))
            continue
        try:
            tokens = question.subject.read() if question.tokens is None else question.tokens
        except OSError as error:
            found.append(error)
            continue
        _, every, strengths = wanted.setdefault(whose.number, (counting, {}, {}))
        every.update(dict.fromkeys(tokens))
        found.append(TokensFound(whose, strengths))
    for counting, every, strengths in wanted.values():
        strengths.update(_strengths(file, counting, list(every), key))
    return found


def _whose(rows: Mapping[str, OwnerRow], owners: Sequence[str], own_weight: float) -> tuple[Whose, Weighted]:
    """What a user has learnt himself weighs more: the first of the owners who has learnt something."""
    own = next((rows[name] for name in owners if name and name in rows), None)
    counting = [(row, weight) for row, weight in ((rows.get(""), 1.0), (own, own_weight)) if row is not None]
    spam, ham = sum([row.spam for row, _ in counting]), sum([row.ham for row, _ in counting])
    return Whose("" if own is None else own.name, 0 if own is None else own.number, spam, ham), counting


def _strengths(file: LearntFile, rows: Weighted, tokens: Sequence[str], key: bytes) -> dict[str, Said | None]:
    learned = Learned(sum([weight * row.spam for row, weight in rows]), sum([weight * row.ham for row, weight in rows]))
    hashes = hashes_of(tokens, key)
    known: dict[int, tuple[float, float, int]] = {}
    for row, weight in rows:
        for number, (in_spam, in_ham) in file.counts(row.number, hashes).items():
            spam, ham, seen = known.get(number, (0.0, 0.0, 0))
            known[number] = spam + weight * in_spam, ham + weight * in_ham, seen + in_spam + in_ham
    strengths: dict[str, Said | None] = dict.fromkeys(tokens)
    for token, number in zip(tokens, hashes, strict=True):
        counts = known.get(number)
        if counts is not None:
            strengths[token] = said_by(TokenCounts(token, *counts), learned)
    return strengths


def _start_of(content: Any) -> bytes:
    pieces, octets = [], 0
    for piece in content.chunks():
        pieces.append(piece[: READ_OCTETS - octets])
        octets += len(pieces[-1])
        if octets >= READ_OCTETS:
            break
    return b"".join(pieces)
