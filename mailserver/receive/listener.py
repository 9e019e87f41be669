"""What a connection needs of its listener, which is `mailserver.receive.factory`."""

from __future__ import annotations

from typing import Any, Protocol

from mailserver.mail.envelope import Peer
from mailserver.mail.reply import Reply
from mailserver.receive.profile import Profile

__all__ = ["Listener"]


class Listener(Protocol):
    """A reload replaces `profile`.  `is_leaving`: each connection says goodbye at its next chance."""

    profile: Profile
    is_leaving: bool

    @property
    def stress(self) -> bool:
        """Connections run out: be short."""

    def opened(self, protocol: Any, address: str) -> Reply | None:
        """A connection is there: None, or the refusal to greet it with."""

    def closed(self, protocol: Any) -> None:
        """A connection is gone."""

    def connection_of(self, peer: Peer, *, via: str = "") -> Any:
        """What drives a connection, with a layer of TLS around it where the listener has implicit TLS."""
