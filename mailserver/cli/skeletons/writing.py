"""Writes the package: what is the same for every kind, and the names in it."""

from __future__ import annotations

import builtins
import keyword
import os
import re
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from mailserver.cli.skeletons.filter import STAGES

__all__ = ["KINDS", "STAGES", "SkeletonError", "write_skeleton"]

KINDS = ("filter", "modifier", "scorer", "observer", "delivery", "router", "directory", "checker", "command")
NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
NAME_CHARACTERS = 60

PYPROJECT = """\
[build-system]
requires = ["setuptools>=64"]
build-backend = "setuptools.build_meta"

[project]
name = "mailserver-@name@"
version = "0.1"
description = "The @kind@ @name@ for mailserver"
requires-python = ">=3.11"
dependencies = ["mailserver>=0.1,<2"]

[project.optional-dependencies]
test = ["mailserver[testing]", "mypy>=1.18", "mypy-zope", "pytest"]
@entry_points@
[tool.setuptools]
packages = [@packages@]
package-data = { "*" = ["py.typed"] }

[tool.mypy]
strict = true
packages = ["mailserver_@module@"]
plugins = ["mypy_zope:plugin"]
# A call that nobody awaits does nothing, and what it returns is true.
enable_error_code = ["truthy-bool", "unused-awaitable"]
strict_equality_for_none = true
@settings@"""
ENTRY_POINTS = """
[project.entry-points."mailserver.plugins"]
@name@ = "mailserver_@module@:factory"
"""
GITIGNORE = """\
__pycache__/
*.egg-info/
.mypy_cache/
.pytest_cache/
_trial_temp*/
build/
dist/
"""
README = """\
# @name@

@says@ Install it with `pip install .`, then:

```toml
@table@```

Test it with `python -m twisted.trial tests`. `pip install '.[test]'` brings what else can be used: pytest for the same tests,
`mypy` for the package's types, hypothesis.
docs/plugins/@page@ of mailserver explains what a @kind@ is asked, and what its failure means.
"""


class SkeletonError(Exception):
    """The package cannot be written."""


def write_skeleton(name: str, directory: str, kind: str = "filter", stage: str = "") -> tuple[str, list[str]]:
    """Write the package into a new folder of `directory`; return the folder and its files.

    `stage` is where a filter judges, "content" where nothing is said.  Raises `SkeletonError` for an invalid name, an unknown
    kind or stage or an existing folder, and OSError where it cannot be written.
    """
    if not NAME.fullmatch(name) or len(name) > NAME_CHARACTERS:
        raise SkeletonError(f"{name!r} is no name for a component: lower-case letters, digits and single hyphens")
    if kind not in KINDS:
        raise SkeletonError(f"{kind!r} is no kind of plugin: {', '.join(KINDS)}")
    if stage and kind != "filter":
        raise SkeletonError(f"a filter judges at a stage, a {kind} does not")
    if stage not in ("", *STAGES):
        raise SkeletonError(f"{stage!r} is no stage: {', '.join(STAGES)}")
    folder = os.path.join(directory, f"mailserver-{name}")
    if os.path.lexists(folder):
        raise SkeletonError(f"{folder} is there already")
    template = STAGES[stage or "content"] if kind == "filter" else import_module(f"mailserver.cli.skeletons.{kind}")
    texts = skeleton_texts(name, template, kind)
    for file, text in texts.items():
        path = os.path.join(folder, file)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "x", encoding="utf-8") as output:
            output.write(text)
    return folder, list(texts)


def skeleton_texts(name: str, template: Any, kind: str) -> Mapping[str, str]:
    """Each file of the package and its text."""
    module = name.replace("-", "_")
    plugin_module: str = getattr(template, "PLUGIN_MODULE", "")  # what `twisted.plugins` needs, for what Twisted finds itself
    packages = [f"mailserver_{module}", *(["twisted.plugins"] if plugin_module else [])]
    marks = {
        "@entry_points@": "" if plugin_module else ENTRY_POINTS,
        "@settings@": getattr(template, "SETTINGS", ""),
        "@packages@": ", ".join(f'"{one}"' for one in packages),
        "@says@": template.SAYS,
        "@table@": template.TABLE,
        "@page@": getattr(template, "PAGE", f"{kind}.md"),
        "@kind@": kind,
        "@name@": name,
        "@module@": module,
        "@class@": class_name(name, kind),
    }
    texts = {
        "pyproject.toml": PYPROJECT,
        "README.md": README,
        ".gitignore": GITIGNORE,
        os.path.join(f"mailserver_{module}", "__init__.py"): template.PACKAGE,
        os.path.join(f"mailserver_{module}", "py.typed"): "",
        os.path.join("tests", "__init__.py"): "",
        os.path.join("tests", f"test_{module}.py"): template.TEST,
    }
    if plugin_module:
        texts[os.path.join("twisted", "plugins", f"mailserver_{module}_plugin.py")] = plugin_module
    for mark, word in marks.items():
        texts = {file: text.replace(mark, word) for file, text in texts.items()}
    return texts


def class_name(name: str, kind: str) -> str:
    """``no-ads`` is `NoAds`; where Python or the API has that name, the kind goes with it."""
    from mailserver import api

    camel = "".join(part.capitalize() for part in name.split("-"))
    taken = {*api.__all__, *dir(builtins), *keyword.kwlist, "Any", "Mapping", "Sequence"}
    clashes = any(f"{camel}{more}" in taken for more in ("", "Options", "Factory"))
    return camel + kind.capitalize() if clashes else camel
