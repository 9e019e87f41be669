"""What an order about waiting mail does besides what the queue does with it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from mailserver.control.queue import QueueCommands
from mailserver.control.server import CommandRefused
from mailserver.interfaces import AddressState, DestinationState, IDestinations, IForgiving
from mailserver.queue.admin.orders import Page


@implementer(IForgiving)
class Remembers:
    """A delivery that knows who was out of reach."""

    forgiven = 0

    def forgive(self) -> None:
        self.forgiven += 1


class Retry(SynchronousTestCase):
    def setUp(self) -> None:
        async def carry_out(order: Any, *, after: int, dry_run: bool) -> Page:
            return Page()

        self.remote = Remembers()
        queue = SimpleNamespace(verbs=SimpleNamespace(carry_out=carry_out), depth=0)
        server = SimpleNamespace(local=object(), remote=self.remote, queue=queue)
        self.commands = QueueCommands(cast("Any", server), lambda: cast("Any", None))

    def change(self, verb: str, **more: Any) -> int:
        arguments = {"verb": verb, "selection": {"domain": "example.org"}, "by": "root", **more}
        self.successResultOf(Deferred.fromCoroutine(self.commands.change(arguments)))
        return self.remote.forgiven

    def test_who_was_out_of_reach_is_asked_again_where_a_person_wants_mail_tried_now(self) -> None:
        self.assertEqual(self.change("hold"), 0)
        self.assertEqual(self.change("retry", dry_run=True), 0, "it is only shown")
        self.assertEqual(self.change("retry"), 1)
        self.assertEqual(self.change("retry", after=7), 1, "its next pages are the same order")


STATE = DestinationState(
    "google", 2, 30, 55, 3, 5, 20, 12.5, None, 40.0, "421 4.7.28 \x1b[31mslow", 61.0, "it was asked for fewer messages",
    (AddressState("192.0.2.1:25", "mx.google.com", "", 2, 3, None, ""), AddressState("[::1]:25", "mx2.google.com", "eu", 0, 0, 30.0, "no")),
)  # fmt: skip


@implementer(IDestinations)
class Tells:
    def destinations(self, most: int) -> list[DestinationState]:
        return [STATE][:most]


class Destinations(SynchronousTestCase):
    def ask(self, remote: Any) -> Any:
        commands = QueueCommands(cast("Any", SimpleNamespace(remote=remote)), lambda: cast("Any", None))
        return Deferred.fromCoroutine(commands.destinations({}))

    def test_the_relay_is_asked_and_who_has_none_is_told(self) -> None:
        (found,) = self.successResultOf(self.ask(Tells()))["destinations"]
        self.assertEqual((found["name"], found["addresses"][1]["route"]), ("google", "eu"))
        for remote, words in ((None, "no mail goes to other hosts"), (object(), "does not tell")):
            self.assertIn(words, str(self.failureResultOf(self.ask(remote), CommandRefused).value))
