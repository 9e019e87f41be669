"""docs/plugins/remembering.md: its greylist works as its test says, and its table names every verb."""

from __future__ import annotations

import re
import unittest
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailserver.interfaces import IRecords, IStateStore
from mailserver.plugins.versions import is_former
from tests.documents import blocks, page_text

PAGE = page_text("plugins/remembering.md")


class Page(SynchronousTestCase):
    def test_the_greylist_is_let_through_by_its_own_test(self) -> None:
        names: dict[str, Any] = {"__name__": "greylist_page"}
        for block in blocks(PAGE, "python"):
            exec(block, names)
        self.assertFalse(is_former(names["greylist"]))
        result = unittest.TestResult()
        unittest.defaultTestLoader.loadTestsFromTestCase(names["GreylistTest"]).run(result)
        self.assertEqual((result.testsRun, result.errors, result.failures), (1, [], []))

    def test_every_verb_is_named(self) -> None:
        for name in IStateStore.names():
            self.assertIn(f"| `{name}(", PAGE)
        said = re.search(r"`services.records` has (.*?), without", PAGE)
        assert said is not None
        self.assertEqual(set(re.findall(r"`(\w+)`", said[1])), set(IRecords.names()))
