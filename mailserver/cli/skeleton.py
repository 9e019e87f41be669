"""What ``mailserver plugins new NAME`` writes: a package that pip can install, with a filter and a test that passes."""

from __future__ import annotations

import os
import re

__all__ = ["SkeletonError", "write_skeleton"]

NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")

PYPROJECT = """\
[build-system]
requires = ["setuptools>=64"]
build-backend = "setuptools.build_meta"

[project]
name = "mailserver-@name@"
version = "0.1"
description = "The filter @name@ for mailserver"
requires-python = ">=3.11"
dependencies = ["mailserver"]

[project.entry-points."mailserver.plugins"]
@name@ = "mailserver_@module@:factory"

[tool.setuptools]
packages = ["mailserver_@module@"]
"""

README = """\
# @name@

A filter for mailserver. Install it with `pip install .`, then:

```toml
[[filter]]
use = "@name@"
words = ["invoice"]
```

Test it with `python -m twisted.trial tests`.
"""

PACKAGE = '''\
"""The filter @name@: quarantines messages whose subject has one of the words given."""

from __future__ import annotations

from typing import Any

from zope.interface import implementer

from mailserver.config import Options
from mailserver.interfaces import IComponentFactory, IContentFilter, Services
from mailserver.mail.answers import Pass, Quarantine, Verdict
from mailserver.mail.content import Content
from mailserver.mail.envelope import Envelope

__all__ = ["@class@", "@class@Options", "factory"]


class @class@Options(Options):
    """What the configuration may say."""

    words: tuple[str, ...] = ()
    """Words in the subject that lead to the Junk folder; upper and lower case are the same."""


@implementer(IContentFilter)
class @class@:
    """Looks at the subject."""

    def __init__(self, options: @class@Options) -> None:
        self._words = tuple(word.lower() for word in options.words)

    async def judge_content(self, envelope: Envelope, content: Content) -> Verdict:
        """An error here defers the message; the core sees to it."""
        subject = (content.headers.get("subject") or "").lower()
        for word in self._words:
            if word in subject:
                return Quarantine(f"the subject has {word!r}")
        return Pass()


@implementer(IComponentFactory)
class @class@Factory:
    """Makes one filter for each [[filter]] table that uses it."""

    name = "@name@"
    summary = "Quarantines messages whose subject has one of the words given."
    provides = IContentFilter
    options = @class@Options

    def build(self, options: Any, services: Services) -> @class@:
        """Return the filter."""
        return @class@(options)


factory = @class@Factory()
'''

TEST = '''\
"""Tests of the filter @name@."""

from mailserver.testing import FilterCase

from mailserver_@module@ import factory


class @class@Test(FilterCase):
    def test_a_subject_with_a_listed_word_goes_to_junk(self):
        component = self.build(factory, words=["Invoice"])
        content = self.content(b"Subject: Your INVOICE is due\\n\\nPay.\\n")
        self.assertQuarantined(self.judge(component.judge_content(self.envelope(), content)), "invoice")

    def test_other_subjects_pass(self):
        component = self.build(factory, words=["invoice"])
        for message in (b"Subject: lunch?\\n\\n", b"From: a@example.org\\n\\nNo subject at all.\\n"):
            self.assertPassed(self.judge(component.judge_content(self.envelope(), self.content(message))))
'''


class SkeletonError(Exception):
    """The package cannot be written."""


def write_skeleton(name: str, directory: str) -> tuple[str, list[str]]:
    """Write the package into a new folder of `directory`; return the folder and its files.

    Raises `SkeletonError` for an invalid name or an existing folder, and OSError where it cannot be written.
    """
    if not NAME.fullmatch(name) or len(name) > 60:
        raise SkeletonError(f"{name!r} is no name for a component: lower-case letters, digits and single hyphens")
    folder = os.path.join(directory, f"mailserver-{name}")
    if os.path.lexists(folder):
        raise SkeletonError(f"{folder} is there already")
    module = name.replace("-", "_")
    texts = {
        "pyproject.toml": PYPROJECT,
        "README.md": README,
        os.path.join(f"mailserver_{module}", "__init__.py"): PACKAGE,
        os.path.join("tests", "__init__.py"): "",
        os.path.join("tests", f"test_{module}.py"): TEST,
    }
    marks = {"@name@": name, "@module@": module, "@class@": "".join(part.capitalize() for part in name.split("-"))}
    for file, text in texts.items():
        for mark, word in marks.items():
            text = text.replace(mark, word)
        path = os.path.join(folder, file)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "x", encoding="utf-8") as output:
            output.write(text)
    return folder, list(texts)
