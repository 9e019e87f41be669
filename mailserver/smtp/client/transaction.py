"""One request: which recipients have an outcome, which is being asked about, which come later.

A peer may take fewer recipients at a time than there are: it says so with RCPTMAX (RFC 9422), or with 452 to the RCPT that
is too many (RFC 5321 section 4.5.3.1.10).  So a transaction has parts, each with a MAIL, RCPTs and content of its own.
"""

from __future__ import annotations

from collections.abc import Mapping

from mailserver.mail.answers import Delayed, Delivered, Failed, Outcome
from mailserver.mail.reply import Reply
from mailserver.smtp.client.content import ChunkWriter, DotWriter
from mailserver.smtp.client.events import Done
from mailserver.smtp.client.limits import Phase
from mailserver.smtp.client.offer import Offer
from mailserver.smtp.client.request import Request, mail_command, needs_smtputf8, rcpt_command, unmet_need

__all__ = ["LOST", "NOT_SMTP", "UNCERTAIN", "UNMET_NEED", "ClientTransaction"]

# The note of an outcome: the peer has had all of the content and has not answered, so it may or may not have the message.
UNCERTAIN = "all of the content was sent and no answer came: the message may have been delivered"
UNMET_NEED = "not sent: a need that the peer's offer does not meet"

# The answers to a RCPT that is one too many.  552 is the code of RFC 821, to be taken as 452 (RFC 5321 section 4.5.3.1.10).
TOO_MANY = frozenset({(452, ""), (452, "4.5.3"), (552, ""), (552, "5.5.3")})

PRDR = b" PRDR\r\n"
LOST = Reply.of(451, "4.4.2", "The connection to the next host was lost")
NOT_SMTP = Reply.of(451, "4.5.0", "The next host does not keep to the protocol")
LEFT_OVER = Reply.of(451, "4.5.3", "The next host takes no more messages on this connection")


