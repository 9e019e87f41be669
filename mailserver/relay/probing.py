"""Asks a host up to RCPT, as the relay would, and sends no message: what is said to it, its TLS, and what it answers.

It goes over a connection of its own, which ends with QUIT (RFC 5321 section 4.1.1.10: that gives the transaction up).  The pool
neither counts it nor learns from it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import ClientFactory
from twisted.python.failure import Failure

from mailserver.mail.answers import Delivered, Failed, Outcome
from mailserver.mail.content import Content
from mailserver.mail.reply import Reply
from mailserver.relay.conclusions import Conclusion, HandshakeFacts
from mailserver.relay.connections import Connections
from mailserver.relay.fallbacks import Fallbacks, TLSStep
from mailserver.relay.pool import ConnectionRecord, RecordState
from mailserver.relay.protocol import RelayProtocol
from mailserver.relay.transmission import Target, Transmission
from mailserver.smtp.client import events
from mailserver.smtp.client.session import Phase, Request

__all__ = ["ProbedHost", "probed"]

CONNECT_SECONDS, QUIT_SECONDS = 15.0, 5.0
ACCEPTED = Reply.of(250, "2.1.5", "Accepted")


@dataclass(frozen=True, slots=True)
class ProbedHost:
    """What one address has said.  `is_answer`: it is an answer to RCPT (or MAIL), so that no other host is asked."""

    target: Target
    reply: Reply
    verdict: str  # accepted, refused, deferred, unreachable
    is_answer: bool
    facts: HandshakeFacts
    conclusion: str
    own_address: str
    seconds: float
    dialogue: Sequence[str]

    def as_facts(self) -> dict[str, Any]:
        """In plain values."""
        target, facts, demand = self.target, self.facts, self.target.demand
        return {
            "host": target.host,
            "address": target.key.address,
            "port": target.key.port,
            "from": self.own_address,
            "route": target.route,
            "login": target.login is not None,
            "demanded": demand.mode.value,
            "by": demand.source.value,
            "why": demand.why,
            "tls": str(facts),
            "version": facts.version,
            "cipher": facts.cipher,
            "group": facts.group,
            "match": facts.match,
            "fault": facts.detail,
            "conclusion": self.conclusion,
            "verdict": self.verdict,
            "reply": str(self.reply),
            "ms": round(self.seconds * 1000),
            "dialogue": list(self.dialogue),
        }


async def probed(connections: Connections, targets: Sequence[Target], request: Request) -> list[ProbedHost]:
    """Ask them in their order, up to the first that answers about the recipient.  Cancelling it ends the connection."""
    found: list[ProbedHost] = []
    for target in targets:
        fallbacks = Fallbacks(connections.seconds)  # of its own: what a probe meets says nothing to the mail
        step: TLSStep | None = connections.tls_step(target)
        while step is not None:
            attempt = _Attempt(connections, target, request, step, fallbacks)
            found.append(await attempt.begin())
            step = attempt.next_step
        if found[-1].is_answer:
            break
    return found


class _Attempt(ClientFactory):
    """One connection; an `Owner` of it."""

    noisy = False

    def __init__(
        self, connections: Connections, target: Target, request: Request, step: TLSStep, fallbacks: Fallbacks
    ) -> None:
        self.next_step: TLSStep | None = None
        self.waits: Mapping[Phase, float] = connections.waits
        self.contexts = connections.contexts
        self.wall_clock: Callable[[], float] = connections.wall_clock
        self.seconds = connections.seconds
        self.run_in_thread = connections.run_in_thread
        self._connections = connections
        self._target = target
        self._request = request
        self._step = step
        self._fallbacks = fallbacks
        self._began = self.seconds()
        self._facts = HandshakeFacts()
        self._conclusion = ""
        self._protocol: RelayProtocol | None = None
        self._connector: Any = None
        self._quitting: Any = None
        self._done: Deferred[ProbedHost] = Deferred(self._given_up)

    def begin(self) -> Deferred[ProbedHost]:
        """Connect.  The Deferred has what was found, whatever that is."""
        certificate = self._target.certificate
        if certificate is not None and certificate.fault:
            self._found(Reply.heard(451, "4.3.5", (f"No client certificate: {certificate.fault}"[:200],)), "unreachable")
            return self._done
        try:
            self._connector = self._connections.connect(self._target, self, CONNECT_SECONDS)
        except (OSError, ValueError) as error:
            self._found(Reply.heard(451, "4.4.1", (f"No connection: {error}"[:200],)), "unreachable")
        return self._done

    def _given_up(self, _: object) -> None:
        if self._protocol is not None:
            self._protocol.give_up()
            self._protocol.transport.abortConnection()
        elif self._connector is not None:
            with contextlib.suppress(Exception):
                self._connector.disconnect()

    def _found(self, reply: Reply, verdict: str, *, is_answer: bool = False) -> None:
        if self._done.called:
            return
        protocol = self._protocol
        lines = () if protocol is None else protocol.session.dialogue.lines(0 if is_answer else None)
        own = "" if protocol is None else protocol.own_address
        took = self.seconds() - self._began
        self._done.callback(
            ProbedHost(
                self._target, reply, verdict, is_answer, self._facts, self._conclusion, own, took, tuple(lines)
            )
        )

    # --- the factory ---

    def buildProtocol(self, addr: Any) -> RelayProtocol:
        record = ConnectionRecord(self._target.key, self.seconds())
        session = self._connections.session_for(self._target)
        self._protocol = RelayProtocol(session, record, self._target, self)
        return self._protocol

    def clientConnectionFailed(self, connector: Any, reason: Failure) -> None:
        words = reason.getErrorMessage().rstrip(".") or type(reason.value).__name__
        self._found(Reply.heard(451, "4.4.1", (f"No connection: {words}"[:200],)), "unreachable")

    # --- the owner (`mailserver.relay.protocol.Owner`) ---

    def tls_step(self, target: Target) -> TLSStep:
        return self._step

    def calls_itself_like_us(self, host: str, target: Target) -> bool:
        return self._connections.calls_itself_like_us(host, target)

    def opened(self, connection: RelayProtocol) -> None:
        connection.record.state = RecordState.BUSY
        nobody: Callable[..., None] = lambda *_: None  # noqa: E731
        connection.begin(Transmission(self._request, Content.of(b""), (0,), (self._target,), nobody, nobody))

    def unusable(self, connection: RelayProtocol, why: Reply) -> None:
        connection.record.state = RecordState.GONE
        self._found(why, "unreachable")

    def tls_concluded(self, connection: RelayProtocol, facts: HandshakeFacts, conclusion: Conclusion) -> None:
        self._facts, self._conclusion = facts, conclusion.outcome.value

    def tls_broken(self, connection: RelayProtocol, why: str) -> bool:
        allows_clear = self._target.demand.allows_clear and not self._target.implicit_tls
        self.next_step = self._fallbacks.failed(
            self._target.key, self._step, allows_clear=allows_clear, said_hello=connection.has_said_hello
        )
        if self.next_step is None:
            return False
        connection.record.state = RecordState.GONE
        self._found(Reply.heard(451, "4.7.5", (f"TLS could not be established: {why}"[:200],)), "unreachable")
        return True

    def over(self, connection: RelayProtocol, transmission: Transmission, done: events.Done, lost: bool) -> None:
        outcome: Outcome = done.outcomes[0]
        if isinstance(outcome, Delivered):
            self._found(done.content_reply or ACCEPTED, "accepted", is_answer=True)
        else:
            verdict = "refused" if isinstance(outcome, Failed) else "deferred"
            self._found(outcome.reply, verdict, is_answer=isinstance(outcome, Failed) or (bool(outcome.phase) and not lost))
        if not lost:
            connection.quit()
            self._quitting = self._connections.call_later(QUIT_SECONDS, self._abort)

    def ended(self, connection: RelayProtocol) -> None:
        """No more commands will be sent."""

    def closed(self, connection: RelayProtocol) -> None:
        connection.record.state = RecordState.GONE
        if self._quitting is not None and self._quitting.active():
            self._quitting.cancel()
        self._found(Reply.of(451, "4.4.2", "The connection was lost"), "unreachable")

    def _abort(self) -> None:
        if self._protocol is not None:
            self._protocol.transport.abortConnection()
