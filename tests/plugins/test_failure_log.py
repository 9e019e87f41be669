"""A component's failure is told with its traceback, once for each kind and minute."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from mailserver.plugins.failure_log import FailureLog, place_of, words_of


class Component:
    def fails(self) -> None:
        int("x")


def raised() -> ValueError:
    try:
        Component().fails()
    except ValueError as error:
        return error
    raise AssertionError


class Failures(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.log = FailureLog(self.clock.seconds)
        self.events: list[dict[str, Any]] = []
        globalLogPublisher.addObserver(self.events.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.events.append)

    def told(self) -> list[str]:
        return [f"{event['who']} {event['error']}{event['again']}" for event in self.events if "who" in event]

    def test_it_is_told_once_a_minute_with_how_often_it_happened(self) -> None:
        for seconds in (0, 1, 58, 1, 59):
            self.clock.advance(seconds)
            self.log.tell("the filter a", ValueError("broken"))
        self.assertEqual(
            self.told(),
            ["the filter a ValueError: broken", "the filter a ValueError: broken (2 times more since it was told last)"],
        )

    def test_another_component_kind_or_place_is_told_at_once(self) -> None:
        self.log.tell("a", ValueError("1"), "x.py:1")
        self.log.tell("a", ValueError("2"), "x.py:1")
        self.log.tell("b", ValueError("1"), "x.py:1")
        self.log.tell("a", KeyError("1"), "x.py:1")
        self.log.tell("a", ValueError("1"), "x.py:2")
        self.assertEqual(len(self.told()), 4)

    def test_the_traceback_goes_along(self) -> None:
        self.log.tell("a", raised())
        self.log.tell("b", Failure(raised()))
        self.log.tell("c", "DeadlineExceeded: 3 s")
        first, second, third = [event["traceback"] for event in self.events]
        self.assertIn("in fails", first)
        self.assertIn("ValueError", second)
        self.assertEqual(third, "")
        self.assertEqual(self.flushLoggedErrors(), [])  # it is no fault of the server's

    def test_an_exception_that_cannot_print_itself_is_told(self) -> None:
        class Mute(Exception):
            def __str__(self) -> str:
                raise RuntimeError

        self.log.tell("a", Mute())
        self.assertIn("Mute", self.told()[0])

    def test_the_place_is_the_components_own_line(self) -> None:
        import linecache

        error = raised()
        file, _, line = place_of(error, Component()).rpartition(":")
        self.assertEqual(file, __file__)
        self.assertIn("int(", linecache.getline(file, int(line)))
        self.assertTrue(place_of(Failure(error), Component()).startswith(__file__))
        self.assertTrue(place_of(error).startswith(__file__))
        self.assertEqual((place_of("late"), place_of(ValueError())), ("", ""))

    def test_words_are_bounded(self) -> None:
        self.assertEqual(words_of("late"), "late")
        self.assertLess(len(words_of(ValueError("x" * 10_000))), 600)
