"""The asking side of the control socket, without a reactor: it blocks, as a command line may.
`mailserver.control.server` answers.

Neither Twisted nor anything else that is large is imported here: every command pays for it.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import Any

from mailserver.config.endpoints import SOCKET_PATH_OCTETS

__all__ = [
    "SOCKET_PATH_OCTETS",
    "CommandRefused",
    "ControlError",
    "NoServer",
    "NotStarted",
    "as_octets",
    "ask",
    "cut",
    "joined",
    "socket_address",
]

VALUE_OCTETS = 65535  # AMP's length prefix has two octets
ANSWER_OCTETS = 256 * 1024 * 1024


class ControlError(Exception):
    """The server could not be asked, or gave no answer in time."""


class NoServer(ControlError):
    """No server runs on this data directory."""


class CommandRefused(ControlError):
    """The server's answer is no; the words are for the person who asked."""


class NotStarted(ControlError):
    """The server is starting: it can be asked in a moment."""


def as_octets(value: Any) -> bytes:
    """JSON in UTF-8; a lone surrogate (an octet of an argument or a name that is not UTF-8) is escaped as JSON escapes it."""
    try:
        return json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return json.dumps(value).encode()


def cut(name: bytes, value: Any) -> dict[bytes, bytes]:
    """A JSON value of any length as the values ``name``, ``name.1``, ``name.2`` … of one AMP box."""
    text = as_octets(value)
    starts = range(0, len(text), VALUE_OCTETS)
    return {b"%s.%d" % (name, n) if n else name: text[start : start + VALUE_OCTETS] for n, start in enumerate(starts)}


def joined(name: bytes, strings: MutableMapping[bytes, bytes]) -> Any:
    """The value that `cut` has cut; its pieces are taken out of the box.  Raises ValueError for malformed JSON."""
    pieces, number = [strings.pop(name, b"{}")], 1
    while (more := strings.pop(b"%s.%d" % (name, number), None)) is not None:
        pieces.append(more)
        number += 1
    return json.loads(b"".join(pieces))


def _box(strings: Mapping[bytes, bytes]) -> bytes:
    """An AMP box on the wire: each string behind its length in two octets, an empty key at the end."""
    parts = [part for pair in strings.items() for part in pair]
    return b"".join(len(part).to_bytes(2, "big") + part for part in parts) + b"\0\0"


def ask(
    path: str, command: str, arguments: Mapping[str, Any] | None = None, timeout_seconds: float = 30.0
) -> dict[str, Any]:
    """Ask the server behind the socket `path` and wait for its answer.

    Raises `NoServer` where none runs, `CommandRefused` or `NotStarted` with the server's words, `ControlError` for anything else.
    """
    deadline = time.monotonic() + timeout_seconds
    question = _box(
        {b"_command": b"Ask", b"_ask": b"1", b"command": command.encode(), **cut(b"arguments", dict(arguments or {}))}
    )
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(timeout_seconds)
        try:
            with socket_address(path) as address:
                connection.connect(address)
            connection.sendall(question)
            strings = _read_box(connection, deadline)
        except (FileNotFoundError, ConnectionRefusedError):
            raise NoServer(f"no server runs on {os.path.dirname(path)}") from None
        except TimeoutError:
            raise ControlError(f"the server gave no answer within {timeout_seconds:g} s") from None
        except OSError as error:
            raise ControlError(f"{path}: {error.strerror or error}") from error
    if b"_error_code" in strings:
        kind = NotStarted if strings[b"_error_code"] == b"STARTING" else CommandRefused
        raise kind(strings.get(b"_error_description", b"").decode("utf-8", "replace"))
    answer: dict[str, Any] = joined(b"answer", strings)
    return answer


def _read_box(connection: socket.socket, deadline: float) -> dict[bytes, bytes]:
    """One AMP box: pairs of strings, each behind its length in two octets; a key of length 0 ends it."""
    stream = _Stream(connection, deadline)
    strings: dict[bytes, bytes] = {}
    while key := stream.string():
        strings[key] = stream.string()
    return strings


class _Stream:
    def __init__(self, connection: socket.socket, deadline: float) -> None:
        self._connection = connection
        self._deadline = deadline
        self._octets = 0

    def string(self) -> bytes:
        return self._exactly(int.from_bytes(self._exactly(2), "big"))

    def _exactly(self, octets: int) -> bytes:
        self._octets += octets
        if self._octets > ANSWER_OCTETS:
            raise ControlError("the answer is too long")
        pieces = bytearray()
        while len(pieces) < octets:
            left = self._deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self._connection.settimeout(left)
            piece = self._connection.recv(octets - len(pieces))
            if not piece:
                raise ControlError("the server closed the connection before it had answered")
            pieces += piece
        return bytes(pieces)


@contextmanager
def socket_address(path: str) -> Iterator[str]:
    """`path`, or another name of the same place where the path is too long for a socket address."""
    if len(os.fsencode(path)) <= SOCKET_PATH_OCTETS:
        yield path
        return
    folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{os.path.basename(path)}"
    finally:
        os.close(folder)
