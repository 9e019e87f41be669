"""Keys of this installation that nobody chooses: made once, and kept in the state store."""

from __future__ import annotations

import secrets

from mailserver.interfaces import IStateStore

__all__ = ["kept_secret"]

KEPT_SECONDS = 3650 * 86_400.0
OCTETS = 32


async def kept_secret(state: IStateStore, name: str) -> bytes:
    """The secret of this name, the same over restarts.  Whoever asks while it is made gets the same one."""
    secret = await state.get(name)
    while secret is None:
        made = secrets.token_bytes(OCTETS)
        secret = made if await state.put_if_absent(name, made, KEPT_SECONDS) else await state.get(name)
    return secret
