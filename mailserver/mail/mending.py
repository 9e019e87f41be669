"""Header sections that are nearly valid, as many programs write them, made valid.

* Text that follows the fields without an empty line (section 2.1) would be read as header, and the reader would see an empty
  mail.  The empty line is put before the first line that is not a field.
* The separator line of an mbox in front, ``From `` with or without ``>`` before it, becomes a field, as Postfix does it.

Blanks before the colon (section 4.5, obs-optional) are allowed.
"""

from __future__ import annotations

import re

from mailserver.mail.content import HEADER_OCTETS, Content
from mailserver.mail.edits import with_start
from mailserver.mail.headers import NO_FIELD

__all__ = ["mended"]

# So few that the fields behind them stay in view, where each line has become longer.
SEPARATORS = re.compile(rb"(?:>*From [^\r\n]*(?:\r\n|\Z)){1,10}")
SEPARATOR = re.compile(rb"(?m)^(?=>*From )")
MAILBOX_LINE = b"X-Mailbox-Line: "
FIELD = re.compile(rb"[!-9;-~]++:")


def mended(content: Content) -> tuple[Content, tuple[str, ...]]:
    """The message, and what was done to it: nothing, as a rule, and then it is the same object.  Raises OSError."""
    head = content.head
    if FIELD.match(head) is not None and head.endswith(b"\r\n\r\n") and NO_FIELD.search(head) is None:
        return content, ()  # nearly always
    separators = b""
    if head.startswith((b"From ", b">")):
        found = SEPARATORS.match(head)
        separators = b"" if found is None else found[0]
    text_at = _text_in(head, len(separators))
    if not separators and text_at < 0:
        return content, ()
    done: list[str] = []
    start, octets = b"", 0
    if separators:
        start, octets = SEPARATOR.sub(MAILBOX_LINE, separators), len(separators)
        done.append("the separator line of an mbox is a field")
    if text_at >= 0:
        start, octets = start + head[octets:text_at] + b"\r\n", text_at
        done.append("an empty line before the text")
    return with_start(content, start, octets - len(content.prefix)), tuple(done)


def _text_in(head: bytes, at: int) -> int:
    """Where, from `at` on, the first line stands that is not a field; -1 where there is none."""
    if head[at : at + 1] in (b" ", b"\t"):  # it continues no field
        return at
    is_cut = len(head) >= HEADER_OCTETS
    stranger = NO_FIELD.search(b"\r\n" + head[at:] + (b"" if is_cut else b"\r\n"))
    return -1 if stranger is None else at + stranger.start()
