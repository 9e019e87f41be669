"""``mailserver NAME COMMAND``: the command line that a component's own description makes, and what it prints."""

from __future__ import annotations

from typing import Any

from mailserver.cli import component_command
from mailserver.control.client import CommandRefused, ControlError, NoServer, NotStarted
from tests.cli.support import CommandCase, Said, run

ESCAPE = "\x1b]0;owned\x07\u202e"
DESCRIBED = {
    "kind": "filter",
    "commands": [
        {
            "name": "forget",
            "summary": f"100% of it {ESCAPE}",
            "deadline_seconds": 7.0,
            "arguments": [
                {"name": "what", "help": f"50% {ESCAPE}", "kind": "text", "required": True, "choices": ["all", "some"]},
                {"name": "older_than", "help": "days", "kind": "integer", "required": False, "choices": []},
                {"name": "now", "help": "at once", "kind": "flag", "required": False, "choices": []},
            ],
        }
    ],
}


class ComponentCommand(CommandCase):
    def setUp(self) -> None:
        super().setUp()
        self.asked: list[Any] = []
        self.answers: dict[str, Any] = {"component.commands": DESCRIBED, "component.run": {"answer": None}}

        def ask_server(data: str, command: str, arguments: dict[str, Any], timeout_seconds: float = 30.0) -> Any:
            self.asked.append((command, arguments, timeout_seconds))
            answer = self.answers[command]
            if isinstance(answer, Exception):
                raise answer
            return answer

        self.patch(component_command, "ask_server", ask_server)
        self.patch(component_command, "chosen_path", lambda named, **_: named or "/x")
        self.patch(component_command, "data_directory", lambda path: "/data")

    def told(self, *words: str) -> tuple[int, str, str]:
        said: Said = run(*words)
        return said.code, said.out, said.err

    def test_what_was_typed_comes_by_name_and_type(self) -> None:
        self.told("greylist", "forget", "all", "--older-than", "3", "--now", "--config", "/etc/x")
        self.assertEqual(
            self.asked[1],
            (
                "component.run",
                {"name": "greylist", "command": "forget", "arguments": {"what": "all", "older_than": 3, "now": True}},
                12.0,
            ),
        )
        self.told("greylist", "--config", "/etc/x", "forget", "some")
        self.assertEqual(self.asked[3][1]["arguments"], {"what": "some"})

    def test_what_does_not_fit_is_refused_before_the_server_hears_it(self) -> None:
        for words in (["none"], ["all", "--older-than", "x"], [], ["all", "--other"]):
            code, _, _ = self.told("greylist", "forget", *words)
            self.assertEqual(code, 2)
        self.assertEqual({command for command, _, _ in self.asked}, {"component.commands"})

    def test_no_word_of_a_plugin_reaches_the_terminal_raw(self) -> None:
        answers: list[Any] = [
            ESCAPE, [ESCAPE], {ESCAPE: ESCAPE}, [{ESCAPE: ESCAPE}, {"b": {"c": ESCAPE}}], {"a": [ESCAPE]}, [[ESCAPE]],
        ]  # fmt: skip
        told = [self.told("greylist", *words) for words in (["--help"], ["forget", "--help"])]
        for answer in answers:
            self.answers["component.run"] = {"answer": answer}
            told.append(self.told("greylist", "forget", "all"))
            self.assertEqual(told[-1][0], 0)
        self.answers["component.run"] = CommandRefused(ESCAPE)
        told.append(self.told("greylist", "forget", "all"))
        self.assertEqual(told[-1][0], 1)
        for _, output, errors in told:
            for line in (output + errors).splitlines():
                self.assertTrue(line.isprintable(), repr(line))
        self.assertIn("100% of it", told[0][1])
        self.assertIn("50%", told[1][1])

    def test_each_answer_has_its_form(self) -> None:
        for answer, shown in (
            (None, ""),
            ("one\ntwo", "one\ntwo\n"),
            (["one", "two"], "one\ntwo\n"),
            ({"a": 1, "b": None}, "NAME  VALUE\na     1\nb     null\n"),
            ([{"a": "x"}, {"b": 2.5}], "A  B\nx\n   2.5\n"),
            (7, "7\n"),
            ([], ""),
            (True, "true\n"),
        ):
            self.answers["component.run"] = {"answer": answer}
            self.assertEqual(self.told("greylist", "forget", "all")[:2], (0, shown))

    def test_with_json_it_comes_as_it_is(self) -> None:
        self.answers["component.run"] = {"answer": {"a": [1, None]}}
        code, output, _ = self.told("greylist", "forget", "all", "--json")
        self.assertEqual((code, output), (0, '{\n  "a": [\n    1,\n    null\n  ]\n}\n'))

    def test_of_a_component_without_commands_it_says_that_it_has_none(self) -> None:
        self.answers["component.commands"] = {"kind": "filter", "commands": []}
        for words in (["greylist", "--help"], ["greylist", "forget"]):
            code, _, errors = self.told(*words)
            self.assertEqual(code, 1)
            self.assertIn("the filter 'greylist' has no commands", errors)
        self.answers["component.commands"] = {"kind": "", "commands": []}
        self.assertIn("there is no 'greylist'", self.told("greylist", "forget")[2])

    def test_without_a_server_it_says_so_and_a_slip_of_the_pen_is_still_one(self) -> None:
        for error in (
            NoServer("no server runs on /data"),
            NotStarted("the server is starting"),
            ControlError("/data/control.sock: Permission denied"),
            CommandRefused("this server knows no command 'component.commands'"),
        ):
            self.answers["component.commands"] = error
            code, _, errors = self.told("greylist", "forget", "all")
            self.assertEqual(code, 69)
            self.assertIn(f"a component can have it, while the server runs: {error}", errors)
            code, _, errors = self.told("statsu")
            self.assertEqual(code, 2)
            self.assertIn("did you mean 'status'?", errors)

    def test_a_name_that_nothing_has_is_refused_as_before(self) -> None:
        self.answers["component.commands"] = {"kind": "", "commands": []}
        self.assertEqual(self.told("nonsense")[0], 2)
