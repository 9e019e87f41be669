"""`Services.waiting_mail` for tests: keeps what a component has ordered."""

from __future__ import annotations

from zope.interface import implementer

from mailserver.interfaces import IWaitingMail

__all__ = ["MemoryWaitingMail"]


@implementer(IWaitingMail)
class MemoryWaitingMail:
    """`done` has each order: verb, login, and why or by whom; `spans` the `since` and `before` of each, which change
    nothing here.  `waiting` is how many messages each account has in the queue.

    `busy` is how many of them are being delivered at this moment; with `failing` set to an error, that is raised.
    """

    def __init__(self) -> None:
        self.done: list[tuple[str, str, str]] = []
        self.spans: list[tuple[float | None, float | None]] = []
        self.waiting: dict[str, int] = {}
        self.held: dict[str, int] = {}
        self.busy: dict[str, int] = {}
        self.failing: Exception | None = None

    async def hold(
        self, login: str, why: str, *, since: float | None = None, before: float | None = None
    ) -> tuple[int, int]:
        """All but those that are being delivered."""
        self._note("hold", login, why, since, before)
        busy = self.busy.get(login, 0)
        count = max(0, self.waiting.pop(login, 0) - busy)
        if busy:
            self.waiting[login] = busy
        self.held[login] = self.held.get(login, 0) + count
        return count, busy

    async def release(
        self, login: str, by: str = "", *, since: float | None = None, before: float | None = None
    ) -> tuple[int, int]:
        """All that is held."""
        self._note("release", login, by, since, before)
        return self.held.pop(login, 0), 0

    def _note(self, verb: str, login: str, words: str, since: float | None, before: float | None) -> None:
        if not login:
            raise ValueError("nobody's mail: the login is empty")
        if self.failing is not None:
            raise self.failing
        self.done.append((verb, login, words))
        self.spans.append((since, before))
