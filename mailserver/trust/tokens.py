"""What of a message counts when its content is weighed: words, and what else says what kind of mail it is.

The octets are anybody's.  What is read of them is bounded, each pattern takes a time that grows with the text alone, and nothing
here raises.  Fields that a server adds on the way are left out: the same message has the same tokens before and after.
"""

from __future__ import annotations

import contextlib
import html
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from email.header import decode_header
from hashlib import blake2b

from mailserver.mail.content import Content
from mailserver.mail.headers import Headers
from mailserver.mail.message_parts import MessagePart, MessageParts

__all__ = ["READ_OCTETS", "TOKENS_MOST", "ReducedMessage", "hashes_of", "reduced", "start_of", "tokens_of"]

READ_OCTETS = 262_144  # of the message, from its start
TEXT_OCTETS = 65_536  # of its text parts, decoded
TOKENS_MOST = 1500  # different ones
FIELD_CHARACTERS = 1000
WORD_CHARACTERS = 24
TOKEN_CHARACTERS = 60
WORD = re.compile(r"[$€£]?[^\W_]+(?:['’.\-][^\W_]+)*")
ASCII_WORD = re.compile(r"\$?[a-z0-9]++(?:['.\-][a-z0-9]++)*+")  # the same in lower case
BLANKS_BETWEEN = "".join([chr(n) if chr(n).isalnum() or chr(n) in "$'.-" else " " for n in range(128)])
INNER = re.compile(r"[^\W_]+")
WIDE = re.compile("[\u0e00-\u0e7f\u2e80-\u9fff\uac00-\ud7ff\uf900-\ufaff\U00020000-\U0003ffff]")  # written without blanks
URL = re.compile(r"https?://([^\s/?#<>\"'()\[\]\\]{1,255})[^\s<>\"']{0,2000}", re.IGNORECASE)
LINK = re.compile(r"""(?:href|src)\s{0,20}=\s{0,20}["']?https?://([^\s/?#<>"'()\[\]\\]{1,255})""", re.IGNORECASE)
TAG = re.compile(r"<([/!]?[a-zA-Z0-9]{0,12})[^<>]*>")
HIDDEN = re.compile(r"<(script|style|title)\b|<!--", re.IGNORECASE)
HIDDEN_ENDS = {"script": re.compile("</script", re.IGNORECASE), "style": re.compile("</style", re.IGNORECASE),
    "title": re.compile("</title", re.IGNORECASE), "": re.compile("-->")}  # fmt: skip
INLINE = frozenset("a abbr b big em font i s small span strong sub sup u wbr".split())
CHARSET = re.compile(r"charset\s{0,20}=\s{0,20}\"?([A-Za-z0-9_.:\-]{1,40})", re.IGNORECASE)
# Python knows charsets that are none, and some that take a time that grows faster than the text.
CHARSETS = re.compile(
    r"(?:utf-?8|(?:us-)?ascii|iso-?8859-?[0-9]{1,2}|(?:windows|cp)-?[0-9]{3,4}|koi8-?[ru]|gb2312|gbk|gb18030|big5(?:-?hkscs)?"
    r"|shift_?jis|euc-?(?:jp|kr)|iso-2022-(?:jp|kr)|tis-620|macintosh|latin-?[0-9]{1,2})",
    re.IGNORECASE,
)
ADDRESS = re.compile(r"([^\s<>@,;:\"()]{1,64})@([A-Za-z0-9.\-]{1,255})")
RECEIVED_HERE = re.compile(r"\bby ([A-Za-z0-9.\-]{1,255})\b.{0,200}?\bid ([0-9A-Za-z]{6,40})\b", re.DOTALL)
LINE_END = re.compile(rb"\r?\n")
RECEIVED_MOST = 5  # of the newest


@dataclass(frozen=True, slots=True)
class ReducedMessage:
    """What is learnt of a message: nothing that could be read without the key.

    `digest` (16 octets) tells it from others, `hashes` (64 bits, signed) are those of its tokens.  `id` is the one under which
    this server took it, "" where it does not say.
    """

    digest: bytes
    hashes: tuple[int, ...]
    id: str = ""


