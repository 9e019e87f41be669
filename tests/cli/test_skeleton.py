"""``mailserver plugins new``: the package installs with pip, its test passes, and the server finds it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mailserver.cli.skeleton import SkeletonError, write_skeleton

ROOT = Path(__file__).parents[2]


class Skeleton(SynchronousTestCase):
    def folder(self) -> str:
        folder = os.path.abspath(self.mktemp())
        os.makedirs(folder)
        return folder

    def run_python(self, *arguments: str, cwd: str, path: str = "") -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-bb", "-W", "error", *arguments],
            cwd=cwd,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (path, str(ROOT))))},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done

    def test_it_installs_passes_its_test_and_is_found(self) -> None:
        where = self.folder()
        folder, files = write_skeleton("no-invoices", where)
        self.assertEqual(os.path.basename(folder), "mailserver-no-invoices")
        self.assertTrue(all(os.path.exists(os.path.join(folder, file)) for file in files))
        installed = os.path.join(where, "installed")
        pip = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index", "--no-deps")
        done = subprocess.run(
            [sys.executable, *pip, "--no-build-isolation", "--target", installed, folder],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        tested = self.run_python("-m", "twisted.trial", "tests", cwd=folder, path=installed)
        self.assertIn("PASSED (successes=2)", tested.stdout)
        listed = self.run_python("-m", "mailserver.cli", "plugins", "check", cwd=where, path=installed)
        self.assertRegex(
            listed.stdout, r"(?m)^ok +no-invoices: IContentFilter, from mailserver-no-invoices: no-invoices = "
        )
        Path(where, "m.toml").write_text(
            'hostname = "mail.example.org"\ndata = "data"\n[[listen]]\nservice = "lmtp"\nendpoint = "tcp:0"\n'
            '[[filter]]\nuse = "no-invoices"\nwords = ["invoice"]\nword = "x"\n'
        )
        code = "import sys; from mailserver.cli import main; sys.exit(0 if main(sys.argv[1:]) == 1 else 9)"
        checked = self.run_python("-c", code, "check", "--config", "m.toml", cwd=where, path=installed)
        self.assertIn(
            "m.toml:9: filter[0].word: is not a key that is known here; did you mean 'words'?", checked.stdout
        )

    def test_a_name_that_cannot_be_a_package_is_refused(self) -> None:
        for wrong in ("", "Upper", "two words", "../up", "9lives", "a--b", "-a", "a" * 61):
            self.assertRaisesRegex(SkeletonError, "is no name", write_skeleton, wrong, self.folder())

    def test_a_folder_that_is_there_is_not_touched(self) -> None:
        where = self.folder()
        write_skeleton("one", where)
        before = sorted(os.listdir(os.path.join(where, "mailserver-one")))
        self.assertRaisesRegex(SkeletonError, "there already", write_skeleton, "one", where)
        self.assertEqual(sorted(os.listdir(os.path.join(where, "mailserver-one"))), before)
