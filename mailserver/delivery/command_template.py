"""A command that gets mail: its words with placeholders, and the arguments made of them.

A command is a list of words and never goes through a shell.  Whatever a placeholder stands for stays within its own argument.
An argument that would begin with "-" only because of what was put in could be taken for an option: such a message is refused,
except after a word ``--``, which ends the options of every command that follows the POSIX utility conventions (guideline 10).
"""

from __future__ import annotations

import os.path
import re
from collections.abc import Mapping, Sequence

__all__ = ["PLACEHOLDERS", "CommandError", "CommandTemplate", "UnsafeValue"]

PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")  # other braces are a script's own
PLACEHOLDERS = (
    "sender",  # the reverse-path
    "recipient",  # the final address, after aliases
    "original_recipient",  # as the sender's host gave it at RCPT
    "local_part",  # of the final address
    "domain",  # of the mailbox; of the final address for another host
    "user",  # the mailbox's
    "folder",  # the path below the inbox, joined with dots
    "hostname",  # our own name
    "id",  # of the message
    "size",  # octets, in the message's form on the wire
    "client_address",  # who handed the message in
    "client_name",  # what it called itself
)
SURROGATE = re.compile("[\ud800-\udfff]")
SHELL_SCRIPT = re.compile(r"-[a-z]*c[a-z]*")
SHELLS = ("ash", "bash", "dash", "fish", "ksh", "mksh", "sh", "zsh")
VALUE_OCTETS = 4096


class CommandError(ValueError):
    """The command cannot be used.  The message says why."""


class UnsafeValue(ValueError):
    """What would be put into an argument could change the command's meaning.  `placeholder` names the first such value."""

    def __init__(self, placeholder: str, why: str) -> None:
        super().__init__(f"{{{placeholder}}} {why}")
        self.placeholder = placeholder


class CommandTemplate:
    """The words of a command.  Raises `CommandError`."""

    def __init__(self, words: Sequence[str]) -> None:
        if not words or not words[0].startswith("/"):
            raise CommandError("the command's first word must be the absolute path of a program")
        for word in words:
            for name in PLACEHOLDER.findall(word):
                if name not in PLACEHOLDERS:
                    raise CommandError(f"{{{name}}} is none of {', '.join(f'{{{known}}}' for known in PLACEHOLDERS)}")
            if "\0" in word:
                raise CommandError("NUL has no place in a command")
        if PLACEHOLDER.search(words[0]):
            raise CommandError("a message must not choose the program")
        _check_shell(words)
        self._words = tuple(words)
        end = self._words.index("--") if "--" in self._words else len(self._words)
        self._options_end = end

    def arguments(self, values: Mapping[str, str]) -> list[str]:
        """The command's arguments.  `values` has a text for each placeholder.  Raises `UnsafeValue`."""
        return [
            _filled(word, values, may_begin_with_dash=at > self._options_end) if "{" in word else word
            for at, word in enumerate(self._words)
        ]


def _filled(word: str, values: Mapping[str, str], *, may_begin_with_dash: bool) -> str:
    def value(match: re.Match[str]) -> str:
        text = values[match[1]]
        if "\0" in text or SURROGATE.search(text):
            raise UnsafeValue(match[1], "holds what no argument can hold")
        if len(text) > VALUE_OCTETS:
            raise UnsafeValue(match[1], "is too long for an argument")
        return text

    argument = PLACEHOLDER.sub(value, word)
    if argument.startswith("-") and not may_begin_with_dash:
        first = PLACEHOLDER.match(word)
        if first is not None:
            raise UnsafeValue(first[1], 'begins with "-" and would look like an option')
    return argument


def _check_shell(words: Sequence[str]) -> None:
    if os.path.basename(words[0]) not in SHELLS:
        return
    options = iter(words[1:])
    if any(map(SHELL_SCRIPT.fullmatch, options)):  # `options` then goes on behind the one that matched
        script = next((word for word in options if not word.startswith(("-", "+"))), "")
        if PLACEHOLDER.search(script):
            raise CommandError(
                "a placeholder in a shell's script lets every sender run commands: "
                'give it as an argument of its own and write "$1" in the script'
            )
