"""What a server's session answers by itself: to invalid lines, and to commands out of order."""

from __future__ import annotations

from collections.abc import Mapping

from mailserver.mail.reply import Reply
from mailserver.smtp import replies
from mailserver.smtp.server.buffer import LineFault
from mailserver.smtp.server.states import State

__all__ = ["AUTH_LINE_FAULTS", "LINE_FAULTS", "OUT_OF_ORDER"]

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
