"""What an account has in the queue, for the filters that stop its sending.  On the queue's own orders, as `quarantine` is."""

from __future__ import annotations

from collections.abc import Callable

from zope.interface import implementer

from mailserver.interfaces import IWaitingMail
from mailserver.queue.admin.changes import Verb
from mailserver.queue.admin.orders import Order, Orders
from mailserver.queue.admin.selection import Selection

__all__ = ["AccountMail"]

WAITING = ("queued", "deferred")  # what failed is owed a report, what is undecided is judged first: both go on
WILD = str.maketrans({"*": "[*]", "?": "[?]", "[": "[[]"})
WHY_CHARACTERS = 300


@implementer(IWaitingMail)
class AccountMail:
    """Lent to the component `name`, whose holds are known by their notes.  `orders` gives those of the queue."""

    def __init__(self, name: str, *, orders: Callable[[], Orders]) -> None:
        self._name = name
        self._orders = orders

    async def hold(
        self, login: str, why: str, *, since: float | None = None, before: float | None = None
    ) -> tuple[int, int]:
        """Hold what waits."""
        selection = Selection(login=_exactly(login), states=WAITING, since=since, before=before)
        return await self._done(Order(Verb.HOLD, selection, f"{self._name}: {why[:WHY_CHARACTERS]}"))

    async def release(
        self, login: str, by: str = "", *, since: float | None = None, before: float | None = None
    ) -> tuple[int, int]:
        """Let go what this component has held."""
        note = f"held by {self._name.translate(WILD)}: *"
        selection = Selection(login=_exactly(login), states=("held",), note=note, since=since, before=before)
        return await self._done(Order(Verb.RELEASE, selection, f"{self._name}: {by}" if by else self._name))

    async def _done(self, order: Order) -> tuple[int, int]:
        """Page by page: between two of them deliveries go on."""
        done, left, after = 0, 0, 0
        while True:
            page = await self._orders().carry_out(order, after=after)
            done, left = done + len(page.done), left + len(page.left)
            if page.next is None:
                return done, left
            after = page.next


def _exactly(login: str) -> str:
    """A pattern that is this name and no other."""
    if not login:
        raise ValueError("nobody's mail: the login is empty")
    return login.translate(WILD)
