"""docs/delivery.md: its examples load, its tables say what the code does."""

from __future__ import annotations

import os
import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mailserver.config import load
from mailserver.delivery.command_template import PLACEHOLDERS
from mailserver.delivery.sysexits import outcome_of_end
from mailserver.mail.answers import Delivered, Failed
from mailserver.plugins.catalogue import discover
from tests.documents import blocks, page_text

PAGE = page_text("delivery.md")
TOP = 'hostname = "mx.example.org"\ndata = "data"\n[[listen]]\nservice = "mx"\nendpoint = "tcp:2525"\n'


class Page(SynchronousTestCase):
    def test_every_example_is_a_configuration(self) -> None:
        examples = blocks(PAGE, "toml")
        self.assertEqual(len(examples), 4)
        options_of = discover().options_of
        for example in examples:
            path = self.mktemp()
            Path(path).write_text(TOP + example)
            load(path, options_of)

    def test_every_placeholder_of_a_command_is_explained_and_no_other(self) -> None:
        table = PAGE.partition("| placeholder |")[2].partition("\n\n")[0]
        self.assertEqual(sorted(re.findall(r"`\{(\w+)\}`", table)), sorted(PLACEHOLDERS))

    def test_the_exit_codes_mean_what_the_page_says(self) -> None:
        rows = re.findall(r"(?m)^\| ([\d, ]+) \| ([\w, ]*)\s*\| is ([^|:]+?)(?:: ([\d.]+))? \|$", PAGE)
        self.assertEqual(len(rows), 10)
        returned = set()
        for codes, names, fate, enhanced in rows:
            for code, name in zip(codes.split(", "), names.split(", "), strict=True):
                if name.strip():
                    self.assertEqual(getattr(os, name.strip()), int(code))
                outcome = outcome_of_end(int(code), "")
                if fate == "delivered":
                    self.assertIsInstance(outcome, Delivered)
                    continue
                assert not isinstance(outcome, Delivered)
                self.assertEqual((isinstance(outcome, Failed), outcome.reply.enhanced), (fate == "returned", enhanced))
                if fate == "returned":
                    returned.add(int(code))
        self.assertEqual(returned, {code for code in range(1, 256) if isinstance(outcome_of_end(code, ""), Failed)})
