"""All that was worth keeping of the fuzzing, and all that was once a fault."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.fuzzing.targets import CORPORA, TARGETS, corpus


class Corpora(SynchronousTestCase):
    def test_every_reader_of_strangers_octets_withstands_its_corpus(self) -> None:
        for name, target in TARGETS.items():
            for octets in corpus(name):
                with self.subTest(target=name, octets=octets):
                    target(octets)

    def test_every_target_has_a_corpus(self) -> None:
        self.assertEqual({path.stem for path in CORPORA.glob("*.json")}, set(TARGETS))
