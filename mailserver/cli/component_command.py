"""``mailserver NAME COMMAND``: what a component of the server that runs offers.

The server says which commands there are and what they take; the command line is made from that.  All its words are a plugin's:
they are made fit for a terminal.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from os import EX_UNAVAILABLE
from typing import Any

from mailserver.cli.asking import ask_server, data_directory
from mailserver.cli.output import Unable, as_json, plain, say, table
from mailserver.cli.parsing import Parser
from mailserver.config.choice import chosen_path
from mailserver.config.fault import ConfigurationError
from mailserver.control.client import ControlError

__all__ = ["run_component_command"]

GRACE_SECONDS = 5.0  # the server's own deadline comes first
TYPES: Mapping[str, Callable[[str], Any]] = {"text": str, "integer": int, "number": float}


def run_component_command(words: Sequence[str], own: Collection[str]) -> int | None:
    """Run it; None where no component has this name.  Raises `Unable`, and `ControlError` for the server's no."""
    name, common = words[0], _common()
    known, _ = common.parse_known_args(words[1:])
    try:
        data = data_directory(chosen_path(getattr(known, "config", None), say=lambda _: None, environment=os.environ))
    except ConfigurationError:
        return None
    try:
        described = ask_server(data, "component.commands", {"name": name})
    except ControlError as error:  # none runs, it is starting, it is not for this user, it is an older one
        if _is_close(name, own):
            return None
        words_for_them = f"there is no command {plain(name)!r}; a component can have it, while the server runs: {error}"
        raise Unable(words_for_them, EX_UNAVAILABLE) from error
    if not described["commands"]:
        if described["kind"]:
            raise Unable(f"the {plain(str(described['kind']))} {plain(name)!r} has no commands")
        return None
    options = vars(_parser(name, described, common).parse_args(words[1:]))
    wants_json, command = options.pop("json", False), options.pop("command")
    options.pop("config", None)
    seconds = next(one["deadline_seconds"] for one in described["commands"] if one["name"] == command)
    question = {"name": name, "command": command, "arguments": options}
    answer = ask_server(data, "component.run", question, seconds + GRACE_SECONDS)["answer"]
    if wants_json:
        as_json(answer)
    else:
        _show(answer)
    return 0


def _common() -> Parser:
    common = Parser(add_help=False, allow_abbrev=False)
    common.add_argument("--config", metavar="FILE", default=argparse.SUPPRESS, help="the configuration file")
    common.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="answer in JSON")
    return common


def _parser(name: str, described: Mapping[str, Any], common: Parser) -> Parser:
    parser = Parser(
        prog=f"mailserver {name}",
        description=f"Commands of the {plain(str(described['kind']))} {plain(name)} of the server that runs.",
        parents=[common],
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, dest="command")
    for one in described["commands"]:
        summary = _words(one["summary"])
        command = commands.add_parser(one["name"], parents=[common], help=summary, description=summary)
        for argument in one["arguments"]:
            _add(command, argument)
    return parser


def _add(command: argparse.ArgumentParser, argument: Mapping[str, Any]) -> None:
    name, kind = argument["name"], argument["kind"]
    more: dict[str, Any] = {"help": _words(argument["help"])}
    if kind == "flag":
        command.add_argument("--" + name.replace("_", "-"), dest=name, action="store_true", default=argparse.SUPPRESS, **more)
        return
    more |= {"type": TYPES[kind], "choices": [plain(one) for one in argument["choices"]] or None}
    if argument["required"]:
        command.add_argument(name, metavar=name.upper(), **more)
    else:
        option = "--" + name.replace("_", "-")
        command.add_argument(option, dest=name, metavar=name.upper(), default=argparse.SUPPRESS, **more)


def _words(text: str) -> str:
    """For argparse, which has a meaning for the percent sign."""
    return plain(text).replace("%", "%%")


def _is_close(name: str, own: Collection[str]) -> bool:
    from difflib import get_close_matches

    return bool(get_close_matches(name, own, n=1, cutoff=0.75))  # `greylist` is no slip of `list`


def _show(answer: Any) -> None:
    if answer is None:
        return
    if isinstance(answer, str):
        say(*map(plain, answer.splitlines()))
    elif isinstance(answer, dict):
        table(("NAME", "VALUE"), [(str(name), _cell(value)) for name, value in answer.items()])
    elif isinstance(answer, list) and answer and all(isinstance(row, dict) for row in answer):
        columns = list(dict.fromkeys(column for row in answer for column in row))
        table([column.upper() for column in columns], [[_cell(row.get(column, "")) for column in columns] for row in answer])
    elif isinstance(answer, list):
        say(*[plain(_cell(line)) for line in answer])
    else:
        say(plain(_cell(answer)))


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
