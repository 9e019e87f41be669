"""What the commands need of the server and of its policy, which a reload replaces."""

from __future__ import annotations

from typing import Any, Protocol

from mailserver.mail.answers import Mailbox
from mailserver.mail.ids import IdSource
from mailserver.observe import Steps
from mailserver.plugins.generation import Generation
from mailserver.queue.queue import Queue
from mailserver.routing.router import Router

__all__ = ["PolicyParts", "RunningServer"]


class RunningServer(Protocol):
    """`local` and `remote` are its deliveries."""

    queue: Queue
    local: Any
    remote: Any
    steps: Steps
    ids: IdSource


class PolicyParts(Protocol):
    """`generation` is held while one of the others is asked."""

    generation: Generation
    router: Router

    @property
    def authenticator(self) -> Any: ...

    @property
    def pickup_profile(self) -> Any: ...

    async def mailbox(self, account: str) -> Mailbox | None: ...
