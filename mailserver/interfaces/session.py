"""Those who add to what is said over SMTP, or are told how it ends."""

from __future__ import annotations

import enum
from collections.abc import Awaitable

from zope.interface import Attribute, Interface

from mailserver.mail.envelope import Envelope, Peer

__all__ = ["IExtension", "IPeerEnd", "ITransactionEnd", "TransactionEnd"]


class IExtension(Interface):
    """Adds a service extension to what is offered over SMTP and LMTP (RFC 5321 section 2.2.2)."""

    extension = Attribute("An `SMTPExtension`: EHLO keyword, parameters, commands, and the replies to those.  Read once.")

    def offers(peer: Peer) -> bool:
        """Whether this peer is offered it.  Asked at each EHLO and LHLO; cheap, and not awaited.  An error means no."""

    def command(verb: str, argument: str, peer: Peer, envelope: Envelope | None) -> Awaitable[str]:
        """Answer one of its commands: the name of one of `extension.replies`.

        `envelope` is that of the open transaction, None outside one.  A 4yz or 5yz counts as an error of the peer's.  Any other
        answer, an error or silence beyond the deadline is 451 for this command alone.
        """


class TransactionEnd(enum.StrEnum):
    """How a mail transaction has ended."""

    ACCEPTED = "accepted"  # the sender has heard 250 after the data (with LMTP: for one recipient at least)
    REFUSED = "refused"  # MAIL, DATA or the message was answered with 4yz or 5yz
    RESET = "reset"  # by RSET, another EHLO, QUIT
    LOST = "lost"  # with the connection


class ITransactionEnd(Interface):
    """Is told how each mail transaction has ended, once for each MAIL."""

    def ended(envelope: Envelope, how: TransactionEnd) -> Awaitable[None]:
        """`envelope.recipients` are those accepted until then.  Nobody waits for it: the peer has its answer."""


class IPeerEnd(Interface):
    """Is told when a connection is over."""

    def disconnected(peer: Peer) -> Awaitable[None]:
        """`peer` as it was last: its name, its login.  Nobody waits for it."""
