"""What the modifiers make of a message: one after another, each sees what those before it have made.

A modifier's edits are made all together or not at all.  Where one of them does not fit the message (a field that is not there, a
recipient who is none, bounds that do not hold), the modifier has failed: its `on_error` says what that means.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger

from mailserver.mail.address import Address, AddressError
from mailserver.mail.answers import Local, Pass, Refused, Remote
from mailserver.mail.content import Content
from mailserver.mail.durable import sync_directory
from mailserver.mail.edits import (
    AddHeader,
    AddRecipient,
    ChangeHeader,
    ChangeSender,
    DropHeader,
    Edit,
    EditError,
    HeaderEdit,
    InsertHeader,
    PutAside,
    ReplaceBody,
    ReplaceRecipient,
    apply_edits,
)
from mailserver.mail.eight_bit import is_signed
from mailserver.mail.envelope import Envelope, Recipient
from mailserver.mail.long_lines import short_lines
from mailserver.mail.quick import quick
from mailserver.mail.set_apart import Holder, with_holders
from mailserver.plugins.awaiting import FAULTS, within
from mailserver.receive.bound_filter import Question
from mailserver.receive.judgement import FilterAnswer, Judgement, judgement_of
from mailserver.receive.judging import Judging
from mailserver.receive.new_body import DiskGate, take_in
from mailserver.receive.profile import Profile
from mailserver.receive.spooling import Spooling

__all__ = ["signed", "ROUTES_MOST", "WorkingCopy", "Edited", "Editing", "Way"]

log = Logger()

# Routes of all recipients of one message, but for the first one's (more where more recipients are allowed): aliases multiply
# them, and what is done for each route is done while other connections wait.
ROUTES_MOST = 5000
AT_ONCE_OCTETS = 131_072  # of a message in memory that is looked at and encoded without a thread


@quick
@dataclass(frozen=True, slots=True)
class Way:
    """Where the copy of one recipient goes: an address, and its routes."""

    address: Address
    routes: tuple[Local | Remote, ...]


@quick
@dataclass(frozen=True, slots=True)
class WorkingCopy:
    """A message that is being edited.

    `ways` has those of each recipient of the transaction, in their order, then of each of `added`, who was none.  `aside`
    are those who want all copies put aside.
    """

    content: Content
    sender: Address | None
    ways: tuple[tuple[Way, ...], ...]
    added: tuple[Recipient, ...] = ()
    aside: tuple[Holder, ...] = ()

    @classmethod
    def of(cls, envelope: Envelope, content: Content, routes: Sequence[Sequence[Local | Remote]]) -> WorkingCopy:
        """The message as it came."""
        ways = [(Way(one.address, tuple(his)),) for one, his in zip(envelope.recipients, routes, strict=True)]
        return cls(content, envelope.sender, tuple(ways))

    @property
    def routes(self) -> list[Sequence[Local | Remote]]:
        """The routes of each recipient of the transaction, and of each who was added."""
        return [[route for way in ways for route in way.routes] for ways in self.ways]

    def envelope(self, envelope: Envelope) -> Envelope:
        """What the next modifier sees."""
        recipients = [
            recipient if way.address == recipient.address else Recipient(way.address, recipient.parameters)
            for recipient, ways in zip((*envelope.recipients, *self.added), self.ways, strict=True)
            for way in ways
        ]
        sent_on = any(isinstance(route, Remote) for routes in self.routes for route in routes)
        return Envelope(
            envelope.id,
            envelope.peer,
            self.sender,
            tuple(recipients),
            envelope.received_at,
            envelope.parameters,
            envelope.findings,
            sent_on,
        )


@quick
@dataclass(frozen=True, slots=True)
class Edited:
    """What came of it.  `fault` says what kept an edit from being made that was nobody's fault: the message is deferred."""

    draft: WorkingCopy
    judgement: Judgement
    fault: str = ""


class CannotTellRoute(Exception):
    """The router has failed: not the modifier."""


