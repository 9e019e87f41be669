"""The web process's own log: lines as the server's, on the standard output of its unit; else into a pipe to the server."""

from __future__ import annotations

import json
import os
import select
import time
from collections.abc import Mapping
from typing import Any

from twisted.logger import ILogObserver, LogLevel, formatEvent
from zope.interface import implementer

from mailserver.observe.lines import Stamps, encode_fields, json_event, json_step, text_event, text_step

__all__ = ["WebLog"]

LINES_PER_SECOND = 200
TEXT_CHARACTERS, VALUE_CHARACTERS = 1500, 300  # of a line to the server
WRITTEN = (LogLevel.warn, LogLevel.error, LogLevel.critical)


@implementer(ILogObserver)
class WebLog:
    """Writes lines of text, or of JSON; what comes faster than anybody reads is left out, and counted."""

    def __init__(self, descriptor: int = 1) -> None:
        self.is_json = False
        self._is_relayed = False
        self._descriptor = descriptor
        self._stamps = Stamps()
        self._second = 0
        self._written = self._left_out = 0

    def relay(self, descriptor: int) -> None:
        """Write to the server from now on, which makes lines of its own of it.  What the pipe does not take is left out."""
        os.set_blocking(descriptor, False)
        self._descriptor, self._is_relayed = descriptor, True

    def step(self, step: str, **fields: Any) -> None:
        """Something of a request."""
        self._line(lambda stamp: self._of_step(stamp, step, fields))

    def __call__(self, event: Any) -> None:
        """An event of Twisted's: warnings and failures."""
        level = event.get("log_level")
        if level in WRITTEN:
            failure = event.get("log_failure")
            traceback = failure.getTraceback() if failure is not None else ""
            if self._is_relayed:
                text = f"{formatEvent(event)}\n{traceback}"[:TEXT_CHARACTERS]
                self._line(lambda stamp: _relayed({"text": text}))
                return
            words = (level.name, str(event.get("log_namespace", "")), formatEvent(event), traceback)
            self._line(lambda stamp: (json_event if self.is_json else text_event)(stamp, *words))

    def _of_step(self, stamp: str, step: str, fields: Mapping[str, Any]) -> str:
        if self._is_relayed:
            cut = {name: value[:VALUE_CHARACTERS] if isinstance(value, str) else value for name, value in fields.items()}
            return _relayed({"step": step} | cut)
        encoded, fields = encode_fields(fields)
        return json_step(stamp, "web", step, encoded) if self.is_json else text_step(stamp, "web", step, fields)

    def _line(self, made: Any) -> None:
        now = time.time()
        if int(now) != self._second:
            left_out, self._second, self._written, self._left_out = self._left_out, int(now), 0, 0
            if left_out:
                self._write(self._of_step(self._stamps(now), "dropped", {"lines": left_out}))
        if self._written >= LINES_PER_SECOND:
            self._left_out += 1
            return
        self._written += 1
        self._write(made(self._stamps(now)))

    def _write(self, line: str) -> None:
        octets = line.encode("utf-8", "replace")
        if self._is_relayed and len(octets) > select.PIPE_BUF:  # only so much goes whole or not at all
            self._left_out += 1
            return
        try:
            os.write(self._descriptor, octets)
        except OSError:
            self._left_out += 1  # requests are answered all the same


def _relayed(members: Mapping[str, Any]) -> str:
    return json.dumps(members, ensure_ascii=False) + "\n"