class ClientTransaction:
    """The bookkeeping of one `ClientSession.send`."""

    __slots__ = (
        "commands",
        "_later",
        "_notifies",
        "_outcomes",
        "_request",
        "_too_many",
        "accepted",
        "answers_each",
        "content_reply",
        "ends_with_rcpt",
        "mail",
        "sender_reply",
        "uses_bdat",
        "writer",
    )

    def __init__(self, request: Request, offer: Offer, *, is_encrypted: bool) -> None:
        recipients = request.recipients
        self._request = request
        self._outcomes: list[Outcome | None] = [None] * len(recipients)
        self.commands: list[bytes] = []  # RCPT for each recipient; b"" for one whom it cannot be said for
        self._later: list[int] = []
        self._notifies = offer.dsn
        self._too_many: list[int] = []
        self.accepted: list[int] = []
        self.answers_each: dict[int, Reply] | None = None  # with PRDR, the answers for each until that for all has come
        self.sender_reply: Reply | None = None
        self.content_reply: Reply | None = None
        self.mail = b""
        self.ends_with_rcpt = request.envelope_only
        self.uses_bdat = request.body == "BINARYMIME" or (request.prefers_bdat and offer.chunking)
        self.writer: DotWriter | ChunkWriter | None = None
        self._compose(offer, is_encrypted)

    def _compose(self, offer: Offer, is_encrypted: bool) -> None:
        """Work out the commands, and the outcomes of those who cannot be served by this peer."""
        request = self._request
        need = unmet_need(request, offer, is_encrypted=is_encrypted)
        if need is not None:
            self.settle_all(Failed(need, UNMET_NEED))
            return
        smtputf8 = offer.smtputf8 and (request.smtputf8 or has_non_ascii(request))
        mail = mail_command(request, offer, smtputf8=smtputf8)
        if isinstance(mail, Reply):
            self.settle_all(Failed(mail, UNMET_NEED))
            return
        self.mail = mail
        for index, recipient in enumerate(request.recipients):
            rcpt = rcpt_command(recipient, offer, smtputf8=smtputf8)
            if isinstance(rcpt, Reply):
                self._outcomes[index] = Failed(rcpt, UNMET_NEED)
                self.commands.append(b"")
            else:
                self.commands.append(rcpt)
                self._later.append(index)

    @property
    def is_unfinished(self) -> bool:
        """There are recipients whom the peer has not been asked about."""
        return bool(self._later)

    @property
    def is_uncertain(self) -> bool:
        """The peer has all of the content and could have taken it."""
        return self.writer is not None and self.writer.is_complete

    def next_part(self, offer: Offer) -> list[int]:
        """Begin a part: the recipients to ask about now."""
        later = self._later
        if not (offer.recipients_max or offer.recipient_domains_max):
            asked, self._later = later, []
        else:
            asked = self._within_limits(offer)
            self._later = later[len(asked) :]
        self._too_many = []
        self.accepted = []
        self.answers_each = None
        self.writer = None
        self.sender_reply = None
        return asked

    def _within_limits(self, offer: Offer) -> list[int]:
        """RFC 9422 sections 4.2 and 4.3: as many recipients, and of as many domains, as the peer takes at a time."""
        asked = self._later[: offer.recipients_max or None]
        if not offer.recipient_domains_max:
            return asked
        domains: set[str] = set()
        for count, index in enumerate(asked):
            domains.add(self._request.recipients[index].address.domain.lower())
            if len(domains) > offer.recipient_domains_max:
                return asked[:count]
        return asked

    def answer_rcpt(self, index: int, reply: Reply) -> None:
        """The peer's answer to one RCPT, whatever it is."""
        if reply.code < 300 and self._request.envelope_only:
            self._outcomes[index], self.content_reply = Delivered(str(reply)), reply
        elif reply.code < 300:
            self.accepted.append(index)
        elif (reply.code, reply.enhanced) in TOO_MANY:
            self._outcomes[index] = Delayed(reply, phase="RCPT")
            self._too_many.append(index)
        else:
            self._outcomes[index] = refused(reply, Phase.RCPT)

    def ask_again(self) -> None:
        """The part has brought recipients through: those who were too many for it come in the next one."""
        if self.accepted:
            for index in self._too_many:
                self._outcomes[index] = None
            self._later = self._too_many + self._later

    def start_content(self) -> None:
        """Content comes, from its beginning."""
        self.writer = ChunkWriter(self._request.size) if self.uses_bdat else DotWriter()

    def answer_content(self, reply: Reply, index: int | None) -> None:
        """The answer to the content for one recipient, or (None) for all."""
        if index is None and self.answers_each is not None:
            self._settle_each(reply, self.answers_each)
        elif index is None:
            self.settle_accepted(reply, Phase.END)
        elif self.answers_each is not None:
            self.answers_each[index] = reply
        else:
            self.content_reply = reply
            self._outcomes[index] = self._outcome(reply, Phase.END)

    def begin_one_each(self) -> bool:
        """353 in answer to the content: an answer for each recipient follows, and one for all (draft-hall-prdr).

        False where that was not asked for, or has come already.
        """
        if self.answers_each is not None or not self.mail.endswith(PRDR):
            return False
        self.answers_each = {}
        return True

    def _settle_each(self, overall: Reply, each: Mapping[int, Reply]) -> None:
        """The answer for all, behind those for each.  Its no is one for whoever had a yes; a no of his own stays as it is."""
        self.content_reply = overall
        for index in self.accepted:
            reply = each.get(index, overall)
            self._outcomes[index] = self._outcome(reply if reply.code >= 400 or overall.code < 300 else overall, Phase.END)

    def settle_accepted(self, reply: Reply, phase: Phase) -> None:
        """The same answer, to the content or to DATA, for all who were accepted."""
        self.content_reply = reply
        outcome = self._outcome(reply, phase)
        for index in self.accepted:
            self._outcomes[index] = outcome

    def _outcome(self, reply: Reply, phase: Phase) -> Outcome:
        return Delivered(str(reply), "", self._notifies) if reply.code < 300 else refused(reply, phase)

    def settle_all(self, outcome: Outcome) -> None:
        """All who have none have this outcome."""
        self._outcomes = [outcome if known is None else known for known in self._outcomes]
        self._later = []

    def give_up(self, reply: Reply, phase: Phase, *, is_answer: bool = False) -> None:
        """No more answers come; `reply` is why.  Who waits for one is deferred, with a mark where the peer may have delivered.

        `is_answer`: `reply` is itself the peer's answer to the content.
        """
        waiting = self.accepted if self.is_uncertain and not is_answer else ()
        for index in waiting:
            if self._outcomes[index] is None:
                self._outcomes[index] = Delayed(reply, UNCERTAIN, "", phase.name)
        self.settle_all(Delayed(reply, "", "", phase.name))

    def done(self) -> Done:
        """All have their outcome."""
        return Done(
            tuple([outcome for outcome in self._outcomes if outcome is not None]), self.sender_reply, self.content_reply
        )


def has_non_ascii(request: Request) -> bool:
    """An address of the envelope can only be said with SMTPUTF8."""
    if request.sender is not None and needs_smtputf8(request.sender):
        return True
    return any(needs_smtputf8(recipient.address) for recipient in request.recipients)


def refused(reply: Reply, phase: Phase) -> Outcome:
    """A negative reply as an outcome."""
    return Delayed(reply, phase=phase.name) if reply.is_transient else Failed(reply, phase=phase.name)
