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
    ISigner,
)
from mailserver.mail.content import Content
from mailserver.mail.envelope import Envelope, Peer, Recipient
from mailserver.plugins.failure_log import FailureLog
from mailserver.receive.bound_filter import BoundFilter, Question
from mailserver.receive.filter_stage import FilterStage, ask
from mailserver.receive.judgement import PASSED, FilterAnswer, Judgement, note_answers, with_bounds, with_worse

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
    signs: bool = False


class Judging:
    """All filters of a server, sorted once by stage and service.

    `seconds` is the clock that pauses and durations go by, one that nobody sets; without it it is `clock`.  Each question returns
    the `Judgement` itself where no filter waits.  Cancelling the Deferred cancels the filters.
    """

    __slots__ = ("_clock", "_content", "_content_for", "_edits", "_peer", "_recipient", "_scores", "_sender", "_sign")

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
        self._sign = FilterStage("sign", ISigner, "sign", *shared)

    def asks(self, service: str) -> Asks:
        """The stages with filters.  For the others the caller need not even make the arguments."""
        stages = (self._peer, self._sender, self._recipient, self._content, self._content_for, self._edits)
        asked = [bool(stage.groups(service)) for stage in stages]
        asked[4] = asked[4] or bool(self._scores.groups(service))
        signs = bool(self._sign.groups(service))
        asked[5] = asked[5] or signs
        return Asks(asked[0], asked[1], asked[2], asked[3], asked[4], asked[5], signs)

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
        if not groups:
            return PASSED
        judgement = ask(groups, self._clock, envelope, content)
        if isinstance(judgement, Deferred):
            return judgement.addCallback(with_bounds, content)
        return with_bounds(judgement, content) if content.parts_beyond_bounds else judgement

    def content_for(
        self, envelope: Envelope, content: Content, recipient: Recipient, without: frozenset[str] = frozenset()
    ) -> Judgement | Deferred[Judgement]:
        """After the data, for this recipient alone: who judges his copy, and last who weighs all that was found.

        Whoever is in `without` is not asked: he has held the copy, and has let it go.
        """
        service = envelope.peer.service
        groups, scores = self._content_for.groups(service), self._scores.groups(service)
        if not groups and not scores:
            return PASSED
        every = (*groups, *scores)
        if without:
            every = tuple([tuple([one for one in group if one.bound.name not in without]) for group in every])
        return ask(every, self._clock, envelope, content, recipient)

    def weighed(self, envelope: Envelope, recipient: Recipient) -> Judgement | Deferred[Judgement]:
        """What those say who weigh, of what was found before: without a content, as where it was judged some time ago."""
        scores = self._scores.groups(envelope.peer.service)
        return ask(scores, self._clock, envelope, None, recipient) if scores else PASSED

    def modifiers(self, service: str) -> Sequence[Question]:
        """Who may change a message, in the order in which they do so."""
        return [question for group in self._edits.groups(service) for question in group]

    def signers(self, service: str) -> Sequence[Question]:
        """Who signs a message after that.  What the server itself sends is signed by those who sign the mail of users."""
        return [question for group in self._sign.groups(service) for question in group]

    def modify(self, modifier: Question, envelope: Envelope, content: Content) -> Judgement | Deferred[Judgement]:
        """What one of them asks for: `edits` of its answer."""
        return ask(((modifier,),), self._clock, envelope, content)
