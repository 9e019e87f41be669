"""docs/plugins/remembering.md: its greylist works as its test says, and its table names every verb."""

from __future__ import annotations

import re
import textwrap
import unittest
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailserver.config import parse
from mailserver.interfaces import IRecords, IStateStore
from mailserver.plugins.catalogue import Catalogue, FoundPlugin, discover
from mailserver.plugins.versions import is_former
from mailserver.testing import MailCase
from tests.documents import blocks, page_text

FRAME = 'hostname = "mail.example.org"\ndata = "data"\n[[listen]]\nservice = "mx"\nendpoint = "tcp:0"\n'
PAGE = page_text("plugins/remembering.md")


class Page(SynchronousTestCase):
    def test_the_greylist_is_let_through_by_its_own_tests_and_its_table_loads(self) -> None:
        names: dict[str, Any] = {"__name__": "greylist_page"}
        for block in blocks(PAGE, "python"):
            exec(compile(block, "<the page>", "exec", dont_inherit=True), names)
        self.assertFalse(is_former(names["greylist"]))
        result = unittest.TestResult()
        for case in ("GreylistTest", "GreylistInAServer"):
            unittest.defaultTestLoader.loadTestsFromTestCase(names[case]).run(result)
        self.assertEqual([trace for _, trace in result.errors + result.failures], [])
        self.assertEqual(result.testsRun, 5)
        catalogue = Catalogue([FoundPlugin(names["greylist"], "the page"), *discover().found])
        (table,) = blocks(PAGE, "toml")
        (written,) = parse(FRAME + table, file="page", directory="/", options_of=catalogue.options_of).filter
        self.assertEqual((written.options.wait, written.services), (300.0, ("mx",)))

    def test_the_example_of_the_kit_is_true_of_it(self) -> None:
        """In the docstring of `MailCase`: it stands there indented."""
        names: dict[str, Any] = {"__name__": "greylist_page"}
        for block in blocks(PAGE, "python"):
            exec(compile(block, "<the page>", "exec", dont_inherit=True), names)
        (example,) = re.findall(r"(?ms)^ {4,8}class GreylistTest.*?(?=^ {0,4}`)", MailCase.__doc__ or "")
        example_names: dict[str, Any] = {"MailCase": MailCase, "factory": names["greylist"], "__name__": "kit"}
        exec(compile(textwrap.dedent(example), "<the docstring>", "exec", dont_inherit=True), example_names)
        result = unittest.TestResult()
        unittest.defaultTestLoader.loadTestsFromTestCase(example_names["GreylistTest"]).run(result)
        self.assertEqual([trace for _, trace in result.errors + result.failures], [])
        self.assertEqual(result.testsRun, 1)

    def test_every_verb_is_named(self) -> None:
        for name in IStateStore.names():
            self.assertIn(f"| `{name}(", PAGE)
        said = re.search(r"`services.records` has (.*?), without", PAGE)
        assert said is not None
        self.assertEqual(set(re.findall(r"`(\w+)`", said[1])), set(IRecords.names()))
