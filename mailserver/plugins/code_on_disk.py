"""Whether the code of a component that runs is still what stands on the disk.

Python loads a module once: after an upgrade the server goes on with what it has, and a reload changes nothing about that.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["CodeOnDisk"]

PLUGIN_PACKAGE = "twisted.plugins"
NAMED_MOST = 3

Seen = tuple[int, int]  # when it was written, its size


class CodeOnDisk:
    """Remembers what the files of loaded code looked like; `changed` looks again."""

    def __init__(self) -> None:
        self._files: dict[str, Seen] = {}
        self._packages: dict[str, str] = {}  # of a package's or module's name: what people call it

    def remember(self, what: str, things: Iterable[Any]) -> None:
        """`things` are objects (a factory, a component) of the code that people know as `what`."""
        for thing in things:
            module = getattr(type(thing), "__module__", None)
            if isinstance(module, str) and module != "builtins":
                self._packages.setdefault(package_of(module), what)
        self.look()

    def look(self) -> None:
        """Take in what has been loaded meanwhile of the same packages."""
        for _, path in self._loaded():
            if path not in self._files and (seen := seen_at(path)) is not None:
                self._files[path] = seen

    def changed(self) -> Mapping[str, tuple[str, ...]]:
        """What people know it as, and which of its files are not what was loaded; a few of them."""
        found: dict[str, list[str]] = {}
        for module, path in self._loaded():
            before = self._files.get(path)
            if before is not None and seen_at(path) != before:
                found.setdefault(self._packages[package_of(module)], []).append(path)
        return {what: tuple(sorted(set(paths))[:NAMED_MOST]) for what, paths in found.items()}

    def _loaded(self) -> list[tuple[str, str]]:
        return [
            (name, path)
            for name, module in list(sys.modules.items())
            if package_of(name) in self._packages and isinstance(path := getattr(module, "__file__", None), str)
        ]


def package_of(module: str) -> str:
    """The package that is installed as one; of a plugin module in `twisted.plugins` the module itself."""
    return module if module.startswith(f"{PLUGIN_PACKAGE}.") else module.partition(".")[0]


def seen_at(path: str) -> Seen | None:
    """None where there is nothing."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size
