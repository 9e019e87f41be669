#!/usr/bin/env python3
"""Measure what the filter `bayes` gets right on generated mail, and what a message costs.

    python -m bench.bayes                    error rates by how much was learnt, for Fisher's way of combining and the plain one
    python -m bench.bayes --own              how soon a user who disagrees with the site is heard, by `own_weight`
    python -m bench.bayes --cost             processor time for a message, by its size

The mail is that of tests/filters/mail_corpus.py: `--overlap` of each message's words are common to both kinds.  It is not
people's mail, so the rates say which way is better and from how much learning on, not what a site will see.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import tempfile
import time
from collections.abc import Sequence

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from mailserver.state_store.learnt_file import LearntFile, Lesson
from mailserver.trust.bayes import Learned, TokenCounts, fisher, strength, weigh
from mailserver.trust.tokens import reduced
from tests.filters.mail_corpus import Corpus

KEY = b"k" * 32
SIZES = (20, 50, 100, 200, 500)


def plain(values: Sequence[float]) -> float:
    """The product of the odds, as naive Bayes has it."""
    total = math.fsum([math.log(value / (1 - value)) for value in values])
    return 1 / (1 + math.exp(-max(min(total, 700.0), -700.0)))


def learn(file: LearntFile, owner: str, kind: str, messages: Sequence[bytes]) -> None:
    lessons = []
    for octets in messages:
        one, _ = reduced(octets, KEY)
        lessons.append(Lesson(kind, one.digest, one.hashes))  # type: ignore[arg-type]
    file.learn(owner, lessons, now=1e9, vocabulary_most=10_000_000)


def counts(file: LearntFile, octets: bytes, owners: dict[str, float]) -> tuple[list[TokenCounts], Learned]:
    one, tokens = reduced(octets, KEY)
    words = dict(zip(one.hashes, tokens, strict=True))
    found: dict[int, list[float]] = {}
    spam = ham = 0.0
    for row in file.owners(list(owners)):
        weight = owners[row.name]
        spam, ham = spam + weight * row.spam, ham + weight * row.ham
        for token, (a, b) in file.counts(row.number, one.hashes).items():
            entry = found.setdefault(token, [0.0, 0.0, 0.0])
            entry[0] += weight * a
            entry[1] += weight * b
            entry[2] += a + b
    return [TokenCounts(words[token], *entry) for token, entry in found.items()], Learned(spam, ham)


def rates(overlap: float) -> None:
    print(f"overlap {overlap:g}; of 400 messages of each kind: wrong (past 0.5), unsure (0.4 to 0.6)")
    print("learnt of each    fisher: spam ham unsure    plain: spam ham unsure")
    for size in SIZES:
        corpus = Corpus(7, overlap=overlap)
        with tempfile.TemporaryDirectory() as folder:
            file = LearntFile.open(os.path.join(folder, "bayes.db"))
            for kind in ("spam", "ham"):
                learn(file, "", kind, [corpus.message(kind) for _ in range(size)])
            wrong = {name: {"spam": 0, "ham": 0, "unsure": 0} for name in ("fisher", "plain")}
            for kind in ("spam", "ham"):
                for _ in range(400):
                    known, learned = counts(file, corpus.message(kind), {"": 1.0})
                    values = [strength(one, learned) for one in known]
                    values = sorted([one for one in values if abs(one - 0.5) >= 0.1], key=lambda one: -abs(one - 0.5))[:150]
                    for name, way in (("fisher", fisher), ("plain", plain)):
                        found = way(values)
                        if 0.4 <= found <= 0.6:
                            wrong[name]["unsure"] += 1
                        elif (found > 0.5) != (kind == "spam"):
                            wrong[name][kind] += 1
            print(f"{size:14}", *[f"        {one['spam']:6} {one['ham']:4} {one['unsure']:6}" for one in wrong.values()])
            file.close()


def own() -> None:
    print("a topic that the site has learnt as spam and a user as ham: probability for the user, by what he has learnt of it")
    print("own_weight", *[f"{n:7}" for n in (1, 3, 10, 30)])
    for weight in (1.0, 3.0, 10.0, 30.0):
        found = []
        for size in (1, 3, 10, 30):
            corpus = Corpus(11)
            topic = [corpus._word() for _ in range(8)]
            with tempfile.TemporaryDirectory() as folder:
                file = LearntFile.open(os.path.join(folder, "bayes.db"))
                learn(file, "", "spam", [corpus.message("spam", more=topic if n % 10 == 0 else ()) for n in range(500)])
                learn(file, "", "ham", [corpus.message("ham") for _ in range(500)])
                learn(file, "bob", "ham", [corpus.message("ham", more=topic, overlap=1.0) for _ in range(size)])
                values = [
                    weigh(*counts(file, corpus.message("ham", more=topic, overlap=1.0), {"": 1.0, "bob": weight})).probability
                    for _ in range(40)
                ]
                found.append(sum(values) / len(values))
                file.close()
        print(f"{weight:10}", *[f"{one:7.3f}" for one in found])


def cost() -> None:
    corpus = Corpus(3)
    with tempfile.TemporaryDirectory() as folder:
        file = LearntFile.open(os.path.join(folder, "bayes.db"))
        for kind in ("spam", "ham"):
            learn(file, "", kind, [corpus.message(kind) for _ in range(1000)])
        print(f"file of 2000 messages: {os.path.getsize(file.path) / 1e6:.1f} MB and {file.vocabulary(1)} tokens")
        print("octets   tokens   reduced ms   counted ms   weighed ms   learnt ms")
        for words in (50, 200, 1000, 5000):
            octets = corpus.message("spam", words=words)
            first = time.process_time()
            for _ in range(20):
                one, tokens = reduced(octets, KEY)
            second = time.process_time()
            for _ in range(20):
                found = file.counts(1, one.hashes)
            third = time.process_time()
            words_of = zip(one.hashes, tokens, strict=True)
            known = [TokenCounts(token, *found[n], sum(found[n])) for n, token in words_of if n in found]
            for _ in range(20):
                weigh(known, Learned(1000, 1000))
            fourth = time.process_time()
            for _ in range(10):
                file.learn("", [Lesson("spam", one.digest, one.hashes)], now=1e9, vocabulary_most=10_000_000)
                file.learn("", [Lesson("forget", one.digest, one.hashes)], now=1e9, vocabulary_most=10_000_000)
            fifth = time.process_time()
            took = [1000 * (b - a) / 20 for a, b in ((first, second), (second, third), (third, fourth), (fourth, fifth))]
            print(f"{len(octets):6} {len(tokens):8}", *[f"{one:12.2f}" for one in took])
        file.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--overlap", type=float, default=0.9)
    parser.add_argument("--own", action="store_true")
    parser.add_argument("--cost", action="store_true")
    options = parser.parse_args()
    if options.own:
        own()
    elif options.cost:
        cost()
    else:
        rates(options.overlap)


if __name__ == "__main__":
    main()
