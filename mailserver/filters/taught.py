"""Scanners that learn: ``mailserver learn --filter NAME`` hands them messages through the server.

A message comes whole, in base64, and what becomes of it is one of ``new``, ``known``, ``forgotten``, ``unknown``.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Awaitable, Callable, Sequence

from mailserver.api import Argument, CannotDo, ComponentCommand, Content
from mailserver.filters.scanner_client import ScannerFailed

__all__ = ["Taught", "commands_that_teach"]

KINDS = ("spam", "ham", "forget")
LEARN_SECONDS = 120.0
Taught = Callable[[str, Content], Awaitable[str]]
"""Of a kind (``spam``, ``ham``, ``forget``) and a message: what became of it.  Raises `ScannerFailed`, CannotDo."""


def commands_that_teach(teach: Taught, *, octets_most: int) -> Sequence[ComponentCommand]:
    """The command ``teach`` of a filter."""

    async def run(kind: str, message: str) -> dict[str, int]:
        try:
            octets = base64.b64decode(message, validate=True)
        except (ValueError, binascii.Error) as error:
            raise CannotDo("that is no message in base64") from error
        if len(octets) > octets_most:
            raise CannotDo(f"a message of {len(octets):,} octets is not handed over: {octets_most:,} are the most")
        try:
            return {await teach(kind, Content.of(octets)): 1}
        except ScannerFailed as error:
            raise CannotDo(str(error)) from error

    arguments = (Argument("kind", "spam, ham or forget", choices=KINDS), Argument("message", "in base64"))
    return (
        ComponentCommand("teach", "what `mailserver learn` hands over", run, arguments, deadline_seconds=LEARN_SECONDS),
    )
