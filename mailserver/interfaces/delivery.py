"""Where a recipient goes, and how a message gets there."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass

from zope.interface import Attribute, Interface

from mailserver.mail.address import Address
from mailserver.mail.answers import Mailbox, NotMine, Outcome, Route
from mailserver.mail.content import Content
from mailserver.mail.envelope import Envelope
from mailserver.mail.parcel import Destination, Parcel

__all__ = [
    "AddressState",
    "Candidate",
    "DestinationState",
    "IBatchDelivery",
    "IConcurrentDelivery",
    "IDelivery",
    "IDestinations",
    "IForgiving",
    "IHostFinder",
    "IMailReader",
    "IMayBeMissing",
    "IPreparing",
    "IRetrySchedule",
    "IRouter",
    "RetryTimes",
]


class IMailReader(Interface):
    """Optional, for a filter: reads the mail of an address that each of our domains has, in the place of a mailbox."""

    reads = Attribute(
        "The local parts of these addresses, in lower case.  An account or an alias of this name goes first.  Read once."
    )

    def read(envelope: Envelope, content: Content, address: Address) -> Awaitable[Outcome]:
        """Read a message; `address` is the one that led here, after aliases.

        It was judged, as all mail is, and stands in the queue; nobody else's mail waits for it.  After `Delayed`, an error, a
        minute or a crash it comes again.  `Failed` is told to its sender, with `reports=False` to nobody.  `Delivered` has to be
        durable, and its note stands on the message's road.
        """


class IRouter(Interface):
    """Says where a recipient goes: what `[router] use` names is asked before the `[domain]` tables."""

    def route(address: Address) -> Awaitable[Sequence[Route] | NotMine]:
        """Return at least one route; several for an alias.  A single `Refused` refuses the recipient.

        `NotMine()`: the router does not know the address, and the `[domain]` tables decide.  An error, like any other answer:
        the recipient is deferred.  It is asked for the members of aliases, too.  A `Remote` to the very address that it was
        asked for is relaying, which only those may have who may relay; one to another address is an alias.
        """


class IDelivery(Interface):
    """Takes messages to where they go.

    It may have an attribute `deadline_seconds`: how long one `deliver` (or `deliver_batch`) may take; then it is cancelled and
    counts as Delayed.  Without it a local delivery has five minutes and a relay an hour.
    """

    stores = Attribute("False where nothing is kept (`discard`): such a message need not be written to the queue first.")

    def deliver(envelope: Envelope, content: Content, destinations: Sequence[Destination]) -> Awaitable[Mapping[int, Outcome]]:
        """Try each destination; return an outcome for each `Destination.index`.

        Several destinations may be one mailbox.  It gets one copy, and all of them have the outcome of the first
        (`mailserver.mail.parcel.one_for_each` sorts them).  A destination that fails never holds up another.  An error counts
        as `Delayed` for all of them.  A `Delivered` need not be durable before `flush` has returned.
        """

    def flush() -> Awaitable[None]:
        """Make durable what was delivered before the call.

        After an error none of it counts as delivered, nor when it has not returned within five minutes: it is delivered again.
        """


class IBatchDelivery(IDelivery):
    """Optional: a delivery that works on many messages with one hand-over."""

    def deliver_batch(parcels: Sequence[Parcel]) -> Awaitable[Sequence[Mapping[int, Outcome]]]:
        """As `deliver`, for each parcel; the answer has the parcels' order."""


class IConcurrentDelivery(IDelivery):
    """Optional: a delivery that waits for others (a command, another host), so that its calls go side by side."""

    calls_at_once = Attribute("How many `deliver` calls may be under way at once.")
    deadline_seconds = Attribute("How long one of them may take; then it is cancelled and counts as Delayed.")


class IMayBeMissing(Interface):
    """Optional, beside `IDelivery`: a delivery that depends on something that may be gone for a while."""

    def missing() -> str:
        """Why it cannot deliver now, "" where it can.  Asked for each recipient that it would serve, who is deferred (451)."""


class IPreparing(Interface):
    """Optional, beside `IDelivery`: a delivery whose mailboxes can be made before the first message."""

    def prepare(mailboxes: Sequence[Mailbox]) -> Awaitable[None]:
        """Make those that are missing, so that a mail program finds them.  One that cannot be made is not an error here."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One host with its numeric addresses.  Those of the lowest `rank` are tried first, in random order among equals."""

    name: str
    addresses: tuple[str, ...]
    port: int
    rank: int


class IHostFinder(Interface):
    """Optional, beside `IDelivery`: a delivery that can say which hosts it would try."""

    def hosts_for(address: Address) -> Awaitable[Sequence[Candidate] | Outcome]:
        """The hosts in the order in which they are tried, or the outcome where there are none."""


@dataclass(frozen=True, slots=True)
class RetryTimes:
    """When a destination is tried again, in seconds; what is None is as for all other mail.

    `pauses` follow the first, second, ... attempt, the last one repeats; `warn` and `expire` count from the message's acceptance.
    """

    pauses: tuple[float, ...] | None = None
    warn: float | None = None
    expire: float | None = None


class IRetrySchedule(Interface):
    """Optional, beside `IDelivery`: a delivery that has times of its own for some destinations."""

    longest_retry_times = Attribute("All that `retry_times` may answer now: a sequence of `RetryTimes`.")

    def retry_times(sender: Address | None, address: Address) -> RetryTimes | None:
        """When to try this address again for mail of this sender, None for the queue's own times.

        It is asked after each attempt, of each destination by itself.
        """


@dataclass(frozen=True, slots=True)
class AddressState:
    """One address of a destination: `waiting` messages in memory, open `connections`, and whether it is out of reach.

    `out_of_reach_seconds`: so long until it is tried again, None where it is in reach; `why` is the reply or the fault.
    """

    address: str
    host: str
    route: str
    waiting: int
    connections: int
    out_of_reach_seconds: float | None
    why: str


@dataclass(frozen=True, slots=True)
class DestinationState:
    """How mail goes to one host, or to the hosts of one operator.

    `waiting` messages wait in memory, `put_off` in the queue until they have their turn.  Of `connections` there may be
    `connections_most` now and `connections_limit` by the configuration; of messages a minute `per_minute` and
    `per_minute_limit`, None where as many go as can.  `sent` were begun in the last minute.  `paused_seconds`: so long nothing
    goes, because it was asked for less.  `last_reply` is the last that was no success, `last_reply_seconds` ago, and `why` what
    it meant for the pace.
    """

    name: str
    waiting: int
    put_off: int
    sent: int
    connections: int
    connections_most: int
    connections_limit: int
    per_minute: float | None
    per_minute_limit: float | None
    paused_seconds: float
    last_reply: str
    last_reply_seconds: float | None
    why: str
    addresses: tuple[AddressState, ...]


class IDestinations(Interface):
    """Optional, beside `IDelivery`: a delivery that can say how mail goes to its destinations."""

    def destinations(most: int) -> Sequence[DestinationState]:
        """So many of them at most: those for which most waits first, then those that are slow, then the others."""


class IForgiving(Interface):
    """Optional, beside `IDelivery`: a delivery that remembers what it could not reach."""

    def forgive() -> None:
        """Forget what was out of reach, and which look-ups failed: a person wants mail to be tried now."""
