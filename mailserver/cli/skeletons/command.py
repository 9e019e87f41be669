"""The template of a component with commands of its own."""

__all__ = ["PACKAGE", "PAGE", "SAYS", "TABLE", "TEST"]

PAGE = "operations.md"
SAYS = "A filter with a list that people keep by commands: `mailserver @name@ add`, `remove` and `list`."

TABLE = """\
[[filter]]
use = "@name@"
days = 7
"""

PACKAGE = '''\
"""The component @name@: defers the mail of the senders on a list, which people keep by commands of its own."""

from __future__ import annotations

from collections.abc import Sequence

from zope.interface import implementer

from mailserver.api import (
    Address,
    AddressError,
    Argument,
    CannotDo,
    ComponentCommand,
    Defer,
    Envelope,
    ICommands,
    IComponentFactory,
    ISenderFilter,
    IStateStore,
    Options,
    Pass,
    Services,
    Verdict,
    normal_name,
)

__all__ = ["@class@", "@class@Options", "factory"]

DAY_SECONDS = 86_400.0


class @class@Options(Options):
    """What the configuration may say."""

    days: float = 7.0
    """How long a sender stays on the list."""


@implementer(ISenderFilter, ICommands)
class @class@:
    """The list stands in the state store: it outlives a restart."""

    def __init__(self, options: @class@Options, state: IStateStore) -> None:
        self._seconds = options.days * DAY_SECONDS
        self._state = state

    async def judge_sender(self, envelope: Envelope) -> Verdict:
        """An error here defers the sender; the core sees to it."""
        sender = envelope.sender
        if sender is None or await self._state.get(normal_name(sender)) is None:
            return Pass()
        return Defer(f"{sender} is on the list")

    def commands(self) -> Sequence[ComponentCommand]:
        """`mailserver @name@ --help` shows them."""
        sender = Argument("sender", "the address in MAIL FROM")
        return [
            ComponentCommand("add", "put a sender on the list", self.add, (sender,)),
            ComponentCommand("remove", "take one from it", self.remove, (sender,)),
            ComponentCommand("list", "who is on it", self.list),
        ]

    async def add(self, sender: str) -> None:
        """The command of this name."""
        await self._state.put(key_of(sender), b"1", self._seconds)

    async def remove(self, sender: str) -> None:
        """The command of this name."""
        if await self._state.take(key_of(sender)) is None:
            raise CannotDo(f"{sender} is not on the list")

    async def list(self) -> list[str]:
        """The command of this name."""
        return [key for key, _, _ in await self._state.items()]


def key_of(text: str) -> str:
    """The sender as the list has it.  Raises `CannotDo` for what is no address."""
    try:
        return normal_name(Address.parse(text, utf8=True))
    except AddressError as error:
        raise CannotDo(f"{text!r} is no address: {error}") from None


@implementer(IComponentFactory)
class @class@Factory:
    """Makes the component for each [[filter]] table that uses it."""

    name = "@name@"
    summary = "Defers the senders on a list that people keep by commands."
    api_version = "1.0"
    provides = ISenderFilter
    options = @class@Options

    def build(self, options: @class@Options, services: Services) -> @class@:
        """Return the component."""
        return @class@(options, services.state)


factory = @class@Factory()
'''

TEST = '''\
"""Tests of the component @name@."""

from mailserver.api import CannotDo
from mailserver.testing import FilterCase, FilterContract

from mailserver_@module@ import factory


class @class@Test(FilterCase):
    def command(self, component, name, **arguments):
        (command,) = [one for one in component.commands() if one.name == name]
        return self.answer(command.run(**arguments))

    def test_a_sender_on_the_list_has_to_wait(self):
        component = self.build(factory, days=1)
        self.command(component, "add", sender="Ads@example.net")
        self.assertEqual(self.command(component, "list"), ["ads@example.net"])
        self.assertDeferred(self.judge(component.judge_sender(self.envelope("ads@example.net"))))
        self.assertPassed(self.judge(component.judge_sender(self.envelope("a@example.net"))))
        self.assertPassed(self.judge(component.judge_sender(self.envelope(None))))

    def test_after_its_days_it_is_off_the_list(self):
        component = self.build(factory, days=1)
        self.command(component, "add", sender="ads@example.net")
        self.clock.advance(86_401)
        self.assertPassed(self.judge(component.judge_sender(self.envelope("ads@example.net"))))

    def test_who_is_not_on_the_list_cannot_be_removed(self):
        component = self.build(factory)
        for sender in ("ads@example.net", "no address"):
            with self.assertRaises(CannotDo):
                self.command(component, "remove", sender=sender)


class @class@KeepsTheContract(FilterContract, FilterCase):
    def make(self):
        return self.build(factory)
'''
