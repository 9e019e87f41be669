"""Tells components how transactions and connections have ended (`ITransactionEnd`, `IPeerEnd`).

Nobody waits for them.  What they raise goes to the log, and one that takes longer than its deadline is cancelled; until then a
reload leaves it its parts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as Late
from twisted.logger import Logger
from twisted.python.failure import Failure

from mailserver.interfaces import Clock, IPeerEnd, ITransactionEnd, TransactionEnd
from mailserver.mail.envelope import Envelope, Peer
from mailserver.plugins.awaiting import FAULTS, later, within
from mailserver.plugins.failure_log import FailureLog, Fault, place_of
from mailserver.plugins.generation import Generation
from mailserver.receive.judging import BoundFilter

__all__ = ["Ends", "ends_for"]

log = Logger()
UNDER_WAY_MOST = 1000  # calls of one component that have not ended; further ones are left out, and that is told


def ends_for(filters: Sequence[BoundFilter], *, service: str, clock: Clock, generation: Generation) -> Ends | None:
    """Those of one service, None where there is nobody to tell: then no transaction has to know how it ends."""
    mine: list[tuple[BoundFilter, Any]] = [
        (bound, bound.component) for bound in filters if bound.services is None or service in bound.services
    ]
    failures = FailureLog(clock.seconds)
    transactions = [_Told(bound, one.ended, failures) for bound, one in mine if ITransactionEnd.providedBy(one)]
    peers = [_Told(bound, one.disconnected, failures) for bound, one in mine if IPeerEnd.providedBy(one)]
    return Ends(transactions, peers, clock=clock, generation=generation) if transactions or peers else None


class Ends:
    """Who is told of transactions, and who of connections."""

    __slots__ = ("_clock", "_generation", "_peers", "_transactions")

    def __init__(
        self, transactions: Sequence[_Told], peers: Sequence[_Told], *, clock: Clock, generation: Generation
    ) -> None:
        self._transactions = transactions
        self._peers = peers
        self._clock = clock
        self._generation = generation

    def transaction(self, envelope: Envelope, how: TransactionEnd) -> None:
        """A transaction has ended.  Never raises."""
        for one in self._transactions:
            self._tell(one, envelope, how)

    def peer(self, peer: Peer) -> None:
        """A connection is over.  Never raises."""
        for one in self._peers:
            self._tell(one, peer)

    def _tell(self, told: _Told, *arguments: object) -> None:
        if told.under_way >= UNDER_WAY_MOST:
            told.left_out += 1
            return
        told.under_way += 1
        self._generation.begin()
        try:
            answer = within(told.bound.deadline_seconds, later(told.tell(*arguments)), self._clock)
        except FAULTS:
            answer = Deferred()
            answer.errback(Failure())
        answer.addErrback(told.failed)
        answer.addBoth(self._over, told)

    def _over(self, _: object, told: _Told) -> None:
        told.under_way -= 1
        if told.left_out and not told.under_way:
            log.warn("{name} was not told of {count} ends: too many calls hung", name=told.bound.name, count=told.left_out)
            told.left_out = 0
        self._generation.end()


class _Told:
    """One component's method."""

    __slots__ = ("_failures", "bound", "left_out", "tell", "under_way")

    def __init__(self, bound: BoundFilter, tell: Callable[..., Any], failures: FailureLog) -> None:
        self._failures = failures
        self.bound = bound
        self.tell = tell
        self.under_way = self.left_out = 0

    def failed(self, failure: Failure) -> None:
        error: Fault = failure
        if failure.check(Late):
            error = f"DeadlineExceeded: it has not ended within {self.bound.deadline_seconds:g} s"
        self._failures.tell(f"the filter {self.bound.name} (end)", error, place_of(error, self.bound.component))
