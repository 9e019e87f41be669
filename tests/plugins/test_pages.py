"""docs/plugins/: every example runs, its tests pass under trial and under pytest, its configuration loads, none is long."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailserver import api, testing
from mailserver.config import parse
from mailserver.interfaces import IComponentFactory
from mailserver.plugins.catalogue import Catalogue, FoundPlugin, discover
from tests.documents import DOCS, blocks, page_text
from tests.plugins.steps_in_code import steps_in_code
from tests.rfc_index import ROOT

PAGES = ("modifier", "scorer", "observer", "delivery", "router", "directory", "checker", "testing", "heavy-work")
FRAME = 'hostname = "mail.example.org"\ndata = "data"\n[[listen]]\nservice = "lmtp"\nendpoint = "tcp:0"\n'
PATIENT = """
from hypothesis import HealthCheck, settings
# It reads the whole server's source, since that lies beside, and calls it slow.
settings.register_profile("patient", suppress_health_check=[HealthCheck.too_slow], deadline=None)
settings.load_profile("patient")
"""
LINES_MOST = 150  # of one example: what `plugins new` writes for its kind has half of that


def module_of(page: str) -> str:
    """What a reader would have after typing all blocks of a page into one file."""
    return "\n\n".join(blocks(page_text(f"plugins/{page}.md"), "python"))


def module_name(page: str) -> str:
    """What it is written as."""
    return f"test_page_{page.replace('-', '_')}"


class Pages(SynchronousTestCase):
    def written(self) -> Path:
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        for page in PAGES:
            (folder / f"{module_name(page)}.py").write_text(module_of(page))
        (folder / "sitecustomize.py").write_text(PATIENT)
        return folder

    def run_python(self, folder: Path, *arguments: str, warnings: str = "error") -> str:
        done = subprocess.run(
            [sys.executable, "-W", warnings, "-W", "ignore:'crypt'", "-W", "ignore:'spwd'", "-W", "ignore:Using readBody", *arguments],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": f"{folder}:{ROOT}"},
            capture_output=True,
            text=True,
            check=False,
            timeout=200,
        )
        self.assertEqual(done.returncode, 0, done.stdout[-6000:] + done.stderr[-3000:])
        return done.stdout

    def test_their_examples_pass_their_tests_under_trial_and_under_pytest(self) -> None:
        folder = self.written()
        names = [module_name(page) for page in PAGES]
        tried = self.run_python(folder, "-m", "twisted.trial", *names)
        successes = int(re.findall(r"PASSED \(successes=(\d+)\)", tried)[0])
        for name in names:
            self.assertIn(name, tried)
        tested = self.run_python(folder, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder), warnings="default")
        self.assertRegex(tested, rf"(?m)^{successes} passed")

    def test_they_import_what_is_public(self) -> None:
        """The components that come with the server stand there as examples."""
        for page in sorted((DOCS / "plugins").glob("*.md")):
            found = re.findall(r"^ *(?:from|import) (mailserver[\w.]*)", page.read_text(), re.M)
            for module in found:
                self.assertRegex(module, r"^mailserver\.(api|testing|filters(\.\w+)?)$|^mailserver_", f"{page.name}: {module}")

    def test_their_configurations_load(self) -> None:
        folder = self.written()
        self.patch(sys, "path", [str(folder), *sys.path])
        for page in PAGES:
            module = importlib.import_module(module_name(page))
            self.addCleanup(sys.modules.pop, module.__name__)
            factories = [one for one in vars(module).values() if IComponentFactory.providedBy(one)]
            catalogue = Catalogue([*discover().found, *[FoundPlugin(one, page) for one in factories]])
            for table in blocks(page_text(f"plugins/{page}.md"), "toml"):
                if "project.entry-points" not in table:
                    parse(FRAME + table, file=page, directory="/", options_of=catalogue.options_of)

    def test_no_example_is_long(self) -> None:
        long = {}
        for page in PAGES:
            for block in blocks(page_text(f"plugins/{page}.md"), "python"):
                lines = [line for line in block.splitlines() if line.strip()]
                if len(lines) > LINES_MOST:
                    long[page] = len(lines)
        self.assertEqual(long, {})

    def test_the_index_has_every_page_and_no_other(self) -> None:
        index = page_text("plugins/index.md")
        linked: Any = set(re.findall(r"\| \[[\w-]+\.md\]\(([\w-]+\.md)\)", index))
        self.assertEqual(linked, {path.name for path in (DOCS / "plugins").glob("*.md")} - {"index.md"})


class Steps(SynchronousTestCase):
    """docs/plugins/steps.md: what the code notes is on the page, and nothing else."""

    def rows(self) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for steps, fields in re.findall(r"(?m)^\| (`[^|]*`) \| ([^|]*) \|", page_text("plugins/steps.md")):
            for step in re.findall(r"`(\w+)`", steps):
                found[step] = set(re.findall(r"`(\w+)`", fields))
        return found

    def test_every_step_and_every_field_that_the_code_notes_is_on_the_page(self) -> None:
        rows, noted = self.rows(), steps_in_code()
        self.assertGreater(len(noted), 20)
        self.assertEqual({step: fields - rows.get(step, set()) for step, fields in noted.items() if step not in rows or fields - rows[step]}, {})

    def test_every_step_on_the_page_stands_in_the_code(self) -> None:
        text = "".join(path.read_text() for path in sorted((ROOT / "mailserver").rglob("*.py")))
        self.assertEqual([step for step in self.rows() if f'"{step}"' not in text], [])


class Porting(SynchronousTestCase):
    def test_every_name_of_ours_in_the_tables_is_public(self) -> None:
        page = page_text("plugins/porting.md")
        ours = re.findall(r"\| [^|]* \| ([^|]*) \|", page)
        names = set(re.findall(r"`(I?[A-Z][a-z]\w+|I[A-Z]\w+)(?=[`.(])", " ".join(ours)))
        self.assertGreater(len(names), 20)
        self.assertEqual(sorted(name for name in names if name not in api.__all__ and name not in testing.__all__), [])