class Editing:
    """The edits of one message.  `id` is the message's."""

    def __init__(self, profile: Profile, id: str) -> None:
        self._profile = profile
        self._path = profile.store.spool_path(id)
        self._id = id
        self._bodies: list[Spooling] = []
        self._files: list[str] = []

    async def edited(self, envelope: Envelope, draft: WorkingCopy) -> Edited:
        """Ask the modifiers.  Raises OSError where what they have made cannot be put into its place."""
        try:
            edited = await self._ask_all(envelope, draft)
            content = await self._settled(edited.draft.content, draft.content)
            return edited if content is edited.draft.content else replace(edited, draft=replace(edited.draft, content=content))
        finally:
            for spooling in self._bodies:
                spooling.release()
            for file in self._files:
                with suppress(FileNotFoundError):
                    os.unlink(file)

    async def _ask_all(self, envelope: Envelope, draft: WorkingCopy) -> Edited:
        """The modifiers, then the signers.

        What they have signed and nobody else has is 7-bit text from then on, so that no host on the way has to encode it.  Only
        they know whether they sign, so what is not is encoded then, and they are asked once more.
        """
        judging, service = self._profile.judging, envelope.peer.service
        edited = await self._ask(judging.modifiers(service), envelope, draft)
        signers = judging.signers(service)
        if not signers or edited.fault or not isinstance(edited.judgement.verdict, Pass):
            return edited
        signed = await self._ask(signers, envelope, edited.draft)
        unsigned = edited.draft.content
        if not signed.fault and is_signed(signed.draft.content.headers) and not is_signed(unsigned.headers):
            encoded = await self._encoded(unsigned)
            if encoded is not unsigned:
                signed = await self._ask(signers, envelope, replace(edited.draft, content=encoded))
        return replace(signed, judgement=judgement_of((*edited.judgement.answers, *signed.judgement.answers)))

    async def _encoded(self, content: Content) -> Content:
        """Raises OSError."""
        if content.data is not None and len(content.data) <= AT_ONCE_OCTETS:
            return short_lines(content, seven_bit=True)
        encoded: Content = await self._profile.spool.run_in_thread(partial(short_lines, content, seven_bit=True))
        return encoded

    async def _ask(self, modifiers: Sequence[Question], envelope: Envelope, draft: WorkingCopy) -> Edited:
        judging = self._profile.judging
        answers: list[FilterAnswer] = []
        for modifier in modifiers:
            began = modifier.seconds()
            judgement = judging.modify(modifier, draft.envelope(envelope), draft.content)
            if isinstance(judgement, Deferred):
                judgement = await judgement
            for answer in judgement.answers:
                if answer.edits and not answer.is_shadow:
                    try:
                        draft = await self._with_edits(draft, answer.edits, modifier)
                    except (CannotTellRoute, OSError) as error:
                        return Edited(draft, judgement_of([*answers, answer]), f"an edit cannot be made: {error}")
                    except CancelledError:
                        raise
                    except FAULTS as error:
                        answer = replace(modifier.failed(error, began), edits=answer.edits)
                answers.append(answer)
                if not answer.is_shadow and not isinstance(answer.verdict, Pass):
                    return Edited(draft, judgement_of(answers))
        return Edited(draft, judgement_of(answers))

    async def _with_edits(self, draft: WorkingCopy, edits: Sequence[Edit], modifier: Question) -> WorkingCopy:
        """All of them, or an error."""
        limits = self._profile.limits
        header: list[HeaderEdit] = []
        for edit in edits:
            match edit:
                case AddHeader() | InsertHeader() | ChangeHeader() | DropHeader():
                    header.append(edit)
                    continue
                case ReplaceBody():
                    draft, header = replace(draft, content=apply_edits(draft.content, header)), []
                    draft = replace(draft, content=await self._with_body(draft.content, edit, modifier))
                case ChangeSender():
                    draft = replace(draft, sender=edit.sender)
                case ReplaceRecipient():
                    draft = await self._with_recipient(draft, edit)
                case AddRecipient():
                    draft = await self._with_another(draft, edit)
                case PutAside(why):
                    holder = Holder(modifier.bound.name, modifier.stage, why or "quarantine")
                    draft = replace(draft, aside=with_holders(draft.aside, (holder,)))
        draft = replace(draft, content=apply_edits(draft.content, header))
        content = draft.content
        if len(content.head) > limits.header_octets:
            raise EditError(f"the header section would have more than {limits.header_octets} octets")
        if content.size > limits.message_octets:
            raise EditError(f"the message would have more than {limits.message_octets} octets")
        if not any(draft.ways):
            raise EditError("nobody would get the message: who wants that answers with Discard")
        return draft

    async def _with_body(self, content: Content, edit: ReplaceBody, modifier: Question) -> Content:
        profile = self._profile
        path = f"{self._path}.edit{len(self._files)}"  # a crash leaves it to the sweep of the spool: no entry has that name
        gate = DiskGate()
        spooling = Spooling(path=path, spool=profile.spool, pause=gate.close, resume=gate.open)
        self._bodies.append(spooling)
        self._files.append(path)
        taking = Deferred.fromCoroutine(
            take_in(edit, content, spooling, gate, octets_most=profile.limits.message_octets, clock=profile.clock)
        )
        try:
            return await within(modifier.bound.deadline_seconds, taking, profile.clock)
        except BaseException:
            spooling.abandon()
            raise

    async def _with_recipient(self, draft: WorkingCopy, edit: ReplaceRecipient) -> WorkingCopy:
        if all(way.address != edit.recipient for ways in draft.ways for way in ways):
            raise EditError(f"{edit.recipient} is to be replaced and is no recipient")
        found = [Way(address, await self._routes(address)) for address in edit.replacements]
        ways = [
            tuple([new for way in ways for new in (found if way.address == edit.recipient else (way,))]) for ways in draft.ways
        ]
        return replace(draft, ways=self._bounded(ways))

    async def _with_another(self, draft: WorkingCopy, edit: AddRecipient) -> WorkingCopy:
        his = (Way(edit.recipient, await self._routes(edit.recipient)),)
        added = (*draft.added, Recipient(edit.recipient, edit.parameters))
        return replace(draft, ways=self._bounded([*draft.ways, his]), added=added)

    def _bounded(self, ways: Sequence[tuple[Way, ...]]) -> tuple[tuple[Way, ...], ...]:
        limits = self._profile.limits
        if sum(map(len, ways)) > limits.recipients:
            raise EditError(f"there would be more than {limits.recipients} recipients")
        most = max(ROUTES_MOST, limits.recipients)
        if sum(len(way.routes) for his in ways for way in his) > most:
            raise EditError(f"there would be more than {most} routes")
        return tuple(ways)

    async def _routes(self, address: Address) -> tuple[Local | Remote, ...]:
        try:
            routes = await self._profile.router.route(address)
        except AddressError as error:
            raise EditError(f"{address} cannot be a recipient: {error}") from error
        except CancelledError:
            raise
        except FAULTS as error:  # whatever a directory raises means "cannot tell"
            log.failure("{id}: no route for another recipient could be found out", id=self._id)
            raise CannotTellRoute("the router failed") from error
        usable: list[Local | Remote] = []
        for route in routes:
            if isinstance(route, Refused) or (isinstance(route, Remote) and not self._profile.relays):
                raise EditError(f"{address} cannot be a recipient: it has no route")
            usable.append(route)
        return tuple(usable)

    async def _settled(self, content: Content, original: Content) -> Content:
        """The content where the queue takes it from: its file, if there is one, has the message's own name."""
        if content.path in self._files:
            await self._profile.spool.run_in_thread(_rename, content.path, self._path)
            return Content.at(
                self._path, content.stored_size, prefix=content.prefix, binary=content.binary, skip=content.skip
            )
        if content.path is None and original.path is not None:
            with suppress(FileNotFoundError):
                os.unlink(original.path)
        return content


async def signed(judging: Judging, envelope: Envelope, content: Content) -> tuple[Content | None, Judgement]:
    """A message of our own with the fields of the signers in front, and what they have said; None where one cannot sign now."""
    answers: list[FilterAnswer] = []
    for signer in judging.signers("submission"):
        judgement = judging.modify(signer, envelope, content)
        if isinstance(judgement, Deferred):
            judgement = await judgement
        answers += judgement.answers
        obeyed = [answer for answer in judgement.answers if not answer.is_shadow]
        if not all(isinstance(answer.verdict, Pass) for answer in obeyed):
            return None, judgement_of(answers)
        fields = [edit for answer in obeyed for edit in answer.edits if isinstance(edit, AddHeader)]
        content = apply_edits(content, fields)
    return content, judgement_of(answers)


def _rename(old: str, new: str) -> None:
    os.replace(old, new)
    sync_directory(os.path.dirname(new))
