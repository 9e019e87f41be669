"""What a peer offers in its answer to EHLO or LHLO (RFC 5321 section 4.1.1.1).

    ehlo-ok-rsp  = ( "250" SP Domain [ SP ehlo-greet ] CRLF ) / ( "250-" ... *( "250-" ehlo-line CRLF ) "250" SP ehlo-line CRLF )
    ehlo-line    = ehlo-keyword *( SP ehlo-param )

Lines that are none of these, and parameters that make no sense, count as not said.  How many lines there are, and how long,
has been bounded by the reading of the reply.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["NOTHING_OFFERED", "Offer"]

NUMBER = re.compile("[0-9]{1,20}")  # RFC 1870 section 4: size-value; RFC 9422 section 3 has up to six digits
MECHANISM = re.compile("[A-Z0-9_-]{1,20}")  # RFC 4422 section 3.1


@dataclass(frozen=True, slots=True)
class Offer:
    """The extensions that a peer has offered.

    `host` is the name it gave itself, `extended` says that it knows EHLO (or LHLO) at all.  `size_max` is the largest message
    in octets, `recipients_max`, `recipient_domains_max` and `mail_max` are RCPTMAX, RCPTDOMAINMAX and MAILMAX of LIMITS; 0
    means that none was told.
    """

    host: str = ""
    extended: bool = False
    pipelining: bool = False  # RFC 2920
    size: bool = False  # RFC 1870
    size_max: int = 0
    eightbitmime: bool = False  # RFC 6152
    smtputf8: bool = False  # RFC 6531
    chunking: bool = False  # RFC 3030
    binarymime: bool = False  # RFC 3030
    dsn: bool = False  # RFC 3461
    prdr: bool = False  # draft-hall-prdr
    starttls: bool = False  # RFC 3207
    requiretls: bool = False  # RFC 8689
    enhancedstatuscodes: bool = False  # RFC 2034
    auth: tuple[str, ...] = ()  # RFC 4954
    recipients_max: int = 0  # RFC 9422
    recipient_domains_max: int = 0
    mail_max: int = 0

    @classmethod
    def parse(cls, lines: Sequence[str]) -> Offer:
        """The lines of a 250 reply to EHLO or LHLO, without codes."""
        words: dict[str, list[str]] = {}
        for line in lines[1:]:
            # "AUTH=LOGIN" is how it was written before RFC 2554, for clients that know no other form.
            keyword, *parameters = line.replace("AUTH=", "AUTH ", 1).split()[:64] or [""]
            words.setdefault(keyword.upper(), []).extend(parameters)
        limits = _limits(words.get("LIMITS", ()))
        size = words.get("SIZE")
        return cls(
            host=(lines[0].split() or [""])[0],
            extended=True,
            pipelining="PIPELINING" in words,
            size=size is not None,
            size_max=_number(size[0]) if size else 0,
            eightbitmime="8BITMIME" in words,
            smtputf8="SMTPUTF8" in words,
            chunking="CHUNKING" in words,
            binarymime="BINARYMIME" in words and "CHUNKING" in words,  # RFC 3030 section 3: of no use without
            dsn="DSN" in words,
            prdr="PRDR" in words,
            starttls="STARTTLS" in words,
            requiretls="REQUIRETLS" in words,
            enhancedstatuscodes="ENHANCEDSTATUSCODES" in words,
            auth=_mechanisms(words.get("AUTH", ())),
            recipients_max=limits.get("RCPTMAX", 0),
            recipient_domains_max=limits.get("RCPTDOMAINMAX", 0),
            mail_max=limits.get("MAILMAX", 0),
        )


NOTHING_OFFERED = Offer()


def _number(text: str) -> int:
    return int(text) if NUMBER.fullmatch(text) else 0


def _limits(words: Sequence[str]) -> dict[str, int]:
    """RFC 9422 section 3: name "=" value."""
    parts = [word.partition("=") for word in words]
    return {name.upper(): _number(value) for name, _, value in parts if _number(value)}


def _mechanisms(words: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(word for word in map(str.upper, words) if MECHANISM.fullmatch(word)))
