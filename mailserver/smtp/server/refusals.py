"""What a server's session answers by itself: to invalid lines, and to commands out of order."""

from __future__ import annotations

from collections.abc import Mapping

from mailserver.mail.reply import Reply
from mailserver.smtp import replies
from mailserver.smtp.server.buffer import LineFault
from mailserver.smtp.server.states import State

__all__ = ["AUTH_LINE_FAULTS", "LINE_FAULTS", "out_of_order"]

LINE_FAULTS: Mapping[LineFault, Reply] = {
    LineFault.STRAY_LINE_END: replies.BAD_LINE_END,
    LineFault.TOO_LONG: replies.LINE_TOO_LONG,
}
AUTH_LINE_FAULTS: Mapping[LineFault, Reply] = {
    LineFault.STRAY_LINE_END: replies.AUTH_BAD_BASE64,
    LineFault.TOO_LONG: replies.AUTH_LINE_TOO_LONG,
}
OUT_OF_ORDER: Mapping[State, Reply] = {
    State.STRANGER: replies.SAY_HELLO_FIRST,
    State.READY: replies.SAY_MAIL_FIRST,
    State.SENDER: replies.TRANSACTION_OPEN,
    State.RECIPIENTS: replies.TRANSACTION_OPEN,
    State.BETWEEN: replies.DATA_AFTER_BDAT,
}


def out_of_order(state: State, verb: str, *, lmtp: bool) -> Reply:
    """The answer to a command that may not come now."""
    if state is State.SENDER and verb in ("DATA", "BDAT"):
        # RFC 2033 section 4.2 and RFC 3030 section 2 want 503 where RFC 5321 section 3.3 leaves the choice.
        return replies.NO_VALID_RECIPIENTS_503 if lmtp or verb == "BDAT" else replies.NO_VALID_RECIPIENTS
    return OUT_OF_ORDER[state]
