"""Whether a buffer looks like SMTP or LMTP, and how much.

The first line alone is judged, with all lines of a reply.  FTP, NNTP and POP3 share much of it: verbs without arguments, codes,
the form of replies.  So only what those do not have is taken for certain, and a port or the line before may say more.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import TYPE_CHECKING

from mailserver.capture.view import SmtpView
from mailserver.mail.address import Address, AddressError
from mailserver.smtp.vocabulary import REPLY_CODE_DESCRIPTIONS, CommandVerb, ReplyCode

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = ["Confidence", "looks_like_smtp"]


class Confidence(enum.IntEnum):
    """How sure `looks_like_smtp` is; false only where it is NONE."""

    NONE = 0  # not SMTP, or nothing that could be told from other things
    POSSIBLE = 1  # another protocol of lines may say it too, or the line is cut
    LIKELY = 2  # other protocols rarely say it
    CERTAIN = 3  # none but SMTP and LMTP say it


def looks_like_smtp(buffer: ReadableBuffer) -> Confidence:
    """How much the beginning of a buffer, of either direction, looks like SMTP or LMTP.  No octets make it raise.

    Content, responses of AUTH and TLS are NONE: only a stream knows that they belong to a dialogue.
    """
    view = SmtpView(buffer)
    found = _reply(view) if view.is_reply else _command(view)
    return found if view.is_complete else min(found, Confidence.POSSIBLE)


def _reply(view: SmtpView) -> Confidence:
    code = view.reply_code or 0
    if view.enhanced_code is not None:
        return Confidence.CERTAIN if code in REPLY_CODE_DESCRIPTIONS else Confidence.LIKELY
    if code == ReplyCode.SERVICE_READY and any(word in (view.reply_text or "").upper() for word in ("SMTP", "LMTP")):
        return Confidence.CERTAIN
    if code == ReplyCode.OK and view.is_multiline and set(view.reply_lines[1:]) & {"PIPELINING", "8BITMIME", "STARTTLS"}:
        return Confidence.CERTAIN  # that of EHLO
    if code in (ReplyCode.AUTH_CHALLENGE, ReplyCode.START_CONTENT):
        return Confidence.LIKELY
    if code in REPLY_CODE_DESCRIPTIONS or code >= 400:
        return Confidence.POSSIBLE
    return Confidence.NONE


def _command(view: SmtpView) -> Confidence:
    judge = JUDGES.get(view.command or "")
    return Confidence.NONE if judge is None else judge(view)


def _hello(view: SmtpView) -> Confidence:
    """A name is one word, as a rule with a dot or in brackets."""
    name = view.arguments or ""
    if not name or len(name) > 255:
        return Confidence.POSSIBLE if not name else Confidence.NONE
    return Confidence.LIKELY if " " in name else Confidence.CERTAIN


def _path(view: SmtpView) -> Confidence:
    """An address, or the null path of MAIL; without brackets prose may say it too."""
    path = view.reverse_path if view.command == CommandVerb.MAIL else view.forward_path
    if path is None:
        return Confidence.NONE
    if not (view.arguments or "").partition(":")[2].lstrip().startswith("<"):
        return Confidence.LIKELY if "@" in path else Confidence.NONE
    try:
        Address.parse(path, utf8=True)
    except AddressError:
        is_known = path.lower() == "postmaster" or (not path and view.command == CommandVerb.MAIL)
        return Confidence.CERTAIN if is_known else Confidence.LIKELY
    return Confidence.CERTAIN


def _chunk(view: SmtpView) -> Confidence:
    return Confidence.NONE if view.chunk_size is None else Confidence.CERTAIN


def _login(view: SmtpView) -> Confidence:
    return Confidence.NONE if view.mechanism is None else Confidence.POSSIBLE  # POP3 has it as well


def _alone(confidence: Confidence) -> Callable[[SmtpView], Confidence]:
    return lambda view: Confidence.NONE if view.arguments else confidence


def _word(confidence: Confidence) -> Callable[[SmtpView], Confidence]:
    """One word at most: more is prose."""
    return lambda view: Confidence.NONE if " " in (view.arguments or "") else confidence


def _with_word(confidence: Confidence) -> Callable[[SmtpView], Confidence]:
    return lambda view: confidence if view.arguments and " " not in view.arguments else Confidence.NONE


JUDGES: dict[str, Callable[[SmtpView], Confidence]] = {
    CommandVerb.EHLO: _hello,
    CommandVerb.HELO: _hello,
    CommandVerb.LHLO: _hello,
    CommandVerb.MAIL: _path,
    CommandVerb.RCPT: _path,
    CommandVerb.BDAT: _chunk,
    CommandVerb.AUTH: _login,
    CommandVerb.DATA: _alone(Confidence.LIKELY),
    CommandVerb.STARTTLS: _alone(Confidence.LIKELY),  # NNTP and ManageSieve have it as well
    CommandVerb.RSET: _alone(Confidence.POSSIBLE),
    CommandVerb.QUIT: _alone(Confidence.POSSIBLE),
    CommandVerb.NOOP: _word(Confidence.POSSIBLE),
    CommandVerb.HELP: _word(Confidence.POSSIBLE),
    CommandVerb.VRFY: _with_word(Confidence.LIKELY),
    CommandVerb.EXPN: _with_word(Confidence.LIKELY),
    CommandVerb.ETRN: _with_word(Confidence.LIKELY),
    CommandVerb.BURL: lambda view: Confidence.LIKELY if "imap" in (view.arguments or "").lower() else Confidence.NONE,
    CommandVerb.XCLIENT: lambda view: Confidence.CERTAIN if "=" in (view.arguments or "") else Confidence.NONE,
    CommandVerb.XFORWARD: lambda view: Confidence.CERTAIN if "=" in (view.arguments or "") else Confidence.NONE,
}
