"""A message on its way to the launcher, and what comes back."""

from __future__ import annotations

import contextlib
import errno
import json
import socket
import tempfile
from collections.abc import Iterator
from typing import Any, BinaryIO

from twisted.internet.defer import Deferred as Later
from twisted.internet.interfaces import IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from mailserver.delivery import launcher, sysexits, troubles
from mailserver.delivery.privileged import PrivilegedProcess
from mailserver.interfaces import Clock
from mailserver.mail.answers import Deferred, Failed, Outcome
from mailserver.mail.content import Content
from mailserver.mail.reply import Reply

__all__ = ["Answer", "hand_over", "outcome_of_answer", "prefix_fits"]

PREFIX_OCTETS = 8192  # header fields that travel in the request; more of them go in front of the content
SENDER_SYNTAX = Reply.of(553, "5.1.7", "This sender's address cannot be given to the delivery program")
RECIPIENT_SYNTAX = Reply.of(553, "5.1.3", "This address cannot be given to the delivery program")
NOT_CONFIGURED = (errno.ENOENT, errno.EACCES, errno.ENOEXEC, errno.ENOTDIR, errno.EISDIR, errno.EPERM)


@implementer(IReadDescriptor)
class Answer:
    """Waits in the reactor for what comes on a socket until its other end closes.  Once we `close`, the other end gives up."""

    def __init__(self, reactor: Any, end: socket.socket) -> None:
        end.setblocking(False)
        self._reactor = reactor
        self._end = end
        self._octets = b""
        self._done: Later[bytes] = Later(lambda _: self.close())

    def within(self, seconds: float, clock: Clock) -> Later[bytes]:
        """What came.  Errs with TimeoutError."""
        self._reactor.addReader(self)
        return self._done.addTimeout(seconds, clock)  # type: ignore[arg-type]

    def close(self) -> None:
        """Wait no longer."""
        if self._end.fileno() >= 0:
            self._reactor.removeReader(self)
            self._end.close()

    def fileno(self) -> int:
        """As Twisted wants it."""
        return self._end.fileno()

    def logPrefix(self) -> str:
        """As Twisted wants it."""
        return "pipe"

    def doRead(self) -> None:
        """Take what is there."""
        try:
            octets = self._end.recv(launcher.REPLY_OCTETS)
        except BlockingIOError:
            return
        except OSError:
            octets = b""
        self._octets += octets
        if not octets or len(self._octets) > launcher.REPLY_OCTETS:
            self.connectionLost(None)

    def connectionLost(self, reason: Failure | None) -> None:
        """The other end has closed."""
        self.close()
        if not self._done.called:
            self._done.callback(self._octets)


def outcome_of_answer(octets: bytes) -> Outcome:
    """The outcome that the launcher's reply means.  Anything that is not a reply means that nobody knows: not now."""
    try:
        number, note, *more = json.loads(octets)
        if number == 0:
            status, output = more
            return sysexits.outcome_of_end(int(status), str(output))
        if number == launcher.TIMED_OUT:
            said = sysexits.printable(str(more[0]))
            return Deferred(sysexits.TIMED_OUT, f"the command took too long and was ended: {said}".removesuffix(": "))
        if number == launcher.UNSAFE:
            return Failed(SENDER_SYNTAX if more == ["sender"] else RECIPIENT_SYNTAX, str(note))
    except (ValueError, TypeError, IndexError):
        return troubles.deferred("the launcher ended without an answer")
    return Deferred(troubles.CONFIGURATION if number in NOT_CONFIGURED else troubles.SYSTEM, str(note))


def prefix_fits(content: Content) -> bool:
    """The message's own prefix travels in the request, not in the file."""
    return len(content.prefix) <= PREFIX_OCTETS


def hand_over(process: PrivilegedProcess, request: bytes, content: Content, reply: socket.socket) -> None:
    """In a thread: send the request and close our copy of the reply's other end.  Raises OSError."""
    with reply, _file_of(content) as file:
        process.send(request, [reply.fileno(), file.fileno()])


@contextlib.contextmanager
def _file_of(content: Content) -> Iterator[BinaryIO]:
    """A file that holds the content, without the prefix where that travels in the request.  Raises OSError."""
    if content.path is not None and prefix_fits(content):
        with open(content.path, "rb", buffering=0) as stored:
            yield stored
        return
    with tempfile.TemporaryFile(buffering=0) as file:
        pieces = content.chunks()
        if prefix_fits(content) and content.data is not None:
            pieces = iter([content.data])
        for piece in pieces:
            view = memoryview(piece)
            while view:
                view = view[file.write(view) :]
        yield file
