"""What a failed attempt at a mailbox means: the outcome for each kind of error.

All of them are temporary.  A full or broken disk is put right by somebody; the queue's own expiry ends what nobody puts right.
The replies carry no paths: those stand in the note, which is for the log and for `explain`.
"""

from __future__ import annotations

import errno

from mailserver.mail.answers import Delayed
from mailserver.mail.reply import Reply
from mailserver.processes.privileged import NO_ERRNO

__all__ = ["NOT_LOCAL", "NO_ERRNO", "deferred", "outcome_of"]

# RFC 3463: x.2.0 the mailbox, x.2.2 full, x.3.0 the mail system, x.3.1 full, x.3.5 not configured for this.
MAILBOX = Reply.of(451, "4.2.0", "The mailbox cannot be used now")
MAILBOX_FULL = Reply.of(452, "4.2.2", "The mailbox is full")
SYSTEM = Reply.of(451, "4.3.0", "The mail system has a fault")
SYSTEM_FULL = Reply.of(452, "4.3.1", "The mail system is full")
CONFIGURATION = Reply.of(451, "4.3.5", "The mail system is not configured for this")

REPLIES = {
    errno.EDQUOT: MAILBOX_FULL,
    errno.EFBIG: MAILBOX_FULL,
    errno.ENOSPC: SYSTEM_FULL,
    errno.EACCES: MAILBOX,
    errno.EPERM: MAILBOX,
    errno.ENOTDIR: MAILBOX,
    errno.EISDIR: MAILBOX,
    errno.EEXIST: MAILBOX,
    errno.ELOOP: MAILBOX,
    errno.ENAMETOOLONG: MAILBOX,
    errno.EBUSY: MAILBOX,
    errno.ESTALE: MAILBOX,
}

NOT_LOCAL = Delayed(CONFIGURATION, "this delivery serves local mailboxes only")


def outcome_of(number: int, note: str) -> Delayed:
    """The outcome of an attempt that ended with the system's error `number`, or `NO_ERRNO`."""
    return Delayed(REPLIES.get(number, SYSTEM), note)


def deferred(note: str) -> Delayed:
    """A failure of the server's own parts."""
    return Delayed(SYSTEM, note)
