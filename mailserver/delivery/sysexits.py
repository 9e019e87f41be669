"""What a command's end means for the message that it was given: the exit codes of ``sysexits.h``.

The enhanced codes are those of Postfix's pipe(8).  One thing differs: what says that something is wrong on this host (a wrong
command line, a missing file, a crash, an exit code that is none of these) is temporary here.  It is for the administrator to
mend, and no sender's mail is returned for it before the queue's own time is over.

A command that does not end with 0 may choose the code itself, with an enhanced code at the start of its output:
``5.7.1 No mail for you`` or ``4.2.2 Come back later``.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Mapping
from types import MappingProxyType

from mailserver.mail.answers import Delayed, Delivered, Failed, Outcome
from mailserver.mail.reply import Reply

__all__ = ["NO_TIME_LEFT", "TIMED_OUT", "outcome_of_end", "printable"]

# RFC 3463: x.1.x the address, x.2.0 the mailbox, x.3.0 the mail system, x.3.5 its configuration, x.5.0 the protocol,
# x.6.0 the content, x.7.0 policy.
MEANINGS: Mapping[int, Reply] = MappingProxyType(
    {
        os.EX_USAGE: Reply.of(451, "4.3.5", "The mail system is not configured for this"),
        os.EX_DATAERR: Reply.of(554, "5.6.0", "The message's form cannot be accepted"),
        os.EX_NOINPUT: Reply.of(451, "4.3.0", "The mail system has a fault"),
        os.EX_NOUSER: Reply.of(550, "5.1.1", "No such user"),
        os.EX_NOHOST: Reply.of(550, "5.1.2", "No such host"),
        os.EX_UNAVAILABLE: Reply.of(554, "5.3.0", "The service is not available"),
        os.EX_SOFTWARE: Reply.of(451, "4.3.0", "The mail system has a fault"),
        os.EX_OSERR: Reply.of(451, "4.3.0", "The mail system has a fault"),
        os.EX_OSFILE: Reply.of(451, "4.3.0", "The mail system has a fault"),
        os.EX_CANTCREAT: Reply.of(550, "5.2.0", "The mailbox cannot take the message"),
        os.EX_IOERR: Reply.of(451, "4.3.0", "The mail system has a fault"),
        os.EX_TEMPFAIL: Reply.of(451, "4.3.0", "Not now, try again later"),
        os.EX_PROTOCOL: Reply.of(554, "5.5.0", "The other side broke the protocol"),
        os.EX_NOPERM: Reply.of(550, "5.7.0", "Not permitted"),
        os.EX_CONFIG: Reply.of(451, "4.3.5", "The mail system is not configured for this"),
    }
)
UNKNOWN = Reply.of(451, "4.3.0", "The mail system has a fault")
TIMED_OUT = Reply.of(451, "4.3.0", "The delivery took too long")
NO_TIME_LEFT = Reply.of(451, "4.3.2", "The mail system is busy")

OWN_CODE = re.compile(r"\s*([45]\.[0-9]{1,3}\.[0-9]{1,3})(?=\s|$)[ \t]*(.*)")
REPLY_CHARACTERS = 400


def outcome_of_end(status: int, output: str) -> Outcome:
    """The outcome of a command that ended with `status` (negative: the number of a signal) and said `output`."""
    said = printable(output)
    if status == 0:
        return Delivered(f"the command took it: {said}" if said else "the command took it")
    if status < 0:
        return Delayed(UNKNOWN, _note(f"the command was ended by {_signal_name(-status)}", said))
    note = _note(f"the command ended with {status}", said)
    reply = _own_reply(output) or MEANINGS.get(status, UNKNOWN)
    return Failed(reply, note) if reply.is_permanent else Delayed(reply, note)


def printable(text: str) -> str:
    """One line for a log: each run of what cannot be printed becomes a space."""
    return " ".join("".join([character if character.isprintable() else " " for character in text]).split())


def _own_reply(output: str) -> Reply | None:
    own = OWN_CODE.match(output)
    if own is None:
        return None
    enhanced = own[1]
    words = printable(own[2])[:REPLY_CHARACTERS] or "The message was not taken"
    return Reply.heard(554 if enhanced.startswith("5") else 451, enhanced, [words])


def _note(what: str, said: str) -> str:
    return f"{what}: {said}" if said else what


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"
