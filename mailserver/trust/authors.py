"""The domains of a message's authors: what DMARC is about (RFC 9989 section 5.3.1).

Whoever reads mail shows what stands in From, so all of it counts that some program could take for an author: each of several
fields, and of a field that cannot be understood every domain that is neither in a quoted string nor in a comment.
"""

from __future__ import annotations

import re

from mailserver.mail.address import AddressError, normal_domain
from mailserver.mail.headers import Headers
from mailserver.mail.originators import OriginatorError, mailboxes

__all__ = ["TooManyAuthors", "author_domains"]

FIELDS_MOST = 5
DOMAINS_MOST = 5
ODD_FIELD_CHARACTERS = 2_000  # of a field that cannot be understood: nobody is to hide behind its length
ASIDE = re.compile(r'"(?:[^"\\]|\\.)*"|\((?:[^()\\]|\\.)*\)')
AT_DOMAIN = re.compile(r"@[ \t]*([^\s\x00-\x1f\x7f<>()\[\]@,;:\\\"]+)")
AROUND_DOT = re.compile(r"\s*\.\s*")


class TooManyAuthors(ValueError):
    """There are more than anybody judges, or a field that cannot be understood is too long to be searched."""


def author_domains(headers: Headers) -> tuple[str, ...]:
    """Each once, in lower case with A-labels, in the order of the message; none where there is no author with a domain.

    Raises `TooManyAuthors` beyond five fields or domains.
    """
    if headers.count("From") > FIELDS_MOST:
        raise TooManyAuthors(f"the message has more than {FIELDS_MOST} From fields")
    found: dict[str, None] = {}
    for text in headers.get_all("From"):
        for domain in _domains_of(text):
            try:
                found[normal_domain(domain).strip(".")] = None
            except AddressError:
                continue
    found.pop("", None)
    if len(found) > DOMAINS_MOST:
        raise TooManyAuthors(f"the message has authors of more than {DOMAINS_MOST} domains")
    return tuple(found)


def _domains_of(text: str) -> list[str]:
    try:
        return [one.domain for one in mailboxes(text) if not one.is_literal]
    except OriginatorError:
        if len(text) > ODD_FIELD_CHARACTERS:
            raise TooManyAuthors("the From field is long and cannot be understood") from None
        plain = ASIDE.sub(" ", text)
        # Blanks and comments may stand around the dots of a domain (RFC 5322 section 4.4); some programs end it there.
        return AT_DOMAIN.findall(plain) + AT_DOMAIN.findall(AROUND_DOT.sub(".", plain))
