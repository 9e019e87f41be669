"""Whether the delivery of a recipient's mail is missing now.  Such a recipient is deferred at RCPT."""

from __future__ import annotations

from typing import Any

from mailserver.interfaces import IMayBeMissing
from mailserver.mail.answers import Local, Remote

__all__ = ["Absence", "absence_of"]


class Absence:
    """Asks the deliveries that serve routes whether they are there; None for one that is always."""

    def __init__(self, *, local: Any, remote: Any) -> None:
        self._local = local
        self._remote = remote

    def why(self, route: Local | Remote) -> str:
        """Why no delivery would take mail for the route now, "" where one would.  What a plugin raises passes."""
        delivery = self._local if isinstance(route, Local) else self._remote
        return "" if delivery is None else delivery.missing()


def absence_of(*, local: Any, remote: Any) -> Absence | None:
    """Of the delivery and the relay (None where there is none); None where neither can be missing."""
    if not IMayBeMissing.providedBy(local) and not IMayBeMissing.providedBy(remote):
        return None
    return Absence(
        local=local if IMayBeMissing.providedBy(local) else None,
        remote=remote if IMayBeMissing.providedBy(remote) else None,
    )
