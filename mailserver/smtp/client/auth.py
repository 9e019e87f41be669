"""AUTH (RFC 4954) from the client's side: the lines around a SASL exchange, whose content is the caller's."""

from __future__ import annotations

import base64
import binascii
from typing import Protocol

from mailserver.mail.reply import Reply

__all__ = ["AuthTalk", "AuthExchange"]

COMMAND_OCTETS = 512  # RFC 4954 section 4: with an initial response that does not fit, it is sent after the 334
RESPONSE_OCTETS = 12288


class AuthExchange(Protocol):
    """One mechanism's part, as `mailserver.sasl.client` has it."""

    @property
    def mechanism(self) -> str: ...

    def first(self) -> bytes | None:
        """The initial response; None where the peer speaks first."""

    def respond(self, challenge: bytes) -> bytes:
        """Raises ValueError where the peer cannot be believed, or asks for what there is not."""

    @property
    def is_complete(self) -> bool:
        """A success may be believed."""


class AuthTalk:
    """One login.  `doubt` is why we have broken it off, "" where we have not."""

    def __init__(self, exchange: AuthExchange) -> None:
        self.doubt = ""
        self._exchange = exchange
        self._first = exchange.first()

    @property
    def is_complete(self) -> bool:
        """A 235 may be believed."""
        return self._exchange.is_complete and self._first is None

    def command(self) -> bytes:
        """AUTH, with the initial response where it fits."""
        line = f"AUTH {self._exchange.mechanism}".encode("ascii")
        if self._first is None:
            return line + b"\r\n"
        whole = line + b" " + (base64.b64encode(self._first) or b"=") + b"\r\n"
        if len(whole) > COMMAND_OCTETS:
            return line + b"\r\n"
        self._first = None
        return whole

    def answer(self, reply: Reply) -> bytes:
        """What follows a 334; ``*`` where we break off."""
        try:
            challenge = base64.b64decode(reply.lines[0], validate=True)
            if self._first is not None:
                response, self._first = self._first, None
            else:
                response = self._exchange.respond(challenge)
            line = base64.b64encode(response) + b"\r\n"
            if len(line) > RESPONSE_OCTETS:
                raise ValueError("a response is too long")
        except binascii.Error:
            self.doubt = "a challenge is not Base64"
        except ValueError as error:
            self.doubt = str(error)
        else:
            return line
        return b"*\r\n"
