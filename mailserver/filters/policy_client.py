"""Connections to a policy service that speaks Postfix's policy delegation (SMTPD_POLICY_README).

A question is lines of ``name=value`` and an empty line; so is the answer, whose line ``action=…`` counts.  Connections stay open
for further questions.  One that turns out to be closed when it is used again costs one more try, on a new one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.internet.defer import TimeoutError as Late
from twisted.internet.endpoints import clientFromString
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from mailserver.interfaces import Clock
from mailserver.plugins.awaiting import within

__all__ = ["PolicyClient", "PolicyFailed"]

ANSWER_OCTETS_MOST = 65_536
END = b"\n\n"


class PolicyFailed(OSError):
    """The policy service gave no answer, or none that is understood."""


class PolicyConnection(Protocol):
    """One connection, with at most one question under way."""

    def __init__(self) -> None:
        self.is_open = True
        self.is_fresh = True
        self._octets = b""
        self._waiting: Deferred[str] | None = None

    def ask(self, question: bytes) -> Deferred[str]:
        """The action.  Cancelled, the connection is cut: its answer would be taken for the next one's."""
        waiting: Deferred[str] = Deferred(lambda _: self.cut())
        self._waiting = waiting
        transport: Any = self.transport
        transport.write(question)
        return waiting

    def cut(self) -> None:
        """Use it no more."""
        self.is_open = False
        transport: Any = self.transport
        transport.abortConnection()

    def dataReceived(self, data: bytes) -> None:
        """A piece of an answer."""
        self._octets += data
        waiting = self._waiting
        if waiting is None or len(self._octets) > ANSWER_OCTETS_MOST:
            self._fail(PolicyFailed("the policy service says what nobody has asked for"))
            self.cut()
        elif END in self._octets:
            answer, _, self._octets = self._octets.partition(END)
            self._waiting = None
            self.is_fresh = False
            action = action_in(answer)
            if action is None or self._octets:
                self.cut()
            if action is None:
                waiting.errback(PolicyFailed("the answer of the policy service has no action"))
            else:
                waiting.callback(action)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """It is gone."""
        self.is_open = False
        self._fail(ConnectionDone("the policy service has closed the connection"))

    def _fail(self, error: Exception) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.called:
            waiting.errback(error)


class PolicyClient:
    """Asks the service at `endpoint` (``tcp:127.0.0.1:10031``, ``unix:/run/policy``) over at most `connections`.

    A question has `seconds` for all of it: its turn, the connection, the answer.
    """

    def __init__(self, *, endpoint: str, connections: int, seconds: float, reactor: Any, clock: Clock) -> None:
        self._endpoint = clientFromString(reactor, endpoint)
        self._seconds = seconds
        self._clock = clock
        self._turns = DeferredSemaphore(connections)
        self._idle: list[PolicyConnection] = []
        self._factory = Factory.forProtocol(PolicyConnection)
        self._factory.noisy = False

    async def ask(self, attributes: Mapping[str, str]) -> str:
        """The action, such as ``DUNNO`` or ``REJECT go away``.  Raises `PolicyFailed`, and Twisted's errors of connections."""
        question = "".join([f"{name}={_plain(value)}\n" for name, value in attributes.items()]) + "\n"
        octets = question.encode("utf-8", "replace")
        try:
            return await within(self._seconds, Deferred.fromCoroutine(self._in_turn(octets)), self._clock)
        except Late:
            raise PolicyFailed(f"the policy service gave no answer within {self._seconds:g} seconds") from None

    def stop(self) -> None:
        """Close what is idle."""
        idle, self._idle = self._idle, []
        for connection in idle:
            connection.cut()

    async def _in_turn(self, question: bytes) -> str:
        await self._turns.acquire()
        try:
            while True:
                connection = await self._connected()
                was_fresh = connection.is_fresh
                try:
                    action = await connection.ask(question)
                except ConnectionDone as gone:
                    if was_fresh:
                        raise PolicyFailed(str(gone)) from gone
                    self.stop()  # the others that stand idle are as old; one more try, on a new one
                else:
                    if connection.is_open:
                        self._idle.append(connection)
                    return action
        finally:
            self._turns.release()

    async def _connected(self) -> PolicyConnection:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open:
                return connection
        made: PolicyConnection = await self._endpoint.connect(self._factory)
        return made


def action_in(answer: bytes) -> str | None:
    """The action in an answer; None where there is none, or what is no text."""
    try:
        lines = answer.decode("utf-8").split("\n")
    except UnicodeDecodeError:
        return None
    for line in lines:
        name, equals, value = line.partition("=")
        if equals and name.strip() == "action":
            return value.strip() or None
    return None


def _plain(value: str) -> str:
    """Nothing of a peer's may end a line."""
    return "".join([character if character.isprintable() else "?" for character in value])
