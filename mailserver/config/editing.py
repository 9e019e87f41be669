"""A change to the configuration file by a command: its comments and its order stay, and the new text is checked before it counts.

The new file is written beside the old one, synced and renamed over it: a reader, or a power failure, sees the one or the other.
"""

from __future__ import annotations

import difflib
import os
import stat
from collections.abc import Callable

from mailserver.config.document import FILE_OCTETS
from mailserver.config.draft import Draft, Unchangeable
from mailserver.config.fault import ConfigurationError, Fault
from mailserver.config.reading import ComponentOptions, parse
from mailserver.config.schema import Configuration
from mailserver.mail.durable import locked_directory, replace_file

__all__ = ["MayNotWrite", "change_file"]

MARK = "\ufeff"  # of editors of Windows


class MayNotWrite(PermissionError):
    """Whoever asks may not change the file."""


def change_file(
    path: str,
    change: Callable[[Draft], None],
    options_of: ComponentOptions | None = None,
    *,
    judge: Callable[[Configuration], str] = lambda configuration: "",
    dry_run: bool = False,
) -> list[str]:
    """Give the text to `change`, write it back, and return the lines that differ (``-old``, ``+new``).

    `judge` has the last word on what the new text says: why it cannot be, "" for nothing.  Raises `MayNotWrite`; OSError;
    `ConfigurationError` where the file has faults, or would have them afterwards; and what `change` raises.  Nothing has changed
    then.
    """
    path = os.path.realpath(path)
    if not os.access(path, os.W_OK, effective_ids=os.access in os.supports_effective_ids):
        _open_to_see_why(path)
        raise MayNotWrite(f"{path}: you may not change it")
    with locked_directory(os.path.dirname(path), f"a file in {os.path.dirname(path)}"):
        text = _text(path)
        directory = os.path.dirname(path)
        parse(text.removeprefix(MARK), file=path, directory=directory, options_of=options_of)
        new = _changed(path, text, change)
        found = parse(new.removeprefix(MARK), file=path, directory=directory, options_of=options_of)
        if why := judge(found):
            raise ConfigurationError([Fault(path, 1, "", why)])
        if new != text and not dry_run:
            _replace(path, new)
    both = difflib.unified_diff(text.splitlines(), new.splitlines(), lineterm="", n=0)
    return [line for line in both if line[:1] in "+-" and line[:3] not in ("---", "+++")]


def _changed(path: str, text: str, change: Callable[[Draft], None]) -> str:
    mark = MARK if text.startswith(MARK) else ""
    draft = Draft(text.removeprefix(MARK))
    try:
        change(draft)
    except Unchangeable:
        why = "is written in a form that commands cannot change: edit it by hand"
        raise ConfigurationError([Fault(path, 1, "", why)]) from None
    return mark + draft.text


def _text(path: str) -> str:
    with open(path, "rb") as source:
        octets = source.read(FILE_OCTETS + 1)
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigurationError([Fault(path, 1, "", f"is not UTF-8: {error.reason} at octet {error.start}")]) from error


def _open_to_see_why(path: str) -> None:
    """Raises OSError where the file cannot be read, either."""
    with open(path, "rb"):
        pass


def _replace(path: str, text: str) -> None:
    old = os.stat(path)

    def dress(fd: int) -> None:
        if (old.st_uid, old.st_gid) != (os.geteuid(), os.getegid()):
            os.fchown(fd, old.st_uid, old.st_gid)
        os.fchmod(fd, stat.S_IMODE(old.st_mode))

    try:
        replace_file(path, text, dress)
    except PermissionError as error:
        raise MayNotWrite(f"{os.path.dirname(path)}: you may not put the new file there") from error
