"""Which parts serve a transaction that a reload overtakes.

A reload brings a new directory, new filters, a new authenticator.  What has begun with the old ones (a transaction, an
exchange of AUTH, a filter's look at a peer) ends with them; whatever begins after that takes the new ones, on open connections,
too.  So a part is stopped when nobody uses it any more, and nobody hears 451 for a reload.
"""

from __future__ import annotations

from types import TracebackType

from twisted.internet.defer import Deferred, succeed

__all__ = ["Generation"]


class Generation:
    """The parts that one configuration has brought, and how much is under way that began with them (`uses`).

    `begin` and `end` go together, or ``with generation:``.
    """

    __slots__ = ("_unused", "uses")

    def __init__(self) -> None:
        self.uses = 0
        self._unused: Deferred[None] | None = None

    def begin(self) -> None:
        """Something begins that needs them until its end."""
        self.uses += 1

    def end(self) -> None:
        """It has ended.  Raises ValueError where nothing had begun."""
        if self.uses < 1:
            raise ValueError("more ends than beginnings")
        self.uses -= 1
        if not self.uses and self._unused is not None:
            unused, self._unused = self._unused, None
            unused.callback(None)

    def unused(self) -> Deferred[None]:
        """Fires when nothing uses them; to be asked once, when nothing new begins with them any more.

        Nothing new begins: whoever takes the parts of the policy in force calls `begin` in the same turn of the reactor, and this
        is asked in the turn in which another policy has come into force.  So `uses` only falls from here on, and 0 is the end.
        """
        if not self.uses:
            return succeed(None)
        self._unused = Deferred(self._forget)
        return self._unused

    def _forget(self, _: object) -> None:
        """Who has asked waits no longer: the last `end` finds nobody to tell."""
        self._unused = None

    def __enter__(self) -> None:
        self.begin()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.end()
