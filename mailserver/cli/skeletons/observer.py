"""The template of an observer."""

__all__ = ["PACKAGE", "SAYS", "TABLE", "TEST"]

SAYS = "An observer that counts what happens, step by step."

TABLE = """\
[[filter]]
use = "@name@"
steps = ["accepted", "refused"]
"""

PACKAGE = '''\
"""The observer @name@: counts the steps of every message's and connection's road."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from zope.interface import implementer

from mailserver.api import IComponentFactory, ICounting, IObserver, Options, Services

__all__ = ["@class@", "@class@Options", "factory"]


class @class@Options(Options):
    """What the configuration may say."""

    steps: tuple[str, ...] = ()
    """The steps that count, by their names (docs/plugins/steps.md has all of them); none at all: every step."""


@implementer(IObserver, ICounting)
class @class@:
    """Counts; decides nothing."""

    def __init__(self, options: @class@Options) -> None:
        self._steps = frozenset(options.steps)
        self._counts: Counter[str] = Counter()

    def observe(self, step: Mapping[str, object]) -> None:
        """An error here is logged, and nothing else."""
        name = str(step.get("step", ""))
        if not self._steps or name in self._steps:
            self._counts[name] += 1

    def counts(self) -> Mapping[str, int]:
        """What `mailserver status` shows."""
        return dict(self._counts)


@implementer(IComponentFactory)
class @class@Factory:
    """Makes one observer for each [[filter]] table that uses it."""

    name = "@name@"
    summary = "Counts what happens."
    api_version = "1.0"
    provides = IObserver
    options = @class@Options

    def build(self, options: @class@Options, services: Services) -> @class@:
        """Return the observer."""
        return @class@(options)


factory = @class@Factory()
'''

TEST = '''\
"""Tests of the observer @name@."""

from mailserver.testing import ComponentCase

from mailserver_@module@ import factory


class @class@Test(ComponentCase):
    def test_it_counts_the_steps_that_it_is_told_to_count(self):
        component = self.build(factory, steps=["accepted"])
        for step in ("connected", "accepted", "accepted"):
            component.observe({"time": self.clock.seconds(), "id": "1", "step": step})
        self.assertEqual(component.counts(), {"accepted": 2})

    def test_without_a_choice_it_counts_all(self):
        component = self.build(factory)
        component.observe({"step": "connected"})
        component.observe({})
        self.assertEqual(component.counts(), {"connected": 1, "": 1})
'''
