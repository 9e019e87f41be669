"""From the complete message to the replies: judged, edited, decided for each recipient, committed.

Up to the commit anything may refuse the message; after it nothing changes the answer.  What becomes of each recipient's copy is
decided in `fates`, which copies that makes in `copies`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger

from mailserver.mail.address import Address
from mailserver.mail.answers import Defer, Finding, Local, Refuse, Remote, Verdict
from mailserver.mail.content import Content
from mailserver.mail.envelope import Envelope, MailParameters, Peer, Recipient
from mailserver.mail.faults import StorageBroken, StorageFault, StorageFull
from mailserver.mail.known_sender import is_proven, is_told
from mailserver.mail.own_results import without_own_results
from mailserver.mail.reply import Reply
from mailserver.mail.set_apart import Holder, kept_findings, with_holders
from mailserver.mail.tags import TAG_OCTETS, added_tags, tag_lines
from mailserver.mail.trace import goes_round, message_id, received
from mailserver.plugins.awaiting import all_of
from mailserver.receive.copies import Copies, RecipientRoute, copies_for, copies_of
from mailserver.receive.editing import Edited, Editing, WorkingCopy
from mailserver.receive.fates import Answers, CopyFate, Decision, Fate, decide, fate_of
from mailserver.receive.judging import PASSED, Judgement, note_answers
from mailserver.receive.profile import Profile
from mailserver.receive.submission.rules import Objection, Posting
from mailserver.receive.verdicts import PASS
from mailserver.smtp import replies

__all__ = ["AfterData"]

log = Logger()

Routes = list[Sequence[Local | Remote]]


class TakenMessage(Protocol):
    """What the questions of a transaction have brought, and what it writes down and answers."""

    profile: Profile
    peer: Peer
    connection: str
    id: str
    sender: Address | None
    parameters: MailParameters
    recipients: list[Recipient]
    routes: Routes
    quarantine: tuple[Holder, ...]
    aside: list[tuple[Holder, ...]]
    discard: str
    discarded: list[str]
    findings: tuple[Finding, ...]
    recipient_findings: list[tuple[Finding, ...]]
    posting: Posting | None
    file_is_queues: bool
    has_file: bool

    def envelope(self, more: tuple[Finding, ...] = ...) -> Envelope: ...

    def note(self, step: str, **fields: Any) -> None: ...

    def weigh(self, stage: str, judgement: Judgement) -> Reply | None: ...

    def refused(self, stage: str, reply: Reply, why: str, address: Address | None = None) -> Reply: ...

    def same_for_all(self, reply: Reply) -> Sequence[Reply]: ...

    def afterwards(self, work: Callable[..., object], *arguments: object, **named: object) -> None: ...


class AfterData:
    """What follows the data of one transaction.

    The replies are one, or in LMTP one for each recipient (RFC 2033 section 4.2), or with PRDR one for each recipient and one for
    the whole behind them.
    """

    __slots__ = ("_holders", "_id", "_profile", "_proven", "_transaction")

    def __init__(self, transaction: TakenMessage) -> None:
        self._transaction = transaction
        self._profile = transaction.profile
        self._id = transaction.id
        self._proven: bool | None = None  # that the sender has sent it, once somebody has asked
        self._holders: Sequence[tuple[Holder, ...]] = ()  # of each recipient's copy, when it has been judged

    async def replies(self, content: Content) -> Sequence[Reply]:
        """Judge the message and make it durable, or not."""
        transaction, profile = self._transaction, self._profile
        if goes_round(content, profile.limits.hops):
            return self._refused(replies.too_many_hops(self._id), "too many Received fields")
        if transaction.posting is not None:
            completed = await transaction.posting.content(
                content, smtputf8=transaction.parameters.smtputf8, signs=profile.asks.signs
            )
            if isinstance(completed, Objection):
                return self._refused(completed.reply, completed.why)
            content = completed
        asks, routes = profile.asks, transaction.routes
        if asks.content and not transaction.discard:
            refusal = await self._judged(content)
            if refusal is not None:
                return transaction.same_for_all(refusal)
        decision: Decision | None = None
        verdicts: Sequence[Verdict] = ()
        if asks.content_for and not transaction.discard:
            verdicts = await self._verdicts(content)
            decision = self._decide(verdicts)
            if decision.refusal is not None:
                return transaction.same_for_all(self._said(decision.refusal, None, is_for_all=decision.is_for_all))
        elif (
            transaction.quarantine
            or transaction.discard
            or transaction.findings
            or any(transaction.aside)
            or any(transaction.discarded)
            or any(transaction.recipient_findings)
        ):
            decision = self._decide((PASS,) * len(transaction.recipients))
        original = without_own_results(content, profile.hostname)
        envelope = transaction.envelope()
        content = self._traced(original, envelope)
        tags: Sequence[bytes] = ()
        added: Sequence[Recipient] = ()
        if asks.edits and not transaction.discard:
            sender = transaction.sender
            edited = await self._edited(content, envelope)
            if isinstance(edited, Reply):
                return transaction.same_for_all(edited)
            draft, transaction.discard = edited.draft, edited.judgement.discard
            tags = added_tags(content, draft.content)
            content, routes, added = draft.content, draft.routes, draft.added
            original = content
            if transaction.sender is not sender:
                envelope = transaction.envelope()
            transaction.quarantine = with_holders(transaction.quarantine, draft.aside)
            others_hear = decision is not None and draft.sender != sender  # known is who has sent it, not whom a modifier names
            if transaction.discard or draft.aside or others_hear or (tags and decision is None):
                decision = self._decide(verdicts or (PASS,) * len(transaction.recipients))
        if decision is None:
            everybody = (*transaction.recipients, *added)
            plain = copies_of(everybody, routes, is_proven=self._is_proven)
            accepted = await self._commit(envelope, content, original, plain)
            return transaction.same_for_all(accepted)
        copies = self._copies(decision, verdicts, routes, tags, added)
        accepted = await self._commit(envelope, content, original, copies, decision)
        return self._answers(decision, verdicts, accepted)

    async def _judged(self, content: Content) -> Reply | None:
        """The refusal for all recipients, if the content filters say so."""
        transaction = self._transaction
        judgement = self._profile.judging.content(transaction.envelope(), content)
        if judgement is PASSED:
            return None
        if isinstance(judgement, Deferred):
            judgement = await judgement
        refusal = transaction.weigh("content", judgement)
        transaction.findings += judgement.findings  # also of what is refused: those who are told of the end see why
        if refusal is None:
            transaction.quarantine = with_holders(transaction.quarantine, judgement.quarantine)
            transaction.discard = judgement.discard
        return refusal

    # --- the verdicts on each recipient's copy ---

    async def _verdicts(self, content: Content) -> list[Verdict]:
        """All recipients are asked side by side: the longest deadline of a filter is that of them all.

        Nobody is asked about a copy that an earlier stage has thrown away.  Each verdict carries what was found with it: whoever
        is asked again about a copy that is undecided finds that again.
        """
        transaction, judging = self._transaction, self._profile.judging
        asked = [
            PASSED if discarded else judging.content_for(transaction.envelope(findings), content, recipient)
            for recipient, findings, discarded in zip(
                transaction.recipients, transaction.recipient_findings, transaction.discarded, strict=True
            )
        ]
        late = iter(await all_of([one for one in asked if isinstance(one, Deferred)]))
        judgements = [next(late) if isinstance(one, Deferred) else one for one in asked]
        for recipient, one in zip(transaction.recipients, judgements, strict=True):
            note_answers(self._profile.note, self._id, one, str(recipient.address))
        self._holders = [one.holders for one in judgements]
        return [replace(one.verdict, findings=one.findings) if one.findings else one.verdict for one in judgements]

    def _decide(self, verdicts: Sequence[Verdict]) -> Decision:
        transaction, profile = self._transaction, self._profile
        early = [self._early(n) for n in range(len(transaction.recipients))]
        aside = [holders[0].why if holders else "" for holders in early]
        holds = [any(one.hold for one in holders) for holders in early]
        discarded = [transaction.discard or why for why in transaction.discarded]
        answers = Answers.EACH if profile.lmtp else Answers.WHERE_NEEDED if transaction.parameters.prdr else Answers.ONE
        findings = transaction.findings
        told, login = profile.copy_policy.told, transaction.peer.login
        reports = is_told(told, sender=transaction.sender, login=login, findings=findings)
        return decide(verdicts, aside, discarded, answers=answers, reports=reports, holds=holds)

    def _early(self, n: int) -> tuple[Holder, ...]:
        """Who wanted the copy of recipient `n` put aside before it was judged itself."""
        return with_holders(self._transaction.quarantine, self._transaction.aside[n])

    def _copies(
        self,
        decision: Decision,
        verdicts: Sequence[Verdict],
        routes: Routes,
        tags: Sequence[bytes],
        added: Sequence[Recipient],
    ) -> Copies:
        """`tags` are the modifiers', for every copy; `added` are recipients whom nobody has judged, with the last of `routes`."""
        transaction = self._transaction
        ways = []
        for n, (recipient, fate) in enumerate(zip(transaction.recipients, decision.fates, strict=True)):
            reply = self._reply_to(verdicts[n]) if fate.fate is Fate.RETURNED else None
            findings = transaction.findings + transaction.recipient_findings[n]
            lines, too_many = tag_lines(findings + verdicts[n].findings if verdicts else findings, tags)
            if too_many:
                why = f"{too_many} tags are left out: a copy has no more than {TAG_OCTETS} octets of them"
                transaction.note("filter", stage="tags", verdict="", why=why, recipient=str(recipient.address))
            kept = () if fate.fate is Fate.DELIVERED else self._kept(n, fate, findings, verdicts)
            ways += [RecipientRoute(recipient, route, fate, reply, kept, lines) for route in routes[n]]
        if added and any(one.fate is not Fate.REFUSED for one in decision.fates):  # else the sender comes again for all
            whole = transaction.quarantine
            aside = whole[0].why if whole else ""
            fate = fate_of(PASS, aside, transaction.discard, any(one.hold for one in whole))
            kept = kept_findings(whole, transaction.findings) if whole else ()
            lines, _ = tag_lines(transaction.findings, tags)
            for recipient, his in zip(added, routes[len(transaction.recipients) :], strict=True):
                ways += [RecipientRoute(recipient, route, fate, None, kept, lines) for route in his]
        return copies_for(ways, holds=self._profile.copy_policy.holds_quarantine, is_proven=self._is_proven)

    def _is_proven(self) -> bool:
        """What leaves by an alias, and is refused by the next host, is told to the sender."""
        if self._proven is None:
            transaction = self._transaction
            trusted = self._profile.may_relay(transaction.peer)
            self._proven = is_proven(transaction.sender, trusted=trusted, findings=transaction.findings)
        return self._proven

    def _kept(
        self, n: int, fate: CopyFate, findings: tuple[Finding, ...], verdicts: Sequence[Verdict]
    ) -> tuple[Finding, ...]:
        """What the store keeps with the copy of recipient `n`, should it be held: for people, and for who judges it again."""
        holders = (*self._early(n), *(self._holders[n] if self._holders else ()))
        found = verdicts[n].findings if verdicts and fate.fate is not Fate.UNDECIDED else ()
        return kept_findings(holders, findings, found)

    def _answers(self, decision: Decision, verdicts: Sequence[Verdict], accepted: Reply) -> Sequence[Reply]:
        """What the sender hears when it is durable, or is not."""
        if not decision.each:
            return self._transaction.same_for_all(accepted)
        answers = [
            self._said(verdicts[n], recipient.address) if decision.fates[n].fate is Fate.REFUSED else accepted
            for n, recipient in enumerate(self._transaction.recipients)
        ]
        if not self._profile.lmtp:
            is_taken = any(one.fate is not Fate.REFUSED for one in decision.fates)
            answers.append(accepted if is_taken else replies.deferred_for_all(self._id))
        return answers

    def _reply_to(self, verdict: Verdict) -> Reply:
        if isinstance(verdict, Refuse):
            return verdict.reply or replies.refused_by_policy(self._id, verdict.enhanced)
        said = verdict.reply if isinstance(verdict, Defer) else None
        return said or replies.deferred_by_policy(self._id, getattr(verdict, "enhanced", "4.7.1"))

    def _said(self, verdict: Verdict, address: Address | None, *, is_for_all: bool = False) -> Reply:
        """The refusal, or the *later*, that the sender hears."""
        reply = replies.deferred_for_all(self._id) if is_for_all else self._reply_to(verdict)
        return self._transaction.refused("content", reply, getattr(verdict, "why", ""), address)

    # --- edits ---

    async def _edited(self, content: Content, envelope: Envelope) -> Edited | Reply:
        """What the modifiers have made of it, or the refusal."""
        transaction = self._transaction
        try:
            edited = await Editing(self._profile, self._id).edited(
                envelope, WorkingCopy.of(envelope, content, transaction.routes)
            )
        except OSError as error:
            return transaction.refused("content", replies.cannot_process(self._id), f"the edited message: {error}")
        refusal = transaction.weigh("content", edited.judgement)
        if refusal is not None:
            return refusal
        if edited.fault:
            return transaction.refused("content", replies.cannot_process(self._id), edited.fault)
        transaction.sender = edited.draft.sender
        transaction.has_file = edited.draft.content.path is not None
        return edited

    def _traced(self, content: Content, envelope: Envelope) -> Content:
        """With our own Received field (RFC 5321 section 4.4)."""
        transaction, profile = self._transaction, self._profile
        hidden = profile.hides_clients and bool(transaction.peer.login)
        return content.with_prefix(received(envelope, hostname=profile.hostname, hide_client=hidden))

    # --- the commit ---

    async def _commit(
        self, envelope: Envelope, content: Content, original: Content, copies: Copies, decision: Decision | None = None
    ) -> Reply:
        """What the sender hears of the copies that are taken."""
        transaction = self._transaction
        fates: Sequence[CopyFate] = () if decision is None else decision.fates
        if copies.destinations:
            accepted = await self._committed(envelope, content, copies)
        else:  # a modifier has left nobody who would get it, or nobody wanted it
            accepted = replies.queued(self._id)
        if accepted.code < 400 and not (fates and all(one.fate is Fate.REFUSED for one in fates)):
            transaction.afterwards(self._tell_accepted, content, original, fates)
            for why, recipients in copies.in_junk.items():
                transaction.afterwards(self._tell_junk, why, recipients)
            for recipient, (fate, why) in zip(transaction.recipients, fates, strict=False):
                if fate is Fate.DISCARDED:
                    transaction.afterwards(transaction.note, "discarded", recipients=[str(recipient.address)], why=why)
        return accepted

    async def _committed(self, envelope: Envelope, content: Content, copies: Copies) -> Reply:
        """What the sender hears: once it is durable, or why it is not."""
        transaction = self._transaction
        posting = transaction.posting
        if posting is not None:
            objection = await posting.charge()
            if objection is not None:
                return transaction.refused("commit", objection.reply, objection.why)
        answer = replies.queued(self._id)
        transaction.file_is_queues = True
        try:
            await self._profile.store.commit(envelope, content, copies.destinations, copies.set_apart)
        except CancelledError:  # nobody knows what has become of it: the file must stay, and whoever waits hears "later"
            raise
        except Exception as error:  # noqa: BLE001  # whatever it was, it is not durable
            transaction.file_is_queues = isinstance(error, StorageFault) and error.may_come_back
            answer = self._not_committed(error)
        if posting is not None:
            transaction.afterwards(posting.settle, answer.code < 400)
        return answer

    def _not_committed(self, error: Exception) -> Reply:
        if isinstance(error, StorageFull):
            return self._transaction.refused("commit", replies.storage_full(self._id), str(error))
        if not isinstance(error, StorageBroken):
            log.failure("{id}: the queue could not take the message", id=self._id)
        why = f"{type(error).__name__}: {error}"
        return self._transaction.refused("commit", replies.storage_broken(self._id), why)

    # --- what is told ---

    def _refused(self, reply: Reply, why: str) -> Sequence[Reply]:
        transaction = self._transaction
        return transaction.same_for_all(transaction.refused("content", reply, why))

    def _tell_accepted(self, content: Content, original: Content, fates: Sequence[CopyFate]) -> None:
        transaction = self._transaction
        recipients = [str(one.address) for one in transaction.recipients]
        if fates:
            recipients = [text for text, (fate, _) in zip(recipients, fates, strict=True) if fate is not Fate.REFUSED]
        self._profile.note(
            self._id,
            "accepted",
            connection=transaction.connection,
            peer=transaction.peer.address,
            hello=transaction.peer.hello,
            sender=str(transaction.sender) if transaction.sender is not None else "",
            recipients=recipients,
            size=content.size,
            message_id=message_id(original),
            **({"requiretls": True} if transaction.parameters.requiretls else {}),
        )

    def _tell_junk(self, why: str, recipients: list[str]) -> None:
        self._profile.note(self._id, "junk", recipients=recipients, why=why)
