"""From how often words stood in spam and in ham to how likely a message is spam.

Robinson's estimate for a word, and Fisher's way of combining them, a chi-square test against "these words are chance": Gary
Robinson, "A Statistical Approach to the Spam Problem", Linux Journal 107, 2003.  Where the words speak both ways, or nobody knows
them, the answer is near a half.  bench/bayes.py measures it beside another way.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, repeat
from operator import mul, neg, truediv

from mailserver.mail.quick import quick

__all__ = [
    "Learned",
    "Said",
    "TokenCounts",
    "WordWeight",
    "chi_square",
    "combined",
    "fisher",
    "said_by",
    "score_of",
    "strength",
    "weigh",
]

PRIOR = 0.5  # of a word that nobody knows
PRIOR_WEIGHT = 0.45  # so many messages weigh against what was seen of a word
NEAR = 0.1  # a word so near to a half says nothing
COUNTED_MOST = 150  # words that say the most
NAMED = 10
SURE = 0.1  # from 0.5: within it the score is 0


@dataclass(frozen=True, slots=True)
class Learned:
    """How many messages of each kind were learnt, weighted as the tokens' are."""

    spam: float
    ham: float


@dataclass(frozen=True, slots=True)
class TokenCounts:
    """In how many messages of each kind a token was, weighted; and in how many of both it was seen."""

    token: str
    spam: float
    ham: float
    seen: float


@quick
@dataclass(frozen=True, slots=True)
class WordWeight:
    """`probability` that it is spam; `counted` tokens decided, of which `named` say the most, each with its own probability."""

    probability: float
    counted: int
    named: tuple[tuple[str, float], ...]


Said = tuple[float, str, float]
"""What a token says; those that say the most sort first: minus how far it is from a half, the token, how likely spam it is."""


def weigh(counts: Sequence[TokenCounts], learned: Learned) -> WordWeight:
    """What these tokens make of a message, where both kinds were learnt."""
    return combined([said_by(one, learned) for one in counts])


def said_by(token: TokenCounts, learned: Learned) -> Said | None:
    """What it says, None where that is nothing."""
    value = strength(token, learned)
    away = abs(value - PRIOR)
    return (-away, token.token, value) if away >= NEAR else None


def combined(said: Iterable[Said | None]) -> WordWeight:
    """What they say together."""
    most = sorted(filter(None, said))[:COUNTED_MOST]
    named = tuple([(token, value) for _, token, value in most[:NAMED]])
    return WordWeight(fisher([value for _, _, value in most]), len(most), named)


def strength(token: TokenCounts, learned: Learned) -> float:
    """How likely a message with this token is spam, above 0 and below 1.

    What was seen seldom says little, whatever it weighs.
    """
    in_spam, in_ham = min(token.spam / learned.spam, 1.0), min(token.ham / learned.ham, 1.0)
    if in_spam + in_ham <= 0:
        return PRIOR
    return (PRIOR_WEIGHT * PRIOR + token.seen * (in_spam / (in_spam + in_ham))) / (PRIOR_WEIGHT + token.seen)


def fisher(values: Sequence[float]) -> float:
    """One probability of many: a half for none."""
    if not values:
        return PRIOR
    for_spam = 1 - chi_square(-2 * math.fsum(map(math.log1p, map(neg, values))), 2 * len(values))
    for_ham = 1 - chi_square(-2 * math.fsum(map(math.log, values)), 2 * len(values))
    return (1 + for_spam - for_ham) / 2


def chi_square(value: float, freedom: int) -> float:
    """How likely chance alone gives at least this value; `freedom` is even."""
    half = value / 2
    factors = map(truediv, repeat(half), range(1, freedom // 2))
    return min(sum(accumulate(factors, mul, initial=math.exp(-half))), 1.0)


def score_of(probability: float, *, spam: float, ham: float) -> float:
    """0 around a half; from there in a line to `spam` at 1 and to `ham` at 0."""
    away = (abs(probability - PRIOR) - SURE) / (0.5 - SURE)
    return round(max(away, 0.0) * (spam if probability > PRIOR else ham), 2)
