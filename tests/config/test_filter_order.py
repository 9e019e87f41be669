"""What filters are called, and in which order they are asked."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.config import ConfigurationError, parse
from mailserver.config.filter_order import filter_names, levels_of, order_faults
from mailserver.plugins.catalogue import discover
from tests.config.support import LEAST


class Names(SynchronousTestCase):
    def test_without_a_name_it_is_the_plugins_with_a_number_from_the_second_on(self) -> None:
        self.assertEqual(
            filter_names([("a", None), ("b", None), ("a", None), ("a", "mine"), ("a", None)]), ["a", "b", "a#2", "mine", "a#3"]
        )

    def test_a_name_that_is_there_twice_is_a_fault(self) -> None:
        self.assertEqual(order_faults(["a", "b", "a"], [(), (), ()]), [(2, "name", "'a' is the name of filter[0], too")])


class Order(SynchronousTestCase):
    def test_each_stands_one_level_above_what_it_comes_after(self) -> None:
        names, after = ["a", "b", "c", "d"], [("c",), (), ("b",), ("b",)]
        self.assertEqual(order_faults(names, after), [])
        self.assertEqual(levels_of(names, after), [2, 0, 1, 1])

    def test_an_unknown_name_is_a_fault_with_a_guess(self) -> None:
        ((n, key, sentence),) = order_faults(["denylist", "b"], [(), ("denylst",)])
        self.assertEqual((n, key), (1, "after"))
        self.assertEqual(sentence, "there is no filter 'denylst'; did you mean 'denylist'?")

    def test_a_circle_is_told_with_all_its_members(self) -> None:
        ((n, key, sentence),) = order_faults(["x", "a", "b", "c"], [("a",), ("b",), ("c",), ("a",)])
        self.assertEqual(key, "after")
        self.assertEqual(sentence, "goes round in a circle: a after b after c after a")
        self.assertEqual(n, 1)
        self.assertEqual(order_faults(["a"], [("a",)])[0][2], "goes round in a circle: a after a")

    @given(st.lists(st.lists(st.integers(0, 7), max_size=3), min_size=1, max_size=8))
    def test_any_order_has_levels_or_a_fault(self, wishes: list[list[int]]) -> None:
        names = [str(n) for n in range(len(wishes))]
        after = [[str(other) for other in others] for others in wishes]
        if order_faults(names, after):
            return
        levels = levels_of(names, after)
        for n, others in enumerate(after):
            for other in others:
                self.assertLess(levels[int(other)], levels[n])


class Files(SynchronousTestCase):
    def faults(self, text: str) -> list[str]:
        catalogue = discover()
        try:
            parse(
                LEAST + text, file="m.toml", directory="/", options_of=catalogue.options_of, useless_keys=catalogue.useless_keys
            )
        except ConfigurationError as error:
            return [f"{fault.key}: {fault.message}" for fault in error.faults]
        return []

    def test_the_order_is_checked_when_the_file_is_read(self) -> None:
        self.assertEqual(self.faults('[[filter]]\nuse = "denylist"\n[[filter]]\nuse = "denylist"\nafter = ["denylist"]\n'), [])
        self.assertEqual(
            self.faults('[[filter]]\nuse = "denylist"\nafter = ["null_mx"]\n[[filter]]\nuse = "null_mx"\nafter = ["denylist"]\n'),
            ["filter[0].after: goes round in a circle: denylist after null_mx after denylist"],
        )
        self.assertEqual(
            self.faults('[[filter]]\nuse = "denylist"\n[[filter]]\nuse = "null_mx"\nname = "denylist"\n'),
            ["filter[1].name: 'denylist' is the name of filter[0], too"],
        )

    def test_skippable_and_hard_exclude_each_other(self) -> None:
        (fault,) = self.faults('[[filter]]\nuse = "denylist"\nskippable = true\nhard = true\n')
        self.assertIn("an Accept either takes it away or does not", fault)

    def test_wrong_types_are_faults_and_no_exceptions(self) -> None:
        for value in ("5", '"x"', "[5]", "[[]]", "{}", '["x", 5]'):
            for key in ("after", "name", "use"):
                self.assertNotEqual(self.faults(f"[[filter]]\n{'use = 5' if key != 'use' else ''}\n{key} = {value}\n"), [])
