"""The mutants of the proof are programs, each unlike the one they come from."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.proofs.mutants import ROOT, TESTS, changes, mutants, path_of, survives


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

    def test_a_process_that_a_test_starts_has_the_mutant_too(self) -> None:
        [number] = [number for number, what in enumerate(mutants("processes/frames")) if what.endswith(": 4 → 5")]
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        says = "from mailserver.processes.frames import DESCRIPTORS; print(DESCRIPTORS)"
        starts = f"""
import pathlib, subprocess
from tests.proofs.mutants import put_in_place
put_in_place("processes/frames", {number}, pathlib.Path({str(folder)!r}))
from mailserver.processes.spawning import program
[python, *_], environment = program("mailserver.processes.root", [])
for more in ({{"env": environment}}, {{}}):
    subprocess.run([python, "-c", {says!r}], check=True, **more)
{says}
"""
        ran = subprocess.run([sys.executable, "-c", starts], cwd=ROOT, capture_output=True, text=True, check=False)
        self.assertEqual((ran.stdout.split(), ran.stderr), (["5", "5", "5"], ""))
