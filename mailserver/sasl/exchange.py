"""One exchange, from the server's side: responses in, steps out (RFC 4422 section 3).

A mechanism is a generator: it yields a challenge or a question and is sent the response or the answer, and returns how it ended.
So each mechanism reads from top to bottom like its RFC, and what may come next is what stands on the next line.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from mailserver.sasl.faults import LocalSASLError
from mailserver.sasl.steps import Challenge, Failed, Question, Step, Succeeded, Trouble

__all__ = ["RESPONSE_OCTETS", "Exchange", "Mechanism"]

RESPONSE_OCTETS = 12_288  # RFC 4954 section 4.3: the longest line, base64 and all

Mechanism = Generator[Challenge | Question, Any, Succeeded | Failed]


class Exchange:
    """Drives a mechanism."""

    __slots__ = ("_mechanism", "_open", "_over", "_started")

    def __init__(self, mechanism: Mechanism) -> None:
        self._mechanism = mechanism
        self._started = False
        self._open: Challenge | Question | None = None
        self._over = False

    def respond(self, data: bytes | None) -> Step:
        """Feed the client's response, None for "no initial response".  Raises `LocalSASLError` where a question is open."""
        if self._over or (self._open is not None and not isinstance(self._open, Challenge)):
            raise LocalSASLError("no response is awaited")
        if data is not None and len(data) > RESPONSE_OCTETS:
            return self._end(Failed(Trouble.MALFORMED))
        if not self._started:
            self._started = True
            first = self._go(None)  # to the first challenge
            if data is None:
                return first
            if not isinstance(first, Challenge) or not first.is_prompt:
                return self._end(Failed(Trouble.MALFORMED))  # RFC 4954 section 4: here the server speaks first
        elif data is None:
            raise LocalSASLError("only the first response may be absent")
        return self._go(data)

    def answer(self, value: Any) -> Step:
        """Answer the open question.  Raises `LocalSASLError` where none is open."""
        if self._open is None or isinstance(self._open, Challenge):
            raise LocalSASLError("no question is open")
        return self._go(value)

    def _go(self, value: Any) -> Step:
        try:
            step = self._mechanism.send(value)
        except StopIteration as stop:
            ended: Succeeded | Failed = stop.value
            return self._end(ended)
        self._open = step
        return step

    def _end(self, step: Succeeded | Failed) -> Step:
        self._over = True
        self._open = None
        self._mechanism.close()
        return step
