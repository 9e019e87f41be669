"""The template of a scorer."""

__all__ = ["PACKAGE", "SAYS", "TABLE", "TEST"]

SAYS = "A scorer that puts a message aside for a recipient when what the filters have found is too much together."

TABLE = """\
[[filter]]
use = "@name@"
quarantine_at = 5.0

[filter.weights]
spf = 2.0
"""

PACKAGE = '''\
"""The scorer @name@: adds up what the filters have found, each finding with its weight."""

from __future__ import annotations

from zope.interface import implementer

from mailserver.api import (
    Envelope,
    Finding,
    IComponentFactory,
    IScorer,
    Options,
    Pass,
    Quarantine,
    Recipient,
    Services,
    Verdict,
)

__all__ = ["@class@", "@class@Options", "factory"]


class @class@Options(Options):
    """What the configuration may say."""

    quarantine_at: float = 5.0
    """The sum at which a message is put aside."""
    weights: dict[str, float] = {}
    """By what the score of each finding is multiplied, by its name; 1.0 where there is none."""


@implementer(IScorer)
class @class@:
    """Weighs."""

    def __init__(self, options: @class@Options) -> None:
        self._most = options.quarantine_at
        self._weights = options.weights

    async def weigh(self, envelope: Envelope, recipient: Recipient) -> Verdict:
        """Called for each recipient; `envelope.findings` has what is known by now."""
        total = sum(finding.score * self._weights.get(finding.name, 1.0) for finding in envelope.findings)
        found = (Finding("@name@", total),)
        if total < self._most:
            return Pass(findings=found)
        names = ", ".join(sorted({finding.name for finding in envelope.findings if finding.score > 0}))
        return Quarantine(f"{total:g} points: {names}", findings=found)


@implementer(IComponentFactory)
class @class@Factory:
    """Makes one scorer for each [[filter]] table that uses it."""

    name = "@name@"
    summary = "Puts a message aside when what was found is too much together."
    api_version = "1.0"
    provides = IScorer
    options = @class@Options

    def build(self, options: @class@Options, services: Services) -> @class@:
        """Return the scorer."""
        return @class@(options)


factory = @class@Factory()
'''

TEST = '''\
"""Tests of the scorer @name@."""

from dataclasses import replace

from mailserver.api import Finding
from mailserver.testing import FilterCase, FilterContract

from mailserver_@module@ import factory


class @class@Test(FilterCase):
    def weighed(self, *findings, **options):
        component = self.build(factory, **options)
        envelope = replace(self.envelope(), findings=findings)
        return self.judge(component.weigh(envelope, self.recipient()))

    def test_too_much_together_is_put_aside(self):
        self.assertQuarantined(self.weighed(Finding("spf", 3.0), Finding("words", 2.0)), "5 points: spf, words")

    def test_less_passes_and_says_how_much_it_was(self):
        verdict = self.weighed(Finding("spf", 3.0), Finding("friend", -1.0))
        self.assertEqual([finding.score for finding in verdict.findings], [2.0])

    def test_a_weight_multiplies(self):
        self.assertQuarantined(self.weighed(Finding("spf", 3.0), weights={"spf": 2.0}), "6 points: spf")


class @class@KeepsTheContract(FilterContract, FilterCase):
    def make(self):
        return self.build(factory)
'''
