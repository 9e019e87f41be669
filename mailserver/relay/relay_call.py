"""One call of the relay's `deliver`: what has become of its destinations, and what is still under way."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace

from twisted.internet.defer import Deferred

from mailserver.mail.answers import Delivered, Outcome
from mailserver.mail.parcel import Destination, one_for_each
from mailserver.relay.transmission import Transmission

__all__ = ["RelayCall", "Told"]

Told = Callable[[Mapping[int, Outcome]], None]


class RelayCall:
    """The outcomes so far, and how many transmissions have not ended.

    `told`, where it is given, hears of outcomes while others are under way, of each once.
    """

    __slots__ = ("_followers", "_said", "_told", "_withdraw", "open", "outcomes", "transmissions", "waiting")

    def __init__(self, withdraw: Callable[[Transmission], None], told: Told | None = None) -> None:
        self._told = told
        self._said: set[int] = set()
        self.outcomes: dict[int, Outcome] = {}
        self.open = 0
        self.transmissions: list[Transmission] = []
        self.waiting: Deferred[Mapping[int, Outcome]] | None = None
        self._withdraw = withdraw
        self._followers: dict[int, list[int]] = {}

    def one_for_each(self, destinations: Sequence[Destination]) -> list[Destination]:
        """The first destination of each address.  Others with the same address get its outcome."""
        leaders: list[Destination] = []
        for leader, *others in one_for_each(destinations):
            leaders.append(leader)
            if others:
                self._followers[leader.index] = [other.index for other in others]
        return leaders

    def report(self, index: int, outcome: Outcome) -> None:
        self.outcomes[index] = outcome
        for follower in self._followers.get(index, ()):  # only the first one's DSN wishes were sent to the host
            same = replace(outcome, notifies=False) if isinstance(outcome, Delivered) else outcome
            self.outcomes[follower] = same

    def ended(self) -> None:
        self.open -= 1
        if self.open:
            self.tell()
            return
        self.transmissions.clear()  # they refer to this call and to the message: a cycle would keep both until garbage collection
        waiting, self.waiting = self.waiting, None
        if waiting is not None and not waiting.called:
            waiting.callback(self.outcomes)

    def tell(self) -> None:
        """What is known of some, while others are under way and somebody waits for the answer."""
        waiting = self.waiting
        if self._told is None or waiting is None or waiting.called:
            return
        new = {index: outcome for index, outcome in self.outcomes.items() if index not in self._said}
        if new:
            self._said |= new.keys()
            self._told(new)

    def answer(self) -> Awaitable[Mapping[int, Outcome]]:
        if not self.open:
            return _known(self.outcomes)
        self.waiting = Deferred(self._cancel)
        self.tell()
        return self.waiting

    def _cancel(self, _: object) -> None:
        for transmission in self.transmissions:
            self._withdraw(transmission)
        self.transmissions.clear()


async def _known(outcomes: Mapping[int, Outcome]) -> Mapping[int, Outcome]:
    return outcomes
