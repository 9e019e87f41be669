"""The template of a router."""

__all__ = ["PACKAGE", "SAYS", "TABLE", "TEST"]

SAYS = "A router that sends the mail of some addresses elsewhere."

TABLE = """\
[router]
use = "@name@"

[router.moved]
"alice@example.org" = "alice@elsewhere.example"
"""

PACKAGE = '''\
"""The router @name@: the mail of some addresses goes elsewhere; about all others the [domain] tables decide."""

from __future__ import annotations

from collections.abc import Sequence

from zope.interface import implementer

from mailserver.api import (
    Address,
    IComponentFactory,
    IRouter,
    MailAddress,
    NotMine,
    Options,
    Remote,
    Route,
    Services,
    normal_name,
)

__all__ = ["@class@", "@class@Options", "factory"]


class @class@Options(Options):
    """What the configuration may say."""

    moved: dict[str, MailAddress] = {}
    """The new address of each old one."""


@implementer(IRouter)
class @class@:
    """Knows who has moved."""

    def __init__(self, options: @class@Options) -> None:
        self._moved = {normal_name(Address.parse(old, utf8=True)): new for old, new in options.moved.items()}

    async def route(self, address: Address) -> Sequence[Route] | NotMine:
        """An error here defers the recipient."""
        new = self._moved.get(normal_name(address))
        return NotMine() if new is None else [Remote(new)]


@implementer(IComponentFactory)
class @class@Factory:
    """Makes the router for ``[router] use = "@name@"``."""

    name = "@name@"
    summary = "Sends the mail of some addresses elsewhere."
    api_version = "1.0"
    provides = IRouter
    options = @class@Options

    def build(self, options: @class@Options, services: Services) -> @class@:
        """Return the router."""
        return @class@(options)


factory = @class@Factory()
'''

TEST = '''\
"""Tests of the router @name@."""

from mailserver.api import Address, NotMine, Remote
from mailserver.testing import ComponentCase, RouterContract

from mailserver_@module@ import factory


class @class@Test(RouterContract, ComponentCase):
    known = "User@example.org"

    def make(self):
        return self.build(factory, moved={"user@example.org": "user@elsewhere.example"})

    async def test_whoever_has_moved_is_sent_elsewhere(self):
        routes = await self.make().route(Address.parse("USER@example.org"))
        self.assertEqual(routes, [Remote(Address.parse("user@elsewhere.example"))])

    async def test_about_others_it_says_nothing(self):
        self.assertIsInstance(await self.make().route(Address.parse("bob@example.org")), NotMine)
'''