def reduced(octets: bytes, key: bytes, hostname: str = "") -> tuple[ReducedMessage, tuple[str, ...]]:
    """The message as it is learnt, and its tokens, each at the place of its hash.  Never raises."""
    tokens = tokens_of(octets)
    hashes = tuple(hashes_of(tokens, key))
    headers = Headers.parse(octets.partition(b"\r\n\r\n")[0])
    whole = blake2b(key=key, digest_size=16, person=b"message")
    for name in ("message-id", "date"):
        field = (headers.get(name) or "").encode("utf-8", "surrogatepass")
        whole.update(len(field).to_bytes(4, "big") + field)
    for number in sorted(hashes):
        whole.update(number.to_bytes(8, "big", signed=True))
    return ReducedMessage(whole.digest(), hashes, _id_here(headers, hostname)), tokens


def hashes_of(tokens: Sequence[str], key: bytes) -> list[int]:
    """As which tokens are kept: 64 bits, signed."""
    keyed = blake2b(key=key, digest_size=8, person=b"token")
    hashes = []
    for token in tokens:
        one = keyed.copy()
        one.update(token.encode("utf-8", "surrogatepass"))
        hashes.append(int.from_bytes(one.digest(), "big", signed=True))
    return hashes


def _id_here(headers: Headers, hostname: str) -> str:
    """Of the newest Received field that is ours."""
    if not hostname:
        return ""
    for value in headers.get_all("received")[:RECEIVED_MOST]:
        found = RECEIVED_HERE.search(value[:FIELD_CHARACTERS])
        if found is not None and found[1].lower() == hostname.lower():
            return found[2]
    return ""


def start_of(file: int) -> bytes:
    """As much of a message in a file, a descriptor, as is read of it; lines end with CRLF, as on the wire.  Raises OSError."""
    octets = b""
    while len(octets) < READ_OCTETS and (piece := os.read(file, READ_OCTETS - len(octets))):
        octets += piece
    return LINE_END.sub(b"\r\n", octets)


def tokens_of(octets: bytes) -> tuple[str, ...]:
    """The different tokens of a message whose lines end with CRLF, in their order; of a long one those of its start."""
    content = Content.of(octets[:READ_OCTETS])
    found: dict[str, None] = {}
    # Octets of strangers go through the standard library's codecs: whatever that raises, what was found until then counts.
    with contextlib.suppress(Exception):
        for several in _tokens(content):
            if several.__class__ is list:  # short ones
                found.update(dict.fromkeys(several))
            else:
                for token in several:
                    found[token[:TOKEN_CHARACTERS]] = None
                    if len(found) >= TOKENS_MOST:
                        break
            if len(found) >= TOKENS_MOST:
                break
    return tuple(found)[:TOKENS_MOST]


def _tokens(content: Content) -> Iterator[Iterable[str]]:
    headers = content.headers
    yield (f"subject:{word}" for word in _words(_field(headers, "subject")))
    for name in ("from", "reply-to"):
        value = _field(headers, name)
        for local, domain in ADDRESS.findall(value)[:5]:
            yield f"{name}:{local.lower()}@{domain.lower()}", f"{name}:@{domain.lower()}"
        if name == "from":
            yield (f"from:{word}" for word in _words(value.partition("<")[0]))
    for name in ("list-id", "x-mailer", "user-agent"):
        if value := _field(headers, name):
            yield (f"{name}:{' '.join(list(_all_words(value))[:3])}",)
    left = TEXT_OCTETS
    for part in MessageParts(content, _nothing):
        if part.is_multipart:
            continue
        if part.depth > 1 or part.kind != "text/plain":
            yield (f"part:{part.kind[:40]}",)
        if part.name:
            yield (f"name:{part.name.rpartition('.')[2].lower()[:10]}",)
        if part.kind in ("text/plain", "text/html") and left > 0:
            text = _start_of(part, left)
            left -= len(text)
            yield from _text_tokens(_decoded(text, part), is_html=part.kind == "text/html")


def _nothing(_: str) -> None:
    """What lies beyond the bounds is told by those who look for it."""


def _start_of(part: MessagePart, octets: int) -> bytes:
    pieces = []
    for piece in part.chunks():
        pieces.append(piece[:octets])
        octets -= len(piece)
        if octets <= 0:
            break
    return b"".join(pieces)


