"""Which header fields a message's signatures cover (RFC 6376 section 3.5), and which signatures are ours.

Ours stand above our own Received field, which is the first of the message: signers come last of all.  A report has no Received
field; there all are ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from mailserver.mail.content import Content
from mailserver.mail.edits import with_fields
from mailserver.mail.headers import HeaderField, Headers

__all__ = ["signed_fields", "signed_by_others", "signed_by_us", "without_our_signatures"]

SIGNED = re.compile(r"(?:^|;)[ \t]*h[ \t]*=([^;]*)", re.S)
SIGNATURE = b"dkim-signature"


def signed_by_us(headers: Headers) -> frozenset[str]:
    """The names of fields, in lower case, that our own signatures list.  Never raises."""
    return _names(headers, ours=True)


def signed_by_others(headers: Headers) -> frozenset[str]:
    """The names of fields, in lower case, that signatures of others list, and that of the signatures.  Never raises."""
    found = _names(headers, ours=False)
    return found | {"dkim-signature"} if found else found


def signed_fields(headers: Headers) -> list[frozenset[str]]:
    """For each signature, whoever has made it, the names of fields that it lists, in lower case.  Never raises."""
    found = [SIGNED.search(value) for value in headers.get_all(SIGNATURE.decode("ascii"))]
    return [frozenset([name.strip().lower() for name in one[1].split(":")]) if one else frozenset() for one in found]


def without_our_signatures(content: Content) -> Content:
    """The message as it was before we signed it.  Raises `EditError` and OSError as `with_fields` does."""
    kept = [field for field, is_ours in _marked(content.headers) if not (is_ours and field.name == SIGNATURE)]
    return with_fields(content, b"".join([field.raw + b"\r\n" for field in kept]))


def _names(headers: Headers, *, ours: bool) -> frozenset[str]:
    if "dkim-signature" not in headers:
        return frozenset()
    names: set[str] = set()
    for field, is_ours in _marked(headers):
        found = SIGNED.search(field.value) if field.name == SIGNATURE and is_ours is ours else None
        if found is not None:
            names.update(name.strip().lower() for name in found[1].split(":"))
    return frozenset(names - {""})


def _marked(headers: Headers) -> Iterable[tuple[HeaderField, bool]]:
    """Each field with whether it stands above the first Received field."""
    is_above = True
    for field in headers:
        is_above = is_above and field.name != b"received"
        yield field, is_above
