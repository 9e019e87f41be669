"""A TOML text is changed without a word of what people wrote around it."""

from __future__ import annotations

import tomllib
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.config.draft import Draft, Unchangeable
from mailserver.config.lines import parts_of

SAMPLE = (Path(__file__).parents[2] / "etc" / "mailserver.toml").read_text()
NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)


class Drafts(SynchronousTestCase):
    def test_each_part_says_by_itself_what_it_says_in_the_text(self) -> None:
        text = 'a = 1 # one\n b."c d" = [ # x\n 1, # y\n]\n[[t]]\nx = """\n[no]\n"""\n[t.u]\ny = { z = 2 } # end\n'
        parts = parts_of(text)
        paths = [("a",), ("b", "c d"), ("t", 0), ("t", 0, "x"), ("t", 0, "u"), ("t", 0, "u", "y")]
        self.assertEqual([part.path for part in parts], paths)
        self.assertEqual([part.is_header for part in parts], [False, False, True, False, True, False])
        values = [text[part.value : part.end] for part in parts if not part.is_header]
        self.assertEqual(values, ["1", "[ # x\n 1, # y\n]", '"""\n[no]\n"""', "{ z = 2 }"])

    @given(NAMES, st.lists(NAMES, max_size=3))
    def test_what_is_set_is_read_back_and_can_be_taken_away(self, name: str, values: list[str]) -> None:
        draft = Draft(SAMPLE)
        table = ("domain", "example.org", "aliases")
        try:
            draft.set(table, name, values)
        except Unchangeable:
            self.assertIn("\x7f", name + "".join(values))
            return
        self.assertEqual(tomllib.loads(draft.text)["domain"]["example.org"]["aliases"][name], values)
        if name != "sales":
            draft.remove((*table, name))
            self.assertEqual(draft.text, SAMPLE)

    def test_what_stands_between_the_texts_of_a_list_stays_where_some_of_them_change(self) -> None:
        text = 'x = [ # who\n "a", # the boss ]\n # and\n \'b\', """c""" ,\n] # end\ny = [[], 1]\n'
        draft = Draft(text)
        draft.set((), "x", ["n", "b", "m]"])
        self.assertEqual(draft.text, text.replace('"a"', '"n"').replace('"""c"""', '"m]"'))
        draft.set((), "x", ["n"])
        draft.set((), "y", ["o", "p"])
        self.assertEqual(draft.text, 'x = ["n"] # end\ny = ["o", "p"]\n')

    def test_what_is_not_there_cannot_be_removed(self) -> None:
        draft = Draft("a = 1\n")
        self.assertRaises(Unchangeable, draft.remove, ("b",))
        self.assertEqual(draft.text, "a = 1\n")

    @given(NAMES)
    def test_what_is_renamed_goes_by_its_new_name_alone_and_back(self, name: str) -> None:
        for path in (("domain", "example.org"), ("domain", "example.org", "aliases", "sales")):
            draft = Draft(SAMPLE)
            before = tomllib.loads(SAMPLE)
            try:
                draft.rename(path, name)
            except Unchangeable:
                self.assertTrue("\x7f" in name or name == path[-1], name)
                continue
            self.assertNotIn(path[-1], draft.document["domain"] if len(path) == 2 else draft.document["domain"]["example.org"]["aliases"])
            draft.rename((*path[:-1], name), path[-1])
            self.assertEqual(draft.document, before)

    def test_every_way_to_write_a_name_is_renamed(self) -> None:
        text = '["domain"."a"] # one\nx = "1"\naliases.b = "y"\n[[domain.\'a\'.pattern]]\nmatch = "a"\n[domain."c"]\nx = "a"\n'
        draft = Draft(text)
        draft.rename(("domain", "a", "aliases", "b"), "d e")
        draft.rename(("domain", "a"), "z")
        expected = text.replace('"a"]', "z]").replace("'a'", "z").replace("aliases.b", 'aliases."d e"')
        self.assertEqual(draft.text, expected)
        self.assertRaises(Unchangeable, draft.rename, ("domain", "z"), "c")
        dotted = Draft('domain.a.aliases.b = "y"\ndomain.a.x = "1"\n')
        dotted.rename(("domain", "a"), "q")
        self.assertEqual(dotted.text, 'domain.q.aliases.b = "y"\ndomain.q.x = "1"\n')

    @given(NAMES)
    def test_a_table_that_was_added_goes_without_a_trace(self, name: str) -> None:
        draft = Draft(SAMPLE)
        try:
            draft.add_table(("domain", name), {"postmaster": "alice@example.org"})
        except Unchangeable:
            self.assertIn("\x7f", name)
            return
        draft.remove_table(("domain", name))
        self.assertEqual(draft.text, SAMPLE)

    def test_the_last_table_goes_with_the_empty_line_before_it(self) -> None:
        for text in ('[domain.a]\nx = "1"\n', '[domain.a]\r\nx = "1"\r\n'):
            draft = Draft(text)
            draft.add_table(("domain", "b"), {"y": "2"})
            draft.remove_table(("domain", "b"))
            self.assertEqual(draft.text, text)

    def test_a_text_without_a_line_end_gets_one_first(self) -> None:
        draft = Draft('[domain."a"]\nx = "1"')
        draft.set(("domain", "a"), "y", "2")
        self.assertEqual(draft.text, '[domain."a"]\nx = "1"\ny = "2"\n')
        behind = Draft('x = "1"')
        behind.add_table(("domain", "a"), {})
        self.assertEqual(behind.text, 'x = "1"\n\n[domain.a]\n')
        empty = Draft("")
        empty.add_table(("domain", "a.example"), {})
        self.assertEqual(empty.text, '[domain."a.example"]\n')
