"""From fields as mail programs write them, made valid (RFC 5322 sections 3.2.5 and 3.4).

Commas, dots and ``@`` stand without quotes in names; a list ends with a comma; a whole address is written as an encoded word,
where RFC 2047 section 5 allows only its name.  Where the text can only be meant as one name and one address, the name is quoted
and the address stands free.  Text that could be a list of authors is left alone: whether they are the user's own is another
question.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from email.errors import HeaderParseError
from email.header import Header, decode_header

from mailserver.mail.address import Address, AddressError

__all__ = ["ENCODED_WORD", "foreign_addresses", "readings"]

FOREIGN_MOST = 10
CHARACTERS_MOST = 2000  # of a field that may have been meant otherwise
QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
ENCODED_WORD = re.compile(r"=\?[^?\s]+\?[BbQq]\?[^?\s]*\?=")
ENCODED_WORDS = re.compile(rf"{ENCODED_WORD.pattern}(?:[ \t]+{ENCODED_WORD.pattern})*")
BETWEEN_WORDS = re.compile(r"(?<=\?=)[ \t]+(?==\?)")  # RFC 2047 section 6.2: no part of the text
NAME_AND_ADDRESS = re.compile(r"([^\x00-\x08\x0a-\x1f\x7f]*)<([^<>\x00-\x1f\x7f]*)>")
BLANKS = re.compile(r"[ \t]+")
WORD = r'[^\s<>()\[\]",:;@\\]'
LIKE_AN_ADDRESS = re.compile(rf"(?<!{WORD}){WORD}++@([A-Za-z0-9-]++(?:\.[A-Za-z0-9-]++)+)")


def readings(text: str) -> Iterator[str]:
    """What an author's field that cannot be understood may have been meant to say, likeliest first."""
    if len(text) > CHARACTERS_MOST:
        return
    shorter = text.strip(" \t").rstrip(" \t,")
    if shorter != text.strip(" \t") and shorter:
        yield shorter
    is_encoded = ENCODED_WORDS.fullmatch(shorter) is not None
    if is_encoded:
        whole = _decoded(shorter)
        if whole is None:
            return
        shorter = whole.strip(" \t").rstrip(" \t,")
        if shorter.isascii() and "<" not in shorter and shorter.count("@") == 1:
            yield shorter
    found = NAME_AND_ADDRESS.fullmatch(shorter)
    if found is None or _is_list(found[1]):
        return
    name = _written(found[1], is_encoded)
    if name is not None:
        yield f"{name} <{found[2].strip(' ')}>".lstrip(" ")


def foreign_addresses(text: str, authors: Iterable[Address]) -> tuple[str, ...]:
    """What looks like an address in the names of an author's field and is of none of the authors' domains: readers may take it
    for the author.
    """
    domains = set()
    for author in authors:
        try:
            domains.add(author.domain_key)
        except AddressError:
            domains.add(author.domain)
    whole = re.sub(r"\\(.)", r"\1", text) if "\\" in text else text
    if "=?" in whole:
        whole = f"{whole} {ENCODED_WORD.sub(lambda word: _decoded(word[0]) or '', BETWEEN_WORDS.sub('', whole))}"
    found = dict.fromkeys(one[0] for one in LIKE_AN_ADDRESS.finditer(whole) if one[1].lower() not in domains)
    return tuple([one.encode("utf-8", "replace").decode() for one in found][:FOREIGN_MOST])


def _decoded(words: str) -> str | None:
    """The text with its encoded words decoded (RFC 2047); None where one cannot be."""
    parts: list[str] = []
    at, joined = 0, BETWEEN_WORDS.sub("", words)
    for word in ENCODED_WORD.finditer(joined):
        try:
            ((octets, charset),) = decode_header(word[0])
            parts += joined[at : word.start()], bytes(octets).decode(charset or "ascii")
        except (HeaderParseError, LookupError, TypeError, ValueError):
            return None
        at = word.end()
    return "".join(parts) + joined[at:]


def _is_list(before: str) -> bool:
    """Whether what stands before the last address may name an author of its own."""
    return any("@" in part for part in re.split("[,;]", QUOTED.sub("", before))[:-1])


def _written(name: str, is_encoded: bool) -> str | None:
    """The name as a field can hold it: quoted, or encoded where it was so; None where it cannot be read."""
    name = QUOTED.sub(lambda found: re.sub(r"\\(.)", r"\1", found[1]), name)
    has_words = ENCODED_WORD.search(name) is not None
    text = _decoded(name) if has_words else name
    if text is None:
        return None
    text = BLANKS.sub(" ", text).strip(" ")
    if (has_words or is_encoded) and not text.isascii():
        return Header(text, "utf-8").encode(linesep="\n").replace("\n", "")
    return '"' + re.sub(r'(["\\])', r"\\\1", text) + '"' if text else ""
