"""docs/plugins/running.md, docs/plugins/asyncio.md: the numbers are the server's, the example runs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailserver.config.schema import LimitsTable
from mailserver.mail.answers import Pass
from mailserver.plugins import observing, register
from mailserver.plugins.awaiting import now_or_later
from tests.documents import blocks, page_text
from tests.plugins.test_asyncio_world import in_a_loop


class Pages(SynchronousTestCase):
    def test_the_numbers_are_those_of_the_server(self) -> None:
        page = " ".join(page_text("plugins/running.md").split())
        self.assertIn("has eight threads for each component, and a thousand calls of a filter (ten thousand of another", page)
        self.assertEqual((register.THREADS, register.CALLS_WAITING, register.CALLS_WAITING_ELSEWHERE), (8, 1000, 10_000))
        self.assertIn("While 10,000 steps wait for it", page)
        self.assertEqual(observing.WAITING_MOST, 10_000)
        self.assertIn("for five seconds at most", page)
        self.assertEqual(register.OBSERVER_SECONDS, 5)
        self.assertIn("From three times the number of its threads on", page)
        self.assertEqual(register.LEFT_BEHIND_MOST, 2)
        self.assertIn("`limits.reactor_seconds` (half a second)", page)
        self.assertEqual(LimitsTable().reactor_seconds, 0.5)

    def test_the_example_with_asyncio_runs(self) -> None:
        names: dict[str, Any] = {}
        exec(blocks(page_text("plugins/asyncio.md"), "python")[0], names)
        peer = SimpleNamespace(address="192.0.2.1")
        self.assertEqual(in_a_loop(lambda: now_or_later(names["Patient"]().judge_peer(peer))), [Pass()])
