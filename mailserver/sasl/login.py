"""LOGIN (draft-murchison-sasl-login, never an RFC): two prompts.  Old clients know nothing else."""

from __future__ import annotations

from mailserver.sasl.exchange import Mechanism
from mailserver.sasl.plain import check_password
from mailserver.sasl.steps import Challenge

__all__ = ["login"]


def login() -> Mechanism:
    """The server's side.  The words of the prompts are fixed: clients look for them."""
    username = yield Challenge(b"Username:", is_prompt=True)
    password = yield Challenge(b"Password:")
    return (yield from check_password(b"", username, password))
