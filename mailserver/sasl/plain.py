"""PLAIN (RFC 4616): everything in one message.

    message   = [authzid] UTF8NUL authcid UTF8NUL passwd
    authcid   = 1*SAFE ; MUST accept up to 255 octets
    authzid   = 1*SAFE ; MUST accept up to 255 octets
    passwd    = 1*SAFE ; MUST accept up to 255 octets
"""

from __future__ import annotations

from mailserver.sasl.exchange import Mechanism
from mailserver.sasl.steps import Challenge, CheckPassword, Failed, Succeeded, Trouble

__all__ = ["NAME_OCTETS", "PASSWORD_OCTETS", "check_password", "plain", "text_of"]

NAME_OCTETS = 1024
PASSWORD_OCTETS = 1024


def plain() -> Mechanism:
    """The server's side."""
    message = yield Challenge(b"", is_prompt=True)
    parts = message.split(b"\0")
    if len(parts) != 3:
        return Failed(Trouble.MALFORMED)
    return (yield from check_password(*parts))


def check_password(authorization: bytes, username: bytes, password: bytes) -> Mechanism:
    """What PLAIN and LOGIN have in common: bounds, UTF-8, and the question."""
    names = text_of(authorization), text_of(username)
    word = text_of(password, PASSWORD_OCTETS)
    if names[0] is None or not names[1] or not word:
        return Failed(Trouble.MALFORMED, names[1] or "")
    account = yield CheckPassword(names[1], word, names[0])
    if account is None:
        return Failed(Trouble.CREDENTIALS, names[1], password)
    return Succeeded(account, names[0])


def text_of(octets: bytes, most: int = NAME_OCTETS) -> str | None:
    """UTF-8 without NUL, of a bounded length; None for anything else."""
    if len(octets) > most or b"\0" in octets:
        return None
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError:
        return None
