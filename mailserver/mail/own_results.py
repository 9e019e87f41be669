"""Takes away fields that claim to be this host's findings and are not (RFC 8601 section 5).

Whoever reads mail later believes an Authentication-Results field with this host's name.  So one that came with the message goes,
whatever it says; those of other hosts stay.  One that hides its name behind comments without an end, or longer than anybody's,
may be ours to a program that reads on: it goes, too.
"""

from __future__ import annotations

import re

from mailserver.mail.address import AddressError, normal_domain
from mailserver.mail.content import Content
from mailserver.mail.edits import EditError, with_fields

__all__ = ["without_own_results"]

LOOKED_AT_OCTETS = 2048  # of a field
HIDDEN = b"("
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
    kept = [field.raw for field in content.headers if field.name != FIELD or _server_of(field.raw) not in (name, HIDDEN)]
    if len(kept) == len(content.headers):
        return content
    try:
        return with_fields(content, b"".join([raw + b"\r\n" for raw in kept]))
    except EditError:  # no end of the header section
        return content


def _server_of(field: bytes) -> bytes:
    """The authserv-id in lower case, b"" where there is none, `HIDDEN` where it cannot be told."""
    value = field.partition(b":")[2][:LOOKED_AT_OCTETS]
    while (shorter := COMMENT.sub(b" ", value)) != value:
        value = shorter
    if value.lstrip().startswith(b"("):
        return HIDDEN
    found = SERVER_ID.match(value)
    if found is None:
        return b""
    quoted, plain = found.groups()
    name = re.sub(rb"\\(.)", rb"\1", quoted) if quoted is not None else plain
    return _in_ascii(name.lower().rstrip(b"."))


def _in_ascii(name: bytes) -> bytes:
    """With A-labels, as `hostname` is: a message of SMTPUTF8 may have the same name otherwise (RFC 8601 section 2.2)."""
    if name.isascii():
        return name
    try:
        return normal_domain(name.decode("utf-8")).encode("ascii")
    except (UnicodeDecodeError, AddressError):
        return name
