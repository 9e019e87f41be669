"""What is known of networks and domains, and which message came from where, in the state store."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from mailserver.api import Clock, IStateStore
from mailserver.trust.reputation import Repute, read_repute

__all__ = ["MailOrigin", "ReputationBook"]

MESSAGE_SECONDS = 45 * 86_400.0  # how long it is known from where a message came
HALF_LIVES = 10  # then nothing is left
TRIES = 20
ORIGINS_MOST = 8


@dataclass(frozen=True, slots=True)
class MailOrigin:
    """A network (``192.0.2.0/24``) or a domain (``example.net``, A-labels) that mail has come from."""

    kind: Literal["network", "domain"]
    name: str

    @property
    def key(self) -> str:
        """In the store."""
        return f"{self.kind} {self.name}"


class ReputationBook:
    """Each change is atomic, however many messages of one origin end at once.  Raises `StorageFault` where the store does."""

    def __init__(self, state: IStateStore, *, clock: Clock, half_life: float) -> None:
        self._state = state
        self._clock = clock
        self._half_life = half_life

    async def standing(self, origin: MailOrigin) -> Repute:
        """What is thought of it now."""
        now = self._clock.seconds()
        return read_repute(await self._state.get(origin.key), now).now(now, self._half_life)

    async def count(self, origin: MailOrigin, *, bad: float = 0.0, good: float = 0.0) -> None:
        """Something came of its mail."""
        for _ in range(TRIES):
            kept = await self._state.get(origin.key)
            now = self._clock.seconds()
            standing = read_repute(kept, now).after(now, self._half_life, bad=bad, good=good)
            new = standing.octets() if standing.seen else None
            if await self._state.compare_and_put(origin.key, kept, new, HALF_LIVES * self._half_life):
                return

    async def forget(self, origin: MailOrigin) -> bool:
        """Whether anything was known of it."""
        return await self._state.take(origin.key) is not None

    async def remember(self, id: str, origins: Sequence[MailOrigin]) -> None:
        """A message came from there: it may be learnt of it later what it was."""
        await self._state.put(f"message {id}", _message(origins[:ORIGINS_MOST], ""), MESSAGE_SECONDS)

    async def learnt_of(self, id: str, kind: str) -> tuple[list[MailOrigin], str]:
        """Somebody has learnt that a message was of this kind.  From where it came, and what it was held for until then.

        Whoever says the same again, of the same message, finds it said already.  Nothing where the message is not remembered.
        """
        for _ in range(TRIES):
            kept = await self._state.get(f"message {id}")
            try:
                rows, was = json.loads(kept or b"[[], null]")
                origins = [MailOrigin(of, str(name)) for of, name in rows if of in ("network", "domain")]
            except (ValueError, TypeError):
                return [], kind
            if not origins or was == kind:
                return [], kind
            if await self._state.compare_and_put(f"message {id}", kept, _message(origins, kind), MESSAGE_SECONDS):
                return origins, str(was)
        return [], kind

    async def learnt_to(self, of: str) -> int:
        """The last one of what the filter of this name has learnt that has been counted."""
        try:
            return int(await self._state.get(f"learnt {of}") or b"0")
        except ValueError:
            return 0

    async def put_learnt_to(self, of: str, number: int) -> None:
        """It is counted up to here."""
        await self._state.put(f"learnt {of}", str(number).encode(), 10 * 365 * 86_400.0)


def _message(origins: Sequence[MailOrigin], kind: str) -> bytes:
    return json.dumps([[[one.kind, one.name] for one in origins], kind]).encode()
