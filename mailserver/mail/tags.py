"""Tags: header fields that one recipient's copy gets at local delivery, and nobody else sees.

They stand above the message in his mailbox, are in no signature and go to no other host.  Fields of the same kind that came with
a message are not ours, and whoever reads them would take them for ours: at local delivery they are left out, as Return-Path is.
Until then they stay where they are, since a signature may cover them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from mailserver.mail.answers import Finding
from mailserver.mail.content import Content
from mailserver.mail.edits import EditError, with_fields

__all__ = ["TAG_OCTETS", "added_tags", "for_final_delivery", "tag_lines"]

TAG_OCTETS = 4096  # of one copy
RETURN_PATH = b"return-path"
TAGS = (b"x-spam-", b"x-quarantine")


def tag_lines(findings: Iterable[Finding], more: Iterable[bytes] = ()) -> tuple[bytes, int]:
    """The header fields that these findings want in a copy, with `more` in front, each with its CRLF: `TAG_OCTETS` at most.

    Returns them, and how many did not fit.
    """
    fields = dict.fromkeys([*more, *(tag.octets for finding in findings for tag in finding.tags)])
    kept: list[bytes] = []
    octets = 0
    for field in fields:
        if octets + len(field) <= TAG_OCTETS:
            octets += len(field)
            kept.append(field)
    return b"".join(kept), len(fields) - len(kept)


def added_tags(before: Content, after: Content) -> list[bytes]:
    """The fields named like tags that `after` has and `before` has not, each with its CRLF.  Raises OSError.

    They are a modifier's, which wants them in the message: they stay, where those that came with it do not.
    """
    if not _may_have_tags(after):
        return []
    known = Counter([field.raw for field in before.headers if field.name.startswith(TAGS)])
    found = Counter([field.raw for field in after.headers if field.name.startswith(TAGS)])
    return [raw + b"\r\n" for raw in (found - known).elements()]


def for_final_delivery(content: Content) -> Content:
    """Without a Return-Path (RFC 5321 section 4.4) and tags: the delivery writes its own.  Never raises."""
    try:
        if not _may_have_tags(content) and RETURN_PATH not in content.lower_head:
            return content
        headers = content.headers
        kept = [one.raw for one in headers if one.name != RETURN_PATH and not one.name.startswith(TAGS)]
        return content if len(kept) == len(headers) else with_fields(content, b"".join([raw + b"\r\n" for raw in kept]))
    except (EditError, OSError):  # no end of the header section; or a file that whoever writes the message meets, too
        return content


def _may_have_tags(content: Content) -> bool:
    head = content.lower_head
    return any(tag in head for tag in TAGS)
