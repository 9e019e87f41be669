"""The mutants of the proof are programs, each unlike the one they come from."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

from twisted.trial.runner import TestLoader
from twisted.trial.unittest import SynchronousTestCase

from tests.proofs.brood import Brood
from tests.proofs.mutants import IN_SERVERS, ROOT, TESTS, changes, path_of
from tests.proofs.sample import SIZE, WHOLE, Reach, Sampled, every, explained, explanation, sample, touched


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
        loader = TestLoader()
        for name in {name for names in IN_SERVERS.values() for name in names}:
            self.assertGreater(loader.loadByName(name).countTestCases(), 0, name)

    def test_a_mutant_that_no_test_could_miss_is_seen(self) -> None:
        brood = Brood(list(TESTS["sasl/cram_md5"]))
        self.addCleanup(brood.close)
        tests = [(name, 2.0) for name in TESTS["sasl/cram_md5"]]
        [one] = [one for one in every("sasl/cram_md5") if one.words == "IsNot → Is"]
        self.assertIn("tests.sasl.test_", brood.killer(one.module, one.number, tests) or "")

    def test_a_process_that_a_test_starts_has_the_mutant_too(self) -> None:
        [number] = [one.number for one in every("processes/frames") if one.words == "4 → 5"]
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


TEXT = """
LIMIT = 3


class One:
    size = 4

    def two(
        self, three=5
    ):
        if (three
                > 6):
            return call(
                7,
            )
        return 8
"""


class Samples(SynchronousTestCase):
    def test_a_sample_is_the_same_each_time_and_without_what_is_measured_whole(self) -> None:
        chosen = sample("sasl")
        self.assertEqual(chosen, sample("sasl"))
        self.assertEqual(len({one.key for one in chosen}), SIZE)
        self.assertEqual({one.module for one in chosen} & WHOLE, set())
        self.assertNotEqual(chosen, sample("sasl", seed=2))

    def test_a_line_counts_as_executed_with_any_line_of_its_statement(self) -> None:
        for line, lines, at_import in (
            (2, range(2, 3), True), (6, range(6, 7), True), (9, range(8, 11), True), (12, range(11, 13), False), (14, range(13, 16), False),
            (16, range(16, 17), False),
        ):  # fmt: skip
            self.assertEqual(touched(TEXT, line), (lines, at_import), line)

    def test_the_tests_that_execute_a_line_see_what_is_wrong_with_it(self) -> None:
        brood = Brood(["tests.filters.test_null_mx"])
        self.addCleanup(brood.close)
        tests = brood.record("tests.filters.test_null_mx")
        self.assertEqual({name.rpartition(".")[0] for name in tests}, {"tests.filters.test_null_mx.NullMXSenders"})
        [one] = [one for one in every("filters/null_mx") if one.words == "Is → IsNot"]
        reached = [(name, test["seconds"]) for name, test in tests.items() if one.line in test["lines"]["filters/null_mx.py"]]
        self.assertEqual(len(reached), 3)
        self.assertIsNone(brood.killer(one.module, -1, reached))
        self.assertIn(brood.killer(one.module, one.number, reached), dict(reached))

    def test_what_a_package_is_tried_with_names_it(self) -> None:
        names = Reach("filters", ROOT).names
        self.assertIn("tests.filters.test_null_mx", names)
        self.assertNotIn("tests.dns.test_wire", names)

    def test_lines_of_the_log_need_no_test_and_what_is_written_down_has_a_reason(self) -> None:
        [line] = [number for number, text in enumerate(path_of("tls/certificates").read_text().splitlines(), 1) if "self.log.failure" in text]
        said = Sampled("key", "tls/certificates", 0, line, "without self.log.failure('…')")
        self.assertEqual(explanation(said), "a line of the log")
        self.assertIsNone(explanation(Sampled("key", "tls/certificates", 0, line, "True → False")))
        for key, why in explained().items():
            self.assertTrue(path_of(key.partition(":")[0]).exists(), key)
            self.assertGreater(len(why), 10)
