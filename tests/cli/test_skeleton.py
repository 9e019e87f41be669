"""``mailserver plugins new``: each kind's package installs with pip, its tests pass, its types hold, the server finds it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mailserver.cli.skeletons.writing import KINDS, STAGES, SkeletonError, class_name, write_skeleton
from tests.cli.support import run
from tests.rfc_index import ROOT

WHEELS = """
import os, sys
from setuptools import build_meta
here = os.getcwd()
for folder in sys.argv[1:]:
    os.chdir(folder)
    build_meta.build_wheel(here)
"""
OTHER_STAGES = [stage for stage in STAGES if stage != "content"]
PACKAGES = [*KINDS, *(f"filter-{stage.replace('_', '-')}" for stage in OTHER_STAGES)]
COMPONENTS = [kind for kind in PACKAGES if kind != "checker"]  # Twisted finds that one


class Written(SynchronousTestCase):
    """A package of each kind, written and installed once for all tests."""

    where: Path | None = None

    def setUp(self) -> None:
        if Written.where is None:
            self.install()

    @classmethod
    def install(cls) -> None:
        cls = Written
        cls.where = Path(tempfile.mkdtemp(prefix="skeletons", dir=".")).absolute()
        cls.folders = [write_skeleton(f"my-{kind}", str(cls.where), kind)[0] for kind in KINDS]
        for stage in OTHER_STAGES:
            cls.folders.append(write_skeleton(f"my-filter-{stage.replace('_', '-')}", str(cls.where), "filter", stage)[0])
        cls.installed = str(cls.where / "installed")
        cls.wheels = subprocess.run(
            [sys.executable, "-c", WHEELS, *cls.folders], cwd=cls.where, capture_output=True, text=True, check=False, timeout=200
        )
        for wheel in cls.where.glob("*.whl"):
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(cls.installed)

    def run_python(self, *arguments: str, warnings: str = "error", path: str = "", cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-bb", "-W", warnings, "-W", "ignore:'crypt' is deprecated", "-W", "ignore:'spwd' is deprecated", *arguments],
            cwd=cwd or self.where,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (path or self.installed, str(ROOT))))},
            capture_output=True,
            text=True,
            check=False,
            timeout=200,
        )
        self.assertEqual(done.returncode, 0, done.stdout[-6000:] + done.stderr[-3000:])
        return done

    def test_each_kind_is_a_package_with_its_types(self) -> None:
        self.assertEqual(self.wheels.returncode, 0, self.wheels.stdout + self.wheels.stderr)
        for kind in PACKAGES:
            self.assertTrue(Path(self.installed, f"mailserver_my_{kind.replace('-', '_')}", "py.typed").exists(), kind)

    def test_pip_installs_it(self) -> None:
        """Without a network: one of them, as they differ in nothing that pip sees."""
        target = str(self.where / "by-pip")
        pip = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index", "--no-deps")
        done = subprocess.run(
            [sys.executable, *pip, "--no-build-isolation", "--no-compile", "--target", target, self.folders[0]],
            capture_output=True, text=True, check=False, timeout=200,
        )  # fmt: skip
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        checked = self.run_python("-m", "mailserver.cli", "plugins", "check", path=target)
        self.assertRegex(checked.stdout, r"(?m)^ok +my-filter: IContentFilter, from mailserver-my-filter: my-filter = ")

    def test_its_tests_pass_under_trial_and_under_pytest(self) -> None:
        together = self.where / "tests"
        together.mkdir()
        for file in self.where.glob("mailserver-my-*/tests/test_*.py"):
            shutil.copy(file, together)
        names = sorted(path.stem for path in together.iterdir())
        self.assertEqual(len(names), len(PACKAGES))
        tried = self.run_python("-m", "twisted.trial", *names, cwd=together)
        self.assertRegex(tried.stdout, r"PASSED \(successes=\d\d+\)")
        successes = int(tried.stdout.rpartition("successes=")[2].rstrip(")\n"))
        options = ("-p", "no:cacheprovider", "--import-mode=importlib", "-q")
        tested = self.run_python("-m", "pytest", *options, str(together), warnings="default")
        self.assertRegex(tested.stdout, rf"(?m)^{successes} passed")

    def test_the_server_finds_each_kind_and_has_no_fault_to_find(self) -> None:
        checked = self.run_python("-m", "mailserver.cli", "plugins", "check")
        for kind in COMPONENTS:
            self.assertRegex(checked.stdout, rf"(?m)^ok +my-{kind}: I\w+, from mailserver-my-{kind}: my-{kind} = ")
        self.assertNotIn("0.1", checked.stdout)

    def test_the_table_of_its_readme_is_a_configuration(self) -> None:
        frame = 'hostname = "mail.example.org"\ndata = "data"\n[[listen]]\nservice = "lmtp"\nendpoint = "tcp:0"\n'
        code = "import sys; from mailserver.config import load; from mailserver.plugins.catalogue import discover; "
        code += "found = discover(); [load(one, found.options_of) for one in sys.argv[1:]]"
        files = []
        for folder in self.folders:
            table = Path(folder, "README.md").read_text().split("```toml\n")[1].split("```")[0]
            files.append(f"{folder}.toml")
            Path(files[-1]).write_text(frame + table)
        self.run_python("-c", code, *files)

    def test_a_mistyped_key_of_it_is_told_with_its_line(self) -> None:
        file = self.where / "m.toml"
        file.write_text(
            'hostname = "mail.example.org"\ndata = "data"\n[[listen]]\nservice = "lmtp"\nendpoint = "tcp:0"\n'
            '[[filter]]\nuse = "my-filter"\nwords = ["invoice"]\nword = "x"\n'
        )
        code = "import sys; from mailserver.cli import main; sys.exit(0 if main(sys.argv[1:]) == 1 else 9)"
        checked = self.run_python("-c", code, "check", "--config", str(file))
        self.assertIn("m.toml:9: filter[0].word: is not a key that is known here; did you mean 'words'?", checked.stdout)


class Writing(SynchronousTestCase):
    def folder(self) -> str:
        folder = os.path.abspath(self.mktemp())
        os.makedirs(folder)
        return folder

    def test_a_name_that_cannot_be_a_package_is_refused(self) -> None:
        wrong = ("", "Upper", "two words", "../up", "9lives", "a--b", "-a", "a" * 61, "a\n", 'a"', "a'b", "a/b", "a.b", "é", "a_b")
        for name in (*wrong, "$(id)", "a;b", "{a}", "a\0b", "@name@"):
            folder = self.folder()
            self.assertRaisesRegex(SkeletonError, "is no name", write_skeleton, name, folder)
            self.assertEqual(os.listdir(folder), [])

    def test_an_unknown_kind_is_refused(self) -> None:
        for kind in ("sorter", "writing", "../filter", ""):
            self.assertRaisesRegex(SkeletonError, "is no kind", write_skeleton, "one", self.folder(), kind)
        self.assertEqual(run("plugins", "new", "one", "--kind", "sorter").code, 2)

    def test_a_stage_is_a_filters_and_one_that_there_is(self) -> None:
        self.assertRaisesRegex(SkeletonError, "is no stage", write_skeleton, "one", self.folder(), "filter", "data")
        self.assertRaisesRegex(SkeletonError, "a delivery does not", write_skeleton, "one", self.folder(), "delivery", "peer")
        where = self.folder()
        self.assertEqual(run("plugins", "new", "one", "--stage", "recipient", "--directory", where).code, 0)
        text = Path(where, "mailserver-one", "mailserver_one", "__init__.py").read_text()
        self.assertIn("async def judge_recipient(", text)
        self.assertNotRegex(text, "@[a-z]+@")

    def test_no_name_hides_one_of_pythons_or_of_the_api(self) -> None:
        self.assertEqual(class_name("no-invoices", "filter"), "NoInvoices")
        for name in ("none", "true", "pass", "envelope", "exception", "any", "content", "print"):
            for kind in KINDS:
                folder, files = write_skeleton(name, self.folder(), kind)
                for file in files:
                    if file.endswith(".py"):
                        compile(Path(folder, file).read_text(), file, "exec")
        self.assertEqual([class_name(name, "filter") for name in ("none", "pass", "options")], ["NoneFilter", "PassFilter", "OptionsFilter"])

    def test_a_folder_that_is_there_is_not_touched(self) -> None:
        where = self.folder()
        write_skeleton("one", where)
        before = sorted(os.listdir(os.path.join(where, "mailserver-one")))
        self.assertRaisesRegex(SkeletonError, "there already", write_skeleton, "one", where)
        self.assertEqual(sorted(os.listdir(os.path.join(where, "mailserver-one"))), before)
