"""Log lines about the pickup folder: one for each entry, some for each user, none for ever."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailserver.pickup import log_lines
from mailserver.pickup.folder import FoundFile
from mailserver.pickup.log_lines import TOLD_OF_A_USER, TOLD_SECONDS, PickupLog


class Lines(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(TOLD_SECONDS)
        self.log = PickupLog(self.clock)
        self.said: list[str] = []

    def tell(self, count: int, uid: int = 7, first: int = 0) -> int:
        """Of so many entries; how many lines came of it."""
        before = len(self.said)
        for n in range(first, first + count):
            self.log.once(FoundFile(f"x{n}", uid), "is odd", self.say)
        return len(self.said) - before

    def say(self, form: str, /, **fields: Any) -> None:
        self.said.append(form.format(**fields))

    def test_a_user_has_some_lines_and_one_that_says_so_and_others_have_theirs(self) -> None:
        self.assertEqual(self.tell(TOLD_OF_A_USER), TOLD_OF_A_USER)
        self.assertEqual(self.said[0], "'x0' of user 7 in the pickup folder is odd")
        self.assertEqual(self.tell(100, first=1000), 1)
        self.assertIn("no more is told of entries of user 7", self.said[-1])
        self.assertEqual(self.tell(5, uid=8), 5)

    def test_after_some_minutes_there_are_as_many_again_also_where_the_clock_went_back(self) -> None:
        self.tell(TOLD_OF_A_USER + 5)
        self.clock.advance(TOLD_SECONDS - 1)
        self.assertEqual(self.tell(5, first=100), 0)
        self.clock.advance(1)
        self.assertEqual(self.tell(TOLD_OF_A_USER + 5, first=200), TOLD_OF_A_USER + 1)
        self.clock.rightNow -= 1
        self.assertEqual(self.tell(TOLD_OF_A_USER + 5, first=300), TOLD_OF_A_USER + 1)

    def test_many_users_are_not_remembered_for_ever(self) -> None:
        self.patch(log_lines, "USERS_MOST", 3)
        for uid in (1, 2, 3):
            self.tell(TOLD_OF_A_USER + 1, uid=uid)
        self.log.forget_others(set())
        self.assertEqual(self.tell(5, uid=1), 0, "three are")
        self.tell(1, uid=4)
        self.log.forget_others(set())
        self.assertEqual(self.tell(5, uid=1), 5)
