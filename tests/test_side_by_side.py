"""The runner of the suite: what it must not take for a success."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.side_by_side import ROOT

CASE = "from twisted.trial.unittest import SynchronousTestCase\nclass Case(SynchronousTestCase):\n"
KEPT = {"__init__.py", "side_by_side.py", "worker.py"}

FINE = {
    "a": "def test_right(self):\n    pass\ndef test_skipped(self):\n    pass\ntest_skipped.skip = 'so'\n",
    "b": "def test_known(self):\n    self.fail()\ntest_known.todo = 'later'\ndef test_right(self):\n    pass\n",
}
FAULTY = {
    "right": "def test_right(self):\n    pass\n",
    "wrong": "def test_wrong(self):\n    self.assertEqual('left', 'right')\n",
    "error": "def test_error(self):\n    raise KeyError('gone')\n",
    "mixed": "def test_mixed(self):\n    self.assertNotEqual(b'a', 'a')\n",
    "warned": "def test_warned(self):\n    import warnings\n    warnings.warn('so', DeprecationWarning)\n",
    "dies": "def test_dies(self):\n    import os\n    os.kill(os.getpid(), 9)\n",
    "hangs": "def test_hangs(self):\n    import threading\n    threading.Event().wait()\n",
    "empty": "def tset_misspelt(self):\n    pass\n",
    "gone": "import there_is_none_of_this_name\n",
    "logs": "def test_logs(self):\n    from twisted.python import log\n    log.err(ValueError('unseen'))\n",
    "last": "def test_right(self):\n    pass\n",
}


def run_suite(modules: dict[str, str]) -> tuple[int, str]:
    """The status, and all that was said, of a run over a suite of these modules alone."""
    folder = Path(tempfile.mkdtemp())
    try:
        shutil.copytree(ROOT / "tests", folder / "tests", ignore=lambda _, names: set(names) - KEPT)
        for name, body in modules.items():
            (folder / "tests" / f"test_{name}.py").write_text(CASE + textwrap.indent(body, "    "))
        command = [sys.executable, "-bb", "-X", "faulthandler", "-W", "error", "-m", "tests.side_by_side", "tests"]
        environment = {**os.environ, "TEST_QUIET_SECONDS": "5", "PYTHONPATH": ""}
        ran = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=200
        )
        return ran.returncode, ran.stdout + ran.stderr
    finally:
        shutil.rmtree(folder)


class Fine(SynchronousTestCase):
    def test_all_outcomes_are_added_up_over_the_processes(self) -> None:
        status, said = run_suite(FINE)
        self.assertEqual((status, said.splitlines()[-1]), (0, "PASSED (skips=1, expectedFailures=1, successes=2)"))


class Faulty(SynchronousTestCase):
    _ran: list[tuple[int, str]] = []  # one run serves all

    def setUp(self) -> None:
        if not self._ran:
            self._ran.append(run_suite(FAULTY))
        self.status, self.said = self._ran[0]

    def assertSaid(self, *words: str) -> None:
        for expected in words:
            self.assertIn(expected, self.said)

    def test_it_fails_and_the_last_line_counts_all(self) -> None:
        self.assertEqual(self.status, 1)
        self.assertRegex(self.said.splitlines()[-1], r"^FAILED \(failures=1, errors=8, successes=\d\)$")

    def test_a_failure_is_shown_with_its_trace(self) -> None:
        self.assertSaid("tests.test_wrong.Case.test_wrong", "'left' != 'right'", "KeyError: 'gone'")

    def test_the_processes_are_as_strict_as_the_runner(self) -> None:
        self.assertSaid("BytesWarning", "DeprecationWarning: so")

    def test_a_process_that_dies_fails_its_module(self) -> None:
        ended = f"tests.test_dies ended the process that ran it (status -{int(signal.SIGKILL)}) in tests.test_dies.Case.test_dies"
        self.assertSaid(ended)

    def test_a_test_that_hangs_is_named_and_its_place_shown(self) -> None:
        self.assertSaid(
            "tests.test_hangs hung: tests.test_hangs.Case.test_hangs has not ended for 5 s", "line 5 in test_hangs"
        )

    def test_a_module_without_a_test_is_a_failure(self) -> None:
        self.assertSaid("tests.test_empty has no tests")

    def test_a_module_that_cannot_be_imported_is_a_failure(self) -> None:
        self.assertSaid("No module named 'there_is_none_of_this_name'")

    def test_an_error_that_is_logged_and_not_flushed_is_a_failure(self) -> None:
        self.assertSaid("ValueError: unseen")
