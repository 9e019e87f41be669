"""The template of a modifier."""

__all__ = ["PACKAGE", "SAYS", "TABLE", "TEST"]

SAYS = "A modifier that adds a header field to messages that come from outside."

TABLE = """\
[[filter]]
use = "@name@"
services = ["mx"]
text = "This message comes from outside"
"""

PACKAGE = '''\
"""The modifier @name@: adds a header field with the text given, in place of any that came with the message."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field
from zope.interface import implementer

from mailserver.api import (
    AddHeader,
    Content,
    DropHeader,
    Edit,
    Envelope,
    IComponentFactory,
    IModifier,
    Options,
    Services,
)

__all__ = ["@class@", "@class@Options", "factory"]

FIELD = "X-Note"


class @class@Options(Options):
    """What the configuration may say."""

    text: str = Field(default="from outside", pattern=r"^[ -~]{1,200}$")
    """What the field says."""


@implementer(IModifier)
class @class@:
    """Adds the field."""

    def __init__(self, options: @class@Options) -> None:
        self._text = options.text

    async def edits(self, envelope: Envelope, content: Content) -> Sequence[Edit]:
        """They are made in this order."""
        return [DropHeader(FIELD), AddHeader(FIELD, self._text)]


@implementer(IComponentFactory)
class @class@Factory:
    """Makes one modifier for each [[filter]] table that uses it."""

    name = "@name@"
    summary = "Adds a header field with the text given."
    api_version = "1.0"
    provides = IModifier
    options = @class@Options

    def build(self, options: @class@Options, services: Services) -> @class@:
        """Return the modifier."""
        return @class@(options)


factory = @class@Factory()
'''

TEST = '''\
"""Tests of the modifier @name@."""

from mailserver.api import AddHeader, ConfigurationError, DropHeader
from mailserver.testing import FilterCase, FilterContract

from mailserver_@module@ import factory


class @class@Test(FilterCase):
    def test_the_field_is_added_and_none_that_came_is_left(self):
        component = self.build(factory, text="beware")
        edits = self.answer(component.edits(self.envelope(), self.content(b"X-Note: all is well\\n\\n")))
        self.assertEqual(list(edits), [DropHeader("X-Note"), AddHeader("X-Note", "beware")])

    def test_a_text_with_a_line_end_is_a_fault_of_the_configuration(self):
        with self.assertRaises(ConfigurationError):
            self.build(factory, text="one\\r\\nBcc: two")


class @class@KeepsTheContract(FilterContract, FilterCase):
    def make(self):
        return self.build(factory)
'''
