"""Filters that find, weigh, watch and fail, in the whole server: what becomes of the mail, and what `explain` and `plugins` show."""

from __future__ import annotations

from tests.scenarios.support import BASIC, Answer, ScenarioCase, Server, wait_until
from tests.scenarios.test_filters import PLUGIN

FILTERS = """
[[filter]]
use = "scores"
junk = 0.5
[[filter]]
use = "wary"
mode = "shadow"
[[filter]]
use = "puppet"
name = "first"
deadline = "300ms"
on_error = "skip"
failures = 3
pause = "1h"
"""


class InOrder(ScenarioCase):
    def setUp(self) -> None:
        super().setUp()
        self.server = self.prepare(BASIC + FILTERS, accounts=("alice@example.org", "carol@example.org"))
        self.server.install_plugin("puppet_plugin", PLUGIN)
        self.server.start()

    def told(self, what: str, to: str = "alice@example.org") -> Answer:
        return self.server.send(f"X-Do: {what}\r\nSubject: x\r\n\r\nx".encode(), to=to)

    def explained(self, server: Server, id: str, words: str) -> str:
        road = ""

        def there() -> bool:
            nonlocal road
            road = server.command("explain", id).stdout
            return words in road

        wait_until(there, lambda: f"{words} is not in {road}")
        return road

    def test_what_was_found_is_weighed_and_shown(self) -> None:
        answer = self.told("signal")
        self.assertEqual(answer.code, 250)
        self.server.wait_for_mail("alice", folder=".Junk")
        road = self.explained(self.server, answer.id, "junk")
        self.assertIn("told 1: as told", road)
        self.assertIn("score 1: first/told 1", road)
        self.assertIn("AddHeader X-Seen-By: puppet", road)
        self.assertEqual(self.told("nothing").code, 250)
        self.server.wait_for_mail("alice")

    def test_an_accept_means_that_nothing_is_weighed(self) -> None:
        self.assertEqual(self.told("accept").code, 250)
        self.server.wait_for_mail("alice")

    def test_what_stands_in_the_shadow_is_shown_and_not_obeyed(self) -> None:
        answer = self.told("nothing", "carol@example.org")
        self.assertEqual(answer.code, 250)
        self.server.wait_for_mail("carol")
        road = self.explained(self.server, answer.id, "delivered")
        line, below = [one for one in road.splitlines() if "wary" in one]
        self.assertIn("does not count", below)
        self.assertIn("shadow=true", line.lower())
        self.assertIn("not for carol", line)

    def test_one_that_fails_too_often_is_left_alone_and_people_see_it(self) -> None:
        for _ in range(3):
            self.assertEqual(self.told("raise").code, 250)
        answer = self.told("refuse")
        self.assertEqual(answer.code, 250)  # it was not asked
        self.explained(self.server, answer.id, "is not asked for a while")
        self.assertIn("the filter first (content) fails too often", self.server.log())
        self.assertEqual(self.server.log().count("Traceback (most recent call last)"), 1)  # of three failures of one kind
        self.assertIn("open for another", self.server.command("plugins").stdout)
