"""What is remembered of who exists."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailserver.accounts import cached_directory
from mailserver.accounts.cached_directory import KnownAccounts


class Remembering(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.known = KnownAccounts(self.clock, 10)
        self.asked: list[str] = []

    async def ask(self, name: str) -> bool:
        self.asked.append(name)
        if name == "broken":
            raise OSError
        return name.startswith("a")

    def exists(self, name: str) -> bool:
        return self.successResultOf(Deferred.fromCoroutine(self.known.exists(name, self.ask)))

    def test_a_clock_that_goes_back_does_not_keep_them_longer(self) -> None:
        self.clock.advance(1e9)
        self.exists("alice")
        self.clock.rightNow -= 86_400
        self.exists("alice")
        self.assertEqual(self.asked, ["alice", "alice"])

    def test_yes_and_no_are_kept_for_their_time(self) -> None:
        for _ in range(3):
            self.assertEqual([self.exists("alice"), self.exists("bob")], [True, False])
            self.clock.advance(3)
        self.assertEqual(self.asked, ["alice", "bob"])
        self.clock.advance(1)
        self.exists("alice")
        self.assertEqual(self.asked[2:], ["alice"])

    def test_what_was_noted_is_not_asked(self) -> None:
        self.known.note("bob")
        self.assertTrue(self.exists("bob"))
        self.clock.advance(10)
        self.assertFalse(self.exists("bob"))

    def test_an_error_is_asked_again(self) -> None:
        for _ in range(2):
            self.failureResultOf(Deferred.fromCoroutine(self.known.exists("broken", self.ask)), OSError)
        self.assertEqual(self.asked, ["broken", "broken"])

    def test_it_is_bounded_and_the_oldest_leaves(self) -> None:
        self.patch(cached_directory, "AT_MOST", 3)
        for name in "abcd":
            self.exists(name)
        self.exists("d")
        self.assertEqual(self.asked, list("abcd"))
        self.exists("a")
        self.assertEqual(self.asked, list("abcda"))
