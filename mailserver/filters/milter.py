"""Asks a milter: OpenDKIM, OpenDMARC, rspamd's proxy and whatever else speaks Sendmail's milter protocol (version 6).

The milter hears each step of an SMTP connection when it happens (`milter_session`).  The message itself goes to it when the
modifiers are asked, so that each milter sees what those before it have changed.
"""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of
from typing import Annotated, Any

from pydantic import Field
from twisted.logger import Logger
from zope.interface import implementer

from mailserver.api import (
    Content,
    Count,
    Defer,
    Discard,
    Disconnect,
    Duration,
    Edit,
    Envelope,
    FilterNotes,
    Finding,
    IComponent,
    IComponentFactory,
    IContentFilter,
    IModifier,
    InReactor,
    IPeerEnd,
    IPeerFilter,
    IRecipientFilter,
    ISenderFilter,
    ITransactionEnd,
    Options,
    Pass,
    Peer,
    Recipient,
    Refuse,
    ReplaceBody,
    Services,
    Size,
    TransactionEnd,
    Verdict,
)
from mailserver.filters.milter_answers import Accepted, Answer, Continued, Declined, Discarded, ShutDown, Skipped
from mailserver.filters.milter_changes import changed
from mailserver.filters.milter_connection import MilterFailed, MilterPool
from mailserver.filters.milter_session import MilterSession, SessionFacts, Verdicted
from mailserver.filters.milter_wire import MilterFault

__all__ = ["Milter", "MilterOptions", "factory", "verdict_of"]

log = Logger()
NOBODY: tuple[None, None] = (None, None)
Seconds = Annotated[Duration, Field(gt=0)]


class MilterOptions(Options):
    """Where the milter is, and how long it is waited for."""

    endpoint: str
    """Where it is: `unix:/run/opendkim/opendkim.sock`, `tcp:127.0.0.1:8891`; also as Postfix writes it, `inet:127.0.0.1:8891`."""
    connections: Count = 100
    """How many SMTP connections have one to it at once. Those that are between messages give theirs up where it is wanted."""
    connect_timeout: Seconds = 10.0
    """How long a connection to it may take, with its turn and the agreement."""
    command_timeout: Seconds = 20.0
    """How long an answer to one of the commands up to DATA may take."""
    content_timeout: Seconds = 25.0
    """How long an answer to a field, a piece of the body or the end may take; a milter that says that it still works gets as long
    again. The table's `deadline` is the end of all that."""
    reuse: bool = False
    """Whether a connection serves another SMTP connection afterwards (QUIT_NC): rspamd's proxy can, programs with libmilter
    cannot."""
    daemon_name: str = ""
    """The macro `{daemon_name}`; without it `hostname`."""
    client_names: bool = True
    """Whether the client's confirmed name is looked up and told."""
    body: Size = 64 * 1024 * 1024
    """A milter that puts a larger body in place of the message's has failed."""


