"""docs/plugins/filter.md says what is so: its code is the shipped code or runs here, its tests pass, its TOML loads."""

from __future__ import annotations

import tomllib
import unittest
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailserver import interfaces
from mailserver.config import parse
from mailserver.filters.denylist import DenylistOptions
from mailserver.mail.answers import Verdict
from mailserver.plugins.catalogue import FILTERS, discover
from mailserver.testing import FilterCase
from tests.documents import DOCS, blocks, page_text

GUIDE = page_text("plugins/filter.md")
SHIPPED = (DOCS.parent / "mailserver" / "filters" / "denylist.py").read_text()
FRAME = 'hostname = "mail.example.org"\ndata = "data"\n[[listen]]\nservice = "mx"\nendpoint = "tcp:0"\n'


def run_guide() -> dict[str, Any]:
    """Run the guide's own code, block after block, as a reader would type it."""
    names: dict[str, Any] = {"__name__": "guide"}
    for block in blocks(GUIDE, "python"):
        if block not in SHIPPED:
            exec(compile(block, "<the guide>", "exec", dont_inherit=True), names)
    return names


class Guide(SynchronousTestCase):
    def test_it_shows_the_shipped_filter_as_it_is(self) -> None:
        shown = [block for block in blocks(GUIDE, "python") if block in SHIPPED]
        self.assertEqual(len(shown), 4, "a piece of denylist.py has changed: show it anew")

    def test_the_tests_that_it_shows_pass(self) -> None:
        cases = [
            thing
            for thing in run_guide().values()
            if isinstance(thing, type) and issubclass(thing, FilterCase) and thing is not FilterCase
        ]
        self.assertEqual(len(cases), 6)
        result = unittest.TestResult()
        for case in cases:
            unittest.defaultTestLoader.loadTestsFromTestCase(case).run(result)
        self.assertGreaterEqual(result.testsRun, 9)
        self.assertEqual([(str(test), trace) for test, trace in result.errors + result.failures], [])

    def test_its_configuration_loads(self) -> None:
        configuration = parse(FRAME + blocks(GUIDE, "toml")[0], file="guide", directory="/", options_of=discover().options_of)
        (denylist,) = configuration.filter
        self.assertIsInstance(denylist.options, DenylistOptions)
        self.assertEqual((denylist.services, denylist.on_error, denylist.deadline), (("mx",), "defer", 5.0))

    def test_its_entry_point_is_in_the_group_that_is_searched(self) -> None:
        self.assertIn("mailserver.plugins", tomllib.loads(blocks(GUIDE, "toml")[1])["project"]["entry-points"])

    def test_its_tables_name_every_interface_with_its_method_and_every_verdict(self) -> None:
        for interface in FILTERS:
            if interface.__module__ == "mailserver.interfaces.filters" and interface is not interfaces.IObserver:
                (method,) = interface.names()
                self.assertIn(f"| `{interface.__name__}` | `{method}(", GUIDE)
        for verdict in Verdict.__args__:
            self.assertIn(f"| `{verdict.__name__}(", GUIDE)
