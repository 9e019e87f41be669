"""The commands about waiting mail: list, show, select, change (retry, hold, release, redirect, drop …)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from twisted.logger import Logger

from mailserver.control.parts import PolicyParts, RunningServer
from mailserver.control.route import parsed_address, usable_routes
from mailserver.control.server import CommandRefused
from mailserver.interfaces import CannotTell, IDestinations, IForgiving
from mailserver.mail.address import AddressError
from mailserver.mail.answers import Local, Remote
from mailserver.mail.faults import StorageFault
from mailserver.queue.admin.changes import Verb
from mailserver.queue.admin.orders import Order, Page
from mailserver.queue.admin.selection import Selection, SelectionError

__all__ = ["QueueCommands", "page_as_json"]

PAGE_MOST = 1000
HELD_MOST = 100  # copies with all that was found


class QueueCommands:
    """``queue.list``, `show`, `select`, `change`, `destinations`; ``quarantine.list``.  `policy` gives the one in force."""

    log = Logger()

    def __init__(self, server: RunningServer, policy: Callable[[], PolicyParts]) -> None:
        self._server = server
        self._policy = policy

    def commands(self) -> Mapping[str, Any]:
        """Name and function."""
        return {
            "queue.list": self.list,
            "queue.show": self.show,
            "queue.select": self.select,
            "queue.change": self.change,
            "queue.destinations": self.destinations,
            "quarantine.list": self.held,
        }

    async def list(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """`after` (an id), `limit`: the next `entries`, the oldest first, and the queue's `depth`."""
        queue = self._server.queue
        after, limit = str(arguments.get("after", "")), int(arguments.get("limit", PAGE_MOST))
        return {"entries": [asdict(entry) for entry in await queue.list(after, limit)], "depth": queue.depth}

    async def show(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """`id`: its `entry`, None where the queue has no such message."""
        entry = await self._server.queue.show(str(arguments.get("id", "")))
        return {"entry": None if entry is None else asdict(entry)}

    async def select(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """`selection`, `after` (a number), `limit`: the entries that are meant, and where to go on."""
        limit = max(1, min(int(arguments.get("limit", PAGE_MOST)), PAGE_MOST))
        found, next = await self._server.queue.verbs.select(
            _selection(arguments), int(arguments.get("after", 0)), limit
        )
        return {"entries": [asdict(entry) for entry in found], "next": next, "depth": self._server.queue.depth}

    async def destinations(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """`limit`: how mail goes to each host or operator, those for which most waits first (`destinations`)."""
        remote: Any = self._server.remote
        if not IDestinations.providedBy(remote):
            raise CommandRefused("no mail goes to other hosts" if remote is None else "its delivery does not tell")
        limit = max(1, min(int(arguments.get("limit", PAGE_MOST)), PAGE_MOST))
        try:
            found = remote.destinations(limit)
        except CannotTell as error:
            raise CommandRefused(str(error)) from error
        return {"destinations": [asdict(one) for one in found]}

    async def held(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """`selection`, `after` (a copy), `limit`: the copies that verdicts hold and that are meant, and where to go on."""
        limit = max(1, min(int(arguments.get("limit", HELD_MOST)), HELD_MOST))
        try:
            found, next = await self._server.queue.verbs.held(_selection(arguments), str(arguments.get("after", "")), limit)
        except ValueError as error:
            raise CommandRefused(str(error)) from error
        return {"copies": [asdict(one) for one in found], "next": next}

    async def change(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """`verb`, `selection`, `after`, `by`, `to`, `dry_run`: one page is done; where to go on."""
        try:
            verb = Verb(str(arguments.get("verb")))
        except ValueError as error:
            raise CommandRefused(str(error)) from error
        to, routes = str(arguments.get("to", "")), tuple[Local | Remote, ...]()
        if verb is Verb.REDIRECT:
            address = parsed_address(to)
            policy = self._policy()
            with policy.generation:
                try:
                    found = await policy.router.route(address)
                except (AddressError, CannotTell) as error:
                    raise CommandRefused(f"{address}: {error}") from error
            routes = usable_routes(address, found, self._server.remote is not None)
        order = Order(verb, _selection(arguments), str(arguments.get("by", "")), to, routes)
        after, dry_run = int(arguments.get("after", 0)), bool(arguments.get("dry_run"))
        if verb is Verb.RETRY and not after and not dry_run:
            for delivery in (self._server.local, self._server.remote):
                if IForgiving.providedBy(delivery):
                    try:
                        delivery.forgive()
                    except CannotTell as error:  # the mail is tried all the same
                        self.log.error("what was out of reach is not forgotten: {error}", error=error)
        try:
            page = await self._server.queue.verbs.carry_out(order, after=after, dry_run=dry_run)
        except StorageFault as error:
            raise CommandRefused(f"the store of the queue cannot be written: {error}") from error
        return page_as_json(page) | {"depth": self._server.queue.depth}


def page_as_json(page: Page) -> dict[str, Any]:
    """For the control socket."""
    return {
        "done": [{"id": id, "recipients": list(recipients)} for id, recipients in page.done],
        "left": [{"id": id, "why": why} for id, why in page.left],
        "scanned": page.scanned,
        "next": page.next,
    }


def _selection(arguments: Mapping[str, Any]) -> Selection:
    try:
        return Selection.from_json(arguments.get("selection") or {})
    except SelectionError as error:
        raise CommandRefused(str(error)) from error
