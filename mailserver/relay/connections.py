"""Opens, uses and closes connections as the pool decides, and sends what a host did not take to the next host."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import ClientFactory
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from mailserver.interfaces import Clock
from mailserver.interfaces.services import TapsConnections
from mailserver.mail import answers
from mailserver.mail.reply import Reply
from mailserver.relay.client_contexts import ClientContexts
from mailserver.relay.conclusions import Conclusion, HandshakeFacts, TLSSession
from mailserver.relay.conversion_forms import EightBit
from mailserver.relay.conversions import Conversions
from mailserver.relay.fallbacks import Fallbacks, TLSStep
from mailserver.relay.heard_meanings import HeardMeanings
from mailserver.relay.operators import PaceTable
from mailserver.relay.pool import ConnectionRecord, Pool, PoolLimits, RecordState
from mailserver.relay.protocol import RelayProtocol
from mailserver.relay.rate_replies import SlowDown, slow_down
from mailserver.relay.transmission import LACKS_REQUIRETLS, Meaning, Target, Transmission, meaning_of, told
from mailserver.smtp.client import events
from mailserver.smtp.client.offer import NOTHING_OFFERED
from mailserver.smtp.client.session import UNCERTAIN, ClientLimits, ClientSession, Phase
from mailserver.transport.channel_bindings import connection_of

__all__ = ["Connections"]

STOPPING = Reply.of(451, "4.3.2", "The server stops")
WAITED_TOO_LONG = Reply.of(451, "4.4.5", "No connection to the host became free")
OVER_THE_PACE = Reply.of(451, "4.4.5", "More mail waits for this destination than goes there in a minute")
NOT_TRIED = "not tried, which counts as no attempt"
WAITED_AGAIN_SECONDS = 300.0
NO_CERTIFICATE = Reply.of(451, "4.3.5", "The client certificate for the host cannot be read")
CHECK_SECONDS = 1.0


@dataclass(eq=False)
class _Opening(ClientFactory):
    """One attempt to connect."""

    owner: Connections
    record: ConnectionRecord
    target: Target

    noisy = False

    def buildProtocol(self, addr: Any) -> RelayProtocol:
        return self.owner.connected(self.record, self.target)

    def clientConnectionFailed(self, connector: Any, reason: Failure) -> None:
        self.owner.not_connected(self.record, self.target, reason)


class Connections:
    """All connections of one relay.

    `connect_tcp` is the reactor's connectTCP.  `own_name` is the name in EHLO; with `avoids_itself` a host of the same
    name counts as a loop.  With `lmtp` the protocol is LMTP.  `eight_bit` says what happens to 8-bit content for a
    host without 8BITMIME.  Large messages are converted in files in `directory`; `room_for(octets)` says whether its disk
    has room.  A transmission waits for a connection no longer than `waiting_seconds`.  `seconds`, where it is given, is a
    monotonic clock.  `recordings` is asked of each connection whether it is recorded.  `trust_root` are the authorities that
    are believed (Twisted's `IOpenSSLTrustRoot`), None for the system's.  With `resumes` TLS sessions are resumed.
    `paces` has the limits of each destination.
    """

    log = Logger()

    def __init__(
        self,
        *,
        clock: Clock,
        connect_tcp: Callable[..., Any],
        run_in_thread: Callable[..., Any],
        own_name: str,
        pool_limits: PoolLimits,
        client_limits: ClientLimits,
        avoids_itself: bool = False,
        lmtp: bool = False,
        eight_bit: EightBit = EightBit.CONVERT,
        directory: str = "",
        room_for: Callable[[int], bool] | None = None,
        seconds: Callable[[], float] | None = None,
        waiting_seconds: float = 600.0,
        recordings: TapsConnections | None = None,
        trust_root: Any = None,
        resumes: bool = True,
        paces: PaceTable | None = None,
    ) -> None:
        self.pool: Pool[Transmission] = Pool(pool_limits, paces)
        self.meanings = HeardMeanings()
        self.wall_clock = clock.seconds
        self.tls_seen: list[Callable[[TLSSession], None]] = []  # each is told how TLS began on each connection that wants it
        self.attempts_seen: list[Callable[[str, Sequence[answers.Outcome], bool], None]] = []  # host, outcomes, whether encrypted
        self.waits: Mapping[Phase, float] = {phase: client_limits.seconds(phase) for phase in Phase}
        self.seconds = seconds or clock.seconds
        self.contexts = ClientContexts(trust_root, resumes=resumes, seconds=self.seconds)
        self.run_in_thread = run_in_thread
        self._recordings = recordings
        self._fallbacks = Fallbacks(self.seconds)
        self._connect_tcp = connect_tcp
        self._own_name = own_name
        self._client_limits = client_limits
        self._avoids_itself = avoids_itself
        self._own_places: set[tuple[str, int]] = set()
        self._lmtp = lmtp
        self._waiting_seconds = waiting_seconds
        self._conversions = Conversions(
            eight_bit=eight_bit,
            directory=directory,
            run_in_thread=run_in_thread,
            again=self.submit,
            seconds=self.seconds,
            room_for=room_for,
        )
        self._connections: dict[ConnectionRecord, RelayProtocol] = {}
        self._connectors: dict[ConnectionRecord, Any] = {}
        # Carrying out a decision may call `decide` again: a connect fails at once, or a transaction ends in its first write.
        # Such a call sets `_undecided` and returns, and the loop that is running decides once more.
        self._deciding = False
        self._undecided = False
        self._stopping = False  # set before anything is closed: what comes back then goes to no other host
        self._all_closed: list[Deferred[None]] = []  # fired when the last connection is closed
        self._check = LoopingCall(self._check_all)
        self._check.clock = clock  # type: ignore[assignment]
        self._clock = clock
        self._turn: Any = None  # the timer for what waits for its turn, and when it rings
        self._turn_at = 0.0

    def __repr__(self) -> str:
        return f"<Connections: {self.pool!r}>"

    @property
    def is_lmtp(self) -> bool:
        """Whether these are connections to a mail store, where mail ends."""
        return self._lmtp

    # --- life ---

    def start(self) -> None:
        """Begin the checks that run each second."""
        self._check.start(CHECK_SECONDS, now=False)

    def stop(self, within_seconds: float) -> Deferred[None]:
        """Let running transactions end within this time, defer what waits, and send QUIT.

        The Deferred fires when the last connection is closed.
        """
        self._stopping = True
        for transmission in self.pool.overdue(lambda _: True):
            transmission.give_up(answers.Delayed(STOPPING, "not tried"))
        self._conversions.give_up(answers.Delayed(STOPPING, "not tried"))
        for record in self.pool.close_idle():
            self._quit(record)
        for connector in list(self._connectors.values()):
            connector.disconnect()
        stopped: Deferred[None] = Deferred()
        if self._connections:
            self._all_closed.append(stopped)
            stopped.addTimeout(within_seconds, self._check.clock, onTimeoutCancel=lambda *_: self._abort_all())
        else:
            stopped.callback(None)
        return stopped.addBoth(self._stopped)

    def _abort_all(self) -> None:
        for connection in list(self._connections.values()):
            connection.give_up(STOPPING)

    def _stopped(self, result: Any) -> None:
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None
        if self._check.running:
            self._check.stop()
        if isinstance(result, Failure):
            self.log.failure("the relay did not stop well", result)

    # --- transmissions ---

    def submit(self, transmission: Transmission) -> None:
        """Send this transmission to the first of its targets that works."""
        self._place(transmission)
        self.decide()

    def change(
        self, *, pool_limits: PoolLimits, client_limits: ClientLimits, eight_bit: EightBit, paces: PaceTable, resumes: bool
    ) -> None:
        """Go on with other limits, for what begins from now on."""
        self.pool.change(pool_limits, paces)
        self._client_limits = client_limits
        self.waits = {phase: client_limits.seconds(phase) for phase in Phase}
        self._conversions.eight_bit = eight_bit
        self.contexts.resumes = resumes
        self.decide()

    def withdraw(self, transmission: Transmission) -> None:
        """Give a transmission up: it is not begun, and not completed.  Once all is sent the peer may have it already."""
        transmission.abandoned = True
        if transmission.place >= len(transmission.targets) or self.pool.withdraw(transmission.target.key, transmission):
            return
        for connection in list(self._connections.values()):
            if connection.transmission is transmission and not connection.content_sent:
                connection.give_up()

    def forgive(self) -> None:
        """Connect again to hosts that were out of reach."""
        self.pool.forgive()
        self.decide()

    def _place(self, transmission: Transmission) -> None:
        """Queue it for the first of its targets, from the present one on, that is not known to be out of reach."""
        now = self.seconds()
        transmission.waits_since = now
        while transmission.place < len(transmission.targets):
            key = transmission.target.key
            refusal = STOPPING if self._stopping else self.pool.refusal(key, now)
            if refusal is None:
                host = transmission.target.host
                if transmission.why is None:
                    seconds = self.pool.put_off(key, host, now, route=transmission.target.route)
                    if seconds is not None:  # our own pace: no reason to ask a host that comes after this one
                        self._put_off(transmission, seconds)
                        return
                elif self.pool.is_paused(key, host, now):
                    transmission.place += 1
                    continue
                self.pool.submit(key, transmission)
                return
            transmission.fault(refusal)
            transmission.place += 1
        transmission.give_up(transmission.last_word())

    def _put_off(self, transmission: Transmission, seconds: float) -> None:
        """It waits in the queue."""
        pace = self.pool.pace_of(transmission.target.key)
        why = f"{NOT_TRIED}: over the pace of {pace.name}, {pace.per_minute or 0:.3g} messages a minute now"
        transmission.give_up(answers.Delayed(OVER_THE_PACE, why, put_off_seconds=seconds))

    def _elsewhere(
        self, transmission: Transmission, why: Reply, *, peer: str = "", phase: str = "", dialogue: tuple[str, ...] = ()
    ) -> None:
        if transmission.abandoned:
            return
        transmission.fault(why, peer=peer, phase=phase, dialogue=dialogue)
        transmission.place += 1
        self._place(transmission)

    # --- the decision, carried out ---

    def decide(self) -> None:
        """Ask the pool what to do and do it, until there is nothing left to do.  A call from within itself does not nest."""
        self._undecided = True
        if self._deciding:
            return
        self._deciding = True
        try:
            while self._undecided:
                self._undecided = False
                plan = self.pool.assign(self.seconds())
                for record in plan.close:
                    self._quit(record)
                for record, transmission in plan.open:
                    self._open(record, transmission.target)
                for record, transmission in plan.begin:
                    self._begin(record, transmission)
        finally:
            self._deciding = False
        if self.pool.paced_until != math.inf and not self._stopping:
            self._await_turn()

    def _await_turn(self) -> None:
        """Decide again when what waits for its turn has it."""
        until = self.pool.paced_until
        if self._turn is not None:
            if self._turn_at <= until:
                return
            self._turn.cancel()
        self._turn_at = until
        self._turn = self._clock.callLater(max(0.0, until - self.seconds()), self._have_turn)

    def _have_turn(self) -> None:
        self._turn = None
        if not self._stopping:
            self.decide()

    def _open(self, record: ConnectionRecord, target: Target) -> None:
        if target.certificate is not None and (why := target.certificate.fault):
            self.log.error("{host}: the client certificate cannot be shown: {why}", host=str(target), why=why)
            self._not_opened(record, NO_CERTIFICATE)
            return
        opening = _Opening(self, record, target)
        try:
            connector = self.connect(target, opening, self.waits[Phase.CONNECT])
        except OSError:  # no descriptors left, for instance
            self.not_connected(record, target, Failure())
            return
        if record.state is RecordState.OPENING:
            self._connectors[record] = connector

    def connect(self, target: Target, factory: ClientFactory, seconds: float) -> Any:
        """Connect to it from the address that it names.  Returns the connector; raises OSError."""
        source = (target.key.source, 0) if target.key.source else None
        return self._connect_tcp(target.key.address, target.key.port, factory, timeout=seconds, bindAddress=source)

    def call_later(self, seconds: float, work: Callable[[], object]) -> Any:
        """By the clock of these connections."""
        return self._clock.callLater(seconds, work)

    def session_for(self, target: Target) -> ClientSession:
        """The client's side of a connection to it."""
        needs_extensions = not target.demand.allows_clear or target.login is not None
        return ClientSession(
            hello_name=self._own_name,
            lmtp=self._lmtp,
            limits=self._client_limits,
            is_encrypted=target.implicit_tls,
            helo_after_refusal=not needs_extensions,
            needs_extensions=needs_extensions,
        )

    def connected(self, record: ConnectionRecord, target: Target) -> RelayProtocol:
        """The peer has accepted the connection.  Return its protocol."""
        self._connectors.pop(record, None)
        connection = self._connections[record] = RelayProtocol(self.session_for(target), record, target, self)
        connection.recordings = self._recordings
        return connection

    def not_connected(self, record: ConnectionRecord, target: Target, reason: Failure) -> None:
        """The connection could not be opened."""
        self._connectors.pop(record, None)
        words = reason.getErrorMessage().rstrip(".") or type(reason.value).__name__
        self._not_opened(record, Reply.heard(451, "4.4.1", (f"No connection: {words}"[:200],)))

    def _not_opened(self, record: ConnectionRecord, why: Reply) -> None:
        for transmission in self.pool.failed(record, self.seconds(), why):
            self._elsewhere(transmission, why)
        self.decide()

    def _begin(self, record: ConnectionRecord, transmission: Transmission) -> None:
        connection = self._connections[record]
        if not connection.session.is_ready:
            self.pool.ending(record)
            self.pool.submit(record.key, transmission, first=True)
            return
        if transmission.request.require_tls and transmission.request.sender is not None and not connection.keeps_requiretls:
            self.pool.unused(record, self.seconds())
            self._undecided = True
            self._elsewhere(transmission, LACKS_REQUIRETLS)
            return
        if not self._conversions.has_form(transmission, connection.session.offer or NOTHING_OFFERED):
            self.pool.unused(record, self.seconds())
            self._undecided = True
            return
        transmission.begun_at = self.seconds()
        connection.begin(transmission)

    def _quit(self, record: ConnectionRecord) -> None:
        self._connections[record].quit()

    # --- what connections tell (Owner) ---

    def tls_step(self, target: Target) -> TLSStep:
        """How TLS begins there, after what has failed in the last hour."""
        return self._fallbacks.step(target.key)

    def calls_itself_like_us(self, host: str, target: Target) -> bool:
        """Whether a host that greets with this name is ourselves (a loop)."""
        is_meant = (target.key.address, target.key.port) in self._own_places
        return self._avoids_itself and not is_meant and host.rstrip(".").lower() == self._own_name.lower()

    @contextmanager
    def to_itself(self, address: str, port: int) -> Iterator[None]:
        """Meanwhile a message may go to this server's own port: a probe (one at a time)."""
        self._own_places.add((address, port))
        try:
            yield
        finally:
            self._own_places.discard((address, port))

    def opened(self, connection: RelayProtocol) -> None:
        """The connection is ready for its first transaction."""
        handle = connection_of(connection.transport) if connection.tls else None
        if handle is not None:  # by now a host has given the tickets of TLS 1.3
            self.contexts.keep_session(connection.record.key, handle, connection.facts, connection.target.demand)
        self.pool.opened(connection.record, self.seconds())
        if self._stopping:
            self.pool.ending(connection.record)
            connection.quit()
        self.decide()

    def unusable(self, connection: RelayProtocol, why: Reply) -> None:
        """The connection never became ready."""
        dialogue = connection.session.dialogue.lines()
        slower = slow_down(why)
        self.meanings.add(why, connection.target.host)
        for transmission in self.pool.failed(connection.record, self.seconds(), why, slow_down=slower, is_open=True):
            self._elsewhere(transmission, why, dialogue=dialogue)
        self.decide()

    def tls_concluded(self, connection: RelayProtocol, facts: HandshakeFacts, conclusion: Conclusion) -> None:
        """What the beginning of TLS came to."""
        if not conclusion.may_go_on:
            self.contexts.forget_session(connection.record.key)
        target = connection.target
        session = TLSSession(
            domain=target.demand.domain,
            demand=target.demand,
            host=target.host,
            address=target.key.address,
            own_address=connection.own_address,
            outcome=conclusion.outcome,
            detail=conclusion.detail,
            facts=facts,
            time=self.wall_clock(),
        )
        self.tell_tls(session)

    def tell_tls(self, session: TLSSession) -> None:
        """Tell those who count and those who explain."""
        for seen in self.tls_seen:
            try:
                seen(session)
            except Exception:  # noqa: BLE001  # whoever counts is no reason not to send
                self.log.failure("what is told of a TLS session could not be taken")

    def tls_broken(self, connection: RelayProtocol, why: str) -> bool:
        """The TLS handshake failed: whether the next connection tries it in another way."""
        target = connection.target
        allows_clear = target.demand.allows_clear and not target.implicit_tls
        step = self._fallbacks.failed(
            connection.record.key, connection.tls_step, allows_clear=allows_clear, said_hello=connection.has_said_hello
        )
        if step is None:
            return False
        self.log.warn("{host}: {why}; for a while {step} is used there", host=str(target), why=why, step=step.value)
        self.pool.ending(connection.record)
        self.decide()
        return True

    def over(self, connection: RelayProtocol, transmission: Transmission, done: events.Done, lost: bool) -> None:
        """A transaction has ended."""
        record, now = connection.record, self.seconds()
        reused = record.messages > 1
        meaning = meaning_of(
            sender_reply=done.sender_reply,
            connection_lost=lost,
            reused=reused,
            content_sent=connection.content_sent or (lost and _is_uncertain(done)),
        )
        evicted: list[Transmission] = []
        why = _why(done)
        no, slower = _heard(done)
        turned_away = lost and meaning is Meaning.ELSEWHERE and done.sender_reply is None
        if slower is not None and no is not None and not turned_away:
            self.pool.slowed(record, slower, transmission.begun_at, now, no)
        elif not lost:
            self.pool.taken(record, transmission.begun_at, now)
        if no is not None:
            self.meanings.add(no, transmission.target.host)
            if slower is None:
                self.pool.heard(record, no, now)
        if not lost and connection.session.is_ready and not self._stopping:
            self.pool.finished(record, now)
        elif turned_away:
            evicted = self.pool.failed(record, now, why, slow_down=slower, begun_at=transmission.begun_at, is_open=True)
        else:
            self.pool.ending(record)
            if not lost:
                connection.quit()
        self._conclude(connection, transmission, done, meaning, why)
        for waiting in evicted:
            self._elsewhere(waiting, why)
        self.decide()

    def _conclude(
        self, connection: RelayProtocol, transmission: Transmission, done: events.Done, meaning: Meaning, why: Reply
    ) -> None:
        if meaning is Meaning.STALE and not (transmission.abandoned or self._stopping):
            self.pool.counts.stale += 1
            self.pool.submit(transmission.target.key, transmission, first=True)
            return
        tls, demand = connection.tls or "in the clear", transmission.target.demand
        if demand.why:
            tls += f" ({demand.mode.value}: {demand.why})"
        ms = round((self.seconds() - transmission.begun_at) * 1000)
        route = f"route {transmission.target.route}, " if transmission.target.route else ""
        note = f"{transmission.target}, {route}{tls}, message {connection.record.messages} on the connection, {ms} ms"
        if transmission.form is not None and transmission.form.note:
            note += f", {transmission.form.note}"
        if transmission.request.require_tls and connection.keeps_requiretls:
            note += ", REQUIRETLS"
        if connection.facts.shown:
            note += f", {connection.facts.shown}"
        outcomes = told(done, host=transmission.target.host, note=note, dialogue=connection.session.dialogue)
        for seen in self.attempts_seen:
            seen(transmission.target.host, outcomes, bool(connection.tls))
        if meaning is Meaning.SETTLED:
            transmission.settle(outcomes)
            return
        transmission.settle_final(outcomes)
        if transmission.indexes:
            first = next(outcome for outcome in outcomes if isinstance(outcome, answers.Delayed))
            self._elsewhere(
                transmission, first.reply, peer=first.peer, phase=first.phase, dialogue=first.dialogue
            )

    def ended(self, connection: RelayProtocol) -> None:
        """No more commands can be sent on the connection."""
        self.pool.ending(connection.record)
        self.decide()

    def closed(self, connection: RelayProtocol) -> None:
        """The socket is closed."""
        self._connections.pop(connection.record, None)
        self.pool.gone(connection.record)
        if self._all_closed and not self._connections:
            waiting, self._all_closed = self._all_closed, []
            for stopped in waiting:
                stopped.callback(None)
        self.decide()

    # --- time ---

    def _check_all(self) -> None:
        """Each second, end what takes too long and close what is not needed.

        An error must not stop later checks, nor the checks of other connections.
        """
        now = self.seconds()
        for connection in list(self._connections.values()):
            if now >= connection.deadline:
                self._attempt(self._time_out, connection)
        for record in self._attempt(self.pool.reap, now) or ():
            self._attempt(self._quit, record)
        for transmission in self._attempt(self.pool.overdue, lambda one: now - one.waits_since >= self._waiting_seconds) or ():
            why = answers.Delayed(WAITED_TOO_LONG, NOT_TRIED, put_off_seconds=WAITED_AGAIN_SECONDS)
            self._attempt(transmission.give_up, why)
        for transmission, seconds in self._attempt(self.pool.surplus, now) or ():
            self._attempt(self._put_off, transmission, seconds)
        self._attempt(self.decide)

    def _time_out(self, connection: RelayProtocol) -> None:
        try:
            connection.time_out()
        except Exception:
            connection.transport.abortConnection()  # else the same error would come again each second
            raise

    def _attempt(self, work: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return work(*arguments)
        except Exception:  # noqa: BLE001  # whatever it was, the next one has its turn
            self.log.failure("the relay stumbled over its time-outs")


def _is_uncertain(done: events.Done) -> bool:
    """Whether all of the content was sent, so that the peer may have the message."""
    return any(outcome.note == UNCERTAIN for outcome in done.outcomes)


def _heard(done: events.Done) -> tuple[Reply | None, SlowDown | None]:
    """The first answer of the peer that was no success, or the one that asks for less; and of what."""
    no: Reply | None = None
    for outcome in done.outcomes:
        if not isinstance(outcome, answers.Delivered) and not outcome.note:  # a note says that the words are ours
            slower = slow_down(outcome.reply)
            if slower is not None:
                return outcome.reply, slower
            no = no or outcome.reply
    return no, None


def _why(done: events.Done) -> Reply:
    """The reason of the end, as the peer or the connection gave it."""
    for outcome in done.outcomes:
        if isinstance(outcome, answers.Delayed):
            return outcome.reply
    return done.sender_reply or STOPPING
