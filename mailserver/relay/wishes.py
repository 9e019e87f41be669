"""What a message says of its encryption itself (RFC 8689): REQUIRETLS in its envelope, ``TLS-Required: No`` in its header."""

from __future__ import annotations

import re
from typing import NamedTuple

from mailserver.mail.content import HEADER_OCTETS, Content
from mailserver.mail.envelope import Envelope

__all__ = ["NO_WISHES", "TLSWishes", "wishes_of"]

NAME = b"tls-required"
SEEN = re.compile(rb"\ntls-required", re.IGNORECASE)
FIELD = re.compile(rb"^tls-required[ \t]*:((?:[^\r\n]|\r\n[ \t])*)", re.MULTILINE)


class TLSWishes(NamedTuple):
    """What a message says of its encryption: REQUIRETLS, or the header field ``TLS-Required: No`` (RFC 8689)."""

    requires_tls: bool = False
    tls_not_required: bool = False


NO_WISHES = TLSWishes()
REQUIRES_TLS = TLSWishes(requires_tls=True)
TLS_NOT_REQUIRED = TLSWishes(tls_not_required=True)


def wishes_of(envelope: Envelope, content: Content) -> TLSWishes:
    """What the relay has to heed.

    A report goes on without REQUIRETLS where the next host does not take it (section 5).
    """
    if envelope.parameters.requiretls:  # section 4.1: then the field is not looked at
        return NO_WISHES if envelope.sender is None else REQUIRES_TLS
    return TLS_NOT_REQUIRED if _says_no(content) else NO_WISHES


def _says_no(content: Content) -> bool:
    """Section 3: one field with the value "No".  Several, or any other value, say nothing."""
    data = content.data
    if data is not None and not (_may_have(data) or _may_have(content.prefix)):
        return False  # most mail: found out without a copy of the header
    try:
        head = content.lower_head
    except OSError:  # whoever sends it will see
        return False
    if NAME not in head:
        return False
    fields = FIELD.findall(head)
    return len(fields) == 1 and fields[0].strip() == b"no"


def _may_have(octets: bytes) -> bool:
    """Whether the field stands in a header section that begins, or goes on, with these octets."""
    end = octets.find(b"\r\n\r\n", 0, HEADER_OCTETS)
    return SEEN.search(octets, 0, end if end >= 0 else HEADER_OCTETS) is not None or octets[: len(NAME)].lower() == NAME
