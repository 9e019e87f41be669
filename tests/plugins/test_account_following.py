"""Components hear of renamed and removed accounts: each within its time, and whoever fails is named."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from mailserver.interfaces import IAccountFollower
from mailserver.plugins.account_following import SECONDS, Followed, Follower, follow
from mailserver.plugins.failure_log import FailureLog

RENAMED = {"alice@example.org": "smith@example.org"}


@implementer(IAccountFollower)
class Keeper:
    def __init__(self, answer: Any = None) -> None:
        self.calls: list[Any] = []
        self._answer = answer

    def _said(self, *call: Any) -> Any:
        self.calls.append(call)
        return self._answer() if callable(self._answer) else self._right(self._answer)

    async def _right(self, answer: Any) -> Any:
        return answer

    def accounts_renamed(self, accounts: Mapping[str, str], stage: str) -> Any:
        return self._said(stage, dict(accounts))

    def account_removed(self, account: str) -> Any:
        return self._said("removed", account)

    def kept_of_account(self, account: str) -> Any:
        return self._said("kept", account)


class Following(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()

    def ask(self, verb: str, *components: Any, accounts: Any = RENAMED) -> Deferred[Followed]:
        found = [Follower(f"the filter {n}", one) for n, one in enumerate(components)]
        return Deferred.fromCoroutine(
            follow(found, verb, accounts, clock=self.clock, failures=FailureLog(self.clock.seconds))
        )

    def test_each_hears_what_it_is_and_one_that_keeps_nothing_hears_nothing(self) -> None:
        one, other = Keeper(), Keeper()
        for verb in ("begin", "complete", "undo"):
            answer = self.successResultOf(self.ask(verb, one, object(), other))
            self.assertEqual((answer.followed, answer.failed), (["the filter 0", "the filter 2"], {}))
        self.assertEqual(one.calls, [(verb, RENAMED) for verb in ("begin", "complete", "undo")])
        self.assertEqual(one.calls, other.calls)
        self.successResultOf(self.ask("removed", one))
        self.assertEqual(one.calls[-1], ("removed", "alice@example.org"))

    def test_the_second_of_three_that_fails_is_named_and_the_others_have_done_it(self) -> None:
        def fails() -> None:
            raise ValueError("broken\x1b\nat all")

        first, third = Keeper(), Keeper()
        answer = self.successResultOf(self.ask("begin", first, Keeper(fails), third))
        self.assertEqual(answer.followed, ["the filter 0", "the filter 2"])
        [(who, why)] = answer.failed.items()
        self.assertEqual((who, "broken" in why, why.isprintable()), ("the filter 1", True, True))
        self.assertEqual((len(first.calls), len(third.calls)), (1, 1))

    def test_one_that_hangs_is_given_up_and_named(self) -> None:
        waiting = self.ask("complete", Keeper(Deferred), Keeper())
        self.assertNoResult(waiting)
        self.clock.advance(SECONDS)
        answer = self.successResultOf(waiting)
        self.assertEqual((answer.followed, answer.failed), (["the filter 1"], {"the filter 0": "no answer within 300 seconds"}))

    def test_an_answer_that_is_none_is_that_components_failure(self) -> None:
        for answer in (lambda: None, lambda: 3, "many", -1, True, None, 1.5):
            said = self.successResultOf(self.ask("kept", Keeper(answer), Keeper(2)))
            self.assertEqual((list(said.failed), said.kept), (["the filter 0"], {"the filter 1": 2}), answer)
        said = self.successResultOf(self.ask("begin", Keeper(lambda: "done")))
        self.assertEqual(list(said.failed), ["the filter 0"])
