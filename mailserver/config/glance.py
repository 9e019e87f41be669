"""The few keys that a command needs in order to ask the server, read without a look at the rest of the file.

So a fault elsewhere in the file does not keep a person from seeing the queue of the server that runs, and such a command starts
in a fraction of the time.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mailserver.config.defaults import EXPIRE_SECONDS, SYSTEM_FOLDERS
from mailserver.config.document import FILE_OCTETS, read_document
from mailserver.config.fault import ConfigurationError, Fault
from mailserver.config.quantities import seconds

__all__ = ["Glance", "glance"]


@dataclass(frozen=True, slots=True)
class Glance:
    """`data` is an absolute path; `expire_seconds` is when a message is given up, counted from its arrival."""

    data: str
    expire_seconds: float


def glance(path: str) -> Glance:
    """Read these keys.  Where they have faults it raises `ConfigurationError` with all faults of the file."""
    try:
        with open(path, "rb") as source:
            read = read_document(source.read(FILE_OCTETS + 1), path)
    except OSError as error:
        raise ConfigurationError([Fault(path, 1, "", f"cannot be read: {error.strerror}")]) from error
    if isinstance(read, Fault):
        raise ConfigurationError([read])
    return _plain(read[1], os.path.dirname(os.path.abspath(path))) or _whole(path)


def _plain(document: Mapping[str, Any], directory: str) -> Glance | None:
    data, queue = document.get("data"), document.get("queue", {})
    if not isinstance(data, str) or not data or "\0" in data or data.startswith("{") or not isinstance(queue, dict):
        return None
    folder = os.path.normpath(os.path.join(directory, os.path.expanduser(data)))
    try:
        expire_seconds = seconds(queue.get("expire", EXPIRE_SECONDS))
    except ValueError:
        return None
    return None if folder in SYSTEM_FOLDERS else Glance(folder, expire_seconds)


def _whole(path: str) -> Glance:
    from mailserver.config.reading import load

    configuration = load(path)
    return Glance(configuration.data, configuration.queue.expire)
