"""Mail of users to many: whether its readers can unsubscribe with one click (RFC 8058, RFC 2369).

Large providers ask for it, and put mail without it into Spam.  It takes two fields, and a signature that covers both, as ours
does (`dkim_signing`):

    List-Unsubscribe: <mailto:leave@example.org>, <https://example.org/leave?token=x>
    List-Unsubscribe-Post: List-Unsubscribe=One-Click
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field
from zope.interface import implementer

from mailserver.api import (
    Content,
    Envelope,
    Finding,
    IComponentFactory,
    IContentFilter,
    Options,
    Pass,
    Refuse,
    Reply,
    Services,
    Verdict,
)
from mailserver.mail.headers import Headers
from mailserver.mail.signatures import signed_fields

__all__ = ["ListUnsubscribe", "ListUnsubscribeOptions", "factory", "faults_of", "is_bulk", "uris_of"]

FIELD, POST = "List-Unsubscribe", "List-Unsubscribe-Post"
LIST_FIELDS = (
    FIELD, POST, "List-Id", "List-Help", "List-Subscribe", "List-Post", "List-Owner", "List-Archive"
)  # fmt: skip  # RFC 2369 section 3, and List-Id
BULK = frozenset({"bulk", "list"})  # of Precedence
ONE_CLICK = "list-unsubscribe=one-click"  # RFC 8058 section 3.1; ABNF knows no case
VALUE_CHARACTERS = 10_000  # of a field, that are looked at
IN_BRACKETS = re.compile(r"<([^<>]*)>")
BLANKS = re.compile(r"[ \t]+")
REFUSED = Reply.of(550, "5.7.1", "Mail to many needs List-Unsubscribe, with an https URI, and List-Unsubscribe-Post (RFC 8058)")
Score = Annotated[float, Field(ge=-1000, le=1000, allow_inf_nan=False)]


class ListUnsubscribeOptions(Options):
    """Which mail is looked at, and what comes of it."""

    recipients: Annotated[int, Field(ge=1)] = 50
    """A message of a user to so many recipients is looked at, also without a field that says that it is from a list."""
    score: Score = 0.0
    """The score of the finding."""
    refuse: bool = False
    """Refuse such mail in place of a finding; the user hears why."""


@implementer(IContentFilter)
class ListUnsubscribe:
    """Looks at mail of those who have logged in."""

    def __init__(self, options: ListUnsubscribeOptions) -> None:
        self._options = options

    async def judge_content(self, envelope: Envelope, content: Content) -> Verdict:
        """A finding, or what the administrator has said."""
        if envelope.peer.service != "submission" and not envelope.peer.login:
            return Pass()
        headers, many = content.headers, len(envelope.recipients) >= self._options.recipients
        if not (many or is_bulk(headers)):
            return Pass()
        faults = dict(faults_of(headers))
        if not faults:
            return Pass()
        evidence = "; ".join(faults.values())
        facts: dict[str, str | int | float | bool | None] = {"faults": " ".join(faults), "recipients": len(envelope.recipients)}
        finding = Finding("list_unsubscribe", self._options.score, evidence, facts)
        if self._options.refuse:
            return Refuse(f"mail to many without a one-click unsubscribe: {evidence}", findings=(finding,), reply=REFUSED)
        return Pass(findings=(finding,))


def is_bulk(headers: Headers) -> bool:
    """The message says that it is from a list."""
    if any(name in headers for name in LIST_FIELDS):
        return True
    return (headers.get("Precedence") or "").strip().lower() in BULK


def faults_of(headers: Headers) -> Iterator[tuple[str, str]]:
    """What keeps a reader from unsubscribing with one click: a word for programs, and a sentence for people."""
    fields, posts = headers.get_all(FIELD), headers.get_all(POST)
    if not fields:
        yield "missing", f"there is no {FIELD} field"
    elif len(fields) > 1:
        yield "several", f"{FIELD} stands {len(fields)} times"
    if fields:
        yield from _faults_of_uris(fields[0])
    if not posts:
        yield "no-post", f"there is no {POST} field"
    elif len(posts) > 1:
        yield "several-posts", f"{POST} stands {len(posts)} times"
    elif posts[0].lower() != ONE_CLICK:
        yield "post", f"{POST} is not List-Unsubscribe=One-Click"
    signatures = signed_fields(headers)
    if fields and posts and signatures and not any({FIELD.lower(), POST.lower()} <= names for names in signatures):
        yield "unsigned", "the signature that it brings along does not cover both fields"


def _faults_of_uris(value: str) -> Iterator[tuple[str, str]]:
    uris, is_clean = uris_of(value)
    if not is_clean:
        yield "syntax", f"{FIELD} has more than URIs in angle brackets, with commas between them"
    secure = [one for one in uris if _scheme(one) == "https"]
    if not secure:
        yield "no-https", f"{FIELD} names no https URI"
    elif len(secure) > 1:
        yield "several-https", f"{FIELD} names {len(secure)} https URIs"
    if any(_scheme(one) == "http" for one in uris):
        yield "http", f"{FIELD} names an http URI"


def uris_of(value: str) -> tuple[Sequence[str], bool]:
    """The URIs of a field of RFC 2369, and whether nothing else is in it.  Blanks in them count for nothing (section 2)."""
    text, is_closed = _without_comments(value[:VALUE_CHARACTERS])
    uris = [BLANKS.sub("", one) for one in IN_BRACKETS.findall(text)]
    between = IN_BRACKETS.sub("<>", text).split(",")
    return uris, is_closed and len(value) <= VALUE_CHARACTERS and all(one.strip(" \t") == "<>" for one in between)


def _without_comments(value: str) -> tuple[str, bool]:
    """Comments (RFC 5322 section 3.2.2) stand between the URIs: one in angle brackets is part of the URI."""
    kept: list[str] = []
    depth, in_uri, escaped = 0, False, False
    for character in value:
        if escaped:
            escaped = False
        elif depth and character == "\\":
            escaped = True
        elif not in_uri and character == "(":
            depth += 1
        elif depth and character == ")":
            depth -= 1
        elif not depth:
            in_uri = character == "<" or (in_uri and character != ">")
            kept.append(character)
    return "".join(kept), depth == 0


def _scheme(uri: str) -> str:
    """In lower case; "" for what is no URI that a program could follow."""
    if not uri.isascii() or not uri.isprintable():
        return ""
    try:
        parts = urlsplit(uri)
        host = parts.hostname
    except ValueError:
        return ""
    if parts.scheme in ("http", "https") and not host:
        return ""
    return parts.scheme


@implementer(IComponentFactory)
class ListUnsubscribeFactory:
    """Makes the filter for ``[[filter]] use = "list_unsubscribe"``."""

    name = "list_unsubscribe"
    summary = "Tells mail of users to many that cannot be unsubscribed with one click (RFC 8058)."
    api_version = "1.0"
    replays = True
    provides = IContentFilter
    options = ListUnsubscribeOptions

    def build(self, options: ListUnsubscribeOptions, services: Services) -> ListUnsubscribe:
        """Return the filter."""
        return ListUnsubscribe(options)


factory = ListUnsubscribeFactory()
