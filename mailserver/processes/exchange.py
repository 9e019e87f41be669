"""Questions to a process beside us, and its answers, over a socket that the reactor serves: no thread waits for them."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReadWriteDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from mailserver.processes.frames import LENGTH, LONGEST_OCTETS

__all__ = ["ProcessExchange"]

PIECE_OCTETS = 256 * 1024


@implementer(IReadWriteDescriptor)
class ProcessExchange:
    """Our end of the socket.  Each question and each answer is one frame (`frames`).

    A peer that announces more than `answer_octets_most` counts as one that has closed its end.  With `ended` it is watched from
    `watch` on: one that closes its end, or says what nobody has asked for, is told at once, and only once.
    """

    def __init__(
        self,
        reactor: Any,
        end: socket.socket,
        *,
        answer_octets_most: int = LONGEST_OCTETS,
        ended: Callable[[], None] | None = None,
    ) -> None:
        end.setblocking(False)
        self._answer_octets_most = answer_octets_most
        self._ended = ended
        self._reactor = reactor
        self._end = end
        self._unsent = memoryview(b"")
        self._received = bytearray()
        self._answer: Deferred[bytes] | None = None

    def watch(self) -> None:
        """Read from now on, also between the questions."""
        self._reactor.addReader(self)

    def ask(self, question: bytes, descriptors: Sequence[int] = ()) -> Deferred[bytes]:
        """Send a question; the Deferred fires with its answer.  One question at a time.

        It fails with EOFError where the peer closes its end.  Cancelling it closes ours, so that a late answer is never taken
        for the answer to another question.  `descriptors` travel with its first octet; nobody is asked that with the socket full.
        """
        if self._answer is not None or self._end.fileno() < 0:
            raise ValueError("a question is open, or the end has come")
        answer: Deferred[bytes] = Deferred(lambda _: self.close())
        self._answer = answer
        self._unsent = memoryview(LENGTH.pack(len(question)) + question)
        self._reactor.addReader(self)
        if descriptors:
            self._send_with(descriptors)
        self.doWrite()
        if self._unsent:
            self._reactor.addWriter(self)
        return answer

    def _send_with(self, descriptors: Sequence[int]) -> None:
        try:
            self._unsent = self._unsent[socket.send_fds(self._end, [self._unsent], list(descriptors)) :]
        except OSError:
            self.connectionLost(None)

    def close(self) -> None:
        """Ask no more.  The peer sees the end at once, even where another process has a duplicate of the socket."""
        self._ended = None
        if self._end.fileno() >= 0:
            self._reactor.removeReader(self)
            self._reactor.removeWriter(self)
            with contextlib.suppress(OSError):
                self._end.shutdown(socket.SHUT_RDWR)
            self._end.close()
        self._unsent = memoryview(b"")

    def fileno(self) -> int:
        """As Twisted wants it."""
        return self._end.fileno()

    def logPrefix(self) -> str:
        """As Twisted wants it."""
        return "exchange"

    def doWrite(self) -> None:
        """Send what the socket takes (`IWriteDescriptor`)."""
        try:
            self._unsent = self._unsent[self._end.send(self._unsent) :]
        except BlockingIOError:
            return
        except OSError:
            self.connectionLost(None)
            return
        if not self._unsent:
            self._reactor.removeWriter(self)

    def doRead(self) -> None:
        """Read what has come (`IReadDescriptor`)."""
        try:
            octets = self._end.recv(PIECE_OCTETS)
        except BlockingIOError:
            return
        except OSError:
            octets = b""
        if not octets or self._answer is None:
            self.connectionLost(None)
            return
        self._received += octets
        if len(self._received) < LENGTH.size:
            return
        octets_announced = LENGTH.unpack_from(self._received)[0]
        if octets_announced > self._answer_octets_most:
            self.connectionLost(None)
            return
        end = LENGTH.size + octets_announced
        if len(self._received) >= end:
            frame = bytes(self._received[LENGTH.size : end])
            self._received.clear()
            if self._ended is None:
                self._reactor.removeReader(self)
            self._end_with(frame)

    def connectionLost(self, reason: Failure | None) -> None:
        """The peer has closed its end."""
        ended, self._ended = self._ended, None
        self.close()
        self._end_with(Failure(EOFError("the other end has closed")))
        if ended is not None:
            ended()

    def _end_with(self, result: bytes | Failure) -> None:
        answer, self._answer = self._answer, None
        if answer is not None and not answer.called:
            answer.callback(result)
