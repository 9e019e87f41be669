"""What verdicts hold, for the filters that look after it.  On the queue's own orders: there is no other way to change a copy."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from zope.interface import implementer

from mailserver.interfaces import IQuarantine
from mailserver.mail.held_copy import HeldCopy
from mailserver.queue.admin.changes import Verb
from mailserver.queue.admin.held import copy_selection
from mailserver.queue.admin.orders import Order, Orders
from mailserver.queue.admin.selection import Selection

__all__ = ["FilterHolds"]

HELD_MOST = 1000  # of one answer


@implementer(IQuarantine)
class FilterHolds:
    """The copies that the filter `name` holds.  `orders` gives those of the queue, which need not be there yet."""

    def __init__(self, name: str, *, orders: Callable[[], Orders]) -> None:
        self._name = name
        self._orders = orders

    async def held(
        self, recipient: str = "", finding: str = "", sender: str = "", after: str = "", most: int = 100
    ) -> Sequence[HeldCopy]:
        """Those that the filter holds, or of which it has found something."""
        most = max(1, min(most, HELD_MOST))
        selection = Selection(recipient=recipient, sender=sender, finding=finding, held=True, known=(self._name,))
        found: list[HeldCopy] = []
        further: str | None = after
        while further is not None and len(found) < most:
            more, further = await self._orders().held(selection, further, most - len(found))
            found += more
        return found

    async def release(self, ids: Sequence[str], by: str = "") -> Sequence[str]:
        """The filter's hold is taken away."""
        return await self._done(Verb.LET_THROUGH, ids, by)

    async def to_junk(self, ids: Sequence[str], by: str = "") -> Sequence[str]:
        """They are delivered into the Junk folder."""
        return await self._done(Verb.JUNK, ids, by)

    async def drop(self, ids: Sequence[str], by: str = "") -> Sequence[str]:
        """They are thrown away."""
        return await self._done(Verb.DROP, ids, by)

    async def _done(self, verb: Verb, ids: Sequence[str], by: str) -> list[str]:
        selections = [(id, copy_selection(id, holders=(self._name,))) for id in dict.fromkeys(ids)]
        done: list[str] = []
        for id, selection in selections:
            order = Order(verb, selection, f"{self._name}: {by}" if by else self._name, holders=frozenset({self._name}))
            page = await self._orders().carry_out(order, after=0)
            if page.done:
                done.append(id)
        return done
