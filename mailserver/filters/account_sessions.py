"""Since when connections send by their logins: one that began by a name goes on as its user's after that was renamed."""

from __future__ import annotations

import weakref
from collections import OrderedDict

from mailserver.api import Peer
from mailserver.mail.filter_notes import FilterNotes

__all__ = ["AccountSessions"]

REMEMBERED_MOST = 20_000


class AccountSessions:
    """In memory, of the latest connections; what is not remembered begins now.  In the reactor's thread."""

    def __init__(self) -> None:
        self._since: OrderedDict[int, tuple[weakref.ref[FilterNotes], str, float]] = OrderedDict()

    def since(self, peer: Peer, now: float) -> float:
        """When the connection was first asked about with this login."""
        key = id(peer.notes)  # the same object for as long as the connection lasts
        notes, login, since = self._since.get(key, (None, "", now))
        if notes is None or notes() is not peer.notes or login != peer.login:
            since = now
            self._since[key] = weakref.ref(peer.notes), peer.login, now
        self._since.move_to_end(key)
        while len(self._since) > REMEMBERED_MOST:
            self._since.popitem(last=False)
        return since
