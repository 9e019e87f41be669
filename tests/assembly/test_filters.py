"""How the filters of a configuration are bound."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailserver.assembly.filters import bind_filters, show_filters
from mailserver.config import Configuration, ConfigurationError, Options, parse
from mailserver.interfaces import IContentFilter, IModifier, IObserver, Services
from mailserver.plugins.catalogue import Catalogue, FoundPlugin, PluginError, discover
from mailserver.plugins.register import Register
from mailserver.receive.bound_filter import BoundFilter
from tests.config.support import LEAST


class Factory:
    def __init__(self, name: str, provides: Any = IContentFilter, **declared: Any) -> None:
        self.name, self.provides, self.options = name, provides, declared.pop("options", Options)
        vars(self).update(declared)


class Taken(Options):
    mode: str = "x"


CATALOGUE = Catalogue(
    [
        *discover().found,
        *[FoundPlugin(one, "test")
        for one in (
            Factory("plain"),
            Factory("costly", cost=10, skippable=True),
            Factory("virus", hard=True),
            Factory("wrong", cost="much"),
            Factory("edits", IModifier),
            Factory("watches", IObserver),
            Factory("taken", options=Taken),
        )],
    ]
)


def configuration(text: str) -> Configuration:
    return parse(
        LEAST + text, file="m.toml", directory="/", options_of=CATALOGUE.options_of, useless_keys=CATALOGUE.useless_keys
    )


def bound(text: str, components: dict[int, Any] | None = None) -> list[Any]:
    read = configuration(text)
    return bind_filters(read, [(components or {}).get(n, object()) for n in range(len(read.filter))], CATALOGUE)


class Bound(SynchronousTestCase):
    def test_what_the_table_does_not_say_the_plugin_declares(self) -> None:
        plain, costly, virus = bound('[[filter]]\nuse = "plain"\n[[filter]]\nuse = "costly"\n[[filter]]\nuse = "virus"\n')
        self.assertEqual((plain.cost, plain.skippable, plain.hard, plain.shadow, plain.log_passes), (0, False, False, False, False))
        self.assertEqual((costly.cost, costly.skippable, costly.hard), (10, True, False))
        self.assertEqual((virus.skippable, virus.hard), (False, True))

    def test_what_the_table_says_wins(self) -> None:
        costly, virus, two = bound(
            '[[filter]]\nuse = "costly"\nhard = true\n[[filter]]\nuse = "virus"\nskippable = true\n'
            '[[filter]]\nuse = "virus"\nhard = false\nmode = "shadow"\nlog_passes = true\nafter = ["virus"]\n'
        )
        self.assertEqual((costly.skippable, costly.hard), (False, True))
        self.assertEqual((virus.skippable, virus.hard), (True, False))
        self.assertEqual((two.name, two.level, two.hard, two.shadow, two.log_passes), ("virus#2", 1, False, True, True))

    def test_the_component_itself_may_declare_it(self) -> None:
        class Component:
            cost = 3
            hard = True

        (one,) = bound('[[filter]]\nuse = "plain"\n', {0: Component()})
        self.assertEqual((one.cost, one.hard), (3, True))

    def test_a_cost_that_is_no_number_stops_the_start(self) -> None:
        with self.assertRaisesRegex(PluginError, "'wrong' declares a cost that is no number: 'much'"):
            bound('[[filter]]\nuse = "wrong"\n')

    def test_its_budget_is_the_tables(self) -> None:
        (one,) = bound('[[filter]]\nuse = "plain"\nfailures = 1\nfailure_window = "1s"\npause = "5s"\n')
        assert one.budgets is not None
        budget = one.budgets.of("content")
        self.assertTrue(budget.failed(10.0))
        self.assertTrue(budget.is_open(14.9))
        self.assertFalse(budget.is_open(15.0))
        self.assertFalse(one.budgets.of("peer").is_open(14.9))


class Shown(SynchronousTestCase):
    def test_people_see_which_circuit_is_open(self) -> None:
        clock: Any = Clock()
        register = Register(clock=clock, call_from_thread=clock.callLater, steady_seconds=clock.seconds)
        component, nowhere = object(), cast("Any", None)
        lent, _ = register.lend("filter", "plain", Services(clock, nowhere, nowhere, nowhere, "mx.example", "/", "/"))
        register.built(lent, component)
        self.addCleanup(register.stop)
        read = configuration('[[filter]]\nuse = "plain"\nname = "mine"\nfailures = 1\n')
        (one,) = bind_filters(read, [component], CATALOGUE)
        show_filters([one, BoundFilter("other", object())], register)
        one.budgets.of("content").failed(100.0)  # type: ignore[union-attr]
        self.assertEqual(lent.budgets["content"].state(100.0).circuit, "open")
        register.begin(component)
        one.durations.add(0.25)
        self.assertEqual(register.described()[0]["milliseconds"], {"count": 1, "median": 250.0, "p95": 250.0})


class Keys(SynchronousTestCase):
    def faults(self, text: str) -> list[str]:
        with self.assertRaises(ConfigurationError) as caught:
            configuration(text)
        return [str(fault) for fault in caught.exception.faults]

    def test_a_key_without_effect_for_its_kind_is_refused_with_its_line(self) -> None:
        faults = self.faults('[[filter]]\nuse = "watches"\nname = "w"\non_error = "skip"\n')
        self.assertEqual(len(faults), 1)
        self.assertIn("filter[0].on_error: has no effect: 'watches' is IObserver", faults[0])
        line = (LEAST + "[[filter]]\n").count("\n") + 3
        self.assertIn(f"m.toml:{line}", faults[0])
        for key, value in (("services", '["mx"]'), ("deadline", "5"), ("after", "[]"), ("mode", '"shadow"'), ("hard", "true")):
            self.faults(f'[[filter]]\nuse = "watches"\n{key} = {value}\n')

    def test_one_with_an_effect_is_not(self) -> None:
        configuration('[[filter]]\nuse = "edits"\non_error = "skip"\nafter = ["watches"]\n[[filter]]\nuse = "watches"\n')
        self.faults('[[filter]]\nuse = "edits"\nhard = true\n')

    def test_a_plugin_whose_own_options_have_a_name_of_ours_cannot_be_used(self) -> None:
        (fault,) = self.faults('[[filter]]\nuse = "taken"\n')
        self.assertIn("'taken' cannot be used: its options mode are keys of the server's own", fault)
