"""Ask the running server; where none runs, look into its files."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

from mailserver.config.glance import glance
from mailserver.control.client import NoServer, ask
from mailserver.processes.identity import as_owner_of

__all__ = ["ask_or_read", "ask_server", "data_directory"]

T = TypeVar("T")


def data_directory(config: str) -> str:
    """The data directory that a configuration file names.  The rest of the file is not checked."""
    return glance(config).data


def ask_or_read(
    data: str, command: str, arguments: dict[str, Any], read: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """The server's answer, or that of `read` where no server runs on the data directory.

    `read` itself sees to the user as whom it reads.
    """
    try:
        return ask_server(data, command, arguments)
    except NoServer:
        return read()


def ask_server(data: str, command: str, arguments: dict[str, Any], timeout_seconds: float = 30.0) -> dict[str, Any]:
    """The server's answer, as `ask`.  Root asks as the owner of the data directory, who controls what control.sock is there."""
    with as_owner_of(data):
        return ask(os.path.join(data, "control.sock"), command, arguments, timeout_seconds=timeout_seconds)
