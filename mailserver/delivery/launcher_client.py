"""A message for the launcher, and the outcome that its reply means.

Whatever does not come to its end is tried again: a launcher that dies, a reply that is cut off or malformed.  The message may
then have reached its command.  A delivery that calls this a success would lose the one whose command had not begun.
"""

from __future__ import annotations

import contextlib
import errno
import json
import socket
import tempfile
from collections.abc import Iterator
from typing import BinaryIO

from mailserver.delivery import errno_outcomes, launcher, sysexits
from mailserver.mail.answers import Delayed, Failed, Outcome
from mailserver.mail.content import Content
from mailserver.mail.reply import Reply
from mailserver.processes.kept import KeptProcess

__all__ = ["hand_over", "outcome_of_answer", "prefix_fits"]

PREFIX_OCTETS = 8192  # header fields that travel in the request; more of them go in front of the content
SENDER_SYNTAX = Reply.of(553, "5.1.7", "This sender's address cannot be given to the delivery program")
RECIPIENT_SYNTAX = Reply.of(553, "5.1.3", "This address cannot be given to the delivery program")
NOT_CONFIGURED = (errno.ENOENT, errno.EACCES, errno.ENOEXEC, errno.ENOTDIR, errno.EISDIR, errno.EPERM)


def outcome_of_answer(octets: bytes) -> Outcome:
    """The outcome that the launcher's reply means.  Anything that is not a reply means that nobody knows: not now."""
    try:
        number, note, *more = json.loads(octets)
        if number == 0:
            status, output = more
            return sysexits.outcome_of_end(int(status), str(output))
        if number == launcher.TIMED_OUT:
            said = sysexits.printable(str(more[0]))
            return Delayed(sysexits.TIMED_OUT, f"the command took too long and was ended: {said}".removesuffix(": "))
        if number == launcher.UNSAFE:
            return Failed(SENDER_SYNTAX if more == ["sender"] else RECIPIENT_SYNTAX, str(note))
    except (ValueError, TypeError, IndexError):
        return errno_outcomes.deferred("the launcher ended without an answer")
    return Delayed(errno_outcomes.CONFIGURATION if number in NOT_CONFIGURED else errno_outcomes.SYSTEM, str(note))


def prefix_fits(content: Content) -> bool:
    """The message's own prefix travels in the request, not in the file."""
    return len(content.prefix) <= PREFIX_OCTETS


def hand_over(process: KeptProcess, request: bytes, content: Content, reply: socket.socket) -> None:
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
