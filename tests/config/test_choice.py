"""Which file is read, and whose word root takes."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from mailserver.config import ConfigurationError, choice
from mailserver.config.choice import chosen_path

SOMEBODY = 54321


class AsRoot(SynchronousTestCase):
    def setUp(self) -> None:
        if os.geteuid() != 0:
            raise SkipTest("needs root, to give files to others")
        self.top = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.top)
        self.folder = self.top / "etc"
        self.folder.mkdir(mode=0o755)
        self.file = self.folder / "mailserver.toml"
        self.file.write_text("")
        self.file.chmod(0o644)
        self.said: list[str] = []

    def choose(self, named: bool = True) -> str:
        return chosen_path(
            str(self.file) if named else None, say=self.said.append, environment={choice.VARIABLE: str(self.file)}
        )

    def refusal(self, named: bool = True) -> str:
        with self.assertRaises(ConfigurationError) as caught:
            self.choose(named)
        return str(caught.exception)

    def test_its_own_file_is_taken_without_a_word(self) -> None:
        self.assertEqual((self.choose(), self.said), (str(self.file), []))

    def test_one_that_others_may_write_is_refused_however_it_was_chosen(self) -> None:
        for path, mode in ((self.file, 0o666), (self.file, 0o664), (self.folder, 0o777), (self.folder, 0o775)):
            before = path.stat().st_mode
            path.chmod(mode)
            for named in (True, False):
                self.assertIn(f"{path} may be written by others", self.refusal(named))
            path.chmod(before)
        self.choose()

    def test_anothers_file_is_told_where_it_was_named_and_else_refused(self) -> None:
        for path in (self.file, self.folder):
            os.chown(path, SOMEBODY, -1)
            self.said.clear()
            self.choose()
            self.assertIn(f"{path} belongs to user {SOMEBODY}", self.said[-1])
            self.assertIn("is not root's alone", self.refusal(named=False))
            os.chown(path, 0, -1)

    def test_a_link_of_anothers_is_his_word_too(self) -> None:
        link = self.folder / "link.toml"
        link.symlink_to(self.file)
        os.chown(link, SOMEBODY, -1, follow_symlinks=False)
        self.file = link
        self.choose()
        self.assertIn(f"{link} belongs to user {SOMEBODY}", self.said[-1])

    def test_a_sticky_folder_above_is_no_danger(self) -> None:
        self.top.chmod(0o1777)
        self.choose()


class NotRoot(SynchronousTestCase):
    def test_a_user_reads_what_he_likes(self) -> None:
        self.patch(os, "geteuid", lambda: 1000)
        self.patch(os, "getuid", lambda: 1000)
        file = Path(self.mktemp())
        file.write_text("")
        file.chmod(0o666)
        said: list[str] = []
        self.assertEqual(chosen_path(str(file), say=said.append), str(file.absolute()))
        self.assertEqual(said, [])

    def test_a_relative_name_is_of_the_folder_in_which_it_was_typed(self) -> None:
        self.patch(os, "geteuid", lambda: 1000)
        self.assertEqual(chosen_path("x.toml", say=print), os.path.abspath("x.toml"))

    def test_without_an_environment_to_believe_the_installed_one_is_taken(self) -> None:
        self.patch(os, "geteuid", lambda: 1000)
        file = self.mktemp()
        with open(file, "w"):
            pass
        self.patch(choice, "INSTALLED", os.path.abspath(file))
        self.assertEqual(chosen_path(None, say=print), os.path.abspath(file))
