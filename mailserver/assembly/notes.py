"""Joins the notes to postmaster to the server's parts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from mailserver.config import Configuration
from mailserver.mail.address import Address
from mailserver.mail.answers import Route
from mailserver.mail.content import Content
from mailserver.mail.envelope import Envelope
from mailserver.mail.ids import IdSource
from mailserver.observe import Steps
from mailserver.postmaster.notes import Notes, Problem
from mailserver.postmaster.problems import Problems
from mailserver.processes.small import SmallProcesses
from mailserver.queue.queue import Queue
from mailserver.relay.heard_meanings import HeardMeaning
from mailserver.state_store import StateStore
from mailserver.tls import Certificates

__all__ = ["make_notes"]


class ServerParts(Protocol):
    """What is needed of the server."""

    reactor: Any
    queue: Queue
    processes: SmallProcesses
    certificates: Certificates | None
    state: StateStore
    ids: IdSource
    steps: Steps

    def relay_doubts(self) -> Sequence[str]: ...

    def domain_table(self, domain: str) -> str: ...

    def meanings_heard(self) -> Sequence[HeardMeaning]: ...


def make_notes(
    configuration: Configuration,
    server: ServerParts,
    route: Callable[[Address], Awaitable[Sequence[Route]]],
    sign: Callable[[Envelope, Content], Awaitable[Content | None]],
    others: Callable[[], Sequence[Problem]],
) -> Notes:
    """The notes, which are not started yet; `others` are problems that somebody else has found."""
    queue = server.queue
    problems = Problems(
        clock=server.reactor,
        queue=queue,
        missing=server.processes.missing,
        doubts=lambda: () if server.certificates is None else server.certificates.doubts,
        relay_doubts=server.relay_doubts,
        meanings_heard=server.meanings_heard,
        others=others,
        is_own=lambda id: notes.is_own(id),
        domain_table=server.domain_table,
        names=configuration.log.addresses == "full",
    )
    notes = Notes(
        hostname=configuration.hostname,
        clock=server.reactor,
        state=server.state.space("notes"),
        steady_seconds=server.state.seconds,
        problems=problems,
        route=route,
        commit=queue.commit,
        has_room=lambda octets: queue.writable and queue.room_for(octets),
        next_id=server.ids.next,
        note=server.steps.note,
        sign=sign,
    )
    return notes