@implementer(
    IComponent, IPeerFilter, ISenderFilter, IRecipientFilter, IContentFilter, IModifier, ITransactionEnd, IPeerEnd
)
class Milter:
    """A session with the milter for each SMTP connection, known by its notes, which live as long as that does."""

    cost = 200.0

    def __init__(self, pool: MilterPool, facts: SessionFacts, metrics: Any, in_reactor: InReactor) -> None:
        self._pool = pool
        pool.make_room = self._make_room
        self._facts = facts
        self._metrics = metrics
        self._in_reactor = in_reactor
        # By the notes' id, with what tells whether that is theirs still; who was asked last stands last.
        self._sessions: OrderedDict[int, tuple[weakref.ref[FilterNotes], MilterSession]] = OrderedDict()

    async def start(self) -> None:
        """The milter need not be there yet."""

    async def stop(self) -> None:
        """Close the connections."""
        self._pool.stop()
        sessions = list(self._sessions.values())
        self._sessions.clear()
        for _, session in sessions:
            session.release()

    # --- the steps ---

    async def judge_peer(self, peer: Peer) -> Verdict:
        """At connect, and when the peer has said its name."""
        return self._verdict(await self._session(peer).judge_peer(peer), "helo" if peer.hello else "connect", closes=True)

    async def judge_sender(self, envelope: Envelope) -> Verdict:
        """At MAIL."""
        return self._verdict(await self._session(envelope.peer).judge_sender(envelope), "mail", closes=True)

    async def judge_recipient(self, envelope: Envelope, recipient: Recipient) -> Verdict:
        """At RCPT.  What is said of the message as a whole is said again after the data."""
        answer = await self._session(envelope.peer).judge_recipient(envelope, recipient)
        return Pass() if isinstance(answer, Discarded) else self._verdict(answer, "rcpt")

    async def judge_content(self, envelope: Envelope, content: Content) -> Verdict:
        """DATA: from here on the milter knows who gets the message."""
        return self._verdict(await self._session(envelope.peer).begin_data(envelope), "data")

    async def edits(self, envelope: Envelope, content: Content) -> Sequence[Edit] | Discard | Refuse | Defer:
        """The message, and what the milter wants to have changed."""
        found = await self._session(envelope.peer).judge_message(envelope, content)
        verdict = self._verdict(found.answer, "message")
        if isinstance(verdict, Refuse | Defer | Discard):
            return verdict
        return self._edits(found, envelope)

    async def ended(self, envelope: Envelope, how: TransactionEnd) -> None:
        """The transaction is over."""
        session = self._known(envelope.peer)
        if session is None:
            return
        session.end_message(envelope.id)
        if session.is_over or envelope.peer.address == "local":  # nobody tells of a local program's end
            self._forget(envelope.peer)

    async def disconnected(self, peer: Peer) -> None:
        """The peer is gone.  A message that it has left may still be on its way."""
        session = self._known(peer)
        if session is not None and session.is_in_message:
            session.over()
        else:
            self._forget(peer)

    def _known(self, peer: Peer) -> MilterSession | None:
        notes, session = self._sessions.get(id(peer.notes), NOBODY)
        return session if notes is not None and notes() is peer.notes else None

    def _session(self, peer: Peer) -> MilterSession:
        session, key = self._known(peer), id(peer.notes)
        if session is None:
            session = MilterSession(self._pool, self._facts)
            # Whoever is told of no end (a reload has brought this filter amid a message) is forgotten with the notes.
            notes = weakref.ref(peer.notes, lambda notes: self._lost(notes, key))
            self._replaced(key)
            self._sessions[key] = notes, session
        self._sessions.move_to_end(key)
        return session

    def _lost(self, notes: weakref.ref[FilterNotes], key: int) -> None:
        """In whichever thread has let go of them last."""
        with suppress(RuntimeError):  # the server has stopped
            self._in_reactor(self._end_of, notes, key)

    def _end_of(self, notes: weakref.ref[FilterNotes], key: int) -> None:
        if self._sessions.get(key, NOBODY)[0] is notes:
            self._replaced(key)

    def _replaced(self, key: int) -> None:
        """Whose notes are gone, nobody asks about any more."""
        _, session = self._sessions.pop(key, NOBODY)
        if session is not None:
            session.release()

    def _make_room(self) -> None:
        """Somebody between two messages is told all over again when he sends the next one."""
        idle = next((session for _, session in self._sessions.values() if session.is_idle), None)
        if idle is not None:
            idle.release()

    def _forget(self, peer: Peer) -> None:
        _, session = self._sessions.pop(id(peer.notes), NOBODY)
        if session is not None:
            session.over()

    # --- what follows ---

    def _verdict(self, answer: Answer, stage: str, *, closes: bool = False) -> Verdict:
        self._metrics.count("answers", stage=stage, answer=type(answer).__name__.lower())
        return verdict_of(answer, stage, closes=closes)

    def _edits(self, found: Verdicted, envelope: Envelope) -> Sequence[Edit] | Discard:
        if not isinstance(found.answer, Continued | Accepted):
            raise MilterFailed(f"no answer to a message: {found.answer}")
        try:
            made = changed(
                found.changes, found.names, found.own, envelope.recipients, leading_space=found.leading_space
            )
        except MilterFault as fault:
            raise MilterFailed(f"the milter is not understood: {fault}") from fault
        for why in made.left_out:
            log.warn("{id}: a milter wants what cannot be done: {why}", id=envelope.id, why=why)
        if made.discard is not None:
            return made.discard
        return made.edits if found.body is None else [*made.edits, ReplaceBody(found.body.pieces())]


