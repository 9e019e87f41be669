"""Those who judge, change or watch a message."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence

from zope.interface import Interface

from mailserver.mail.answers import Defer, Discard, Refuse, Verdict
from mailserver.mail.content import Content
from mailserver.mail.edits import AddHeader, Edit
from mailserver.mail.envelope import Envelope, Peer, Recipient

__all__ = [
    "IContentFilter",
    "IModifier",
    "IObserver",
    "IPeerFilter",
    "IRecipientContentFilter",
    "IRecipientFilter",
    "IScorer",
    "ISenderFilter",
    "ISigner",
]


class IPeerFilter(Interface):
    """Judges who connects."""

    def judge_peer(peer: Peer) -> Awaitable[Verdict]:
        """Called at connect (`peer.hello` is empty) and again after EHLO, HELO or LHLO.

        A `Quarantine` holds for every message of the connection.
        """


class ISenderFilter(Interface):
    """Judges a reverse-path at MAIL."""

    def judge_sender(envelope: Envelope) -> Awaitable[Verdict]:
        """`envelope.sender` may be None, the null reverse-path; there are no recipients yet."""


class IRecipientFilter(Interface):
    """Judges one forward-path at RCPT."""

    def judge_recipient(envelope: Envelope, recipient: Recipient) -> Awaitable[Verdict]:
        """`envelope.recipients` holds those accepted before this one.  A `Quarantine` is for this recipient alone."""


class IContentFilter(Interface):
    """Judges a message after its data, once for all its recipients."""

    def judge_content(envelope: Envelope, content: Content) -> Awaitable[Verdict]:
        """The verdict holds for every recipient.  `content` is the whole message."""


class IRecipientContentFilter(Interface):
    """Judges a message after its data for one recipient at a time."""

    def judge_content_for(envelope: Envelope, content: Content, recipient: Recipient) -> Awaitable[Verdict]:
        """The verdict holds for this recipient alone."""


class IScorer(Interface):
    """Weighs all that was found."""

    def weigh(envelope: Envelope, recipient: Recipient) -> Awaitable[Verdict]:
        """Called for each recipient when all content filters have been asked; the verdict holds for him alone.

        `envelope.findings` has what was found about the peer, the sender, the message and this recipient.  A filter that said
        Accept has left a finding ``accepted``.
        """


class IModifier(Interface):
    """Changes a message; the core applies and records the edits."""

    def edits(envelope: Envelope, content: Content) -> Awaitable[Sequence[Edit] | Discard | Refuse | Defer]:
        """Return the edits in the order in which they are to be made; in place of them a `Discard`, a `Refuse` or a `Defer`.

        The message is as the modifiers before this one have left it.  All edits are made, or none.
        """


class ISigner(Interface):
    """Signs a message, last of all."""

    def sign(envelope: Envelope, content: Content) -> Awaitable[Sequence[AddHeader]]:
        """Called when all modifiers are done, with the octets that are committed.  Return fields to put in front of them.

        Nothing but such fields is put in front afterwards.  Several signers sign one after another.
        """


class IObserver(Interface):
    """Is told what happens; can neither decide nor delay."""

    def observe(step: Mapping[str, object]) -> None:
        """One step of one message's or connection's road: `time`, `id`, `step` and the step's own fields.

        A plain function, called in a thread of the observer's own, one step after the other; it may block.  While 10,000 steps
        wait for it, further ones are lost to it, counted and told.  `Services.in_reactor` leads from there to the reactor.  The
        mapping cannot be changed; what the log calls a list is a tuple.
        """
