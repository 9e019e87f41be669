"""What ``mailserver selftest`` asks for: a log-in that works once, and a probe through the relay to this server's own port 25."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twisted.internet.defer import TimeoutError as Late

from mailserver.config.endpoints import reached_at
from mailserver.control.parts import ListenerFigures, PolicyParts, RunningServer
from mailserver.control.route import parsed_address
from mailserver.control.server import CommandRefused
from mailserver.interfaces import Candidate, CannotTell
from mailserver.mail.address import Address, AddressError, normal_name
from mailserver.mail.answers import Delivered, Local, Remote
from mailserver.mail.content import Content
from mailserver.mail.envelope import Envelope, MailParameters, Peer, Recipient, RecipientParameters
from mailserver.mail.parcel import Destination
from mailserver.plugins.awaiting import later, within

__all__ = ["SelftestCommands"]

MESSAGE_OCTETS_MOST = 4_096
SECONDS, SECONDS_MOST = 60.0, 600.0
NO_REPORTS = RecipientParameters(notify=frozenset({"NEVER"}))


class SelftestCommands:
    """``selftest.login`` and ``selftest.relay``.  Each is for an account of its own only, which is nobody's."""

    def __init__(
        self, server: RunningServer, policy: Callable[[], PolicyParts], listeners: Callable[[], Sequence[ListenerFigures]]
    ) -> None:
        self._server = server
        self._policy = policy
        self._listeners = listeners

    def commands(self) -> Mapping[str, Any]:
        """Name and function."""
        return {"selftest.login": self.login, "selftest.relay": self.relay}

    async def login(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """`address`, `peer` (the numeric address from which it will come): the `secret`, good for one log-in and a minute."""
        address = await self._account(arguments)
        return {"secret": self._server.logins.one_time.give(normal_name(address), str(arguments.get("peer", "")))}

    async def relay(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """`address`, `message`, `endpoint` (of an mx listener of this server), `seconds`: `outcome`, `note` and `skipped`.

        The message goes over the relay's pool as any other, but to this server; `skipped` says why it cannot.
        """
        address, server = await self._account(arguments), self._server
        message, endpoint = str(arguments.get("message", "")), str(arguments.get("endpoint", ""))
        is_own = any((one.service, one.endpoint) == ("mx", endpoint) for one in self._listeners())
        place = reached_at(endpoint) if is_own else None
        if place is None or not place[1] or not message.isascii() or len(message) > MESSAGE_OCTETS_MOST:
            raise CommandRefused("no probe of this server's can go there")
        if server.relay is None:
            return {"skipped": "nothing is relayed here"}
        if not server.relay.takes_hosts:
            return {"skipped": "the relay sends to its smarthost alone"}
        id = server.ids.next()
        envelope = Envelope(
            id, Peer("127.0.0.1", 0, "report", ""), address, (Recipient(address, NO_REPORTS),), server.reactor.seconds(),
            MailParameters(),
        )  # fmt: skip
        content = await server.signed(envelope, Content.of(message.encode("ascii")))
        if content is None:
            return {"id": id, "outcome": "delayed", "note": "it cannot be signed now"}
        to = (Destination(0, envelope.recipients[0], Remote(address)),)
        seconds = min(max(1.0, float(arguments.get("seconds") or SECONDS)), SECONDS_MOST)
        try:
            with server.relay.connections.to_itself(*place):
                sending = later(server.relay.deliver_to([Candidate(place[0], (place[0],), place[1], 0)], envelope, content, to))
                outcomes = await within(seconds, sending, server.reactor)
        except Late:
            return {"id": id, "outcome": "delayed", "note": f"the relay has not done it within {seconds:g} seconds"}
        outcome: Any = outcomes.get(0)
        if isinstance(outcome, Delivered):
            return {"id": id, "outcome": "delivered", "note": outcome.note}
        note = "the relay has stumbled" if outcome is None else f"{outcome.reply} ({outcome.note})"
        return {"id": id, "outcome": "failed", "note": note}

    async def _account(self, arguments: dict[str, Any]) -> Address:
        """An account that receives into a mailbox of its own, and belongs to no user of the host.  Raises `CommandRefused`."""
        address, policy = parsed_address(str(arguments.get("address", ""))), self._policy()
        try:
            with policy.generation:
                routes, hops = await policy.router.explain(address)
        except (AddressError, CannotTell) as error:
            raise CommandRefused(f"{address}: {error}") from error
        is_account = [hop.how for hop in hops] == ["account"] and len(routes) == 1
        if not is_account or not isinstance(routes[0], Local) or routes[0].mailbox.system:
            raise CommandRefused(f"{address} is no account of its own")
        return address