def verdict_of(answer: Answer, stage: str, *, closes: bool = False) -> Verdict:
    """What an answer means at this stage; `closes`: the connection can be closed there (421).

    `Accepted` is no Accept: the milter wants to hear no more, and what other filters say counts all the same.
    """
    match answer:
        case Continued() | Accepted() | Skipped():
            return Pass()
        case Discarded():
            return Discard("a milter says so", findings=_found("discard", stage))
        case ShutDown():
            why, findings = "a milter wants the connection closed", _found("shutdown", stage)
            return Disconnect(why, findings=findings) if closes else Defer(why, findings=findings)
        case Declined(is_transient, reply):
            findings = _found("tempfail" if is_transient else "reject", stage, "" if reply is None else str(reply))
            enhanced = "" if reply is None else reply.enhanced
            if is_transient:
                return Defer(f"a milter: {answer}", enhanced or "4.7.1", findings=findings, reply=reply)
            return Refuse(f"a milter: {answer}", enhanced or "5.7.1", findings=findings, reply=reply)


def _found(action: str, stage: str, words: str = "") -> tuple[Finding, ...]:
    return (Finding("milter", 0.0, words or action, {"action": action, "stage": stage}),)


def _endpoint(given: str) -> str:
    """Postfix and Sendmail have names of their own for two of Twisted's endpoints."""
    kind, _, rest = given.partition(":")
    if kind == "inet":
        host, _, port = rest.rpartition(":")
        if "@" in rest:  # Sendmail: inet:port@host
            port, _, host = rest.partition("@")
        return f"tcp:{host.strip('[]').replace(':', chr(92) + ':')}:{port}"
    return f"unix:{rest}" if kind == "local" else given


def _version() -> str:
    try:
        return f"mailserver {version_of('mailserver')}"
    except PackageNotFoundError:
        return "mailserver"


@implementer(IComponentFactory)
class MilterFactory:
    """Makes the filter for ``[[filter]] use = "milter"``."""

    name = "milter"
    summary = "Asks a milter: OpenDKIM, OpenDMARC, rspamd's proxy and every other."
    api_version = "1.1"
    provides = (IPeerFilter, ISenderFilter, IRecipientFilter, IContentFilter, IModifier, ITransactionEnd, IPeerEnd)
    options = MilterOptions

    def build(self, options: Any, services: Services) -> Milter:
        """Return the filter.  Raises ValueError for an endpoint that is none."""
        from twisted.internet import reactor

        pool = MilterPool(
            endpoint=_endpoint(options.endpoint),
            connections=options.connections,
            connect_seconds=options.connect_timeout,
            reuses=options.reuse,
            reactor=reactor,
            clock=services.clock,
            seconds=services.steady_seconds,
        )
        facts = SessionFacts(
            hostname=services.hostname,
            version=_version(),
            daemon_name=options.daemon_name or services.hostname,
            client_names=options.client_names,
            command_seconds=options.command_timeout,
            content_seconds=options.content_timeout,
            body_octets_most=options.body,
            run_in_thread=services.run_in_thread,
            clock=services.clock,
        )
        return Milter(pool, facts, services.metrics, services.in_reactor)


factory = MilterFactory()
