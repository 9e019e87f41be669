"""The commands that components offer (`mailserver.interfaces.ICommands`): checked when the component is built, carried out within
their deadline, their answers bounded.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as Late

from mailserver.interfaces import Argument, CannotDo, Clock, ComponentCommand
from mailserver.plugins.awaiting import FAULTS, later, within
from mailserver.plugins.failure_log import FailureLog, place_of, words_of

__all__ = ["FACES", "OWN_COMMANDS", "Refusal", "carry_out", "checked_commands", "described_command"]

# What `mailserver` itself understands: a component of such a name could not be reached.
OWN_COMMANDS = frozenset(
    "alias backup certificate check checkpassword contacts decode dkim dmarc dns domain expect explain export import learn list "
    "lockouts manual plugins probe quarantine queue quickstart record records replay restore route selftest sendmail sink "
    "smarthost srs status subaddress suppression tls-override tlsrpt traces user".split()
)
# Which of these ask a component that may be called so: its kind and its `use`.
FACES = {"contacts": ("filter", "contacts"), "suppression": ("filter", "suppression")}
COMMANDS_MOST = 50
ARGUMENTS_MOST = 20
DEADLINE_MOST = 3600.0
ANSWER_CHARACTERS = 1 << 20
WORDS_CHARACTERS = 1000
COMMAND_NAME = re.compile(r"[a-z][a-z0-9-]{0,31}")
ARGUMENT_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")
TAKEN = frozenset({"config", "json", "help", "self"})
KINDS: Mapping[str, tuple[type, ...]] = {"text": (str,), "integer": (int,), "number": (int, float), "flag": (bool,)}


class Refusal(Exception):
    """The answer is no; the words are for the person who asked."""


def checked_commands(component: Any, name: str, kind: str = "", use: str = "") -> dict[str, ComponentCommand]:
    """A component's commands by name; `name`, `kind` and `use` are its own.  Raises ValueError where they are none."""
    if name in OWN_COMMANDS and FACES.get(name) != (kind, use):
        raise ValueError(f"`mailserver {name}` is a command of the server: let its table say another name")
    try:
        commands = list(component.commands())
    except FAULTS as error:
        raise ValueError(f"commands() failed: {words_of(error)}") from error
    if len(commands) > COMMANDS_MOST:
        raise ValueError(f"more than {COMMANDS_MOST} commands")
    found: dict[str, ComponentCommand] = {}
    for command in commands:
        if not isinstance(command, ComponentCommand):
            raise ValueError(f"commands() has returned a {type(command).__name__}, no ComponentCommand")
        if command.name in found or not _is_text(command.name) or not COMMAND_NAME.fullmatch(command.name):
            raise ValueError(f"{command.name!r} is twice there or no name for a command: lower-case letters, digits, -")
        found[command.name] = command
        try:
            _check(command)
        except ValueError as error:
            raise ValueError(f"its command {command.name}: {error}") from error
    return found


def _check(command: ComponentCommand) -> None:
    deadline = command.deadline_seconds
    if not _is_number(deadline) or not 0 < deadline <= DEADLINE_MOST:
        raise ValueError(f"deadline_seconds is not between 0 and {DEADLINE_MOST:g}")
    if not _is_text(command.summary) or not callable(command.run):
        raise ValueError("its summary is no text or its run is no function")
    if len(command.arguments) > ARGUMENTS_MOST:
        raise ValueError(f"more than {ARGUMENTS_MOST} arguments")
    seen: set[str] = set()
    for argument in command.arguments:
        if not isinstance(argument, Argument):
            raise ValueError(f"a {type(argument).__name__} is no Argument")
        if not _is_text(argument.name) or not ARGUMENT_NAME.fullmatch(argument.name) or argument.name in seen | TAKEN:
            raise ValueError(f"{argument.name!r} is twice there, taken or no name for an argument")
        seen.add(argument.name)
        if argument.kind not in KINDS or not _is_text(argument.help) or not all(map(_is_text, argument.choices)):
            raise ValueError(f"{argument.name}: its kind, its help or its choices are not what they must be")
        if argument.kind == "flag" and argument.required:
            raise ValueError(f"{argument.name}: a flag is never required")


def described_command(command: ComponentCommand) -> dict[str, Any]:
    """What the command line has to know, in plain values."""
    return {
        "name": command.name,
        "summary": command.summary,
        "deadline_seconds": command.deadline_seconds,
        "arguments": [
            {
                "name": one.name,
                "help": one.help,
                "kind": one.kind,
                "required": bool(one.required),
                "choices": list(one.choices),
            }
            for one in command.arguments
        ],
    }


async def carry_out(
    who: str,
    command: ComponentCommand,
    arguments: Mapping[str, Any],
    *,
    clock: Clock,
    failures: FailureLog,
    given_up: Callable[[Deferred[Any]], object] | None = None,
) -> Any:
    """The answer, which JSON can hold.  Raises `Refusal`.

    `who` is the component, for its words and the log; `given_up` is told of what is late.
    """
    checked = _checked_arguments(command, arguments)
    try:
        answer = await within(command.deadline_seconds, later(command.run(**checked)), clock, given_up)
        size = len(json.dumps(answer, allow_nan=False))
    except CannotDo as error:
        raise Refusal(_one_line(words_of(error).partition(": ")[2]) or f"{who} says no") from error
    except Late as error:
        words = f"{who}: {command.name} took longer than {command.deadline_seconds:g} s and was given up"
        failures.tell(f"{who}: the command {command.name}", words)
        raise Refusal(words) from error
    except FAULTS as error:
        failures.tell(f"{who}: the command {command.name}", error, place_of(error))
        raise Refusal(_one_line(f"{who} failed at {command.name}; the log says more: {words_of(error)}")) from error
    if size > ANSWER_CHARACTERS:
        raise Refusal(f"{who}: the answer of {command.name} has {size} characters; {ANSWER_CHARACTERS} are the most")
    return answer


def _checked_arguments(command: ComponentCommand, arguments: Mapping[str, Any]) -> dict[str, Any]:
    known = {one.name: one for one in command.arguments}
    for name in arguments:
        if name not in known:
            raise Refusal(_one_line(f"{command.name} has no argument {name!r}"))
    for name, one in known.items():
        if name not in arguments:
            if one.required:
                raise Refusal(f"{command.name}: {name} is missing")
            continue
        value = arguments[name]
        if not isinstance(value, KINDS[one.kind]) or (isinstance(value, bool) and one.kind != "flag"):
            raise Refusal(f"{command.name}: {name} is no {one.kind}")
        if one.choices and value not in one.choices:
            raise Refusal(f"{command.name}: {name} is one of {', '.join(one.choices)}")
    return dict(arguments)


def _one_line(words: str) -> str:
    """For a terminal, whoever prints it."""
    line = " ".join(words[:WORDS_CHARACTERS].split())
    return "".join(character if character.isprintable() else "?" for character in line)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
