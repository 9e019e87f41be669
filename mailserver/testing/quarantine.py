"""An `IQuarantine` in memory."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from zope.interface import implementer

from mailserver.interfaces import Clock, IQuarantine
from mailserver.mail.answers import Finding
from mailserver.mail.held_copy import HeldCopy
from mailserver.testing.verbs import Calls, watched

__all__ = ["MemoryQuarantine"]

HELD_SECONDS = 30 * 86_400.0


@watched(IQuarantine)
@implementer(IQuarantine)
class MemoryQuarantine:
    """Held copies, as far as a test goes: `hold` puts one there, `done` is what was decided: verb, copy, by whom.

    `space(name)` is what the filter of this name sees, and is always the same one for one name.  The verbs in `failing` raise
    `StorageBroken` (``"*"`` stands for all of them); `calls` knows those of all spaces that nobody has awaited.
    """

    what = "quarantine"

    def __init__(self, clock: Clock, *, name: str = "", beside: MemoryQuarantine | None = None) -> None:
        self.failing: set[str] = set()
        self.name = name
        self._clock = clock
        self.calls: Calls = Calls() if beside is None else beside.calls
        self.done: list[tuple[str, str, str]] = [] if beside is None else beside.done
        self._copies: dict[str, HeldCopy] = {} if beside is None else beside._copies
        self._decided: dict[str, Callable[[str], object]] = {} if beside is None else beside._decided
        self._spaces: dict[str, MemoryQuarantine] = {} if beside is None else beside._spaces
        self._spaces.setdefault(name, self)

    def space(self, name: str) -> MemoryQuarantine:
        """What the filter of this name sees."""
        found = self._spaces.get(name)
        return MemoryQuarantine(self._clock, name=name, beside=self) if found is None else found

    def hold(
        self,
        id: str = "",
        *,
        recipient: str = "user@example.org",
        sender: str | None = "sender@example.net",
        subject: str = "test",
        author: str = "",
        held_by: Sequence[str] = (),
        findings: tuple[Finding, ...] = (),
        why: str = "held",
        decided: Callable[[str], object] | None = None,
        is_remote: bool = False,
    ) -> str:
        """Another copy; its id.  `held_by` is this space's filter where none is named.  `decided(verb)` is called at its end."""
        id = id or f"{len(self._copies) + len(self.done):016d}/0"
        now = self._clock.seconds()
        self._copies[id] = HeldCopy(
            id=id,
            message=id.partition("/")[0],
            recipient=recipient,
            destination="" if is_remote else recipient,
            sender=sender,
            author=author or sender or "",
            subject=subject,
            peer="192.0.2.25",
            login="",
            size=1000,
            since=now,
            until=now + HELD_SECONDS,
            why=why,
            held_by=tuple(held_by or (self.name,)),
            findings=findings,
        )
        if decided is not None:
            self._decided[id] = decided
        return id

    async def held(
        self, recipient: str = "", finding: str = "", sender: str = "", after: str = "", most: int = 100
    ) -> Sequence[HeldCopy]:
        """Those that this space's filter holds, or of which it has found something."""
        found = [
            one
            for id, one in sorted(self._copies.items())
            if id > after
            and (self.name in one.held_by or any(it.source == self.name for it in one.findings))
            and fits(recipient, one.recipient)
            and fits(sender, one.sender or "<>")
            and (not finding or any(fits(finding, it.name) or fits(finding, f"{it.source}/{it.name}") for it in one.findings))
        ]
        return found[:most]

    def release(self, ids: Sequence[str], by: str = "") -> Awaitable[Sequence[str]]:
        """Who else holds it goes on holding it."""
        return self._change("release", ids, by)

    def to_junk(self, ids: Sequence[str], by: str = "") -> Awaitable[Sequence[str]]:
        """They are gone."""
        return self._change("to_junk", ids, by)

    def drop(self, ids: Sequence[str], by: str = "") -> Awaitable[Sequence[str]]:
        """They are gone."""
        return self._change("drop", ids, by)

    async def _change(self, verb: str, ids: Sequence[str], by: str) -> Sequence[str]:
        done: list[str] = []
        for id in ids:
            meant = [one for one in self._copies.values() if id in (one.id, one.message) and self.name in one.held_by]
            if verb == "to_junk":
                meant = [one for one in meant if one.destination]
            for one in meant:
                self.done.append((verb, one.id, by))
                left = tuple([name for name in one.held_by if name != self.name]) if verb == "release" else ()
                if left:
                    self._copies[one.id] = replace(one, held_by=left)
                    continue
                del self._copies[one.id]
                decided = self._decided.pop(one.id, None)
                if decided is not None:
                    decided(verb)
            if meant:
                done.append(id)
        return done


def fits(pattern: str, name: str) -> bool:
    """The name fits the pattern; "" is any."""
    return not pattern or fnmatchcase(name.lower(), pattern.lower())
