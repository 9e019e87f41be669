"""After an upgrade on the disk it is told whose code is another one than what runs."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailserver.plugins.code_on_disk import CodeOnDisk

TEXT = "class Thing:\n    pass\n"


class Upgrades(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(os.path.abspath(self.mktemp()))
        self.patch(sys, "path", [*sys.path, str(self.folder)])
        self.patch(sys, "dont_write_bytecode", True)
        self.names = ("code_on_disk_one", "code_on_disk_other")
        self.addCleanup(lambda: [sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] in self.names])
        for name in self.names:
            (self.folder / name).mkdir(parents=True)
            for module in ("__init__", "parts", "later", "third", "fourth"):
                (self.folder / name / f"{module}.py").write_text(TEXT)
        self.code = CodeOnDisk()
        for name, what in zip(self.names, ("the filter one", "the filter other"), strict=True):
            self.code.remember(what, [self.thing(f"{name}.parts"), 5])

    def thing(self, module: str) -> Any:
        return importlib.import_module(module).Thing()

    def write(self, name: str, module: str, text: str = TEXT + "\n") -> str:
        path = self.folder / name / f"{module}.py"
        path.write_text(text)
        return str(path)

    def test_as_long_as_nothing_changes_nothing_is_told(self) -> None:
        self.assertEqual(self.code.changed(), {})

    def test_whose_file_has_changed_is_told_with_the_file(self) -> None:
        path = self.write(self.names[0], "parts")
        self.assertEqual(self.code.changed(), {"the filter one": (path,)})
        os.unlink(path)
        self.assertEqual(self.code.changed(), {"the filter one": (path,)}, "one that is gone, too")
        self.write(self.names[0], "parts", TEXT)
        os.utime(path, ns=(1, 1))
        self.assertEqual(self.code.changed(), {"the filter one": (path,)}, "of the same size, but written later")

    def test_another_module_of_the_same_package_counts_and_one_that_was_not_loaded_does_not(self) -> None:
        one = self.names[0]
        self.write(one, "later")
        self.assertEqual(self.code.changed(), {})
        self.thing(f"{one}.third")
        path = self.write(one, "third")
        self.assertEqual(self.code.changed(), {}, "nobody has looked at it")
        self.write(one, "third", TEXT)
        self.code.look()
        self.write(one, "third")
        self.assertEqual(self.code.changed(), {"the filter one": (path,)})

    def test_a_few_files_are_named(self) -> None:
        for module in ("__init__", "parts", "later", "third", "fourth"):
            self.thing(f"{self.names[1]}.{module}" if module != "__init__" else self.names[1])
        self.code.look()
        paths = [self.write(self.names[1], module) for module in ("__init__", "parts", "later", "third", "fourth")]
        self.assertEqual(self.code.changed(), {"the filter other": tuple(sorted(paths)[:3])})

    def test_the_first_name_of_a_package_is_its_name(self) -> None:
        self.code.remember("another of the same package", [self.thing(f"{self.names[0]}.third")])
        path = self.write(self.names[0], "third")
        self.assertEqual(self.code.changed(), {"the filter one": (path,)})
