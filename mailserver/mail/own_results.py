"""Takes away fields that claim to be this host's findings and are not (RFC 8601 section 5).

Whoever reads mail later believes an Authentication-Results field with this host's name.  So one that came with the message goes,
whatever it says; those of other hosts stay.
"""

from __future__ import annotations

import re

from mailserver.mail.content import Content
from mailserver.mail.edits import EditError, with_fields

__all__ = ["without_own_results"]

LOOKED_AT_OCTETS = 2048  # of a field: whoever hides a name behind more comments than that is not believed by anybody
FIELD = b"authentication-results"
# RFC 8601 section 2.2: [CFWS] authserv-id [CFWS authres-version]; comments may be nested, and a name may be quoted.
COMMENT = re.compile(rb"\((?:[^()\\]|\\.)*\)", re.DOTALL)
SERVER_ID = re.compile(rb'\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;"]+))', re.DOTALL)


def without_own_results(content: Content, hostname: str) -> Content:
    """The same message without Authentication-Results of `hostname`; the same object where there are none.

    Fields of a header section that has no end within what is looked at stay.  Raises OSError.
    """
    if FIELD not in content.lower_head or content.has_cut_head:
        return content
    name = hostname.lower().encode("utf-8", "replace")
    kept = [field.raw for field in content.headers if field.name != FIELD or _server_of(field.raw) != name]
    if len(kept) == len(content.headers):
        return content
    try:
        return with_fields(content, b"".join([raw + b"\r\n" for raw in kept]))
    except EditError:  # no end of the header section
        return content


def _server_of(field: bytes) -> bytes:
    """The authserv-id in lower case, b"" where there is none."""
    value = field.partition(b":")[2][:LOOKED_AT_OCTETS]
    while (shorter := COMMENT.sub(b" ", value)) != value:
        value = shorter
    found = SERVER_ID.match(value)
    if found is None:
        return b""
    quoted, plain = found.groups()
    name = re.sub(rb"\\(.)", rb"\1", quoted) if quoted is not None else plain
    return name.lower().rstrip(b".")
