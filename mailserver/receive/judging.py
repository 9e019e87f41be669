"""All filters of a server, and the questions that they are asked: at each stage one judgement comes out.

The worst verdict wins: Disconnect, Refuse, Discard, Defer, Quarantine.  Filters of one group are asked side by side, each with a
deadline; once a group has refused, later ones are not asked.  An explicit Accept takes away what was said against the message in
its group and before, whatever the others of the group would have said, and later groups' filters that are skippable are not
asked; what is hard stands.  A filter that raises, answers with anything but a verdict, or is late counts as its configured
`on_error`: a broken filter never loses a message and, unless the administrator says *skip*, never lets one through.

Reply texts are not made here.  Where no filter has to wait, no Deferred is made and no reactor turn is spent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from twisted.internet.defer import Deferred

from mailserver.interfaces import (
    Clock,
    IContentFilter,
    IModifier,
    IPeerFilter,
    IRecipientContentFilter,
    IRecipientFilter,
    IScorer,
    ISenderFilter,
)
from mailserver.mail.answers import Pass
from mailserver.mail.content import Content
from mailserver.mail.edits import Edit
from mailserver.mail.envelope import Envelope, Peer, Recipient
from mailserver.plugins.failure_log import FailureLog
from mailserver.receive.bound_filter import BoundFilter
from mailserver.receive.filter_stage import FilterStage, ask
from mailserver.receive.judgement import PASSED, FilterAnswer, Judgement, note_answers, with_worse

__all__ = ["PASSED", "Asks", "BoundFilter", "FilterAnswer", "Judgement", "Judging", "note_answers", "with_worse"]


@dataclass(frozen=True, slots=True)
class Asks:
    """The stages at which one service has filters."""

    peer: bool
    sender: bool
    recipient: bool
    content: bool
    content_for: bool
    edits: bool


class Judging:
    """All filters of a server, sorted once by stage and service.

    `seconds` is the clock that pauses and durations go by, one that nobody sets; without it it is `clock`.  Each question returns
    the `Judgement` itself where no filter waits.  Cancelling the Deferred cancels the filters.
    """

    __slots__ = ("_clock", "_content", "_content_for", "_edits", "_peer", "_recipient", "_scores", "_sender")

    def __init__(
        self, filters: Sequence[BoundFilter], *, clock: Clock, seconds: Callable[[], float] | None = None
    ) -> None:
        self._clock = clock
        seconds = seconds or clock.seconds
        shared = filters, seconds, FailureLog(seconds)
        self._peer = FilterStage("peer", IPeerFilter, "judge_peer", *shared)
        self._sender = FilterStage("sender", ISenderFilter, "judge_sender", *shared)
        self._recipient = FilterStage("recipient", IRecipientFilter, "judge_recipient", *shared)
        self._content = FilterStage("content", IContentFilter, "judge_content", *shared)
        self._content_for = FilterStage("content_for", IRecipientContentFilter, "judge_content_for", *shared)
        self._scores = FilterStage("score", IScorer, "weigh", *shared)
        self._edits = FilterStage("edits", IModifier, "edits", *shared)

    def asks(self, service: str) -> Asks:
        """The stages with filters.  For the others the caller need not even make the arguments."""
        stages = (self._peer, self._sender, self._recipient, self._content, self._content_for, self._edits)
        asked = [bool(stage.groups(service)) for stage in stages]
        asked[4] = asked[4] or bool(self._scores.groups(service))
        return Asks(*asked)

    # --- The stages. ---

    def peer(self, peer: Peer) -> Judgement | Deferred[Judgement]:
        """At connect (`peer.hello` is empty) and again after EHLO, HELO or LHLO."""
        groups = self._peer.groups(peer.service)
        return ask(groups, self._clock, peer) if groups else PASSED

    def sender(self, envelope: Envelope) -> Judgement | Deferred[Judgement]:
        """At MAIL."""
        groups = self._sender.groups(envelope.peer.service)
        return ask(groups, self._clock, envelope) if groups else PASSED

    def recipient(self, envelope: Envelope, recipient: Recipient) -> Judgement | Deferred[Judgement]:
        """At RCPT, for this recipient alone."""
        groups = self._recipient.groups(envelope.peer.service)
        return ask(groups, self._clock, envelope, recipient) if groups else PASSED

    def content(self, envelope: Envelope, content: Content) -> Judgement | Deferred[Judgement]:
        """After the data, for all recipients."""
        groups = self._content.groups(envelope.peer.service)
        return ask(groups, self._clock, envelope, content) if groups else PASSED

    def content_for(
        self, envelope: Envelope, content: Content, recipient: Recipient
    ) -> Judgement | Deferred[Judgement]:
        """After the data, for this recipient alone: who judges his copy, and last who weighs all that was found."""
        service = envelope.peer.service
        groups, scores = self._content_for.groups(service), self._scores.groups(service)
        if not groups and not scores:
            return PASSED
        return ask((*groups, *scores), self._clock, envelope, content, recipient)

    def edits(
        self, envelope: Envelope, content: Content
    ) -> tuple[tuple[Edit, ...], Judgement] | Deferred[tuple[tuple[Edit, ...], Judgement]]:
        """What the modifiers ask for, in configured order.

        Each sees the message as it came.  The judgement is Pass unless a modifier has failed; there are no edits then.
        """
        groups = self._edits.groups(envelope.peer.service)
        if not groups:
            return (), PASSED
        judgement = ask(groups, self._clock, envelope, content)
        return judgement.addCallback(_with_edits) if isinstance(judgement, Deferred) else _with_edits(judgement)


def _with_edits(judgement: Judgement) -> tuple[tuple[Edit, ...], Judgement]:
    if not isinstance(judgement.verdict, Pass):
        return (), judgement
    return tuple(edit for answer in judgement.answers if not answer.is_shadow for edit in answer.edits), judgement
