"""The originator fields From and Sender (RFC 5322 section 3.6.2), read strictly.

    from          = "From:" mailbox-list CRLF
    sender        = "Sender:" mailbox CRLF
    mailbox-list  = (mailbox *("," mailbox))
    mailbox       = [display-name] "<" addr-spec ">" / addr-spec

What other programs could read differently is not understood at all: several fields of a name, lines that are no
field, groups, routes, comments inside an address, and names that look like an address in angle brackets.  What can have been
meant in one way only is mended (`mailserver.mail.display_names`).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.errors import HeaderParseError
from email.header import decode_header

from mailserver.mail.address import ATEXT, Address, AddressError
from mailserver.mail.display_names import ENCODED_WORD, foreign_addresses, readings
from mailserver.mail.headers import FOLD, HeaderField, Headers

__all__ = ["OriginatorError", "Originators", "mailboxes", "originators"]

AUTHORS_MOST = 20
FIELD_CHARACTERS = 10_000
REMEMBERED = 1000  # lists: several filters ask about the same message, and most people write more than one
REMEMBERED_CHARACTERS = 320
COMMENT_DEPTH = 10
LINE_CHARACTERS = 78  # RFC 5322 section 2.1.1
LINE_OCTETS = 998

WORD = rf"[{ATEXT}\u0080-\U0010ffff]"
QUOTED = r'"(?:[^"\\]|\\.)*"'
BLANKS = re.compile(r"[ \t]*")
ATOMS = re.compile(rf"(?:{WORD}|\.)+")  # with the dots of obs-phrase (section 4.1): "John Q. Public"
QUOTED_STRING = re.compile(QUOTED)
ADDR_SPEC = re.compile(rf"(?:{QUOTED}|(?:{WORD}|\.)+)@(?:\[[^\[\]\\\s]*\]|(?:{WORD}|\.)+)")
ANGLE_ADDR = re.compile(rf'<((?:{QUOTED})?[^<>"\s()\\]*)>')
COMMENT_PART = re.compile(r"[^()\\]+|\\.")
ESCAPED = re.compile(r"\\(.)")
CONTROL = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")
LIKE_AN_ADDRESS = re.compile(r"<[^<>]*@|[\x00\r\n]")


class OriginatorError(ValueError):
    """The fields cannot be understood.  The message says why, in words of ours, fit for a reply."""


@dataclass(frozen=True, slots=True)
class Originators:
    """`authors` of the From field, none where there is no such field; `sender` None where there is no Sender field.

    `mended` has new values for fields that were not quite right, by name; `foreign` the addresses in the names of authors that
    are of none of their domains.
    """

    authors: tuple[Address, ...]
    sender: Address | None
    mended: Mapping[str, bytes] = field(default_factory=dict)
    foreign: tuple[str, ...] = ()


def originators(head: bytes, headers: Headers | None = None) -> Originators:
    """Read a header section; `headers` are its fields, where somebody has them already.  Raises `OriginatorError`."""
    pairs = head.count(b"\r\n")
    if head.count(b"\r") != pairs or head.count(b"\n") != pairs:
        raise OriginatorError("The header section holds a CR or LF that is not part of CRLF")
    if headers is None:
        headers = Headers.parse(head)
    if headers.has_other_lines:
        raise OriginatorError("The header section has a line that is no field")
    mended: dict[str, bytes] = {}
    authors, text = _field(headers, "From", mended)
    sender, _ = _field(headers, "Sender", mended)
    if len(sender) > 1:
        raise OriginatorError("The Sender field names more than one")
    return Originators(authors, sender[0] if sender else None, mended, foreign_addresses(text, authors))


def mailboxes(text: str) -> tuple[Address, ...]:
    """The addresses of a mailbox-list.  Raises `OriginatorError`, whose words begin in the middle of a sentence."""
    return _remembered(text) if len(text) <= REMEMBERED_CHARACTERS else _mailboxes(text)


def _mailboxes(text: str) -> tuple[Address, ...]:
    if len(text) > FIELD_CHARACTERS:
        raise OriginatorError("is too long")
    if CONTROL.search(text):
        raise OriginatorError("holds a control character")
    found: list[Address] = []
    at = 0
    while True:
        address, at = _mailbox(text, _skip(text, at))
        found.append(address)
        if len(found) > AUTHORS_MOST:
            raise OriginatorError("names too many")
        at = _skip(text, at)
        if at == len(text):
            return tuple(found)
        if text[at] != ",":
            raise OriginatorError("cannot be understood")
        at += 1


_remembered = functools.lru_cache(REMEMBERED)(_mailboxes)


def _field(headers: Headers, name: str, mended: dict[str, bytes]) -> tuple[tuple[Address, ...], str]:
    """The addresses of the one field of this name, and its text.  What has to be mended comes into `mended`."""
    fields = headers.fields(name)
    if len(fields) > 1:
        raise OriginatorError(f"There is more than one {name} field")
    if not fields:
        return (), ""
    text = _text_of(fields[0])
    try:
        return mailboxes(text), text
    except OriginatorError as error:
        fault = OriginatorError(f"The {name} field {error}")
    for reading in readings(text):
        try:
            found = mailboxes(reading)
        except OriginatorError:
            continue
        mended[name] = _folded(name, reading)
        return found, reading
    raise fault


def _text_of(one: HeaderField) -> str:
    """Its value; octets that are no UTF-8 come through, so that they can be written again."""
    value = one.raw.partition(b":")[2]
    return FOLD.sub(b"", value).strip(b" \t\r\n").decode("utf-8", "surrogateescape")


def _folded(name: str, text: str) -> bytes:
    """On two lines where it does not fit on one (RFC 5322 section 2.1.1).  Raises `OriginatorError`."""
    before, blank, address = text.rpartition(" <")
    if len(name) + len(text) + 2 > LINE_CHARACTERS and blank:
        text = f"{before}\r\n <{address}"
    octets = text.encode("utf-8", "surrogateescape")
    if max(map(len, octets.split(b"\r\n"))) + len(name) + 2 > LINE_OCTETS:
        raise OriginatorError(f"The {name} field is too long")
    return octets


def _mailbox(text: str, at: int) -> tuple[Address, int]:
    bare = ADDR_SPEC.match(text, at)
    if bare is not None:
        return _address(bare[0]), bare.end()
    start = at
    while text[at : at + 1] != "<":
        name = (QUOTED_STRING if text[at : at + 1] == '"' else ATOMS).match(text, at)
        if name is None:
            raise OriginatorError("cannot be understood")
        at = _skip(text, name.end())
    angle = ANGLE_ADDR.match(text, at)
    _check_name(text[start:at], "" if angle is None else angle[0])
    if angle is None:
        raise OriginatorError("cannot be understood")
    return _address(angle[1]), angle.end()


def _address(text: str) -> Address:
    try:
        address = Address.parse(text, utf8=True)
    except AddressError as error:
        raise OriginatorError("holds what is no address") from error
    if "=?" in text:  # some programs decode encoded words here, where RFC 2047 section 5 allows none
        raise OriginatorError("has an encoded word in an address")
    return address


def _check_name(text: str, own: str = "") -> None:
    """A display name, or a comment, must not look like an address to a program that reads carelessly; but `own` it may repeat."""
    plain = ESCAPED.sub(r"\1", text) if "\\" in text else text
    for name in (plain, "".join(map(_decoded, ENCODED_WORD.findall(plain)))) if "=?" in plain else (plain,):
        if LIKE_AN_ADDRESS.search(name.replace(own, "") if own else name):
            raise OriginatorError("has a name that looks like an address")


def _decoded(word: str) -> str:
    """As far as the look needs it: in all other charsets that are in use "<" and "@" after it are these octets."""
    try:
        ((octets, charset),) = decode_header(word)
        shifts = charset is not None and charset.lower().startswith("iso-2022-")
        return bytes(octets).decode(charset if shifts and charset else "latin-1", "replace")
    except (HeaderParseError, LookupError, TypeError, ValueError):
        return ""  # nobody can show it


def _skip(text: str, at: int) -> int:
    """Over blanks and comments (section 3.2.2)."""
    while True:
        at = BLANKS.match(text, at).end()  # type: ignore[union-attr]
        if text[at : at + 1] != "(":
            return at
        start, depth = at, 0
        while True:
            if text[at : at + 1] == "(":
                depth, at = depth + 1, at + 1
            elif text[at : at + 1] == ")":
                depth, at = depth - 1, at + 1
            else:
                part = COMMENT_PART.match(text, at)
                if part is None:
                    raise OriginatorError("cannot be understood")
                at = part.end()
            if depth > COMMENT_DEPTH:
                raise OriginatorError("cannot be understood")
            if depth == 0:
                break
        _check_name(text[start:at])
