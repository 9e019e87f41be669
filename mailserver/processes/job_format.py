"""What is said between the server and a process that calls functions for a component.

A job is a `marshal` of plain values.  An answer is JSON: the process may have read what a stranger wrote, and a few octets of
`marshal` can ask for all of the memory.  What JSON does not have is an object of one member, whose name says what it is.
"""

from __future__ import annotations

import binascii
import contextlib
import importlib
import json
import marshal
import traceback
from collections.abc import Callable
from typing import Any

from mailserver.mail.content import Content
from mailserver.mail.process_failure import ProcessFailed

__all__ = [
    "RESULT_OCTETS", "call_job", "job_of", "place_of_function", "raised", "refused", "result_of", "seconds_of", "take_beyond",
]  # fmt: skip

RESULT_OCTETS = 8 << 20  # of JSON, which the reactor reads
WORDS_CHARACTERS = 500
MEMBERS: dict[str, Callable[[Any], Any]] = {
    "dict": dict, "tuple": tuple, "set": set, "frozenset": frozenset, "bytes": binascii.a2b_base64,
}  # fmt: skip
PLAIN = "None, texts, numbers, octets, tuples, lists, sets, dictionaries"


def place_of_function(function: Any) -> tuple[str, str]:
    """Module and name by which another process finds the function.  Raises TypeError where it cannot."""
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    if isinstance(module, str) and isinstance(name, str) and module != "__main__":
        with contextlib.suppress(Exception):  # a module that was made by hand may do anything
            if _found(module, name) is function:
                return module, name
    raise TypeError(f"{function!r} is no function of a module, which another process could import")


def job_of(function: Callable[..., Any], arguments: tuple[Any, ...], seconds: float) -> bytes:
    """The frame that asks for a call.  Raises TypeError for what cannot be sent."""
    module, name = place_of_function(function)
    sent = [(isinstance(one, Content), _fields_of(one) if isinstance(one, Content) else one) for one in arguments]
    try:
        return marshal.dumps((module, name, seconds, sent))
    except ValueError:
        raise TypeError(f"the arguments of {name} are a Content each, or made of plain values ({PLAIN})") from None


def seconds_of(job: bytes) -> float:
    """How long the call may take."""
    seconds: float = marshal.loads(job)[2]  # noqa: S302  # the server is our own program
    return seconds


def call_job(job: bytes) -> bytes:
    """In the process: call the function.  The answer's frame, whatever the function does but end the process."""
    try:
        module, name, _, sent = marshal.loads(job)  # noqa: S302  # the server is our own program
        arguments = [Content(*one) if is_content else one for is_content, one in sent]
        result = _found(module, name)(*arguments)
        beyond = [one.parts_beyond_bounds if isinstance(one, Content) else "" for one in arguments]
        octets = _octets_of(["returned", _as_json(result), beyond])
        if len(octets) > RESULT_OCTETS:
            raise ValueError(f"a result of {len(octets)} octets is more than {RESULT_OCTETS}")
        return octets
    except BaseException as error:  # noqa: BLE001  # SystemExit, too, is one call's matter
        return raised(error)


def raised(error: BaseException) -> bytes:
    """The answer's frame for what a function has raised."""
    words = place = ""
    with contextlib.suppress(Exception):  # anybody's class
        words = str(error)[:WORDS_CHARACTERS]
    with contextlib.suppress(Exception):
        for frame in traceback.extract_tb(error.__traceback__, -1):
            place = f"{frame.filename}:{frame.lineno}"
    return _octets_of(["raised", type(error).__name__, words, place])


def refused(why: str) -> bytes:
    """The answer's frame of a process that calls nothing."""
    return _octets_of(["refused", why])


def result_of(octets: bytes) -> tuple[Any, list[str]]:
    """What the function has returned, and what was beyond the bounds of each argument.  Raises `ProcessFailed`."""
    answer: Any = None
    with contextlib.suppress(ValueError, TypeError, RecursionError, MemoryError):
        answer = json.loads(octets.decode("ascii"), object_hook=_member)
    match answer:
        case ["returned", result, list(beyond)]:
            return result, [str(one) for one in beyond]
        case ["raised", str(kind), str(words), str(place)]:
            raise ProcessFailed("raised", f"{kind}: {words}" + (f" ({place})" if place else ""), kind=kind)
        case ["refused", str(why)]:
            raise ProcessFailed("died", why)
    raise ProcessFailed("died", "what it answered is no answer")


def take_beyond(arguments: tuple[Any, ...], beyond: list[str]) -> None:
    """Note what the process has met beyond the bounds of a message, as if its parts had been read here."""
    for one, words in zip(arguments, beyond, strict=False):
        if words and isinstance(one, Content):
            one.__dict__["parts_beyond_bounds"] = words


def _octets_of(answer: list[Any]) -> bytes:
    return json.dumps(answer, separators=(",", ":")).encode("ascii")


def _as_json(value: Any) -> Any:
    """Raises TypeError for what is no plain value, and RecursionError."""
    kind = type(value)
    if value is None or kind in (bool, int, float, str):
        return value
    if kind is list:
        return [_as_json(one) for one in value]
    if kind is dict:
        return {"dict": [[_as_json(key), _as_json(one)] for key, one in value.items()]}
    if kind in (tuple, set, frozenset):
        return {kind.__name__: [_as_json(one) for one in value]}
    if kind in (bytes, bytearray):
        return {"bytes": binascii.b2a_base64(value, newline=False).decode("ascii")}
    raise TypeError(f"a result is made of plain values ({PLAIN}), not of {kind.__name__}")


def _member(found: dict[str, Any]) -> Any:
    """What an object of one member stands for.  Raises ValueError and TypeError."""
    ((name, value),) = found.items()
    if name not in MEMBERS:
        raise ValueError(name)
    return MEMBERS[name](value)


def _fields_of(content: Content) -> tuple[object, ...]:
    return content.data, content.path, content.stored_size, content.prefix, content.binary, content.skip


def _found(module: str, name: str) -> Any:
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found
