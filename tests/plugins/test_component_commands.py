"""Commands of components: what they declare is checked, their answers are bounded, their failures are told."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailserver.cli.command import COMMANDS
from mailserver.interfaces import Argument, CannotDo, ComponentCommand
from mailserver.plugins.component_commands import (
    FACES,
    OWN_COMMANDS,
    Refusal,
    carry_out,
    checked_commands,
    described_command,
)
from mailserver.plugins.failure_log import FailureLog


async def echo(**arguments: Any) -> Any:
    return arguments


GOOD = ComponentCommand(
    "echo",
    "say it again",
    echo,
    (
        Argument("word", "what", choices=("a", "b")),
        Argument("times", "how often", "integer", required=False),
        Argument("pause", "seconds", "number", required=False),
        Argument("loud", "in capitals", "flag", required=False),
    ),
)


class Offers:
    def __init__(self, *commands: Any) -> None:
        self._commands = commands

    def commands(self) -> Any:
        return self._commands


class Declarations(SynchronousTestCase):
    def fault(self, *commands: Any, name: str = "some") -> str:
        return str(self.assertRaises(ValueError, checked_commands, Offers(*commands), name))

    def test_what_is_well_declared_is_found_by_name(self) -> None:
        self.assertEqual(checked_commands(Offers(GOOD), "some"), {"echo": GOOD})
        self.assertEqual(described_command(GOOD)["arguments"][0]["choices"], ["a", "b"])

    def test_the_servers_own_commands_are_known_and_cannot_be_hidden(self) -> None:
        self.assertEqual(OWN_COMMANDS, set(COMMANDS))
        self.assertIn("is a command of the server", self.fault(GOOD, name="queue"))

    def test_only_the_component_that_a_command_of_the_server_asks_may_be_called_as_the_command(self) -> None:
        self.assertEqual(checked_commands(Offers(GOOD), "contacts", "filter", "contacts"), {"echo": GOOD})
        for kind, use in (("filter", "greylist"), ("delivery", "contacts"), ("filter", "")):
            with self.assertRaisesRegex(ValueError, "let its table say another name"):
                checked_commands(Offers(GOOD), "contacts", kind, use)
        for command, (_, use) in FACES.items():
            face = import_module(f"mailserver.cli.{command}")
            self.assertEqual(face.USE, use)

    def test_whatever_is_wrong_is_told_by_name(self) -> None:
        wrong: list[tuple[Any, str]] = [
            ("echo", "no ComponentCommand"),
            (replace(GOOD, name="Echo!"), "no name for a command"),
            (replace(GOOD, name=""), "no name for a command"),
            (replace(GOOD, name=7), "no name for a command"),
            (replace(GOOD, summary=None), "its summary is no text"),
            (replace(GOOD, run=None), "its run is no function"),
            (replace(GOOD, deadline_seconds=0), "deadline_seconds"),
            (replace(GOOD, deadline_seconds=float("nan")), "deadline_seconds"),
            (replace(GOOD, arguments=(GOOD.arguments[0],) * 2), "twice"),
            (replace(GOOD, arguments=("word",)), "no Argument"),
            (replace(GOOD, arguments=(Argument("config", "x"),)), "taken"),
            (replace(GOOD, arguments=(Argument("a b", "x"),)), "no name for an argument"),
            (replace(GOOD, arguments=(Argument("x", "x", "date"),)), "its kind"),
            (replace(GOOD, arguments=(Argument("x", "x", "flag"),)), "a flag is never required"),
            (replace(GOOD, arguments=tuple(Argument(f"a{n}", "x") for n in range(30))), "more than 20"),
        ]
        for command, words in wrong:
            self.assertIn(words, self.fault(command))
        self.assertIn("twice", self.fault(GOOD, GOOD))
        self.assertIn("more than 50", self.fault(*[replace(GOOD, name=f"c{n}") for n in range(60)]))

    def test_a_component_that_cannot_say_its_commands_is_at_fault(self) -> None:
        for answer in (None, 7):
            component = Offers()
            component._commands = answer  # type: ignore[assignment]
            self.assertIn("commands() failed: TypeError", str(self.assertRaises(ValueError, checked_commands, component, "x")))


class CarriedOut(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.failures = FailureLog(self.clock.seconds)

    def begin(self, command: ComponentCommand, arguments: dict[str, Any]) -> Deferred[Any]:
        return Deferred.fromCoroutine(
            carry_out("the filter some", command, arguments, clock=self.clock, failures=self.failures)
        )

    def answer(self, run: Any) -> Deferred[Any]:
        async def answers() -> Any:
            return run() if callable(run) else run

        return self.begin(ComponentCommand("try", "x", answers), {})

    def refusal(self, found: Deferred[Any]) -> str:
        return self.failureResultOf(found, Refusal).getErrorMessage()

    def test_the_arguments_come_by_name_and_those_that_were_not_typed_are_left_out(self) -> None:
        self.assertEqual(self.successResultOf(self.begin(GOOD, {"word": "a"})), {"word": "a"})
        whole = {"word": "b", "times": 3, "pause": 0.5, "loud": True}
        self.assertEqual(self.successResultOf(self.begin(GOOD, whole)), whole)

    def test_arguments_that_do_not_fit_never_reach_the_component(self) -> None:
        for wrong, words in (
            ({}, "word is missing"),
            ({"word": "c"}, "word is one of a, b"),
            ({"word": 7}, "word is no text"),
            ({"word": "a", "times": "3"}, "times is no integer"),
            ({"word": "a", "times": True}, "times is no integer"),
            ({"word": "a", "loud": 1}, "loud is no flag"),
            ({"word": "a", "self": "x"}, "has no argument 'self'"),
        ):
            self.assertIn(words, self.refusal(self.begin(GOOD, wrong)))

    def test_a_no_is_told_in_the_components_words_cleaned(self) -> None:
        def says_no() -> None:
            raise CannotDo("not on the list\r\n\x1b[31m")

        words = self.refusal(self.answer(says_no))
        self.assertTrue(words.startswith("not on the list"), words)
        self.assertTrue(words.isprintable())
        self.assertEqual(self.refusal(self.begin(ComponentCommand("try", "x", self.silent_no), {})), "the filter some says no")

    async def silent_no(self) -> None:
        raise CannotDo

    def test_every_other_error_is_a_failure_that_the_log_has(self) -> None:
        class Unprintable(Exception):
            def __str__(self) -> str:
                raise RuntimeError

        for kind in (KeyError, SystemExit, RecursionError, Unprintable):
            def fails(kind: type[BaseException] = kind) -> None:
                raise kind("x")

            self.assertIn("the filter some failed at try; the log says more", self.refusal(self.answer(fails)))
        not_awaitable: Any = lambda: "plain"  # noqa: E731
        self.assertIn("failed at try", self.refusal(self.begin(ComponentCommand("try", "x", not_awaitable), {})))

    def test_answers_that_json_cannot_hold_are_failures(self) -> None:
        endless: list[Any] = []
        endless.append(endless)
        for answer in (object(), {1, 2}, b"octets", float("nan"), endless, {("a",): 1}):
            self.assertIn("failed at try", self.refusal(self.answer(lambda answer=answer: answer)))
        for answer in (None, "x", ["x"], {"a": 1}, [{"a": None}], 7, True):
            self.assertEqual(self.successResultOf(self.answer(lambda answer=answer: answer)), answer)

    def test_an_answer_is_bounded(self) -> None:
        self.assertIn("are the most", self.refusal(self.answer("x" * (1 << 20))))

    def test_one_that_hangs_is_given_up_at_its_deadline(self) -> None:
        hangs: Deferred[None] = Deferred()
        found = self.begin(ComponentCommand("try", "x", lambda: hangs, deadline_seconds=7.0), {})
        self.clock.advance(6.9)
        self.assertNoResult(found)
        self.clock.advance(0.1)
        self.assertIn("took longer than 7 s", self.refusal(found))
        self.assertTrue(hangs.called)
