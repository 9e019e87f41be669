"""docs/testing-your-program.md, word by word, in a small project of its own; and the way pytest finds the fixture."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.documents import page_text
from tests.requires import require_module

PAGE = page_text("testing-your-program.md")
SECONDS = 100


class Project(SynchronousTestCase):
    """The page's three files in a folder outside the tree."""

    def setUp(self) -> None:
        super().setUp()
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir(parents=True)
        for name, source in re.findall(r"```python\n# (\w+\.py)\n(.*?)```", PAGE, re.S):
            (self.folder / name).write_text(source, encoding="utf-8")
        (self.folder / "pytest.ini").write_text("[pytest]\naddopts = --strict-markers -W error -p no:cacheprovider\n")

    def run_python(self, *arguments: str) -> str:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "PYTHON"))}
        done = subprocess.run(
            [sys.executable, *arguments], cwd=self.folder, env=environment, capture_output=True, text=True, timeout=SECONDS
        )
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done.stdout

    def test_the_tests_for_pytest_pass_as_they_stand(self) -> None:
        require_module("pytest")
        self.assertIn("5 passed", self.run_python("-m", "pytest", "test_welcome.py"))

    def test_the_tests_for_trial_pass_as_they_stand(self) -> None:
        self.assertIn("PASSED (successes=2)", self.run_python("-m", "twisted.trial", "test_welcome_trial"))

    def test_a_run_of_pytest_that_does_not_use_the_fixture_loads_neither_twisted_nor_the_server(self) -> None:
        require_module("pytest")
        (self.folder / "test_other.py").write_text(
            "import sys\n\ndef test_it():\n    assert 'mailserver.pytest_plugin' in sys.modules\n"
            "    assert not {'twisted', 'mailserver.testing', 'mailserver.smtp'} & set(sys.modules)\n"
        )
        self.assertIn("1 passed", self.run_python("-m", "pytest", "test_other.py"))

    def test_the_capture_server_installs_no_reactor(self) -> None:
        self.run_python(
            "-c",
            "import sys\nfrom mailserver.testing import CaptureServer\nwith CaptureServer(): pass\n"
            "assert 'twisted.internet.reactor' not in sys.modules",
        )
