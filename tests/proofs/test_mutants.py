"""The mutants of the proof are programs, each unlike the one they come from."""

from __future__ import annotations

import ast

from twisted.trial.unittest import SynchronousTestCase

from tests.proofs.mutants import ROOT, TESTS, changes, path_of, survives


class Mutants(SynchronousTestCase):
    def test_every_change_makes_another_program_that_compiles(self) -> None:
        source = path_of("sasl/cram_md5").read_text()
        seen = {ast.unparse(ast.parse(source))}
        for number in range(len(list(changes(ast.parse(source))))):
            tree = ast.parse(source)
            list(changes(tree))[number][2]()
            compile(ast.fix_missing_locations(tree), "mutant", "exec")
            seen.add(ast.unparse(tree))
        self.assertGreater(number, 5)
        self.assertEqual(len(seen), number + 2)

    def test_modules_and_tests_that_are_named_are_there(self) -> None:
        for module, tests in TESTS.items():
            for path in (path_of(module), *[ROOT / f"{name.replace('.', '/')}.py" for name in tests]):
                self.assertTrue(path.exists(), path)

    def test_a_mutant_that_no_test_could_miss_is_seen(self) -> None:
        self.assertFalse(survives("sasl/cram_md5", [what for _, what, _ in changes(ast.parse(
            path_of("sasl/cram_md5").read_text()))].index("IsNot → Is")))  # fmt: skip
