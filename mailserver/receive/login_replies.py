"""The reply to each outcome of a login (RFC 4954)."""

from __future__ import annotations

import base64
from collections.abc import Mapping

from mailserver.interfaces import Denial, Denied, LoggedIn
from mailserver.mail.reply import Reply
from mailserver.sasl.steps import Challenge
from mailserver.smtp import replies

__all__ = ["reply_to"]

DENIALS: Mapping[Denial, Reply] = {
    Denial.CREDENTIALS: replies.AUTH_FAILED,
    Denial.MALFORMED: replies.AUTH_MALFORMED,
    Denial.WEAK: replies.AUTH_TOO_WEAK,
    Denial.UNAVAILABLE: replies.AUTH_UNAVAILABLE,
    Denial.SLOW_DOWN: replies.AUTH_SLOW_DOWN,
}


def reply_to(answer: Challenge | LoggedIn | Denied | None) -> Reply:
    """The reply.  None, no outcome, is 454."""
    match answer:
        case Challenge(data):
            return Reply.of(334, "", base64.b64encode(data).decode("ascii"))
        case LoggedIn():
            return replies.AUTH_SUCCEEDED
        case Denied(denial):
            return DENIALS[denial]
        case _:
            return replies.AUTH_UNAVAILABLE
