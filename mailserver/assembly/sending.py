"""Messages of components, on their way into the queue (`Services.send`).

Such a message is routed and signed as a report to a sender is, and judged by nobody.  It is there when its id is returned.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.internet.defer import TimeoutError as Late
from twisted.logger import Logger

from mailserver.interfaces import CannotTell, Clock, RunInThread, Send
from mailserver.mail.address import Address, AddressError
from mailserver.mail.answers import Local, Remote, Route
from mailserver.mail.completion import completion
from mailserver.mail.content import Content
from mailserver.mail.envelope import Envelope, MailParameters, Peer, Recipient, RecipientParameters
from mailserver.mail.faults import StorageFault, StorageFull
from mailserver.mail.long_lines import short_lines
from mailserver.mail.parcel import Destination
from mailserver.plugins.awaiting import all_of, later, within

__all__ = ["OwnMail", "checked_addresses", "checked_message"]

OCTETS_MOST = 10 << 20
RECIPIENTS_MOST = 100
LINE_OCTETS_MOST = 998  # RFC 5322 section 2.1.1
LINE_END = re.compile(rb"\r?\n")
AT_ONCE = 10  # messages of one component on their way
WAITING_MOST = 1_000
WHOLE_SECONDS = 120.0
NO_REPORTS = RecipientParameters(notify=frozenset({"NEVER"}))


class OwnMail:
    """Takes messages of components.

    `route(address)` says where one leads, `relays` whether there is anything that takes mail to other hosts.
    `sign(envelope, content)` returns the message with the signers' fields, None where one cannot sign now.  `commit` and
    `has_room(octets)` are the queue's; `next_id()` makes message ids, `note` records steps, `run_in_thread` calls what
    takes time.
    """

    log = Logger()

    def __init__(
        self,
        *,
        hostname: str,
        clock: Clock,
        route: Callable[[Address], Awaitable[Sequence[Route]]],
        relays: bool,
        sign: Callable[[Envelope, Content], Awaitable[Content | None]],
        commit: Callable[[Envelope, Content, tuple[Destination, ...]], Awaitable[None]],
        has_room: Callable[[int], bool],
        next_id: Callable[[], str],
        note: Callable[..., None],
        run_in_thread: RunInThread,
    ) -> None:
        self._run_in_thread = run_in_thread
        self._hostname = hostname
        self._clock = clock
        self._route = route
        self._relays = relays
        self._sign = sign
        self._commit = commit
        self._has_room = has_room
        self._next_id = next_id
        self._note = note

    def lend(self, name: str) -> Send:
        """`Services.send` of the component of this name, with turns of its own."""
        turns = DeferredSemaphore(AT_ONCE)

        async def send(
            content: bytes, /, *, sender: Address | None, recipients: Sequence[Address], reports: bool = True
        ) -> str:
            checked = checked_message(content), checked_addresses(recipients)
            if not (sender is None or isinstance(sender, Address)):
                raise TypeError(f"the sender is an Address or None, not {type(sender).__name__}")
            if len(turns.waiting) >= WAITING_MOST:
                raise CannotTell(f"{WAITING_MOST} messages of {name} wait already")
            waits = not turns.tokens
            await turns.acquire()
            try:
                if waits:  # else a thousand of them that fail at once would be called inside each other
                    turn: Deferred[None] = Deferred()
                    self._clock.callLater(0, turn.callback, None)
                    await turn
                sending = Deferred.fromCoroutine(self._sent(name, sender, reports, *checked))
                return await within(WHOLE_SECONDS, sending, self._clock)
            except Late:  # nobody knows whether it was committed
                raise CannotTell(f"the message was not taken within {WHOLE_SECONDS:g} seconds") from None
            finally:
                turns.release()

        return send

    async def _sent(
        self, name: str, sender: Address | None, reports: bool, octets: bytes, recipients: Sequence[Address]
    ) -> str:
        if not self._has_room(len(octets)):
            raise StorageFull("there is no room for it")
        id, now = self._next_id(), self._clock.seconds()
        content = Content.of(octets)
        if not octets.isascii():  # no host on its way shall have to encode what is signed
            content = await self._run_in_thread(functools.partial(short_lines, content, seven_bit=True))
        parameters = MailParameters(body="7BIT" if (content.data or b"").isascii() else "8BITMIME")
        to = tuple([Recipient(one) if reports else Recipient(one, NO_REPORTS) for one in recipients])
        envelope = Envelope(id, Peer("127.0.0.1", 0, "report", self._hostname), sender, to, now, parameters)
        destinations = await self._destinations(id, to)
        missing = completion(content, id=id, hostname=self._hostname, seconds=now, author=None, smtputf8=False)
        signed = await self._sign(envelope, content.with_prefix(missing) if missing else content)
        if signed is None:
            raise CannotTell("it cannot be signed now")
        await self._commit(envelope, signed, destinations)
        try:
            self._tell(name, envelope, signed)
        except Exception:  # noqa: BLE001  it is in the queue: whoever sent it may not send it again
            self.log.failure("{id} was taken, but what follows has failed", id=id)
        return id

    async def _destinations(self, id: str, to: Sequence[Recipient]) -> tuple[Destination, ...]:
        """Where it goes.  A recipient who leads nowhere keeps none of the others from getting it."""
        ways = await all_of([Deferred.fromCoroutine(self._routes(one.address)) for one in to])
        good: list[Destination] = []
        bad: list[str] = []
        for recipient, routes in zip(to, ways, strict=True):
            for route in routes:
                if isinstance(route, Local) or (isinstance(route, Remote) and self._relays):
                    good.append(Destination(len(good), recipient, route))
                else:
                    bad.append(f"{recipient.address}: {getattr(route, 'why', 'nothing is sent to other hosts')}")
        if not good:
            raise ValueError("; ".join(bad) or "there is no route")
        if bad:
            self.log.warn("{id} does not go to all: {why}", id=id, why=bad)
        return tuple(good)

    async def _routes(self, address: Address) -> Sequence[Route]:
        try:
            return await later(self._route(address))
        except AddressError as error:
            raise ValueError(str(error)) from error
        except (CannotTell, StorageFault):
            raise
        except Exception as error:  # a directory is anybody's plugin: whatever it raises means "cannot tell"
            raise CannotTell(f"{address}: {type(error).__name__}: {error}") from error

    def _tell(self, name: str, envelope: Envelope, content: Content) -> None:
        sender = "" if envelope.sender is None else str(envelope.sender)
        to = [str(one.address) for one in envelope.recipients]
        self._note(envelope.id, "accepted", sender=sender, recipients=to, size=content.size, about=name)


def checked_message(content: Any) -> bytes:
    """The message as it goes over the wire.  Raises TypeError or ValueError for what is none."""
    if not isinstance(content, bytes):
        raise TypeError(f"a message is bytes, not {type(content).__name__}")
    if len(content) > OCTETS_MOST:
        raise ValueError(f"a message of a component has {OCTETS_MOST} octets at most")
    lines = LINE_END.split(content)
    if any(len(line) > LINE_OCTETS_MOST or b"\r" in line or b"\0" in line for line in lines):
        raise ValueError(f"a line has {LINE_OCTETS_MOST} octets at most, and neither CR nor NUL")
    octets = b"\r\n".join(lines)
    headers = Content.of(octets).headers
    if "From" not in headers:
        raise ValueError("a message has a From field")
    if not octets.partition(b"\r\n\r\n")[0].isascii():
        raise ValueError("the header section is ASCII")
    return octets if octets.endswith(b"\r\n") else octets + b"\r\n"


def checked_addresses(recipients: Sequence[Any]) -> tuple[Address, ...]:
    found = tuple(recipients)
    if not all(isinstance(one, Address) for one in found):
        raise TypeError("recipients are Addresses")
    if not 0 < len(found) <= RECIPIENTS_MOST:
        raise ValueError(f"a message has 1 to {RECIPIENTS_MOST} recipients")
    return tuple(dict.fromkeys(found))
