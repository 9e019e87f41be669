"""A delivery as the core knows it: what it provides beside `deliver` is asked within its time, and each answer looked at.

`deliver` and `flush` themselves are the queue's matter, which has a deadline for each and looks at each outcome.  What the
delivery says of itself (`stores`, `calls_at_once`, `deadline_seconds`) is read once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred
from zope.interface import directlyProvides

from mailserver.interfaces import (
    Candidate,
    DestinationState,
    IBatchDelivery,
    IConcurrentDelivery,
    IDelivery,
    IDestinations,
    IForgiving,
    IHostDelivery,
    IHostFinder,
    IMayBeMissing,
    IPreparing,
    IRetrySchedule,
    RetryTimes,
)
from mailserver.mail.address import Address, AddressError
from mailserver.mail.answers import Delivered, Mailbox, Outcome
from mailserver.mail.outcomes import sound_outcome
from mailserver.plugins.asking import Asking, words_of
from mailserver.plugins.awaiting import FAULTS
from mailserver.plugins.catalogue import PluginError
from mailserver.plugins.sound_routes import kind_of, sequence_of, text_of

__all__ = ["AskedDelivery"]

KINDS = (
    IBatchDelivery, IConcurrentDelivery, IDelivery, IDestinations, IForgiving, IHostDelivery, IHostFinder, IMayBeMissing,
    IPreparing, IRetrySchedule,
)  # fmt: skip
HOSTS_SECONDS = 50.0  # a person waits
CANDIDATES_MOST = 1000
CALLS_MOST = 100_000
WORDS_CHARACTERS = 2000


class AskedDelivery:
    """Raises `PluginError` for a delivery that says nonsense of itself."""

    def __init__(self, delivery: Any, asking: Asking, *, prepare_seconds: float) -> None:
        self._delivery = delivery
        self.asking = asking
        self.name = asking.name
        self.left = asking.left
        self._prepare_seconds = prepare_seconds
        provided = [kind for kind in KINDS if kind.providedBy(delivery)]
        directlyProvides(self, *provided)
        try:
            self.stores = bool(delivery.stores)
            self.knows_folders = bool(getattr(delivery, "knows_folders", True))
            deadline = getattr(delivery, "deadline_seconds", None)
            self.deadline_seconds = None if deadline is None else _seconds(deadline)
            if IConcurrentDelivery in provided:
                self.calls_at_once = _calls(delivery.calls_at_once)
                self.deadline_seconds = _seconds(deadline)
            self.deliver, self.flush = delivery.deliver, delivery.flush
            self.tells_early = getattr(delivery, "tells_early", False) is True
            if IBatchDelivery in provided:
                self.deliver_batch = delivery.deliver_batch
            if IHostDelivery in provided:
                self.takes_hosts, self.deliver_to = bool(delivery.takes_hosts), delivery.deliver_to
            if IRetrySchedule in provided:
                self.retry_times = delivery.retry_times
        except FAULTS as error:
            raise PluginError(f"{asking.name} is no delivery that can be used: {words_of(error)}") from error

    @property
    def longest_retry_times(self) -> Sequence[RetryTimes]:
        """As `IRetrySchedule`."""
        times: Sequence[RetryTimes] = self._delivery.longest_retry_times
        return times

    async def prepare(self, mailboxes: Sequence[Mailbox]) -> None:
        """As `IPreparing`.  Raises `CannotTell`."""
        answer = self.asking.ask("prepare", self._prepare_seconds, _nothing, self._delivery.prepare, mailboxes)
        if isinstance(answer, Deferred):
            await answer

    def missing(self) -> str:
        """As `IMayBeMissing`.  Raises `CannotTell`."""
        return self.asking.call("missing", _words, self._delivery.missing)

    async def hosts_for(self, address: Address, *sender: Address | None) -> Sequence[Candidate] | Outcome:
        """As `IHostFinder`; our own relay takes a sender, too.

        Raises `CannotTell`, and `AddressError` for an impossible domain.
        """
        ask, delivery = self.asking.ask, self._delivery
        answer = ask("hosts_for", HOSTS_SECONDS, _hosts, delivery.hosts_for, address, *sender, passes=(AddressError,))
        return await answer if isinstance(answer, Deferred) else answer

    def destinations(self, most: int) -> Sequence[DestinationState]:
        """As `IDestinations`.  Raises `CannotTell`."""
        return self.asking.call("destinations", _states, self._delivery.destinations, most)

    def forgive(self) -> None:
        """As `IForgiving`.  Raises `CannotTell`."""
        self.asking.call("forgive", _nothing, self._delivery.forgive)


def _seconds(value: object) -> float:
    if type(value) not in (int, float) or not math.isfinite(value) or value <= 0:  # type: ignore[operator,arg-type]
        raise ValueError("deadline_seconds is no number of seconds above 0")
    return float(value)  # type: ignore[arg-type]


def _calls(value: object) -> int:
    if type(value) is not int or not 1 <= value <= CALLS_MOST:
        raise ValueError(f"calls_at_once is no whole number from 1 to {CALLS_MOST}")
    return value


def _nothing(_: object) -> None:
    """Whatever it answers means nothing."""


def _words(answer: object) -> str:
    if not isinstance(answer, str):
        raise TypeError(f"the answer is {kind_of(answer)}, not text")
    return text_of(answer, "the answer", WORDS_CHARACTERS)


def _states(answer: object) -> Sequence[DestinationState]:
    states = sequence_of(answer, CANDIDATES_MOST)
    if any(type(one) is not DestinationState for one in states):
        raise TypeError("a member of the answer is no state of a destination")
    return states


def _hosts(answer: object) -> Sequence[Candidate] | Outcome:
    if not isinstance(answer, Sequence):
        outcome = sound_outcome(answer)
        if isinstance(outcome, Delivered):
            raise TypeError("the answer is Delivered, neither hosts nor a failure")
        return outcome
    return [_candidate(one) for one in sequence_of(answer, CANDIDATES_MOST)]


def _candidate(one: object) -> Candidate:
    if not isinstance(one, Candidate):
        raise TypeError(f"a member of the answer is {kind_of(one)}, not a candidate")
    if type(one.port) is not int or type(one.rank) is not int:
        raise TypeError("port or rank of a candidate is no whole number")
    addresses = tuple([text_of(text, "an address") for text in sequence_of(one.addresses, CANDIDATES_MOST)])
    return Candidate(text_of(one.name, "a host's name"), addresses, one.port, one.rank)
