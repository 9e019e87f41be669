"""A copy that a verdict holds, as those see it who decide about it."""

from __future__ import annotations

from dataclasses import dataclass
from email.errors import HeaderParseError
from email.header import decode_header, make_header

from mailserver.mail.answers import Finding
from mailserver.mail.headers import Headers
from mailserver.mail.outcomes import clean_text

__all__ = ["HeldCopy", "shown_field"]

FIELD_CHARACTERS = 500


@dataclass(frozen=True, slots=True)
class HeldCopy:
    """One recipient's copy.

    `id` names it: the id of its `message`, a slash, a number.  `sender` is None for the null reverse-path; `author` and `subject`
    are the fields From and Subject as people read them, as a stranger has written them.  `peer` is the address of the host that
    it came from, `login` who had logged in there.  `since` and `until` are seconds since the epoch: then it is discarded, or put
    into Junk if somebody was to decide (`Quarantine.hold`).  `destination` is the mailbox, or the address at another host.  `why`
    is the reason, `held_by` are the filters that hold it, `findings` all that was found.
    """

    id: str
    message: str
    recipient: str
    destination: str
    sender: str | None
    author: str
    subject: str
    peer: str
    login: str
    size: int
    since: float
    until: float | None
    why: str
    held_by: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()


def shown_field(headers: Headers, name: str) -> str:
    """A header field for people: decoded (RFC 2047) where that can be done, on one line, cut where it is long."""
    text = headers.get(name) or ""
    try:
        text = str(make_header(decode_header(text)))
    except (HeaderParseError, LookupError, UnicodeError, ValueError):
        pass
    return clean_text(" ".join(text.split()))[:FIELD_CHARACTERS]
