"""Ask the running server; where none runs, look into its files."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

from mailserver.config import Configuration, load
from mailserver.control import NoServer, ask

__all__ = ["ask_or_read", "data_directory"]

T = TypeVar("T")


def data_directory(config: str) -> str:
    """The data directory that a configuration file names.  Plugins are not looked at."""
    configuration: Configuration = load(config)
    return configuration.data


def ask_or_read(
    data: str, command: str, arguments: dict[str, Any], read: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """The server's answer, or that of `read` where no server runs on the data directory."""
    try:
        return ask(os.path.join(data, "control.sock"), command, arguments)
    except NoServer:
        return read()