def _decoded(text: bytes, part: MessagePart) -> str:
    found = CHARSET.search((part.headers.get("content-type") or "")[:FIELD_CHARACTERS])
    charset = found[1] if found is not None and CHARSETS.fullmatch(found[1]) else "utf-8"
    try:
        return text.decode(charset, "replace")
    except (LookupError, UnicodeError):
        return text.decode("utf-8", "replace")


def _field(headers: Headers, name: str) -> str:
    value = (headers.get(name) or "")[:FIELD_CHARACTERS]
    if "=?" not in value:
        return value
    try:
        parts = decode_header(value)
    except Exception:  # noqa: BLE001  of the standard library, over octets of strangers
        return value
    texts = []
    for part, charset in parts:
        if isinstance(part, str):
            texts.append(part)
        else:
            name_of = charset if charset and CHARSETS.fullmatch(charset) else "utf-8"
            try:
                texts.append(part.decode(name_of, "replace"))
            except (LookupError, UnicodeError):
                texts.append(part.decode("utf-8", "replace"))
    return " ".join(texts)


def _text_tokens(text: str, *, is_html: bool) -> Iterator[Iterable[str]]:
    if is_html:
        for host in LINK.findall(text):
            yield _host_tokens(host)
        text = html.unescape(TAG.sub(_in_place_of_tag, _without_hidden(text)))
    if "://" in text:
        for host in URL.findall(text):
            yield _host_tokens(host)
        text = URL.sub(" ", text)
    yield _words(text)


def _in_place_of_tag(tag: re.Match[str]) -> str:
    """Within a word a tag that changes its looks alone does not end it."""
    return "" if tag[1].lstrip("/!").lower() in INLINE else " "


def _without_hidden(text: str) -> str:
    """Without comments and without what no reader sees."""
    kept, at = [], 0
    while (start := HIDDEN.search(text, at)) is not None:
        kept.append(text[at : start.start()])
        end = HIDDEN_ENDS[(start[1] or "").lower()].search(text, start.end())
        if end is None:
            return "".join(kept)
        at = end.end()
    return "".join((*kept, text[at:]))


def _host_tokens(host: str) -> Iterable[str]:
    name = host.rpartition("@")[2].partition(":")[0].lower().strip(".")
    yield f"url:{name}"
    shorter = ".".join(name.split(".")[-2:])
    if shorter != name and not shorter.replace(".", "").isdigit():
        yield f"url:{shorter}"


def _words(text: str) -> Iterable[str]:
    return _ascii_words(text.lower()) if text.isascii() else _all_words(text)


def _ascii_words(text: str) -> Sequence[str]:
    """Those of nearly all text, in lower case: each word is looked at once."""
    words: Iterable[str] = dict.fromkeys(text.translate(BLANKS_BETWEEN).split())
    if not all(map(str.isalnum, words)):  # nearly all are as they stand: to look at the others alone is quicker
        words = dict.fromkeys([found for word in words for found in ((word,) if word.isalnum() else ASCII_WORD.findall(word))])
    if max(map(len, words), default=0) > WORD_CHARACTERS:
        words = [part for word in words for part in ([word] if len(word) <= WORD_CHARACTERS else INNER.findall(word))]
        words = [found for word in words for found in _word(word)]
    return [word for word in words if len(word) >= 3 and not word.isdigit()]


def _all_words(text: str) -> Iterator[str]:
    for word in WORD.findall(text):
        if len(word) > WORD_CHARACTERS and not WIDE.search(word):
            for inner in INNER.findall(word):
                yield from _word(inner)
        else:
            yield from _word(word)


def _word(word: str) -> Sequence[str] | Iterator[str]:
    if word.isascii():
        if len(word) > WORD_CHARACTERS:
            return (f"long:{word[0].lower()}{len(word) // 10}",)
        return () if len(word) < 3 or word.isdigit() else (word.lower(),)
    if WIDE.search(word):
        pairs = [word[n : n + 2] for n in range(min(len(word) - 1, TEXT_OCTETS))] or [word]
        return iter(pairs)
    if len(word) > WORD_CHARACTERS:
        return (f"long:{len(word) // 10}",)
    word = unicodedata.normalize("NFKC", word).casefold()  # of a short word: a long one takes its square's time
    return () if len(word) < 3 or word.isdigit() else (word,)
