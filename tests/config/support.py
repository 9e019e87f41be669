"""A least configuration, and faults as text."""

from __future__ import annotations

from typing import Any

from mailserver.config import Configuration, ConfigurationError, parse

LEAST = 'hostname = "mail.example.org"\ndata = "data"\n[[listen]]\nservice = "mx"\nendpoint = "tcp:25"\n'


def parsed(text: str, options_of: Any = None) -> Configuration:
    return parse(text, file="mailserver.toml", directory="/etc/mail", options_of=options_of)


def with_more(more: str) -> Configuration:
    """The least configuration with `more` behind it, from line 6 on."""
    return parsed(LEAST + more)


def faults(text: str, options_of: Any = None) -> list[str]:
    """``line key: message`` of each fault."""
    try:
        parsed(text, options_of)
    except ConfigurationError as error:
        return [f"{fault.line} {fault.key}: {fault.message}" for fault in error.faults]
    return []
