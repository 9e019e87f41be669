"""What an order about waiting mail does besides what the queue does with it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from mailserver.control.queue import QueueCommands
from mailserver.interfaces import IForgiving
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
