"""Which header fields a message's signatures cover (RFC 6376 section 3.5)."""

from __future__ import annotations

import re

from mailserver.mail.headers import Headers

__all__ = ["signed_fields"]

SIGNED = re.compile(r"(?:^|;)[ \t]*h[ \t]*=([^;]*)", re.S)


def signed_fields(headers: Headers) -> frozenset[str]:
    """The names, in lower case, that any DKIM-Signature of the message lists in its tag h.  Never raises."""
    if "dkim-signature" not in headers:
        return frozenset()
    names: set[str] = {"dkim-signature"}
    for value in headers.get_all("dkim-signature"):
        found = SIGNED.search(value)
        if found is not None:
            names.update(name.strip().lower() for name in found[1].split(":"))
    return frozenset(names - {""})
