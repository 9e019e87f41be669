"""One message on its way to one destination: the hosts to try, and what an ended transaction means for it.  Pure.

The rules of RFC 5321 section 5.1 and of common sense:

- a reused connection that turns out to be closed, or says 421, before MAIL is answered was stale: the same host again, at once;
- what fails before the whole content is sent (no connection, a refused greeting, 4yz to MAIL, 421, silence) sends those that
  have no final answer to the next host;
- a 4yz to RCPT, DATA or the content is that recipient's answer: it waits for the next attempt;
- once the whole content is sent nobody else gets it in this attempt: it may have arrived.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from mailserver.mail.answers import Delayed, Delivered, Failed, Outcome
from mailserver.mail.content import Content
from mailserver.mail.eight_bit import Channel
from mailserver.mail.reply import Reply
from mailserver.relay.client_certificate import ClientCertificate
from mailserver.relay.conclusions import TLSRefusal
from mailserver.relay.conversion_forms import Form
from mailserver.relay.login import RelayLogin
from mailserver.relay.pool import Key
from mailserver.relay.security import Barred, Demand
from mailserver.smtp.client.dialogue import Dialogue
from mailserver.smtp.client.events import Done
from mailserver.smtp.client.session import Request

__all__ = ["Meaning", "Transmission", "Target", "Targets", "meaning_of", "told"]

NOTE_LENGTH = 800
TOO_MANY_FAULTS = 3  # earlier hosts that a note names
NOBODY_LEFT = "no host is left to try"
NO_TARGET = Reply.of(451, "4.4.4", "The hosts have no address that may be used")
LACKS_REQUIRETLS = TLSRefusal.of(451, "4.7.30", "The host does not support REQUIRETLS")


class Target(NamedTuple):
    """One address to try: the host's name, the pool's key (address, port and demand), and what is demanded of TLS.

    `login` is how to log in there, None for no login.  With `implicit_tls` the connection is encrypted from the first octet on.
    `certificate` is what we show to a host that asks for one.  All three are part of the key, too (`identity`).

    With `names_host` the configuration names the host; `route` is the name of the route that leads there, "" for none.
    """

    host: str
    key: Key
    demand: Demand
    login: RelayLogin | None = None
    implicit_tls: bool = False
    certificate: ClientCertificate | None = None
    names_host: bool = False
    route: str = ""

    def __str__(self) -> str:
        return f"{self.host}[{self.key.address}]:{self.key.port}"


class Targets(NamedTuple):
    """The addresses to try, in this order, and why other hosts are not connected to."""

    addresses: Sequence[Target]
    barred: Sequence[Barred] = ()


class Meaning(enum.Enum):
    """What the end of a transaction means for its recipients."""

    SETTLED = "every recipient has its answer"
    STALE = "the connection was of no use any more: again, on another one"
    ELSEWHERE = "those without a final answer go to the next host"


def meaning_of(*, sender_reply: Reply | None, connection_lost: bool, reused: bool, content_sent: bool) -> Meaning:
    """Judge an ended transaction.

    `sender_reply` is the reply to MAIL.  `connection_lost`: the connection cannot go on.  `reused`: it had carried a
    transaction before.  `content_sent`: the end of the content was written.
    """
    if content_sent:  # also where the reply was lost: sending to a second host could duplicate the message
        return Meaning.SETTLED
    if not connection_lost:
        mail_deferred = sender_reply is not None and sender_reply.is_transient
        return Meaning.ELSEWHERE if mail_deferred else Meaning.SETTLED
    # The peer has closed an idle connection while our MAIL was on its way: that is no failure of the host.  On a new connection
    # it is one.  Else a host that accepts and closes would be connected to again and again, without a pause.
    if reused and (sender_reply is None or sender_reply.code == 421):
        return Meaning.STALE
    return Meaning.ELSEWHERE


@dataclass(slots=True, eq=False, weakref_slot=True)
class Transmission:
    """One message for some recipients who share their hosts.

    `targets` are tried in order; `barred` says why other hosts are not.  `indexes` and the recipients of `request` correspond.
    `report(index, outcome)` is called once for each outcome, `said()` after some of them, `ended()` after the last.
    `forms` holds the forms made so far, by channel.  `form` is the one in which the message goes now, None for its original
    form.

    `place` says which target is tried.  It only grows, so a transmission that is sent from one host to the next ends after
    the last one, whatever the hosts answer.  `abandoned` is for what cannot be called back: the caller has given up while a
    thread converts the message, or while a connection is about to end on which it was being sent.  Both come back later, and
    then it is neither begun nor sent to the next host.
    """

    request: Request
    content: Content
    indexes: tuple[int, ...]
    targets: Sequence[Target]
    report: Callable[[int, Outcome], None]
    ended: Callable[[], None]
    waits_since: float = 0.0
    place: int = 0
    begun_at: float = 0.0
    abandoned: bool = False
    faults: tuple[str, ...] = ()
    why: Delayed | None = None
    forms: dict[Channel, Form] = field(default_factory=dict)
    form: Form | None = None
    barred: Sequence[Barred] = ()
    said: Callable[[], None] = lambda: None
    refusals: tuple[TLSRefusal, ...] = ()

    @property
    def target(self) -> Target:
        """The address that is tried now."""
        return self.targets[self.place]

    def fault(self, why: Reply, *, peer: str = "", phase: str = "", dialogue: tuple[str, ...] = ()) -> None:
        """Remember why the present address failed.  `peer`, where it is given, is the host that said so."""
        self.why = Delayed(why, "", peer, phase, dialogue)
        if isinstance(why, TLSRefusal):
            self.refusals += (why,)
        if len(self.faults) < TOO_MANY_FAULTS:
            self.faults += (f"{self.target}: {why}"[:200],)

    def settle(self, outcomes: Sequence[Outcome]) -> None:
        """Report an outcome for every recipient that is left, and end."""
        for index, outcome in zip(self.indexes, outcomes, strict=True):
            self.report(index, self._with_history(outcome))
        self.ended()

    def settle_final(self, outcomes: Sequence[Outcome]) -> None:
        """Report the final outcomes.  Recipients without one stay in this transmission."""
        left: list[int] = []
        for place, outcome in enumerate(outcomes):
            if isinstance(outcome, Delayed):
                left.append(place)
            else:
                self.report(self.indexes[place], self._with_history(outcome))
        if len(left) < len(self.indexes):
            self.indexes = tuple([self.indexes[place] for place in left])
            if left:
                self.request = replace(
                    self.request, recipients=tuple([self.request.recipients[place] for place in left])
                )
                self.said()
            else:
                self.ended()

    def give_up(self, why: Delayed | Failed) -> None:
        """Defer all recipients that are left, or fail them."""
        self.settle([why] * len(self.indexes))

    def last_word(self) -> Delayed | Failed:
        """What there is to say when no host is left.

        A message with REQUIRETLS goes back where no host at all meets it (RFC 8689 section 4.2.1).  Where one of them cannot be
        reached or asked now, it waits.
        """
        barred = self.barred
        if self.request.require_tls and len(self.refusals) == len(self.targets) and all(one.is_final for one in barred):
            if self.refusals or barred:
                lacks = any(one.enhanced == LACKS_REQUIRETLS.enhanced for one in self.refusals)
                words = self.refusals[-1].lines if self.refusals else (barred[0].why,)
                return Failed(Reply.heard(550, "5.7.30" if lacks else "5.7.10", words), NOBODY_LEFT)
        if self.why is not None:
            return replace(self.why, note=NOBODY_LEFT)
        if barred:
            return Delayed(Reply.heard(451, "4.7.5", (barred[0].why,)), NOBODY_LEFT)
        return Delayed(NO_TARGET, NOBODY_LEFT)

    def _with_history(self, outcome: Outcome) -> Outcome:
        """The outcome with a note on the hosts that were tried before."""
        if not self.faults:
            return outcome
        return replace(outcome, note=f"{outcome.note}; before: {'; '.join(self.faults)}"[:NOTE_LENGTH])


def told(done: Done, *, host: str, note: str, dialogue: Dialogue) -> list[Outcome]:
    """The outcomes of a transaction with `note`, and with `host` where the reply is its own.

    An outcome that is not `Delivered` also has its lines of the `dialogue`.
    """
    outcomes = done.outcomes
    return [_told(outcomes[place], host, note, dialogue, place) for place in range(len(outcomes))]


def _told(outcome: Outcome, host: str, note: str, dialogue: Dialogue, place: int) -> Outcome:
    full = f"{outcome.note}; {note}"[:NOTE_LENGTH] if outcome.note else note
    if isinstance(outcome, Delivered):
        return Delivered(full, host, outcome.notifies)
    is_their_word = outcome.phase and not outcome.note
    return replace(outcome, note=full, peer=host if is_their_word else "", dialogue=dialogue.lines(place))
