"""A pickup folder in a test: real files, virtual time, no threads."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from mailserver.pickup.file_format import pickup_name
from mailserver.pickup.folder import PickupFolder
from mailserver.pickup.handover import PickupParts
from mailserver.pickup.pickup import Pickup
from tests.receive.connections import Listener

BODY = b"Subject: x\r\n\r\nhello\r\n"
EXPIRE_SECONDS = 6 * 3600.0


class PickupCase(SynchronousTestCase):
    """`in_thread` is true while work of a thread runs; `before_work(function, arguments)` is called before it."""

    def setUp(self) -> None:
        self.in_thread = False
        self.before_work: Callable[..., None] = lambda function, arguments: None
        self.path = Path(self.mktemp()).resolve()
        self.folder = PickupFolder(str(self.path), "owner")
        self.folder.make()
        self.stored: set[str] = set()
        self.clock_set_at = 0.0

    def pickup(self, **options: Any) -> tuple[Pickup, Listener]:
        listener = Listener(self.mktemp(), service="submission", **options)
        self.addCleanup(listener.factory._stop_checking)
        parts = PickupParts(
            folder=self.folder,
            clock=listener.clock,
            run_in_thread=self.run_in_thread,
            profile=lambda: listener.profile,
            next_id=lambda: self.next_id(listener),
            is_stored=lambda id: succeed(id in self.stored),
            user_of=lambda uid: succeed(f"user{uid}"),
            expire_seconds=EXPIRE_SECONDS,
            clock_set_at=lambda: self.clock_set_at,
        )
        return Pickup(parts), listener

    def run_in_thread(self, function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        self.before_work(function, arguments)
        self.in_thread = True
        try:
            return maybeDeferred(function, *arguments)
        finally:
            self.in_thread = False

    def stop(self, pickup: Pickup) -> None:
        """As a server does that ends."""
        self.successResultOf(Deferred.fromCoroutine(pickup.stop()))

    def started(self, **options: Any) -> tuple[Pickup, Listener]:
        pickup, listener = self.pickup(**options)
        self.successResultOf(Deferred.fromCoroutine(pickup.start()))
        self.addCleanup(lambda: self.successResultOf(Deferred.fromCoroutine(pickup.stop())))
        return pickup, listener

    def put(self, *recipients: str, sender: str = "alice@example.org", body: bytes = BODY, number: int = 1) -> None:
        names = ", ".join(f'"{one}"' for one in recipients)
        line = f'{{"version": 1, "sender": "{sender}", "recipients": [{names}]}}\n'.encode()
        (self.path / pickup_name(number, os.urandom(16))).write_bytes(line + body)

    def next_id(self, listener: Listener) -> str:
        self.assertFalse(self.in_thread, "ids are made in the reactor's thread alone")
        return listener.profile.ids.next()

    def take(self, listener: Listener) -> str:
        """Take the only file, as a server does that then dies."""
        (found,) = self.folder.listing().files
        next_id = listener.profile.ids.next
        ((name,), _) = self.folder.take([(found.name, f"{next_id()}.{next_id()}")])
        return name

    def files(self) -> list[str]:
        found = [str(path.relative_to(self.path)) for path in self.path.rglob("*")]
        return sorted(set(found) - {"bad", "taken"})
