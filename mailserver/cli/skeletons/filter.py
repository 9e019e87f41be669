"""The template of a filter."""

__all__ = ["PACKAGE", "SAYS", "TABLE", "TEST"]

SAYS = "A filter that puts messages aside whose subject has one of the words given."

TABLE = """\
[[filter]]
use = "@name@"
words = ["invoice"]
"""

PACKAGE = '''\
"""The filter @name@: puts messages aside whose subject has one of the words given."""

from __future__ import annotations

from zope.interface import implementer

from mailserver.api import (
    Content,
    Envelope,
    IComponentFactory,
    IContentFilter,
    Options,
    Pass,
    Quarantine,
    Services,
    Verdict,
)

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
    api_version = "1.0"
    provides = IContentFilter
    options = @class@Options

    def build(self, options: @class@Options, services: Services) -> @class@:
        """Return the filter."""
        return @class@(options)


factory = @class@Factory()
'''

TEST = '''\
"""Tests of the filter @name@."""

from mailserver.testing import FilterCase, FilterContract

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


class @class@KeepsTheContract(FilterContract, FilterCase):
    def make(self):
        return self.build(factory, words=["invoice"])
'''
