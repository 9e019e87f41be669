"""Those who have a say about mail on its way to other hosts, and about reports to senders."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass

from zope.interface import Attribute, Interface

from mailserver.interfaces.delivery import Candidate, IDelivery
from mailserver.mail.address import Address
from mailserver.mail.answers import Outcome
from mailserver.mail.content import Content
from mailserver.mail.envelope import Envelope
from mailserver.mail.outbound_answers import AttemptVerdict, ReportVerdict
from mailserver.mail.parcel import Destination
from mailserver.mail.report import RecipientReport

__all__ = ["IAttemptFilter", "IHostDelivery", "IHosts", "IReportPolicy", "ReportDraft"]


class IAttemptFilter(Interface):
    """Is asked before each attempt to send a message on to another host."""

    def before_attempt(envelope: Envelope, content: Content, destination: Destination) -> Awaitable[AttemptVerdict]:
        """Once for each destination, those of a message side by side.

        Several such components are asked one after the other, and each sees what those before it have changed.  A failure counts
        as `on_error` says: *defer* postpones, *skip* proceeds, *refuse* gives up.
        """


class IHosts(Interface):
    """Says to which hosts a message goes, in place of those that the DNS names for the domain."""

    def hosts(envelope: Envelope, address: Address) -> Awaitable[Sequence[Candidate] | None]:
        """The hosts, None for the usual ones.  Of several components the first that names hosts decides.

        At most ten, each with one to eight numeric addresses; those of the lowest rank are tried first.  A failure counts as
        `on_error` says.  The relay's TLS mode holds for them, too.
        """


class IHostDelivery(IDelivery):
    """Optional: a delivery that can be told the hosts (`IHosts`)."""

    takes_hosts = Attribute("False where it may not be: they would hear the password that is meant for another host.")

    def deliver_to(
        hosts: Sequence[Candidate], envelope: Envelope, content: Content, destinations: Sequence[Destination]
    ) -> Awaitable[Mapping[int, Outcome]]:
        """As `deliver`, to these hosts."""


@dataclass(frozen=True, slots=True)
class ReportDraft:
    """A report that is about to be made on the message of `envelope`, to its sender.

    `condition` is "failure", "delay", "hold" (a filter holds a user's own mail) or "success"; `recipients` say what became of
    each, with the last reply and who gave it.
    """

    condition: str
    envelope: Envelope
    recipients: tuple[RecipientReport, ...]


class IReportPolicy(Interface):
    """Is asked before a report to a sender is made (RFC 3461, RFC 3464)."""

    def judge_report(draft: ReportDraft) -> Awaitable[ReportVerdict]:
        """Of several components each is asked, until one suppresses it.

        A failure counts as `on_error` says: *defer* makes the report later, *skip* makes it as it is, *refuse* suppresses it.
        """
